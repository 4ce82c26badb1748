// The calls of director.h, changes of agents, and the turn that works everything off.

#include "director_parts.h"

#include <sodium.h>

#include "errors.h"

// ------------------------------------------------------------------------------------------- life

director_t *director_new(
    registry_t *registry, const struct clock *clock, const struct director_ops *ops)
{
    director_t *self = zmalloc(sizeof *self);
    if (sodium_init() < 0)
        abort();
    self->registry = registry;
    self->clock = clock;
    self->ops = *ops;
    self->timers = timers_new(clock);
    self->ledger = ledger_new();
    self->next_run = 1;
    self->started_mono_ns = clock_mono(clock);
    self->runs = zlistx_new();
    self->tests = zhashx_new();
    self->batches = zhashx_new();
    mp__cell__init(&self->scratch);
    return self;
}

void director_destroy(director_t **self_p)
{
    director_t *self = *self_p;
    if (!self)
        return;
    for (struct run *run; (run = zlistx_first(self->runs));) {
        zlistx_detach(self->runs, zlistx_cursor(self->runs));
        run_destroy(&run);
    }
    zlistx_destroy(&self->runs);
    zhashx_destroy(&self->tests);
    zhashx_destroy(&self->batches);
    timers_destroy(&self->timers);
    ledger_destroy(&self->ledger);
    for (size_t i = 0; i < self->host_room; i++)
        free(self->hosts[i]);
    free(self->hosts);
    free(self->changes);
    free(self->trouble);
    free(self->answer);
    free(self);
    *self_p = NULL;
}

void director_set_epoch(director_t *self, uint64_t epoch)
{
    self->epoch = epoch;
}

void director_set_next_run(director_t *self, uint64_t number)
{
    if (number > self->next_run)
        self->next_run = number;
}

struct host *director_host(director_t *self, uint32_t agent_id)
{
    if (agent_id >= self->host_room) {
        size_t room = self->host_room ? self->host_room : 64;
        while (room <= agent_id)
            room *= 2;
        self->hosts = realloc(self->hosts, room * sizeof *self->hosts);
        if (!self->hosts)
            abort();
        memset(self->hosts + self->host_room, 0, (room - self->host_room) * sizeof *self->hosts);
        self->host_room = room;
    }
    if (!self->hosts[agent_id]) {
        self->hosts[agent_id] = zmalloc(sizeof(struct host));
        self->hosts[agent_id]->agent_id = agent_id;
        self->hosts[agent_id]->ledger = ledger_host(self->ledger, agent_id);
    }
    return self->hosts[agent_id];
}

void id_text(const uint8_t id[ID_SIZE], char text[ID_TEXT_SIZE])
{
    sodium_bin2hex(text, ID_TEXT_SIZE, id, ID_SIZE);
}

void director_stop(director_t *self, uint32_t agent_id, const uint8_t id[ID_SIZE], const char *why)
{
    Mp__Stop stop = MP__STOP__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    char text[256];
    snprintf(text, sizeof text, "%s", why);
    stop.test_id = (ProtobufCBinaryData){ID_SIZE, (uint8_t *)id};
    stop.reason = text;
    envelope.body_case = MP__ENVELOPE__BODY_STOP;
    envelope.stop = &stop;
    (void)!self->ops.send(self->ops.ctx, agent_id, &envelope);
}

// ------------------------------------------------------------------------------------------- runs

struct run *director_run(director_t *self, const char *run_id)
{
    for (struct run *run = zlistx_first(self->runs); run; run = zlistx_next(self->runs))
        if (strcmp(run->info->id, run_id) == 0)
            return run;
    return NULL;
}

static struct run *run_active(director_t *self, const char *run_id)
{
    struct run *run = director_run(self, run_id);
    return run && !run->ended ? run : NULL;
}

void director_resume_cell(director_t *self, const char *run_id, const Mp__Cell *cell)
{
    struct run *run = run_active(self, run_id);
    if (run)
        again_restore(run, cell);
}

int director_cancel(director_t *self, const char *run_id)
{
    struct run *run = run_active(self, run_id);
    if (!run)
        return MESH_E_NOT_FOUND;
    run_cancel(run);
    return 0;
}

// ------------------------------------------------------------------------------------ from agents

