// Whole runs in one process: the real director over a registry, fake agents that answer orders with
// made-up reports, a fake store, and a clock that jumps to the next thing that happens.

#include <czmq.h>

#include "clock.h"
#include "director.h"
#include "errors.h"
#include "meshtest.h"
#include "testspec.h"
#include "wire.h"

#define AGENTS_MAX 60
#define CELLS_MAX 8192

struct happening {
    int64_t due_ns;
    uint32_t agent;
    Mp__Envelope *answer; // as from the agent
    uint64_t order;
};

struct mesh {
    registry_t *registry;
    director_t *director;
    int64_t now_ns;
    struct clock clock;
    struct happening *happenings;
    size_t happening_count;
    uint64_t order;
    uint64_t sequence[AGENTS_MAX + 1];
    uint64_t done_reports[AGENTS_MAX + 1], sent_reports[AGENTS_MAX + 1];
    uint32_t in_test[AGENTS_MAX + 1], most_in_test;
    uint32_t prepares, starts, stops, arms;
    bool silent[AGENTS_MAX + 1];        // takes orders, answers nothing
    uint32_t fail_next[AGENTS_MAX + 1]; // so many reports are failures
    Mp__Outcome fail_as;
    bool fail_retry;
    bool receiver_first;
    bool dead[AGENTS_MAX + 1]; // sends no heartbeats any more
    bool dies[AGENTS_MAX + 1]; // will be dead after its next READY
    // the store
    int store_error;
    uint32_t saves;
    Mp__CellState states[CELLS_MAX];
    char *reasons[CELLS_MAX];
    uint32_t attempts[CELLS_MAX];
    uint32_t commits[CELLS_MAX];
    struct {
        char run[DIRECTOR_RUN_ID_SIZE];
        uint32_t index;
    } saving[CELLS_MAX];
    size_t saving_count;
    char ended[DIRECTOR_RUN_ID_SIZE];
    Mp__RunInfo *info; // as last saved
    uint32_t cells;
    struct cell_place *places;
    uint32_t ids[AGENTS_MAX];
};

static int64_t fake_now(void *ctx)
{
    return ((struct mesh *)ctx)->now_ns;
}

// ------------------------------------------------------------------------------------ fake agents

static void happen(struct mesh *mesh, uint32_t agent, int64_t delay_ns, Mp__Envelope *envelope)
{
    mesh->happenings =
        realloc(mesh->happenings, (mesh->happening_count + 1) * sizeof *mesh->happenings);
    mesh->happenings[mesh->happening_count++] = (struct happening){
        mesh->now_ns + delay_ns, agent, (Mp__Envelope *)wire_copy(&envelope->base), mesh->order++};
}

static void answer_ready(struct mesh *mesh, uint32_t agent, const Mp__Prepare *prepare)
{
    Mp__Ready ready = MP__READY__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.version = 1;
    ready.test_id = prepare->ticket->test_id;
    envelope.body_case = MP__ENVELOPE__BODY_READY;
    envelope.ready = &ready;
    happen(mesh, agent, NS_PER_MS, &envelope);
    if (mesh->dies[agent])
        mesh->silent[agent] = mesh->dead[agent] = true;
}

static void fill_report(struct mesh *mesh, uint32_t agent, const Mp__Ticket *ticket,
    Mp__EndReport *report, Mp__SendSide *send, Mp__ReceiveSide *receive)
{
    if (mesh->fail_next[agent] > 0) {
        mesh->fail_next[agent]--;
        report->outcome = mesh->fail_as;
        report->reason = (char *)"the test says so";
        report->has_retry = true;
        report->retry = mesh->fail_retry;
        return;
    }
    report->outcome = MP__OUTCOME__OUTCOME_OK;
    if (ticket->sends)
        report->send = send;
    if (ticket->receives) {
        report->receive = receive;
        receive->has_bandwidth_bps = true;
        receive->bandwidth_bps = 1e6;
    }
}

static void answer_result(
    struct mesh *mesh, uint32_t agent, const Mp__Ticket *ticket, int64_t delay_ns)
{
    Mp__EndReport report = MP__END_REPORT__INIT;
    Mp__SendSide send = MP__SEND_SIDE__INIT;
    Mp__ReceiveSide receive = MP__RECEIVE_SIDE__INIT;
    Mp__Result result = MP__RESULT__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.version = 1;
    fill_report(mesh, agent, ticket, &report, &send, &receive);
    result.test_id = ticket->test_id;
    result.sequence = ++mesh->sequence[agent];
    result.report = &report;
    envelope.body_case = MP__ENVELOPE__BODY_RESULT;
    envelope.result = &result;
    happen(mesh, agent, delay_ns, &envelope);
}

// The agent that another agent's ticket names as its peer.
static uint32_t peer_of(struct mesh *mesh, const Mp__Ticket *ticket)
{
    return registry_by_name(mesh->registry, ticket->peer_name)->id;
}

