// The agent's session against a small controller in this process: a CURVE ROUTER with a ZAP handler
// that is asked for its verdict.

#include "meshtest.h"

#include <czmq.h>
#include <dirent.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "session.h"
#include "wire.h"

#define DEADLINE_NS (20 * NS_PER_S)
#define UNTIL(condition)                                                                           \
    for (int64_t end_ = clock_mono_ns() + DEADLINE_NS; !(condition) && clock_mono_ns() < end_;     \
         step(bench))

struct bench {
    char dir[64];
    zsock_t *router;
    zsock_t *zap;
    const char *status; // what ZAP says
    uint8_t seen_key[IDENTITY_KEY_SIZE];
    struct identity controller;
    struct join_token token;
    struct account account;
    struct agent_settings settings;
    dataport_t *port;
    struct clock clock;
    int64_t skipped_ns;
    session_t *session;
    int result;
    unsigned registered;
    char name[64];
    zframe_t *peer; // the routing id that spoke last
    uint64_t epoch;
};

static int64_t bench_mono(void *ctx)
{
    return clock_mono_ns() + ((struct bench *)ctx)->skipped_ns;
}

static int64_t bench_wall(void *ctx)
{
    return clock_wall_ns() + ((struct bench *)ctx)->skipped_ns;
}

// ------------------------------------------------------------------------- a kind of test to run

static bool is_supported(char *reason)
{
    (void)reason;
    return true;
}

// Says that it is ready, waits to be stopped, and reports.
static void wait_for_stop(const struct probe_order *order, dataport_t *port,
    const struct probe_hooks *hooks, struct probe_report *report)
{
    (void)port;
    struct probe_interval interval = {.start_s = 0, .duration_s = 1, .bandwidth_bps = 1e6};
    struct pollfd stop = {.fd = hooks->stop_fd, .events = POLLIN};
    if (!order->connects)
        hooks->ready(hooks->ctx);
    hooks->interval(hooks->ctx, &interval);
    bool stopped = poll(&stop, 1, (int)(DEADLINE_NS / NS_PER_MS)) == 1;
    report->outcome = stopped ? PROBE_STOPPED : PROBE_FAILED;
    snprintf(report->reason, sizeof report->reason, "stopped by its order");
}

static const struct probe_kind *find_kind(enum test_kind kind)
{
    static const struct probe_kind waiting = {TEST_TCP, "tcp", is_supported, wait_for_stop};
    return kind == TEST_TCP ? &waiting : NULL;
}

static void answer_all(const struct testspec *spec, const struct light_peer *peers, size_t count,
    spin_t *spin, int stop_fd, struct light_outcome *outcomes, struct light_summary *summary)
{
    (void)spec, (void)spin, (void)stop_fd;
    for (size_t i = 0; i < count; i++) {
        memset(&outcomes[i], 0, sizeof outcomes[i]);
        outcomes[i].outcome = PROBE_OK;
        outcomes[i].sent = peers[i].peer_port;
        outcomes[i].rtt.count = 1;
        outcomes[i].rtt.p50_s = 0.001;
    }
    strcpy(summary->stamps, "tx user");
}

// ------------------------------------------------------------------------------ the controller

static void zap_turn(struct bench *bench)
{
    if (!(zsock_events(bench->zap) & ZMQ_POLLIN))
        return;
    zmsg_t *message = zmsg_recv(bench->zap);
    // routing id, empty, version, request id, domain, address, identity, mechanism, key
    zframe_t *frames[9];
    for (int i = 0; i < 9; i++)
        frames[i] = zmsg_pop(message);
    memcpy(bench->seen_key, zframe_data(frames[8]), IDENTITY_KEY_SIZE);
    zmsg_destroy(&message);
    message = zmsg_new();
    for (int i = 0; i < 4; i++)
        zmsg_append(message, &frames[i]);
    zmsg_addstr(message, bench->status);
    zmsg_addstr(message, "");
    zmsg_addstr(message, "somebody");
    zmsg_addstr(message, "");
    zmsg_send(&message, bench->zap);
    for (int i = 4; i < 9; i++)
        zframe_destroy(&frames[i]);
}

