// What agents and hosts that join say: checked, given to its handler.

#include <sodium.h>
#include <string.h>

#include "errors.h"
#include "server_parts.h"

#define HELLO_RATE 200
#define RETRY_MIN_MS 500
#define RETRY_SPREAD_MS 4500

static void say_no_session(struct server *self, struct peer *peer, const char *text)
{
    Mp__NoSession no_session = MP__NO_SESSION__INIT;
    no_session.text = (char *)text;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_NO_SESSION;
    envelope.no_session = &no_session;
    (void)!server_send(self, peer, &envelope);
}

static void say_retry_after(struct server *self, struct peer *peer)
{
    Mp__RetryAfter retry = MP__RETRY_AFTER__INIT;
    retry.delay_ms = RETRY_MIN_MS + randombytes_uniform(RETRY_SPREAD_MS);
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_RETRY_AFTER;
    envelope.retry_after = &retry;
    (void)!server_send(self, peer, &envelope);
}

// ------------------------------------------------------------------------------------- handlers

// What a handler gets: the agent that speaks, its part here, and its session (NULL for HELLO).
struct speaker {
    struct server *server;
    struct peer *peer;
    struct agent *agent;
    struct member *member;
};

typedef void agent_handler(const struct speaker *speaker, Mp__Envelope *message);

// One that greets again and again must not use up what is admitted of others.
static bool hello_repeated(const struct speaker *who)
{
    const struct session *session = who->member->session;
    return session && session->peer.number == who->peer->ref.number &&
           clock_mono(who->server->clock) - session->since_mono_ns < NS_PER_S;
}

static void on_hello(const struct speaker *who, Mp__Envelope *message)
{
    struct server *self = who->server;
    const Mp__Hello *hello = message->hello;
    if (hello->version_min > PROTO_VERSION || hello->version_max < PROTO_VERSION_MIN) {
        server_complain(self, "%s: speaks protocol versions %u to %u, and this controller %d to %d",
            who->agent->name, hello->version_min, hello->version_max, PROTO_VERSION_MIN,
            PROTO_VERSION);
        server_refuse(self, who->peer, MP__REFUSED__CODE__VERSION,
            "this controller (meshperf " MESHPERF_VERSION
            ") speaks protocol versions %d to %d, and the agent (meshperf %s) %u to %u",
            PROTO_VERSION_MIN, PROTO_VERSION, hello->software, hello->version_min,
            hello->version_max);
        return;
    }
    if (who->member->enrolling || who->member->newcomer || hello_repeated(who) ||
        !rate_take(&self->hellos, HELLO_RATE, HELLO_RATE, clock_mono(self->clock))) {
        say_retry_after(self, who->peer);
        return;
    }
    struct session *present = who->member->session;
    bool same = memcmp(who->member->instance, hello->instance.data, ID_SIZE) == 0;
    if (present && !same && newcomer_hold(self, who->member, who->peer, hello))
        return;
    session_begin(self, who->peer, who->agent, hello);
}

static void on_heartbeat(const struct speaker *who, Mp__Envelope *message)
{
    const Mp__Heartbeat *heartbeat = message->heartbeat;
    who->agent->running = heartbeat->running;
    who->agent->spooled = heartbeat->has_spooled ? heartbeat->spooled : 0;
    if (heartbeat->has_wall_ns)
        who->agent->clock_offset_s =
            (double)(heartbeat->wall_ns - clock_wall(who->server->clock)) / NS_PER_S;
    Mp__HeartbeatAck ack = MP__HEARTBEAT_ACK__INIT;
    ack.sequence = heartbeat->sequence;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_HEARTBEAT_ACK;
    envelope.heartbeat_ack = &ack;
    session_send(who->server, who->member->session, &envelope);
}

static void on_pong(const struct speaker *who, Mp__Envelope *message)
{
    if (who->member->newcomer && who->member->newcomer->nonce == message->pong->nonce)
        newcomer_refuse(who->server, who->member);
}

static void on_goodbye(const struct speaker *who, Mp__Envelope *message)
{
    (void)message;
    session_end(who->server, who->member->session, true, "it said goodbye");
}

static void on_ready(const struct speaker *who, Mp__Envelope *message)
{
    director_ready(who->server->director, who->agent->id, message->ready);
}

static void on_progress(const struct speaker *who, Mp__Envelope *message)
{
    director_progress(who->server->director, who->agent->id, message->progress);
}

static void on_armed(const struct speaker *who, Mp__Envelope *message)
{
    director_light_armed(who->server->director, who->agent->id, message->light_armed);
}

static void on_opened(const struct speaker *who, Mp__Envelope *message)
{
    director_light_opened(who->server->director, who->agent->id, message->light_opened);
}

