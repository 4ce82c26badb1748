// One batch of light probes: every agent of it gets one list of peers (in parts), says that it is
// armed, and at LIGHT_GO all probe at once; each prober sends one list of outcomes (in parts).

#include "director_parts.h"

#include <sodium.h>

#include "merge.h"

const struct cell_place *batch_place(const struct batch *self, uint32_t entry)
{
    return &self->run->places[self->entries[entry].cell];
}

struct light_agent *batch_agent(const struct batch *self, uint32_t agent_id)
{
    for (uint32_t i = 0; i < self->agent_count; i++) {
        if (self->agents[i].host->agent_id == agent_id)
            return &self->agents[i];
    }
    return NULL;
}

bool batch_has(const struct batch *self, uint32_t agent_id)
{
    return batch_agent(self, agent_id) != NULL;
}

// ------------------------------------------------------------------------------------------- life

// The outcome is not used, and its agent need not keep it.
static void doubt_drop(struct batch *self, uint32_t entry)
{
    struct light_entry *it = &self->entries[entry];
    if (it->doubtful)
        mp__cell__free_unpacked(it->doubtful, NULL);
    it->doubtful = NULL;
    receipt_settle(self->run->director, &it->receipt);
}

static void batch_free(struct batch *self)
{
    for (uint32_t i = 0; i < self->agent_count; i++) {
        free(self->agents[i].peers);
        free(self->agents[i].why);
    }
    free(self->agents);
    for (uint32_t i = 0; i < self->entry_count; i++) {
        doubt_drop(self, i);
        ports_forget(self, i);
    }
    free(self->entries);
    sodium_memzero(self->secret, sizeof self->secret);
    free(self);
}

static void batch_account(const struct batch *self)
{
    struct run *run = self->run;
    double took_s = (double)(clock_mono(run->director->clock) - self->since_mono_ns) / NS_PER_S;
    double least_s = (double)self->spec.duration_ns / NS_PER_S;
    if (self->from != self->to) {
        bound_add(run->bounds[run->phase], self->from, self->to, took_s, false);
    } else if (self->going) {
        run->light_least_s += took_s < least_s ? took_s : least_s;
        run->turnaround_s += took_s > least_s ? took_s - least_s : 0;
    }
}

static void batch_destroy(struct batch **self_p)
{
    struct batch *self = *self_p;
    struct run *run = self->run;
    director_t *director = run->director;
    batch_account(self);
    timers_cancel(director->timers, &self->timer);
    timers_cancel(director->timers, &self->send_timer);
    timers_cancel(director->timers, &self->doubt_timer);
    if (self->from != self->to) {
        scheduler_release(run->scheduler, self->from, self->to);
        if (run->cells[self->entries[0].cell].step == CELL_WAITS)
            scheduler_add(run->scheduler, self->from, self->to);
    }
    for (uint32_t i = 0; i < self->agent_count; i++) {
        struct host *host = self->agents[i].host;
        host->tests--;
        if (self->from == self->to)
            ledger_light_claim(director->ledger, host->ledger, false);
        else
            run_host_busy(run, self->agents[i].index, false);
    }
    zhashx_delete(director->batches, self->id_text);
    zlistx_detach(run->batches, self->place);
    run->dirty = true;
    batch_free(self);
    *self_p = NULL;
}

static bool is_open(const struct batch *self, uint32_t entry)
{
    return !self->entries[entry].resolved;
}

static void resolve(struct batch *self, uint32_t entry)
{
    self->entries[entry].resolved = true;
    self->unresolved--;
}

// A cell that was not measured goes back, costs an attempt or not, or ends with `why`.
void batch_entry_again(struct batch *self, uint32_t entry, bool lost, const char *why)
{
    struct run *run = self->run;
    uint32_t cell = self->entries[entry].cell;
    resolve(self, entry);
    doubt_drop(self, entry);
    ports_forget(self, entry);
    if (run->cells[cell].step != CELL_RUNS)
        return;
    if (!lost && run->cells[cell].attempts > run->options.retries)
        run_cell_end(run, cell, MP__CELL_STATE__FAILED, why);
    else
        run_cell_again(run, cell, lost);
}

void batch_abort(struct batch **self_p, const char *why)
{
    struct batch *self = *self_p;
    for (uint32_t i = 0; i < self->agent_count; i++)
        if (!self->agents[i].out && self->agents[i].part > 0)
            director_stop(self->run->director, self->agents[i].host->agent_id, self->id, why);
    batch_destroy(self_p);
}

// -------------------------------------------------------------------------------------- the end

