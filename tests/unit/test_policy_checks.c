// From rules and agents to checks: sets, precedence, what is unlisted, what a run has to measure.

#include "meshtest.h"

#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "policy_bench.h"

#define LINES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void gives(const char *rules, const char *const *lines)
{
    policy_t *policy;
    struct policy_checks checks;
    char text[4096];
    snprintf(text, sizeof text, "%s%s", GROUPS, rules);
    expanded(&policy, &checks, text);
    expect_lines(&checks, lines);
    forget(&policy, &checks);
}

static void a_rule_makes_one_check_for_each_pair_and_port(void **state)
{
    (void)state;
    gives("rules: [{name: r, from: web, to: db, allow: [tcp/5432, udp/53]}]",
        LINES("r: web-1 > db-1 tcp/5432 allow", "r: web-1 > db-1 udp/53 allow",
            "r: web-1 > db-2 tcp/5432 allow", "r: web-1 > db-2 udp/53 allow",
            "r: web-2 > db-1 tcp/5432 allow", "r: web-2 > db-1 udp/53 allow",
            "r: web-2 > db-2 tcp/5432 allow", "r: web-2 > db-2 udp/53 allow"));
}

static void nobody_is_a_pair_with_itself(void **state)
{
    (void)state;
    gives("rules: [{name: r, from: web, to: web, deny: tcp/22}]",
        LINES("r: web-1 > web-2 tcp/22 deny", "r: web-2 > web-1 tcp/22 deny"));
}

static void sets_unite_and_except_takes_out(void **state)
{
    (void)state;
    gives("rules: [{name: r, from: any except web, to: admin, deny: tcp/22}]",
        LINES("r: db-1 > bastion tcp/22 deny", "r: db-2 > bastion tcp/22 deny",
            "r: office-1 > bastion tcp/22 deny"));
    gives("rules: [{name: r, from: \"office, admin\", to: printer, deny: tcp/9100}]",
        LINES("r: office-1 > printer tcp/9100 deny", "r: bastion > printer tcp/9100 deny"));
    gives("rules: [{name: r, from: [\"any except web, db, admin\", web except web], to: admin, "
          "deny: tcp/22}]",
        LINES("r: office-1 > bastion tcp/22 deny"));
    gives("rules: [{name: r, from: office, to: [admin, any except any], deny: tcp/22}]",
        LINES("r: office-1 > bastion tcp/22 deny"));
}

static void any_means_agents_and_a_target_is_named(void **state)
{
    (void)state;
    gives("rules: [{name: r, from: admin, to: \"any except web, db\", deny: tcp/22}]",
        LINES("r: bastion > office-1 tcp/22 deny"));
}

static void a_denial_decides_over_an_allowance_on_the_same_port(void **state)
{
    (void)state;
    gives("rules:\n"
          "  - {name: all, from: web, to: admin, allow: [tcp/22, tcp/443]}\n"
          "  - {name: no ssh, from: any except office, to: admin, deny: tcp/22}\n",
        LINES("all: web-1 > bastion tcp/443 allow", "all: web-2 > bastion tcp/443 allow",
            "no ssh: web-1 > bastion tcp/22 deny", "no ssh: web-2 > bastion tcp/22 deny",
            "no ssh: db-1 > bastion tcp/22 deny", "no ssh: db-2 > bastion tcp/22 deny"));
}

static void except_takes_a_pair_out_of_a_denial(void **state)
{
    (void)state;
    gives("rules:\n"
          "  - {name: admins, from: admin, to: office, allow: tcp/22}\n"
          "  - {name: others, from: any except admin, to: office, deny: tcp/22}\n",
        LINES("admins: bastion > office-1 tcp/22 allow", "others: web-1 > office-1 tcp/22 deny",
            "others: web-2 > office-1 tcp/22 deny", "others: db-1 > office-1 tcp/22 deny",
            "others: db-2 > office-1 tcp/22 deny"));
}

static void rules_that_overlap_are_each_checked(void **state)
{
    (void)state;
    gives("rules:\n"
          "  - {name: one, from: office, to: admin, deny: tcp/22}\n"
          "  - {name: two, from: office, to: admin, deny: [tcp/22, tcp/23]}\n",
        LINES("one: office-1 > bastion tcp/22 deny", "two: office-1 > bastion tcp/22 deny",
            "two: office-1 > bastion tcp/23 deny"));
}

