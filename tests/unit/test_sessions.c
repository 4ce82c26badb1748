#include "server_bench.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void a_forged_session_gets_no_session_and_changes_nothing(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor visitor = visit(bench, &token, &key, 1);
    be_welcomed(bench, &visitor);
    uint8_t forged[16];
    memcpy(forged, visitor.session, sizeof forged);
    forged[15] ^= 1;
    Mp__Goodbye goodbye = MP__GOODBYE__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_GOODBYE;
    envelope.goodbye = &goodbye;
    say_in_session(bench, &visitor, &envelope, forged);
    Mp__Envelope *answer = hear(bench, visitor.link);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_NO_SESSION);
    wire_free(&answer);
    assert_int_equal(state_of(bench, "alpha"), MP__AGENT_STATE__READY);
    say_in_session(bench, &visitor, &envelope, visitor.session);
    UNTIL(state_of(bench, "alpha") == MP__AGENT_STATE__AGENT_LOST);
    assert_int_equal(state_of(bench, "alpha"), MP__AGENT_STATE__AGENT_LOST);
    link_destroy(&visitor.link);
}

static void another_agents_session_is_no_use_to_a_thief(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity a = enrolled(bench, &token, "alpha"), b = enrolled(bench, &token, "beta");
    struct visitor alpha = visit(bench, &token, &a, 1), beta = visit(bench, &token, &b, 2);
    be_welcomed(bench, &alpha);
    be_welcomed(bench, &beta);
    beat(bench, &beta, alpha.session);
    Mp__Envelope *answer = hear(bench, beta.link);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_NO_SESSION);
    wire_free(&answer);
    link_destroy(&alpha.link);
    link_destroy(&beta.link);
}

static void a_copied_identity_is_refused_while_the_first_process_lives(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor first = visit(bench, &token, &key, 1);
    be_welcomed(bench, &first);
    struct visitor second = visit(bench, &token, &key, 2);
    Mp__Envelope *ping = hear_a(bench, first.link, MP__ENVELOPE__BODY_PING);
    Mp__Pong pong = MP__PONG__INIT;
    pong.nonce = ping->ping->nonce;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_PONG;
    envelope.pong = &pong;
    say_in_session(bench, &first, &envelope, first.session);
    assert_refused(
        hear(bench, second.link), MP__REFUSED__CODE__IDENTITY_IN_USE, "in use by 127.0.0.1");
    wire_free(&ping);
    beat(bench, &first, first.session);
    Mp__Envelope *ack = hear_a(bench, first.link, MP__ENVELOPE__BODY_HEARTBEAT_ACK);
    wire_free(&ack);
    link_destroy(&first.link);
    link_destroy(&second.link);
}

static void a_process_that_does_not_answer_is_replaced_after_five_seconds(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor first = visit(bench, &token, &key, 1);
    be_welcomed(bench, &first);
    struct visitor second = visit(bench, &token, &key, 2);
    Mp__Envelope *ping = hear_a(bench, first.link, MP__ENVELOPE__BODY_PING);
    wire_free(&ping);
    bench->skipped_ns += 5 * NS_PER_S + 1;
    be_welcomed(bench, &second);
    beat(bench, &first, first.session);
    Mp__Envelope *answer = hear(bench, first.link);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_NO_SESSION);
    wire_free(&answer);
    link_destroy(&first.link);
    link_destroy(&second.link);
}

static void a_restarted_agent_replaces_its_dead_process_at_once(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor first = visit(bench, &token, &key, 1);
    be_welcomed(bench, &first);
    link_destroy(&first.link);
    int64_t begun_ns = clock_mono_ns();
    struct visitor second = visit(bench, &token, &key, 2);
    be_welcomed(bench, &second);
    assert_true(clock_mono_ns() - begun_ns <
                8 * NS_PER_S); // the wait for a live one is 5 s, the lease 10 s
    link_destroy(&second.link);
}

static void silence_of_ten_seconds_makes_an_agent_lost(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor visitor = visit(bench, &token, &key, 1);
    be_welcomed(bench, &visitor);
    bench->skipped_ns += 8 * NS_PER_S;
    step(bench);
    step(bench);
    assert_int_equal(state_of(bench, "alpha"), MP__AGENT_STATE__READY);
    bench->skipped_ns += 3 * NS_PER_S;
    step(bench);
    step(bench);
    assert_int_equal(state_of(bench, "alpha"), MP__AGENT_STATE__AGENT_LOST);
    // It comes back with the same process and a new session.
    say_hello(bench, &visitor, PROTO_VERSION);
    be_welcomed(bench, &visitor);
    assert_int_equal(state_of(bench, "alpha"), MP__AGENT_STATE__READY);
    link_destroy(&visitor.link);
}

