// Verdicts: every row of the table, the liveness control, and what rules ask beyond it.

#include "meshtest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy_bench.h"

#define SECOND INT64_C(1000000000)
#define NOW (INT64_C(1000000) * SECOND)

// ------------------------------------------------------------------------------- the table

enum { TCP = POLICY_TCP, UDP = POLICY_UDP, SCTP = POLICY_SCTP };
enum { UNKNOWN = POLICY_ARRIVED_UNKNOWN, YES = POLICY_ARRIVED_YES, NO = POLICY_ARRIVED_NO };
enum {
    NONE = POLICY_LISTENER_NONE,
    AGENT = POLICY_LISTENER_AGENT,
    SERVICE = POLICY_LISTENER_SERVICE
};
enum { UNTOLD = POLICY_NOT_TESTED, HOLDS = POLICY_HELD, BROKEN = POLICY_VIOLATED };
enum { AT_AGENT, AT_TARGET };

static const struct {
    enum policy_observed observed;
    int arrived, listener, protocol, where, allow, deny;
    const char *words;
} table[] = {
    {POLICY_OPEN, YES, AGENT, TCP, AT_AGENT, HOLDS, BROKEN, "work"},
    {POLICY_OPEN, YES, AGENT, UDP, AT_AGENT, HOLDS, BROKEN, "work"},
    {POLICY_OPEN, YES, AGENT, SCTP, AT_AGENT, HOLDS, BROKEN, "work"},
    // Open means arrived, whatever else is said.
    {POLICY_OPEN, UNKNOWN, NONE, TCP, AT_AGENT, HOLDS, BROKEN, "work"},
    {POLICY_ACCEPTED, NO, AGENT, TCP, AT_AGENT, BROKEN, BROKEN, "middlebox"},
    {POLICY_ACCEPTED, YES, AGENT, TCP, AT_AGENT, HOLDS, BROKEN, "something else"},
    {POLICY_ACCEPTED, UNKNOWN, SERVICE, TCP, AT_AGENT, HOLDS, BROKEN, "a service answered"},
    {POLICY_ACCEPTED, UNKNOWN, NONE, TCP, AT_TARGET, HOLDS, BROKEN, "without an agent"},
    {POLICY_ACCEPTED, UNKNOWN, AGENT, TCP, AT_AGENT, UNTOLD, BROKEN, "not known"},
    {POLICY_REFUSED, YES, AGENT, TCP, AT_AGENT, HOLDS, BROKEN, "lets it through"},
    {POLICY_REFUSED, YES, NONE, UDP, AT_AGENT, HOLDS, BROKEN, "lets it through"},
    {POLICY_REFUSED, UNKNOWN, NONE, TCP, AT_AGENT, UNTOLD, UNTOLD, "let the agent listen"},
    {POLICY_REFUSED, UNKNOWN, NONE, UDP, AT_TARGET, UNTOLD, UNTOLD, "no agent is"},
    {POLICY_REFUSED, UNKNOWN, SERVICE, TCP, AT_AGENT, UNTOLD, UNTOLD, "cannot be told"},
    {POLICY_REFUSED, UNKNOWN, AGENT, SCTP, AT_AGENT, UNTOLD, UNTOLD, "cannot say"},
    {POLICY_REFUSED, NO, NONE, TCP, AT_AGENT, UNTOLD, UNTOLD, "cannot be told"},
    {POLICY_REFUSED, NO, AGENT, TCP, AT_AGENT, BROKEN, HOLDS, "a device refused it"},
    {POLICY_REFUSED, NO, AGENT, UDP, AT_AGENT, BROKEN, HOLDS, "a device refused it"},
    {POLICY_REJECTED, NO, AGENT, TCP, AT_AGENT, BROKEN, HOLDS, "politely"},
    {POLICY_REJECTED, NO, AGENT, UDP, AT_AGENT, BROKEN, HOLDS, "politely"},
    {POLICY_REJECTED, YES, AGENT, UDP, AT_AGENT, BROKEN, BROKEN, "get in"},
    {POLICY_REJECTED, UNKNOWN, AGENT, TCP, AT_AGENT, UNTOLD, UNTOLD, "cannot say whether"},
    {POLICY_REJECTED, UNKNOWN, NONE, TCP, AT_TARGET, BROKEN, HOLDS, "at the source only"},
    {POLICY_FILTERED, NO, AGENT, TCP, AT_AGENT, BROKEN, HOLDS, "silently"},
    {POLICY_FILTERED, NO, AGENT, UDP, AT_AGENT, BROKEN, HOLDS, "silently"},
    {POLICY_FILTERED, NO, AGENT, SCTP, AT_AGENT, BROKEN, HOLDS, "silently"},
    {POLICY_FILTERED, YES, AGENT, TCP, AT_AGENT, BROKEN, BROKEN, "one-way leak"},
    {POLICY_FILTERED, YES, SERVICE, UDP, AT_AGENT, BROKEN, BROKEN, "one-way leak"},
    // An agent that should have seen it and cannot say is no proof of a block.
    {POLICY_FILTERED, UNKNOWN, AGENT, TCP, AT_AGENT, UNTOLD, UNTOLD, "cannot say"},
    // To a service's port others connect too, so that its agent does not say no; it would say yes.
    {POLICY_FILTERED, NO, SERVICE, TCP, AT_AGENT, BROKEN, HOLDS, "silently"},
    {POLICY_FILTERED, UNKNOWN, SERVICE, TCP, AT_AGENT, UNTOLD, UNTOLD, "cannot say"},
    {POLICY_FILTERED, UNKNOWN, SERVICE, UDP, AT_AGENT, UNTOLD, UNTOLD, "silent service"},
    {POLICY_FILTERED, UNKNOWN, NONE, TCP, AT_TARGET, UNTOLD, HOLDS, "at the source only"},
    {POLICY_FILTERED, UNKNOWN, NONE, TCP, AT_AGENT, UNTOLD, HOLDS, "at the source only"},
    {POLICY_FILTERED, UNKNOWN, NONE, UDP, AT_TARGET, UNTOLD, UNTOLD, "silent service"},
    {POLICY_FILTERED, UNKNOWN, NONE, SCTP, AT_TARGET, UNTOLD, UNTOLD, "silent service"},
    {POLICY_FILTERED, UNKNOWN, NONE, UDP, AT_AGENT, UNTOLD, UNTOLD, "silent service"},
    {POLICY_NO_ROUTE, YES, AGENT, TCP, AT_AGENT, BROKEN, BROKEN, "get in"},
    {POLICY_NO_ROUTE, NO, AGENT, TCP, AT_AGENT, BROKEN, HOLDS, "no route"},
    {POLICY_NO_ROUTE, UNKNOWN, NONE, TCP, AT_AGENT, UNTOLD, UNTOLD, "no route"},
    {POLICY_UNSUPPORTED, UNKNOWN, NONE, SCTP, AT_AGENT, UNTOLD, UNTOLD, "not supported"},
    {POLICY_ERROR, UNKNOWN, AGENT, TCP, AT_AGENT, UNTOLD, UNTOLD, "failed"},
    {POLICY_NOTHING, UNKNOWN, NONE, TCP, AT_AGENT, UNTOLD, UNTOLD, "nothing"},
};

