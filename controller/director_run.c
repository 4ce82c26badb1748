// One run: its cells from waiting to committed, its phases, and its end.

#include "director_parts.h"

#include "errors.h"
#include "log.h"
#include "wire.h"

#define look_now(run) ((run)->dirty = true)

// ------------------------------------------------------------------------------------------- life

struct run *run_new(director_t *director, const Mp__RunInfo *info,
    const struct plan_options *options, const struct cell_place *places)
{
    struct run *self = zmalloc(sizeof *self);
    self->director = director;
    self->info = (Mp__RunInfo *)wire_copy(&info->base);
    self->options = *options;
    self->agent_count = info->agents;
    self->names = zmalloc((self->agent_count + 1) * sizeof *self->names);
    self->hosts = zmalloc((self->agent_count + 1) * sizeof *self->hosts);
    self->uses = zmalloc((self->agent_count + 1) * sizeof *self->uses);
    self->cell_count = info->cells;
    self->places = zmalloc((self->cell_count + 1) * sizeof *self->places);
    memcpy(self->places, places, self->cell_count * sizeof *self->places);
    self->cells = zmalloc((self->cell_count + 1) * sizeof *self->cells);
    uint32_t cell = 0;
    for (uint32_t p = 0; p < PLANNER_PHASES_MAX; p++) {
        self->phase_first[p] = cell;
        while (cell < self->cell_count && places[cell].phase == p)
            cell++;
        self->waiting[p] = cell - self->phase_first[p];
    }
    self->phase_first[PLANNER_PHASES_MAX] = cell;
    self->phase = NO_PHASE;
    self->tests = zlistx_new();
    self->batches = zlistx_new();
    look_now(self);
    return self;
}

void run_set_agent(struct run *self, uint32_t index, const char *name, uint32_t agent_id)
{
    self->names[index] = strdup(name);
    self->hosts[index] = agent_id ? director_host(self->director, agent_id) : NULL;
}

static void count_state(struct run *self, Mp__CellState state)
{
    self->info->done++;
    self->info->ok += state == MP__CELL_STATE__OK;
    self->info->failed += state != MP__CELL_STATE__OK;
}

// What an earlier life of the controller has committed stays. The counters for people come from
// the stored info as far as they are consistent with it.
void run_restore(struct run *self, const bool *done)
{
    for (uint32_t i = 0; i < self->cell_count; i++) {
        if (!done[i])
            continue;
        self->cells[i].step = CELL_COMMITTED;
        self->waiting[self->places[i].phase]--;
        self->committed++;
    }
    if (self->info->ok > self->committed)
        self->info->ok = self->committed;
    self->info->done = self->committed;
    self->info->failed = self->committed - self->info->ok;
    self->resumed = true;
    self->gather_until_mono_ns = clock_mono(self->director->clock) + GATHER_NS;
}

static void abort_all(struct run *self, const char *why)
{
    for (struct test *test; (test = zlistx_first(self->tests));)
        test_abort(&test, why);
    for (struct batch *batch; (batch = zlistx_first(self->batches));)
        batch_abort(&batch, why);
}

static void final_free(struct run *self, uint32_t index)
{
    struct final_cell *final = self->cells[index].final;
    if (!final)
        return;
    if (final->cell)
        mp__cell__free_unpacked(final->cell, NULL);
    free(final);
    self->cells[index].final = NULL;
}

static void phase_leave(struct run *self);

void run_destroy(struct run **self_p)
{
    struct run *self = *self_p;
    timers_t *timers = self->director->timers;
    abort_all(self, "the controller ends");
    phase_leave(self);
    timers_cancel(timers, &self->look_timer);
    timers_cancel(timers, &self->save_timer);
    timers_cancel(timers, &self->end_timer);
    for (uint32_t i = 0; i < self->cell_count; i++) {
        if (self->cells[i].final)
            for (int r = 0; r < 2; r++) {
                struct receipt *receipt = self->cells[i].final->receipts[r];
                if (receipt && --receipt->cells == 0)
                    free(receipt);
            }
        final_free(self, i);
    }
    for (uint32_t i = 0; i < self->agent_count; i++)
        free(self->names[i]);
    for (uint32_t p = 0; p < PLANNER_PHASES_MAX; p++)
        bound_destroy(&self->bounds[p]);
    zlistx_destroy(&self->tests);
    zlistx_destroy(&self->batches);
    events_release(&self->events);
    mp__run_info__free_unpacked(self->info, NULL);
    free(self->names);
    free(self->hosts);
    free(self->uses);
    free(self->places);
    free(self->cells);
    free(self);
    *self_p = NULL;
}