static void versions_that_do_not_meet_are_refused_with_both_ranges(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor visitor = {.key = key};
    visitor.link = link_new(token.endpoint, token.controller_key, &key, LINK_COMMAND);
    say_hello(bench, &visitor, PROTO_VERSION + 5);
    assert_refused(hear(bench, visitor.link), MP__REFUSED__CODE__VERSION, "protocol versions");
    link_destroy(&visitor.link);
}

static void removing_an_agent_ends_it_at_once(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor visitor = visit(bench, &token, &key, 1);
    be_welcomed(bench, &visitor);
    assert_done(change(bench, "alpha", MP__AGENT_CHANGE__WHAT__REMOVE, NULL, 0));
    assert_refused(hear(bench, visitor.link), MP__REFUSED__CODE__REMOVED, "alpha was removed");
    assert_refused(agents(bench, "alpha"), MP__REFUSED__CODE__NOT_FOUND, "alpha");
    beat(bench, &visitor, visitor.session);
    enum link_event event = LINK_NOTHING;
    UNTIL(event == LINK_DISCONNECTED || event == LINK_REFUSED)
    {
        event = link_event(visitor.link);
    }
    assert_true(event == LINK_DISCONNECTED || event == LINK_REFUSED);
    link_destroy(&visitor.link);
    link_t *link = link_new(token.endpoint, token.controller_key, &key, LINK_COMMAND);
    assert_true(link_is_refused(bench, link));
    link_destroy(&link);
}

static void one_that_greets_again_and_again_is_told_to_wait(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor visitor = visit(bench, &token, &key, 1);
    be_welcomed(bench, &visitor);
    say_hello(bench, &visitor, PROTO_VERSION);
    Mp__Envelope *answer = hear(bench, visitor.link);
    assert_non_null(answer);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_RETRY_AFTER);
    assert_in_range(answer->retry_after->delay_ms, 500, 5000);
    wire_free(&answer);
    beat(bench, &visitor, visitor.session);
    wire_free(&(Mp__Envelope *){hear_a(bench, visitor.link, MP__ENVELOPE__BODY_HEARTBEAT_ACK)});
    link_destroy(&visitor.link);
}

static void an_agent_that_floods_is_lost_at_once_and_another_is_not(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity a = enrolled(bench, &token, "alpha"), b = enrolled(bench, &token, "beta");
    struct visitor alpha = visit(bench, &token, &a, 1), beta = visit(bench, &token, &b, 2);
    be_welcomed(bench, &alpha);
    be_welcomed(bench, &beta);
    Mp__Heartbeat heartbeat = MP__HEARTBEAT__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_HEARTBEAT;
    envelope.heartbeat = &heartbeat;
    envelope.has_session = true;
    envelope.session.data = alpha.session;
    envelope.session.len = 16;
    int sent = 0;
    enum link_event event = LINK_NOTHING;
    UNTIL(event == LINK_DISCONNECTED || sent > 200000)
    {
        for (int i = 0; i < 500; i++)
            sent += link_send(alpha.link, &envelope) == 0;
        event = link_event(alpha.link);
        int error;
        for (Mp__Envelope *ack; (ack = link_receive(alpha.link, &error));)
            wire_free(&ack);
    }
    assert_int_equal(event, LINK_DISCONNECTED);
    assert_int_equal(state_of(bench, "alpha"), MP__AGENT_STATE__AGENT_LOST);
    assert_int_equal(state_of(bench, "beta"), MP__AGENT_STATE__READY);
    link_destroy(&alpha.link);
    link_destroy(&beta.link);
}

static void a_malformed_greeting_changes_nothing(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor visitor = {.key = key};
    visitor.link = link_new(token.endpoint, token.controller_key, &key, LINK_COMMAND);
    Mp__Hello hello = MP__HELLO__INIT;
    Mp__Capabilities can = MP__CAPABILITIES__INIT;
    hello.instance.data = visitor.instance;
    hello.instance.len = 3;
    hello.boot_id = (char *)"\n";
    hello.software = (char *)"";
    hello.capabilities = &can;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    say(bench, visitor.link, &envelope);
    say_hello(bench, &visitor, PROTO_VERSION);
    be_welcomed(bench, &visitor);
    assert_int_equal(state_of(bench, "alpha"), MP__AGENT_STATE__READY);
    link_destroy(&visitor.link);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_set_up, bench_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_forged_session_gets_no_session_and_changes_nothing),
        TEST(another_agents_session_is_no_use_to_a_thief),
        TEST(a_copied_identity_is_refused_while_the_first_process_lives),
        TEST(a_process_that_does_not_answer_is_replaced_after_five_seconds),
        TEST(a_restarted_agent_replaces_its_dead_process_at_once),
        TEST(silence_of_ten_seconds_makes_an_agent_lost),
        TEST(versions_that_do_not_meet_are_refused_with_both_ranges),
        TEST(removing_an_agent_ends_it_at_once),
        TEST(one_that_greets_again_and_again_is_told_to_wait),
        TEST(an_agent_that_floods_is_lost_at_once_and_another_is_not),
        TEST(a_malformed_greeting_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
