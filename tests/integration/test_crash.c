// Killed daemons and cut links in the middle of a run: the run ends, what could be measured is
// there, and the exit status says the rest.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

// Bandwidth tests with a stated rate, so that pairs run at once although all hosts are one machine.
#define RUN_FLAGS "run udp -b 1M -t 3s"
#define AGENTS 5
#define PACKETS_SENT "$($LAB exec h1 ip -s link show eth0 | awk '/TX/{getline; print $2}')"

static int bring_up(void **state)
{
    char *topology = mesh_topology_plain(AGENTS);
    *state = mesh_up(topology, "");
    free(topology);
    return 0;
}

static int take_down(void **state)
{
    mesh_t *mesh = *state;
    mesh_down(&mesh);
    return 0;
}

static void wait_for_results(mesh_t *mesh, unsigned count)
{
    mesh_wait_until(
        mesh, 60, "test $($LAB meshperf show last -o csv | grep -c ',ok,') -ge %u", count);
}

static json_t *document_of(struct outcome *outcome)
{
    json_t *run = json_loads(outcome->out, 0, NULL);
    if (!run)
        fail_msg("status %d\n%s\n%s", outcome->status, outcome->out, outcome->err);
    return run;
}

static void a_killed_agent_costs_only_its_own_cells(void **state)
{
    mesh_t *mesh = *state;
    task_t *task = mesh_start(mesh, "$LAB meshperf -o json " RUN_FLAGS);
    wait_for_results(mesh, 2);
    struct outcome killed = mesh_shell(mesh, 10, "$LAB kill h3");
    assert_int_equal(killed.status, 0);
    struct outcome ended = task_wait(&task, 120);
    assert_int_equal(ended.status, 4);
    json_t *run = document_of(&ended), *cell;
    size_t index;
    assert_true(count_cells(run, "lost") > 0);
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        bool concerned =
            strcmp(text_at(cell, "from"), "h3") == 0 || strcmp(text_at(cell, "to"), "h3") == 0;
        if (concerned && strcmp(text_at(cell, "state"), "ok") != 0) {
            assert_string_equal(text_at(cell, "state"), "lost");
            assert_non_null(strstr(text_at(cell, "reason"), "h3"));
        } else {
            assert_string_equal(text_at(cell, "state"), "ok");
        }
    }
    json_decref(run);
    outcome_release(&ended);
    outcome_release(&killed);
    struct outcome again = mesh_shell(mesh, 30, "$LAB agent h3");
    assert_int_equal(again.status, 0);
    outcome_release(&again);
}

static void a_killed_reflector_is_lost_and_no_loss_of_the_path(void **state)
{
    mesh_t *mesh = *state;
    task_t *task = mesh_start(mesh, "$LAB meshperf -o json run latency -t 4s");
    mesh_wait_until(mesh, 20, "$LAB meshperf show last -o csv | grep -c ',running,' | grep -qx 20");
    struct outcome killed = mesh_shell(mesh, 10, "sleep 1; $LAB kill h3");
    assert_int_equal(killed.status, 0);
    struct outcome ended = task_wait(&task, 120);
    assert_int_equal(ended.status, 4);
    json_t *run = document_of(&ended), *cell;
    size_t index;
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        bool concerned =
            strcmp(text_at(cell, "from"), "h3") == 0 || strcmp(text_at(cell, "to"), "h3") == 0;
        assert_string_equal(text_at(cell, "state"), concerned ? "lost" : "ok");
    }
    json_decref(run);
    outcome_release(&ended);
    outcome_release(&killed);
    struct outcome again = mesh_shell(mesh, 30, "$LAB agent h3");
    assert_int_equal(again.status, 0);
    outcome_release(&again);
}

static void an_agent_that_returns_in_time_is_measured_after_all(void **state)
{
    mesh_t *mesh = *state;
    task_t *task = mesh_start(mesh, "$LAB meshperf -o json " RUN_FLAGS);
    wait_for_results(mesh, 2);
    struct outcome back = mesh_shell(mesh, 30, "$LAB kill h2 && $LAB agent h2");
    assert_int_equal(back.status, 0);
    struct outcome ended = task_wait(&task, 120);
    json_t *run = document_of(&ended);
    assert_int_equal(ended.status, 0);
    assert_int_equal(count_cells(run, "ok"), AGENTS * (AGENTS - 1));
    json_decref(run);
    outcome_release(&ended);
    outcome_release(&back);
}

static void a_host_whose_link_is_cut_is_lost_and_the_others_are_not(void **state)
{
    mesh_t *mesh = *state;
    task_t *task = mesh_start(mesh, "$LAB meshperf -o json " RUN_FLAGS);
    wait_for_results(mesh, 2);
    free(mesh_exec(mesh, "router", "ip link set port4 nomaster"));
    struct outcome ended = task_wait(&task, 150);
    free(mesh_exec(mesh, "router", "ip link set port4 master br1"));
    json_t *run = document_of(&ended), *cell;
    assert_int_equal(ended.status, 4);
    size_t index;
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        bool concerned =
            strcmp(text_at(cell, "from"), "h4") == 0 || strcmp(text_at(cell, "to"), "h4") == 0;
        if (!concerned)
            assert_string_equal(text_at(cell, "state"), "ok");
    }
    assert_true(count_cells(run, "lost") > 0);
    assert_int_equal(count_cells(run, "pending") + count_cells(run, "running"), 0);
    json_decref(run);
    outcome_release(&ended);
    mesh_wait_until(mesh, 90, "$LAB meshperf agent list -o json | grep -c '\"lost\"' | grep -qx 0");
}