static void step(struct bench *bench)
{
    zap_turn(bench);
    if (bench->session && bench->result == 0)
        bench->result = session_step(bench->session, 5, -1);
}

static Mp__Envelope *receive(struct bench *bench)
{
    if (!(zsock_events(bench->router) & ZMQ_POLLIN))
        return NULL;
    zmsg_t *message = zmsg_recv(bench->router);
    zframe_destroy(&bench->peer);
    bench->peer = zmsg_pop(message);
    zframe_t *body = zmsg_pop(message);
    int error;
    char text[256];
    bool enrols = memcmp(bench->seen_key, bench->token.key.public_key, IDENTITY_KEY_SIZE) == 0;
    for (int inside = 0; inside < 2; inside++) {
        Mp__Envelope *envelope = wire_unpack(zframe_data(body), zframe_size(body),
            enrols ? WIRE_ENROL : WIRE_AGENT, inside, &error, text);
        if (envelope || inside) {
            if (!envelope)
                fail_msg("the agent sent what is not allowed: %s", text);
            zframe_destroy(&body);
            zmsg_destroy(&message);
            return envelope;
        }
    }
    return NULL;
}

// The next message of a kind; others are dropped.
static Mp__Envelope *hear(struct bench *bench, Mp__Envelope__BodyCase body)
{
    Mp__Envelope *envelope = receive(bench);
    UNTIL(envelope && envelope->body_case == body)
    {
        wire_free(&envelope);
        envelope = receive(bench);
    }
    if (!envelope)
        fail_msg("no message %d", (int)body);
    return envelope;
}

static void say(struct bench *bench, Mp__Envelope *envelope)
{
    size_t size;
    uint8_t *bytes = wire_pack(envelope, &size);
    zframe_send(&bench->peer, bench->router, ZFRAME_MORE + ZFRAME_REUSE);
    zsock_send(bench->router, "b", bytes, size);
    free(bytes);
}

static void welcome(struct bench *bench, uint64_t acknowledged, uint32_t lease_ms)
{
    uint8_t session[16] = {7};
    Mp__Welcome body = MP__WELCOME__INIT;
    body.epoch = bench->epoch;
    body.session = (ProtobufCBinaryData){16, session};
    body.heartbeat_ms = 50;
    body.lease_ms = lease_ms;
    body.name = (char *)"alpha";
    body.version = PROTO_VERSION;
    body.acknowledged = acknowledged;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_WELCOME;
    envelope.welcome = &body;
    say(bench, &envelope);
}

static void refuse(struct bench *bench, Mp__Refused__Code code, const char *text)
{
    Mp__Refused body = MP__REFUSED__INIT;
    body.code = code;
    body.text = (char *)text;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_REFUSED;
    envelope.refused = &body;
    say(bench, &envelope);
}

// PREPARE with the id 0xab...; `port` is not looked at.
static void prepare(struct bench *bench, uint64_t epoch, enum test_kind kind)
{
    uint8_t id[16], key[32] = {1};
    memset(id, 0xab, sizeof id);
    Mp__Ticket ticket = MP__TICKET__INIT;
    ticket.test_id = (ProtobufCBinaryData){16, id};
    ticket.key = (ProtobufCBinaryData){32, key};
    ticket.receives = true;
    ticket.local_address = ticket.peer_address = (char *)"127.0.0.1";
    ticket.peer_name = (char *)"beta";
    ticket.peer_port = 5701;
    ticket.expiry_ns = ticket.limit_ns = 60 * NS_PER_S;
    struct testspec spec;
    Mp__TestSpec wire = MP__TEST_SPEC__INIT;
    testspec_defaults(kind, &spec);
    testspec_to_wire(&spec, &wire);
    Mp__Prepare body = MP__PREPARE__INIT;
    body.ticket = &ticket;
    body.spec = &wire;
    body.epoch = epoch;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_PREPARE;
    envelope.prepare = &body;
    say(bench, &envelope);
}