struct agent *run_agent(const struct run *self, uint32_t index)
{
    const struct host *host = self->hosts[index];
    return host ? registry_by_id(self->director->registry, host->agent_id) : NULL;
}

bool run_agent_there(const struct run *self, uint32_t index)
{
    const struct agent *agent = run_agent(self, index);
    return agent && agent_connected(agent) && !self->hosts[index]->unreachable;
}

uint32_t run_cell_of(const struct run *self, uint32_t phase, uint32_t from, uint32_t to)
{
    uint32_t low = self->phase_first[phase], end = self->phase_first[phase + 1], high = end;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct cell_place *place = &self->places[middle];
        if (place->from < from || (place->from == from && place->to < to))
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < end && self->places[low].from == from && self->places[low].to == to;
    return found ? low : NO_CELL;
}

// ------------------------------------------------------------------------------------- receipts

struct receipt *receipt_new(uint32_t agent_id, uint64_t sequence)
{
    struct receipt *receipt = zmalloc(sizeof *receipt);
    receipt->agent_id = agent_id;
    receipt->sequence = sequence;
    // The caller's hold, until receipt_settle.
    receipt->cells = 1;
    return receipt;
}

void receipt_settle(director_t *self, struct receipt **receipt_p)
{
    struct receipt *receipt = *receipt_p;
    *receipt_p = NULL;
    if (!receipt || --receipt->cells > 0)
        return;
    self->ops.report_done(self->ops.ctx, receipt->agent_id, receipt->sequence);
    free(receipt);
}

// ------------------------------------------------------------------------------------------ cells

Mp__Cell *run_cell_new(
    const struct run *self, uint32_t index, Mp__CellState state, const char *reason)
{
    const struct cell_place *place = &self->places[index];
    Mp__Cell *cell = zmalloc(sizeof *cell);
    mp__cell__init(cell);
    cell->index = index;
    cell->kind = (Mp__TestKind)place->kind;
    cell->from = place->from;
    cell->to = place->to;
    cell->has_phase = true;
    cell->phase = place->phase;
    cell->state = state;
    cell->has_attempts = true;
    cell->attempts = self->cells[index].attempts;
    cell->reason = reason ? strdup(reason) : NULL;
    return cell;
}

void run_cell_final(struct run *self, Mp__Cell *cell, struct receipt *first, struct receipt *second)
{
    uint32_t index = cell->index;
    struct cell_state *state = &self->cells[index];
    struct final_cell *final = zmalloc(sizeof *final);
    assert(state->step == CELL_WAITS || state->step == CELL_RUNS);
    *final = (struct final_cell){.cell = cell, .receipts = {first, second}};
    for (int r = 0; r < 2; r++)
        if (final->receipts[r])
            final->receipts[r]->cells++;
    state->final = final;
    state->step = CELL_FINAL;
    self->waiting[self->places[index].phase]--;
    self->uncommitted++;
    look_now(self);
    self->director->ops.save_cell(self->director->ops.ctx, self->info->id, cell);
}

void run_cell_end(struct run *self, uint32_t index, Mp__CellState state, const char *reason)
{
    const struct cell_place *place = &self->places[index];
    if (self->cells[index].step == CELL_WAITS && self->scheduler && place->phase == self->phase)
        scheduler_remove(self->scheduler, place->from, place->to);
    run_cell_final(self, run_cell_new(self, index, state, reason), NULL, NULL);
}

bool run_cell_again(struct run *self, uint32_t index, bool lost)
{
    struct cell_state *state = &self->cells[index];
    if (state->step != CELL_RUNS)
        return false;
    look_now(self);
    if (lost && ++state->requeued > REQUEUES_MAX) {
        run_cell_end(self, index, MP__CELL_STATE__FAILED, "its agents went away again and again");
        return false;
    }
    state->step = CELL_WAITS;
    if (lost && state->attempts > 0)
        state->attempts--;
    return true;
}