static void on_start(struct mesh *mesh, uint32_t agent, const Mp__Start *start)
{
    // The peer's ticket is the mirror image; its test id is the same.
    Mp__Ticket mirror = *start->ticket;
    uint32_t peer = peer_of(mesh, start->ticket);
    mirror.sends = start->ticket->receives;
    mirror.receives = start->ticket->sends;
    int64_t sender_ns = start->spec->duration_ns, receiver_ns = sender_ns + 100 * NS_PER_MS;
    if (mesh->receiver_first)
        receiver_ns = sender_ns - 10 * NS_PER_MS;
    if (!mesh->silent[agent])
        answer_result(mesh, agent, start->ticket, start->ticket->sends ? sender_ns : receiver_ns);
    if (!mesh->silent[peer])
        answer_result(mesh, peer, &mirror, mirror.sends ? sender_ns : receiver_ns);
}

static void on_arm(struct mesh *mesh, uint32_t agent, const Mp__LightArm *arm)
{
    Mp__LightArmed armed = MP__LIGHT_ARMED__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.version = 1;
    mesh->arms++;
    assert_true(arm->spec->has_probe_rate);
    armed.batch = arm->batch;
    envelope.body_case = MP__ENVELOPE__BODY_LIGHT_ARMED;
    envelope.light_armed = &armed;
    if (arm->part + 1 == arm->parts)
        happen(mesh, agent, NS_PER_MS, &envelope);
    Mp__LightResult result = MP__LIGHT_RESULT__INIT;
    result.batch = arm->batch;
    result.sequence = ++mesh->sequence[agent];
    result.part = arm->part;
    result.parts = arm->parts;
    result.n_outcomes = 0;
    result.outcomes = zmalloc((arm->n_peers + 1) * sizeof *result.outcomes);
    Mp__LightOutcome *outcomes = zmalloc((arm->n_peers + 1) * sizeof *outcomes);
    for (size_t i = 0; i < arm->n_peers; i++) {
        if (!arm->peers[i]->probes)
            continue;
        Mp__LightOutcome *outcome = &outcomes[result.n_outcomes];
        mp__light_outcome__init(outcome);
        outcome->test_id = arm->peers[i]->test_id;
        outcome->outcome = MP__OUTCOME__OUTCOME_OK;
        outcome->has_sent = outcome->has_received = true;
        outcome->sent = 10;
        outcome->received = 9;
        result.outcomes[result.n_outcomes++] = outcome;
    }
    envelope.body_case = MP__ENVELOPE__BODY_LIGHT_RESULT;
    envelope.light_result = &result;
    happen(mesh, agent, arm->spec->duration_ns + 50 * NS_PER_MS, &envelope);
    free(result.outcomes);
    free(outcomes);
}

static int fake_send(void *ctx, uint32_t agent_id, Mp__Envelope *envelope)
{
    struct mesh *mesh = ctx;
    struct agent *agent = registry_by_id(mesh->registry, agent_id);
    if (!agent || !agent_connected(agent))
        return MESH_E_NOT_FOUND;
    // Everything that goes out must pass the border at the other side.
    size_t size;
    char text[256];
    int error = 0;
    envelope->has_session = true;
    envelope->session = (ProtobufCBinaryData){16, (uint8_t *)"0123456789abcdef"};
    uint8_t *bytes = wire_pack(envelope, &size);
    Mp__Envelope *seen = wire_unpack(bytes, size, WIRE_CONTROLLER, true, &error, text);
    if (!seen)
        fail_msg("the director sends what is refused: %s", text);
    free(bytes);
    bool silent = mesh->silent[agent_id];
    if (seen->body_case == MP__ENVELOPE__BODY_PREPARE) {
        mesh->prepares++;
        assert_int_equal(seen->prepare->epoch, 7);
        if (!silent)
            answer_ready(mesh, agent_id, seen->prepare);
    } else if (seen->body_case == MP__ENVELOPE__BODY_START) {
        mesh->starts++;
        on_start(mesh, agent_id, seen->start);
    } else if (seen->body_case == MP__ENVELOPE__BODY_STOP) {
        mesh->stops++;
    } else if (seen->body_case == MP__ENVELOPE__BODY_LIGHT_ARM && !silent) {
        on_arm(mesh, agent_id, seen->light_arm);
    }
    wire_free(&seen);
    return 0;
}

