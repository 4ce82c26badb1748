#include "reaches.h"

#include <sodium.h>

#include "reach_thread.h"
#include "report_wire.h"
#include "worker.h"

#define BATCHES_MAX 64
#define PEERS_MAX 65536    // of all batches together
#define OUTCOMES_A_PART 64 // under WIRE_PART_BYTES even with the longest reasons
#define EXPIRY_MAX_NS (3600 * NS_PER_S)

struct batch {
    reaches_t *reaches;
    uint8_t id[TICKET_ID_SIZE];
    struct testspec spec;
    struct reach_peer *peers;
    size_t count;
    uint32_t parts, parts_seen;
    uint8_t *part_seen; // one byte a part
    uint64_t expiry_timer;
    bool armed;
    char refused[GUARD_TEXT_SIZE];
    struct batch *next;
};

struct reaches {
    const struct guard *guard;
    timers_t *timers;
    const struct clock *clock;
    struct reaches_ops ops;
    struct worker worker;
    struct batch *batches;
    size_t count, peers;
};

// --------------------------------------------------------------------------------- life of batches

static struct batch **find(reaches_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    struct batch **at = &self->batches;
    while (*at && memcmp((*at)->id, id, TICKET_ID_SIZE) != 0)
        at = &(*at)->next;
    return at;
}

static void order(reaches_t *self, enum reach_order_kind kind, const struct batch *batch,
    const void *values, size_t size)
{
    struct reach_order head = {.kind = kind};
    if (batch) {
        memcpy(head.batch, batch->id, sizeof head.batch);
        head.spec = batch->spec;
        head.count = batch->count;
    }
    (void)zmq_send(zsock_resolve(self->worker.pipe), &head, sizeof head, ZMQ_SNDMORE);
    (void)zmq_send(zsock_resolve(self->worker.pipe), values, size, 0);
}

static void batch_destroy(struct batch **at)
{
    struct batch *batch = *at;
    reaches_t *self = batch->reaches;
    if (batch->armed)
        order(self, REACH_STOP, batch, NULL, 0);
    timers_cancel(self->timers, &batch->expiry_timer);
    if (batch->count)
        sodium_memzero(batch->peers, batch->count * sizeof *batch->peers);
    self->peers -= batch->count;
    self->count--;
    *at = batch->next;
    free(batch->peers);
    free(batch->part_seen);
    free(batch);
}

static void batch_expired(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    struct batch *batch = arg;
    batch->expiry_timer = 0;
    batch_destroy(find(batch->reaches, batch->id));
}

bool reaches_knows(const Mp__TestSpec *spec)
{
    return spec->kind == MP__TEST_KIND__PORT || spec->kind == MP__TEST_KIND__PATH;
}

static struct batch *batch_new(reaches_t *self, const Mp__LightArm *arm)
{
    struct batch *batch = zmalloc(sizeof *batch);
    int64_t expiry_ns = arm->expiry_ns < EXPIRY_MAX_NS ? arm->expiry_ns : EXPIRY_MAX_NS;
    char reason[256];
    batch->reaches = self;
    memcpy(batch->id, arm->batch.data, TICKET_ID_SIZE);
    batch->parts = arm->parts;
    batch->part_seen = zmalloc(arm->parts);
    batch->expiry_timer =
        timers_at(self->timers, clock_mono(self->clock) + expiry_ns, batch_expired, batch);
    if (testspec_from_wire(arm->spec, &batch->spec, reason) != 0)
        snprintf(batch->refused, sizeof batch->refused, "this agent knows no such probe");
    batch->next = self->batches;
    self->batches = batch;
    self->count++;
    return batch;
}

reaches_t *reaches_new(const struct guard *guard, timers_t *timers, const struct clock *clock,
    const struct reaches_ops *ops)
{
    reaches_t *self = zmalloc(sizeof *self);
    self->guard = guard;
    self->timers = timers;
    self->clock = clock;
    self->ops = *ops;
    struct reach_assignment *assignment = zmalloc(sizeof *assignment);
    assignment->guard = *guard;
    if (!worker_start(&self->worker, reach_thread, assignment, &assignment->pipe))
        reaches_destroy(&self);
    return self;
}

void reaches_destroy(reaches_t **self_p)
{
    reaches_t *self = *self_p;
    if (!self)
        return;
    reaches_stop_all(self);
    if (self->worker.runs)
        order(self, REACH_QUIT, NULL, NULL, 0);
    worker_end(&self->worker);
    free(self);
    *self_p = NULL;
}

zsock_t *reaches_events(const reaches_t *self)
{
    return self->worker.pipe;
}