static void every_row_of_the_table_has_its_verdict(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct policy_sight sight = {.observed = (uint8_t)table[i].observed,
            .arrived = (uint8_t)table[i].arrived,
            .listener = (uint8_t)table[i].listener,
            .cell = {.protocol = (uint8_t)table[i].protocol}};
        const char *allow, *deny;
        bool target = table[i].where == AT_TARGET;
        int allowed = policy_table(POLICY_ALLOW, &sight, target, &allow);
        int denied = policy_table(POLICY_DENY, &sight, target, &deny);
        if (allowed != table[i].allow || denied != table[i].deny || !strstr(deny, table[i].words))
            fail_msg("row %zu: allow %s, deny %s, '%s'", i, policy_verdict_word(allowed),
                policy_verdict_word(denied), deny);
    }
}

static void whatever_is_seen_nothing_that_arrived_is_held_as_denied(void **state)
{
    (void)state;
    for (int observed = POLICY_NOTHING; observed <= POLICY_ERROR; observed++)
        for (int listener = 0; listener < 3; listener++)
            for (int protocol = TCP; protocol <= SCTP; protocol++)
                for (int flags = 0; flags < 4; flags++) {
                    struct policy_sight sight = {.observed = (uint8_t)observed,
                        .arrived = YES,
                        .listener = (uint8_t)listener,
                        .unreachable = flags & 1,
                        .cell = {.protocol = (uint8_t)protocol}};
                    const char *words;
                    assert_int_not_equal(
                        policy_table(POLICY_DENY, &sight, flags & 2, &words), HOLDS);
                }
}

