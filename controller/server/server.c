#include "server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "errors.h"
#include "log.h"
#include "server_parts.h"

#define PENDING_WAIT_MS 20
#define SWEEP_NS (500 * NS_PER_MS)

// ------------------------------------------------------------------------------------ members

struct member *server_member(struct server *self, uint32_t agent_id)
{
    return agent_id < self->member_room ? self->members[agent_id] : NULL;
}

struct member *server_member_add(struct server *self, uint32_t agent_id)
{
    if (agent_id >= self->member_room) {
        size_t room = 2 * (size_t)agent_id + 64;
        self->members = realloc(self->members, room * sizeof *self->members);
        if (!self->members)
            abort();
        memset(self->members + self->member_room, 0,
            (room - self->member_room) * sizeof *self->members);
        self->member_room = room;
    }
    struct member *member = zmalloc(sizeof *member);
    member->server = self;
    member->agent_id = agent_id;
    self->members[agent_id] = member;
    return member;
}

void server_member_remove(struct server *self, uint32_t agent_id)
{
    struct member *member = server_member(self, agent_id);
    if (!member)
        return;
    newcomer_drop(self, member);
    free(member->session);
    if (member->ack_due)
        zlistx_detach(self->acks, zlistx_find(self->acks, member));
    for (int i = 0; i < LABELS_STRENGTHS; i++)
        free(member->labels[i]);
    free(member->hello);
    free(member);
    self->members[agent_id] = NULL;
}

// ------------------------------------------------------------------------------------ sending

int server_send(struct server *self, struct peer *peer, Mp__Envelope *envelope)
{
    size_t size;
    uint8_t *bytes = wire_pack(envelope, &size);
    if (!bytes) {
        log_error("a message %s is too large to send", wire_name(envelope));
        return MESH_E_TOO_LARGE;
    }
    int rc = gateway_send(self->gateway, peer, bytes, size);
    free(bytes);
    return rc;
}

void server_refuse(
    struct server *self, struct peer *peer, Mp__Refused__Code code, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    Mp__Refused refused = MP__REFUSED__INIT;
    refused.code = code;
    refused.text = text;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_REFUSED;
    envelope.refused = &refused;
    (void)!server_send(self, peer, &envelope);
}

bool rate_take(struct rate *rate, double per_s, double burst, int64_t now_mono_ns)
{
    if (rate->filled_mono_ns == 0)
        rate->level = burst;
    else
        rate->level += (double)(now_mono_ns - rate->filled_mono_ns) / NS_PER_S * per_s;
    rate->filled_mono_ns = now_mono_ns;
    if (rate->level > burst)
        rate->level = burst;
    if (rate->level < 1)
        return false;
    rate->level -= 1;
    return true;
}

void server_complain(struct server *self, const char *format, ...)
{
    if (!rate_take(&self->complaints, 5, 20, clock_mono(self->clock)))
        return;
    char text[768];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_warn("%s", text);
}

// ------------------------------------------------------------------------- the director's way out

static int op_send(void *ctx, uint32_t agent_id, Mp__Envelope *envelope)
{
    struct server *self = ctx;
    struct member *member = server_member(self, agent_id);
    if (!member || !member->session)
        return MESH_E_NOT_FOUND;
    struct peer *peer = gateway_find(self->gateway, &member->session->peer);
    if (!peer)
        return MESH_E_NOT_FOUND;
    envelope->has_session = true;
    envelope->session.data = member->session->id;
    envelope->session.len = ID_SIZE;
    return server_send(self, peer, envelope);
}

static void op_report_done(void *ctx, uint32_t agent_id, uint64_t sequence)
{
    struct server *self = ctx;
    struct member *member = server_member(self, agent_id);
    if (!member || !sequences_done(&member->sequences, sequence) || member->ack_due)
        return;
    member->ack_due = true;
    zlistx_add_end(self->acks, member);
}