static void stop(struct bench *bench)
{
    uint8_t id[16];
    memset(id, 0xab, sizeof id);
    Mp__Stop body = MP__STOP__INIT;
    body.test_id = (ProtobufCBinaryData){16, id};
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_STOP;
    envelope.stop = &body;
    say(bench, &envelope);
}

// -------------------------------------------------------------------------------------- set-up

static void registered(void *ctx, const char *name)
{
    struct bench *bench = ctx;
    bench->registered++;
    snprintf(bench->name, sizeof bench->name, "%s", name);
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    char error[OPTIONS_ERROR_SIZE];
    int on = 1, problem = 0;
    char *argv[] = {(char *)"x", (char *)"--name=alpha", (char *)"--label=zone=a"},
         *none[] = {NULL};
    zsys_init();
    zsys_handler_set(NULL);
    bench->status = "200";
    bench->epoch = 5;
    bench->clock = (struct clock){bench_mono, bench_wall, bench};
    strcpy(bench->dir, "/tmp/meshperf-session-XXXXXX");
    assert_non_null(mkdtemp(bench->dir));
    assert_int_equal(agent_settings_load(&bench->settings, 3, argv, none, error), 0);
    strcpy(bench->settings.state_dir, bench->dir);
    assert_int_equal(identity_generate(&bench->controller), 0);
    bench->zap = zsock_new_router("inproc://zeromq.zap.01");
    assert_non_null(bench->zap);
    bench->router = zsock_new(ZMQ_ROUTER);
    void *handle = zsock_resolve(bench->router);
    zmq_setsockopt(handle, ZMQ_CURVE_SERVER, &on, sizeof on);
    zmq_setsockopt(handle, ZMQ_CURVE_SECRETKEY, bench->controller.secret_key, IDENTITY_KEY_SIZE);
    zsock_set_zap_domain(bench->router, "test");
    assert_true(zsock_bind(bench->router, "tcp://127.0.0.1:*") > 0);
    snprintf(
        bench->token.endpoint, sizeof bench->token.endpoint, "%s", zsock_endpoint(bench->router));
    memcpy(bench->token.controller_key, bench->controller.public_key, IDENTITY_KEY_SIZE);
    assert_int_equal(identity_generate(&bench->token.key), 0);
    assert_int_equal(account_load(&bench->account, bench->dir, false, error), 0);
    bench->port = dataport_new(5701, NULL, &problem); // opens no socket before a test wants one
    assert_non_null(bench->port);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    session_destroy(&bench->session);
    dataport_destroy(&bench->port);
    zsock_destroy(&bench->router);
    // Closing alone frees the endpoint some time later, and the next test could not bind.
    zsock_unbind(bench->zap, "inproc://zeromq.zap.01");
    zsock_destroy(&bench->zap);
    zframe_destroy(&bench->peer);
    DIR *dir = opendir(bench->dir);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(bench->dir);
    free(bench);
    return 0;
}

static void start_session(struct bench *bench)
{
    struct session_options options = {.settings = &bench->settings,
        .account = &bench->account,
        .token = &bench->token,
        .port = bench->port,
        .clock = &bench->clock,
        .ctx = bench,
        .registered = registered,
        .find = find_kind,
        .light_run = answer_all};
    bench->session = session_new(&options);
    assert_non_null(bench->session);
}

// As if it had enrolled earlier.
static void start_enrolled(struct bench *bench)
{
    strcpy(bench->account.endpoint, bench->token.endpoint);
    memcpy(bench->account.controller_key, bench->token.controller_key, IDENTITY_KEY_SIZE);
    strcpy(bench->account.name, "alpha");
    assert_int_equal(account_enrol(&bench->account, bench->dir), 0);
    start_session(bench);
}