static void deliver(struct mesh *mesh, size_t i)
{
    struct happening it = mesh->happenings[i];
    mesh->happenings[i] = mesh->happenings[--mesh->happening_count];
    struct agent *agent = registry_by_id(mesh->registry, it.agent);
    Mp__Envelope *answer = it.answer;
    if (agent && agent_connected(agent)) {
        if (answer->body_case == MP__ENVELOPE__BODY_READY)
            director_ready(mesh->director, it.agent, answer->ready);
        if (answer->body_case == MP__ENVELOPE__BODY_RESULT) {
            mesh->sent_reports[it.agent]++;
            director_result(mesh->director, it.agent, answer->result);
        }
        if (answer->body_case == MP__ENVELOPE__BODY_LIGHT_ARMED)
            director_light_armed(mesh->director, it.agent, answer->light_armed);
        if (answer->body_case == MP__ENVELOPE__BODY_LIGHT_RESULT) {
            mesh->sent_reports[it.agent]++;
            director_light_result(mesh->director, it.agent, answer->light_result);
        }
    }
    mp__envelope__free_unpacked(answer, NULL);
}

// ------------------------------------------------------------------------------------- fake store

static void fake_report_done(void *ctx, uint32_t agent_id, uint64_t sequence)
{
    struct mesh *mesh = ctx;
    assert_true(sequence > 0 && sequence <= mesh->sequence[agent_id]);
    mesh->done_reports[agent_id]++;
}

static void fake_save_new_run(void *ctx, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
    const uint32_t *agent_ids, const struct cell_place *places)
{
    struct mesh *mesh = ctx;
    (void)agents;
    if (mesh->places)
        return;
    mesh->cells = info->cells;
    mesh->places = zmalloc(info->cells * sizeof *places);
    memcpy(mesh->places, places, info->cells * sizeof *places);
    memcpy(mesh->ids, agent_ids, info->agents * sizeof *agent_ids);
    mesh->info = (Mp__RunInfo *)wire_copy(&info->base);
}

static void fake_save_run(void *ctx, const Mp__RunInfo *info)
{
    struct mesh *mesh = ctx;
    if (mesh->info)
        mp__run_info__free_unpacked(mesh->info, NULL);
    mesh->info = (Mp__RunInfo *)wire_copy(&info->base);
    if (info->state == MP__RUN_STATE__FINISHED || info->state == MP__RUN_STATE__CANCELLED)
        strcpy(mesh->ended, info->id);
}

static void fake_save_cell(void *ctx, const char *run, const Mp__Cell *cell)
{
    struct mesh *mesh = ctx;
    assert_true(mesh->saving_count < CELLS_MAX && cell->index < CELLS_MAX);
    assert_true(cell->state == MP__CELL_STATE__OK || (cell->reason && *cell->reason));
    mesh->saves++;
    mesh->states[cell->index] = cell->state;
    mesh->attempts[cell->index] = cell->attempts;
    free(mesh->reasons[cell->index]);
    mesh->reasons[cell->index] = cell->reason ? strdup(cell->reason) : NULL;
    strcpy(mesh->saving[mesh->saving_count].run, run);
    mesh->saving[mesh->saving_count++].index = cell->index;
}

static void commit(struct mesh *mesh)
{
    size_t count = mesh->saving_count;
    mesh->saving_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (mesh->store_error == 0)
            mesh->commits[mesh->saving[i].index]++;
        director_saved(
            mesh->director, mesh->saving[i].run, mesh->saving[i].index, mesh->store_error);
    }
}

// --------------------------------------------------------------------------------------- the mesh

static void open_director(struct mesh *mesh)
{
    struct director_ops ops = {.ctx = mesh,
        .send = fake_send,
        .report_done = fake_report_done,
        .save_new_run = fake_save_new_run,
        .save_run = fake_save_run,
        .save_cell = fake_save_cell};
    mesh->director = director_new(mesh->registry, &mesh->clock, &ops);
    director_set_epoch(mesh->director, 7);
}

static void add_agent(struct mesh *mesh, uint32_t number)
{
    char name[16];
    uint8_t key[IDENTITY_KEY_SIZE] = {(uint8_t)number, 1};
    snprintf(name, sizeof name, "h%u", number);
    struct agent *agent = registry_add(mesh->registry, number, name, key);
    agent->capabilities = zmalloc(sizeof *agent->capabilities);
    mp__capabilities__init(agent->capabilities);
    agent->capabilities->tcp = agent->capabilities->udp = true;
    agent->capabilities->n_tests = 3;
    agent->capabilities->tests = zmalloc(3 * sizeof(char *));
    agent->capabilities->tests[0] = strdup("tcp");
    agent->capabilities->tests[1] = strdup("udp");
    agent->capabilities->tests[2] = strdup("latency");
    snprintf(agent->addresses[0], sizeof agent->addresses[0], "10.0.0.%u", number);
    agent->address_count = 1;
    agent->data_port = 5701;
    snprintf(agent->boot_id, sizeof agent->boot_id, "boot-%u", number);
    agent->seen_mono_ns = mesh->now_ns;
}

