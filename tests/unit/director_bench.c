#include "director_bench.h"

#include "errors.h"
#include "meshtest.h"
#include "wire.h"

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
    if (ticket->sends) {
        report->send = send;
        send->has_busy = mesh->network;
        send->busy = 1;
    }
    if (ticket->receives) {
        report->receive = receive;
        receive->has_bandwidth_bps = true;
        receive->bandwidth_bps =
            mesh->bps_count ? mesh->bps[mesh->bps_next++ % mesh->bps_count] : 1e6;
        if (mesh->streams > 1)
            receive->bandwidth_bps *= mesh->gain;
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
    mesh->streams = start->spec->has_parallel ? start->spec->parallel : 1;
    mesh->many += mesh->streams > 1;
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

// --------------------------------------------------------------------------------- ports

static void happen_opened(struct mesh *mesh, uint32_t agent, const Mp__LightArm *arm)
{
    Mp__LightOpened opened = MP__LIGHT_OPENED__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.version = 1;
    opened.batch = arm->batch;
    opened.services = zmalloc((arm->n_peers + 1) * sizeof *opened.services);
    for (size_t i = 0; i < arm->n_peers && mesh->service; i++)
        if (!arm->peers[i]->probes)
            opened.services[opened.n_services++] = arm->peers[i]->test_id;
    envelope.body_case = MP__ENVELOPE__BODY_LIGHT_OPENED;
    envelope.light_opened = &opened;
    happen(mesh, agent, NS_PER_MS, &envelope);
    free(opened.services);
    if (mesh->dies[agent])
        mesh->silent[agent] = mesh->dead[agent] = true;
}

// The findings of one end, after a while.
static void happen_found(struct mesh *mesh, uint32_t agent, const Mp__LightArm *arm, bool far)
{
    Mp__LightResult result = MP__LIGHT_RESULT__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.version = 1;
    Mp__LightOutcome *outcomes = zmalloc((arm->n_peers + 1) * sizeof *outcomes);
    result.outcomes = zmalloc((arm->n_peers + 1) * sizeof *result.outcomes);
    for (size_t i = 0; i < arm->n_peers; i++) {
        Mp__LightOutcome *outcome = &outcomes[result.n_outcomes];
        if (arm->peers[i]->probes == far)
            continue;
        mp__light_outcome__init(outcome);
        outcome->test_id = arm->peers[i]->test_id;
        outcome->outcome = MP__OUTCOME__OUTCOME_OK;
        outcome->has_far = outcome->far = far;
        outcome->has_observed = !far;
        outcome->observed = mesh->observed;
        outcome->has_arrived = outcome->has_listener = far;
        outcome->arrived = MP__ARRIVED__ARRIVED_NO;
        outcome->listener = MP__LISTENER__LISTENER_AGENT;
        result.outcomes[result.n_outcomes++] = outcome;
    }
    result.batch = arm->batch;
    result.sequence = ++mesh->sequence[agent];
    result.parts = 1;
    envelope.body_case = MP__ENVELOPE__BODY_LIGHT_RESULT;
    envelope.light_result = &result;
    if (result.n_outcomes > 0)
        happen(mesh, agent, far ? NS_PER_MS : NS_PER_S, &envelope);
    else
        mesh->sequence[agent]--;
    if (!far && result.n_outcomes > mesh->most_probes)
        mesh->most_probes = (uint32_t)result.n_outcomes;
    free(result.outcomes);
    free(outcomes);
}

// True if it was of ports.
static bool on_ports(struct mesh *mesh, uint32_t agent, Mp__Envelope *seen)
{
    Mp__Envelope **kept = &mesh->port_arms[agent];
    if (seen->body_case == MP__ENVELOPE__BODY_LIGHT_ARM &&
        seen->light_arm->spec->kind == MP__TEST_KIND__PORT) {
        Mp__LightArmed armed = MP__LIGHT_ARMED__INIT;
        Mp__Envelope envelope = MP__ENVELOPE__INIT;
        wire_free(kept);
        *kept = (Mp__Envelope *)wire_copy(&seen->base);
        assert_int_equal(seen->light_arm->parts, 1);
        envelope.version = 1;
        armed.batch = seen->light_arm->batch;
        envelope.body_case = MP__ENVELOPE__BODY_LIGHT_ARMED;
        envelope.light_armed = &armed;
        happen(mesh, agent, NS_PER_MS, &envelope);
        return true;
    }
    bool known = *kept && (seen->body_case == MP__ENVELOPE__BODY_LIGHT_GO ||
                              seen->body_case == MP__ENVELOPE__BODY_LIGHT_CLOSE);
    if (!known)
        return false;
    const Mp__LightArm *arm = (*kept)->light_arm;
    if (seen->body_case == MP__ENVELOPE__BODY_LIGHT_CLOSE) {
        mesh->closes++;
        happen_found(mesh, agent, arm, true);
    } else if (seen->light_go->has_open && seen->light_go->open) {
        mesh->opens++;
        happen_opened(mesh, agent, arm);
    } else {
        mesh->goes++;
        mesh->told_services += (uint32_t)seen->light_go->n_services;
        happen_found(mesh, agent, arm, false);
    }
    return true;
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
    if (!silent && on_ports(mesh, agent_id, seen)) {
        wire_free(&seen);
        return 0;
    }
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
        if (answer->body_case == MP__ENVELOPE__BODY_LIGHT_OPENED)
            director_light_opened(mesh->director, it.agent, answer->light_opened);
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
    assert_true(cell->state == MP__CELL_STATE__OK || cell->state == MP__CELL_STATE__PENDING ||
                (cell->reason && *cell->reason));
    if (mesh->kept[cell->index])
        mp__cell__free_unpacked(mesh->kept[cell->index], NULL);
    mesh->kept[cell->index] = (Mp__Cell *)wire_copy(&cell->base);
    mesh->saves++;
    mesh->states[cell->index] = cell->state;
    mesh->attempts[cell->index] = cell->attempts;
    free(mesh->reasons[cell->index]);
    mesh->reasons[cell->index] = cell->reason ? strdup(cell->reason) : NULL;
    strcpy(mesh->saving[mesh->saving_count].run, run);
    mesh->saving[mesh->saving_count].counter =
        cell->state == MP__CELL_STATE__PENDING ? &mesh->partial[cell->index]
        : cell->recheck || cell->flow_check    ? &mesh->again[cell->index]
                                               : &mesh->commits[cell->index];
    mesh->saving[mesh->saving_count++].index = cell->index;
}

static void commit(struct mesh *mesh)
{
    size_t count = mesh->saving_count;
    mesh->saving_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (mesh->store_error == 0)
            (*mesh->saving[i].counter)++;
        director_saved(
            mesh->director, mesh->saving[i].run, mesh->saving[i].index, mesh->store_error);
    }
}