static void start_registered(struct bench *bench)
{
    start_enrolled(bench);
    Mp__Envelope *hello = hear(bench, MP__ENVELOPE__BODY_HELLO);
    wire_free(&hello);
    welcome(bench, 0, 600000);
    UNTIL(bench->registered)
    {
    }
    assert_int_equal(bench->registered, 1);
}

// ------------------------------------------------------------------------------------- the tests

static void a_token_becomes_an_identity_that_is_kept(void **state)
{
    struct bench *bench = *state;
    char error[ACCOUNT_ERROR_SIZE];
    start_session(bench);
    Mp__Envelope *envelope = hear(bench, MP__ENVELOPE__BODY_ENROL);
    assert_memory_equal(
        envelope->enrol->public_key.data, bench->account.key.public_key, IDENTITY_KEY_SIZE);
    assert_string_equal(envelope->enrol->name, "alpha");
    assert_string_equal(envelope->enrol->labels[0]->value, "a");
    wire_free(&envelope);
    Mp__Enrolled enrolled = MP__ENROLLED__INIT;
    enrolled.name = (char *)"alpha";
    Mp__Envelope answer = MP__ENVELOPE__INIT;
    answer.body_case = MP__ENVELOPE__BODY_ENROLLED;
    answer.enrolled = &enrolled;
    say(bench, &answer);
    envelope = hear(bench, MP__ENVELOPE__BODY_HELLO);
    assert_memory_equal(bench->seen_key, bench->account.key.public_key, IDENTITY_KEY_SIZE);
    assert_int_equal(envelope->hello->data_port, 5701);
    assert_string_equal(envelope->hello->addresses[0], "127.0.0.1");
    assert_int_equal(envelope->hello->n_running, 0);
    wire_free(&envelope);
    welcome(bench, 0, 10000);
    UNTIL(bench->registered)
    {
    }
    assert_string_equal(bench->name, "alpha");
    struct account kept;
    assert_int_equal(account_load(&kept, bench->dir, false, error), 0);
    assert_true(kept.enrolled);
    assert_string_equal(kept.endpoint, bench->token.endpoint);
    assert_memory_equal(&kept.key, &bench->account.key, sizeof kept.key);
}

static void a_token_that_zap_refuses_is_final_and_said_in_words(void **state)
{
    struct bench *bench = *state;
    bench->status = "400";
    start_session(bench);
    UNTIL(bench->result != 0)
    {
    }
    assert_int_equal(bench->result, MESH_E_REFUSED);
    const char *words = session_error(bench->session);
    assert_non_null(strstr(words, bench->token.endpoint));
    assert_non_null(strstr(words, "does not accept this token (expired, used up, revoked, or "
                                  "another controller's)"));
}

static void a_name_in_use_is_final_before_there_is_an_identity(void **state)
{
    struct bench *bench = *state;
    start_session(bench);
    Mp__Envelope *envelope = hear(bench, MP__ENVELOPE__BODY_ENROL);
    wire_free(&envelope);
    refuse(bench, MP__REFUSED__CODE__NAME_IN_USE, "the name alpha is in use");
    UNTIL(bench->result != 0)
    {
    }
    assert_int_equal(bench->result, MESH_E_REFUSED);
    assert_non_null(strstr(session_error(bench->session), "the name alpha is in use"));
    assert_false(account_exists(bench->dir));
}

static void an_enrolled_agent_that_is_refused_tries_again_for_ever(void **state)
{
    struct bench *bench = *state;
    start_enrolled(bench);
    for (int i = 0; i < 3; i++) {
        Mp__Envelope *envelope = hear(bench, MP__ENVELOPE__BODY_HELLO);
        wire_free(&envelope);
        refuse(bench, MP__REFUSED__CODE__IDENTITY_IN_USE, "this identity is in use");
        int64_t sent = clock_mono_ns();
        UNTIL(clock_mono_ns() - sent > 200 * NS_PER_MS)
        {
        }
        assert_int_equal(bench->result, 0);
        bench->skipped_ns += 61 * NS_PER_S;
    }
}

