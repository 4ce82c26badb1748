// Checks at the controller: a policy that arrives in parts becomes a run that keeps it; what is
// wrong with parts or text starts nothing.

#include "server_bench.h"

#include <string.h>

#define GOOD                                                                                       \
    "policy: two\n"                                                                                \
    "groups: {a: {agents: a}, nobody: {agents: gone}}\n"                                           \
    "rules:\n"                                                                                     \
    "  - {name: r, from: a, to: any, deny: tcp/22-23}\n"                                           \
    "  - {name: e, from: nobody, to: any, deny: tcp/22}\n"

static Mp__Envelope *part_of(struct bench *bench, uint8_t upload, uint32_t part, uint32_t parts,
    const void *text, size_t size)
{
    uint8_t id[16] = {upload};
    Mp__CheckPart check = MP__CHECK_PART__INIT;
    check.upload = (ProtobufCBinaryData){sizeof id, id};
    check.part = part;
    check.parts = parts;
    check.policy_text = (ProtobufCBinaryData){size, (uint8_t *)text};
    check.command = (char *)"meshperf check two.yaml";
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_CHECK_PART;
    question.check_part = &check;
    return ask(bench, &question);
}

static Mp__Envelope *whole(struct bench *bench, const char *text)
{
    return part_of(bench, 1, 0, 1, text, strlen(text));
}

static void enrol_two(struct bench *bench)
{
    struct join_token token = new_token(bench, 2, NULL);
    (void)enrolled(bench, &token, "a");
    (void)enrolled(bench, &token, "b");
}

static Mp__Envelope *policy_text(struct bench *bench, const char *run, uint32_t offset)
{
    Mp__PolicyQuery query = MP__POLICY_QUERY__INIT;
    query.run = (char *)run;
    query.offset = offset;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_POLICY_QUERY;
    question.policy_query = &query;
    return ask(bench, &question);
}

static Mp__Envelope *run_of(struct bench *bench, const char *run)
{
    Mp__RunQuery query = MP__RUN_QUERY__INIT;
    query.run = (char *)run;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_RUN_QUERY;
    question.run_query = &query;
    return ask(bench, &question);
}

static void a_policy_in_parts_becomes_a_run_that_keeps_it(void **state)
{
    struct bench *bench = *state;
    enrol_two(bench);
    assert_done(part_of(bench, 7, 0, 2, GOOD, 40));
    Mp__Envelope *answer = part_of(bench, 7, 1, 2, &GOOD[40], strlen(GOOD) - 40);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_RUN_ACCEPTED);
    assert_string_equal(answer->run_accepted->run, "r-1");
    wire_free(&answer);
    answer = policy_text(bench, "r-1", 0);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_POLICY_ANSWER);
    assert_int_equal(answer->policy_answer->total, strlen(GOOD));
    assert_int_equal(answer->policy_answer->policy_text.len, strlen(GOOD));
    assert_memory_equal(answer->policy_answer->policy_text.data, GOOD, strlen(GOOD));
    wire_free(&answer);
    answer = run_of(bench, "r-1");
    const Mp__RunInfo *info = answer->run_answer->info;
    assert_string_equal(info->request->policy, "two");
    assert_string_equal(info->request->command, "meshperf check two.yaml");
    assert_int_equal(info->cells, 2);
    assert_int_equal(answer->run_answer->n_agents, 2);
    wire_free(&answer);
}

static void parts_that_do_not_belong_together_start_nothing(void **state)
{
    struct bench *bench = *state;
    enrol_two(bench);
    assert_refused(part_of(bench, 1, 1, 2, GOOD, 9), MP__REFUSED__CODE__BUSY, "earlier part");
    assert_done(part_of(bench, 2, 0, 3, GOOD, 9));
    assert_refused(part_of(bench, 2, 2, 3, GOOD, 9), MP__REFUSED__CODE__INVALID, "out of order");
    // That ended it.
    assert_refused(part_of(bench, 2, 1, 3, GOOD, 9), MP__REFUSED__CODE__BUSY, "earlier part");
    assert_refused(part_of(bench, 3, 5, 5, GOOD, 9), MP__REFUSED__CODE__INVALID, "part");
    assert_refused(run_of(bench, "last"), MP__REFUSED__CODE__NOT_FOUND, "no run");
}

