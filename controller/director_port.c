// A batch of port probes. Beside what any light batch does, listeners stand open before the first
// probe goes and until the last one has ended: ARM, GO{open}, OPENED, GO, results of the probing
// ends, CLOSE, results of the listening ends. A cell is made of both ends' findings.

#include "director_parts.h"

#include "merge.h"
#include "wire.h"

#define OPENED_DEADLINE_NS NS_PER_S // of the time that listeners may stand open
#define CLOSED_DEADLINE_NS (5 * NS_PER_S)
#define LISTENS_A_BATCH 4 // times what one agent probes
#define PATH_PORT 33434   // of a target: where traceroute begins

enum { PROBING, LISTENING };

static bool listens(const struct light_agent *agent)
{
    return agent->peer_count > agent->probed;
}

int64_t ports_duration_ns(const struct batch *self)
{
    return testspec_listen_ns(&self->spec);
}

void ports_forget(struct batch *self, uint32_t entry)
{
    struct light_entry *it = &self->entries[entry];
    for (int end = 0; end < 2; end++) {
        if (it->ends[end])
            mp__light_outcome__free_unpacked(it->ends[end], NULL);
        it->ends[end] = NULL;
        receipt_settle(self->run->director, &it->receipts[end]);
    }
}

bool ports_still_good(const struct batch *self, const struct light_agent *agent, uint32_t entry)
{
    int end = batch_place(self, entry)->from == agent->index ? PROBING : LISTENING;
    return self->entries[entry].ends[end] != NULL;
}

static uint16_t data_port(const struct run *run, uint32_t index)
{
    const struct agent *agent = run_agent(run, index);
    return agent && agent->data_port ? agent->data_port : PATH_PORT;
}

void ports_part(const struct batch *self, uint32_t entry, bool probes, Mp__LightPeer *peer)
{
    const struct run *run = self->run;
    const struct cell_place *place = batch_place(self, entry);
    // A path is walked to the port of the other agent's data plane.
    const struct port path = {MP__TRANSPORT__OVER_UDP, data_port(run, place->to)};
    const struct port *port = run_port(run, place) ? run_port(run, place) : &path;
    peer->has_transport = peer->has_port = true;
    peer->transport = port->transport;
    peer->port = port->number;
    peer->has_arm = !probes;
    peer->arm = place->listener != PORT_LISTENER_SERVICE;
    peer->has_target = peer->target = probes && run->targets[place->to];
    if (peer->peer_port == 0)
        peer->peer_port = port->number;
}

// ------------------------------------------------------------------------------- opening and going

static bool is_to_open(const struct light_agent *agent)
{
    return listens(agent) && !agent->opened && !agent->out;
}

static void go_if_opened(struct batch *self)
{
    if (batch_awaits(self, is_to_open))
        return;
    if (!self->going && !self->ending)
        batch_go(self);
}

static void not_opened(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    struct batch *self = arg;
    self->timer = 0;
    batch_leave_out_late(self, is_to_open, "open its listeners", OPENED_DEADLINE_NS);
    if (!batch_settle(self))
        go_if_opened(self);
}

void ports_open(struct batch *self)
{
    timers_t *timers = self->run->director->timers;
    Mp__LightGo go = MP__LIGHT_GO__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    if (self->opening) {
        go_if_opened(self);
        return;
    }
    self->opening = true;
    go.batch = (ProtobufCBinaryData){ID_SIZE, self->id};
    go.has_open = go.open = true;
    timers_cancel(timers, &self->timer);
    self->timer = timers_after(timers, OPENED_DEADLINE_NS, not_opened, self);
    for (uint32_t i = 0; i < self->agent_count; i++) {
        struct light_agent *agent = &self->agents[i];
        envelope.body_case = MP__ENVELOPE__BODY_LIGHT_GO;
        envelope.light_go = &go;
        if (!agent->out && listens(agent) && batch_send(self, agent, &envelope) != 0)
            batch_leave_out(self, agent, true, "it went away");
    }
    if (!batch_settle(self))
        go_if_opened(self);
}