static void batch_end(struct batch *self)
{
    char why[256];
    self->ending = true;
    for (uint32_t i = 0; i < self->entry_count; i++) {
        if (!is_open(self, i))
            continue;
        if (ports_end(self, i))
            continue;
        bool quiet = self->entries[i].doubtful != NULL;
        bool theirs = quiet || self->entries[i].ends[0];
        snprintf(why, sizeof why, "%s %s",
            self->run->names[theirs ? batch_place(self, i)->to : batch_place(self, i)->from],
            quiet ? "went away" : "sent no result in time");
        batch_entry_again(self, i, quiet, why);
    }
    batch_destroy(&self);
}

// Ends the batch when no outcome is missing any more. True if it is gone.
bool batch_settle(struct batch *self)
{
    if (self->ending || self->unresolved > 0)
        return false;
    self->ending = true;
    batch_destroy(&self);
    return true;
}

static void batch_late(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    struct batch *self = arg;
    self->timer = 0;
    batch_end(self);
}

// An agent takes no part any more: its cells go back. `lost` costs them no attempt.
void batch_leave_out(struct batch *self, struct light_agent *agent, bool lost, const char *why)
{
    if (agent->out)
        return;
    agent->out = true;
    agent->why = strdup(why);
    for (uint32_t i = 0; i < agent->peer_count; i++)
        if (is_open(self, agent->peers[i]) && !ports_still_good(self, agent, agent->peers[i]))
            batch_entry_again(self, agent->peers[i], lost, why);
}

bool batch_awaits(const struct batch *self, bool (*awaited)(const struct light_agent *))
{
    for (uint32_t i = 0; i < self->agent_count; i++)
        if (awaited(&self->agents[i]))
            return true;
    return false;
}

void batch_leave_out_late(struct batch *self, bool (*awaited)(const struct light_agent *),
    const char *what, int64_t waited_ns)
{
    char why[256];
    for (uint32_t i = 0; i < self->agent_count; i++) {
        struct light_agent *agent = &self->agents[i];
        if (!awaited(agent))
            continue;
        snprintf(why, sizeof why, "%s did not %s within %d s", self->run->names[agent->index], what,
            (int)(waited_ns / NS_PER_S));
        batch_leave_out(self, agent, false, why);
    }
}

// What the owner forbids now is forbidden in a second: final.
void batch_refused(struct batch *self, struct light_agent *agent, const char *why)
{
    for (uint32_t i = 0; i < agent->peer_count; i++) {
        uint32_t entry = agent->peers[i], cell = self->entries[entry].cell;
        if (!is_open(self, entry))
            continue;
        resolve(self, entry);
        if (self->run->cells[cell].step == CELL_RUNS)
            run_cell_end(self->run, cell, MP__CELL_STATE__SKIPPED, why);
    }
    batch_leave_out(self, agent, false, why);
}

void batch_deadline(struct batch *self, int64_t delay_ns)
{
    timers_t *timers = self->run->director->timers;
    timers_cancel(timers, &self->timer);
    self->timer = timers_after(timers, delay_ns, batch_late, self);
}

int batch_send(struct batch *self, const struct light_agent *agent, Mp__Envelope *envelope)
{
    director_t *director = self->run->director;
    return director->ops.send(director->ops.ctx, agent->host->agent_id, envelope);
}

// ---------------------------------------------------------------------------------------- go

void batch_go(struct batch *self)
{
    director_t *director = self->run->director;
    Mp__LightGo go = MP__LIGHT_GO__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    go.batch = (ProtobufCBinaryData){ID_SIZE, self->id};
    self->going = true;
    self->started_wall_ns = clock_wall(director->clock);
    batch_deadline(
        self, (self->ports ? ports_duration_ns(self) : self->spec.duration_ns) + LIGHT_MARGIN_NS);
    for (uint32_t i = 0; i < self->agent_count; i++) {
        struct light_agent *agent = &self->agents[i];
        if (agent->out)
            continue;
        envelope.body_case = MP__ENVELOPE__BODY_LIGHT_GO;
        envelope.light_go = &go;
        if (self->ports)
            ports_go(self, agent, &go);
        if (batch_send(self, agent, &envelope) != 0)
            batch_leave_out(self, agent, true, "it went away");
        free(go.services);
        go.services = NULL;
        go.n_services = 0;
    }
    batch_settle(self);
}

void batch_agent_gone(struct batch *self, uint32_t agent_id)
{
    struct light_agent *agent = batch_agent(self, agent_id);
    if (!agent)
        return;
    batch_leave_out(self, agent, true, "it went away");
    if (batch_settle(self))
        return;
    batch_go_if_armed(self);
    if (self->ports && self->going)
        ports_close_if_probed(self);
}

