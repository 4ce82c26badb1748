// The command line's conversation against a controller that misbehaves: silent, late, restarted.

#include <czmq.h>

#include "client.h"
#include "clock.h"
#include "errors.h"
#include "wire.h"

#include "meshtest.h"

#define SECOND_NS INT64_C(1000000000)

struct bench {
    zcert_t *cert;
    zsock_t *router;
    char endpoint[64];
    client_t *client;
};

static void open_router(struct bench *bench, const char *endpoint)
{
    int64_t deadline = clock_mono_ns() + 5 * SECOND_NS;
    bench->router = zsock_new(ZMQ_ROUTER);
    zsock_set_linger(bench->router, 0);
    zcert_apply(bench->cert, bench->router);
    zsock_set_curve_server(bench->router, 1);
    while (zsock_bind(bench->router, "%s", endpoint) < 0)
        assert_true(clock_mono_ns() < deadline);
}

static int bring_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    struct operator_context context = {.name = "tester"};
    zsys_init();
    bench->cert = zcert_new();
    open_router(bench, "tcp://127.0.0.1:*");
    snprintf(bench->endpoint, sizeof bench->endpoint, "%s", zsock_endpoint(bench->router));
    snprintf(context.endpoint, sizeof context.endpoint, "%s", bench->endpoint);
    memcpy(context.controller_key, zcert_public_key(bench->cert), IDENTITY_KEY_SIZE);
    assert_int_equal(identity_generate(&context.key), 0);
    bench->client = client_new(&context);
    assert_non_null(bench->client);
    *state = bench;
    return 0;
}

static int take_down(void **state)
{
    struct bench *bench = *state;
    client_destroy(&bench->client);
    zsock_destroy(&bench->router);
    zcert_destroy(&bench->cert);
    free(bench);
    return 0;
}

// One call of client_ask in a thread of its own, so that the test can play the controller.
struct asking {
    client_t *client;
    bool start; // asks for a run, otherwise for the list of runs
    int64_t timeout_ns;
    Mp__Envelope *answer;
    int error;
};

static void ask(zsock_t *pipe, void *argument)
{
    struct asking *asking = argument;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    Mp__RunsQuery query = MP__RUNS_QUERY__INIT;
    Mp__TestSpec spec = MP__TEST_SPEC__INIT;
    Mp__TestSpec *specs[] = {&spec};
    Mp__RunRequest request = MP__RUN_REQUEST__INIT;
    spec.kind = MP__TEST_KIND__TCP;
    spec.duration_ns = spec.interval_ns = SECOND_NS;
    request.tests = specs;
    request.n_tests = 1;
    if (asking->start) {
        question.body_case = MP__ENVELOPE__BODY_RUN_REQUEST;
        question.run_request = &request;
    } else {
        question.body_case = MP__ENVELOPE__BODY_RUNS_QUERY;
        question.runs_query = &query;
    }
    zsock_signal(pipe, 0);
    asking->answer =
        client_ask(asking->client, &question, asking->timeout_ns, NULL, &asking->error);
    zsock_signal(pipe, 0);
    char *end = zstr_recv(pipe);
    zstr_free(&end);
}

// The next question; who asked in *from. Fails after 10 s.
static Mp__Envelope *next_question(struct bench *bench, zframe_t **from)
{
    int error;
    zsock_set_rcvtimeo(bench->router, 10000);
    zmsg_t *message = zmsg_recv(bench->router);
    assert_non_null(message);
    *from = zmsg_pop(message);
    zframe_t *payload = zmsg_pop(message);
    assert_non_null(payload);
    Mp__Envelope *question =
        wire_unpack(zframe_data(payload), zframe_size(payload), WIRE_ADMIN, true, &error, NULL);
    assert_non_null(question);
    zframe_destroy(&payload);
    zmsg_destroy(&message);
    return question;
}