static void save_again(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    struct run *self = arg;
    self->save_timer = 0;
    for (uint32_t i = 0; i < self->cell_count; i++) {
        struct final_cell *final = self->cells[i].final;
        if (!final || !final->failed_to_save)
            continue;
        final->failed_to_save = false;
        self->director->ops.save_cell(self->director->ops.ctx, self->info->id, final->cell);
    }
}

void run_saved(struct run *self, uint32_t index, int error)
{
    if (index >= self->cell_count || self->cells[index].step != CELL_FINAL)
        return;
    struct cell_state *state = &self->cells[index];
    struct final_cell *final = state->final;
    // A run that the store does not know (it could not be stored) has nobody to keep cells for.
    if (error != 0 && error != MESH_E_NOT_FOUND) {
        final->failed_to_save = true;
        if (!self->save_timer)
            self->save_timer =
                timers_after(self->director->timers, SAVE_AGAIN_NS, save_again, self);
        return;
    }
    state->step = CELL_COMMITTED;
    self->committed++;
    self->uncommitted--;
    count_state(self, final->cell->state);
    for (int r = 0; r < 2; r++)
        receipt_settle(self->director, &final->receipts[r]);
    events_result(self, &final->cell);
    final_free(self, index);
    look_now(self);
}

// -------------------------------------------------------------------------------- use of the hosts

void run_host_busy(struct run *self, uint32_t index, bool busy)
{
    struct host_use *use = &self->uses[index];
    int64_t now = clock_mono(self->director->clock);
    use->touched = true;
    if (busy && use->in_use++ == 0) {
        use->busy_since_mono_ns = now;
        if (use->blocked_since_mono_ns)
            use->blocked_ns += now - use->blocked_since_mono_ns;
        use->blocked_since_mono_ns = 0;
    } else if (!busy && --use->in_use == 0) {
        use->busy_ns += now - use->busy_since_mono_ns;
        use->last_end_mono_ns = now;
    }
}

static void note_blocked(struct run *self)
{
    int64_t now = clock_mono(self->director->clock);
    for (uint32_t h = 0; h < self->agent_count; h++) {
        struct host_use *use = &self->uses[h];
        bool blocked = use->in_use == 0 && scheduler_blocked(self->scheduler, h);
        if (blocked && !use->blocked_since_mono_ns)
            use->blocked_since_mono_ns = now;
        if (!blocked && use->blocked_since_mono_ns) {
            use->blocked_ns += now - use->blocked_since_mono_ns;
            use->blocked_since_mono_ns = 0;
        }
    }
}

static void account_idle(struct run *self)
{
    int64_t now = clock_mono(self->director->clock), since = self->phase_since_mono_ns;
    double turnaround_ns = 0, tail_ns = 0, blocked_ns = 0, hosts = 0;
    for (uint32_t h = 0; h < self->agent_count; h++) {
        const struct host_use *use = &self->uses[h];
        if (!use->touched)
            continue;
        double tail = (double)(now - use->last_end_mono_ns);
        hosts++;
        tail_ns += tail;
        blocked_ns += (double)use->blocked_ns;
        turnaround_ns += (double)(now - since - use->busy_ns - use->blocked_ns) - tail;
    }
    if (hosts > 0) {
        self->turnaround_s += turnaround_ns > 0 ? turnaround_ns / hosts / NS_PER_S : 0;
        self->tail_s += tail_ns / hosts / NS_PER_S;
        self->blocked_s += blocked_ns / hosts / NS_PER_S;
    }
    memset(self->uses, 0, self->agent_count * sizeof *self->uses);
}

// ----------------------------------------------------------------------------------------- phases

static bool concurrent_light(const struct run *self)
{
    const struct phase *phase = &self->options.phases[self->phase];
    return phase->light && phase->mode == MP__MODE__CONCURRENT;
}

static bool concurrent_bandwidth(const struct run *self)
{
    const struct phase *phase = &self->options.phases[self->phase];
    return !phase->light && phase->mode == MP__MODE__CONCURRENT;
}

