// Checks of policies on a mesh whose router has rules: what the verdicts say against what the
// rules' own counters counted, what is kept, and what each exit status means.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

static const char TOPOLOGY[] = "subnet web 10.87.1.0/24\n"
                               "subnet db 10.87.2.0/24\n"
                               "subnet office 10.87.3.0/24\n"
                               "host web-1 web\n"
                               "host db-1 db\n"
                               "host db-2 db\n"
                               "host office-1 office\n";

#define HEAD_WITH(defaults)                                                                        \
    "policy: segments\n"                                                                           \
    "groups:\n"                                                                                    \
    "  web: {subnets: 10.87.1.0/24}\n"                                                             \
    "  db: {agents: \"db-*\"}\n"                                                                   \
    "  office: {agents: office-1}\n"                                                               \
    "  nobody: {labels: {tier: none}}\n"                                                           \
    "targets: {router: {address: 10.87.2.254}}\n"                                                  \
    "defaults: {" defaults "}\n"
#define HEAD HEAD_WITH("attempts: 2, timeout: 1500ms")

// Each port stands for one way of treating it.
static const char FIREWALL[] =
    "table inet segments {\n"
    "  counter n_opened { }\n"
    "  counter n_dropped { }\n"
    "  counter n_rejected { }\n"
    "  counter n_reset { }\n"
    "  counter n_leaked { }\n"
    "  chain forward {\n"
    "    type filter hook forward priority 0;\n"
    "    ip saddr 10.87.3.0/24 ip daddr 10.87.2.0/24 tcp dport 2201 counter name n_opened accept\n"
    "    ip saddr 10.87.3.0/24 ip daddr 10.87.2.0/24 tcp dport 2202 counter name n_dropped drop\n"
    "    ip saddr 10.87.3.0/24 ip daddr 10.87.2.0/24 udp dport 2202 counter name n_dropped drop\n"
    "    ip saddr 10.87.3.0/24 ip daddr 10.87.2.0/24 tcp dport 2203 counter name n_rejected reject "
    "with icmp admin-prohibited\n"
    "    ip saddr 10.87.3.0/24 ip daddr 10.87.2.0/24 tcp dport 2204 counter name n_reset reject "
    "with "
    "tcp reset\n"
    "    ip saddr 10.87.2.0/24 ip daddr 10.87.3.0/24 tcp sport 2205 counter name n_leaked drop\n"
    "  }\n"
    "}\n";

static int bring_up(void **state)
{
    *state = mesh_up(TOPOLOGY, "");
    mesh_nft(*state, "router", "%s", FIREWALL);
    return 0;
}

static double counted(mesh_t *mesh, const char *counter)
{
    char name[64];
    snprintf(name, sizeof name, "inet segments %s", counter);
    return mesh_packets(mesh, "router", name);
}

static void write_policy(mesh_t *mesh, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", mesh_dir(mesh), name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static json_t *check_of(json_t *document, const char *to, const char *port)
{
    size_t index;
    json_t *check;
    json_array_foreach(json_object_get(document, "checks"), index, check)
    {
        const char *has = json_string_value(json_object_get(check, "port"));
        if (has && strcmp(has, port) == 0 && strcmp(text_at(check, "to"), to) == 0)
            return check;
    }
    fail_msg("no check of %s %s", to, port);
    return NULL;
}

static void verdict_is(
    json_t *document, const char *port, const char *verdict, const char *observed)
{
    json_t *check = check_of(document, "db-1", port);
    const char *seen = json_string_value(json_object_get(check, "observed"));
    if (strcmp(text_at(check, "verdict"), verdict) != 0 ||
        (observed && (!seen || strcmp(seen, observed) != 0)))
        fail_msg("%s: %s, %s (%s) instead of %s, %s", port, text_at(check, "verdict"),
            seen ? seen : "nothing", text_at(check, "evidence"), verdict, observed);
}

static void verdicts_agree_with_the_counters_of_the_rules(void **state)
{
    static const struct {
        const char *counter, *port, *allow, *deny, *observed;
    } rows[] = {{"n_opened", "tcp/2201", "held", "violated", "open"},
        {"n_dropped", "tcp/2202", "violated", "held", "filtered"},
        {"n_dropped", "udp/2202", "violated", "held", "filtered"},
        {"n_rejected", "tcp/2203", "violated", "held", "rejected"},
        {"n_reset", "tcp/2204", "violated", "held", "refused"},
        {"n_leaked", "tcp/2205", "violated", "violated", "filtered"}};
    static const char *const verbs[] = {"allow", "deny"};
    for (int v = 0; v < 2; v++) {
        char text[2048];
        snprintf(text, sizeof text,
            HEAD "rules: [{name: r, from: office, to: db, %s: [tcp/2201-2205, udp/2202]}]\n",
            verbs[v]);
        write_policy(*state, "rows.yaml", text);
        int status;
        json_t *document = mesh_json(*state, &status, 90, "check $DIR/rows.yaml");
        assert_int_equal(status, 1);
        assert_string_equal(text_at(document, "schema"), "meshperf.check/1");
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            assert_true(counted(*state, rows[i].counter) > 0);
            verdict_is(document, rows[i].port, v ? rows[i].deny : rows[i].allow, rows[i].observed);
        }
        json_decref(document);
    }
}