static struct mesh *mesh_new(uint32_t agents)
{
    struct mesh *mesh = zmalloc(sizeof *mesh);
    mesh->now_ns = 1000 * NS_PER_S;
    mesh->clock = (struct clock){fake_now, fake_now, mesh};
    mesh->registry = registry_new();
    mesh->fail_as = MP__OUTCOME__OUTCOME_FAILED;
    for (uint32_t i = 1; i <= agents; i++)
        add_agent(mesh, i);
    open_director(mesh);
    return mesh;
}

static void mesh_free(struct mesh **mesh_p)
{
    struct mesh *mesh = *mesh_p;
    director_destroy(&mesh->director);
    registry_destroy(&mesh->registry);
    for (size_t i = 0; i < mesh->happening_count; i++)
        mp__envelope__free_unpacked(mesh->happenings[i].answer, NULL);
    for (size_t i = 0; i < CELLS_MAX; i++)
        free(mesh->reasons[i]);
    if (mesh->info)
        mp__run_info__free_unpacked(mesh->info, NULL);
    free(mesh->places);
    free(mesh->happenings);
    free(mesh);
    *mesh_p = NULL;
}

static void lose(struct mesh *mesh, uint32_t agent)
{
    registry_by_id(mesh->registry, agent)->lost_mono_ns = mesh->now_ns;
    director_agent_lost(mesh->director, agent);
}

static void come_back(struct mesh *mesh, uint32_t agent, bool fresh)
{
    struct agent *it = registry_by_id(mesh->registry, agent);
    it->lost_mono_ns = 0;
    it->seen_mono_ns = mesh->now_ns;
    director_agent_up(mesh->director, agent, fresh);
}

static size_t next_happening(const struct mesh *mesh)
{
    size_t best = 0;
    for (size_t i = 1; i < mesh->happening_count; i++) {
        const struct happening *a = &mesh->happenings[i], *b = &mesh->happenings[best];
        if (a->due_ns < b->due_ns || (a->due_ns == b->due_ns && a->order < b->order))
            best = i;
    }
    return best;
}

// Lets time pass until the deadline, or until nothing more is going to happen.
static void pass(struct mesh *mesh, int64_t duration_ns)
{
    int64_t until_ns = mesh->now_ns + duration_ns;
    unsigned stuck = 0;
    for (;;) {
        for (struct agent *a = registry_next(mesh->registry, 0); a;
             a = registry_next(mesh->registry, a->id))
            if (agent_connected(a) && !mesh->dead[a->id])
                a->seen_mono_ns = mesh->now_ns;
        int64_t due_ns = director_turn(mesh->director);
        if (mesh->saving_count > 0) {
            commit(mesh);
            // A store that fails tells so once; the director comes again by its own timer.
            continue;
        }
        if (mesh->happening_count > 0) {
            size_t i = next_happening(mesh);
            if (mesh->happenings[i].due_ns <= mesh->now_ns) {
                deliver(mesh, i);
                continue;
            }
            if (mesh->happenings[i].due_ns < due_ns)
                due_ns = mesh->happenings[i].due_ns;
        }
        if (due_ns > until_ns) {
            mesh->now_ns = until_ns;
            return;
        }
        if (due_ns <= mesh->now_ns && ++stuck > 10000)
            fail_msg("the director asks for its turn again and again");
        if (due_ns > mesh->now_ns)
            stuck = 0;
        mesh->now_ns = due_ns > mesh->now_ns ? due_ns : mesh->now_ns;
    }
}

struct ask {
    Mp__TestKind kinds[3];
    size_t count;
    bool bidir, one_way; // one_way: h1 to h2
    Mp__Mode mode;
};

static void start(struct mesh *mesh, const struct ask *ask, char run[DIRECTOR_RUN_ID_SIZE])
{
    Mp__RunRequest request = MP__RUN_REQUEST__INIT;
    Mp__TestSpec specs[3], *list[3];
    struct director_refusal refusal;
    for (size_t i = 0; i < ask->count; i++) {
        mp__test_spec__init(&specs[i]);
        specs[i].kind = ask->kinds[i];
        specs[i].duration_ns = NS_PER_S;
        specs[i].interval_ns = NS_PER_S;
        specs[i].has_bidir = specs[i].bidir = ask->bidir;
        list[i] = &specs[i];
    }
    request.tests = list;
    request.n_tests = ask->count;
    char *from = (char *)"h1", *to = (char *)"h2";
    request.from = &from;
    request.to = &to;
    request.n_from = request.n_to = ask->one_way;
    request.has_mode = ask->mode != 0;
    request.mode = ask->mode;
    if (director_start(mesh->director, &request, "tester", run, &refusal) != 0)
        fail_msg("refused: %s", refusal.text);
}

static const struct ask udp = {.kinds = {MP__TEST_KIND__UDP}, .count = 1};

