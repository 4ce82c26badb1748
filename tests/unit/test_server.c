#include "meshtest.h"

#include <czmq.h>
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "identity.h"
#include "link.h"
#include "server.h"
#include "wire.h"

// A whole controller in this thread, with time that can be skipped, and clients at its sockets.
struct bench {
    char dir[64];
    int64_t skipped_ns;
    struct clock clock;
    server_t *server;
    struct operator_context admin;
    link_t *operator_;
    uint64_t request;
};

static int64_t bench_mono(void *ctx)
{
    return clock_mono_ns() + ((struct bench *)ctx)->skipped_ns;
}

static int64_t bench_wall(void *ctx)
{
    return clock_wall_ns() + ((struct bench *)ctx)->skipped_ns;
}

static void bench_start(struct bench *bench)
{
    char error[SERVER_ERROR_SIZE] = "";
    struct server_options options = {.listen = "tcp://127.0.0.1:*", .state_dir = bench->dir};
    bench->server = server_new(&options, &bench->clock, error);
    if (!bench->server)
        print_error("%s\n", error);
    assert_non_null(bench->server);
    assert_int_equal(operator_context_load(server_context_path(bench->server), &bench->admin), 0);
    bench->operator_ = link_new(
        bench->admin.endpoint, bench->admin.controller_key, &bench->admin.key, LINK_COMMAND);
    assert_non_null(bench->operator_);
}

static void bench_stop(struct bench *bench)
{
    link_destroy(&bench->operator_);
    server_destroy(&bench->server);
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    zsys_init();
    zsys_handler_set(NULL);
    strcpy(bench->dir, "/tmp/meshperf-server-XXXXXX");
    assert_non_null(mkdtemp(bench->dir));
    bench->clock = (struct clock){bench_mono, bench_wall, bench};
    bench_start(bench);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    bench_stop(bench);
    DIR *dir = opendir(bench->dir);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(bench->dir);
    free(bench);
    return 0;
}

static void step(struct bench *bench)
{
    assert_int_equal(server_step(bench->server, 5, -1), 0);
}

#define UNTIL(condition)                                                                           \
    for (int64_t until_ns = clock_mono_ns() + 10 * NS_PER_S;                                       \
         !(condition) && clock_mono_ns() < until_ns; step(bench))

// ------------------------------------------------------------------------------------- clients

static void say(struct bench *bench, link_t *link, Mp__Envelope *envelope)
{
    int rc = link_send(link, envelope);
    UNTIL(rc != -EAGAIN)
    rc = link_send(link, envelope);
    assert_int_equal(rc, 0);
}

// The next message, or NULL after some seconds.
static Mp__Envelope *hear(struct bench *bench, link_t *link)
{
    int error = 0;
    Mp__Envelope *message = link_receive(link, &error);
    UNTIL(message)
    {
        message = link_receive(link, &error);
        assert_int_equal(error, 0);
    }
    return message;
}

// The next message of this kind; others are passed over.
static Mp__Envelope *hear_a(struct bench *bench, link_t *link, Mp__Envelope__BodyCase body)
{
    Mp__Envelope *message;
    while ((message = hear(bench, link)) && message->body_case != body)
        wire_free(&message);
    assert_non_null(message);
    return message;
}

static Mp__Envelope *ask_as(struct bench *bench, link_t *link, Mp__Envelope *question)
{
    question->has_request = true;
    question->request = ++bench->request;
    say(bench, link, question);
    Mp__Envelope *answer = hear(bench, link);
    assert_non_null(answer);
    assert_true(answer->has_request);
    assert_int_equal(answer->request, bench->request);
    return answer;
}

static Mp__Envelope *ask(struct bench *bench, Mp__Envelope *question)
{
    return ask_as(bench, bench->operator_, question);
}