// Word for word, but for the run that they are of.
static void same_checks(json_t *a, json_t *b)
{
    assert_true(json_equal(json_object_get(a, "checks"), json_object_get(b, "checks")));
    assert_true(json_equal(json_object_get(a, "counts"), json_object_get(b, "counts")));
}

static void a_check_is_kept_with_its_policy_and_shown_again(void **state)
{
    write_policy(*state, "kept.yaml",
        HEAD "rules:\n"
             "  - {name: shut, from: office, to: db, deny: tcp/2202, how: filtered}\n"
             "  - {name: empty, from: nobody, to: db, deny: tcp/22}\n");
    int status;
    json_t *document = mesh_json(*state, &status, 60, "check $DIR/kept.yaml --name nightly");
    assert_int_equal(status, 4);
    verdict_is(document, "tcp/2202", "held", "filtered");
    char run[32];
    snprintf(run, sizeof run, "%s", text_at(document, "run.id"));
    // The file is gone; what it said is not.
    free(mesh_exec(*state, "ctl", "mv $DIR/kept.yaml $DIR/moved.yaml"));
    json_t *shown = mesh_json(*state, &status, 30, "show %s", run);
    assert_int_equal(status, 0);
    same_checks(document, shown);
    json_decref(shown);
    json_t *again = mesh_json(*state, &status, 30, "check $DIR/moved.yaml --run %s", run);
    assert_int_equal(status, 4);
    same_checks(document, again);
    json_decref(again);
    json_t *cells = mesh_json(*state, &status, 30, "show %s --pair office-1 db-1", run);
    assert_string_equal(text_at(cells, "schema"), "meshperf.run/1");
    json_decref(cells);
    struct outcome exported = mesh_shell(*state, 30,
        "$LAB meshperf export %s --to $DIR/kept.xml && grep -c '<testcase' $DIR/kept.xml", run);
    assert_int_equal(exported.status, 0);
    assert_string_equal(exported.out, "3\n");
    outcome_release(&exported);
    struct outcome audit = mesh_meshperf(*state, 30, "audit");
    assert_non_null(strstr(audit.out, "check start"));
    outcome_release(&audit);
    json_decref(document);
}

static void a_policy_learnt_from_a_run_holds_for_that_run(void **state)
{
    write_policy(*state, "seed.yaml",
        HEAD "rules: [{name: r, from: any, to: any, deny: [tcp/2201, tcp/2202, udp/2202]}]\n");
    struct outcome outcome = mesh_shell(*state, 90,
        "$LAB meshperf -q check $DIR/seed.yaml >/dev/null; $LAB meshperf policy learn "
        ">$DIR/draft.yaml && "
        "$LAB meshperf check $DIR/draft.yaml --run last >/dev/null && "
        "$LAB meshperf policy lint $DIR/draft.yaml && "
        "$LAB meshperf policy explain $DIR/draft.yaml --from office-1 --to db-1");
    if (outcome.status != 0)
        fail_msg("%s%s", outcome.out, outcome.err);
    assert_non_null(strstr(outcome.out, " 0 warnings"));
    assert_non_null(strstr(outcome.out, "tcp/2201"));
    outcome_release(&outcome);
}

static void where_nothing_can_be_tested_the_exit_status_is_4(void **state)
{
    static const char *const rules[] = {"rules: [{name: r, from: nobody, to: db, deny: tcp/22}]\n",
        // Nobody tells whether silence of udp is a block.
        "rules: [{name: r, from: office, to: router, deny: tcp/2299}]\n"};
    for (size_t i = 0; i < 2; i++) {
        char text[2048];
        snprintf(text, sizeof text, HEAD "%s", rules[i]);
        write_policy(*state, "nothing.yaml", text);
        for (int allow = 0; allow < 2; allow++) {
            int status;
            json_t *document = mesh_json(*state, &status, 60, "check $DIR/nothing.yaml%s",
                allow ? " --allow-incomplete" : "");
            assert_int_equal(status, 4);
            assert_int_equal(number_at(document, "counts.held"), 0);
            assert_int_equal(number_at(document, "counts.not_tested"), 1);
            json_decref(document);
        }
    }
}

static void thresholds_run_the_tests_that_they_need(void **state)
{
    write_policy(*state, "fast.yaml",
        HEAD_WITH("time: 1s") "rules:\n"
                              "  - name: quick\n"
                              "    from: web\n"
                              "    to: db\n"
                              "    expect: {latency: {p50: \"< 10s\"}, tcp: {bandwidth: \"> 1 "
                              "kbit/s\"}}\n"
                              "  - name: never so quick\n"
                              "    from: web\n"
                              "    to: db\n"
                              "    expect: {udp: {at: 1 Mbit/s, jitter: \"< 1ns\"}}\n");
    int status;
    json_t *document = mesh_json(*state, &status, 90, "check $DIR/fast.yaml");
    assert_int_equal(status, 1);
    assert_int_equal(number_at(document, "counts.held"), 4);
    assert_int_equal(number_at(document, "counts.violated"), 2);
    json_decref(document);
}