static uint32_t count_cells(const struct mesh *mesh, Mp__CellState state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < mesh->cells; i++)
        count += mesh->commits[i] == 1 && mesh->states[i] == state;
    return count;
}

static void assert_all_reports_done(const struct mesh *mesh)
{
    for (uint32_t i = 1; i <= AGENTS_MAX; i++)
        assert_int_equal(mesh->done_reports[i], mesh->sent_reports[i]);
}

// ------------------------------------------------------------------------------------------ tests

static void a_complete_mesh_of_50_agents_is_measured_once_near_the_bound(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(50);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, run);
    pass(mesh, 300 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->cells, 2450);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 2450);
    assert_int_equal(mesh->starts, 2450);
    assert_int_equal(mesh->info->ok, 2450);
    assert_true(mesh->info->elapsed_s <= 1.05 * mesh->info->lower_bound_s + 0.2);
    assert_all_reports_done(mesh);
    mesh_free(&mesh);
}

static void the_receivers_report_may_come_first(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->receiver_first = true;
    start(mesh, &udp, run);
    pass(mesh, 60 * NS_PER_S);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 12);
    mesh_free(&mesh);
}

static void bidir_fills_both_cells_with_one_test(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &(struct ask){.kinds = {MP__TEST_KIND__TCP}, .count = 1, .bidir = true}, run);
    pass(mesh, 60 * NS_PER_S);
    assert_int_equal(mesh->starts, 6);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 12);
    assert_all_reports_done(mesh);
    mesh_free(&mesh);
}

static void light_probes_come_first_and_take_one_message_per_agent(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(6);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &(struct ask){.kinds = {MP__TEST_KIND__UDP, MP__TEST_KIND__LATENCY}, .count = 2},
        run);
    pass(mesh, 500 * NS_PER_MS);
    assert_int_equal(mesh->arms, 6);
    assert_int_equal(mesh->prepares, 0);
    pass(mesh, 60 * NS_PER_S);
    assert_int_equal(mesh->arms, 6);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 60);
    assert_int_equal(mesh->places[0].kind, MP__TEST_KIND__LATENCY);
    assert_all_reports_done(mesh);
    mesh_free(&mesh);
}

static void isolated_light_probes_run_pair_by_pair(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh,
        &(struct ask){.kinds = {MP__TEST_KIND__LATENCY}, .count = 1, .mode = MP__MODE__ISOLATED},
        run);
    pass(mesh, 60 * NS_PER_S);
    assert_int_equal(mesh->arms, 24);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 12);
    mesh_free(&mesh);
}

static void a_lost_agents_cells_are_lost_after_30_s_and_all_others_ok(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(5);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, run);
    pass(mesh, 500 * NS_PER_MS);
    lose(mesh, 3);
    pass(mesh, 29 * NS_PER_S);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 12);
    assert_string_equal(mesh->ended, "");
    pass(mesh, 2 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__LOST), 8);
    for (uint32_t i = 0; i < mesh->cells; i++)
        if (mesh->states[i] == MP__CELL_STATE__LOST)
            assert_non_null(strstr(mesh->reasons[i], "h3"));
    assert_all_reports_done(mesh);
    mesh_free(&mesh);
}

static void an_agent_that_comes_back_in_time_costs_no_attempt(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(5);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, run);
    pass(mesh, 500 * NS_PER_MS);
    lose(mesh, 3);
    pass(mesh, 20 * NS_PER_S);
    come_back(mesh, 3, true);
    pass(mesh, 60 * NS_PER_S);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 20);
    for (uint32_t i = 0; i < mesh->cells; i++)
        assert_int_equal(mesh->attempts[i], 1);
    mesh_free(&mesh);
}

static void a_lost_agent_in_a_light_phase_leaves_the_others_alone(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(5);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &(struct ask){.kinds = {MP__TEST_KIND__LATENCY}, .count = 1}, run);
    pass(mesh, 500 * NS_PER_MS);
    lose(mesh, 2);
    pass(mesh, 60 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 12);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__LOST), 8);
    mesh_free(&mesh);
}

static void probes_lost_by_a_dying_reflector_are_no_loss_of_the_path(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &(struct ask){.kinds = {MP__TEST_KIND__LATENCY}, .count = 1}, run);
    pass(mesh, 500 * NS_PER_MS);
    mesh->dead[3] = true; // nobody knows yet: its lease runs for seconds
    pass(mesh, 5 * NS_PER_S);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 9);
    lose(mesh, 3);
    pass(mesh, 40 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 9);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__LOST), 3);
    assert_all_reports_done(mesh);
    mesh_free(&mesh);
}

static void a_removed_agents_cells_are_lost_at_once(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, run);
    pass(mesh, 500 * NS_PER_MS);
    registry_remove(mesh->registry, 2);
    director_agent_removed(mesh->director, 2);
    pass(mesh, 10 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__LOST), 6);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 6);
    mesh_free(&mesh);
}