static bool in_flight(const struct run *self)
{
    return zlistx_size(self->tests) > 0 || zlistx_size(self->batches) > 0;
}

static void phase_leave(struct run *self)
{
    if (self->phase == NO_PHASE)
        return;
    if (self->scheduler)
        account_idle(self);
    scheduler_destroy(&self->scheduler);
    if (self->director->exclusive == self)
        self->director->exclusive = NULL;
    self->phase = NO_PHASE;
}

// Ends the cells of a phase that cannot or must not be measured.
static void judge_cells(struct run *self, uint32_t p)
{
    char reason[512];
    for (uint32_t i = self->phase_first[p]; i < self->phase_first[p + 1]; i++) {
        const struct cell_place *place = &self->places[i];
        if (self->cells[i].step != CELL_WAITS)
            continue;
        const struct agent *from = run_agent(self, place->from), *to = run_agent(self, place->to);
        if (!from || !to) {
            snprintf(reason, sizeof reason, "%s was removed",
                self->names[from ? place->to : place->from]);
            run_cell_end(self, i, MP__CELL_STATE__LOST, reason);
            continue;
        }
        Mp__CellState state = planner_judge(&self->options.phases[p], from, to, reason);
        if (state != MP__CELL_STATE__PENDING)
            run_cell_end(self, i, state, reason);
    }
}

static unsigned agent_cores(const struct agent *agent)
{
    const Mp__Capabilities *can = agent->capabilities;
    return can && can->has_cores && can->cores ? can->cores : 1;
}

// One host's part in the afterwards bound of a phase.
static void bound_host(struct run *self, bound_t *bound, uint32_t h, uint32_t machine)
{
    const struct agent *agent = run_agent(self, h);
    const struct phase *phase = &self->options.phases[self->phase];
    uint64_t rate_bps = testspec_rate_stated(&phase->spec) ? phase->spec.bitrate_bps : 0;
    bound_host_name(bound, h, self->names[h]);
    if (!agent)
        return;
    for (size_t i = 0; i < agent->label_count; i++)
        bound_host_label(bound, h, agent->labels[i].key, agent->labels[i].value);
    for (size_t s = 0; s < self->options.shared_count; s++) {
        const struct plan_shared *shared = &self->options.shared[s];
        const char *value = agent_label(agent, shared->key);
        if (value)
            bound_host_shared(bound, h, shared->key, value, shared->limit);
    }
    if (machine != LEDGER_NONE)
        bound_host_machine(bound, h, machine,
            ledger_machine_capacity(
                self->director->ledger, machine, phase->spec.bidir ? 2 * rate_bps : rate_bps));
}

static void hosts_fill(struct run *self, struct schedule_host *hosts)
{
    ledger_t *ledger = self->director->ledger;
    bool ignore = self->options.machines_ignore || self->options.phases[self->phase].light;
    for (uint32_t h = 0; h < self->agent_count; h++) {
        const struct agent *agent = run_agent(self, h);
        // An agent that is gone still has its number; none of its edges will be there.
        hosts[h].host = ledger_host(ledger, self->hosts[h] ? self->hosts[h]->agent_id : 0);
        hosts[h].machine = LEDGER_NONE;
        if (agent && *agent->boot_id && !ignore)
            hosts[h].machine = ledger_machine(ledger, agent->boot_id, agent_cores(agent));
        if (agent && agent->capabilities && agent->capabilities->has_guard_tests)
            hosts[h].at_once = agent->capabilities->guard_tests;
    }
}

static uint32_t *shared_fill(struct run *self, size_t s)
{
    uint32_t *values = zmalloc((self->agent_count + 1) * sizeof *values);
    for (uint32_t h = 0; h < self->agent_count; h++) {
        const struct agent *agent = run_agent(self, h);
        const char *key = self->options.shared[s].key;
        const char *value = agent ? agent_label(agent, key) : NULL;
        values[h] = value ? ledger_shared(self->director->ledger, key, value) : LEDGER_NONE;
    }
    return values;
}