static void a_lost_controller_is_greeted_again(void **state)
{
    struct bench *bench = *state;
    start_registered(bench);
    // Heartbeats stay unanswered: after three the socket is made anew, at once.
    Mp__Envelope *envelope = hear(bench, MP__ENVELOPE__BODY_HELLO);
    wire_free(&envelope);
    welcome(bench, 0, 10000);
    UNTIL(bench->registered == 2)
    {
    }
    assert_int_equal(bench->registered, 2);
}

static void no_session_makes_it_greet_again_on_the_same_link(void **state)
{
    struct bench *bench = *state;
    start_registered(bench);
    Mp__NoSession none = MP__NO_SESSION__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_NO_SESSION;
    envelope.no_session = &none;
    Mp__Envelope *heard = hear(bench, MP__ENVELOPE__BODY_HEARTBEAT);
    wire_free(&heard);
    zframe_t *before = zframe_dup(bench->peer);
    say(bench, &envelope);
    heard = hear(bench, MP__ENVELOPE__BODY_HELLO);
    wire_free(&heard);
    assert_true(zframe_eq(before, bench->peer));
    zframe_destroy(&before);
}

static void a_test_is_prepared_once_and_its_result_kept_until_confirmed(void **state)
{
    struct bench *bench = *state;
    start_registered(bench);
    for (int i = 0; i < 2; i++) {
        prepare(bench, bench->epoch, TEST_TCP);
        Mp__Envelope *ready = hear(bench, MP__ENVELOPE__BODY_READY);
        assert_int_equal(ready->ready->test_id.data[0], 0xab);
        wire_free(&ready);
    }
    stop(bench);
    Mp__Envelope *result = hear(bench, MP__ENVELOPE__BODY_RESULT);
    assert_int_equal(result->result->sequence, 1);
    assert_int_equal(result->result->report->outcome, MP__OUTCOME__OUTCOME_STOPPED);
    wire_free(&result);
    // Not confirmed: it comes again after the next registration, under its number.
    Mp__Envelope *hello = hear(bench, MP__ENVELOPE__BODY_HELLO);
    wire_free(&hello);
    welcome(bench, 0, 10000);
    result = hear(bench, MP__ENVELOPE__BODY_RESULT);
    assert_int_equal(result->result->sequence, 1);
    wire_free(&result);
    Mp__ResultAck ack = MP__RESULT_ACK__INIT;
    ack.sequence = 1;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_RESULT_ACK;
    envelope.result_ack = &ack;
    say(bench, &envelope);
    bool empty = false;
    for (int i = 0; i < 20 && !empty; i++) {
        Mp__Envelope *heartbeat = hear(bench, MP__ENVELOPE__BODY_HEARTBEAT);
        empty = heartbeat->heartbeat->spooled == 0;
        wire_free(&heartbeat);
    }
    assert_true(empty);
}

static void an_order_of_an_earlier_life_is_ignored(void **state)
{
    struct bench *bench = *state;
    start_registered(bench);
    prepare(bench, bench->epoch - 1, TEST_TCP);
    Mp__Ping ping = MP__PING__INIT;
    ping.nonce = 9;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_PING;
    envelope.ping = &ping;
    say(bench, &envelope);
    Mp__Envelope *pong = hear(bench, MP__ENVELOPE__BODY_PONG);
    assert_int_equal(pong->pong->nonce, 9);
    wire_free(&pong);
    Mp__Envelope *heartbeat = hear(bench, MP__ENVELOPE__BODY_HEARTBEAT);
    assert_int_equal(heartbeat->heartbeat->running, 0);
    wire_free(&heartbeat);
}