static struct test *test_find(director_t *self, const ProtobufCBinaryData *id)
{
    char text[ID_TEXT_SIZE];
    if (id->len != ID_SIZE)
        return NULL;
    id_text(id->data, text);
    return zhashx_lookup(self->tests, text);
}

static struct batch *batch_find(director_t *self, const ProtobufCBinaryData *id)
{
    char text[ID_TEXT_SIZE];
    if (id->len != ID_SIZE)
        return NULL;
    id_text(id->data, text);
    return zhashx_lookup(self->batches, text);
}

void director_ready(director_t *self, uint32_t agent_id, const Mp__Ready *ready)
{
    struct test *test = test_find(self, &ready->test_id);
    if (test)
        test_ready(test, agent_id);
}

void director_progress(director_t *self, uint32_t agent_id, const Mp__Progress *progress)
{
    struct test *test = test_find(self, &progress->test_id);
    if (!test || !test_has(test, agent_id))
        return;
    // With bidir each end reports what it receives.
    uint32_t cell = test->back != NO_CELL && agent_id == test->ends[0] ? test->back : test->cell;
    events_interval(test->run, cell, progress->interval);
}

void director_result(director_t *self, uint32_t agent_id, const Mp__Result *result)
{
    struct test *test = test_find(self, &result->test_id);
    if (test)
        test_result(test, agent_id, result);
    else
        self->ops.report_done(self->ops.ctx, agent_id, result->sequence);
}

void director_light_armed(director_t *self, uint32_t agent_id, const Mp__LightArmed *armed)
{
    struct batch *batch = batch_find(self, &armed->batch);
    if (batch)
        batch_armed(batch, agent_id, armed);
}

void director_light_opened(director_t *self, uint32_t agent_id, const Mp__LightOpened *opened)
{
    struct batch *batch = batch_find(self, &opened->batch);
    if (batch)
        batch_opened(batch, agent_id, opened);
}

void director_light_result(director_t *self, uint32_t agent_id, const Mp__LightResult *result)
{
    struct batch *batch = batch_find(self, &result->batch);
    if (!batch || !batch_result(batch, agent_id, result))
        self->ops.report_done(self->ops.ctx, agent_id, result->sequence);
}

// --------------------------------------------------------------------------------- agents' changes

// Noted now, worked off in the turn: sending may itself find that an agent is gone.
static void change_add(director_t *self, uint32_t agent_id, enum change what)
{
    if (self->change_count == self->change_room) {
        self->change_room = self->change_room ? 2 * self->change_room : 64;
        self->changes = realloc(self->changes, self->change_room * sizeof *self->changes);
        if (!self->changes)
            abort();
    }
    self->changes[self->change_count++] = (struct agent_change){agent_id, what};
}

void director_agent_up(director_t *self, uint32_t agent_id, bool fresh)
{
    change_add(self, agent_id, fresh ? CHANGE_FRESH : CHANGE_UP);
}

void director_agent_lost(director_t *self, uint32_t agent_id)
{
    change_add(self, agent_id, CHANGE_LOST);
}

void director_agent_removed(director_t *self, uint32_t agent_id)
{
    change_add(self, agent_id, CHANGE_REMOVED);
}

void director_agent_changed(director_t *self, uint32_t agent_id)
{
    change_add(self, agent_id, CHANGE_CHANGED);
}

static void changes_work_off(director_t *self)
{
    for (size_t i = 0; i < self->change_count; i++) {
        struct agent_change change = self->changes[i];
        struct host *host = director_host(self, change.agent_id);
        if (change.what == CHANGE_UP || change.what == CHANGE_FRESH)
            host->unreachable = false;
        // Copied: handling a change may call us back through the server.
        size_t count = zlistx_size(self->runs), n = 0;
        struct run **runs = zmalloc((count + 1) * sizeof *runs);
        for (struct run *run = zlistx_first(self->runs); run; run = zlistx_next(self->runs))
            runs[n++] = run;
        for (size_t r = 0; r < n; r++)
            run_agent_changed(runs[r], change.agent_id, change.what);
        free(runs);
    }
    self->change_count = 0;
}

// ------------------------------------------------------------------------------------- the store

void director_saved(director_t *self, const char *run_id, uint32_t cell_index, int error)
{
    struct run *run = run_active(self, run_id);
    if (run)
        run_saved(run, cell_index, error);
}

