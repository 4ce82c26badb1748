#include "lights.h"

#include <errno.h>
#include <sodium.h>
#include <sys/eventfd.h>

#include "errors.h"
#include "log.h"
#include "report_wire.h"
#include "worker.h"

#define BATCHES_MAX 1024
#define PEERS_MAX 65536     // of all batches together
#define OUTCOMES_A_PART 128 // under WIRE_PART_BYTES even with the longest reasons
#define EXPIRY_MAX_NS (25 * 3600 * NS_PER_S)

struct peer {
    struct light_peer engine;
    bool probes, allowed;
};

struct batch {
    lights_t *lights;
    uint8_t id[TICKET_ID_SIZE];
    struct testspec spec;
    struct peer *peers;
    size_t count;
    uint32_t parts, parts_seen;
    uint8_t *part_seen; // one byte a part
    uint64_t expiry_timer;
    int64_t expiry_mono_ns;
    int stop_fd; // -1: no job
    bool armed, going, expired;
    char refused[GUARD_TEXT_SIZE];
    struct batch *next;
};

// To the thread: the job, then its peers. Back: the job, the summary, the outcomes.
struct job {
    uint8_t batch[TICKET_ID_SIZE];
    struct testspec spec;
    size_t count;
    int stop_fd;
    bool quit;
};

// What the thread starts with; its own.
struct assignment {
    void (*run)(const struct testspec *spec, const struct light_peer *peers, size_t count,
        spin_t *spin, int stop_fd, struct light_outcome *outcomes, struct light_summary *summary);
    spin_t *spin;
    zsock_t *pipe;
};

struct lights {
    const struct guard *guard;
    dataport_t *port;
    timers_t *timers;
    const struct clock *clock;
    struct lights_ops ops;
    struct worker worker;
    struct batch *batches;
    size_t count, peers;
};

// --------------------------------------------------------------------------- in the probing thread

static void job_run(struct assignment *self, const struct job *job, const struct light_peer *peers)
{
    void *socket = zsock_resolve(self->pipe);
    struct light_outcome *outcomes = zmalloc((job->count + 1) * sizeof *outcomes);
    struct light_summary summary;
    memset(&summary, 0, sizeof summary);
    if (job->count > 0) // the guard may have left nobody to ask
        self->run(&job->spec, peers, job->count, self->spin, job->stop_fd, outcomes, &summary);
    (void)zmq_send(socket, job, sizeof *job, ZMQ_SNDMORE);
    (void)zmq_send(socket, &summary, sizeof summary, ZMQ_SNDMORE);
    (void)zmq_send(socket, outcomes, job->count * sizeof *outcomes, 0);
    free(outcomes);
}

static void *lights_main(void *arg)
{
    struct assignment *self = arg;
    void *socket = zsock_resolve(self->pipe);
    struct job job;
    while (zmq_recv(socket, &job, sizeof job, 0) == (int)sizeof job && !job.quit) {
        zmq_msg_t peers;
        zmq_msg_init(&peers);
        if (zmq_msg_recv(&peers, socket, 0) >= 0)
            job_run(self, &job, zmq_msg_data(&peers));
        sodium_memzero(zmq_msg_data(&peers), zmq_msg_size(&peers));
        zmq_msg_close(&peers);
    }
    zsock_destroy(&self->pipe);
    free(self);
    return NULL;
}

// --------------------------------------------------------------------------------- life of batches

static struct batch **find(lights_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    struct batch **at = &self->batches;
    while (*at && memcmp((*at)->id, id, TICKET_ID_SIZE) != 0)
        at = &(*at)->next;
    return at;
}

