// Links that are cut or slow in the middle of a run: one is lost, the other is not taken for dead.

#include <stdlib.h>
#include <string.h>

#include "crash.h"
#include "meshtest.h"

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

static void a_host_whose_link_is_cut_is_lost_and_the_others_are_not(void **state)
{
    mesh_t *mesh = *state;
    task_t *task = mesh_start(mesh, "$LAB meshperf -o json " CRASH_RUN);
    crash_wait_for_results(mesh, 2);
    free(mesh_exec(mesh, "router", "ip link set port4 nomaster"));
    struct outcome ended = task_wait(&task, 150);
    free(mesh_exec(mesh, "router", "ip link set port4 master br1"));
    json_t *run = crash_document(&ended), *cell;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_host_is_not_taken_for_a_dead_one),
        cmocka_unit_test(a_host_whose_link_is_cut_is_lost_and_the_others_are_not),
    };
    return cmocka_run_group_tests(tests, crash_bring_up, mesh_take_down);
}
