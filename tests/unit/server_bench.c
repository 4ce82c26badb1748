#include "server_bench.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int64_t bench_mono(void *ctx)
{
    return clock_mono_ns() + ((struct bench *)ctx)->skipped_ns;
}

static int64_t bench_wall(void *ctx)
{
    return clock_wall_ns() + ((struct bench *)ctx)->skipped_ns;
}

void bench_start(struct bench *bench)
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

void bench_stop(struct bench *bench)
{
    link_destroy(&bench->operator_);
    server_destroy(&bench->server);
}

int bench_set_up(void **state)
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

int bench_tear_down(void **state)
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

void step(struct bench *bench)
{
    assert_int_equal(server_step(bench->server, 5, -1), 0);
}

// ------------------------------------------------------------------------------------- clients

void say(struct bench *bench, link_t *link, Mp__Envelope *envelope)
{
    int rc = link_send(link, envelope);
    UNTIL(rc != -EAGAIN)
    rc = link_send(link, envelope);
    assert_int_equal(rc, 0);
}

Mp__Envelope *hear(struct bench *bench, link_t *link)
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

Mp__Envelope *hear_a(struct bench *bench, link_t *link, Mp__Envelope__BodyCase body)
{
    Mp__Envelope *message;
    while ((message = hear(bench, link)) && message->body_case != body)
        wire_free(&message);
    assert_non_null(message);
    return message;
}

Mp__Envelope *ask_as(struct bench *bench, link_t *link, Mp__Envelope *question)
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

Mp__Envelope *ask(struct bench *bench, Mp__Envelope *question)
{
    return ask_as(bench, bench->operator_, question);
}

struct join_token new_token(struct bench *bench, uint32_t uses, char id[16])
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

Mp__Envelope *join(struct bench *bench, const struct join_token *token, const struct identity *own,
    const char *name)
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

void say_hello(struct bench *bench, struct visitor *visitor, uint32_t version)
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

struct visitor visit(struct bench *bench, const struct join_token *token,
    const struct identity *key, uint8_t instance)
{
    struct visitor visitor = {.key = *key};
    memset(visitor.instance, instance, sizeof visitor.instance);
    visitor.link = link_new(token->endpoint, token->controller_key, key, LINK_COMMAND);
    assert_non_null(visitor.link);
    say_hello(bench, &visitor, PROTO_VERSION);
    return visitor;
}

void be_welcomed(struct bench *bench, struct visitor *visitor)
{
    Mp__Envelope *message = hear_a(bench, visitor->link, MP__ENVELOPE__BODY_WELCOME);
    memcpy(visitor->session, message->welcome->session.data, sizeof visitor->session);
    wire_free(&message);
}

struct identity enrolled(struct bench *bench, const struct join_token *token, const char *name)
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

void say_in_session(
    struct bench *bench, struct visitor *visitor, Mp__Envelope *envelope, const uint8_t *session)
{
    envelope->has_session = true;
    envelope->session.data = (uint8_t *)session;
    envelope->session.len = 16;
    say(bench, visitor->link, envelope);
}

void beat(struct bench *bench, struct visitor *visitor, const uint8_t *session)
{
    Mp__Heartbeat heartbeat = MP__HEARTBEAT__INIT;
    heartbeat.sequence = 7;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_HEARTBEAT;
    envelope.heartbeat = &heartbeat;
    say_in_session(bench, visitor, &envelope, session);
}

Mp__Envelope *agents(struct bench *bench, const char *name)
{
    Mp__AgentsQuery query = MP__AGENTS_QUERY__INIT;
    query.name = (char *)name;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_AGENTS_QUERY;
    question.agents_query = &query;
    return ask(bench, &question);
}

Mp__AgentState state_of(struct bench *bench, const char *name)
{
    Mp__Envelope *answer = agents(bench, name);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_AGENTS_ANSWER);
    assert_int_equal(answer->agents_answer->n_agents, 1);
    Mp__AgentState result = answer->agents_answer->agents[0]->state;
    wire_free(&answer);
    return result;
}

Mp__Envelope *change(struct bench *bench, const char *name, Mp__AgentChange__What what,
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

void assert_refused(Mp__Envelope *answer, Mp__Refused__Code code, const char *words)
{
    assert_non_null(answer);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_REFUSED);
    assert_int_equal(answer->refused->code, code);
    assert_non_null(answer->refused->text);
    if (!strstr(answer->refused->text, words))
        fail_msg("\"%s\" does not say \"%s\"", answer->refused->text, words);
    wire_free(&answer);
}

void assert_done(Mp__Envelope *answer)
{
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_DONE);
    wire_free(&answer);
}

bool link_is_refused(struct bench *bench, link_t *link)
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
