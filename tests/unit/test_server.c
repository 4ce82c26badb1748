#include "server_bench.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void the_first_start_makes_files_that_others_cannot_read(void **state)
{
    struct bench *bench = *state;
    static const char *const names[] = {"controller.key", "operator.context"};
    for (int i = 0; i < 2; i++) {
        char path[128];
        struct stat info;
        snprintf(path, sizeof path, "%s/%s", bench->dir, names[i]);
        assert_int_equal(stat(path, &info), 0);
        assert_int_equal(info.st_mode & 0777, 0600);
    }
    assert_true(strncmp(server_endpoint(bench->server), "tcp://127.0.0.1:", 16) == 0);
    assert_string_equal(bench->admin.name, "admin");
}

static void the_controller_says_how_it_is(void **state)
{
    struct bench *bench = *state;
    Mp__StatusQuery query = MP__STATUS_QUERY__INIT;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_STATUS_QUERY;
    question.status_query = &query;
    Mp__Envelope *answer = ask(bench, &question);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_STATUS_ANSWER);
    assert_string_equal(answer->status_answer->endpoint, server_endpoint(bench->server));
    assert_string_equal(answer->status_answer->storage, "ok");
    assert_int_equal(answer->status_answer->epoch, 1);
    assert_true(answer->status_answer->resident_bytes > 100000);
    wire_free(&answer);
}

static void a_host_joins_registers_and_is_listed_with_the_tokens_label(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 1, NULL);
    assert_string_equal(token.endpoint, server_endpoint(bench->server));
    struct identity key = enrolled(bench, &token, "alpha");
    assert_int_equal(state_of(bench, "alpha"), MP__AGENT_STATE__AGENT_LOST);
    struct visitor visitor = visit(bench, &token, &key, 1);
    be_welcomed(bench, &visitor);
    beat(bench, &visitor, visitor.session);
    Mp__Envelope *ack = hear_a(bench, visitor.link, MP__ENVELOPE__BODY_HEARTBEAT_ACK);
    assert_int_equal(ack->heartbeat_ack->sequence, 7);
    wire_free(&ack);

    Mp__Envelope *answer = agents(bench, "alpha");
    const Mp__AgentInfo *info = answer->agents_answer->agents[0];
    assert_int_equal(info->state, MP__AGENT_STATE__READY);
    assert_int_equal(info->n_labels, 1);
    assert_string_equal(info->labels[0]->value, "token");
    assert_string_equal(info->addresses[0], "127.0.0.1");
    assert_true(info->capabilities->tcp);
    wire_free(&answer);
    link_destroy(&visitor.link);
}

static void a_lost_answer_to_enrolment_costs_no_second_use(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 1, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    Mp__Envelope *again = join(bench, &token, &key, "alpha");
    assert_int_equal(again->body_case, MP__ENVELOPE__BODY_ENROLLED);
    wire_free(&again);
    struct identity other;
    assert_int_equal(identity_generate(&other), 0);
    assert_refused(join(bench, &token, &other, "beta"), MP__REFUSED__CODE__TOKEN, "is used up");
}

static void a_name_in_use_is_refused_with_words(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    enrolled(bench, &token, "alpha");
    struct identity other;
    assert_int_equal(identity_generate(&other), 0);
    assert_refused(join(bench, &token, &other, "alpha"), MP__REFUSED__CODE__NAME_IN_USE,
        "the name alpha is in use");
    enrolled(bench, &token, "beta");
}

static void a_revoked_token_does_not_get_past_the_door(void **state)
{
    struct bench *bench = *state;
    char id[16];
    struct join_token token = new_token(bench, 5, id);
    enrolled(bench, &token, "alpha");
    Mp__TokenRevoke revoke = MP__TOKEN_REVOKE__INIT;
    revoke.id = id;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_TOKEN_REVOKE;
    question.token_revoke = &revoke;
    assert_done(ask(bench, &question));
    link_t *link = link_new(token.endpoint, token.controller_key, &token.key, LINK_COMMAND);
    assert_true(link_is_refused(bench, link));
    link_destroy(&link);
    revoke.id = (char *)"00000000";
    assert_refused(ask(bench, &question), MP__REFUSED__CODE__NOT_FOUND, "00000000");
}