static void scheduler_fill(struct run *self)
{
    const struct phase *phase = &self->options.phases[self->phase];
    for (uint32_t h = 0; h < self->agent_count; h++)
        if (!run_agent_there(self, h))
            scheduler_leave(self->scheduler, h);
    for (uint32_t i = self->phase_first[self->phase]; i < self->phase_first[self->phase + 1]; i++) {
        uint32_t from = self->places[i].from, to = self->places[i].to;
        if (self->cells[i].step != CELL_WAITS)
            continue;
        // With --bidir one edge stands for both directions.
        if (phase->spec.bidir && from > to)
            scheduler_add(self->scheduler, to, from);
        else
            scheduler_add(self->scheduler, from, to);
    }
}

static void scheduler_open(struct run *self)
{
    const struct phase *phase = &self->options.phases[self->phase];
    struct schedule_host *hosts = zmalloc((self->agent_count + 1) * sizeof *hosts);
    struct schedule_shared shared[PLANNER_SHARED_MAX];
    uint32_t *values[PLANNER_SHARED_MAX];
    hosts_fill(self, hosts);
    size_t shared_count = phase->light ? 0 : self->options.shared_count;
    for (size_t s = 0; s < shared_count; s++) {
        values[s] = shared_fill(self, s);
        shared[s] = (struct schedule_shared){self->options.shared[s].limit, values[s]};
    }
    struct schedule_config config = {.mode = phase->mode,
        .bidir = phase->spec.bidir,
        .seed = self->options.seed + 1000 * self->phase,
        .host_count = self->agent_count,
        .rate_bps = testspec_rate_stated(&phase->spec) ? phase->spec.bitrate_bps : 0,
        .hosts = hosts,
        .shared = shared,
        .shared_count = shared_count};
    self->scheduler = scheduler_new(self->director->ledger, &config);
    if (!self->bounds[self->phase]) {
        bound_t *bound = bound_new(phase->mode, self->agent_count);
        for (uint32_t h = 0; h < self->agent_count; h++)
            bound_host(self, bound, h,
                phase->mode == MP__MODE__CONCURRENT ? LEDGER_NONE : hosts[h].machine);
        self->bounds[self->phase] = bound;
    }
    for (size_t s = 0; s < shared_count; s++)
        free(values[s]);
    free(hosts);
    scheduler_fill(self);
}

static bool phase_startable(const struct run *self, uint32_t p)
{
    for (uint32_t i = self->phase_first[p]; i < self->phase_first[p + 1]; i++)
        if (self->cells[i].step == CELL_WAITS && run_agent_there(self, self->places[i].from) &&
            run_agent_there(self, self->places[i].to))
            return true;
    return false;
}

// The first phase with something to start becomes the active one.
static void phase_choose(struct run *self)
{
    phase_leave(self);
    for (uint32_t p = 0; p < self->options.phase_count; p++) {
        judge_cells(self, p);
        if (self->waiting[p] == 0 || !phase_startable(self, p))
            continue;
        self->phase = p;
        self->phase_since_mono_ns = clock_mono(self->director->clock);
        if (!concurrent_light(self))
            scheduler_open(self);
        return;
    }
}

// --------------------------------------------------------------------------------- lost for good

static int64_t lost_deadline(const struct run *self, uint32_t index)
{
    const director_t *director = self->director;
    const struct agent *agent = run_agent(self, index);
    if (!agent)
        return 0;
    if (agent_connected(agent))
        return INT64_MAX;
    if (agent->seen_mono_ns == 0)
        return director->started_mono_ns + LOST_AT_START_NS;
    return agent->lost_mono_ns + LOST_NS;
}

static void look_again(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    struct run *self = arg;
    self->look_timer = 0;
    look_now(self);
}

static void look_at_time(struct run *self, int64_t due_mono_ns)
{
    timers_cancel(self->director->timers, &self->look_timer);
    if (due_mono_ns != INT64_MAX)
        self->look_timer = timers_at(self->director->timers, due_mono_ns, look_again, self);
}

