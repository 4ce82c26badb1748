// One run: its cells from waiting to committed, its phases, and its end.

#include "director_parts.h"

#include "errors.h"
#include "log.h"
#include "wire.h"

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
    self->targets = zmalloc((self->agent_count + 1) * sizeof *self->targets);
    self->ports = zmalloc((info->n_ports + 1) * sizeof *self->ports);
    for (size_t i = 0; i < info->n_ports; i++) {
        char error[256];
        (void)!port_parse(info->ports[i], &self->ports[i], error);
    }
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
    self->dirty = true;
    again_prepare(self);
    return self;
}

void run_set_agent(struct run *self, uint32_t index, const char *name, uint32_t agent_id)
{
    self->names[index] = strdup(name);
    self->hosts[index] = agent_id ? director_host(self->director, agent_id) : NULL;
}

void run_set_target(
    struct run *self, uint32_t index, const char *name, char *const *addresses, size_t count)
{
    self->names[index] = strdup(name);
    self->targets[index] = planner_target(name, addresses, count);
}

const struct port *run_port(const struct run *self, const struct cell_place *place)
{
    bool has = place->kind == MP__TEST_KIND__PORT && place->port < self->info->n_ports;
    return has ? &self->ports[place->port] : NULL;
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
        self->cells[i].passes = (uint8_t)self->options.passes;
        self->results[self->places[i].phase] += self->options.passes;
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

void run_destroy(struct run **self_p)
{
    struct run *self = *self_p;
    timers_t *timers = self->director->timers;
    abort_all(self, "the controller ends");
    run_phase_leave(self);
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
    for (uint32_t i = 0; i < self->agent_count; i++) {
        free(self->names[i]);
        free(self->targets[i]);
    }
    for (uint32_t p = 0; p < PLANNER_PHASES_MAX; p++)
        bound_destroy(&self->bounds[p]);
    again_release(self);
    zlistx_destroy(&self->tests);
    zlistx_destroy(&self->batches);
    events_release(&self->events);
    mp__run_info__free_unpacked(self->info, NULL);
    free(self->names);
    free(self->hosts);
    free(self->targets);
    free(self->ports);
    free(self->uses);
    free(self->places);
    free(self->cells);
    free(self);
    *self_p = NULL;
}

struct agent *run_agent(const struct run *self, uint32_t index)
{
    const struct host *host = self->hosts[index];
    if (self->targets[index])
        return self->targets[index];
    return host ? registry_by_id(self->director->registry, host->agent_id) : NULL;
}

bool run_agent_there(const struct run *self, uint32_t index)
{
    const struct agent *agent = run_agent(self, index);
    if (agent && agent->target)
        return true;
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
    if (run_port(self, place))
        cell->port = strdup(self->info->ports[place->port]);
    return cell;
}

void run_cell_final(struct run *self, Mp__Cell *cell, struct receipt *first, struct receipt *second)
{
    uint32_t index = cell->index;
    struct cell_state *state = &self->cells[index];
    struct final_cell *final = zmalloc(sizeof *final);
    assert(state->step == CELL_WAITS || state->step == CELL_RUNS);
    cell = again_absorb(self, cell);
    *final = (struct final_cell){.cell = cell, .receipts = {first, second}};
    for (int r = 0; r < 2; r++)
        if (final->receipts[r])
            final->receipts[r]->cells++;
    state->final = final;
    state->step = CELL_FINAL;
    self->waiting[self->places[index].phase]--;
    self->uncommitted++;
    self->dirty = true;
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
    self->dirty = true;
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
    bool told = state->again & AGAIN_NOW;
    bool waits = again_committed(self, final->cell);
    state->step = waits ? CELL_WAITS : CELL_COMMITTED;
    self->waiting[self->places[index].phase] += waits;
    self->committed += !waits;
    self->uncommitted--;
    for (int r = 0; r < 2; r++)
        receipt_settle(self->director, &final->receipts[r]);
    if (!waits && !told)
        count_state(self, final->cell->state);
    if (!waits)
        events_result(self, &final->cell);
    final_free(self, index);
    self->dirty = true;
    if (waits && self->cancelled)
        run_cell_end(self, index, MP__CELL_STATE__CELL_CANCELLED, "the run was cancelled");
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
    double bound_s = self->light_least_s + self->alone_s;
    for (uint32_t p = 0; p < PLANNER_PHASES_MAX; p++)
        if (self->bounds[p])
            bound_s += bound_seconds(self->bounds[p]);
    return bound_s;
}

void run_end(struct run *self)
{
    Mp__RunInfo *info = self->info;
    run_phase_leave(self);
    again_summarize(self);
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
    uint32_t results = 0, most = self->cell_count * self->options.passes;
    double eta_s = 0;
    info->running = (uint32_t)zlistx_size(self->tests);
    for (struct batch *b = zlistx_first(self->batches); b; b = zlistx_next(self->batches))
        info->running += b->unresolved;
    info->has_elapsed_s = info->has_started_wall_ns;
    info->elapsed_s = run_elapsed_s(self);
    for (uint32_t p = 0; p < PLANNER_PHASES_MAX; p++) {
        uint32_t cells = self->phase_first[p + 1] - self->phase_first[p];
        results += self->results[p];
        if (cells)
            eta_s += self->expected_s[p] *
                     ((double)cells * self->options.passes - self->results[p]) / cells;
    }
    if (self->resumed && results > 0)
        eta_s = info->elapsed_s * (most - results) / results;
    eta_s += again_left_s(self);
    info->has_results = true;
    info->results = results;
    info->has_eta_s = eta_s > 0 || results == most;
    info->eta_s = eta_s;
}

void run_cancel(struct run *self)
{
    if (self->cancelled)
        return;
    self->cancelled = true;
    abort_all(self, "the run was cancelled");
    run_phase_leave(self);
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
    self->dirty = true;
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