static void an_unknown_key_and_a_key_of_the_other_socket_are_refused(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity agent = enrolled(bench, &token, "alpha"), stranger;
    assert_int_equal(identity_generate(&stranger), 0);
    link_t *links[] = {
        link_new(token.endpoint, token.controller_key, &stranger, LINK_COMMAND),
        link_new(bench->admin.endpoint, token.controller_key, &stranger, LINK_COMMAND),
        link_new(bench->admin.endpoint, token.controller_key, &agent, LINK_COMMAND),
        link_new(token.endpoint, token.controller_key, &bench->admin.key, LINK_COMMAND),
    };
    for (int i = 0; i < 4; i++) {
        assert_true(link_is_refused(bench, links[i]));
        link_destroy(&links[i]);
    }
}

static void labels_of_the_operator_win_and_an_empty_one_hides(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    enrolled(bench, &token, "alpha");
    Mp__Label label = MP__LABEL__INIT, *labels[] = {&label};
    label.key = (char *)"zone";
    label.value = (char *)"mine";
    assert_done(change(bench, "alpha", MP__AGENT_CHANGE__WHAT__LABEL, labels, 1));
    Mp__Envelope *answer = agents(bench, "alpha");
    assert_string_equal(answer->agents_answer->agents[0]->labels[0]->value, "mine");
    wire_free(&answer);
    label.value = (char *)"";
    assert_done(change(bench, "alpha", MP__AGENT_CHANGE__WHAT__LABEL, labels, 1));
    answer = agents(bench, "alpha");
    assert_int_equal(answer->agents_answer->agents[0]->n_labels, 0);
    wire_free(&answer);
}

static void a_viewer_may_look_but_not_touch(void **state)
{
    struct bench *bench = *state;
    Mp__OperatorAdd add = MP__OPERATOR_ADD__INIT;
    add.name = (char *)"vera";
    add.role = MP__ROLE__VIEWER;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_OPERATOR_ADD;
    question.operator_add = &add;
    Mp__Envelope *answer = ask(bench, &question);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_OPERATOR_ADDED);
    struct operator_context vera;
    const char *text = answer->operator_added->context;
    assert_int_equal(operator_context_read(text, strlen(text), &vera), 0);
    wire_free(&answer);
    assert_refused(ask(bench, &question), MP__REFUSED__CODE__NAME_IN_USE, "vera");

    link_t *link = link_new(vera.endpoint, vera.controller_key, &vera.key, LINK_COMMAND);
    Mp__AgentsQuery agents_query = MP__AGENTS_QUERY__INIT;
    Mp__Envelope look = MP__ENVELOPE__INIT;
    look.body_case = MP__ENVELOPE__BODY_AGENTS_QUERY;
    look.agents_query = &agents_query;
    answer = ask_as(bench, link, &look);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_AGENTS_ANSWER);
    wire_free(&answer);
    add.name = (char *)"mallory";
    assert_refused(ask_as(bench, link, &question), MP__REFUSED__CODE__ROLE, "viewer");

    Mp__OperatorRemove remove_ = MP__OPERATOR_REMOVE__INIT;
    remove_.name = (char *)"vera";
    Mp__Envelope removal = MP__ENVELOPE__INIT;
    removal.body_case = MP__ENVELOPE__BODY_OPERATOR_REMOVE;
    removal.operator_remove = &remove_;
    assert_done(ask(bench, &removal));
    link_destroy(&link);
    link = link_new(vera.endpoint, vera.controller_key, &vera.key, LINK_COMMAND);
    assert_true(link_is_refused(bench, link));
    link_destroy(&link);
}

static void changes_are_rows_of_the_audit_log(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    enrolled(bench, &token, "alpha");
    assert_done(change(bench, "alpha", MP__AGENT_CHANGE__WHAT__DRAIN, NULL, 0));
    Mp__AuditQuery query = MP__AUDIT_QUERY__INIT;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_AUDIT_QUERY;
    question.audit_query = &query;
    Mp__Envelope *answer = ask(bench, &question);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_AUDIT_ANSWER);
    assert_int_equal(answer->audit_answer->n_entries, 2);
    const Mp__AuditEntry *newest = answer->audit_answer->entries[0];
    assert_string_equal(newest->what, "agent drain");
    assert_string_equal(newest->who, "admin");
    assert_string_equal(newest->object, "alpha");
    assert_string_equal(answer->audit_answer->entries[1]->what, "token create");
    wire_free(&answer);
}