static struct join_token new_token(struct bench *bench, uint32_t uses, char id[16])
{
    Mp__TokenCreate create = MP__TOKEN_CREATE__INIT;
    Mp__Label label = MP__LABEL__INIT, *labels[] = {&label};
    label.key = (char *)"zone";
    label.value = (char *)"token";
    create.expires_ns = 3600 * NS_PER_S;
    create.uses = uses;
    create.labels = labels;
    create.n_labels = 1;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_TOKEN_CREATE;
    question.token_create = &create;
    Mp__Envelope *answer = ask(bench, &question);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_TOKEN_CREATED);
    struct join_token token;
    assert_int_equal(join_token_read(answer->token_created->token, &token), 0);
    if (id)
        snprintf(id, 16, "%s", answer->token_created->id);
    wire_free(&answer);
    return token;
}

// Asks to join; the answer is the caller's.
static Mp__Envelope *join(struct bench *bench, const struct join_token *token,
    const struct identity *own, const char *name)
{
    link_t *link = link_new(token->endpoint, token->controller_key, &token->key, LINK_COMMAND);
    assert_non_null(link);
    Mp__Enrol enrol = MP__ENROL__INIT;
    enrol.public_key.data = (uint8_t *)own->public_key;
    enrol.public_key.len = IDENTITY_KEY_SIZE;
    enrol.name = (char *)name;
    enrol.version_min = PROTO_VERSION_MIN;
    enrol.version_max = PROTO_VERSION;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_ENROL;
    envelope.enrol = &enrol;
    say(bench, link, &envelope);
    Mp__Envelope *answer = hear(bench, link);
    link_destroy(&link);
    return answer;
}

// One agent's process.
struct visitor {
    struct identity key;
    uint8_t instance[16];
    uint8_t session[16];
    link_t *link;
};

static void say_hello(struct bench *bench, struct visitor *visitor, uint32_t version)
{
    char *tests[] = {(char *)"tcp"}, *addresses[] = {(char *)"127.0.0.1"};
    Mp__Capabilities can = MP__CAPABILITIES__INIT;
    can.tcp = can.udp = true;
    can.tests = tests;
    can.n_tests = 1;
    can.hostname = (char *)"somehost";
    Mp__Hello hello = MP__HELLO__INIT;
    hello.instance.data = visitor->instance;
    hello.instance.len = sizeof visitor->instance;
    hello.boot_id = (char *)"6a1c8d8e-0000-4000-8000-000000000001";
    hello.version_min = hello.version_max = version;
    hello.software = (char *)"0.1.0";
    hello.capabilities = &can;
    hello.addresses = addresses;
    hello.n_addresses = 1;
    hello.data_port = 5701;
    hello.wall_ns = clock_wall_ns();
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    say(bench, visitor->link, &envelope);
}

static struct visitor visit(struct bench *bench, const struct join_token *token,
    const struct identity *key, uint8_t instance)
{
    struct visitor visitor = {.key = *key};
    memset(visitor.instance, instance, sizeof visitor.instance);
    visitor.link = link_new(token->endpoint, token->controller_key, key, LINK_COMMAND);
    assert_non_null(visitor.link);
    say_hello(bench, &visitor, PROTO_VERSION);
    return visitor;
}

static void be_welcomed(struct bench *bench, struct visitor *visitor)
{
    Mp__Envelope *message = hear_a(bench, visitor->link, MP__ENVELOPE__BODY_WELCOME);
    memcpy(visitor->session, message->welcome->session.data, sizeof visitor->session);
    wire_free(&message);
}

static struct identity enrolled(
    struct bench *bench, const struct join_token *token, const char *name)
{
    struct identity key;
    assert_int_equal(identity_generate(&key), 0);
    Mp__Envelope *answer = join(bench, token, &key, name);
    assert_non_null(answer);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_ENROLLED);
    assert_string_equal(answer->enrolled->name, name);
    wire_free(&answer);
    return key;
}

static void say_in_session(
    struct bench *bench, struct visitor *visitor, Mp__Envelope *envelope, const uint8_t *session)
{
    envelope->has_session = true;
    envelope->session.data = (uint8_t *)session;
    envelope->session.len = 16;
    say(bench, visitor->link, envelope);
}

static void beat(struct bench *bench, struct visitor *visitor, const uint8_t *session)
{
    Mp__Heartbeat heartbeat = MP__HEARTBEAT__INIT;
    heartbeat.sequence = 7;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_HEARTBEAT;
    envelope.heartbeat = &heartbeat;
    say_in_session(bench, visitor, &envelope, session);
}