static void a_routers_word_of_a_dead_host_breaks_no_allowance(void **state)
{
    (void)state;
    struct policy_sight sight = {
        .observed = POLICY_REJECTED, .unreachable = true, .cell = {.protocol = TCP}};
    const char *words;
    assert_int_equal(policy_table(POLICY_ALLOW, &sight, true, &words), UNTOLD);
    assert_int_equal(policy_table(POLICY_DENY, &sight, true, &words), HOLDS);
}

// --------------------------------------------------------------------------- whole policies

struct court {
    policy_t *policy;
    struct policy_checks checks;
    struct policy_sight sights[16];
    size_t count;
    struct policy_counts counts;
    struct policy_judged *judged;
};

static struct court court_of(const char *rules)
{
    struct court court = {0};
    char text[4096];
    snprintf(text, sizeof text, "%s%s", GROUPS, rules);
    expanded(&court.policy, &court.checks, text);
    return court;
}

static struct policy_sight *seen(struct court *court, uint32_t from, uint32_t to, uint16_t port,
    enum policy_observed observed, int arrived)
{
    struct policy_sight *sight = &court->sights[court->count++];
    *sight = (struct policy_sight){.cell = {from, to, port, TCP, TEST_PORT, false},
        .measured = true,
        .final = true,
        .observed = (uint8_t)observed,
        .arrived = (uint8_t)arrived,
        .listener = to < WORLD ? AGENT : NONE,
        .alive = to < WORLD,
        .at_wall_ns = NOW};
    return sight;
}

static void judge(struct court *court)
{
    court->judged = policy_judge(&court->checks, court->sights, court->count, &court->counts);
}

static void dismiss(struct court *court)
{
    free(court->judged);
    forget(&court->policy, &court->checks);
}

static void expect_counts(
    const struct court *court, size_t held, size_t violated, size_t not_tested)
{
    assert_int_equal(court->counts.held, held);
    assert_int_equal(court->counts.violated, violated);
    assert_int_equal(court->counts.not_tested, not_tested);
}

static void expect_evidence(const struct court *court, size_t index, const char *words)
{
    char text[1024];
    policy_evidence(&court->checks, &court->checks.checks[index], &court->judged[index], text);
    if (!strstr(text, words))
        fail_msg("'%s' is not in '%s'", words, text);
}

static void a_denial_is_believed_only_of_a_destination_that_lives(void **state)
{
    (void)state;
    struct court court = court_of("rules: [{name: r, from: web, to: db, deny: tcp/22}]");
    seen(&court, WEB1, DB1, 22, POLICY_FILTERED, NO);
    seen(&court, WEB1, DB2, 22, POLICY_FILTERED, NO)->alive = false;
    seen(&court, WEB2, DB1, 22, POLICY_OPEN, YES);
    judge(&court);
    expect_counts(&court, 1, 1, 2);
    assert_int_equal(court.judged[1].verdict, UNTOLD);
    expect_evidence(&court, 1, "a dead host looks the same");
    expect_evidence(&court, 3, "the run did not test this");
    assert_int_equal(policy_exit_status(&court.counts, true), 1);
    dismiss(&court);
}