static void answer_runs(struct bench *bench, zframe_t *to, uint64_t request, uint32_t total)
{
    Mp__Envelope answer = MP__ENVELOPE__INIT;
    Mp__RunsAnswer runs = MP__RUNS_ANSWER__INIT;
    size_t size;
    runs.total = total;
    answer.has_request = true;
    answer.request = request;
    answer.body_case = MP__ENVELOPE__BODY_RUNS_ANSWER;
    answer.runs_answer = &runs;
    uint8_t *bytes = wire_pack(&answer, &size);
    assert_non_null(bytes);
    assert_int_equal(zframe_send(&to, bench->router, ZFRAME_MORE | ZFRAME_REUSE), 0);
    zframe_t *payload = zframe_new(bytes, size);
    assert_int_equal(zframe_send(&payload, bench->router, 0), 0);
    free(bytes);
}

static void nobody_who_answers_is_given_up_in_time(void **state)
{
    struct bench *bench = *state;
    struct asking asking = {.client = bench->client, .timeout_ns = SECOND_NS / 5};
    zsock_destroy(&bench->router);
    int64_t start_ns = clock_mono_ns();
    zactor_t *actor = zactor_new(ask, &asking);
    zsock_wait(actor);
    assert_null(asking.answer);
    assert_int_equal(asking.error, MESH_E_TIMEOUT);
    assert_true(clock_mono_ns() - start_ns < 3 * SECOND_NS);
    zactor_destroy(&actor);
}

static void an_answer_to_another_question_is_dropped(void **state)
{
    struct bench *bench = *state;
    struct asking asking = {.client = bench->client, .timeout_ns = 10 * SECOND_NS};
    zactor_t *actor = zactor_new(ask, &asking);
    zframe_t *from;
    Mp__Envelope *question = next_question(bench, &from);
    answer_runs(bench, from, question->request + 1, 1);
    answer_runs(bench, from, question->request, 2);
    zsock_wait(actor);
    assert_non_null(asking.answer);
    assert_int_equal(asking.answer->runs_answer->total, 2);
    wire_free(&asking.answer);
    wire_free(&question);
    zframe_destroy(&from);
    zactor_destroy(&actor);
}

// The controller dies with a question in hand and comes back.
static void restart_router(struct bench *bench)
{
    zsock_destroy(&bench->router);
    open_router(bench, bench->endpoint);
}

static void a_query_is_asked_again_after_a_restart(void **state)
{
    struct bench *bench = *state;
    struct asking asking = {.client = bench->client, .timeout_ns = 20 * SECOND_NS};
    zactor_t *actor = zactor_new(ask, &asking);
    zframe_t *from;
    Mp__Envelope *question = next_question(bench, &from);
    wire_free(&question);
    zframe_destroy(&from);
    restart_router(bench);
    question = next_question(bench, &from);
    answer_runs(bench, from, question->request, 3);
    zsock_wait(actor);
    assert_non_null(asking.answer);
    assert_int_equal(asking.answer->runs_answer->total, 3);
    wire_free(&asking.answer);
    wire_free(&question);
    zframe_destroy(&from);
    zactor_destroy(&actor);
}

static void a_start_is_never_asked_twice(void **state)
{
    struct bench *bench = *state;
    struct asking start = {.client = bench->client, .start = true, .timeout_ns = 3 * SECOND_NS};
    zactor_t *actor = zactor_new(ask, &start);
    zframe_t *from;
    Mp__Envelope *question = next_question(bench, &from);
    assert_int_equal(question->body_case, MP__ENVELOPE__BODY_RUN_REQUEST);
    wire_free(&question);
    zframe_destroy(&from);
    restart_router(bench);
    zsock_wait(actor);
    assert_null(start.answer);
    assert_int_equal(start.error, MESH_E_TIMEOUT);
    zactor_destroy(&actor);

    // What the new connection carries first is the next question, not the start again.
    struct asking query = {.client = bench->client, .timeout_ns = 20 * SECOND_NS};
    actor = zactor_new(ask, &query);
    question = next_question(bench, &from);
    assert_int_equal(question->body_case, MP__ENVELOPE__BODY_RUNS_QUERY);
    answer_runs(bench, from, question->request, 4);
    zsock_wait(actor);
    assert_non_null(query.answer);
    wire_free(&query.answer);
    wire_free(&question);
    zframe_destroy(&from);
    zactor_destroy(&actor);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bring_up, take_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_who_answers_is_given_up_in_time),
        TEST(an_answer_to_another_question_is_dropped),
        TEST(a_query_is_asked_again_after_a_restart),
        TEST(a_start_is_never_asked_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