size_t reaches_results(uint32_t parts)
{
    return 8 * (size_t)parts + 2;
}

void reaches_stop(reaches_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    struct batch **at = find(self, id);
    if (*at)
        batch_destroy(at);
}

void reaches_stop_all(reaches_t *self)
{
    while (self->batches)
        batch_destroy(&self->batches);
}

// ----------------------------------------------------------------------------------------- arming

static void peer_take(struct batch *batch, const Mp__LightPeer *from)
{
    struct reach_peer *peer = &batch->peers[batch->count];
    memset(peer, 0, sizeof *peer);
    ticket_derive(from->test_id.data, from->key.data, &peer->keys);
    snprintf(peer->local_address, sizeof peer->local_address, "%s", from->local_address);
    snprintf(peer->peer_address, sizeof peer->peer_address, "%s", from->peer_address);
    if (!from->has_port || !from->has_transport)
        snprintf(batch->refused, sizeof batch->refused, "a probe without a port");
    peer->port = (struct port){from->transport, (uint16_t)from->port};
    peer->probes = from->probes;
    peer->target = from->has_target && from->target;
    peer->arm = from->has_arm && from->arm;
    peer->skip = !guard_peer_allowed(batch->reaches->guard, from->peer_address);
    batch->count++;
}

static void part_take(struct batch *batch, const Mp__LightArm *arm)
{
    reaches_t *self = batch->reaches;
    if (self->peers + arm->n_peers > PEERS_MAX) {
        snprintf(batch->refused, sizeof batch->refused,
            "this agent has too many port probes in flight (%zu)", self->peers);
        return;
    }
    size_t room = batch->count + arm->n_peers + 1;
    batch->peers = realloc(batch->peers, room * sizeof *batch->peers);
    if (!batch->peers)
        abort();
    for (size_t i = 0; i < arm->n_peers; i++)
        peer_take(batch, arm->peers[i]);
    self->peers += arm->n_peers;
}

static void batch_arm(struct batch *batch)
{
    reaches_t *self = batch->reaches;
    if (!*batch->refused) {
        // Judged as light probes are: this many a second, together.
        struct testspec judged = batch->spec;
        judged.probe_rate = judged.agent_rate;
        (void)guard_admit_light(self->guard, &judged, 1, batch->refused);
    }
    if (!*batch->refused) {
        order(self, REACH_ARM, batch, batch->peers, batch->count * sizeof *batch->peers);
        batch->armed = true;
    }
    self->ops.armed(self->ops.ctx, batch->id, *batch->refused ? batch->refused : NULL);
}

void reaches_arm(reaches_t *self, const Mp__LightArm *arm)
{
    struct batch *batch = *find(self, arm->batch.data);
    if (!batch && self->count >= BATCHES_MAX) {
        self->ops.armed(self->ops.ctx, arm->batch.data,
            "this agent has too many batches of port probes in flight");
        return;
    }
    if (!batch)
        batch = batch_new(self, arm);
    if (batch->parts_seen == batch->parts)
        self->ops.armed(self->ops.ctx, batch->id, *batch->refused ? batch->refused : NULL);
    if (batch->parts_seen == batch->parts || arm->parts != batch->parts ||
        batch->part_seen[arm->part])
        return;
    batch->part_seen[arm->part] = 1;
    part_take(batch, arm);
    if (++batch->parts_seen == batch->parts)
        batch_arm(batch);
}

static bool listed(const Mp__LightGo *go, const uint8_t id[TICKET_ID_SIZE])
{
    for (size_t i = 0; i < go->n_services; i++)
        if (memcmp(go->services[i].data, id, TICKET_ID_SIZE) == 0)
            return true;
    return false;
}

void reaches_go(reaches_t *self, const Mp__LightGo *go)
{
    struct batch *batch = *find(self, go->batch.data);
    if (!batch || !batch->armed)
        return;
    if (go->has_open && go->open) {
        order(self, REACH_OPEN, batch, NULL, 0);
        return;
    }
    bool *services = zmalloc(batch->count + 1);
    for (size_t i = 0; i < batch->count; i++)
        services[i] = listed(go, batch->peers[i].keys.id);
    order(self, REACH_GO, batch, services, batch->count);
    free(services);
}

void reaches_close(reaches_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    struct batch *batch = *find(self, id);
    if (batch && batch->armed)
        order(self, REACH_CLOSE, batch, NULL, 0);
}

// ---------------------------------------------------------------------------------------- results