// --------------------------------------------------------------------------------------- the mesh

void mesh_open_director(struct mesh *mesh)
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
    agent->capabilities->n_tests = 4;
    agent->capabilities->tests = zmalloc(4 * sizeof(char *));
    agent->capabilities->tests[3] = strdup("port");
    agent->capabilities->tests[0] = strdup("tcp");
    agent->capabilities->tests[1] = strdup("udp");
    agent->capabilities->tests[2] = strdup("latency");
    snprintf(agent->addresses[0], sizeof agent->addresses[0], "10.0.0.%u", number);
    agent->address_count = 1;
    agent->data_port = 5701;
    snprintf(agent->boot_id, sizeof agent->boot_id, "boot-%u", number);
    agent->seen_mono_ns = mesh->now_ns;
}

struct mesh *mesh_new(uint32_t agents)
{
    struct mesh *mesh = zmalloc(sizeof *mesh);
    mesh->now_ns = 1000 * NS_PER_S;
    mesh->clock = (struct clock){fake_now, fake_now, mesh};
    mesh->registry = registry_new();
    mesh->fail_as = MP__OUTCOME__OUTCOME_FAILED;
    for (uint32_t i = 1; i <= agents; i++)
        add_agent(mesh, i);
    mesh_open_director(mesh);
    return mesh;
}

void mesh_free(struct mesh **mesh_p)
{
    struct mesh *mesh = *mesh_p;
    director_destroy(&mesh->director);
    registry_destroy(&mesh->registry);
    for (size_t i = 0; i < mesh->happening_count; i++)
        mp__envelope__free_unpacked(mesh->happenings[i].answer, NULL);
    for (size_t i = 0; i <= AGENTS_MAX; i++)
        wire_free(&mesh->port_arms[i]);
    for (size_t i = 0; i < CELLS_MAX; i++)
        free(mesh->reasons[i]);
    for (size_t i = 0; i < CELLS_MAX; i++)
        if (mesh->kept[i])
            mp__cell__free_unpacked(mesh->kept[i], NULL);
    if (mesh->info)
        mp__run_info__free_unpacked(mesh->info, NULL);
    free(mesh->places);
    free(mesh->happenings);
    free(mesh);
    *mesh_p = NULL;
}

void mesh_lose(struct mesh *mesh, uint32_t agent)
{
    registry_by_id(mesh->registry, agent)->lost_mono_ns = mesh->now_ns;
    director_agent_lost(mesh->director, agent);
}

void mesh_come_back(struct mesh *mesh, uint32_t agent, bool fresh)
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
void mesh_pass(struct mesh *mesh, int64_t duration_ns)
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

void mesh_start(struct mesh *mesh, const struct ask *ask, char run[DIRECTOR_RUN_ID_SIZE])
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
    request.has_passes = ask->passes > 0;
    request.passes = ask->passes;
    request.has_flow_check = request.flow_check = ask->flow_check;
    if (director_start(mesh->director, &request, "tester", run, &refusal) != 0)
        fail_msg("refused: %s", refusal.text);
}

uint32_t mesh_count(const struct mesh *mesh, Mp__CellState state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < mesh->cells; i++)
        count += mesh->commits[i] == 1 && mesh->states[i] == state;
    return count;
}

void mesh_assert_reports_done(const struct mesh *mesh)
{
    for (uint32_t i = 1; i <= AGENTS_MAX; i++)
        assert_int_equal(mesh->done_reports[i], mesh->sent_reports[i]);
}
