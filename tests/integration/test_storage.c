// A full disk and a read-only state directory: the controller says so, refuses new runs, and takes
// the agents' results when it can again.

#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

// The controller's state on a file system of 6 MiB of its own, mounted inside the lab.
static int bring_up(void **state)
{
    mesh_t *mesh = mesh_up("subnet plain 10.85.1.0/24\nhost h1 plain\nhost h2 plain\n", "");
    struct outcome moved = mesh_shell(mesh, 40,
        "$LAB kill ctl TERM && $LAB exec ctl sh -c 'cd $DIR/controller && cp -r state kept && "
        "mount -t tmpfs -o size=6m,mode=700 tmpfs state && cp -r kept/. state/' && $LAB "
        "controller");
    if (moved.status != 0)
        fail_msg("moving the state: %s%s", moved.out, moved.err);
    outcome_release(&moved);
    *state = mesh;
    return 0;
}

// The command line must run inside the lab's mount namespace here, where the state directory is.
#define CLI "$LAB exec ctl $BIN/meshperf --context $DIR/controller/state/operator.context"
#define FILL                                                                                       \
    "$LAB exec ctl sh -c 'dd if=/dev/zero of=$DIR/controller/state/filler bs=4k 2>/dev/null; "     \
    "true'"
#define FREE "$LAB exec ctl rm -f $DIR/controller/state/filler"

static void a_full_disk_refuses_new_runs_with_words_and_3(void **state)
{
    mesh_t *mesh = *state;
    struct outcome fine = mesh_shell(mesh, 30, CLI " run udp -t 100ms");
    assert_int_equal(fine.status, 0);
    outcome_release(&fine);
    struct outcome full = mesh_shell(mesh, 10, FILL);
    outcome_release(&full);
    // What still fits may be the beginning of a run, whose results then wait.
    struct outcome refused = mesh_shell(mesh, 60,
        "until " CLI
        " -q run udp -t 100ms --detach >$DIR/out 2>$DIR/err; [ $? = 3 ]; do sleep 0.2; "
        "done; cat $DIR/out; cat $DIR/err >&2; exit 3");
    assert_int_equal(refused.status, 3);
    assert_non_null(strstr(refused.err, "No space left on device"));
    assert_string_equal(refused.out, "");
    outcome_release(&refused);
    struct outcome freed = mesh_shell(mesh, 10, FREE);
    outcome_release(&freed);
    mesh_wait_until(mesh, 30, CLI " run udp -t 100ms");
}

static void results_of_a_run_under_way_wait_for_room(void **state)
{
    mesh_t *mesh = *state;
    task_t *task = mesh_start(mesh, CLI " -o json run udp -t 6s");
    mesh_wait_until(mesh, 20, CLI " -o json show | grep -q '\"state\":\"running\"'");
    struct outcome full = mesh_shell(mesh, 10, FILL);
    outcome_release(&full);
    mesh_wait_until(mesh, 40, CLI " doctor | grep 'No space left'");
    struct outcome freed = mesh_shell(mesh, 10, FREE);
    outcome_release(&freed);
    struct outcome ended = task_wait(&task, 90);
    assert_int_equal(ended.status, 0);
    json_t *run = json_loads(ended.out, 0, NULL);
    assert_non_null(run);
    assert_int_equal(count_cells(run, "ok"), 2);
    json_decref(run);
    outcome_release(&ended);
}

static void a_read_only_state_directory_stops_the_controller_with_words(void **state)
{
    mesh_t *mesh = *state;
    struct outcome made = mesh_shell(mesh, 20,
        "$LAB kill ctl TERM; until $LAB exec ctl mount -o remount,ro $DIR/controller/state; do "
        "sleep 0.05; done; "
        "$LAB controller");
    assert_int_not_equal(made.status, 0);
    if (!strstr(made.err, "Read-only file system"))
        fail_msg("not told why: %s%s", made.out, made.err);
    struct outcome refused = mesh_shell(mesh, 30, CLI " run udp -t 100ms");
    assert_int_equal(refused.status, 3);
    assert_string_equal(refused.out, "");
    outcome_release(&refused);
    outcome_release(&made);
    struct outcome back = mesh_shell(
        mesh, 30, "$LAB exec ctl mount -o remount,rw $DIR/controller/state && $LAB controller");
    assert_int_equal(back.status, 0);
    mesh_wait_until(mesh, 60, CLI " run udp -t 100ms");
    outcome_release(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_disk_refuses_new_runs_with_words_and_3),
        cmocka_unit_test(results_of_a_run_under_way_wait_for_room),
        cmocka_unit_test(a_read_only_state_directory_stops_the_controller_with_words),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
