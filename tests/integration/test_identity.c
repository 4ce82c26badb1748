// Who may join, who may speak, and what a newcomer that may not is told.

#include <stdio.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

// One more agent, in h1's namespace on another port; its name is `x` and its state in $DIR/x.
#define EXTRA                                                                                      \
    "$LAB exec h1 timeout 80 $BIN/meshperf-agent --name x --state-dir $DIR/x --data-port 5799"

static int bring_up(void **state)
{
    *state =
        mesh_up("subnet plain 10.83.1.0/24\nhost h1 plain\nhost h2 plain\nhost h3 plain\n", "");
    return 0;
}

static void expect(struct outcome outcome, int status, const char *words)
{
    if (outcome.status != status || !strstr(outcome.err, words))
        fail_msg("status %d instead of %d, or no \"%s\" in\n%s\n%s", outcome.status, status, words,
            outcome.out, outcome.err);
    outcome_release(&outcome);
}

static void the_mesh_still_works(mesh_t *mesh)
{
    int status;
    json_t *run = mesh_json(mesh, &status, 60, "run udp -t 200ms -l 'h*'");
    assert_int_equal(status, 0);
    json_decref(run);
}

static void a_token_of_another_controller_is_refused_with_words_and_3(void **state)
{
    mesh_t *mesh = *state;
    // A controller of its own makes the token; its endpoint is then taken by nobody we know.
    expect(mesh_shell(mesh, 60,
               "cp -r $DIR/controller/state $DIR/other && rm $DIR/other/*.key $DIR/other/*.db*; "
               "$BIN/meshperf-controller --state-dir $DIR/other --listen 'tcp://127.0.0.1:*' "
               "--advertise $(cat $DIR/controller/endpoint) >$DIR/other.out 2>/dev/null & pid=$!; "
               "until grep -q ready $DIR/other.out; do sleep 0.05; done; "
               "$BIN/meshperf --context $DIR/other/operator.context token create >$DIR/foreign; "
               "kill $pid; wait $pid; " EXTRA " --join-file $DIR/foreign"),
        3, "not accept");
    the_mesh_still_works(mesh);
}

static void a_used_up_token_is_refused_with_words_and_3(void **state)
{
    mesh_t *mesh = *state;
    expect(mesh_shell(mesh, 60,
               "rm -rf $DIR/x; $LAB meshperf token create --uses 1 >$DIR/once; " EXTRA
               " --join-file $DIR/once >$DIR/x.out 2>$DIR/x.err & "
               "until grep -q 'ready x' $DIR/x.out; do sleep 0.05; done; "
               "$LAB meshperf agent remove x >/dev/null; "
               "pkill -TERM -f \"state-dir $DIR/x \"; wait; rm -rf $DIR/x; " EXTRA
               " --join-file $DIR/once"),
        3, "not accept");
    the_mesh_still_works(mesh);
}

static void an_expired_token_is_refused_with_words_and_3(void **state)
{
    mesh_t *mesh = *state;
    expect(mesh_shell(mesh, 60,
               "rm -rf $DIR/x; $LAB meshperf token create --expires 1s >$DIR/late; "
               "until $LAB meshperf token list | grep -q expired; do sleep 0.05; done; " EXTRA
               " --join-file $DIR/late"),
        3, "not accept");
}

static void a_revoked_token_is_refused_with_words_and_3(void **state)
{
    mesh_t *mesh = *state;
    expect(mesh_shell(mesh, 60,
               "rm -rf $DIR/x; $LAB meshperf token create >$DIR/gone; "
               "id=$($LAB meshperf token list -o csv | tail -n +2 | cut -d, -f1 | head -1); "
               "for id in $($LAB meshperf token list -o csv | tail -n +2 | cut -d, -f1); do "
               "$LAB meshperf token revoke $id; done >/dev/null; " EXTRA " --join-file $DIR/gone"),
        3, "not accept");
    the_mesh_still_works(mesh);
}

static void words_that_are_no_token_are_a_usage_error(void **state)
{
    expect(mesh_shell(*state, 20, "rm -rf $DIR/x; " EXTRA " --join nonsense"), 2, "token");
}

static void a_name_in_use_is_refused_with_words(void **state)
{
    expect(mesh_shell(*state, 60,
               "rm -rf $DIR/x; $LAB meshperf token create >$DIR/twice; "
               "$LAB exec h1 timeout 80 $BIN/meshperf-agent --name h2 --state-dir $DIR/x "
               "--data-port 5799 --join-file $DIR/twice"),
        3, "h2");
    the_mesh_still_works(*state);
}

static void a_copied_state_directory_does_not_displace_the_live_agent(void **state)
{
    mesh_t *mesh = *state;
    struct outcome copy = mesh_shell(mesh, 60,
        "cp -r $DIR/agents/h2/state $DIR/copy; "
        "$LAB exec h3 timeout 80 $BIN/meshperf-agent --state-dir $DIR/copy --data-port 5798 "
        ">$DIR/copy.out 2>$DIR/copy.err & "
        "until grep -q 'in use' $DIR/copy.err || grep -q ready $DIR/copy.out; do sleep 0.05; done; "
        "pkill -TERM -f \"state-dir $DIR/copy \"; wait; cat $DIR/copy.out $DIR/copy.err");
    assert_null(strstr(copy.out, "ready"));
    assert_non_null(strstr(copy.out, "in use"));
    outcome_release(&copy);
    the_mesh_still_works(mesh);
}