// The target stands behind the agents.
static void a_target_is_alive_if_an_allowed_port_answered_within_a_minute(void **state)
{
    (void)state;
    static const struct {
        int64_t after_s;
        enum policy_observed observed;
        int arrived, verdict;
    } rows[] = {{0, POLICY_ACCEPTED, UNKNOWN, HOLDS}, {59, POLICY_ACCEPTED, UNKNOWN, HOLDS},
        {-60, POLICY_ACCEPTED, UNKNOWN, HOLDS}, {61, POLICY_ACCEPTED, UNKNOWN, UNTOLD},
        {-61, POLICY_ACCEPTED, UNKNOWN, UNTOLD}, {0, POLICY_FILTERED, UNKNOWN, UNTOLD},
        {0, POLICY_REFUSED, UNKNOWN, UNTOLD}, {0, POLICY_ACCEPTED, NO, UNTOLD}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct court court =
            court_of("rules:\n"
                     "  - {name: print, from: office, to: printer, allow: tcp/9100}\n"
                     "  - {name: no, from: web, to: printer, deny: tcp/9100}\n");
        seen(&court, OFFICE, WORLD, 9100, rows[i].observed, rows[i].arrived)->at_wall_ns =
            NOW + rows[i].after_s * SECOND;
        seen(&court, WEB1, WORLD, 9100, POLICY_FILTERED, UNKNOWN);
        judge(&court);
        if (court.judged[1].verdict != rows[i].verdict)
            fail_msg("row %zu: %s", i, policy_verdict_word(court.judged[1].verdict));
        dismiss(&court);
    }
}

static void how_asks_for_one_way_of_blocking(void **state)
{
    (void)state;
    static const struct {
        const char *how;
        enum policy_observed observed;
        int verdict;
    } rows[] = {{"filtered", POLICY_FILTERED, HOLDS}, {"filtered", POLICY_REJECTED, BROKEN},
        {"filtered", POLICY_REFUSED, BROKEN}, {"rejected", POLICY_REJECTED, HOLDS},
        {"rejected", POLICY_REFUSED, HOLDS}, {"rejected", POLICY_FILTERED, BROKEN},
        {"refused", POLICY_REFUSED, HOLDS}, {"refused", POLICY_REJECTED, BROKEN},
        {"any", POLICY_REJECTED, HOLDS}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char rule[160];
        snprintf(rule, sizeof rule,
            "rules: [{name: r, from: office, to: admin, deny: tcp/22, how: %s}]", rows[i].how);
        struct court court = court_of(rule);
        seen(&court, OFFICE, BASTION, 22, rows[i].observed, NO);
        judge(&court);
        if (court.judged[0].verdict != rows[i].verdict)
            fail_msg("row %zu: %s", i, policy_verdict_word(court.judged[0].verdict));
        if (rows[i].verdict == BROKEN)
            expect_evidence(&court, 0, "not in the way that the rule asks for");
        dismiss(&court);
    }
}

static void where_a_router_rejects_some_silence_says_nothing_of_how_others_are_blocked(void **state)
{
    (void)state;
    struct court court = court_of(
        "rules: [{name: r, from: office, to: [admin, db], deny: tcp/22-23, how: rejected}]");
    seen(&court, OFFICE, DB1, 22, POLICY_FILTERED, NO);
    seen(&court, OFFICE, DB1, 23, POLICY_REJECTED, NO);
    seen(&court, OFFICE, DB2, 22, POLICY_FILTERED, YES);
    seen(&court, OFFICE, DB2, 23, POLICY_REJECTED, NO);
    seen(&court, OFFICE, BASTION, 22, POLICY_FILTERED, NO);
    seen(&court, OFFICE, BASTION, 23, POLICY_REJECTED, NO);
    judge(&court);
    expect_counts(&court, 3, 1, 2);
    expect_evidence(&court, 0, "routers limit the messages");
    dismiss(&court);
}

static void what_is_unsupported_is_skipped_or_fails_as_the_rule_says(void **state)
{
    (void)state;
    struct court court =
        court_of("rules:\n"
                 "  - {name: a, from: office, to: admin, deny: tcp/22}\n"
                 "  - {name: b, from: office, to: admin, deny: tcp/23, unsupported: fail}\n");
    for (uint16_t port = 22; port <= 23; port++) {
        struct policy_sight *sight =
            seen(&court, OFFICE, BASTION, port, POLICY_UNSUPPORTED, UNKNOWN);
        sight->measured = false;
        sight->unsupported = true;
    }
    judge(&court);
    expect_counts(&court, 0, 1, 1);
    assert_int_equal(court.judged[1].verdict, BROKEN);
    dismiss(&court);
}