// ------------------------------------------------------------------------------------ results

static int by_id(const void *a, const void *b)
{
    return memcmp(
        ((const struct light_entry *)a)->id, ((const struct light_entry *)b)->id, ID_SIZE);
}

void batch_entry_final(struct batch *self, uint32_t entry, Mp__Cell *cell, struct receipt *first,
    struct receipt *second)
{
    resolve(self, entry);
    self->run->director->tests_done++;
    run_cell_final(self->run, cell, first, second);
}

static void entry_final(struct batch *self, uint32_t entry, Mp__Cell *cell, struct receipt *receipt)
{
    batch_entry_final(self, entry, cell, receipt, NULL);
}

struct light_entry *batch_entry(const struct batch *self, const ProtobufCBinaryData *id)
{
    struct light_entry key;
    memcpy(key.id, id->data, ID_SIZE);
    return bsearch(&key, self->entries, self->entry_count, sizeof key, by_id);
}

// Those whose reflector was heard of since it was asked stand as they are: the path lost the
// probes. A dead reflector is found out by its lease, and batch_agent_gone takes its entries back.
static void doubt_turn(void *arg, int64_t now_mono_ns)
{
    struct batch *self = arg;
    bool more = false;
    (void)now_mono_ns;
    self->doubt_timer = 0;
    for (uint32_t i = 0; i < self->entry_count; i++) {
        struct light_entry *entry = &self->entries[i];
        if (!entry->doubtful)
            continue;
        const struct agent *reflector = run_agent(self->run, batch_place(self, i)->to);
        if (self->run->cells[entry->cell].step != CELL_RUNS) {
            resolve(self, i);
            doubt_drop(self, i);
        } else if (reflector && reflector->seen_mono_ns > entry->asked_mono_ns) {
            Mp__Cell *cell = entry->doubtful;
            entry->doubtful = NULL;
            entry_final(self, i, cell, entry->receipt);
            doubt_drop(self, i);
        } else {
            more = true;
        }
    }
    if (more)
        self->doubt_timer = timers_after(self->run->director->timers, DOUBT_NS, doubt_turn, self);
    else
        batch_settle(self);
}

// Lost probes are the path's loss only if the reflector lived on to answer them.
static void doubt(struct batch *self, uint32_t number, Mp__Cell *cell, struct receipt *receipt)
{
    director_t *director = self->run->director;
    struct light_entry *entry = &self->entries[number];
    const struct host *host = self->run->hosts[batch_place(self, number)->to];
    Mp__Ping ping = MP__PING__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    entry->doubtful = cell;
    entry->receipt = receipt;
    receipt->cells++;
    entry->asked_mono_ns = clock_mono(director->clock);
    envelope.body_case = MP__ENVELOPE__BODY_PING;
    envelope.ping = &ping;
    // Unsent, its next heartbeat says as much a little later.
    if (host)
        (void)director->ops.send(director->ops.ctx, host->agent_id, &envelope);
    if (!self->doubt_timer)
        self->doubt_timer = timers_after(director->timers, DOUBT_NS, doubt_turn, self);
}

static void outcome_cell(struct batch *self, const Mp__LightOutcome *outcome,
    const Mp__LightResult *result, struct light_entry *entry, struct receipt *receipt)
{
    struct run *run = self->run;
    uint32_t index = entry->cell, number = (uint32_t)(entry - self->entries);
    if (run->cells[index].step != CELL_RUNS) {
        resolve(self, number);
        return;
    }
    // Stopped, or failed without a probe sent, says nothing about the path.
    bool nothing = outcome->outcome == MP__OUTCOME__OUTCOME_STOPPED ||
                   (outcome->outcome == MP__OUTCOME__OUTCOME_FAILED &&
                       (!outcome->has_sent || outcome->sent == 0));
    if (nothing && run->cells[index].attempts <= run->options.retries) {
        batch_entry_again(self, number, false, "it was stopped");
        return;
    }
    Mp__Cell *cell = run_cell_new(run, index, MP__CELL_STATE__OK, NULL);
    cell->has_started_wall_ns = true;
    cell->started_wall_ns = self->started_wall_ns;
    merge_light(outcome, result, cell);
    if (outcome->has_sent && outcome->has_received && outcome->received < outcome->sent)
        doubt(self, number, cell, receipt);
    else
        entry_final(self, number, cell, receipt);
}

