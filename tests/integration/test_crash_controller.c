// A controller killed in the middle of a run, alone or with agents: the run continues where it was,
// and no load outlives its end.

#include <stdio.h>
#include <stdlib.h>

#include "crash.h"
#include "meshtest.h"

#define PACKETS_SENT "$($LAB exec h1 ip -s link show eth0 | awk '/TX/{getline; print $2}')"

static void a_killed_controller_continues_the_run(void **state)
{
    mesh_t *mesh = *state;
    struct outcome detached = mesh_meshperf(mesh, 20, CRASH_RUN " --detach");
    assert_int_equal(detached.status, 0);
    crash_wait_for_results(mesh, 4);
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
    crash_wait_for_results(mesh, 2);
    struct outcome restarted = mesh_shell(mesh, 20, "$LAB kill ctl && $LAB controller");
    assert_int_equal(restarted.status, 0);
    struct outcome ended = task_wait(&task, 150);
    assert_int_equal(ended.status, 0);
    json_t *run = crash_document(&ended);
    assert_int_equal(count_cells(run, "ok"), CRASH_AGENTS * (CRASH_AGENTS - 1));
    json_decref(run);
    outcome_release(&ended);
    outcome_release(&restarted);
}

static void controller_and_agent_killed_at_once_still_end_the_run(void **state)
{
    mesh_t *mesh = *state;
    struct outcome detached = mesh_meshperf(mesh, 20, CRASH_RUN " --detach");
    assert_int_equal(detached.status, 0);
    crash_wait_for_results(mesh, 2);
    struct outcome killed =
        mesh_shell(mesh, 60, "$LAB kill ctl; $LAB kill h1; $LAB controller && $LAB agent h1");
    assert_int_equal(killed.status, 0);
    struct outcome watched = mesh_meshperf(mesh, 150, "-o json watch last");
    json_t *run = crash_document(&watched);
    assert_int_equal(watched.status, 0);
    assert_int_equal(count_cells(run, "ok"), CRASH_AGENTS * (CRASH_AGENTS - 1));
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
        cmocka_unit_test(a_killed_controller_continues_the_run),
        cmocka_unit_test(a_foreground_run_survives_the_controllers_restart),
        cmocka_unit_test(controller_and_agent_killed_at_once_still_end_the_run),
        cmocka_unit_test(load_stops_when_controller_and_peer_are_gone),
    };
    return cmocka_run_group_tests(tests, crash_bring_up, mesh_take_down);
}
