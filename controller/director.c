// The calls of director.h, changes of agents, and the turn that works everything off.

#include "director_parts.h"

#include <sodium.h>

#include "errors.h"
#include "log.h"
#include "wire.h"

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

static struct run *run_find(director_t *self, const char *run_id)
{
    for (struct run *run = zlistx_first(self->runs); run; run = zlistx_next(self->runs))
        if (strcmp(run->info->id, run_id) == 0)
            return run;
    return NULL;
}

static struct run *run_active(director_t *self, const char *run_id)
{
    struct run *run = run_find(self, run_id);
    return run && !run->ended ? run : NULL;
}

static size_t active_count(director_t *self)
{
    size_t count = 0;
    for (struct run *run = zlistx_first(self->runs); run; run = zlistx_next(self->runs))
        count += !run->ended;
    return count;
}

struct notes {
    char *texts[8];
    size_t count;
};

static void note(struct notes *notes, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(struct notes *notes, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (vasprintf(&notes->texts[notes->count], format, args) < 0)
        abort();
    notes->count++;
    va_end(args);
}

static struct notes notes_of(const struct plan *plan, const Mp__RunRequest *request)
{
    struct notes notes = {0};
    size_t lost = 0, draining = 0;
    for (size_t i = 0; i < plan->agent_count; i++) {
        lost += !agent_connected(plan->agents[i]);
        draining += plan->agents[i]->draining;
    }
    if (lost)
        note(&notes, "%zu of the selected agents %s lost", lost, lost == 1 ? "is" : "are");
    if (draining)
        note(&notes, "%zu of the selected agents %s drained: skipped", draining,
            draining == 1 ? "is" : "are");
    if (request->has_mode && request->mode == MP__MODE__CONCURRENT)
        note(&notes, "mode concurrent: agents of one machine are treated as separate hosts");
    else if (plan->options.machines_ignore)
        note(&notes, "machines are ignored: agents of one machine are treated as separate hosts");
    for (size_t p = 0; p < plan->options.phase_count; p++)
        if (plan->options.phases[p].spec.until > 0) {
            note(&notes, "--until: a test may end before its time; times are as if none did");
            break;
        }
    return notes;
}

static void notes_free(struct notes *notes)
{
    for (size_t i = 0; i < notes->count; i++)
        free(notes->texts[i]);
}

static int plan_make(director_t *self, const Mp__RunRequest *request,
    const struct plan_cells *cells, struct plan *plan, struct director_refusal *refusal)
{
    return cells ? planner_plan_cells(self->registry, request, cells, plan, refusal)
                 : planner_plan(self->registry, request, plan, refusal);
}

int director_plan(director_t *self, const Mp__RunRequest *request, Mp__PlanAnswer *answer,
    struct director_refusal *refusal)
{
    return director_plan_cells(self, request, NULL, answer, refusal);
}

int director_plan_cells(director_t *self, const Mp__RunRequest *request,
    const struct plan_cells *cells, Mp__PlanAnswer *answer, struct director_refusal *refusal)
{
    struct plan plan;
    struct forecast forecast;
    int rc = plan_make(self, request, cells, &plan, refusal);
    if (rc != 0)
        return rc;
    planner_forecast(&plan, &forecast);
    struct notes notes = notes_of(&plan, request);
    if (forecast.rechecks)
        note(&notes, "%u cell%s measured again alone afterwards, in about %.1f s",
            forecast.rechecks, forecast.rechecks == 1 ? " is" : "s are", forecast.recheck_s);
    mp__plan_answer__init(answer);
    answer->pairs = plan.pairs;
    answer->tests = forecast.tests;
    answer->bytes_max = forecast.bytes_max;
    answer->expected_s = forecast.expected_s;
    answer->expected_p95_s = forecast.expected_p95_s;
    answer->lower_bound_s = forecast.lower_bound_s;
    answer->bound_by = strdup(forecast.bound_by);
    answer->has_unbounded_bytes = true;
    answer->unbounded_bytes = forecast.unbounded_bytes;
    answer->n_notes = notes.count;
    answer->notes = zmalloc((notes.count + 1) * sizeof *answer->notes);
    memcpy(answer->notes, notes.texts, notes.count * sizeof *answer->notes);
    planner_release(&plan);
    return 0;
}

void director_plan_release(Mp__PlanAnswer *answer)
{
    for (size_t i = 0; i < answer->n_notes; i++)
        free(answer->notes[i]);
    free(answer->notes);
    free(answer->bound_by);
    mp__plan_answer__init(answer);
}

static Mp__RunAgent *run_agent_new(const struct agent *agent)
{
    Mp__RunAgent *made = zmalloc(sizeof *made);
    mp__run_agent__init(made);
    made->name = strdup(agent->name);
    made->addresses = zmalloc(2 * sizeof *made->addresses);
    for (size_t i = 0; i < agent->address_count && i < 2; i++)
        if (*agent->addresses[i])
            made->addresses[made->n_addresses++] = strdup(agent->addresses[i]);
    if (made->n_addresses)
        made->address = strdup(made->addresses[0]);
    made->has_target = made->target = agent->target;
    made->labels = zmalloc((agent->label_count + 1) * sizeof *made->labels);
    for (size_t i = 0; i < agent->label_count; i++) {
        Mp__Label *label = zmalloc(sizeof *label);
        mp__label__init(label);
        label->key = strdup(agent->labels[i].key);
        label->value = strdup(agent->labels[i].value);
        made->labels[made->n_labels++] = label;
    }
    if (*agent->boot_id)
        made->boot_id = strdup(agent->boot_id);
    if (*agent->software)
        made->software = strdup(agent->software);
    const Mp__Capabilities *can = agent->capabilities;
    if (can && can->kernel)
        made->kernel = strdup(can->kernel);
    if (can && can->has_cores) {
        made->has_cores = true;
        made->cores = can->cores;
    }
    return made;
}

static void save_new_run(director_t *self, const struct run *run, const struct plan *plan)
{
    Mp__RunAgent **agents = zmalloc((plan->agent_count + 1) * sizeof *agents);
    uint32_t *ids = zmalloc((plan->agent_count + 1) * sizeof *ids);
    for (size_t i = 0; i < plan->agent_count; i++) {
        agents[i] = run_agent_new(plan->agents[i]);
        ids[i] = plan->agents[i]->id;
    }
    self->ops.save_new_run(self->ops.ctx, run->info, agents, ids, plan->places);
    for (size_t i = 0; i < plan->agent_count; i++)
        mp__run_agent__free_unpacked(agents[i], NULL);
    free(agents);
    free(ids);
}

static struct run *run_from_plan(director_t *self, const Mp__RunRequest *request, const char *by,
    const struct plan *plan, struct notes *notes)
{
    Mp__RunInfo info = MP__RUN_INFO__INIT;
    char id[DIRECTOR_RUN_ID_SIZE];
    snprintf(id, sizeof id, "r-%llu", (unsigned long long)self->next_run++);
    info.id = id;
    info.state = MP__RUN_STATE__QUEUED;
    info.created_wall_ns = clock_wall(self->clock);
    info.request = (Mp__RunRequest *)request;
    info.by = (char *)by;
    info.agents = (uint32_t)plan->agent_count;
    info.cells = (uint32_t)plan->place_count;
    info.notes = notes->texts;
    info.n_notes = notes->count;
    char(*texts)[PORT_TEXT_SIZE] = zmalloc((plan->port_count + 1) * sizeof *texts);
    info.ports = zmalloc((plan->port_count + 1) * sizeof *info.ports);
    for (; info.n_ports < plan->port_count; info.n_ports++)
        info.ports[info.n_ports] = port_format(&plan->ports[info.n_ports], texts[info.n_ports]);
    struct run *run = run_new(self, &info, &plan->options, plan->places);
    free(info.ports);
    free(texts);
    for (uint32_t i = 0; i < plan->agent_count; i++) {
        const struct agent *agent = plan->agents[i];
        char *addresses[2] = {(char *)agent->addresses[0], (char *)agent->addresses[1]};
        if (agent->target)
            run_set_target(run, i, agent->name, addresses, agent->address_count);
        else
            run_set_agent(run, i, agent->name, agent->id);
    }
    return run;
}

int director_start(director_t *self, const Mp__RunRequest *request, const char *by,
    char run_id[DIRECTOR_RUN_ID_SIZE], struct director_refusal *refusal)
{
    return director_start_cells(self, request, NULL, by, run_id, refusal);
}

int director_start_cells(director_t *self, const Mp__RunRequest *request,
    const struct plan_cells *cells, const char *by, char run_id[DIRECTOR_RUN_ID_SIZE],
    struct director_refusal *refusal)
{
    struct plan plan;
    struct forecast forecast;
    if (self->trouble) {
        refusal->code = MP__REFUSED__CODE__STORAGE;
        snprintf(refusal->text, sizeof refusal->text, "no new runs: %.400s", self->trouble);
        return MESH_E_REFUSED;
    }
    if (active_count(self) >= DIRECTOR_RUNS_MAX) {
        refusal->code = MP__REFUSED__CODE__BUSY;
        snprintf(
            refusal->text, sizeof refusal->text, "%d runs are active already", DIRECTOR_RUNS_MAX);
        return MESH_E_FULL;
    }
    int rc = plan_make(self, request, cells, &plan, refusal);
    if (rc != 0)
        return rc;
    planner_forecast(&plan, &forecast);
    struct notes notes = notes_of(&plan, request);
    struct run *run = run_from_plan(self, request, by, &plan, &notes);
    memcpy(run->expected_s, forecast.phase_expected_s, sizeof run->expected_s);
    zlistx_add_end(self->runs, run);
    snprintf(run_id, DIRECTOR_RUN_ID_SIZE, "%s", run->info->id);
    save_new_run(self, run, &plan);
    notes_free(&notes);
    planner_release(&plan);
    return 0;
}

// The order that places are kept in; equal ones are one cell.
static int place_order(const struct cell_place *a, const struct cell_place *b)
{
    const uint32_t left[] = {a->phase, a->from, a->to, a->port},
                   right[] = {b->phase, b->from, b->to, b->port};
    for (size_t i = 0; i < 4; i++)
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    return 0;
}

static bool places_valid(
    const Mp__RunInfo *info, const struct plan_options *options, const struct cell_place *places)
{
    struct port port;
    char error[256];
    for (size_t i = 0; i < info->n_ports; i++)
        if (port_parse(info->ports[i], &port, error) != 0)
            return false;
    for (uint32_t i = 0; i < info->cells; i++) {
        const struct cell_place *place = &places[i];
        if (place->phase >= options->phase_count || place->from >= info->agents ||
            place->to >= info->agents || place->from == place->to ||
            (place->kind == MP__TEST_KIND__PORT && place->port >= info->n_ports))
            return false;
        if (i > 0 && place_order(place - 1, place) >= 0)
            return false;
    }
    return true;
}

int director_resume(director_t *self, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
    const uint32_t *agent_ids, const struct cell_place *places, const bool *done)
{
    struct plan_options options;
    struct director_refusal refusal;
    if (run_find(self, info->id))
        return MESH_E_EXISTS;
    if (info->cells > DIRECTOR_CELLS_MAX ||
        planner_options(info->request, &options, &refusal) != 0 ||
        !places_valid(info, &options, places))
        return MESH_E_INVALID;
    struct run *run = run_new(self, info, &options, places);
    for (uint32_t i = 0; i < info->agents; i++) {
        if (agents[i]->has_target && agents[i]->target)
            run_set_target(run, i, agents[i]->name, agents[i]->addresses, agents[i]->n_addresses);
        else
            run_set_agent(run, i, agents[i]->name, agent_ids[i]);
    }
    run_restore(run, done);
    zlistx_add_end(self->runs, run);
    unsigned long long number;
    if (sscanf(info->id, "r-%llu", &number) == 1)
        director_set_next_run(self, number + 1);
    return 0;
}

bool director_wants_cells(const Mp__RunInfo *info)
{
    struct plan_options options;
    struct director_refusal refusal;
    if (planner_options(info->request, &options, &refusal) != 0)
        return false;
    bool wants = options.passes > 1;
    for (size_t p = 0; p < options.phase_count; p++)
        wants = wants || planner_rechecks(&options.phases[p]);
    return wants;
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
    struct run *run = run_find(self, run_id);
    if (!run)
        return false;
    events_answer(run, since, limit, answer);
    return true;
}