static void a_drained_agents_remaining_cells_are_skipped(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, run);
    pass(mesh, 500 * NS_PER_MS);
    registry_by_id(mesh->registry, 1)->draining = true;
    director_agent_changed(mesh->director, 1);
    pass(mesh, 20 * NS_PER_S);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__SKIPPED), 5);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 7);
    mesh_free(&mesh);
}

static void a_failure_is_tried_again_once_and_then_said(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->fail_retry = true;
    mesh->fail_next[1] = 1;
    start(mesh, &udp, run);
    pass(mesh, 30 * NS_PER_S);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 2);
    assert_int_equal(mesh->starts, 3);
    mesh->fail_next[1] = 100;
    memset(mesh->commits, 0, sizeof mesh->commits);
    start(mesh, &udp, run);
    pass(mesh, 30 * NS_PER_S);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__FAILED), 2);
    assert_int_equal(mesh->attempts[0], 2);
    assert_non_null(strstr(mesh->reasons[0], "h1 (sender): the test says so"));
    assert_all_reports_done(mesh);
    mesh_free(&mesh);
}

static void what_is_not_worth_a_retry_is_final(void **state)
{
    (void)state;
    static const struct {
        Mp__Outcome outcome;
        Mp__CellState state;
    } examples[] = {{MP__OUTCOME__OUTCOME_FAILED, MP__CELL_STATE__FAILED},
        {MP__OUTCOME__OUTCOME_UNSUPPORTED, MP__CELL_STATE__UNSUPPORTED},
        {MP__OUTCOME__OUTCOME_SKIPPED, MP__CELL_STATE__SKIPPED}};
    for (size_t i = 0; i < 3; i++) {
        struct mesh *mesh = mesh_new(2);
        char run[DIRECTOR_RUN_ID_SIZE];
        mesh->fail_next[2] = 100;
        mesh->fail_as = examples[i].outcome;
        start(mesh, &udp, run);
        pass(mesh, 30 * NS_PER_S);
        assert_int_equal(count_cells(mesh, examples[i].state), 2);
        assert_int_equal(mesh->starts, 2);
        mesh_free(&mesh);
    }
}

static void silence_ends_in_words_and_frees_the_others(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->silent[2] = true;
    start(mesh, &udp, run);
    pass(mesh, 200 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 2);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__FAILED), 4);
    for (uint32_t i = 0; i < mesh->cells; i++)
        if (mesh->states[i] == MP__CELL_STATE__FAILED)
            assert_non_null(strstr(mesh->reasons[i], "h2"));
    assert_true(mesh->stops > 0);
    mesh_free(&mesh);
}

static void a_dead_agents_failed_tests_become_lost_when_its_lease_ends(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    char run[DIRECTOR_RUN_ID_SIZE];
    // h2 dies: h1 sees its connection break, and thinks that no retry would help.
    mesh->dies[2] = true;
    mesh->fail_next[1] = 1;
    start(mesh, &(struct ask){.kinds = {MP__TEST_KIND__UDP}, .count = 1, .one_way = true}, run);
    pass(mesh, 9 * NS_PER_S);
    assert_int_equal(mesh->sent_reports[1], 1);
    assert_int_equal(mesh->saves, 0);
    lose(mesh, 2);
    pass(mesh, 31 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__LOST), 1);
    mesh_free(&mesh);
}

static void a_cancelled_run_stops_its_tests_and_ends(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, run);
    pass(mesh, 1500 * NS_PER_MS);
    assert_int_equal(director_cancel(mesh->director, run), 0);
    pass(mesh, NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->info->state, MP__RUN_STATE__CANCELLED);
    assert_true(mesh->stops >= 4);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 2);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__CELL_CANCELLED), 10);
    assert_int_equal(director_cancel(mesh->director, run), MESH_E_NOT_FOUND);
    pass(mesh, 5 * NS_PER_S);
    assert_all_reports_done(mesh);
    mesh_free(&mesh);
}

static void a_result_that_nobody_asked_for_is_acknowledged(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    Mp__EndReport report = MP__END_REPORT__INIT;
    Mp__Result result = MP__RESULT__INIT;
    result.sequence = mesh->sequence[1] = 1;
    result.test_id = (ProtobufCBinaryData){16, (uint8_t *)"0123456789abcdef"};
    result.report = &report;
    director_result(mesh->director, 1, &result);
    assert_int_equal(mesh->done_reports[1], 1);
    mesh_free(&mesh);
}

