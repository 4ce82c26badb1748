#include "server_bench.h"

#include <string.h>

#include "director.h"
#include "testspec.h"

// Runs through the whole controller (server, director, store) with agents that measure nothing but
// speak the protocol: PREPARE is answered by READY, START by the results of both ends.

#define AGENTS_MAX 3
#define BANDWIDTH_BPS 1e9

struct mesh {
    struct bench *bench;
    struct join_token token;
    struct visitor agents[AGENTS_MAX];
    uint64_t sequences[AGENTS_MAX];
    uint64_t acknowledged[AGENTS_MAX];
    size_t count;
    unsigned started; // START messages seen
    bool twice;       // every result is sent two times
    bool mute;        // nothing is answered
};

static struct mesh mesh_of(struct bench *bench, size_t count)
{
    struct mesh mesh = {.bench = bench, .count = count};
    mesh.token = new_token(bench, (uint32_t)count, NULL);
    for (size_t i = 0; i < count; i++) {
        char name[2] = {(char)('a' + i), 0};
        struct identity key = enrolled(bench, &mesh.token, name);
        mesh.agents[i] = visit(bench, &mesh.token, &key, (uint8_t)(i + 1));
        be_welcomed(bench, &mesh.agents[i]);
    }
    return mesh;
}

static void mesh_end(struct mesh *mesh)
{
    for (size_t i = 0; i < mesh->count; i++)
        link_destroy(&mesh->agents[i].link);
}

static void send_result(struct mesh *mesh, size_t agent, ProtobufCBinaryData id, bool sends)
{
    Mp__SendSide send = MP__SEND_SIDE__INIT;
    Mp__ReceiveSide receive = MP__RECEIVE_SIDE__INIT;
    Mp__EndReport report = MP__END_REPORT__INIT;
    Mp__Result result = MP__RESULT__INIT;
    send.has_bytes = receive.has_bytes = true;
    send.bytes = receive.bytes = 12500000;
    send.has_duration_s = receive.has_duration_s = true;
    send.duration_s = receive.duration_s = 0.1;
    receive.has_bandwidth_bps = true;
    receive.bandwidth_bps = BANDWIDTH_BPS;
    report.outcome = MP__OUTCOME__OUTCOME_OK;
    report.technique = (char *)"pretended";
    if (sends)
        report.send = &send;
    else
        report.receive = &receive;
    result.sequence = ++mesh->sequences[agent];
    result.test_id = id;
    result.report = &report;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_RESULT;
    envelope.result = &result;
    for (int i = 0; i <= mesh->twice; i++)
        say_in_session(mesh->bench, &mesh->agents[agent], &envelope, mesh->agents[agent].session);
}

static void on_prepare(struct mesh *mesh, size_t agent, const Mp__Prepare *prepare)
{
    Mp__Ready ready = MP__READY__INIT;
    ready.test_id = prepare->ticket->test_id;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_READY;
    envelope.ready = &ready;
    say_in_session(mesh->bench, &mesh->agents[agent], &envelope, mesh->agents[agent].session);
}

static void on_start(struct mesh *mesh, size_t agent, const Mp__Start *start)
{
    mesh->started++;
    size_t peer = (size_t)(start->ticket->peer_name[0] - 'a');
    assert_true(peer < mesh->count);
    send_result(mesh, agent, start->ticket->test_id, start->ticket->sends);
    send_result(mesh, peer, start->ticket->test_id, !start->ticket->sends);
}

static void agent_hears(struct mesh *mesh, size_t agent, const Mp__Envelope *message)
{
    if (message->body_case == MP__ENVELOPE__BODY_RESULT_ACK)
        mesh->acknowledged[agent] = message->result_ack->sequence;
    else if (mesh->mute)
        return;
    else if (message->body_case == MP__ENVELOPE__BODY_PREPARE)
        on_prepare(mesh, agent, message->prepare);
    else if (message->body_case == MP__ENVELOPE__BODY_START)
        on_start(mesh, agent, message->start);
}

// One turn of controller and agents.
static void mesh_step(struct mesh *mesh)
{
    step(mesh->bench);
    for (size_t i = 0; i < mesh->count; i++) {
        int error;
        for (Mp__Envelope *message;
             mesh->agents[i].link && (message = link_receive(mesh->agents[i].link, &error));) {
            agent_hears(mesh, i, message);
            wire_free(&message);
        }
    }
}

static Mp__Envelope *request(struct bench *bench, link_t *link, const char *from, bool plan_only)
{
    Mp__TestSpec spec = MP__TEST_SPEC__INIT, *specs[] = {&spec};
    struct testspec plain;
    testspec_defaults(TEST_TCP, &plain);
    plain.duration_ns = plain.interval_ns = TESTSPEC_DURATION_MIN_NS;
    testspec_to_wire(&plain, &spec);
    Mp__RunRequest run = MP__RUN_REQUEST__INIT;
    run.tests = specs;
    run.n_tests = 1;
    char *selectors[] = {(char *)from};
    run.from = selectors;
    run.n_from = from != NULL;
    run.name = (char *)"trial";
    run.command = (char *)"meshperf run tcp";
    run.has_plan_only = true;
    run.plan_only = plan_only;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_RUN_REQUEST;
    question.run_request = &run;
    return ask_as(bench, link, &question);
}