static void everything_is_there_again_after_a_restart(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 1, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor visitor = visit(bench, &token, &key, 1);
    be_welcomed(bench, &visitor);
    assert_done(change(bench, "alpha", MP__AGENT_CHANGE__WHAT__DRAIN, NULL, 0));
    link_destroy(&visitor.link);
    struct operator_context before = bench->admin;
    bench_stop(bench);
    bench_start(bench);
    assert_memory_equal(before.key.public_key, bench->admin.key.public_key, IDENTITY_KEY_SIZE);
    assert_memory_equal(before.controller_key, bench->admin.controller_key, IDENTITY_KEY_SIZE);

    Mp__Envelope *answer = agents(bench, "alpha");
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_AGENTS_ANSWER);
    const Mp__AgentInfo *info = answer->agents_answer->agents[0];
    assert_int_equal(info->state, MP__AGENT_STATE__AGENT_LOST);
    assert_true(info->capabilities && info->capabilities->tcp);
    assert_string_equal(info->addresses[0], "127.0.0.1");
    wire_free(&answer);

    snprintf(token.endpoint, sizeof token.endpoint, "%s", server_endpoint(bench->server));
    struct visitor again = visit(bench, &token, &key, 1);
    Mp__Envelope *welcome = hear_a(bench, again.link, MP__ENVELOPE__BODY_WELCOME);
    assert_int_equal(welcome->welcome->epoch, 2);
    wire_free(&welcome);
    assert_int_equal(state_of(bench, "alpha"), MP__AGENT_STATE__DRAINING);
    link_destroy(&again.link);
    struct identity other;
    assert_int_equal(identity_generate(&other), 0);
    assert_refused(join(bench, &token, &other, "beta"), MP__REFUSED__CODE__TOKEN, "is used up");
}

static void a_second_controller_in_the_same_directory_is_refused(void **state)
{
    struct bench *bench = *state;
    char error[SERVER_ERROR_SIZE] = "";
    struct server_options options = {.listen = "tcp://127.0.0.1:*", .state_dir = bench->dir};
    assert_null(server_new(&options, &bench->clock, error));
    assert_non_null(strstr(error, "another controller"));
}

static void a_lost_key_beside_a_database_is_not_replaced_silently(void **state)
{
    struct bench *bench = *state;
    char path[128], error[SERVER_ERROR_SIZE] = "";
    bench_stop(bench);
    snprintf(path, sizeof path, "%s/controller.key", bench->dir);
    assert_int_equal(unlink(path), 0);
    struct server_options options = {.listen = "tcp://127.0.0.1:*", .state_dir = bench->dir};
    assert_null(server_new(&options, &bench->clock, error));
    assert_non_null(strstr(error, "controller.key"));
}

static void an_unknown_run_is_said_to_be_unknown(void **state)
{
    struct bench *bench = *state;
    Mp__RunQuery query = MP__RUN_QUERY__INIT;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_RUN_QUERY;
    question.run_query = &query;
    query.run = (char *)"last";
    assert_refused(ask(bench, &question), MP__REFUSED__CODE__NOT_FOUND, "no run yet");
    query.run = (char *)"r-99";
    assert_refused(ask(bench, &question), MP__REFUSED__CODE__NOT_FOUND, "r-99");
}

static void a_lost_context_gets_a_new_key_and_the_old_one_is_void(void **state)
{
    struct bench *bench = *state;
    struct operator_context old = bench->admin;
    bench_stop(bench);
    char path[128];
    snprintf(path, sizeof path, "%s/operator.context", bench->dir);
    assert_int_equal(unlink(path), 0);
    bench_start(bench);
    assert_memory_not_equal(old.key.public_key, bench->admin.key.public_key, IDENTITY_KEY_SIZE);
    link_t *link =
        link_new(bench->admin.endpoint, bench->admin.controller_key, &old.key, LINK_COMMAND);
    assert_true(link_is_refused(bench, link));
    link_destroy(&link);
    Mp__Envelope *answer = agents(bench, NULL);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_AGENTS_ANSWER);
    wire_free(&answer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_set_up, bench_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_first_start_makes_files_that_others_cannot_read),
        TEST(the_controller_says_how_it_is),
        TEST(a_host_joins_registers_and_is_listed_with_the_tokens_label),
        TEST(a_lost_answer_to_enrolment_costs_no_second_use),
        TEST(a_name_in_use_is_refused_with_words),
        TEST(a_revoked_token_does_not_get_past_the_door),
        TEST(an_unknown_key_and_a_key_of_the_other_socket_are_refused),
        TEST(labels_of_the_operator_win_and_an_empty_one_hides),
        TEST(a_viewer_may_look_but_not_touch),
        TEST(changes_are_rows_of_the_audit_log),
        TEST(everything_is_there_again_after_a_restart),
        TEST(a_second_controller_in_the_same_directory_is_refused),
        TEST(a_lost_key_beside_a_database_is_not_replaced_silently),
        TEST(an_unknown_run_is_said_to_be_unknown),
        TEST(a_lost_context_gets_a_new_key_and_the_old_one_is_void),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