static void batch_stop(struct batch *batch)
{
    uint64_t one = 1;
    if (batch->stop_fd >= 0 && write(batch->stop_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        log_error("light probes could not be stopped: %s", strerror(errno));
}

static void batch_destroy(struct batch **at)
{
    struct batch *batch = *at;
    lights_t *self = batch->lights;
    timers_cancel(self->timers, &batch->expiry_timer);
    for (size_t i = 0; i < batch->count; i++) {
        struct peer *peer = &batch->peers[i];
        if (batch->armed && !peer->probes && peer->allowed)
            dataport_unreflect(self->port, peer->engine.keys.id);
    }
    if (batch->count)
        sodium_memzero(batch->peers, batch->count * sizeof *batch->peers);
    self->peers -= batch->count;
    self->count--;
    if (batch->stop_fd >= 0)
        close(batch->stop_fd);
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
    batch->expired = true;
    // A job that runs still holds it; its end comes at once.
    if (batch->going)
        batch_stop(batch);
    else
        batch_destroy(find(batch->lights, batch->id));
}

static struct batch *batch_new(lights_t *self, const Mp__LightArm *arm)
{
    struct batch *batch = zmalloc(sizeof *batch);
    int64_t expiry_ns = arm->expiry_ns < EXPIRY_MAX_NS ? arm->expiry_ns : EXPIRY_MAX_NS;
    char reason[256];
    batch->lights = self;
    memcpy(batch->id, arm->batch.data, TICKET_ID_SIZE);
    batch->parts = arm->parts;
    batch->part_seen = zmalloc(arm->parts);
    batch->stop_fd = -1;
    batch->expiry_mono_ns = clock_mono(self->clock) + expiry_ns;
    batch->expiry_timer = timers_at(self->timers, batch->expiry_mono_ns, batch_expired, batch);
    if (testspec_from_wire(arm->spec, &batch->spec, reason) != 0 ||
        batch->spec.kind != TEST_LATENCY)
        snprintf(batch->refused, sizeof batch->refused, "this agent knows no such light probe");
    batch->next = self->batches;
    self->batches = batch;
    self->count++;
    return batch;
}

lights_t *lights_new(const struct guard *guard, dataport_t *port, spin_t *spin, timers_t *timers,
    const struct clock *clock, const struct lights_ops *ops)
{
    lights_t *self = zmalloc(sizeof *self);
    self->guard = guard;
    self->port = port;
    self->timers = timers;
    self->clock = clock;
    self->ops = *ops;
    struct assignment *assignment = zmalloc(sizeof *assignment);
    assignment->run = ops->run;
    assignment->spin = spin;
    if (!worker_start(&self->worker, lights_main, assignment, &assignment->pipe))
        lights_destroy(&self);
    return self;
}

void lights_destroy(lights_t **self_p)
{
    lights_t *self = *self_p;
    if (!self)
        return;
    if (self->worker.runs) {
        struct job quit = {.quit = true};
        lights_stop_all(self);
        (void)zmq_send(zsock_resolve(self->worker.pipe), &quit, sizeof quit, 0);
    }
    worker_end(&self->worker);
    while (self->batches)
        batch_destroy(&self->batches);
    free(self);
    *self_p = NULL;
}

zsock_t *lights_events(const lights_t *self)
{
    return self->worker.pipe;
}

size_t lights_count(const lights_t *self)
{
    return self->count;
}

void lights_stop(lights_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    struct batch **at = find(self, id);
    if (!*at)
        return;
    // Its job may still be queued or running; its end destroys the batch.
    (*at)->expired = true;
    if ((*at)->going)
        batch_stop(*at);
    else
        batch_destroy(at);
}

void lights_stop_all(lights_t *self)
{
    for (struct batch **at = &self->batches; *at;) {
        if (!(*at)->going) {
            batch_destroy(at);
            continue;
        }
        batch_stop(*at);
        at = &(*at)->next;
    }
}

// ---------------------------------------------------------------------------------------- arming

static void part_take(struct batch *batch, const Mp__LightArm *arm)
{
    lights_t *self = batch->lights;
    if (self->peers + arm->n_peers > PEERS_MAX) {
        snprintf(batch->refused, sizeof batch->refused,
            "this agent has too many light probes in flight (%zu)", self->peers);
        return;
    }
    batch->peers = realloc(batch->peers, (batch->count + arm->n_peers + 1) * sizeof *batch->peers);
    if (!batch->peers)
        abort();
    for (size_t i = 0; i < arm->n_peers; i++) {
        const Mp__LightPeer *from = arm->peers[i];
        struct peer *peer = &batch->peers[batch->count++];
        memset(peer, 0, sizeof *peer);
        ticket_derive(from->test_id.data, from->key.data, &peer->engine.keys);
        snprintf(peer->engine.local_address, PROBE_ADDRESS_SIZE, "%s", from->local_address);
        snprintf(peer->engine.peer_address, PROBE_ADDRESS_SIZE, "%s", from->peer_address);
        peer->engine.peer_port = (uint16_t)from->peer_port;
        peer->probes = from->probes;
        peer->allowed = guard_peer_allowed(self->guard, from->peer_address);
    }
    self->peers += arm->n_peers;
}

static size_t probed(const struct batch *batch)
{
    size_t count = 0;
    for (size_t i = 0; i < batch->count; i++)
        count += batch->peers[i].probes && batch->peers[i].allowed;
    return count;
}

static void batch_arm(struct batch *batch)
{
    lights_t *self = batch->lights;
    batch->armed = true;
    if (!*batch->refused)
        (void)guard_admit_light(self->guard, &batch->spec, probed(batch), batch->refused);
    for (size_t i = 0; i < batch->count && !*batch->refused; i++) {
        const struct peer *peer = &batch->peers[i];
        if (peer->probes || !peer->allowed)
            continue;
        int result = dataport_reflect(self->port, &peer->engine.keys, peer->engine.local_address,
            batch->expiry_mono_ns, batch->spec.duration_ns);
        if (result)
            snprintf(batch->refused, sizeof batch->refused, "the data port %u cannot be opened: %s",
                dataport_number(self->port), mesh_strerror(result));
    }
    self->ops.armed(self->ops.ctx, batch->id, *batch->refused ? batch->refused : NULL);
}

void lights_arm(lights_t *self, const Mp__LightArm *arm)
{
    struct batch *batch = *find(self, arm->batch.data);
    if (!batch && self->count >= BATCHES_MAX) {
        self->ops.armed(self->ops.ctx, arm->batch.data,
            "this agent has too many batches of light "
            "probes in flight");
        return;
    }
    if (!batch)
        batch = batch_new(self, arm);
    if (batch->armed)
        self->ops.armed(self->ops.ctx, batch->id, *batch->refused ? batch->refused : NULL);
    if (batch->armed || arm->parts != batch->parts || batch->part_seen[arm->part])
        return;
    batch->part_seen[arm->part] = 1;
    part_take(batch, arm);
    if (++batch->parts_seen == batch->parts)
        batch_arm(batch);
}

void lights_go(lights_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    struct batch *batch = *find(self, id);
    if (!batch || !batch->armed || *batch->refused || batch->going || batch->stop_fd >= 0)
        return;
    struct job job = {.spec = batch->spec};
    size_t asked = 0;
    for (size_t i = 0; i < batch->count; i++)
        asked += batch->peers[i].probes;
    if (asked == 0)
        return;
    struct light_peer *peers = zmalloc((batch->count + 1) * sizeof *peers);
    for (size_t i = 0; i < batch->count; i++)
        if (batch->peers[i].probes && batch->peers[i].allowed)
            peers[job.count++] = batch->peers[i].engine;
    memcpy(job.batch, id, TICKET_ID_SIZE);
    job.stop_fd = batch->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    batch->going = true;
    void *socket = zsock_resolve(self->worker.pipe);
    (void)zmq_send(socket, &job, sizeof job, ZMQ_SNDMORE);
    (void)zmq_send(socket, peers, job.count * sizeof *peers, 0);
    sodium_memzero(peers, (batch->count + 1) * sizeof *peers);
    free(peers);
}

// --------------------------------------------------------------------------------------- results

static Mp__LightOutcome *skipped_by_guard(const struct peer *peer)
{
    struct light_outcome outcome;
    memset(&outcome, 0, sizeof outcome);
    outcome.outcome = PROBE_SKIPPED;
    snprintf(outcome.reason, sizeof outcome.reason,
        "guard: peers: %.64s is no peer that this host's owner allows", peer->engine.peer_address);
    return light_to_wire(peer->engine.keys.id, &outcome);
}

static void send_parts(
    struct batch *batch, const struct light_summary *summary, Mp__LightOutcome **list, size_t count)
{
    lights_t *self = batch->lights;
    uint32_t parts = (uint32_t)((count + OUTCOMES_A_PART - 1) / OUTCOMES_A_PART);
    for (uint32_t part = 0; part < parts; part++) {
        size_t from = (size_t)part * OUTCOMES_A_PART;
        Mp__LightResult result = MP__LIGHT_RESULT__INIT;
        result.batch = (ProtobufCBinaryData){TICKET_ID_SIZE, batch->id};
        result.part = part;
        result.parts = parts;
        result.stamps = *summary->stamps ? (char *)summary->stamps : NULL;
        result.technique = *summary->technique ? (char *)summary->technique : NULL;
        result.load = load_to_wire(&summary->load);
        result.outcomes = list + from;
        result.n_outcomes = count - from < OUTCOMES_A_PART ? count - from : OUTCOMES_A_PART;
        self->ops.result(self->ops.ctx, &result);
        if (result.load)
            mp__host_load__free_unpacked(result.load, NULL);
    }
}

// `outcomes` are those of the allowed peers, in the order of the list.
static void batch_report(
    struct batch *batch, const struct light_summary *summary, const struct light_outcome *outcomes)
{
    size_t count = 0, measured = 0;
    Mp__LightOutcome **list = zmalloc((batch->count + 1) * sizeof *list);
    for (size_t i = 0; i < batch->count; i++) {
        const struct peer *peer = &batch->peers[i];
        if (peer->probes && peer->allowed)
            list[count++] = light_to_wire(peer->engine.keys.id, &outcomes[measured++]);
        else if (peer->probes)
            list[count++] = skipped_by_guard(peer);
    }
    send_parts(batch, summary, list, count);
    for (size_t i = 0; i < count; i++)
        mp__light_outcome__free_unpacked(list[i], NULL);
    free(list);
}

void lights_turn(lights_t *self)
{
    void *socket = zsock_resolve(self->worker.pipe);
    struct job job;
    struct light_summary summary;
    zmq_msg_t outcomes;
    if (zmq_recv(socket, &job, sizeof job, ZMQ_DONTWAIT) != (int)sizeof job)
        return;
    zmq_msg_init(&outcomes);
    bool whole = zmq_recv(socket, &summary, sizeof summary, 0) == (int)sizeof summary &&
                 zmq_msg_recv(&outcomes, socket, 0) >= 0;
    struct batch **at = find(self, job.batch);
    assert(whole && *at);
    (void)whole;
    (*at)->going = false;
    batch_report(*at, &summary, zmq_msg_data(&outcomes));
    if ((*at)->expired)
        batch_destroy(at);
    zmq_msg_close(&outcomes);
}