// Nothing can start and nothing runs: what is left waits for agents that are away.
static void give_up_the_lost(struct run *self)
{
    int64_t now = clock_mono(self->director->clock), next = INT64_MAX;
    int64_t *deadlines = zmalloc((self->agent_count + 1) * sizeof *deadlines);
    char reason[256];
    for (uint32_t h = 0; h < self->agent_count; h++)
        deadlines[h] = lost_deadline(self, h);
    for (uint32_t i = 0; i < self->cell_count; i++) {
        const struct cell_place *place = &self->places[i];
        if (self->cells[i].step != CELL_WAITS)
            continue;
        uint32_t gone = deadlines[place->from] <= deadlines[place->to] ? place->from : place->to;
        if (deadlines[gone] > now) {
            next = deadlines[gone] < next ? deadlines[gone] : next;
            continue;
        }
        snprintf(reason, sizeof reason, "%s went away and did not come back", self->names[gone]);
        run_cell_end(self, i, MP__CELL_STATE__LOST, reason);
    }
    free(deadlines);
    look_at_time(self, next);
}

// ---------------------------------------------------------------------------------------- the end

void run_begins(struct run *self)
{
    if (self->started_mono_ns)
        return;
    self->started_mono_ns = clock_mono(self->director->clock);
    if (!self->info->has_started_wall_ns) {
        self->info->has_started_wall_ns = true;
        self->info->started_wall_ns = clock_wall(self->director->clock);
    }
    self->info->state = MP__RUN_STATE__RUNNING;
    self->director->ops.save_run(self->director->ops.ctx, self->info);
}

static double run_elapsed_s(const struct run *self)
{
    int64_t elapsed_ns = 0;
    if (self->started_mono_ns && !self->resumed)
        elapsed_ns = clock_mono(self->director->clock) - self->started_mono_ns;
    else if (self->info->has_started_wall_ns)
        elapsed_ns = clock_wall(self->director->clock) - self->info->started_wall_ns;
    return elapsed_ns > 0 ? (double)elapsed_ns / NS_PER_S : 0;
}

static double run_bound_s(const struct run *self)
{
    double bound_s = self->light_least_s;
    for (uint32_t p = 0; p < PLANNER_PHASES_MAX; p++)
        if (self->bounds[p])
            bound_s += bound_seconds(self->bounds[p]);
    return bound_s;
}

static void run_end(struct run *self)
{
    Mp__RunInfo *info = self->info;
    phase_leave(self);
    run_refresh(self);
    info->state = self->cancelled ? MP__RUN_STATE__CANCELLED : MP__RUN_STATE__FINISHED;
    info->has_finished_wall_ns = info->has_elapsed_s = true;
    info->finished_wall_ns = clock_wall(self->director->clock);
    info->elapsed_s = run_elapsed_s(self);
    info->has_eta_s = false;
    info->has_lower_bound_s = info->has_idle_turnaround_s = true;
    info->has_idle_tail_s = info->has_idle_blocked_s = true;
    info->lower_bound_s = run_bound_s(self);
    info->idle_turnaround_s = self->turnaround_s;
    info->idle_tail_s = self->tail_s;
    info->idle_blocked_s = self->blocked_s;
    self->ended = true;
    timers_cancel(self->director->timers, &self->look_timer);
    self->director->ops.save_run(self->director->ops.ctx, info);
    log_info("%s is %s: %u of %u cells ok in %.1f s, lower bound %.1f s", info->id,
        self->cancelled ? "cancelled" : "finished", info->ok, info->cells, info->elapsed_s,
        info->lower_bound_s);
}

void run_refresh(struct run *self)
{
    if (self->ended)
        return;
    Mp__RunInfo *info = self->info;
    uint32_t waiting = 0;
    double eta_s = 0;
    info->running = (uint32_t)zlistx_size(self->tests);
    for (struct batch *b = zlistx_first(self->batches); b; b = zlistx_next(self->batches))
        info->running += b->unresolved;
    info->has_elapsed_s = info->has_started_wall_ns;
    info->elapsed_s = run_elapsed_s(self);
    for (uint32_t p = 0; p < PLANNER_PHASES_MAX; p++) {
        uint32_t cells = self->phase_first[p + 1] - self->phase_first[p];
        waiting += self->waiting[p];
        if (cells)
            eta_s += self->expected_s[p] * self->waiting[p] / cells;
    }
    if (self->resumed && self->committed > 0)
        eta_s = info->elapsed_s * waiting / self->committed;
    info->has_eta_s = eta_s > 0 || waiting == 0;
    info->eta_s = eta_s;
}

