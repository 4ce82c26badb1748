// Agents that are there: their sessions from HELLO to the end, and what happens when two processes
// have the same key.

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "server_parts.h"

#define SWEEP_NS (500 * NS_PER_MS)
#define LEASE_NS (SERVER_LEASE_MS * NS_PER_MS)
#define NEWCOMER_WAIT_NS (5 * NS_PER_S) // longer than a busy host stands still

// ------------------------------------------------------------------------------------- talking

void session_send(struct server *self, struct session *session, Mp__Envelope *envelope)
{
    struct peer *peer = gateway_find(self->gateway, &session->peer);
    if (!peer)
        return;
    envelope->has_session = true;
    envelope->session.data = session->id;
    envelope->session.len = ID_SIZE;
    (void)!server_send(self, peer, envelope);
}

static void say_stop(struct server *self, struct session *session, ProtobufCBinaryData test_id)
{
    Mp__Stop stop = MP__STOP__INIT;
    stop.test_id = test_id;
    stop.reason = (char *)"the controller was restarted";
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_STOP;
    envelope.stop = &stop;
    session_send(self, session, &envelope);
}

void sessions_acknowledge(struct server *self)
{
    for (struct member *member; (member = zlistx_first(self->acks));) {
        zlistx_detach(self->acks, zlistx_cursor(self->acks));
        member->ack_due = false;
        if (!member->session)
            continue;
        Mp__ResultAck ack = MP__RESULT_ACK__INIT;
        ack.sequence = member->sequences.acknowledged;
        Mp__Envelope envelope = MP__ENVELOPE__INIT;
        envelope.body_case = MP__ENVELOPE__BODY_RESULT_ACK;
        envelope.result_ack = &ack;
        session_send(self, member->session, &envelope);
    }
}

// ---------------------------------------------------------------------- beginning and ending

static void session_free(struct session *session)
{
    session->member->session = NULL;
    free(session);
}

void session_end(struct server *self, struct session *session, bool orderly, const char *reason)
{
    struct member *member = session->member;
    struct agent *agent = registry_by_id(self->registry, member->agent_id);
    log_write(orderly ? LOG_INFO : LOG_WARN, "%s is lost: %s", agent->name, reason);
    session_free(session);
    agent->lost_mono_ns = clock_mono(self->clock);
    agent->running = 0;
    director_agent_lost(self->director, member->agent_id);
}

// Looked up by key, so that neither side holds a pointer to the other.
struct session *session_of(struct server *self, const struct peer *peer)
{
    struct agent *agent = registry_by_key(self->registry, peer->key);
    struct member *member = agent ? server_member(self, agent->id) : NULL;
    struct session *session = member ? member->session : NULL;
    return session && session->peer.number == peer->ref.number ? session : NULL;
}

// A cut connection ends its session at once. One that merely broke may come back within the lease.
void session_peer_gone(struct server *self, struct peer *peer, const char *reason)
{
    struct session *session = session_of(self, peer);
    if (!session)
        return;
    session->connected = false;
    if (strcmp(reason, "its connection ended") == 0)
        return;
    session_end(self, session, false, reason);
}

void newcomer_drop(struct server *self, struct member *member)
{
    struct newcomer *newcomer = member->newcomer;
    if (!newcomer)
        return;
    timers_cancel(self->timers, &newcomer->timer);
    mp__hello__free_unpacked(newcomer->hello, NULL);
    free(newcomer);
    member->newcomer = NULL;
}

void sessions_sweep(void *server, int64_t now_mono_ns)
{
    struct server *self = server;
    for (struct agent *agent = registry_next(self->registry, 0); agent;
         agent = registry_next(self->registry, agent->id)) {
        struct member *member = server_member(self, agent->id);
        if (!member || !member->session || now_mono_ns - agent->seen_mono_ns < LEASE_NS)
            continue;
        char reason[96];
        snprintf(reason, sizeof reason, "nothing was heard for %.1f s",
            (double)(now_mono_ns - agent->seen_mono_ns) / NS_PER_S);
        session_end(self, member->session, false, reason);
    }
    timers_after(self->timers, timers_jitter(SWEEP_NS, SWEEP_NS / 10), sessions_sweep, self);
}

static void welcome(struct server *self, struct member *member, struct agent *agent)
{
    Mp__Welcome welcome = MP__WELCOME__INIT;
    welcome.epoch = self->epoch;
    welcome.session.data = member->session->id;
    welcome.session.len = ID_SIZE;
    welcome.heartbeat_ms = SERVER_HEARTBEAT_MS;
    welcome.lease_ms = SERVER_LEASE_MS;
    welcome.name = agent->name;
    welcome.version = PROTO_VERSION;
    welcome.acknowledged = member->sequences.based ? member->sequences.acknowledged : 0;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_WELCOME;
    envelope.welcome = &welcome;
    session_send(self, member->session, &envelope);
}

// The part of a HELLO that is worth keeping, packed from values that were checked; nothing that the
// peer sent beyond them is stored. Empty on failure.
static uint8_t *hello_pack(const Mp__Hello *hello, size_t *size)
{
    static const uint8_t nobody[ID_SIZE];
    Mp__Hello known = *hello;
    Mp__Capabilities capabilities = *hello->capabilities;
    known.base.n_unknown_fields = capabilities.base.n_unknown_fields = 0;
    known.base.unknown_fields = capabilities.base.unknown_fields = NULL;
    known.capabilities = &capabilities;
    known.instance.data = (uint8_t *)nobody;
    known.wall_ns = 0;
    known.n_running = 0;
    known.n_labels = 0; // they are stored by themselves
    *size = mp__hello__get_packed_size(&known);
    uint8_t *bytes = zmalloc(*size + 1);
    mp__hello__pack(&known, bytes);
    return bytes;
}

