// Agents killed in the middle of a run: the run ends, what could be measured is there, and the exit
// status says the rest.

#include <string.h>

#include "crash.h"
#include "meshtest.h"

#define PACKETS_RECEIVED "$($LAB exec h3 ip -s link show eth0 | awk '/RX/{getline; print $2}')"

static void a_killed_agent_costs_only_its_own_cells(void **state)
{
    mesh_t *mesh = *state;
    task_t *task = mesh_start(mesh, "$LAB meshperf -o json " CRASH_RUN);
    crash_wait_for_results(mesh, 2);
    struct outcome killed = mesh_shell(mesh, 10, "$LAB kill h3");
    assert_int_equal(killed.status, 0);
    struct outcome ended = task_wait(&task, 120);
    assert_int_equal(ended.status, 4);
    json_t *run = crash_document(&ended), *cell;
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
    struct outcome killed = mesh_shell(mesh, 10, "echo $((" PACKETS_RECEIVED ")) >$DIR/before");
    assert_int_equal(killed.status, 0);
    outcome_release(&killed);
    task_t *task = mesh_start(mesh, "$LAB meshperf -o json run latency -t 15s");
    // Far more than what it hears of the controller: it is being probed.
    mesh_wait_until(mesh, 60, "test " PACKETS_RECEIVED " -gt $(($(cat $DIR/before) + 200))");
    killed = mesh_shell(mesh, 10, "$LAB kill h3");
    assert_int_equal(killed.status, 0);
    struct outcome ended = task_wait(&task, 120);
    assert_int_equal(ended.status, 4);
    json_t *run = crash_document(&ended), *cell;
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
    task_t *task = mesh_start(mesh, "$LAB meshperf -o json " CRASH_RUN);
    crash_wait_for_results(mesh, 2);
    struct outcome back = mesh_shell(mesh, 30, "$LAB kill h2 && $LAB agent h2");
    assert_int_equal(back.status, 0);
    struct outcome ended = task_wait(&task, 120);
    json_t *run = crash_document(&ended);
    assert_int_equal(ended.status, 0);
    assert_int_equal(count_cells(run, "ok"), CRASH_AGENTS * (CRASH_AGENTS - 1));
    json_decref(run);
    outcome_release(&ended);
    outcome_release(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_agent_costs_only_its_own_cells),
        cmocka_unit_test(a_killed_reflector_is_lost_and_no_loss_of_the_path),
        cmocka_unit_test(an_agent_that_returns_in_time_is_measured_after_all),
    };
    return cmocka_run_group_tests(tests, crash_bring_up, mesh_take_down);
}