void batch_opened(struct batch *self, uint32_t agent_id, const Mp__LightOpened *opened)
{
    struct light_agent *agent = batch_agent(self, agent_id);
    if (!agent || agent->out || self->going || !self->opening)
        return;
    for (size_t i = 0; i < opened->n_services; i++) {
        struct light_entry *entry = batch_entry(self, &opened->services[i]);
        if (entry && batch_place(self, (uint32_t)(entry - self->entries))->to == agent->index)
            entry->service = true;
    }
    agent->opened = true;
    go_if_opened(self);
}

// Which of the ports that this agent probes belong to services.
void ports_go(struct batch *self, struct light_agent *agent, Mp__LightGo *go)
{
    go->services = zmalloc((agent->probed + 1) * sizeof *go->services);
    for (uint32_t i = 0; i < agent->probed; i++) {
        struct light_entry *entry = &self->entries[agent->peers[i]];
        if (entry->service)
            go->services[go->n_services++] = (ProtobufCBinaryData){ID_SIZE, entry->id};
    }
}

// ---------------------------------------------------------------------------------------- findings

static void conclude(struct batch *self, uint32_t number)
{
    struct run *run = self->run;
    struct light_entry *entry = &self->entries[number];
    const struct cell_place *place = batch_place(self, number);
    Mp__Cell *cell = run_cell_new(run, entry->cell, MP__CELL_STATE__OK, NULL);
    cell->has_started_wall_ns = true;
    cell->started_wall_ns = self->started_wall_ns;
    struct merge_names names = {
        run->names[place->from], run->names[place->to], run->targets[place->to] != NULL};
    if (self->spec.kind == TEST_PATH)
        merge_path(&self->spec, entry->ends[PROBING], &names, cell);
    else
        merge_port(entry->ends[PROBING], entry->ends[LISTENING], &names, cell);
    batch_entry_final(self, number, cell, entry->receipts[PROBING], entry->receipts[LISTENING]);
    ports_forget(self, number);
}

// Says nothing about the port.
static bool is_nothing(const Mp__LightOutcome *outcome)
{
    return outcome && (outcome->outcome == MP__OUTCOME__OUTCOME_STOPPED ||
                          outcome->outcome == MP__OUTCOME__OUTCOME_FAILED);
}

static void consider(struct batch *self, uint32_t number)
{
    struct light_entry *entry = &self->entries[number];
    bool target = self->run->targets[batch_place(self, number)->to] != NULL;
    if (entry->resolved)
        return;
    if (self->run->cells[entry->cell].step != CELL_RUNS || is_nothing(entry->ends[PROBING]) ||
        is_nothing(entry->ends[LISTENING]))
        batch_entry_again(self, number, false, "it was stopped");
    else if (entry->ends[PROBING] && (entry->ends[LISTENING] || target))
        conclude(self, number);
}

// Nothing more will be heard of this probe. True if that is settled: it was probed, and tried often
// enough, so that what is missing is said to be unknown.
bool ports_end(struct batch *self, uint32_t number)
{
    const struct run *run = self->run;
    const struct light_entry *entry = &self->entries[number];
    if (!entry->ends[PROBING] || is_nothing(entry->ends[PROBING]) ||
        run->cells[entry->cell].step != CELL_RUNS ||
        run->cells[entry->cell].attempts <= run->options.retries)
        return false;
    conclude(self, number);
    return true;
}