static void a_store_that_fails_delays_the_end_but_measures_nothing_twice(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, run);
    mesh->store_error = -ENOSPC;
    director_storage(mesh->director, "the disk is full");
    pass(mesh, 30 * NS_PER_S);
    assert_string_equal(mesh->ended, "");
    assert_int_equal(mesh->starts, 6);
    assert_int_equal(mesh->done_reports[1], 0);
    struct director_refusal refusal;
    Mp__RunRequest request = MP__RUN_REQUEST__INIT;
    assert_int_equal(
        director_start(mesh->director, &request, "tester", run, &refusal), MESH_E_REFUSED);
    assert_int_equal(refusal.code, MP__REFUSED__CODE__STORAGE);
    mesh->store_error = 0;
    director_storage(mesh->director, NULL);
    pass(mesh, 10 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->starts, 6);
    assert_int_equal(count_cells(mesh, MP__CELL_STATE__OK), 6);
    assert_all_reports_done(mesh);
    mesh_free(&mesh);
}

static void a_killed_controllers_run_goes_on_without_measuring_twice(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, run);
    pass(mesh, 2500 * NS_PER_MS);
    uint32_t before = count_cells(mesh, MP__CELL_STATE__OK);
    assert_int_equal(before, 4);
    bool done[12];
    Mp__RunAgent *agents[4], copies[4];
    for (uint32_t i = 0; i < 12; i++)
        done[i] = mesh->commits[i] == 1;
    for (uint32_t i = 0; i < 4; i++) {
        mp__run_agent__init(&copies[i]);
        copies[i].name = registry_by_id(mesh->registry, mesh->ids[i])->name;
        agents[i] = &copies[i];
        registry_by_id(mesh->registry, i + 1)->seen_mono_ns = 0;
        registry_by_id(mesh->registry, i + 1)->lost_mono_ns = mesh->now_ns;
    }
    director_destroy(&mesh->director);
    mesh->saving_count = 0;
    open_director(mesh);
    assert_int_equal(
        director_resume(mesh->director, mesh->info, agents, mesh->ids, mesh->places, done), 0);
    pass(mesh, 5 * NS_PER_S);
    for (uint32_t i = 1; i <= 3; i++)
        come_back(mesh, i, false);
    pass(mesh, 50 * NS_PER_S);
    assert_string_equal(mesh->ended, "");
    pass(mesh, 10 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(mesh->commits[i], 1);
        bool with_4 = mesh->places[i].from == 3 || mesh->places[i].to == 3;
        if (!done[i])
            assert_int_equal(mesh->states[i], with_4 ? MP__CELL_STATE__LOST : MP__CELL_STATE__OK);
    }
    mesh_free(&mesh);
}

static void two_runs_share_hosts_in_order_of_their_start(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    char first[DIRECTOR_RUN_ID_SIZE], second[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, first);
    start(mesh, &udp, second);
    pass(mesh, 500 * NS_PER_MS);
    assert_int_equal(director_info(mesh->director, first)->state, MP__RUN_STATE__RUNNING);
    assert_int_equal(director_info(mesh->director, second)->state, MP__RUN_STATE__QUEUED);
    assert_int_equal(mesh->starts, 1);
    pass(mesh, 20 * NS_PER_S);
    assert_string_equal(mesh->ended, second);
    assert_int_equal(mesh->starts, 4);
    mesh_free(&mesh);
}

static void a_concurrent_run_has_the_mesh_to_itself(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char first[DIRECTOR_RUN_ID_SIZE], second[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, first);
    struct ask all = {.kinds = {MP__TEST_KIND__UDP}, .count = 1, .mode = MP__MODE__CONCURRENT};
    start(mesh, &all, second);
    pass(mesh, 5900 * NS_PER_MS);
    assert_int_equal(director_info(mesh->director, second)->state, MP__RUN_STATE__QUEUED);
    pass(mesh, 3 * NS_PER_S);
    assert_string_equal(mesh->ended, second);
    assert_int_equal(mesh->starts, 24);
    mesh_free(&mesh);
}

static void every_result_is_an_event_and_followers_may_come_late(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    char run[DIRECTOR_RUN_ID_SIZE];
    start(mesh, &udp, run);
    pass(mesh, 10 * NS_PER_S);
    Mp__EventsAnswer answer;
    size_t results = 0;
    for (uint64_t since = 0;; since = answer.next) {
        assert_true(director_events(mesh->director, run, since, 2, &answer));
        assert_false(answer.gap);
        if (answer.n_events == 0)
            break;
        for (size_t i = 0; i < answer.n_events; i++)
            results += answer.events[i]->kind == MP__EVENT__KIND__RESULT;
    }
    assert_int_equal(results, 6);
    assert_int_equal(answer.info->state, MP__RUN_STATE__FINISHED);
    assert_null(director_info(mesh->director, run));
    pass(mesh, 60 * NS_PER_S);
    assert_false(director_events(mesh->director, run, 0, 2, &answer));
    mesh_free(&mesh);
}

static uint32_t draw(uint64_t *random, uint32_t below)
{
    *random = *random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(*random >> 33) % below;
}