void run_cancel(struct run *self)
{
    if (self->cancelled)
        return;
    self->cancelled = true;
    abort_all(self, "the run was cancelled");
    phase_leave(self);
    for (uint32_t i = 0; i < self->cell_count; i++)
        if (self->cells[i].step == CELL_WAITS || self->cells[i].step == CELL_RUNS)
            run_cell_end(self, i, MP__CELL_STATE__CELL_CANCELLED, "the run was cancelled");
}

// ---------------------------------------------------------------------------------------- changes

static void end_cells_of(struct run *self, uint32_t index, Mp__CellState state, const char *reason)
{
    for (uint32_t i = 0; i < self->cell_count; i++)
        if (self->cells[i].step == CELL_WAITS &&
            (self->places[i].from == index || self->places[i].to == index))
            run_cell_end(self, i, state, reason);
}

static void tests_of_agent_gone(struct run *self, uint32_t agent_id)
{
    // Ending one may end others; start over until none is left.
    for (struct test *t = zlistx_first(self->tests); t;) {
        if (test_has(t, agent_id)) {
            test_agent_gone(t, agent_id);
            t = zlistx_first(self->tests);
        } else {
            t = zlistx_next(self->tests);
        }
    }
    size_t count = zlistx_size(self->batches);
    struct batch **batches = zmalloc((count + 1) * sizeof *batches);
    size_t n = 0;
    for (struct batch *b = zlistx_first(self->batches); b; b = zlistx_next(self->batches))
        batches[n++] = b;
    for (size_t i = 0; i < n; i++)
        if (batch_has(batches[i], agent_id))
            batch_agent_gone(batches[i], agent_id);
    free(batches);
}

static void agent_away(struct run *self, uint32_t index, enum change what)
{
    uint32_t agent_id = self->hosts[index]->agent_id;
    char reason[256];
    if (self->scheduler)
        scheduler_leave(self->scheduler, index);
    tests_of_agent_gone(self, agent_id);
    if (what != CHANGE_REMOVED)
        return;
    snprintf(reason, sizeof reason, "%s was removed", self->names[index]);
    self->hosts[index] = NULL;
    end_cells_of(self, index, MP__CELL_STATE__LOST, reason);
}

static void agent_changed(struct run *self, uint32_t index)
{
    const struct agent *agent = run_agent(self, index);
    char reason[256];
    if (!agent || !agent->draining)
        return;
    snprintf(reason, sizeof reason, "%s is drained", self->names[index]);
    end_cells_of(self, index, MP__CELL_STATE__SKIPPED, reason);
}

void run_agent_changed(struct run *self, uint32_t agent_id, enum change what)
{
    static const char *const words[CHANGE_CHANGED + 1] = {[CHANGE_UP] = "is back",
        [CHANGE_FRESH] = "is back",
        [CHANGE_LOST] = "is lost",
        [CHANGE_REMOVED] = "was removed"};
    uint32_t index = 0;
    while (index < self->agent_count &&
           (!self->hosts[index] || self->hosts[index]->agent_id != agent_id))
        index++;
    if (index == self->agent_count || self->ended)
        return;
    look_now(self);
    if (words[what])
        events_agent(self, self->names[index], words[what]);
    if (what == CHANGE_CHANGED)
        agent_changed(self, index);
    if (what == CHANGE_LOST || what == CHANGE_REMOVED)
        agent_away(self, index, what);
    if (what == CHANGE_FRESH)
        tests_of_agent_gone(self, agent_id);
    if ((what == CHANGE_UP || what == CHANGE_FRESH) && self->scheduler &&
        run_agent_there(self, index))
        scheduler_return(self->scheduler, index);
}

// --------------------------------------------------------------------------------------- the turn

static bool store_keeps_up(const struct run *self)
{
    return self->uncommitted <
           (self->director->trouble ? UNCOMMITTED_TROUBLE_MAX : UNCOMMITTED_MAX);
}