static void op_save_new_run(void *ctx, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
    const uint32_t *agent_ids, const struct cell_place *places)
{
    struct server *self = ctx;
    struct reply *reply = self->starting;
    self->starting = NULL;
    if (reply)
        snprintf(reply->object, sizeof reply->object, "%s", info->id);
    struct stored_policy policy = {self->starting_policy, self->starting_policy_size};
    store_put_new_run(self->store, info, agents, agent_ids, places, policy.text ? &policy : NULL,
        reply ? runs_new_saved : NULL, reply);
}

static void op_save_run(void *ctx, const Mp__RunInfo *info)
{
    struct server *self = ctx;
    store_put_run(self->store, info);
}

static void cell_saved(void *ctx, const char *run, uint32_t cell_index, int error)
{
    struct server *self = ctx;
    director_saved(self->director, run, cell_index, error);
}

static void op_save_cell(void *ctx, const char *run, const Mp__Cell *cell)
{
    struct server *self = ctx;
    store_put_cell(self->store, run, cell, cell_saved, self);
}

// ----------------------------------------------------------------------------------- the gateway

static bool on_message(void *ctx, struct peer *peer, const void *bytes, size_t size)
{
    struct server *self = ctx;
    return peer->side == GATEWAY_AGENTS ? agents_message(self, peer, bytes, size)
                                        : operators_message(self, peer, bytes, size);
}

static void on_gone(void *ctx, struct peer *peer, const char *reason)
{
    session_peer_gone(ctx, peer, reason);
}

// ------------------------------------------------------------------------------- life of a server

static void freer(void **item_p)
{
    free(*item_p);
    *item_p = NULL;
}

static void reply_destructor(void **item_p)
{
    reply_free((struct reply **)item_p);
}

static const struct gateway_ops *gateway_operations(struct server *self, struct gateway_ops *ops)
{
    *ops = (struct gateway_ops){.ctx = self, .message = on_message, .gone = on_gone};
    return ops;
}

static bool server_open(struct server *self, const struct server_options *options, char *error)
{
    struct gateway_ops ops;
    char endpoint[300];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/operator.sock", self->state_dir);
    self->gateway =
        gateway_new(options->listen, options->operator_listen ? options->operator_listen : endpoint,
            &self->key, self->clock, gateway_operations(self, &ops), error);
    return self->gateway && startup_open(self, options, error);
}

server_t *server_new(
    const struct server_options *options, const struct clock *clock, char error[SERVER_ERROR_SIZE])
{
    server_t *self = zmalloc(sizeof *self);
    self->clock = clock;
    self->lock_fd = -1;
    self->started_mono_ns = clock_mono(clock);
    self->director_due_mono_ns = INT64_MAX;
    self->timers = timers_new(clock);
    self->registry = registry_new();
    self->credentials = credentials_new();
    self->replies = zlistx_new();
    zlistx_set_destructor(self->replies, reply_destructor);
    self->acks = zlistx_new();
    self->enrolments = zlistx_new();
    zlistx_set_destructor(self->enrolments, freer);
    struct director_ops ops = {.ctx = self,
        .send = op_send,
        .report_done = op_report_done,
        .save_new_run = op_save_new_run,
        .save_run = op_save_run,
        .save_cell = op_save_cell};
    self->director = director_new(self->registry, clock, &ops);

    snprintf(error, SERVER_ERROR_SIZE, "out of resources");
    if (snprintf(self->state_dir, sizeof self->state_dir, "%s", options->state_dir) >=
        (int)sizeof self->state_dir) {
        snprintf(error, SERVER_ERROR_SIZE, "the path of --state-dir is too long");
        goto failed;
    }
    if (!startup_load(self, error))
        goto failed;
    self->zap = zap_new();
    if (!self->zap) {
        snprintf(error, SERVER_ERROR_SIZE, "another controller runs in this process");
        goto failed;
    }
    startup_admit(self);
    if (!server_open(self, options, error) || !startup_resume(self, error))
        goto failed;
    store_start(self->store);
    if (!startup_context(self, error))
        goto failed;
    timers_after(self->timers, SWEEP_NS, sessions_sweep, self);
    return self;
failed:
    server_destroy(&self);
    return NULL;
}