static void an_empty_set_is_one_check_that_says_so(void **state)
{
    (void)state;
    policy_t *policy;
    struct policy_checks checks;
    char text[256];
    gives("rules: [{name: r, from: nobody, to: db, deny: [tcp/22, tcp/23]}]",
        LINES("r: - > - tcp/22, tcp/23 deny"));
    expanded(&policy, &checks,
        GROUPS "rules:\n"
               "  - {name: a, from: web, to: nobody, deny: tcp/22}\n"
               "  - {name: b, from: office, to: office, deny: tcp/22}\n");
    policy_check_empty(&checks, &checks.checks[0], text);
    assert_string_equal(text, "no agent is in 'nobody'");
    policy_check_empty(&checks, &checks.checks[1], text);
    assert_string_equal(text, "the rule has no pair: its only agent is at both ends");
    forget(&policy, &checks);
}

// Pairs times ports, less what rules mention.
static size_t unlisted_of(const char *rest)
{
    policy_t *policy;
    struct policy_checks checks;
    char text[4096];
    size_t count = 0;
    snprintf(text, sizeof text, "%s%s", GROUPS, rest);
    expanded(&policy, &checks, text);
    for (size_t i = 0; i < checks.count; i++)
        count += checks.checks[i].rule == POLICY_UNLISTED;
    forget(&policy, &checks);
    return count;
}

static void what_no_rule_mentions_is_checked_as_unlisted(void **state)
{
    (void)state;
    const size_t pairs = WORLD * (WORLD - 1);
    assert_int_equal(
        unlisted_of("defaults: {unlisted: deny, ports: [tcp/22, tcp/443]}\n"), 2 * pairs);
    assert_int_equal(
        unlisted_of("defaults: {unlisted: deny, ports: [tcp/22, tcp/443]}\n"
                    "rules: [{name: r, from: web, to: db, allow: [tcp/22, tcp/5432]}]\n"),
        2 * pairs - 4);
    // Without ports of its own: those that the rules name.
    assert_int_equal(unlisted_of("defaults: {unlisted: allow}\n"
                                 "rules: [{name: r, from: web, to: db, deny: tcp/22-23}]\n"),
        2 * pairs - 8);
    assert_int_equal(unlisted_of("rules: [{name: r, from: web, to: db, deny: tcp/22}]\n"), 0);
}

static void an_expectation_is_one_check_for_each_pair_and_test(void **state)
{
    (void)state;
    gives("rules:\n"
          "  - name: fast\n"
          "    from: office\n"
          "    to: admin\n"
          "    expect: {latency: {p99: < 2 ms}, tcp: {bandwidth: \">= 1 Gbit/s\"}}\n",
        LINES("fast: office-1 > bastion tcp bandwidth >= 1 Gbit/s",
            "fast: office-1 > bastion latency p99 < 2 ms"));
}

static void checks_of_the_same_pair_and_port_share_a_measurement(void **state)
{
    (void)state;
    policy_t *policy;
    struct policy_checks checks;
    size_t count;
    expanded(&policy, &checks,
        GROUPS "rules:\n"
               "  - {name: one, from: office, to: admin, deny: tcp/22, listener: service}\n"
               "  - {name: two, from: office, to: admin, deny: [tcp/22, tcp/23]}\n"
               "  - {name: three, from: office, to: admin, deny: tcp/24, listener: service}\n"
               "  - {name: four, from: nobody, to: admin, deny: tcp/22}\n");
    struct policy_cell *cells = policy_cells(&checks, &count);
    assert_int_equal(count, 3);
    assert_int_equal(cells[0].port, 22);
    assert_false(cells[0].look_on);
    assert_int_equal(cells[2].port, 24);
    assert_true(cells[2].look_on);
    free(cells);
    forget(&policy, &checks);
}

static void a_target_with_the_name_of_an_agent_is_refused_with_its_place(void **state)
{
    (void)state;
    policy_t *policy = policy_of("policy: p\n"
                                 "groups: {web: {labels: {tier: web}}}\n"
                                 "targets:\n"
                                 "  db-1: {address: 10.0.0.1}\n"
                                 "rules: [{name: r, from: web, to: db-1, deny: tcp/22}]\n");
    struct policy_checks checks;
    struct policy_error error;
    assert_int_equal(policy_expand(policy, world, WORLD, &checks, &error), MESH_E_EXISTS);
    assert_int_equal(error.place.line, 4);
    assert_int_equal(error.place.column, 3);
    assert_non_null(strstr(error.text, "'db-1'"));
    forget(&policy, &checks);
}