// True if this result is new and goes on to the director.
static bool result_arrived(const struct speaker *who, uint64_t sequence)
{
    struct member *member = who->member;
    switch (sequences_arrive(&member->sequences, sequence)) {
    case SEQUENCE_FRESH:
        return true;
    case SEQUENCE_SAFE:
        if (!member->ack_due) {
            member->ack_due = true;
            zlistx_add_end(who->server->acks, member);
        }
        return false;
    case SEQUENCE_DUPLICATE:
        return false;
    case SEQUENCE_BEYOND:
        break;
    }
    server_complain(who->server,
        "%s: its result %llu is far beyond what it may send unacknowledged", who->agent->name,
        (unsigned long long)sequence);
    return false;
}

static void on_result(const struct speaker *who, Mp__Envelope *message)
{
    if (result_arrived(who, message->result->sequence))
        director_result(who->server->director, who->agent->id, message->result);
}

static void on_light_result(const struct speaker *who, Mp__Envelope *message)
{
    if (result_arrived(who, message->light_result->sequence))
        director_light_result(who->server->director, who->agent->id, message->light_result);
}

static const struct {
    Mp__Envelope__BodyCase body;
    agent_handler *handle;
} handlers[] = {
    {MP__ENVELOPE__BODY_HELLO, on_hello},
    {MP__ENVELOPE__BODY_HEARTBEAT, on_heartbeat},
    {MP__ENVELOPE__BODY_PONG, on_pong},
    {MP__ENVELOPE__BODY_GOODBYE, on_goodbye},
    {MP__ENVELOPE__BODY_READY, on_ready},
    {MP__ENVELOPE__BODY_PROGRESS, on_progress},
    {MP__ENVELOPE__BODY_RESULT, on_result},
    {MP__ENVELOPE__BODY_LIGHT_ARMED, on_armed},
    {MP__ENVELOPE__BODY_LIGHT_OPENED, on_opened},
    {MP__ENVELOPE__BODY_LIGHT_RESULT, on_light_result},
};

static agent_handler *handler_find(Mp__Envelope__BodyCase body)
{
    for (size_t i = 0; i < sizeof handlers / sizeof handlers[0]; i++)
        if (handlers[i].body == body)
            return handlers[i].handle;
    return NULL;
}

// ----------------------------------------------------------------------------------- the dispatch

static void agent_unreadable(
    struct server *self, struct peer *peer, const char *name, int error, const char *text)
{
    if (error == MESH_E_FORBIDDEN && !session_of(self, peer)) {
        say_no_session(self, peer, "no session: say HELLO first");
        return;
    }
    server_complain(
        self, "%s at %s sent a message that is not taken: %s", name, peer->address, text);
    if (error == MESH_E_VERSION)
        server_refuse(self, peer, MP__REFUSED__CODE__VERSION, "%s", text);
}

static bool session_matches(
    const struct session *session, const struct peer *peer, const Mp__Envelope *message)
{
    return session && session->peer.number == peer->ref.number && message->has_session &&
           message->session.len == ID_SIZE &&
           sodium_memcmp(message->session.data, session->id, ID_SIZE) == 0;
}

static bool member_message(
    struct server *self, struct peer *peer, struct agent *agent, const void *bytes, size_t size)
{
    int error = 0;
    char text[256] = "";
    Mp__Envelope *message =
        wire_unpack(bytes, size, WIRE_AGENT, session_of(self, peer) != NULL, &error, text);
    if (!message) {
        agent_unreadable(self, peer, agent->name, error, text);
        return true;
    }
    struct speaker who = {self, peer, agent, server_member(self, agent->id)};
    agent_handler *handle = handler_find(message->body_case);
    if (message->body_case != MP__ENVELOPE__BODY_HELLO &&
        !session_matches(who.member->session, peer, message)) {
        say_no_session(self, peer, "the session is not this one: say HELLO again");
    } else if (handle) {
        if (message->body_case != MP__ENVELOPE__BODY_HELLO) {
            agent->seen_mono_ns = clock_mono(self->clock);
            agent->seen_wall_ns = clock_wall(self->clock);
        }
        handle(&who, message);
    }
    wire_free(&message);
    return true;
}

static void token_message(struct server *self, struct peer *peer, const void *bytes, size_t size)
{
    int error = 0;
    char text[256] = "";
    Mp__Envelope *message = wire_unpack(bytes, size, WIRE_ENROL, false, &error, text);
    if (message) {
        enrol_handle(self, peer, message->enrol);
        wire_free(&message);
        return;
    }
    server_complain(self, "the host at %s that wants to join sent a message that is not taken: %s",
        peer->address, text);
    server_refuse(self, peer,
        error == MESH_E_VERSION ? MP__REFUSED__CODE__VERSION : MP__REFUSED__CODE__INVALID, "%s",
        text);
}

bool agents_message(struct server *self, struct peer *peer, const void *bytes, size_t size)
{
    struct agent *agent = registry_by_key(self->registry, peer->key);
    if (agent)
        return member_message(self, peer, agent, bytes, size);
    // Removed agents and revoked tokens were admitted once; their connection ends here.
    if (!credentials_token_by_key(self->credentials, peer->key))
        return false;
    token_message(self, peer, bytes, size);
    return true;
}