static void tests_that_failed_or_did_not_end_test_nothing(void **state)
{
    (void)state;
    struct court court = court_of("rules: [{name: a, from: office, to: admin, deny: tcp/22-23}]");
    struct policy_sight *failed = seen(&court, OFFICE, BASTION, 22, POLICY_NOTHING, UNKNOWN);
    failed->measured = false;
    failed->text = strdup("bastion went away");
    struct policy_sight *pending = seen(&court, OFFICE, BASTION, 23, POLICY_NOTHING, UNKNOWN);
    pending->measured = pending->final = false;
    judge(&court);
    expect_counts(&court, 0, 0, 2);
    expect_evidence(&court, 0, "the test did not succeed: bastion went away");
    expect_evidence(&court, 1, "the test did not end");
    assert_int_equal(policy_exit_status(&court.counts, false), 4);
    // Nothing at all is never fine.
    assert_int_equal(policy_exit_status(&court.counts, true), 4);
    free(court.sights[0].text);
    free(court.sights[1].text);
    dismiss(&court);
}

static void limits_are_judged_by_what_was_measured(void **state)
{
    (void)state;
    static const struct {
        double bandwidth, retransmits;
        int verdict;
    } rows[] = {{6e9, 0.0001, HOLDS}, {5e9, 0.0009, HOLDS}, {4.99e9, 0, BROKEN},
        {6e9, 0.001, BROKEN}, {6e9, NAN, UNTOLD}, {1e9, NAN, BROKEN}, {NAN, 0.5, BROKEN},
        {NAN, NAN, UNTOLD}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct court court = court_of("rules: [{name: r, from: office, to: admin, expect: {tcp: "
                                      "{bandwidth: \">= 5 Gbit/s\", retransmits: \"< 0.1 %\"}}}]");
        double values[POLICY_VALUES_MAX] = {rows[i].bandwidth, rows[i].retransmits};
        court.sights[court.count++] =
            (struct policy_sight){.cell = {.from = OFFICE, .to = BASTION, .kind = TEST_TCP},
                .measured = true,
                .final = true,
                .values = values};
        judge(&court);
        if (court.judged[0].verdict != rows[i].verdict)
            fail_msg("row %zu: %s", i, policy_verdict_word(court.judged[0].verdict));
        char text[128];
        policy_observed_text(&court.checks, &court.checks.checks[0], &court.judged[0], text);
        if (i == 0)
            assert_string_equal(text, "bandwidth 6 Gbit/s, retransmits 0.01 %");
        dismiss(&court);
    }
}

static void a_rule_may_ask_for_a_share_of_its_pairs(void **state)
{
    (void)state;
    for (int share = 75; share <= 80; share += 5) {
        char rule[160];
        snprintf(rule, sizeof rule,
            "rules: [{name: r, from: web, to: db, allow: tcp/22-23, pairs: %d %%}]", share);
        struct court court = court_of(rule);
        for (uint32_t from = WEB1; from <= WEB2; from++)
            for (uint32_t to = DB1; to <= DB2; to++)
                for (uint16_t port = 22; port <= 23; port++)
                    seen(&court, from, to, port,
                        from == WEB2 && to == DB2 && port == 23 ? POLICY_FILTERED : POLICY_OPEN,
                        from == WEB2 && to == DB2 && port == 23 ? NO : YES);
        judge(&court);
        assert_int_equal(court.counts.tolerated, share == 75);
        assert_int_equal(court.counts.violated, share == 80);
        assert_int_equal(court.counts.held, 7);
        assert_int_equal(policy_exit_status(&court.counts, false), share == 75 ? 0 : 1);
        if (share == 75)
            expect_evidence(&court, 7, "tolerated");
        dismiss(&court);
    }
}

