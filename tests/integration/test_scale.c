// Fifty agents on one machine: all 2,450 directed pairs, every cell ok.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

#define AGENTS 50

static void fifty_agents_are_measured_without_a_gap(void **state)
{
    (void)state;
    char *topology = mesh_topology_plain(AGENTS);
    mesh_t *mesh = mesh_up(topology, "");
    free(topology);
    struct outcome idle = mesh_shell(mesh, 20,
        "for p in $DIR/agents/*/pid; do $LAB exec ctl awk '/VmRSS/ {print $2}' "
        "/proc/$(cat $p)/status; done | sort -n | tail -1");
    printf("# largest idle agent: %s KiB resident\n", strtok(idle.out, "\n"));
    int status;
    json_t *run = mesh_json(mesh, &status, 380, "run udp latency -b 1M -t 1s");
    size_t wrong = count_cells(run, NULL) - count_cells(run, "ok");
    if (status != 0 || wrong) {
        size_t index;
        json_t *cell;
        json_array_foreach(json_object_get(run, "cells"), index,
            cell) if (strcmp(text_at(cell, "state"), "ok") != 0 && wrong-- < 10)
            fprintf(stderr, "%s %s > %s: %s: %s\n", text_at(cell, "test"), text_at(cell, "from"),
                text_at(cell, "to"), text_at(cell, "state"), text_at(cell, "reason"));
        fail_msg("status %d", status);
    }
    assert_int_equal(count_cells(run, "ok"), 2 * AGENTS * (AGENTS - 1));
    json_t *summary = json_object_get(run, "run");
    double elapsed_s = number_at(summary, "elapsed_s");
    double bound_s = number_at(summary, "lower_bound_s");
    printf("# %.1f s, %.3f of the bound of %.1f s; idle: turnaround %.2f s, tail %.2f s, blocked "
           "%.2f s\n",
        elapsed_s, elapsed_s / bound_s, bound_s, number_at(summary, "idle_s.turnaround"),
        number_at(summary, "idle_s.tail"), number_at(summary, "idle_s.blocked"));
    json_decref(run);
    json_t *doctor = mesh_json(mesh, &status, 10, "doctor");
    printf("# controller: %.2f ms of CPU a test, %.1f MiB resident\n",
        1e3 * number_at(doctor, "controller.cpu_s") / number_at(doctor, "controller.tests_done"),
        number_at(doctor, "controller.resident_bytes") / 1048576);
    json_decref(doctor);
    outcome_release(&idle);
    mesh_down(&mesh);
}

// Five hundred ports on each of twenty pairs; only one port is closed to one of them.
static void five_hundred_ports_are_probed_on_twenty_pairs(void **state)
{
    (void)state;
    char *topology = mesh_topology_plain(5);
    mesh_t *mesh = mesh_up(topology, "");
    free(topology);
    free(mesh_exec(mesh, "h2",
        "nft -f - <<< 'table inet shut { chain c { type filter hook input priority 0; tcp dport "
        "20100 ip saddr 10.88.1.1 drop; tcp dport 20100 ip6 saddr fd88:1::1 drop; }; }'"));
    int status;
    json_t *run = mesh_json(mesh, &status, 300,
        "run port --port tcp/20000-20249 --port udp/20000-20249 --attempts 2 --timeout 2s "
        "--rate 500");
    assert_int_equal(status, 0);
    assert_int_equal(count_cells(run, "ok"), 20 * 500);
    size_t index, shut = 0;
    json_t *cell;
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        if (strcmp(text_at(cell, "observed"), "open") == 0)
            continue;
        shut++;
        if (strcmp(text_at(cell, "port"), "tcp/20100") != 0 ||
            strcmp(text_at(cell, "from"), "h1") != 0 || strcmp(text_at(cell, "to"), "h2") != 0)
            fail_msg("%s > %s %s: %s", text_at(cell, "from"), text_at(cell, "to"),
                text_at(cell, "port"), text_at(cell, "evidence"));
    }
    assert_int_equal(shut, 1);
    printf("# 10,000 ports in %.1f s\n", number_at(json_object_get(run, "run"), "elapsed_s"));
    json_decref(run);
    mesh_down(&mesh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_hundred_ports_are_probed_on_twenty_pairs),
        cmocka_unit_test(fifty_agents_are_measured_without_a_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