static void an_agent_removed_during_a_run_is_lost_at_once(void **state)
{
    mesh_t *mesh = *state;
    struct outcome joined = mesh_shell(mesh, 40,
        "rm -rf $DIR/x; $LAB meshperf token create >$DIR/t; " EXTRA
        " --join-file $DIR/t >$DIR/x.out 2>&1 & "
        "until grep -q 'ready x' $DIR/x.out; do sleep 0.05; done");
    assert_int_equal(joined.status, 0);
    // Long enough for an end at once to be told from one that is due.
    task_t *task = mesh_start(mesh, "$LAB meshperf -o json run udp -t 200s --from x --to 'h*'");
    mesh_wait_until(mesh, 30, "$LAB meshperf show -o csv | grep -q ',running,'");
    struct outcome removed = mesh_meshperf(mesh, 10, "agent remove x");
    assert_int_equal(removed.status, 0);
    struct outcome ended = task_wait(&task, 60);
    assert_int_equal(ended.status, 4);
    json_t *run = json_loads(ended.out, 0, NULL);
    assert_non_null(run);
    assert_int_equal(count_cells(run, "lost"), 3);
    assert_int_equal(count_cells(run, NULL), 3);
    json_decref(run);
    outcome_release(&ended);
    outcome_release(&removed);
    outcome_release(&joined);
    struct outcome gone = mesh_shell(mesh, 10, "pkill -TERM -f \"state-dir $DIR/x \"; true");
    outcome_release(&gone);
}

static void clocks_hours_apart_disturb_nothing(void **state)
{
    // Wall clocks cannot be set per namespace; a library shim would test the shim. The agent takes
    // an offset from the time namespace instead: boot and monotonic clocks differ by hours.
    mesh_t *mesh = *state;
    struct outcome able = mesh_shell(mesh, 10, "unshare -T --monotonic 7200 --boottime 7200 true");
    bool can = able.status == 0;
    outcome_release(&able);
    if (!can)
        skip();
    struct outcome joined = mesh_shell(mesh, 40,
        "rm -rf $DIR/x; $LAB meshperf token create >$DIR/t; "
        "$LAB exec h1 unshare -T --monotonic 7200 --boottime 7200 $BIN/meshperf-agent --name x "
        "--state-dir $DIR/x --data-port 5799 --join-file $DIR/t >$DIR/x.out 2>&1 & "
        "until grep -q 'ready x' $DIR/x.out; do sleep 0.05; done");
    assert_int_equal(joined.status, 0);
    int status;
    json_t *run = mesh_json(
        mesh, &status, 60, "run tcp udp latency -t 300ms --from x --to h2 --from h2 --to x");
    assert_int_equal(status, 0);
    json_decref(run);
    struct outcome gone = mesh_shell(
        mesh, 10, "$LAB meshperf agent remove x; pkill -TERM -f \"state-dir $DIR/x \"; true");
    outcome_release(&gone);
    outcome_release(&joined);
}

static void a_viewer_may_look_and_not_start(void **state)
{
    mesh_t *mesh = *state;
    struct outcome viewer = mesh_shell(mesh, 30,
        "$LAB meshperf operator add eve --role viewer >$DIR/eve && chmod 600 $DIR/eve && "
        "$BIN/meshperf --context $DIR/eve agent list && "
        "$BIN/meshperf --context $DIR/eve run udp -t 100ms --plan && "
        "$BIN/meshperf --context $DIR/eve run udp -t 100ms");
    assert_int_equal(viewer.status, 3);
    outcome_release(&viewer);
    struct outcome removed = mesh_shell(mesh, 30,
        "$LAB meshperf operator remove eve && $BIN/meshperf --connect-timeout 2s --context "
        "$DIR/eve runs");
    assert_int_equal(removed.status, 3);
    assert_string_equal(removed.out, "");
    outcome_release(&removed);
    struct outcome audit = mesh_meshperf(mesh, 10, "audit");
    assert_int_equal(audit.status, 0);
    assert_non_null(strstr(audit.out, "eve"));
    outcome_release(&audit);
}

static void draining_agents_are_skipped_until_resumed(void **state)
{
    mesh_t *mesh = *state;
    int status;
    struct outcome drained = mesh_meshperf(mesh, 10, "agent drain h3");
    assert_int_equal(drained.status, 0);
    json_t *run = mesh_json(mesh, &status, 60, "run udp -t 100ms -l 'h*'");
    assert_int_equal(status, 4);
    assert_int_equal(count_cells(run, "skipped"), 4);
    assert_int_equal(count_cells(run, "ok"), 2);
    json_decref(run);
    struct outcome resumed = mesh_meshperf(mesh, 10, "agent resume h3");
    assert_int_equal(resumed.status, 0);
    the_mesh_still_works(mesh);
    outcome_release(&resumed);
    outcome_release(&drained);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_of_another_controller_is_refused_with_words_and_3),
        cmocka_unit_test(a_used_up_token_is_refused_with_words_and_3),
        cmocka_unit_test(an_expired_token_is_refused_with_words_and_3),
        cmocka_unit_test(a_revoked_token_is_refused_with_words_and_3),
        cmocka_unit_test(words_that_are_no_token_are_a_usage_error),
        cmocka_unit_test(a_name_in_use_is_refused_with_words),
        cmocka_unit_test(a_copied_state_directory_does_not_displace_the_live_agent),
        cmocka_unit_test(an_agent_removed_during_a_run_is_lost_at_once),
        cmocka_unit_test(clocks_hours_apart_disturb_nothing),
        cmocka_unit_test(a_viewer_may_look_and_not_start),
        cmocka_unit_test(draining_agents_are_skipped_until_resumed),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