static void a_controller_in_a_new_life_ends_the_tests_of_the_old_one(void **state)
{
    struct bench *bench = *state;
    start_registered(bench);
    prepare(bench, bench->epoch, TEST_TCP);
    Mp__Envelope *envelope = hear(bench, MP__ENVELOPE__BODY_READY);
    wire_free(&envelope);
    envelope = hear(bench, MP__ENVELOPE__BODY_HELLO);
    assert_int_equal(envelope->hello->n_running, 1);
    assert_int_equal(envelope->hello->running[0].data[0], 0xab);
    wire_free(&envelope);
    bench->epoch++;
    welcome(bench, 0, 10000);
    envelope = hear(bench, MP__ENVELOPE__BODY_RESULT);
    assert_int_equal(envelope->result->report->outcome, MP__OUTCOME__OUTCOME_STOPPED);
    wire_free(&envelope);
}

static void a_silent_controller_ends_load_when_the_lease_is_over(void **state)
{
    struct bench *bench = *state;
    start_registered(bench);
    prepare(bench, bench->epoch, TEST_TCP);
    Mp__Envelope *envelope = hear(bench, MP__ENVELOPE__BODY_READY);
    wire_free(&envelope);
    bench->skipped_ns += 601 * NS_PER_S;
    envelope = hear(bench, MP__ENVELOPE__BODY_HELLO);
    wire_free(&envelope);
    welcome(bench, 0, 10000);
    envelope = hear(bench, MP__ENVELOPE__BODY_RESULT);
    assert_int_equal(envelope->result->report->outcome, MP__OUTCOME__OUTCOME_STOPPED);
    wire_free(&envelope);
}

static void an_unknown_kind_of_test_is_unsupported(void **state)
{
    struct bench *bench = *state;
    start_registered(bench);
    prepare(bench, bench->epoch, TEST_SCTP);
    Mp__Envelope *envelope = hear(bench, MP__ENVELOPE__BODY_RESULT);
    assert_int_equal(envelope->result->report->outcome, MP__OUTCOME__OUTCOME_UNSUPPORTED);
    assert_non_null(strstr(envelope->result->report->reason, "sctp"));
    wire_free(&envelope);
}

static void a_forbidden_peer_is_skipped_in_the_words_of_the_guard(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(cidr_parse("10.0.0.0/8", &bench->settings.guard.peers[0]), 0);
    bench->settings.guard.peer_count = 1;
    start_registered(bench);
    prepare(bench, bench->epoch, TEST_TCP);
    Mp__Envelope *envelope = hear(bench, MP__ENVELOPE__BODY_RESULT);
    assert_int_equal(envelope->result->report->outcome, MP__OUTCOME__OUTCOME_SKIPPED);
    assert_non_null(strstr(envelope->result->report->reason, "guard: peers"));
    wire_free(&envelope);
}

#define LIGHT_PEERS 300

static void light_arm(struct bench *bench, uint32_t part, uint32_t parts)
{
    static uint8_t ids[LIGHT_PEERS][16], key[32], batch[16] = {0xba};
    static Mp__LightPeer peers[LIGHT_PEERS], *list[LIGHT_PEERS];
    uint32_t from = part * LIGHT_PEERS / parts, to = (part + 1) * LIGHT_PEERS / parts;
    for (uint32_t i = from; i < to; i++) {
        mp__light_peer__init(&peers[i]);
        memcpy(ids[i], &i, sizeof i);
        peers[i].test_id = (ProtobufCBinaryData){16, ids[i]};
        peers[i].key = (ProtobufCBinaryData){32, key};
        peers[i].probes = true;
        peers[i].local_address = peers[i].peer_address = (char *)"127.0.0.1";
        peers[i].peer_name = (char *)"beta";
        peers[i].peer_port = i + 1;
        list[i] = &peers[i];
    }
    struct testspec spec;
    Mp__TestSpec wire = MP__TEST_SPEC__INIT;
    testspec_defaults(TEST_LATENCY, &spec);
    spec.probe_rate = 10;
    testspec_to_wire(&spec, &wire);
    Mp__LightArm arm = MP__LIGHT_ARM__INIT;
    arm.batch = (ProtobufCBinaryData){16, batch};
    arm.part = part;
    arm.parts = parts;
    arm.spec = &wire;
    arm.expiry_ns = 60 * NS_PER_S;
    arm.epoch = bench->epoch;
    arm.peers = list + from;
    arm.n_peers = to - from;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_LIGHT_ARM;
    envelope.light_arm = &arm;
    say(bench, &envelope);
}