struct crowd {
    struct selector_subject *agents;
    char (*names)[32];
};

static struct crowd crowd_of(size_t count)
{
    struct crowd crowd = {calloc(count, sizeof *crowd.agents), calloc(count, sizeof *crowd.names)};
    assert_true(crowd.agents && crowd.names);
    for (size_t i = 0; i < count; i++) {
        snprintf(crowd.names[i], sizeof crowd.names[i], "host-%zu", i);
        crowd.agents[i].name = crowd.names[i];
    }
    return crowd;
}

static void crowd_free(struct crowd *crowd)
{
    free(crowd->agents);
    free(crowd->names);
}

static void nineteen_thousand_checks_are_each_there_once(void **state)
{
    (void)state;
    struct crowd crowd = crowd_of(20);
    policy_t *policy = policy_of("policy: p\n"
                                 "rules: [{name: r, from: any, to: any, deny: tcp/1001-1050}]\n");
    struct policy_checks checks;
    struct policy_error error;
    size_t count;
    assert_int_equal(policy_expand(policy, crowd.agents, 20, &checks, &error), 0);
    assert_int_equal(checks.count, 19000);
    struct policy_cell *cells = policy_cells(&checks, &count);
    assert_int_equal(count, 19000);
    free(cells);
    forget(&policy, &checks);
    crowd_free(&crowd);
}

static void too_many_checks_are_refused_before_they_are_made(void **state)
{
    (void)state;
    struct crowd crowd = crowd_of(1000);
    policy_t *policy = policy_of("policy: p\n"
                                 "rules:\n"
                                 "  - {name: r, from: any, to: any, deny: tcp/1-100}\n");
    struct policy_checks checks;
    struct policy_error error;
    assert_int_equal(policy_expand(policy, crowd.agents, 1000, &checks, &error), MESH_E_RANGE);
    assert_int_equal(error.place.line, 3);
    assert_non_null(strstr(error.text, "over 2000000 checks"));
    forget(&policy, &checks);
    crowd_free(&crowd);
}

static void a_run_has_to_know_the_agents_of_every_set(void **state)
{
    (void)state;
    bool used[WORLD + 1];
    policy_t *policy =
        policy_of(GROUPS "rules: [{name: r, from: web, to: printer, deny: tcp/22}]\n");
    policy_used(policy, world, WORLD, used);
    static const bool expected[WORLD + 1] = {true, true, false, false, false, false, true};
    assert_memory_equal(used, expected, sizeof used);
    policy_destroy(&policy);
    policy = policy_of(GROUPS "defaults: {unlisted: deny, ports: tcp/1}\n");
    policy_used(policy, world, WORLD, used);
    for (size_t i = 0; i < WORLD; i++)
        assert_true(used[i]);
    assert_false(used[WORLD]);
    policy_destroy(&policy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rule_makes_one_check_for_each_pair_and_port),
        cmocka_unit_test(nobody_is_a_pair_with_itself),
        cmocka_unit_test(sets_unite_and_except_takes_out),
        cmocka_unit_test(any_means_agents_and_a_target_is_named),
        cmocka_unit_test(a_denial_decides_over_an_allowance_on_the_same_port),
        cmocka_unit_test(except_takes_a_pair_out_of_a_denial),
        cmocka_unit_test(rules_that_overlap_are_each_checked),
        cmocka_unit_test(an_empty_set_is_one_check_that_says_so),
        cmocka_unit_test(what_no_rule_mentions_is_checked_as_unlisted),
        cmocka_unit_test(an_expectation_is_one_check_for_each_pair_and_test),
        cmocka_unit_test(checks_of_the_same_pair_and_port_share_a_measurement),
        cmocka_unit_test(a_target_with_the_name_of_an_agent_is_refused_with_its_place),
        cmocka_unit_test(nineteen_thousand_checks_are_each_there_once),
        cmocka_unit_test(too_many_checks_are_refused_before_they_are_made),
        cmocka_unit_test(a_run_has_to_know_the_agents_of_every_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