// False if this agent's part was not asked for.
bool batch_result(struct batch *self, uint32_t agent_id, const Mp__LightResult *result)
{
    struct light_agent *agent = batch_agent(self, agent_id);
    if (agent && self->going && self->ports)
        return ports_result(self, agent, result);
    if (!agent || !self->going || agent->done)
        return false;
    struct receipt *receipt = receipt_new(agent_id, result->sequence);
    for (size_t i = 0; i < result->n_outcomes; i++) {
        struct light_entry *entry = batch_entry(self, &result->outcomes[i]->test_id);
        if (entry && !entry->resolved && !entry->doubtful &&
            batch_place(self, (uint32_t)(entry - self->entries))->from == agent->index)
            outcome_cell(self, result->outcomes[i], result, entry, receipt);
    }
    receipt_settle(self->run->director, &receipt);
    if (++agent->parts_seen >= result->parts) {
        agent->done = true;
        for (uint32_t i = 0; i < agent->probed; i++)
            if (is_open(self, agent->peers[i]) && !self->entries[agent->peers[i]].doubtful)
                batch_entry_again(
                    self, agent->peers[i], false, "its prober left it out of its results");
    }
    batch_settle(self);
    return true;
}

// ------------------------------------------------------------------------------------- beginning

// Lists of peers by agent, the probed ones first.
static void batch_fill_agents(struct batch *self)
{
    struct run *run = self->run;
    uint32_t *number = zmalloc((run->agent_count + 1) * sizeof *number);
    uint32_t *degree = zmalloc((run->agent_count + 1) * sizeof *degree);
    for (uint32_t i = 0; i < self->entry_count; i++) {
        degree[batch_place(self, i)->from]++;
        degree[batch_place(self, i)->to] += !run->targets[batch_place(self, i)->to];
    }
    for (uint32_t h = 0; h < run->agent_count; h++)
        self->agent_count += degree[h] > 0;
    self->agents = zmalloc((self->agent_count + 1) * sizeof *self->agents);
    uint32_t next = 0;
    for (uint32_t h = 0; h < run->agent_count; h++) {
        if (degree[h] == 0)
            continue;
        struct light_agent *agent = &self->agents[next];
        agent->index = h;
        agent->host = self->run->hosts[h];
        agent->peers = zmalloc(degree[h] * sizeof *agent->peers);
        agent->parts = (degree[h] + LIGHT_PEERS_A_PART - 1) / LIGHT_PEERS_A_PART;
        number[h] = next++;
    }
    for (int reflects = 0; reflects <= 1; reflects++)
        for (uint32_t i = 0; i < self->entry_count; i++) {
            const struct cell_place *place = batch_place(self, i);
            if (reflects && run->targets[place->to])
                continue;
            struct light_agent *agent = &self->agents[number[reflects ? place->to : place->from]];
            agent->peers[agent->peer_count++] = i;
            agent->probed += !reflects;
        }
    free(number);
    free(degree);
}

static void batch_claim(struct batch *self)
{
    struct run *run = self->run;
    for (uint32_t i = 0; i < self->agent_count; i++) {
        struct host *host = self->agents[i].host;
        host->tests++;
        if (self->from == self->to)
            ledger_light_claim(run->director->ledger, host->ledger, true);
        else
            run_host_busy(run, self->agents[i].index, true);
    }
}

void batch_start(
    struct run *run, const uint32_t *cells, uint32_t count, double rate, bool scheduled)
{
    director_t *director = run->director;
    struct batch *self = zmalloc(sizeof *self);
    self->run = run;
    self->phase = run->phase;
    self->spec = run->options.phases[run->phase].spec;
    self->spec.probe_rate = rate;
    self->ports = self->spec.kind == TEST_PORT || self->spec.kind == TEST_PATH;
    self->since_mono_ns = clock_mono(director->clock);
    randombytes_buf(self->id, sizeof self->id);
    randombytes_buf(self->secret, sizeof self->secret);
    id_text(self->id, self->id_text);
    self->entries = zmalloc((count + 1) * sizeof *self->entries);
    self->entry_count = self->unresolved = count;
    for (uint32_t i = 0; i < count; i++) {
        randombytes_buf(self->entries[i].id, ID_SIZE);
        self->entries[i].cell = cells[i];
        run->cells[cells[i]].step = CELL_RUNS;
        run->cells[cells[i]].attempts++;
    }
    qsort(self->entries, count, sizeof *self->entries, by_id);
    if (scheduled) {
        self->from = run->places[cells[0]].from;
        self->to = run->places[cells[0]].to;
    }
    batch_fill_agents(self);
    batch_claim(self);
    self->place = zlistx_add_end(run->batches, self);
    zhashx_insert(director->batches, self->id_text, self);
    run_begins(run);
    batch_arm(self);
}