static void something_happens(struct mesh *mesh, uint64_t *random, uint32_t agents)
{
    uint32_t agent = 1 + draw(random, agents);
    bool there = agent_connected(registry_by_id(mesh->registry, agent));
    switch (draw(random, 7)) {
    case 0:
        if (there)
            lose(mesh, agent);
        break;
    case 1:
        come_back(mesh, agent, draw(random, 2));
        break;
    case 2:
        mesh->fail_next[agent] = draw(random, 4);
        mesh->fail_as = (Mp__Outcome)(1 + draw(random, 4));
        mesh->fail_retry = draw(random, 2);
        break;
    case 3:
        mesh->silent[agent] = !mesh->silent[agent];
        break;
    case 4:
        mesh->receiver_first = !mesh->receiver_first;
        break;
    case 5:
        // Its loss is not known yet: sending fails first.
        registry_by_id(mesh->registry, agent)->lost_mono_ns = mesh->now_ns;
        pass(mesh, NS_PER_S);
        director_agent_lost(mesh->director, agent);
        break;
    default:
        mesh->store_error = mesh->store_error ? 0 : -ENOSPC;
        director_storage(mesh->director, mesh->store_error ? "full" : NULL);
    }
}

// Whatever agents and the store do, each cell ends once and nobody waits for ever.
static void chaos_ends(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        uint64_t random = seed;
        uint32_t agents = 2 + draw(&random, 6);
        struct mesh *mesh = mesh_new(agents);
        struct ask ask = {.kinds = {MP__TEST_KIND__UDP, MP__TEST_KIND__LATENCY}};
        char run[DIRECTOR_RUN_ID_SIZE];
        ask.count = 1 + draw(&random, 2);
        ask.bidir = ask.count == 1 && draw(&random, 2);
        ask.mode = (Mp__Mode)draw(&random, 4);
        start(mesh, &ask, run);
        for (int i = 0; i < 30; i++) {
            pass(mesh, draw(&random, 3000) * NS_PER_MS);
            something_happens(mesh, &random, agents);
        }
        if (draw(&random, 4) == 0)
            (void)!director_cancel(mesh->director, run);
        mesh->store_error = 0;
        director_storage(mesh->director, NULL);
        pass(mesh, 3600 * NS_PER_S);
        if (strcmp(mesh->ended, run) != 0)
            fail_msg("seed %llu: the run does not end", (unsigned long long)seed);
        for (uint32_t i = 0; i < mesh->cells; i++)
            if (mesh->commits[i] != 1)
                fail_msg("seed %llu: cell %u has %u commits", (unsigned long long)seed, i,
                    mesh->commits[i]);
        assert_all_reports_done(mesh);
        for (uint32_t i = 1; i <= agents; i++)
            assert_false(director_agent_busy(mesh->director, i));
        mesh_free(&mesh);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_complete_mesh_of_50_agents_is_measured_once_near_the_bound),
        cmocka_unit_test(the_receivers_report_may_come_first),
        cmocka_unit_test(bidir_fills_both_cells_with_one_test),
        cmocka_unit_test(light_probes_come_first_and_take_one_message_per_agent),
        cmocka_unit_test(isolated_light_probes_run_pair_by_pair),
        cmocka_unit_test(a_lost_agents_cells_are_lost_after_30_s_and_all_others_ok),
        cmocka_unit_test(an_agent_that_comes_back_in_time_costs_no_attempt),
        cmocka_unit_test(a_lost_agent_in_a_light_phase_leaves_the_others_alone),
        cmocka_unit_test(probes_lost_by_a_dying_reflector_are_no_loss_of_the_path),
        cmocka_unit_test(a_removed_agents_cells_are_lost_at_once),
        cmocka_unit_test(a_drained_agents_remaining_cells_are_skipped),
        cmocka_unit_test(a_failure_is_tried_again_once_and_then_said),
        cmocka_unit_test(what_is_not_worth_a_retry_is_final),
        cmocka_unit_test(silence_ends_in_words_and_frees_the_others),
        cmocka_unit_test(a_dead_agents_failed_tests_become_lost_when_its_lease_ends),
        cmocka_unit_test(a_cancelled_run_stops_its_tests_and_ends),
        cmocka_unit_test(a_result_that_nobody_asked_for_is_acknowledged),
        cmocka_unit_test(a_store_that_fails_delays_the_end_but_measures_nothing_twice),
        cmocka_unit_test(a_killed_controllers_run_goes_on_without_measuring_twice),
        cmocka_unit_test(two_runs_share_hosts_in_order_of_their_start),
        cmocka_unit_test(a_concurrent_run_has_the_mesh_to_itself),
        cmocka_unit_test(every_result_is_an_event_and_followers_may_come_late),
        cmocka_unit_test(chaos_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
