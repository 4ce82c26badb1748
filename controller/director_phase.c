// The phases of a run: which tests may start now, what holds them back, and how the hosts spend
// their time meanwhile.

#include "director_parts.h"

#define PASS_SEEDS UINT64_C(1000003) // between the orders of two passes

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

void run_phase_leave(struct run *self)
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
        const struct port *port = run_port(self, place);
        if (state == MP__CELL_STATE__PENDING && port)
            state = planner_judge_port(port, from, to, reason);
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
        if (!again_due(self, i))
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
    bool alone = self->alone != NO_CELL;
    size_t shared_count = phase->light || alone ? 0 : self->options.shared_count;
    for (size_t s = 0; s < shared_count; s++) {
        values[s] = shared_fill(self, s);
        shared[s] = (struct schedule_shared){self->options.shared[s].limit, values[s]};
    }
    struct schedule_config config = {.mode = alone ? MP__MODE__ISOLATED : phase->mode,
        .bidir = phase->spec.bidir,
        .seed = self->options.seed + 1000 * self->phase + PASS_SEEDS * self->pass,
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

static bool cell_startable(const struct run *self, uint32_t index)
{
    return again_due(self, index) && run_agent_there(self, self->places[index].from) &&
           run_agent_there(self, self->places[index].to);
}

static bool phase_startable(const struct run *self, uint32_t p)
{
    for (uint32_t i = self->phase_first[p]; i < self->phase_first[p + 1]; i++)
        if (cell_startable(self, i))
            return true;
    return false;
}

// The whole mesh once before any cell a second time: the pass is that of the cell that is furthest
// behind, of those that can start. A pass begins when all results of the one before are committed,
// so that no cell comes late into it.
static bool pass_choose(struct run *self)
{
    uint32_t before = self->pass, least = UINT32_MAX;
    for (uint32_t i = 0; i < self->cell_count; i++) {
        self->pass = self->cells[i].passes;
        if (self->pass < least && cell_startable(self, i))
            least = self->pass;
    }
    self->pass = before;
    if (least == UINT32_MAX || (least > before && self->uncommitted > 0))
        return false;
    self->pass = least;
    return true;
}

// The first phase with something to start becomes the active one.
static void phase_choose(struct run *self)
{
    run_phase_leave(self);
    for (uint32_t p = 0; p < self->options.phase_count && self->alone == NO_CELL; p++)
        judge_cells(self, p);
    bool again = self->alone != NO_CELL || self->checks_flows;
    if (self->options.passes > 1 && !again && !pass_choose(self))
        return;
    for (uint32_t p = 0; p < self->options.phase_count; p++) {
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
    self->dirty = true;
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
            run_phase_leave(self);
    }
    if (self->committed == self->cell_count && !in_flight(self)) {
        if (!again_next(self))
            run_end(self);
        return true;
    }
    if (self->phase == NO_PHASE || *starts_left == 0)
        return true;
    if (self->director->exclusive && self->director->exclusive != self)
        return true;
    if (concurrent_light(self))
        return turn_light(self);
    if (concurrent_bandwidth(self) || self->alone != NO_CELL)
        return turn_exclusive(self, starts_left);
    dispatch(self, starts_left);
    return true;
}