// Tests of one length that began together end together. Deciding at the first end would tie its two
// hosts to each other or to the next ones, and in the end leave hosts over that share no pair: so
// the decision waits a moment for the ends that are due.
static bool ends_are_due(const struct run *self)
{
    if (clock_mono(self->director->clock) >= self->hold_until_mono_ns)
        return false;
    for (struct test *t = zlistx_first(self->tests); t; t = zlistx_next(self->tests))
        if (!t->released && t->reserved_mono_ns <= self->hold_reserved_mono_ns)
            return true;
    return false;
}

void run_hold(struct run *self, int64_t reserved_mono_ns)
{
    const struct testspec *spec = &self->options.phases[self->phase].spec;
    int64_t now = clock_mono(self->director->clock), window_ns = spec->duration_ns / HOLD_PART;
    if (now < self->hold_until_mono_ns)
        return;
    window_ns = window_ns < HOLD_MOST_NS ? window_ns : HOLD_MOST_NS;
    self->hold_until_mono_ns = now + window_ns;
    self->hold_reserved_mono_ns = reserved_mono_ns + window_ns;
}

static void dispatch(struct run *self, unsigned *starts_left)
{
    bool light = self->options.phases[self->phase].light;
    uint32_t from, to;
    if (ends_are_due(self)) {
        look_at_time(self, self->hold_until_mono_ns);
        return;
    }
    while (
        *starts_left > 0 && store_keeps_up(self) && scheduler_next(self->scheduler, &from, &to)) {
        (*starts_left)--;
        if (light) {
            uint32_t cell = run_cell_of(self, self->phase, from, to);
            double rate = planner_probe_rate(
                &self->options.phases[self->phase].spec, &(struct light_load){.pairs = 1});
            batch_start(self, &cell, 1, rate, true);
        } else {
            test_start(self, from, to);
        }
    }
    note_blocked(self);
}

// Light probes of all: after a restart they wait a moment for the agents to come back.
static bool turn_light(struct run *self)
{
    int64_t now = clock_mono(self->director->clock);
    if (zlistx_size(self->batches) > 0 || !store_keeps_up(self))
        return true;
    if (now < self->gather_until_mono_ns) {
        for (uint32_t h = 0; h < self->agent_count; h++)
            if (self->hosts[h] && !run_agent_there(self, h)) {
                look_at_time(self, self->gather_until_mono_ns);
                return true;
            }
    }
    return batch_start_next(self);
}

// The mesh to itself: waits until nobody else uses it, and keeps later runs away meanwhile.
static bool turn_exclusive(struct run *self, unsigned *starts_left)
{
    director_t *director = self->director;
    if (director->exclusive != self) {
        if (director->exclusive || !ledger_idle(director->ledger))
            return false;
        director->exclusive = self;
    }
    dispatch(self, starts_left);
    return false;
}

// Is there a reason to look for another phase?
static bool phase_spent(const struct run *self)
{
    if (in_flight(self))
        return false;
    if (self->phase == NO_PHASE)
        return true;
    if (self->scheduler)
        return scheduler_startable(self->scheduler) == 0;
    return !phase_startable(self, self->phase);
}

static uint32_t cells_waiting(const struct run *self)
{
    uint32_t waiting = 0;
    for (uint32_t p = 0; p < PLANNER_PHASES_MAX; p++)
        waiting += self->waiting[p];
    return waiting;
}

bool run_turn(struct run *self, unsigned *starts_left)
{
    if (self->ended)
        return true;
    if (self->dirty && phase_spent(self)) {
        self->dirty = false;
        if (cells_waiting(self) > 0)
            phase_choose(self);
        if (self->phase == NO_PHASE && cells_waiting(self) > 0)
            give_up_the_lost(self);
        if (cells_waiting(self) == 0)
            phase_leave(self);
    }
    if (self->committed == self->cell_count && !in_flight(self)) {
        run_end(self);
        return true;
    }
    if (self->phase == NO_PHASE || *starts_left == 0)
        return true;
    if (self->director->exclusive && self->director->exclusive != self)
        return true;
    if (concurrent_light(self))
        return turn_light(self);
    if (concurrent_bandwidth(self))
        return turn_exclusive(self, starts_left);
    dispatch(self, starts_left);
    return true;
}