void ports_close_if_probed(struct batch *self)
{
    Mp__LightClose close = MP__LIGHT_CLOSE__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    if (self->closing || self->ending)
        return;
    for (uint32_t i = 0; i < self->agent_count; i++) {
        const struct light_agent *agent = &self->agents[i];
        if (agent->probed > 0 && !agent->done && !agent->out)
            return;
    }
    self->closing = true;
    close.batch = (ProtobufCBinaryData){ID_SIZE, self->id};
    batch_deadline(self, CLOSED_DEADLINE_NS);
    for (uint32_t i = 0; i < self->agent_count; i++) {
        struct light_agent *agent = &self->agents[i];
        envelope.body_case = MP__ENVELOPE__BODY_LIGHT_CLOSE;
        envelope.light_close = &close;
        if (!agent->out && listens(agent) && !agent->heard &&
            batch_send(self, agent, &envelope) != 0)
            batch_leave_out(self, agent, true, "it went away");
    }
}

static void keep(struct batch *self, struct light_agent *agent, const Mp__LightOutcome *outcome,
    struct receipt *receipt)
{
    struct light_entry *entry = batch_entry(self, &outcome->test_id);
    int end = outcome->has_far && outcome->far ? LISTENING : PROBING;
    if (!entry || entry->resolved || entry->ends[end])
        return;
    uint32_t number = (uint32_t)(entry - self->entries);
    const struct cell_place *place = batch_place(self, number);
    if ((end == LISTENING ? place->to : place->from) != agent->index)
        return;
    entry->ends[end] = (Mp__LightOutcome *)wire_copy(&outcome->base);
    entry->receipts[end] = receipt;
    receipt->cells++;
    consider(self, number);
}

// An agent has told all of one kind: what it left out will not come.
static void told_all(struct batch *self, const struct light_agent *agent, int end)
{
    uint32_t from = end == PROBING ? 0 : agent->probed;
    uint32_t to = end == PROBING ? agent->probed : agent->peer_count;
    for (uint32_t i = from; i < to; i++) {
        struct light_entry *entry = &self->entries[agent->peers[i]];
        if (!entry->resolved && !entry->ends[end])
            batch_entry_again(self, agent->peers[i], false, "an agent left it out of its results");
    }
}

bool ports_result(struct batch *self, struct light_agent *agent, const Mp__LightResult *result)
{
    bool far = result->n_outcomes > 0 && result->outcomes[0]->has_far && result->outcomes[0]->far;
    if (far ? agent->heard : agent->done)
        return false;
    struct receipt *receipt = receipt_new(agent->host->agent_id, result->sequence);
    for (size_t i = 0; i < result->n_outcomes; i++)
        keep(self, agent, result->outcomes[i], receipt);
    receipt_settle(self->run->director, &receipt);
    uint32_t *seen = far ? &agent->heard_parts_seen : &agent->parts_seen;
    if (++*seen >= result->parts) {
        *(far ? &agent->heard : &agent->done) = true;
        told_all(self, agent, far ? LISTENING : PROBING);
    }
    if (!batch_settle(self))
        ports_close_if_probed(self);
    return true;
}

// ---------------------------------------------------------------------------------------- choosing

// Each agent probes at most a batch's share, beginning with its neighbour to the right in the order
// of names, so that no host is everybody's first destination.
uint32_t ports_thin(struct run *run, uint32_t *cells, uint32_t count)
{
    size_t share = planner_probes_a_batch(&run->options.phases[run->phase].spec);
    uint32_t *heard = zmalloc((run->agent_count + 1) * sizeof *heard), kept = 0;
    bool *take = zmalloc(count + 1);
    for (uint32_t first = 0, end; first < count; first = end) {
        uint32_t from = run->places[cells[first]].from, right = first, taken = 0;
        for (end = first; end < count && run->places[cells[end]].from == from; end++)
            right += run->places[cells[end]].to < from;
        for (uint32_t i = 0; i < end - first && taken < share; i++) {
            uint32_t at = first + (right - first + i) % (end - first);
            uint32_t to = run->places[cells[at]].to;
            if (heard[to] >= LISTENS_A_BATCH * share)
                continue;
            heard[to]++;
            taken++;
            take[at] = true;
        }
    }
    for (uint32_t i = 0; i < count; i++)
        if (take[i])
            cells[kept++] = cells[i];
    free(heard);
    free(take);
    return kept;
}
