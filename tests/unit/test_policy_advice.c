// What lint doubts, which rule explain names, and what learn drafts.

#include "meshtest.h"

#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "policy_bench.h"

// --------------------------------------------------------------------------------------- lint

static char *lint_of(const char *rest, bool real, size_t *warnings)
{
    static const struct policy_ability abilities[WORLD] = {[DB1] = {"no SCTP in this kernel", NULL},
        [BASTION] = {NULL, "it lacks CAP_NET_BIND_SERVICE"}};
    char text[4096], *said = NULL;
    size_t size;
    snprintf(text, sizeof text, "%s%s", GROUPS, rest);
    policy_t *policy = policy_of(text);
    FILE *stream = open_memstream(&said, &size);
    assert_non_null(stream);
    *warnings = policy_lint(
        policy, "f.yaml", real ? world : NULL, real ? abilities : NULL, real ? WORLD : 0, stream);
    fclose(stream);
    policy_destroy(&policy);
    return said;
}

static void expect_said(const char *rest, bool real, const char *words)
{
    size_t warnings;
    char *said = lint_of(rest, real, &warnings);
    if (!strstr(said, words))
        fail_msg("'%s' is not in:\n%s", words, said);
    free(said);
}

static void contradictions_and_overlaps_are_warned_about_with_both_places(void **state)
{
    (void)state;
    static const char rules[] = "rules:\n"
                                "  - {name: open, from: web, to: db, allow: [tcp/22, tcp/5432]}\n"
                                "  - {name: shut, from: any, to: db, deny: tcp/22}\n"
                                "  - {name: again, from: web, to: db, allow: tcp/5432}\n";
    // Also without agents: any group's agents may be meant by any.
    for (int real = 0; real <= 1; real++) {
        expect_said(rules, real,
            "f.yaml:10:5: warning: contradiction: 'shut' (line 11) denies what 'open' "
            "allows on some pairs and ports; deny wins");
        expect_said(rules, real,
            "f.yaml:12:5: warning: overlap: 'again' says what 'open' (line 10) says already");
    }
}

static void empty_groups_and_rules_that_test_nothing_are_warned_about(void **state)
{
    (void)state;
    static const char rules[] = "rules: [{name: r, from: nobody, to: db, deny: tcp/22}]\n";
    expect_said(rules, true, "f.yaml:7:3: warning: no agent is in the group 'nobody'");
    expect_said(
        rules, true, "f.yaml:9:9: warning: the rule 'r' tests nothing: no agent is in 'nobody'");
}

static void groups_and_targets_that_no_rule_names_are_warned_about(void **state)
{
    (void)state;
    static const char rules[] =
        "rules: [{name: r, from: any except admin, to: db, deny: tcp/22}]\n";
    expect_said(rules, false, "f.yaml:3:3: warning: no rule speaks of the group 'web'");
    expect_said(rules, false, "f.yaml:8:11: warning: no rule speaks of the target 'printer'");
    size_t warnings;
    char *said = lint_of(rules, false, &warnings);
    assert_null(strstr(said, "group 'admin'"));
    assert_null(strstr(said, "group 'db'"));
    free(said);
}

static void what_agents_cannot_test_is_warned_about(void **state)
{
    (void)state;
    expect_said("rules: [{name: r, from: web, to: db, allow: sctp/9000}]\n", true,
        "'r': 1 of 2 agents in 'db' cannot test sctp: no SCTP in this kernel");
    expect_said("rules: [{name: r, from: web, to: admin, deny: tcp/22}]\n", true,
        "'r': 1 of 1 agents in 'admin' cannot listen below port 1024: it lacks "
        "CAP_NET_BIND_SERVICE");
    expect_said("rules: [{name: r, from: web, to: printer, deny: udp/161}]\n", true,
        "silence of udp or sctp at the target 'printer' proves nothing");
}

static void checks_are_counted_rule_by_rule(void **state)
{
    (void)state;
    static const char rules[] = "defaults: {unlisted: deny, ports: tcp/22}\n"
                                "rules: [{name: r, from: web, to: db, allow: tcp/5432}]\n";
    expect_said(rules, true, "        4 checks  r\n");
    expect_said(rules, true, "       30 checks  unlisted\n");
    expect_said(rules, true, "       34 checks in all with 6 agents, from 34 measurements\n");
    size_t warnings;
    char *said = lint_of(rules, false, &warnings);
    assert_null(strstr(said, "checks"));
    free(said);
}

// ------------------------------------------------------------------------------------ explain

struct said {
    char text[1024];
    size_t used;
};

static void say(void *arg, const struct policy_checks *checks, const struct policy_check *check,
    const char *overrides)
{
    struct said *said = arg;
    said->used += (size_t)snprintf(said->text + said->used, sizeof said->text - said->used,
        "%s [%s]\n", line_of(checks, (size_t)(check - checks->checks)), overrides);
}