static bool labels_equal(const struct member *member, Mp__Label *const *labels, size_t count)
{
    if (member->label_count[LABELS_OWN] != count)
        return false;
    for (size_t i = 0; i < count; i++)
        if (strcmp(member->labels[LABELS_OWN][i].key, labels[i]->key) != 0 ||
            strcmp(member->labels[LABELS_OWN][i].value, labels[i]->value) != 0)
            return false;
    return true;
}

// Takes over what the HELLO says; written only when it differs, for a thousand may return at once.
static void member_update(
    struct server *self, struct member *member, struct agent *agent, const Mp__Hello *hello)
{
    size_t size;
    uint8_t *bytes = hello_pack(hello, &size);
    bool same = size == member->hello_size && memcmp(bytes, member->hello, size) == 0 &&
                labels_equal(member, hello->labels, hello->n_labels);
    if (same) {
        free(bytes);
    } else {
        free(member->hello);
        member->hello = bytes;
        member->hello_size = size;
        member_set_labels(member, LABELS_OWN, hello->labels, hello->n_labels);
        member_apply_labels(self, member, agent);
        member_persist(self, member, NULL, NULL);
    }
    if (!same || !agent->capabilities)
        agent_apply_hello(agent, hello);
}

void session_begin(
    struct server *self, struct peer *peer, struct agent *agent, const Mp__Hello *hello)
{
    struct member *member = server_member(self, agent->id);
    bool fresh =
        !member->instance_known || memcmp(member->instance, hello->instance.data, ID_SIZE) != 0;
    bool stale = !member->instance_known; // what it runs was begun by an earlier life of ours
    if (member->session)
        session_free(member->session);
    if (fresh)
        sequences_reset(&member->sequences);
    memcpy(member->instance, hello->instance.data, ID_SIZE);
    member->instance_known = true;

    struct session *session = zmalloc(sizeof *session);
    session->member = member;
    session->peer = peer->ref;
    session->connected = true;
    session->since_wall_ns = clock_wall(self->clock);
    session->since_mono_ns = clock_mono(self->clock);
    randombytes_buf(session->id, ID_SIZE);
    const char *hostname = hello->capabilities->hostname;
    snprintf(session->host, sizeof session->host, "%s%s%.64s%s", peer->address,
        hostname ? " (" : "", hostname ? hostname : "", hostname ? ")" : "");
    member->session = session;

    member_update(self, member, agent, hello);
    agent->clock_offset_s = (double)(hello->wall_ns - clock_wall(self->clock)) / NS_PER_S;
    agent->seen_mono_ns = clock_mono(self->clock);
    agent->seen_wall_ns = session->since_wall_ns;
    agent->lost_mono_ns = 0;
    agent->running = (uint32_t)hello->n_running;
    welcome(self, member, agent);
    for (size_t i = 0; stale && i < hello->n_running; i++)
        say_stop(self, session, hello->running[i]);
    log_info("%s registered from %s (meshperf %s)%s", agent->name, session->host, agent->software,
        fresh ? "" : ", again");
    director_agent_up(self->director, agent->id, fresh);
}

// --------------------------------------------------------------------------- two with the same key

void newcomer_refuse(struct server *self, struct member *member)
{
    struct agent *agent = registry_by_id(self->registry, member->agent_id);
    struct peer *peer = gateway_find(self->gateway, &member->newcomer->peer);
    char since[CLOCK_ISO_SIZE];
    clock_iso8601(member->session->since_wall_ns, since);
    if (peer) {
        server_complain(self, "%s: a second process at %s uses the identity that %s has in use",
            agent->name, peer->address, member->session->host);
        server_refuse(self, peer, MP__REFUSED__CODE__IDENTITY_IN_USE,
            "this identity is in use by %s since %s", member->session->host, since);
    }
    newcomer_drop(self, member);
}

static void newcomer_admit(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    struct member *member = arg;
    struct server *self = member->server;
    struct newcomer *newcomer = member->newcomer;
    struct agent *agent = registry_by_id(self->registry, member->agent_id);
    struct peer *peer = gateway_find(self->gateway, &newcomer->peer);
    newcomer->timer = 0;
    if (peer)
        session_begin(self, peer, agent, newcomer->hello);
    newcomer_drop(self, member);
}

bool newcomer_hold(
    struct server *self, struct member *member, struct peer *peer, const Mp__Hello *hello)
{
    struct peer *present = gateway_find(self->gateway, &member->session->peer);
    if (!present)
        return false;
    uint64_t nonce;
    randombytes_buf(&nonce, sizeof nonce);
    Mp__Ping ping = MP__PING__INIT;
    ping.nonce = nonce;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_PING;
    envelope.ping = &ping;
    envelope.has_session = true;
    envelope.session.data = member->session->id;
    envelope.session.len = ID_SIZE;
    if (server_send(self, present, &envelope) != 0)
        return false;
    struct newcomer *newcomer = zmalloc(sizeof *newcomer);
    newcomer->peer = peer->ref;
    newcomer->hello = (Mp__Hello *)wire_copy(&hello->base);
    newcomer->nonce = nonce;
    newcomer->timer = timers_after(self->timers, NEWCOMER_WAIT_NS, newcomer_admit, member);
    member->newcomer = newcomer;
    return true;
}