static void mistakes_are_told_by_file_line_and_column(void **state)
{
    write_policy(*state, "bad.yaml", HEAD "rules: [{name: r, form: web, to: db, deny: tcp/22}]\n");
    struct outcome outcome =
        mesh_meshperf(*state, 30, "check $DIR/bad.yaml --report junit=$DIR/bad.xml");
    assert_int_equal(outcome.status, 2);
    assert_string_equal(outcome.out, "");
    assert_non_null(
        strstr(outcome.err, "bad.yaml:9:19: unknown key 'form' in a rule, did you mean 'from'?"));
    outcome_release(&outcome);
    struct outcome report = mesh_shell(*state, 10, "grep -c '<failure' $DIR/bad.xml");
    assert_string_equal(report.out, "1\n");
    outcome_release(&report);
}

static void a_viewer_may_not_check(void **state)
{
    write_policy(
        *state, "viewer.yaml", HEAD "rules: [{name: r, from: web, to: db, deny: tcp/22}]\n");
    struct outcome outcome = mesh_shell(*state, 30,
        "$LAB meshperf operator add eve --role viewer >$DIR/eve && chmod 600 $DIR/eve && "
        "$LAB meshperf --context $DIR/eve check $DIR/viewer.yaml");
    assert_int_equal(outcome.status, 3);
    assert_non_null(strstr(outcome.err, "viewer"));
    outcome_release(&outcome);
}

static void an_interrupted_check_prints_what_there_is_and_exits_5(void **state)
{
    write_policy(*state, "long.yaml",
        HEAD_WITH(
            "attempts: 1, timeout: 500ms, time: 50s") "rules: [{name: r, from: office, to: db, "
                                                      "deny: tcp/2202},\n"
                                                      "  {name: load, from: web, to: db, expect: "
                                                      "{latency: {p50: \"< 1s\"}}}]\n");
    task_t *task = mesh_start(*state, "exec $LAB meshperf -o json check $DIR/long.yaml");
    mesh_wait_until(*state, 30, "$LAB meshperf runs -o json | grep -q '\"state\":\"running\"'");
    kill(-task_pid(task), SIGINT);
    struct outcome outcome = task_wait(&task, 60);
    assert_int_equal(outcome.status, 5);
    json_error_t error;
    json_t *document = json_loads(outcome.out, 0, &error);
    assert_non_null(document);
    assert_int_equal(json_array_size(json_object_get(document, "checks")), 4);
    json_decref(document);
    outcome_release(&outcome);
}

// Last: db-2 does not come back. It dies when its listener is seen, before the probes have ended.
static void a_destination_that_dies_after_arming_never_passes_a_denial(void **state)
{
    write_policy(*state, "dies.yaml",
        HEAD_WITH("attempts: 5, timeout: 3s") "rules: [{name: r, from: office, to: db, deny: "
                                              "[tcp/2202, udp/2202]}]\n");
    task_t *task = mesh_start(*state, "$LAB meshperf -o json check $DIR/dies.yaml");
    mesh_wait_until(*state, 30, "$LAB exec db-2 ss -Hltn | grep -q :2202");
    struct outcome killed =
        mesh_shell(*state, 20, "$LAB kill db-2 && $LAB meshperf agent remove db-2");
    assert_int_equal(killed.status, 0);
    outcome_release(&killed);
    struct outcome outcome = task_wait(&task, 120);
    json_error_t error;
    json_t *document = json_loads(outcome.out, 0, &error);
    if (!document)
        fail_msg("%s: %s", error.text, outcome.err);
    static const char *const ports[] = {"tcp/2202", "udp/2202"};
    for (size_t i = 0; i < 2; i++) {
        json_t *dead = check_of(document, "db-2", ports[i]);
        if (strcmp(text_at(dead, "verdict"), "not_tested") != 0)
            fail_msg("%s: %s (%s)", ports[i], text_at(dead, "verdict"), text_at(dead, "evidence"));
        assert_string_equal(text_at(check_of(document, "db-1", ports[i]), "verdict"), "held");
    }
    assert_int_equal(outcome.status, 4);
    json_decref(document);
    outcome_release(&outcome);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdicts_agree_with_the_counters_of_the_rules),
        cmocka_unit_test(a_check_is_kept_with_its_policy_and_shown_again),
        cmocka_unit_test(a_policy_learnt_from_a_run_holds_for_that_run),
        cmocka_unit_test(where_nothing_can_be_tested_the_exit_status_is_4),
        cmocka_unit_test(thresholds_run_the_tests_that_they_need),
        cmocka_unit_test(mistakes_are_told_by_file_line_and_column),
        cmocka_unit_test(a_viewer_may_not_check),
        cmocka_unit_test(an_interrupted_check_prints_what_there_is_and_exits_5),
        cmocka_unit_test(a_destination_that_dies_after_arming_never_passes_a_denial),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