void director_storage(director_t *self, const char *trouble)
{
    char *copy = trouble ? strdup(trouble) : NULL;
    free(self->trouble);
    self->trouble = copy;
}

// --------------------------------------------------------------------------------------- the turn

static void run_forget(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    struct run *run = arg;
    director_t *self = run->director;
    run->end_timer = 0;
    for (struct run *each = zlistx_first(self->runs); each; each = zlistx_next(self->runs)) {
        if (each != run)
            continue;
        zlistx_detach(self->runs, zlistx_cursor(self->runs));
        break;
    }
    run_destroy(&run);
}

static bool runs_turn(director_t *self)
{
    unsigned starts_left = STARTS_A_TURN;
    bool may_start = true, again = false;
    size_t count = zlistx_size(self->runs), n = 0;
    struct run **runs = zmalloc((count + 1) * sizeof *runs);
    for (struct run *run = zlistx_first(self->runs); run; run = zlistx_next(self->runs))
        runs[n++] = run;
    for (size_t i = 0; i < n; i++) {
        unsigned none = 0;
        if (runs[i]->ended)
            continue;
        bool goes_on = run_turn(runs[i], may_start ? &starts_left : &none);
        may_start = may_start && goes_on;
        if (runs[i]->ended)
            runs[i]->end_timer = timers_after(self->timers, LINGER_NS, run_forget, runs[i]);
        again = again ||
                (runs[i]->dirty && !zlistx_size(runs[i]->tests) && !zlistx_size(runs[i]->batches) &&
                    !runs[i]->ended && runs[i]->phase == NO_PHASE);
    }
    free(runs);
    return starts_left == 0 || again;
}

int64_t director_turn(director_t *self)
{
    changes_work_off(self);
    timers_run(self->timers);
    bool more = false;
    for (int round = 0; round < 8; round++) {
        more = runs_turn(self);
        if (!more)
            break;
    }
    if (more || self->change_count > 0)
        return clock_mono(self->clock);
    int wait_ms = timers_wait_ms(self->timers);
    return wait_ms < 0 ? INT64_MAX : clock_mono(self->clock) + wait_ms * NS_PER_MS;
}

// -------------------------------------------------------------------------------------- questions

const Mp__RunInfo *director_info(director_t *self, const char *run_id)
{
    struct run *run = run_active(self, run_id);
    if (!run)
        return NULL;
    run_refresh(run);
    return run->info;
}

size_t director_active(director_t *self, const Mp__RunInfo **infos, size_t room)
{
    size_t count = 0;
    for (struct run *run = zlistx_first(self->runs); run && count < room;
         run = zlistx_next(self->runs)) {
        if (run->ended)
            continue;
        run_refresh(run);
        infos[count++] = run->info;
    }
    return count;
}

bool director_agent_busy(director_t *self, uint32_t agent_id)
{
    return agent_id < self->host_room && self->hosts[agent_id] && self->hosts[agent_id]->tests > 0;
}

uint64_t director_tests_done(const director_t *self)
{
    return self->tests_done;
}

const Mp__Cell *director_cell(director_t *self, const char *run_id, uint32_t index)
{
    struct run *run = run_active(self, run_id);
    if (!run || index >= run->cell_count)
        return NULL;
    const struct cell_state *state = &run->cells[index];
    const struct cell_place *place = &run->places[index];
    if (state->step == CELL_COMMITTED)
        return NULL;
    if (state->step == CELL_FINAL)
        return state->final->cell;
    mp__cell__init(&self->scratch);
    self->scratch.index = index;
    self->scratch.kind = (Mp__TestKind)place->kind;
    self->scratch.from = place->from;
    self->scratch.to = place->to;
    self->scratch.has_phase = true;
    self->scratch.phase = place->phase;
    self->scratch.state =
        state->step == CELL_RUNS ? MP__CELL_STATE__CELL_RUNNING : MP__CELL_STATE__PENDING;
    self->scratch.port = run_port(run, place) ? run->info->ports[place->port] : NULL;
    self->scratch.has_attempts = state->attempts > 0;
    self->scratch.attempts = state->attempts;
    return &self->scratch;
}

bool director_events(
    director_t *self, const char *run_id, uint64_t since, uint32_t limit, Mp__EventsAnswer *answer)
{
    struct run *run = director_run(self, run_id);
    if (!run)
        return false;
    events_answer(run, since, limit, answer);
    return true;
}