static Mp__Envelope *agents(struct bench *bench, const char *name)
{
    Mp__AgentsQuery query = MP__AGENTS_QUERY__INIT;
    query.name = (char *)name;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_AGENTS_QUERY;
    question.agents_query = &query;
    return ask(bench, &question);
}

static Mp__AgentState state_of(struct bench *bench, const char *name)
{
    Mp__Envelope *answer = agents(bench, name);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_AGENTS_ANSWER);
    assert_int_equal(answer->agents_answer->n_agents, 1);
    Mp__AgentState result = answer->agents_answer->agents[0]->state;
    wire_free(&answer);
    return result;
}

static Mp__Envelope *change(struct bench *bench, const char *name, Mp__AgentChange__What what,
    Mp__Label **labels, size_t count)
{
    Mp__AgentChange change = MP__AGENT_CHANGE__INIT;
    change.name = (char *)name;
    change.what = what;
    change.labels = labels;
    change.n_labels = count;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_AGENT_CHANGE;
    question.agent_change = &change;
    return ask(bench, &question);
}

static void assert_refused(Mp__Envelope *answer, Mp__Refused__Code code, const char *words)
{
    assert_non_null(answer);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_REFUSED);
    assert_int_equal(answer->refused->code, code);
    assert_non_null(answer->refused->text);
    if (!strstr(answer->refused->text, words))
        fail_msg("\"%s\" does not say \"%s\"", answer->refused->text, words);
    wire_free(&answer);
}

static void assert_done(Mp__Envelope *answer)
{
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_DONE);
    wire_free(&answer);
}

static bool link_is_refused(struct bench *bench, link_t *link)
{
    bool refused = false;
    UNTIL(refused)
    {
        enum link_event event = link_event(link);
        refused = event == LINK_REFUSED;
        if (event == LINK_CONNECTED)
            return false;
    }
    return refused;
}

// --------------------------------------------------------------------------------------- tests

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

static void a_process_that_does_not_answer_is_replaced_after_two_seconds(void **state)
{
    struct bench *bench = *state;
    struct join_token token = new_token(bench, 5, NULL);
    struct identity key = enrolled(bench, &token, "alpha");
    struct visitor first = visit(bench, &token, &key, 1);
    be_welcomed(bench, &first);
    struct visitor second = visit(bench, &token, &key, 2);
    Mp__Envelope *ping = hear_a(bench, first.link, MP__ENVELOPE__BODY_PING);
    wire_free(&ping);
    bench->skipped_ns += 2 * NS_PER_S + 1;
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
    assert_true(clock_mono_ns() - begun_ns < 2 * NS_PER_S + 500 * NS_PER_MS);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

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
        TEST(a_forged_session_gets_no_session_and_changes_nothing),
        TEST(another_agents_session_is_no_use_to_a_thief),
        TEST(a_copied_identity_is_refused_while_the_first_process_lives),
        TEST(a_process_that_does_not_answer_is_replaced_after_two_seconds),
        TEST(a_restarted_agent_replaces_its_dead_process_at_once),
        TEST(silence_of_ten_seconds_makes_an_agent_lost),
        TEST(versions_that_do_not_meet_are_refused_with_both_ranges),
        TEST(removing_an_agent_ends_it_at_once),
        TEST(labels_of_the_operator_win_and_an_empty_one_hides),
        TEST(a_viewer_may_look_but_not_touch),
        TEST(changes_are_rows_of_the_audit_log),
        TEST(everything_is_there_again_after_a_restart),
        TEST(a_second_controller_in_the_same_directory_is_refused),
        TEST(a_lost_key_beside_a_database_is_not_replaced_silently),
        TEST(an_unknown_run_is_said_to_be_unknown),
        TEST(one_that_greets_again_and_again_is_told_to_wait),
        TEST(an_agent_that_floods_is_lost_at_once_and_another_is_not),
        TEST(a_malformed_greeting_changes_nothing),
        TEST(a_lost_context_gets_a_new_key_and_the_old_one_is_void),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
