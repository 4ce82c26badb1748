// The command line as scripts see it: words that are wrong, controllers that are not there, and the
// exit status of each.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

static int bring_up(void **state)
{
    *state = mesh_up("subnet plain 10.86.1.0/24\nhost h1 plain\nhost h2 plain\n", "");
    return 0;
}

struct example {
    const char *arguments;
    int status;
    const char *words; // in standard error; NULL: nothing is asked of it
};

static void check(mesh_t *mesh, const struct example *example)
{
    struct outcome outcome = mesh_meshperf(mesh, 30, "%s", example->arguments);
    if (outcome.status != example->status ||
        (example->words && !strstr(outcome.err, example->words)))
        fail_msg("meshperf %s: status %d instead of %d, or no \"%s\" in: %s", example->arguments,
            outcome.status, example->status, example->words ? example->words : "", outcome.err);
    if ((outcome.status == 2 || outcome.status == 3) && *outcome.out)
        fail_msg("meshperf %s: printed \"%s\" although it failed", example->arguments, outcome.out);
    outcome_release(&outcome);
}

static void wrong_words_are_quoted_and_exit_2(void **state)
{
    static const struct example examples[] = {
        {"", 2, NULL},
        {"frobnicate", 2, "frobnicate"},
        {"run", 2, "test"},
        {"run tcpp", 2, "tcpp"},
        {"run tcp -t 10", 2, "10"},
        {"run tcp -t 10x", 2, "10x"},
        {"run tcp -t 1ms", 2, "1ms"},
        {"run tcp -t 25h", 2, "25h"},
        {"run udp -b fast", 2, "fast"},
        {"run udp -b -5M", 2, "-5M"},
        {"run udp -l 1400", 2, "--length"},
        {"run tcp --length 1400", 2, "--length"},
        {"run udp --congestion cubic", 2, "congestion"},
        {"run tcp --dur 5s", 2, "--dur"},
        {"run tcp --from zone==x", 2, "zone==x"},
        {"run tcp --from zone=", 2, "zone="},
        {"run tcp --from a,,b", 2, "a,,b"},
        {"run tcp --from 10.0.0.0/33", 2, "10.0.0.0/33"},
        {"run tcp --from nobody", 2, "nobody"},
        {"run tcp --pairs some", 2, "some"},
        {"run tcp --mode fast", 2, "fast"},
        {"run tcp -P 0", 2, "0"},
        {"run tcp -P 1000000", 2, "1000000"},
        {"run tcp -o yaml", 2, "yaml"},
        {"show r-999999", 2, "r-999999"},
        {"show nonsense", 2, "nonsense"},
        {"show --metric beauty", 2, "beauty"},
        {"cancel r-999999", 2, "r-999999"},
        {"watch r-999999", 2, "r-999999"},
        {"agent show nobody", 2, "nobody"},
        {"agent label h1 =x", 2, "=x"},
        {"agent frob", 2, "frob"},
        {"token revoke deadbeef", 2, "deadbeef"},
        {"token create --uses 0", 2, "0"},
        {"operator add x --role king", 2, "king"},
        {"export --to x.pdf", 2, "x.pdf"},
        {"completion tcsh", 2, "tcsh"},
        {"--context /nonexistent agent list", 2, "/nonexistent"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        check(*state, &examples[i]);
}

static void right_words_exit_0(void **state)
{
    static const struct example examples[] = {
        {"--help", 0, NULL},
        {"--version", 0, NULL},
        {"run --help", 0, NULL},
        {"help run", 0, NULL},
        {"agent list", 0, NULL},
        {"agent list -o json | grep -q meshperf.agents/1", 0, NULL},
        {"agent show h1", 0, NULL},
        {"agent label h1 zone=x rack=7", 0, NULL},
        {"run udp --time=200ms --from zone=x", 0, NULL},
        {"run udp -t200ms --from 10.86.1.0/24 --to 'h*,zone!=x'", 0, NULL},
        {"run udp -t 200ms --pairs ring", 0, NULL},
        {"run udp -t 200ms --pairs sample=1 --seed 7", 0, NULL},
        {"runs", 0, NULL},
        {"show --metric loss", 0, NULL},
        {"show --pair h1 h2", 0, NULL},
        {"show --worst 1", 0, NULL},
        {"show --group-by zone", 0, NULL},
        {"token list", 0, NULL},
        {"operator list", 0, NULL},
        {"audit", 0, NULL},
        {"doctor", 0, NULL},
        {"completion bash | bash -n", 0, NULL},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        check(*state, &examples[i]);
}

static void a_controller_that_is_not_there_is_3_and_says_where(void **state)
{
    struct outcome outcome = mesh_shell(*state, 30,
        "sed 's|ipc://.*sock|tcp://127.0.0.1:9|' $DIR/controller/state/operator.context "
        ">$DIR/dead; "
        "chmod 600 $DIR/dead; $BIN/meshperf --connect-timeout 500ms --context $DIR/dead agent "
        "list");
    assert_int_equal(outcome.status, 3);
    assert_non_null(strstr(outcome.err, "127.0.0.1:9"));
    assert_string_equal(outcome.out, "");
    outcome_release(&outcome);
}

static void an_incomplete_run_is_4_or_0_when_that_is_allowed(void **state)
{
    mesh_t *mesh = *state;
    int status;
    free(mesh_exec(mesh, "h2",
        "nft 'add table inet block; add chain inet block in "
        "{ type filter hook input priority 0; }; "
        "add rule inet block in udp dport 5701 drop'"));
    json_t *run = mesh_json(mesh, &status, 60, "run udp -t 200ms --from h1 --to h2");
    assert_int_equal(status, 4);
    json_decref(run);
    run = mesh_json(mesh, &status, 60, "run udp -t 200ms --from h1 --to h2 --allow-incomplete");
    assert_int_equal(status, 0);
    json_decref(run);
    free(mesh_exec(mesh, "h2", "nft delete table inet block"));
}

static void ctrl_c_cancels_prints_what_there_is_and_exits_5(void **state)
{
    mesh_t *mesh = *state;
    task_t *task = mesh_start(mesh, "exec $LAB meshperf -o json run udp -t 20s");
    mesh_wait_until(mesh, 20, "$LAB meshperf show -o json | grep -Eq '\"state\": *\"running\"'");
    kill(-task_pid(task), SIGINT);
    struct outcome outcome = task_wait(&task, 20);
    assert_int_equal(outcome.status, 5);
    json_t *run = json_loads(outcome.out, 0, NULL);
    assert_non_null(run);
    assert_string_equal(text_at(run, "run.state"), "cancelled");
    json_decref(run);
    outcome_release(&outcome);
}

// A press that falls between the start of a run and its watching, or before, leaves no run behind.
static void ctrl_c_at_any_moment_leaves_no_run_behind(void **state)
{
    mesh_t *mesh = *state;
    for (int i = 0; i < 3; i++) {
        task_t *task = mesh_start(mesh, "exec $LAB meshperf -o json run udp -t 20s");
        // SIGINT is the second signal; SigCgt is hexadecimal.
        mesh_wait_until(mesh, 20,
            "pid=$(pgrep -g %d -x meshperf) && "
            "grep -q 'SigCgt:.*[2367abef]$' /proc/$pid/status",
            (int)task_pid(task));
        kill(-task_pid(task), SIGINT);
        struct outcome outcome = task_wait(&task, 20);
        assert_int_equal(outcome.status, 5);
        outcome_release(&outcome);
        struct outcome runs = mesh_meshperf(mesh, 20, "runs -o json");
        assert_int_equal(runs.status, 0);
        assert_null(strstr(runs.out, "\"running\""));
        assert_null(strstr(runs.out, "\"queued\""));
        outcome_release(&runs);
    }
}

static bool names_the_guard(json_t *cell)
{
    return strstr(text_at(cell, "limiter.evidence"), "guard") != NULL;
}

static void a_guard_makes_cells_skipped_and_a_broken_file_refuses_to_start(void **state)
{
    mesh_t *mesh = *state;
    struct outcome guarded = mesh_shell(mesh, 30,
        "printf 'guard:\\n  rate: 2M\\n' >$DIR/guard.yaml; $LAB kill h2 TERM; "
        "$LAB agent h2 --config $DIR/guard.yaml");
    assert_int_equal(guarded.status, 0);
    outcome_release(&guarded);
    int status;
    json_t *run = mesh_json(mesh, &status, 60, "run udp -b 10M -t 200ms --from h1 --to h2");
    assert_int_equal(status, 4);
    json_t *cell = cell_of(run, "udp", "h1", "h2");
    assert_string_equal(text_at(cell, "state"), "skipped");
    assert_non_null(strstr(text_at(cell, "reason"), "guard"));
    json_decref(run);
    run = mesh_measured(mesh, names_the_guard, &cell, "tcp", "h1", "h2", "-t 1s");
    assert_true(number_at(cell, "bandwidth_bps") < 1.1 * 2e6);
    assert_true(names_the_guard(cell));
    json_decref(run);
    struct outcome broken = mesh_shell(mesh, 20,
        "printf 'guard:\\n  raet: 2M\\n' >$DIR/broken.yaml; "
        "$BIN/meshperf-agent --state-dir $DIR/none --config $DIR/broken.yaml");
    assert_int_equal(broken.status, 2);
    assert_non_null(strstr(broken.err, "broken.yaml:2:3"));
    outcome_release(&broken);
    struct outcome back = mesh_shell(mesh, 30, "$LAB kill h2 TERM; $LAB agent h2");
    assert_int_equal(back.status, 0);
    outcome_release(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_words_are_quoted_and_exit_2),
        cmocka_unit_test(right_words_exit_0),
        cmocka_unit_test(a_controller_that_is_not_there_is_3_and_says_where),
        cmocka_unit_test(an_incomplete_run_is_4_or_0_when_that_is_allowed),
        cmocka_unit_test(ctrl_c_cancels_prints_what_there_is_and_exits_5),
        cmocka_unit_test(ctrl_c_at_any_moment_leaves_no_run_behind),
        cmocka_unit_test(a_guard_makes_cells_skipped_and_a_broken_file_refuses_to_start),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