static void violated_beats_not_tested_and_only_incomplete_can_be_allowed(void **state)
{
    (void)state;
    static const struct {
        struct policy_counts counts;
        bool allowed;
        int status;
    } rows[] = {{{5, 0, 0, 0}, false, 0}, {{5, 0, 1, 0}, false, 4}, {{5, 0, 1, 0}, true, 0},
        {{5, 1, 1, 0}, false, 1}, {{0, 1, 9, 0}, true, 1}, {{0, 0, 9, 0}, true, 4},
        {{0, 0, 0, 0}, true, 4}, {{0, 0, 0, 1}, false, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(policy_exit_status(&rows[i].counts, rows[i].allowed), rows[i].status);
}

// ----------------------------------------------------------------------------- from cells

static void a_cell_becomes_what_is_judged(void **state)
{
    (void)state;
    Mp__Cell cell = MP__CELL__INIT;
    struct policy_sight sight;
    cell.kind = MP__TEST_KIND__PORT;
    cell.from = 3;
    cell.to = 4;
    cell.state = MP__CELL_STATE__OK;
    cell.port = (char *)"udp/53";
    cell.observed = (char *)"rejected";
    cell.arrived = (char *)"no";
    cell.listener = (char *)"agent";
    cell.evidence = (char *)"ICMP 3/1 from 10.0.0.1";
    cell.has_alive = cell.alive = true;
    cell.has_icmp_type = cell.has_icmp_code = true;
    cell.icmp_type = 3;
    cell.icmp_code = 1;
    assert_true(policy_sight_of(&cell, &sight));
    assert_int_equal(sight.cell.protocol, UDP);
    assert_int_equal(sight.cell.port, 53);
    assert_int_equal(sight.observed, POLICY_REJECTED);
    assert_int_equal(sight.arrived, NO);
    assert_int_equal(sight.listener, AGENT);
    assert_true(sight.alive && sight.unreachable && sight.measured && sight.final);
    assert_string_equal(sight.text, "ICMP 3/1 from 10.0.0.1");
    free(sight.text);
    // Words of a later version are no observation.
    cell.observed = (char *)"transmogrified";
    assert_true(policy_sight_of(&cell, &sight));
    assert_int_equal(sight.observed, POLICY_NOTHING);
    free(sight.text);
    cell.port = (char *)"udp";
    assert_false(policy_sight_of(&cell, &sight));
    cell.kind = MP__TEST_KIND__PATH;
    assert_false(policy_sight_of(&cell, &sight));
}

static void retransmits_are_a_share_of_the_segments_needed(void **state)
{
    (void)state;
    Mp__Cell cell = MP__CELL__INIT;
    struct policy_sight sight;
    cell.kind = MP__TEST_KIND__TCP;
    cell.state = MP__CELL_STATE__OK;
    cell.has_bandwidth_bps = cell.has_retransmits = cell.has_mss = cell.has_bytes = true;
    cell.bandwidth_bps = 1e9;
    cell.retransmits = 10;
    cell.mss = 1000;
    cell.bytes = 1000000;
    assert_true(policy_sight_of(&cell, &sight));
    assert_true(fabs(sight.values[1] - 0.01) < 1e-12);
    free(sight.values);
    cell.has_mss = false;
    assert_true(policy_sight_of(&cell, &sight));
    assert_true(isnan(sight.values[1]));
    free(sight.values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_the_table_has_its_verdict),
        cmocka_unit_test(whatever_is_seen_nothing_that_arrived_is_held_as_denied),
        cmocka_unit_test(a_routers_word_of_a_dead_host_breaks_no_allowance),
        cmocka_unit_test(a_denial_is_believed_only_of_a_destination_that_lives),
        cmocka_unit_test(a_target_is_alive_if_an_allowed_port_answered_within_a_minute),
        cmocka_unit_test(how_asks_for_one_way_of_blocking),
        cmocka_unit_test(
            where_a_router_rejects_some_silence_says_nothing_of_how_others_are_blocked),
        cmocka_unit_test(what_is_unsupported_is_skipped_or_fails_as_the_rule_says),
        cmocka_unit_test(tests_that_failed_or_did_not_end_test_nothing),
        cmocka_unit_test(limits_are_judged_by_what_was_measured),
        cmocka_unit_test(a_rule_may_ask_for_a_share_of_its_pairs),
        cmocka_unit_test(violated_beats_not_tested_and_only_incomplete_can_be_allowed),
        cmocka_unit_test(a_cell_becomes_what_is_judged),
        cmocka_unit_test(retransmits_are_a_share_of_the_segments_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