static void start(struct mesh *mesh, char run[DIRECTOR_RUN_ID_SIZE])
{
    Mp__Envelope *answer = request(mesh->bench, mesh->bench->operator_, NULL, false);
    if (answer->body_case == MP__ENVELOPE__BODY_REFUSED)
        fail_msg("refused: %s", answer->refused->text);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_RUN_ACCEPTED);
    snprintf(run, DIRECTOR_RUN_ID_SIZE, "%s", answer->run_accepted->run);
    wire_free(&answer);
}

static Mp__Envelope *run_of(struct bench *bench, const char *run)
{
    Mp__RunQuery query = MP__RUN_QUERY__INIT;
    query.run = (char *)run;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_RUN_QUERY;
    question.run_query = &query;
    Mp__Envelope *answer = ask(bench, &question);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_RUN_ANSWER);
    return answer;
}

static Mp__RunState run_state(struct bench *bench, const char *run)
{
    Mp__Envelope *answer = run_of(bench, run);
    Mp__RunState state = answer->run_answer->info->state;
    wire_free(&answer);
    return state;
}

static Mp__Envelope *cells_of(struct bench *bench, const char *run)
{
    Mp__CellsQuery query = MP__CELLS_QUERY__INIT;
    query.run = (char *)run;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_CELLS_QUERY;
    question.cells_query = &query;
    Mp__Envelope *answer = ask(bench, &question);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_CELLS_ANSWER);
    return answer;
}

static bool run_ends(struct mesh *mesh, const char *run, Mp__RunState wanted)
{
    bool ended = false;
    for (int64_t until_ns = clock_mono_ns() + 20 * NS_PER_S; !ended && clock_mono_ns() < until_ns;
         mesh_step(mesh))
        ended = run_state(mesh->bench, run) == wanted;
    return ended;
}

static void a_run_ends_with_every_cell_measured_and_every_result_acknowledged(void **state)
{
    struct bench *bench = *state;
    struct mesh mesh = mesh_of(bench, 3);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(&mesh, run);
    assert_string_equal(run, "r-1");
    assert_true(run_ends(&mesh, run, MP__RUN_STATE__FINISHED));

    Mp__Envelope *answer = cells_of(bench, "last");
    assert_int_equal(answer->cells_answer->total, 6);
    assert_int_equal(answer->cells_answer->n_cells, 6);
    for (size_t i = 0; i < 6; i++) {
        const Mp__Cell *cell = answer->cells_answer->cells[i];
        assert_int_equal(cell->index, i);
        assert_int_equal(cell->state, MP__CELL_STATE__OK);
        assert_true(cell->bandwidth_bps == BANDWIDTH_BPS);
    }
    wire_free(&answer);
    answer = run_of(bench, run);
    assert_string_equal(answer->run_answer->info->by, "admin");
    assert_int_equal(answer->run_answer->n_agents, 3);
    assert_int_equal(answer->run_answer->info->ok, 6);
    wire_free(&answer);
    assert_int_equal(mesh.started, 6);
    for (size_t i = 0; i < 3; i++)
        for (int64_t until_ns = clock_mono_ns() + 5 * NS_PER_S;
             mesh.acknowledged[i] < mesh.sequences[i] && clock_mono_ns() < until_ns;)
            mesh_step(&mesh);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(mesh.acknowledged[i], mesh.sequences[i]);
    mesh_end(&mesh);
}

static void results_that_come_twice_change_nothing(void **state)
{
    struct bench *bench = *state;
    struct mesh mesh = mesh_of(bench, 2);
    mesh.twice = true;
    char run[DIRECTOR_RUN_ID_SIZE];
    start(&mesh, run);
    assert_true(run_ends(&mesh, run, MP__RUN_STATE__FINISHED));
    Mp__Envelope *answer = run_of(bench, run);
    assert_int_equal(answer->run_answer->info->ok, 2);
    assert_int_equal(answer->run_answer->info->done, 2);
    wire_free(&answer);
    assert_int_equal(mesh.started, 2);
    mesh_end(&mesh);
}