static void uploads_that_stand_still_give_way(void **state)
{
    struct bench *bench = *state;
    enrol_two(bench);
    for (uint8_t i = 1; i <= 4; i++)
        assert_done(part_of(bench, i, 0, 2, GOOD, 9));
    assert_refused(part_of(bench, 9, 0, 2, GOOD, 9), MP__REFUSED__CODE__BUSY, "too many policies");
    bench->skipped_ns += 31 * NS_PER_S;
    assert_done(part_of(bench, 9, 0, 2, GOOD, 9));
}

static void a_policy_over_4_mib_is_refused(void **state)
{
    struct bench *bench = *state;
    static uint8_t blanks[WIRE_PART_BYTES];
    memset(blanks, ' ', sizeof blanks);
    const uint32_t parts = (4u << 20) / WIRE_PART_BYTES + 1;
    for (uint32_t i = 0; i + 1 < parts; i++)
        assert_done(part_of(bench, 1, i, parts, blanks, sizeof blanks));
    assert_refused(
        part_of(bench, 1, parts - 1, parts, blanks, 1), MP__REFUSED__CODE__INVALID, "4 MiB");
}

static void mistakes_are_refused_with_line_and_column(void **state)
{
    struct bench *bench = *state;
    enrol_two(bench);
    assert_refused(whole(bench, "policy: x\nrule: []\n"), MP__REFUSED__CODE__INVALID,
        "line 2, column 1: unknown key 'rule' in a policy, did you mean 'rules'?");
    assert_refused(whole(bench, "policy: \xff"), MP__REFUSED__CODE__INVALID, "line 1, column 9");
    assert_refused(whole(bench, "policy: x\ntargets: {a: {address: 10.0.0.1}}\n"
                                "rules: [{name: r, from: any, to: any, deny: tcp/1}]\n"),
        MP__REFUSED__CODE__INVALID, "line 2, column 11: an agent has the name of the target 'a'");
    assert_refused(run_of(bench, "last"), MP__REFUSED__CODE__NOT_FOUND, "no run");
}

static void a_policy_that_tests_nothing_starts_nothing(void **state)
{
    struct bench *bench = *state;
    assert_refused(whole(bench, GOOD), MP__REFUSED__CODE__NO_PAIRS, "nothing");
}

static void a_run_request_cannot_claim_to_be_a_check(void **state)
{
    struct bench *bench = *state;
    Mp__RunRequest request = MP__RUN_REQUEST__INIT;
    Mp__TestSpec spec = MP__TEST_SPEC__INIT, *specs[1] = {&spec};
    spec.kind = MP__TEST_KIND__TCP;
    spec.duration_ns = spec.interval_ns = NS_PER_S;
    request.tests = specs;
    request.n_tests = 1;
    request.policy = (char *)"forged";
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_RUN_REQUEST;
    question.run_request = &request;
    assert_refused(ask(bench, &question), MP__REFUSED__CODE__INVALID, "its policy's text");
}

int main(void)
{
#define CHECK_TEST(name) cmocka_unit_test_setup_teardown(name, bench_set_up, bench_tear_down)
    const struct CMUnitTest tests[] = {
        CHECK_TEST(a_policy_in_parts_becomes_a_run_that_keeps_it),
        CHECK_TEST(parts_that_do_not_belong_together_start_nothing),
        CHECK_TEST(uploads_that_stand_still_give_way),
        CHECK_TEST(a_policy_over_4_mib_is_refused),
        CHECK_TEST(mistakes_are_refused_with_line_and_column),
        CHECK_TEST(a_policy_that_tests_nothing_starts_nothing),
        CHECK_TEST(a_run_request_cannot_claim_to_be_a_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
