// How a batch of light probes gets ready: each agent's list of peers goes out in parts, and all
// have said that they are armed, or are left out, before any of them probes.

#include "director_parts.h"

#include <sodium.h>

#define CHUNK_PARTS 64 // parts sent in one go

// ------------------------------------------------------------------------------------ lists go out

static void entry_key(const struct batch *self, uint32_t entry, uint8_t key[KEY_SIZE])
{
    crypto_generichash(key, KEY_SIZE, self->entries[entry].id, ID_SIZE, self->secret, KEY_SIZE);
}

struct arm_part {
    Mp__LightPeer peers[LIGHT_PEERS_A_PART];
    Mp__LightPeer *list[LIGHT_PEERS_A_PART];
    uint8_t keys[LIGHT_PEERS_A_PART][KEY_SIZE];
    size_t count;
};

static void part_add(const struct batch *self, const struct light_agent *agent, uint32_t entry,
    struct arm_part *part)
{
    const struct run *run = self->run;
    const struct cell_place *place = batch_place(self, entry);
    bool probes = place->from == agent->index;
    uint32_t other = probes ? place->to : place->from;
    const struct agent *mine = run_agent(run, agent->index), *theirs = run_agent(run, other);
    const char *local, *remote;
    if (!mine || !theirs || !planner_addresses(&self->spec, mine, theirs, &local, &remote))
        return;
    Mp__LightPeer *peer = &part->peers[part->count];
    mp__light_peer__init(peer);
    entry_key(self, entry, part->keys[part->count]);
    peer->test_id = (ProtobufCBinaryData){ID_SIZE, self->entries[entry].id};
    peer->key = (ProtobufCBinaryData){KEY_SIZE, part->keys[part->count]};
    peer->probes = probes;
    peer->local_address = (char *)local;
    peer->peer_address = (char *)remote;
    peer->peer_name = run->names[other];
    peer->peer_port = theirs->data_port;
    if (self->ports)
        ports_part(self, entry, probes, peer);
    part->list[part->count++] = peer;
}

static int send_part(struct batch *self, const struct light_agent *agent)
{
    director_t *director = self->run->director;
    struct arm_part *part = zmalloc(sizeof *part);
    uint32_t first = agent->part * LIGHT_PEERS_A_PART;
    for (uint32_t i = first; i < agent->peer_count && i < first + LIGHT_PEERS_A_PART; i++)
        part_add(self, agent, agent->peers[i], part);
    Mp__TestSpec spec = MP__TEST_SPEC__INIT;
    testspec_to_wire(&self->spec, &spec);
    Mp__LightArm arm = MP__LIGHT_ARM__INIT;
    arm.batch = (ProtobufCBinaryData){ID_SIZE, self->id};
    arm.part = agent->part;
    arm.parts = agent->parts;
    arm.spec = &spec;
    arm.expiry_ns = (self->ports ? ports_duration_ns(self) : self->spec.duration_ns) +
                    ARMED_DEADLINE_NS + LIGHT_MARGIN_NS;
    arm.epoch = director->epoch;
    arm.peers = part->list;
    arm.n_peers = part->count;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_LIGHT_ARM;
    envelope.light_arm = &arm;
    int rc = director->ops.send(director->ops.ctx, agent->host->agent_id, &envelope);
    sodium_memzero(part->keys, sizeof part->keys);
    free(part);
    return rc;
}

static void arm_some(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    struct batch *self = arg;
    unsigned left = CHUNK_PARTS;
    bool more = false;
    self->send_timer = 0;
    for (uint32_t i = 0; i < self->agent_count; i++) {
        struct light_agent *agent = &self->agents[i];
        while (left > 0 && !agent->out && agent->part < agent->parts) {
            int rc = send_part(self, agent);
            if (rc == -EAGAIN)
                break;
            left--;
            agent->part++;
            if (rc == 0)
                continue;
            agent->host->unreachable = true;
            batch_leave_out(self, agent, true, "it went away");
        }
        more = more || (!agent->out && agent->part < agent->parts);
    }
    if (batch_settle(self))
        return;
    if (more)
        self->send_timer = timers_after(
            self->run->director->timers, left == 0 ? 0 : SEND_AGAIN_NS, arm_some, self);
    else
        batch_go_if_armed(self);
}

// ------------------------------------------------------------------------------- answers come back

static bool is_to_arm(const struct light_agent *agent)
{
    return !agent->armed && !agent->out;
}

void batch_go_if_armed(struct batch *self)
{
    if (batch_awaits(self, is_to_arm))
        return;
    if (self->going || self->ending || self->unresolved == 0)
        return;
    if (self->ports)
        ports_open(self);
    else
        batch_go(self);
}

static void batch_not_armed(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    struct batch *self = arg;
    self->timer = 0;
    batch_leave_out_late(self, is_to_arm, "prepare for probes", ARMED_DEADLINE_NS);
    if (!batch_settle(self))
        batch_go_if_armed(self);
}

void batch_armed(struct batch *self, uint32_t agent_id, const Mp__LightArmed *armed)
{
    struct light_agent *agent = batch_agent(self, agent_id);
    if (!agent || agent->armed || agent->out || self->going)
        return;
    if (armed->refused && *armed->refused) {
        char why[512];
        snprintf(
            why, sizeof why, "%s refuses: %.400s", self->run->names[agent->index], armed->refused);
        batch_refused(self, agent, why);
    }
    agent->armed = true;
    if (!batch_settle(self))
        batch_go_if_armed(self);
}

void batch_arm(struct batch *self)
{
    timers_t *timers = self->run->director->timers;
    self->timer = timers_after(timers, ARMED_DEADLINE_NS, batch_not_armed, self);
    self->send_timer = timers_after(timers, 0, arm_some, self);
}