static void a_restarted_controller_continues_the_run_and_repeats_no_finished_cell(void **state)
{
    struct bench *bench = *state;
    struct mesh mesh = mesh_of(bench, 2);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(&mesh, run);
    uint32_t done = 0;
    for (int64_t until_ns = clock_mono_ns() + 10 * NS_PER_S;
         done == 0 && clock_mono_ns() < until_ns;) {
        Mp__Envelope *answer = run_of(bench, run);
        done = answer->run_answer->info->done;
        wire_free(&answer);
        mesh.mute = mesh.started == 1; // after the first test nobody answers
        mesh_step(&mesh);
    }
    assert_int_equal(done, 1);
    bench_stop(bench);
    bench_start(bench);
    snprintf(mesh.token.endpoint, sizeof mesh.token.endpoint, "%s", server_endpoint(bench->server));
    assert_int_equal(run_state(bench, run), MP__RUN_STATE__RUNNING);
    mesh.mute = false;
    for (size_t i = 0; i < mesh.count; i++) {
        struct identity key = mesh.agents[i].key;
        link_destroy(&mesh.agents[i].link);
        mesh.agents[i] = visit(bench, &mesh.token, &key, (uint8_t)(i + 1));
        be_welcomed(bench, &mesh.agents[i]);
    }
    assert_true(run_ends(&mesh, run, MP__RUN_STATE__FINISHED));
    assert_int_equal(mesh.started, 2);
    Mp__Envelope *answer = run_of(bench, run);
    assert_int_equal(answer->run_answer->info->ok, 2);
    wire_free(&answer);
    mesh_end(&mesh);
}

static void a_cancelled_run_says_so_and_its_cells_too(void **state)
{
    struct bench *bench = *state;
    struct mesh mesh = mesh_of(bench, 2);
    mesh.mute = true;
    char run[DIRECTOR_RUN_ID_SIZE];
    start(&mesh, run);
    Mp__RunCancel cancel = MP__RUN_CANCEL__INIT;
    cancel.run = (char *)"last";
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_RUN_CANCEL;
    question.run_cancel = &cancel;
    assert_done(ask(bench, &question));
    assert_true(run_ends(&mesh, run, MP__RUN_STATE__CANCELLED));
    Mp__Envelope *answer = cells_of(bench, run);
    for (size_t i = 0; i < answer->cells_answer->n_cells; i++)
        assert_int_equal(answer->cells_answer->cells[i]->state, MP__CELL_STATE__CELL_CANCELLED);
    wire_free(&answer);
    assert_done(ask(bench, &question)); // again: it has ended already
    mesh_end(&mesh);
}

static void a_selection_without_a_pair_is_refused(void **state)
{
    struct bench *bench = *state;
    struct mesh mesh = mesh_of(bench, 2);
    assert_refused(
        request(bench, bench->operator_, "nobody", false), MP__REFUSED__CODE__NO_PAIRS, "");
    mesh_end(&mesh);
}

static void a_viewer_may_plan_a_run_but_not_start_it(void **state)
{
    struct bench *bench = *state;
    struct mesh mesh = mesh_of(bench, 2);
    Mp__OperatorAdd add = MP__OPERATOR_ADD__INIT;
    add.name = (char *)"vera";
    add.role = MP__ROLE__VIEWER;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_OPERATOR_ADD;
    question.operator_add = &add;
    Mp__Envelope *answer = ask(bench, &question);
    struct operator_context vera;
    const char *text = answer->operator_added->context;
    assert_int_equal(operator_context_read(text, strlen(text), &vera), 0);
    wire_free(&answer);
    link_t *link = link_new(vera.endpoint, vera.controller_key, &vera.key, LINK_COMMAND);
    answer = request(bench, link, NULL, true);
    assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_PLAN_ANSWER);
    assert_int_equal(answer->plan_answer->pairs, 2);
    wire_free(&answer);
    assert_refused(request(bench, link, NULL, false), MP__REFUSED__CODE__ROLE, "viewer");
    link_destroy(&link);
    mesh_end(&mesh);
}

static void events_tell_each_result_once(void **state)
{
    struct bench *bench = *state;
    struct mesh mesh = mesh_of(bench, 2);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(&mesh, run);
    Mp__EventsQuery query = MP__EVENTS_QUERY__INIT;
    query.run = run;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_EVENTS_QUERY;
    question.events_query = &query;
    unsigned results = 0;
    Mp__RunState now = MP__RUN_STATE__QUEUED;
    for (int64_t until_ns = clock_mono_ns() + 10 * NS_PER_S;
         now != MP__RUN_STATE__FINISHED && clock_mono_ns() < until_ns; mesh_step(&mesh)) {
        Mp__Envelope *answer = ask(bench, &question);
        assert_int_equal(answer->body_case, MP__ENVELOPE__BODY_EVENTS_ANSWER);
        for (size_t i = 0; i < answer->events_answer->n_events; i++)
            results += answer->events_answer->events[i]->kind == MP__EVENT__KIND__RESULT;
        query.since = answer->events_answer->next;
        now = answer->events_answer->info->state;
        wire_free(&answer);
    }
    assert_int_equal(now, MP__RUN_STATE__FINISHED);
    assert_int_equal(results, 2);
    mesh_end(&mesh);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_set_up, bench_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_run_ends_with_every_cell_measured_and_every_result_acknowledged),
        TEST(results_that_come_twice_change_nothing),
        TEST(a_restarted_controller_continues_the_run_and_repeats_no_finished_cell),
        TEST(a_cancelled_run_says_so_and_its_cells_too),
        TEST(a_selection_without_a_pair_is_refused),
        TEST(a_viewer_may_plan_a_run_but_not_start_it),
        TEST(events_tell_each_result_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