static void each_port_of_a_pair_is_explained_by_the_rule_that_decides(void **state)
{
    (void)state;
    policy_t *policy =
        policy_of(GROUPS "defaults: {unlisted: deny, ports: [tcp/22, tcp/80]}\n"
                         "rules:\n"
                         "  - {name: open, from: web, to: db, allow: [tcp/22, tcp/5432]}\n"
                         "  - {name: shut, from: any, to: db, deny: tcp/22}\n"
                         "  - {name: print, from: web, to: printer, allow: tcp/9100}\n");
    struct said said = {.used = 0};
    struct policy_error error;
    assert_int_equal(
        policy_explain(policy, &world[WEB1], &world[DB2], NULL, say, &said, &error), 0);
    assert_string_equal(said.text, "open: web-1 > db-2 tcp/5432 allow []\n"
                                   "shut: web-1 > db-2 tcp/22 deny [open]\n"
                                   "unlisted: web-1 > db-2 tcp/80 deny []\n");
    said = (struct said){.used = 0};
    assert_int_equal(policy_explain(policy, &world[WEB1], NULL, "printer", say, &said, &error), 0);
    assert_string_equal(said.text, "print: web-1 > printer tcp/9100 allow []\n");
    assert_int_equal(policy_explain(policy, &world[WEB1], NULL, "plotter", say, &said, &error),
        MESH_E_NOT_FOUND);
    policy_destroy(&policy);
}

// -------------------------------------------------------------------------------------- learn

#define SIGHTS 256
struct run_seen {
    struct policy_sight sights[SIGHTS];
    size_t count;
    bool target[WORLD];
};

static void see(struct run_seen *run, uint32_t from, uint32_t to, uint16_t port, bool open)
{
    assert_true(run->count < SIGHTS);
    run->sights[run->count++] =
        (struct policy_sight){.cell = {from, to, port, POLICY_TCP, TEST_PORT, false},
            .measured = true,
            .final = true,
            .alive = true,
            .observed = open ? POLICY_OPEN : POLICY_FILTERED,
            .arrived = open ? POLICY_ARRIVED_YES : POLICY_ARRIVED_NO,
            .listener = POLICY_LISTENER_AGENT};
}

// The bastion reaches everybody's ssh, web reaches db on 5432, and nothing else is open.
static void see_a_mesh(struct run_seen *run)
{
    for (uint32_t from = 0; from < WORLD; from++)
        for (uint32_t to = 0; to < WORLD; to++) {
            if (from == to)
                continue;
            bool database = (from == WEB1 || from == WEB2) && (to == DB1 || to == DB2);
            see(run, from, to, 22, from == BASTION);
            see(run, from, to, 5432, database);
            see(run, from, to, 5433, database);
        }
}

static char *draft_of(const struct run_seen *run)
{
    char *draft = NULL;
    size_t size;
    FILE *stream = open_memstream(&draft, &size);
    struct policy_open open = {.run = "r-7",
        .when = "2026-11-27T00:00:00Z",
        .agents = world,
        .target = run->target,
        .agent_count = WORLD,
        .sights = run->sights,
        .sight_count = run->count};
    assert_true(policy_learn(&open, stream));
    fclose(stream);
    return draft;
}

static void a_draft_says_in_few_rules_what_was_open_and_that_nobody_approved_it(void **state)
{
    (void)state;
    struct run_seen run = {.count = 0};
    see_a_mesh(&run);
    char *draft = draft_of(&run);
    static const char *const lines[] = {"Observed, not approved", "policy: observed-in-r-7\n",
        "  tier-web: {labels: {\"tier\": \"web\"}}\n", "  like-db-1: {agents: [db-1, db-2]}\n",
        "  ports: [tcp/22, tcp/5432-5433]\n",
        "from: tier-web, to: like-db-1, allow: [tcp/5432-5433]}\n",
        "from: bastion, to: tier-web, allow: [tcp/22]}\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (!strstr(draft, lines[i]))
            fail_msg("'%s' is not in:\n%s", lines[i], draft);
    free(draft);
}

static void a_draft_holds_for_the_run_that_it_was_learnt_from(void **state)
{
    (void)state;
    struct run_seen run = {.count = 0};
    see_a_mesh(&run);
    // One agent that is like no other.
    for (size_t i = 0; i < run.count; i++)
        if (run.sights[i].cell.from == OFFICE && run.sights[i].cell.to == WEB2)
            run.sights[i].observed = POLICY_OPEN;
    char *draft = draft_of(&run);
    policy_t *policy;
    struct policy_checks checks;
    struct policy_counts counts;
    expanded(&policy, &checks, draft);
    struct policy_judged *judged = policy_judge(&checks, run.sights, run.count, &counts);
    assert_int_equal(counts.held, run.count);
    assert_int_equal(counts.violated, 0);
    assert_int_equal(counts.not_tested, 0);
    free(judged);
    forget(&policy, &checks);
    free(draft);
}

static void a_run_without_ports_teaches_nothing(void **state)
{
    (void)state;
    struct policy_open open = {.run = "r-1", .agents = world, .agent_count = WORLD};
    assert_false(policy_learn(&open, stdout));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contradictions_and_overlaps_are_warned_about_with_both_places),
        cmocka_unit_test(empty_groups_and_rules_that_test_nothing_are_warned_about),
        cmocka_unit_test(groups_and_targets_that_no_rule_names_are_warned_about),
        cmocka_unit_test(what_agents_cannot_test_is_warned_about),
        cmocka_unit_test(checks_are_counted_rule_by_rule),
        cmocka_unit_test(each_port_of_a_pair_is_explained_by_the_rule_that_decides),
        cmocka_unit_test(a_draft_says_in_few_rules_what_was_open_and_that_nobody_approved_it),
        cmocka_unit_test(a_draft_holds_for_the_run_that_it_was_learnt_from),
        cmocka_unit_test(a_run_without_ports_teaches_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