void server_destroy(server_t **self_p)
{
    if (!self_p || !*self_p)
        return;
    server_t *self = *self_p;
    checks_destroy(self);
    store_destroy(&self->store);
    director_destroy(&self->director);
    for (size_t i = 0; i < self->member_room; i++)
        server_member_remove(self, (uint32_t)i);
    free(self->members);
    gateway_destroy(&self->gateway);
    zap_destroy(&self->zap);
    zlistx_destroy(&self->replies);
    zlistx_destroy(&self->acks);
    zlistx_destroy(&self->enrolments);
    credentials_destroy(&self->credentials);
    registry_destroy(&self->registry);
    timers_destroy(&self->timers);
    identity_wipe(&self->key);
    if (self->lock_fd >= 0)
        close(self->lock_fd);
    free(self);
    *self_p = NULL;
}

const char *server_endpoint(const server_t *self)
{
    return self->endpoint;
}

const char *server_context_path(const server_t *self)
{
    return self->context_path;
}

// ------------------------------------------------------------------------------------ the loop

// The store's state is asked for rather than told; the director and the log learn of changes.
static void watch_storage(struct server *self)
{
    const char *trouble = store_trouble(self->store);
    if (self->read_only)
        return;
    if (strncmp(trouble ? trouble : "", self->trouble, sizeof self->trouble - 1) == 0)
        return;
    snprintf(self->trouble, sizeof self->trouble, "%s", trouble ? trouble : "");
    if (trouble)
        log_error("results cannot be stored: %s", trouble);
    else
        log_info("results can be stored again");
    director_storage(self->director, trouble ? self->trouble : NULL);
}

// Brings everything to rest after something happened.
static void server_turn(struct server *self)
{
    watch_storage(self);
    self->director_due_mono_ns = director_turn(self->director);
    sessions_acknowledge(self);
    gateway_turn(self->gateway);
}

static int server_wait_ms(struct server *self, int wait_ms)
{
    int limits[2] = {
        timers_wait_ms(self->timers), gateway_pending(self->gateway) ? PENDING_WAIT_MS : -1};
    for (int i = 0; i < 2; i++)
        if (limits[i] >= 0 && (wait_ms < 0 || limits[i] < wait_ms))
            wait_ms = limits[i];
    if (self->director_due_mono_ns != INT64_MAX) {
        int64_t left_ns = self->director_due_mono_ns - clock_mono(self->clock);
        int64_t left_ms = left_ns <= 0 ? 0 : (left_ns + NS_PER_MS - 1) / NS_PER_MS;
        if (wait_ms < 0 || left_ms < wait_ms)
            wait_ms = (int)left_ms;
    }
    return wait_ms;
}

int server_step(server_t *self, int wait_ms, int wake_fd)
{
    zmq_pollitem_t items[4] = {
        {.socket = zsock_resolve(gateway_socket(self->gateway, GATEWAY_AGENTS)),
            .events = ZMQ_POLLIN},
        {.socket = zsock_resolve(gateway_socket(self->gateway, GATEWAY_OPERATORS)),
            .events = ZMQ_POLLIN},
        {.socket = zsock_resolve(store_socket(self->store)), .events = ZMQ_POLLIN},
        {.fd = wake_fd, .events = ZMQ_POLLIN}};
    int rc = zmq_poll(items, wake_fd >= 0 ? 4 : 3, server_wait_ms(self, wait_ms));
    if (rc < 0)
        return errno == EINTR ? 0 : -errno;
    if (items[2].revents & ZMQ_POLLIN)
        store_dispatch(self->store);
    for (int side = 0; side < 2; side++)
        if (items[side].revents & ZMQ_POLLIN)
            gateway_read(self->gateway, (enum gateway_side)side);
    timers_run(self->timers);
    server_turn(self);
    return 0;
}