static void light_probes_come_back_in_parts_that_are_complete(void **state)
{
    struct bench *bench = *state;
    bool seen[LIGHT_PEERS] = {false};
    start_registered(bench);
    // The parts may come in any order, and twice.
    light_arm(bench, 1, 2);
    light_arm(bench, 1, 2);
    light_arm(bench, 0, 2);
    Mp__Envelope *envelope = hear(bench, MP__ENVELOPE__BODY_LIGHT_ARMED);
    assert_null(envelope->light_armed->refused);
    Mp__LightGo go = MP__LIGHT_GO__INIT;
    go.batch = envelope->light_armed->batch;
    Mp__Envelope order = MP__ENVELOPE__INIT;
    order.body_case = MP__ENVELOPE__BODY_LIGHT_GO;
    order.light_go = &go;
    say(bench, &order);
    say(bench, &order);
    wire_free(&envelope);
    uint32_t parts = 1;
    size_t count = 0;
    for (uint32_t part = 0; part < parts; part++) {
        envelope = hear(bench, MP__ENVELOPE__BODY_LIGHT_RESULT);
        const Mp__LightResult *result = envelope->light_result;
        assert_int_equal(result->sequence, part + 1);
        assert_int_equal(result->part, part);
        assert_string_equal(result->stamps, "tx user");
        parts = result->parts;
        for (size_t i = 0; i < result->n_outcomes; i++, count++) {
            uint32_t index;
            memcpy(&index, result->outcomes[i]->test_id.data, sizeof index);
            assert_true(index < LIGHT_PEERS && !seen[index]);
            assert_int_equal(result->outcomes[i]->sent, index + 1);
            seen[index] = true;
        }
        wire_free(&envelope);
    }
    assert_int_equal(count, LIGHT_PEERS);
}

static void an_orderly_end_is_announced(void **state)
{
    struct bench *bench = *state;
    start_registered(bench);
    session_goodbye(bench->session);
    Mp__Envelope *goodbye = hear(bench, MP__ENVELOPE__BODY_GOODBYE);
    wire_free(&goodbye);
}

#define SESSION_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SESSION_TEST(a_token_becomes_an_identity_that_is_kept),
        SESSION_TEST(a_token_that_zap_refuses_is_final_and_said_in_words),
        SESSION_TEST(a_name_in_use_is_final_before_there_is_an_identity),
        SESSION_TEST(an_enrolled_agent_that_is_refused_tries_again_for_ever),
        SESSION_TEST(a_lost_controller_is_greeted_again),
        SESSION_TEST(no_session_makes_it_greet_again_on_the_same_link),
        SESSION_TEST(a_test_is_prepared_once_and_its_result_kept_until_confirmed),
        SESSION_TEST(an_order_of_an_earlier_life_is_ignored),
        SESSION_TEST(a_controller_in_a_new_life_ends_the_tests_of_the_old_one),
        SESSION_TEST(a_silent_controller_ends_load_when_the_lease_is_over),
        SESSION_TEST(an_unknown_kind_of_test_is_unsupported),
        SESSION_TEST(a_forbidden_peer_is_skipped_in_the_words_of_the_guard),
        SESSION_TEST(light_probes_come_back_in_parts_that_are_complete),
        SESSION_TEST(an_orderly_end_is_announced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