static void forbid(const struct reach_peer *peer, struct reach_outcome *outcome)
{
    memset(outcome, 0, sizeof *outcome);
    outcome->outcome = PROBE_SKIPPED;
    snprintf(outcome->reason, sizeof outcome->reason,
        "guard: peers: %.64s is no peer that this host's owner allows", peer->peer_address);
}

static void send_parts(struct batch *batch, Mp__LightOutcome **list, size_t count)
{
    reaches_t *self = batch->reaches;
    uint32_t parts = (uint32_t)((count + OUTCOMES_A_PART - 1) / OUTCOMES_A_PART);
    for (uint32_t part = 0; part < parts; part++) {
        size_t from = (size_t)part * OUTCOMES_A_PART;
        Mp__LightResult result = MP__LIGHT_RESULT__INIT;
        result.batch = (ProtobufCBinaryData){TICKET_ID_SIZE, batch->id};
        result.part = part;
        result.parts = parts;
        result.outcomes = list + from;
        result.n_outcomes = count - from < OUTCOMES_A_PART ? count - from : OUTCOMES_A_PART;
        self->ops.result(self->ops.ctx, &result);
    }
}

// The findings of one end: what this agent probed, or what it listened for.
static void report(struct batch *batch, struct reach_outcome *outcomes, bool far)
{
    size_t count = 0;
    Mp__LightOutcome **list = zmalloc((batch->count + 1) * sizeof *list);
    for (size_t i = 0; i < batch->count; i++) {
        const struct reach_peer *peer = &batch->peers[i];
        if (peer->probes == far)
            continue;
        if (peer->skip)
            forbid(peer, &outcomes[i]);
        list[count++] = reach_to_wire(peer->keys.id, &outcomes[i], far);
    }
    send_parts(batch, list, count);
    for (size_t i = 0; i < count; i++)
        mp__light_outcome__free_unpacked(list[i], NULL);
    free(list);
}

// The same of the paths that this agent walked.
static void report_paths(struct batch *batch, struct path_outcome *outcomes)
{
    size_t count = 0;
    Mp__LightOutcome **list = zmalloc((batch->count + 1) * sizeof *list);
    for (size_t i = 0; i < batch->count; i++) {
        const struct reach_peer *peer = &batch->peers[i];
        struct reach_outcome forbidden;
        if (!peer->probes)
            continue;
        if (peer->skip)
            forbid(peer, &forbidden);
        list[count++] = peer->skip ? reach_to_wire(peer->keys.id, &forbidden, false)
                                   : path_to_wire(peer->keys.id, &outcomes[i]);
    }
    send_parts(batch, list, count);
    for (size_t i = 0; i < count; i++)
        mp__light_outcome__free_unpacked(list[i], NULL);
    free(list);
}

static void tell_opened(struct batch *batch, const bool *services)
{
    Mp__LightOpened opened = MP__LIGHT_OPENED__INIT;
    opened.batch = (ProtobufCBinaryData){TICKET_ID_SIZE, batch->id};
    opened.services = zmalloc((batch->count + 1) * sizeof *opened.services);
    for (size_t i = 0; i < batch->count; i++)
        if (services[i])
            opened.services[opened.n_services++] =
                (ProtobufCBinaryData){TICKET_ID_SIZE, batch->peers[i].keys.id};
    batch->reaches->ops.opened(batch->reaches->ops.ctx, &opened);
    free(opened.services);
}

static void answer_take(struct batch *batch, const struct reach_answer *head, zmq_msg_t *values)
{
    if (head->kind == REACH_OPENED) {
        assert(zmq_msg_size(values) == batch->count * sizeof(bool));
        tell_opened(batch, zmq_msg_data(values));
        return;
    }
    if (head->kind == REACH_PROBED && batch->spec.kind == TEST_PATH) {
        assert(zmq_msg_size(values) == batch->count * sizeof(struct path_outcome));
        report_paths(batch, zmq_msg_data(values));
        return;
    }
    assert(zmq_msg_size(values) == batch->count * sizeof(struct reach_outcome));
    report(batch, zmq_msg_data(values), head->kind == REACH_HEARD);
}

void reaches_turn(reaches_t *self)
{
    struct reach_answer head;
    while (zmq_recv(zsock_resolve(self->worker.pipe), &head, sizeof head, ZMQ_DONTWAIT) ==
           (int)sizeof head) {
        zmq_msg_t values;
        zmq_msg_init(&values);
        bool whole = zmq_msg_recv(&values, zsock_resolve(self->worker.pipe), 0) >= 0;
        struct batch *batch = *find(self, head.batch);
        if (whole && batch && head.count == batch->count)
            answer_take(batch, &head, &values);
        zmq_msg_close(&values);
    }
}