static void a_slow_host_is_not_taken_for_a_dead_one(void **state)
{
    mesh_t *mesh = *state;
    free(mesh_exec(
        mesh, "router", "tc qdisc add dev port5 root tbf rate 3mbit burst 16k latency 400ms"));
    free(
        mesh_exec(mesh, "h5", "tc qdisc add dev eth0 root tbf rate 3mbit burst 16k latency 400ms"));
    int status;
    json_t *run = mesh_json(
        mesh, &status, 120, "run tcp udp -b 6M -t 1s --from h5 --to h1 --from h1 --to h5");
    free(mesh_exec(mesh, "router", "tc qdisc del dev port5 root"));
    free(mesh_exec(mesh, "h5", "tc qdisc del dev eth0 root"));
    assert_int_equal(count_cells(run, "ok"), count_cells(run, NULL));
    assert_int_equal(status, 0);
    json_decref(run);
}

static void a_killed_controller_continues_the_run(void **state)
{
    mesh_t *mesh = *state;
    struct outcome detached = mesh_meshperf(mesh, 20, RUN_FLAGS " --detach");
    assert_int_equal(detached.status, 0);
    wait_for_results(mesh, 4);
    struct outcome before = mesh_shell(mesh, 20,
        "$LAB meshperf show last -o csv | grep ',ok,' | sort >$DIR/before; $LAB kill ctl && $LAB "
        "controller");
    assert_int_equal(before.status, 0);
    struct outcome watched = mesh_meshperf(mesh, 150, "-o csv watch last");
    assert_int_equal(watched.status, 0);
    // What was finished is finished: the very same rows.
    struct outcome kept = mesh_shell(mesh, 20,
        "$LAB meshperf show last -o csv | sort >$DIR/after; comm -23 $DIR/before $DIR/after | wc "
        "-l");
    assert_int_equal(atoi(kept.out), 0);
    outcome_release(&kept);
    outcome_release(&watched);
    outcome_release(&before);
    outcome_release(&detached);
}

static void a_foreground_run_survives_the_controllers_restart(void **state)
{
    mesh_t *mesh = *state;
    task_t *task = mesh_start(mesh, "$LAB meshperf -o json run udp -b 1M -t 2s");
    wait_for_results(mesh, 2);
    struct outcome restarted = mesh_shell(mesh, 20, "$LAB kill ctl && $LAB controller");
    assert_int_equal(restarted.status, 0);
    struct outcome ended = task_wait(&task, 150);
    assert_int_equal(ended.status, 0);
    json_t *run = document_of(&ended);
    assert_int_equal(count_cells(run, "ok"), AGENTS * (AGENTS - 1));
    json_decref(run);
    outcome_release(&ended);
    outcome_release(&restarted);
}

static void controller_and_agent_killed_at_once_still_end_the_run(void **state)
{
    mesh_t *mesh = *state;
    struct outcome detached = mesh_meshperf(mesh, 20, RUN_FLAGS " --detach");
    assert_int_equal(detached.status, 0);
    wait_for_results(mesh, 2);
    struct outcome killed =
        mesh_shell(mesh, 60, "$LAB kill ctl; $LAB kill h1; $LAB controller && $LAB agent h1");
    assert_int_equal(killed.status, 0);
    struct outcome watched = mesh_meshperf(mesh, 150, "-o json watch last");
    json_t *run = document_of(&watched);
    assert_int_equal(watched.status, 0);
    assert_int_equal(count_cells(run, "ok"), AGENTS * (AGENTS - 1));
    json_decref(run);
    outcome_release(&watched);
    outcome_release(&killed);
    outcome_release(&detached);
}

static void load_stops_when_controller_and_peer_are_gone(void **state)
{
    mesh_t *mesh = *state;
    struct outcome detached =
        mesh_meshperf(mesh, 20, "run udp -b 20M -t 60s --from h1 --to h2 --detach");
    assert_int_equal(detached.status, 0);
    mesh_wait_until(mesh, 20, "test " PACKETS_SENT " -gt 3000");
    struct outcome killed = mesh_shell(mesh, 20, "$LAB kill ctl; $LAB kill h2");
    assert_int_equal(killed.status, 0);
    // The sender hears no feedback any more: quiet within a second, and for good.
    mesh_wait_until(
        mesh, 15, "a=" PACKETS_SENT "; sleep 0.5; b=" PACKETS_SENT "; test $((b - a)) -lt 100");
    struct outcome back = mesh_shell(mesh, 60, "$LAB controller && $LAB agent h2");
    assert_int_equal(back.status, 0);
    struct outcome cancelled = mesh_meshperf(mesh, 20, "cancel last");
    assert_int_equal(cancelled.status, 0);
    outcome_release(&cancelled);
    outcome_release(&back);
    outcome_release(&killed);
    outcome_release(&detached);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_agent_costs_only_its_own_cells),
        cmocka_unit_test(a_killed_reflector_is_lost_and_no_loss_of_the_path),
        cmocka_unit_test(an_agent_that_returns_in_time_is_measured_after_all),
        cmocka_unit_test(a_killed_controller_continues_the_run),
        cmocka_unit_test(a_foreground_run_survives_the_controllers_restart),
        cmocka_unit_test(controller_and_agent_killed_at_once_still_end_the_run),
        cmocka_unit_test(load_stops_when_controller_and_peer_are_gone),
        cmocka_unit_test(a_slow_host_is_not_taken_for_a_dead_one),
        cmocka_unit_test(a_host_whose_link_is_cut_is_lost_and_the_others_are_not),
    };
    return cmocka_run_group_tests(tests, bring_up, take_down);
}
