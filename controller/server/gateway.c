#include "gateway.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errors.h"
#include "wire.h"
#include "zap.h"

// Part of the library since 4.3.0, but named in the header only with its draft API.
#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

#define READ_TURN_MESSAGES 256 // per socket and turn, so that both get their share
#define PARTS_MAX 64           // of a malformed multipart message that are drained in one go

enum life { LIVE, CUT, GONE };

struct queued {
    void *bytes;
    size_t size;
};

struct connection {
    struct peer peer; // first: a peer is its connection
    uint8_t routing_id[GATEWAY_ROUTING_ID_MAX];
    size_t routing_id_size;
    enum life life;
    bool told;          // `gone` was called
    const char *reason; // a literal
    int64_t heard_mono_ns;
    double budget;   // messages that it may still send now
    zlistx_t *queue; // struct queued; NULL until needed
    size_t queue_bytes;
    bool listed; // in gateway.changed
};

struct side {
    zsock_t *socket;
    char *endpoint;
    double rate;
    bool draining; // inside a message of too many parts
};

struct gateway {
    struct side sides[2];
    const struct clock *clock;
    struct gateway_ops ops;
    zhashx_t *connections[2]; // hex of the routing id -> struct connection
    zlistx_t *changed;        // connections with a queue, or that ended
    uint64_t last_number;
    int64_t pruned_mono_ns;
};

static void queued_free(void **item_p)
{
    struct queued *item = *item_p;
    free(item->bytes);
    free(item);
    *item_p = NULL;
}

static void connection_free(void **item_p)
{
    struct connection *self = *item_p;
    zlistx_destroy(&self->queue);
    free(self);
    *item_p = NULL;
}

// ------------------------------------------------------------------------------------ sockets

// An IPv4 address is bound as such, not mapped into IPv6, so that it is also told as it is.
static bool endpoint_is_v4(const char *endpoint)
{
    struct in_addr address;
    char host[64] = "";
    return sscanf(endpoint, "tcp://%63[0-9.]:", host) == 1 &&
           inet_pton(AF_INET, host, &address) == 1;
}

static int socket_options(
    zsock_t *socket, const char *endpoint, const char *domain, const struct identity *key)
{
    int on = 1;
    zsock_set_zap_domain(socket, domain);
    if (zmq_setsockopt(zsock_resolve(socket), ZMQ_ZAP_ENFORCE_DOMAIN, &on, sizeof on) != 0)
        return -errno; // without it libzmq lets unknown keys in when no handler answers
    zsock_set_curve_server(socket, 1);
    zsock_set_curve_secretkey_bin(socket, key->secret_key);
    zsock_set_router_mandatory(socket, 1);
    zsock_set_router_handover(socket, 0);
    zsock_set_sndhwm(socket, 256);
    zsock_set_rcvhwm(socket, 256);
    zsock_set_maxmsgsize(socket, WIRE_MESSAGE_MAX);
    zsock_set_linger(socket, 0);
    zsock_set_backlog(socket, 4096);
    zsock_set_handshake_ivl(socket, 10000);
    zsock_set_ipv6(socket, !endpoint_is_v4(endpoint));
    zsock_set_tcp_keepalive(socket, 1);
    zsock_set_tcp_keepalive_idle(socket, 30);
    zsock_set_tcp_keepalive_intvl(socket, 10);
    zsock_set_tcp_keepalive_cnt(socket, 3);
    // Keepalive never fires while data is unacknowledged; this does.
    zsock_set_tcp_maxrt(socket, 30000);
    return 0;
}

static int side_open(struct side *side, const char *endpoint, const char *domain,
    const struct identity *key, char *error)
{
    if (strncmp(endpoint, "ipc://", 6) == 0 && strlen(endpoint + 6) > GATEWAY_IPC_PATH_MAX) {
        snprintf(error, 512,
            "cannot listen on %.200s: the path has %zu bytes and a local socket takes at most %d; "
            "use a shorter --state-dir, or --operator-listen",
            endpoint, strlen(endpoint + 6), GATEWAY_IPC_PATH_MAX);
        return MESH_E_RANGE;
    }
    side->socket = zsock_new(ZMQ_ROUTER);
    if (!side->socket) {
        snprintf(error, 512, "cannot make a socket: %s", zmq_strerror(errno));
        return -errno;
    }
    if (socket_options(side->socket, endpoint, domain, key) != 0) {
        snprintf(error, 512, "this libzmq cannot enforce ZAP domains; 4.3 or newer is needed");
        return MESH_E_UNSUPPORTED;
    }
    mode_t mask = umask(0077);
    int rc = zmq_bind(zsock_resolve(side->socket), endpoint);
    int saved = errno;
    umask(mask);
    if (rc < 0) {
        snprintf(error, 512, "cannot listen on %.200s: %s", endpoint, zmq_strerror(saved));
        return -saved;
    }
    side->endpoint = zsock_last_endpoint(side->socket);
    return 0;
}

gateway_t *gateway_new(const char *listen, const char *operator_listen, const struct identity *key,
    const struct clock *clock, const struct gateway_ops *ops, char *error)
{
    gateway_t *self = zmalloc(sizeof *self);
    self->clock = clock;
    self->ops = *ops;
    self->changed = zlistx_new();
    for (int i = 0; i < 2; i++) {
        self->connections[i] = zhashx_new();
        zhashx_set_destructor(self->connections[i], connection_free);
    }
    self->sides[GATEWAY_AGENTS].rate = GATEWAY_AGENT_RATE;
    self->sides[GATEWAY_OPERATORS].rate = GATEWAY_OPERATOR_RATE;
    if (side_open(&self->sides[GATEWAY_AGENTS], listen, ZAP_DOMAIN_AGENTS, key, error) != 0 ||
        side_open(&self->sides[GATEWAY_OPERATORS], operator_listen, ZAP_DOMAIN_OPERATORS, key,
            error) != 0)
        gateway_destroy(&self);
    return self;
}

void gateway_destroy(gateway_t **self_p)
{
    if (!self_p || !*self_p)
        return;
    gateway_t *self = *self_p;
    zlistx_destroy(&self->changed);
    for (int i = 0; i < 2; i++) {
        zhashx_destroy(&self->connections[i]);
        zsock_destroy(&self->sides[i].socket);
        const char *endpoint = self->sides[i].endpoint;
        if (endpoint && strncmp(endpoint, "ipc:///", 7) == 0)
            (void)!unlink(endpoint + 6); // libzmq leaves it
        zstr_free(&self->sides[i].endpoint);
    }
    free(self);
    *self_p = NULL;
}

zsock_t *gateway_socket(gateway_t *self, enum gateway_side side)
{
    return self->sides[side].socket;
}

const char *gateway_endpoint(gateway_t *self, enum gateway_side side)
{
    return self->sides[side].endpoint;
}

// -------------------------------------------------------------------------------- connections

static void mark_changed(gateway_t *self, struct connection *connection)
{
    if (connection->listed)
        return;
    connection->listed = true;
    zlistx_add_end(self->changed, connection);
}

static void connection_end(
    gateway_t *self, struct connection *connection, enum life life, const char *reason)
{
    if (connection->life != LIVE)
        return;
    connection->life = life;
    connection->reason = reason;
    mark_changed(self, connection);
}

void gateway_cut(gateway_t *self, struct peer *peer, const char *reason)
{
    connection_end(self, (struct connection *)peer, CUT, reason);
}

static void routing_id_text(const void *bytes, size_t size, char *text)
{
    const uint8_t *byte = bytes;
    for (size_t i = 0; i < size; i++)
        sprintf(text + 2 * i, "%02x", byte[i]);
    text[2 * size] = 0;
}

// As people write it: IPv4 without its mapping into IPv6, and no numbers of a local process.
static void peer_address(const char *word, char text[64])
{
    if (!word || !*word || strncmp(word, "localhost:", 10) == 0)
        word = "this host";
    else if (strncmp(word, "::ffff:", 7) == 0 && strchr(word, '.'))
        word += 7;
    snprintf(text, 64, "%s", word);
}

static struct connection *connection_get(
    gateway_t *self, enum gateway_side side, zmq_msg_t *id, zmq_msg_t *payload)
{
    size_t size = zmq_msg_size(id);
    const char *user = zmq_msg_gets(payload, "User-Id");
    uint8_t key[IDENTITY_KEY_SIZE];
    if (size == 0 || size > GATEWAY_ROUTING_ID_MAX || !user || identity_from_z85(user, key) != 0)
        return NULL;
    char text[2 * GATEWAY_ROUTING_ID_MAX + 1];
    routing_id_text(zmq_msg_data(id), size, text);
    struct connection *connection = zhashx_lookup(self->connections[side], text);
    if (connection) {
        if (memcmp(connection->peer.key, key, sizeof key) == 0)
            return connection;
        // The same chosen id with another key: a new connection of somebody else.
        connection_end(self, connection, GONE, "its connection was replaced");
        return NULL;
    }
    connection = zmalloc(sizeof *connection);
    connection->peer.ref.number = ++self->last_number;
    strcpy(connection->peer.ref.id, text);
    connection->peer.side = side;
    memcpy(connection->peer.key, key, sizeof key);
    peer_address(zmq_msg_gets(payload, "Peer-Address"), connection->peer.address);
    memcpy(connection->routing_id, zmq_msg_data(id), size);
    connection->routing_id_size = size;
    connection->budget = 2 * self->sides[side].rate;
    connection->heard_mono_ns = clock_mono(self->clock);
    zhashx_insert(self->connections[side], text, connection);
    return connection;
}

struct peer *gateway_find(gateway_t *self, const struct peer_ref *ref)
{
    for (int side = 0; side < 2; side++) {
        struct connection *connection = zhashx_lookup(self->connections[side], ref->id);
        if (connection && connection->peer.ref.number == ref->number && connection->life == LIVE)
            return &connection->peer;
    }
    return NULL;
}

// Ends the TCP connection that this message came from. The descriptor belongs to libzmq's I/O
// thread, so it is shut down, never closed; and only if it still leads to the same address.
static void shut_down(const struct connection *connection, zmq_msg_t *payload)
{
    const char *word = zmq_msg_gets(payload, "__fd");
    int fd = word ? atoi(word) : -1;
    if (fd < 0)
        return;
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    if (getpeername(fd, (struct sockaddr *)&address, &size) < 0)
        return;
    char text[INET6_ADDRSTRLEN] = "this host";
    if (address.ss_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)&address)->sin_addr, text, sizeof text);
    else if (address.ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&address)->sin6_addr, text, sizeof text);
    if (address.ss_family == AF_UNIX || strstr(connection->peer.address, text) ||
        strstr(text, connection->peer.address))
        shutdown(fd, SHUT_RDWR);
}

// ------------------------------------------------------------------------------------ reading

static bool budget_take(const struct side *side, struct connection *connection, int64_t now_ns)
{
    double gained = (double)(now_ns - connection->heard_mono_ns) / NS_PER_S * side->rate;
    connection->heard_mono_ns = now_ns;
    connection->budget += gained;
    if (connection->budget > 2 * side->rate)
        connection->budget = 2 * side->rate;
    connection->budget -= 1;
    return connection->budget >= 0;
}

static void message_handle(
    gateway_t *self, enum gateway_side side, zmq_msg_t *id, zmq_msg_t *payload, bool whole)
{
    struct connection *connection = connection_get(self, side, id, payload);
    if (!connection)
        return;
    bool within = budget_take(&self->sides[side], connection, clock_mono(self->clock));
    if (connection->life == LIVE) {
        if (!within)
            connection_end(self, connection, CUT, "it sent too many messages");
        else if (!whole)
            connection_end(self, connection, CUT, "it sent a message of several parts");
        else if (!self->ops.message(self->ops.ctx, &connection->peer, zmq_msg_data(payload),
                     zmq_msg_size(payload)))
            connection_end(self, connection, CUT, "it was refused");
    }
    if (connection->life == CUT)
        shut_down(connection, payload);
}

// Takes further parts of a malformed message off, some now and the rest at the next turn.
static void drain_parts(struct side *side)
{
    void *socket = zsock_resolve(side->socket);
    for (int i = 0; side->draining && i < PARTS_MAX; i++) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) >= 0)
            side->draining = zmq_msg_more(&part);
        else
            i = PARTS_MAX;
        zmq_msg_close(&part);
    }
}

bool gateway_read(gateway_t *self, enum gateway_side which)
{
    struct side *side = &self->sides[which];
    void *socket = zsock_resolve(side->socket);
    for (int i = 0; i < READ_TURN_MESSAGES; i++) {
        drain_parts(side);
        if (side->draining)
            return true;
        zmq_msg_t id, payload;
        zmq_msg_init(&id);
        zmq_msg_init(&payload);
        bool got = zmq_msg_recv(&id, socket, ZMQ_DONTWAIT) >= 0;
        if (got && zmq_msg_more(&id) && zmq_msg_recv(&payload, socket, ZMQ_DONTWAIT) >= 0) {
            side->draining = zmq_msg_more(&payload);
            message_handle(self, which, &id, &payload, !side->draining);
        }
        zmq_msg_close(&payload);
        zmq_msg_close(&id);
        if (!got)
            return false;
    }
    return true;
}

// ------------------------------------------------------------------------------------ sending

// 0, -EAGAIN or MESH_E_NOT_FOUND.
static int send_now(gateway_t *self, struct connection *connection, const void *bytes, size_t size)
{
    void *socket = zsock_resolve(self->sides[connection->peer.side].socket);
    int rc = zmq_send(
        socket, connection->routing_id, connection->routing_id_size, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    if (rc >= 0)
        rc = zmq_send(socket, bytes, size, ZMQ_DONTWAIT);
    if (rc >= 0)
        return 0;
    return errno == EAGAIN ? -EAGAIN : MESH_E_NOT_FOUND;
}

static int enqueue(gateway_t *self, struct connection *connection, const void *bytes, size_t size)
{
    if (!connection->queue) {
        connection->queue = zlistx_new();
        zlistx_set_destructor(connection->queue, queued_free);
    }
    if (zlistx_size(connection->queue) >= GATEWAY_QUEUE_MESSAGES ||
        connection->queue_bytes + size > GATEWAY_QUEUE_BYTES) {
        connection_end(self, connection, CUT, "it does not read what is sent to it");
        return -EAGAIN;
    }
    struct queued *item = zmalloc(sizeof *item);
    item->bytes = zmalloc(size ? size : 1);
    item->size = size;
    memcpy(item->bytes, bytes, size);
    zlistx_add_end(connection->queue, item);
    connection->queue_bytes += size;
    mark_changed(self, connection);
    return 0;
}

int gateway_send(gateway_t *self, struct peer *peer, const void *bytes, size_t size)
{
    struct connection *connection = (struct connection *)peer;
    if (connection->life != LIVE)
        return MESH_E_NOT_FOUND;
    if (connection->queue && zlistx_size(connection->queue) > 0)
        return enqueue(self, connection, bytes, size);
    int rc = send_now(self, connection, bytes, size);
    if (rc == -EAGAIN)
        return enqueue(self, connection, bytes, size);
    if (rc != 0)
        connection_end(self, connection, GONE, "its connection ended");
    return rc;
}

// True if something still waits.
static bool queue_flush(gateway_t *self, struct connection *connection)
{
    while (connection->queue && zlistx_size(connection->queue) > 0) {
        struct queued *item = zlistx_first(connection->queue);
        int rc = send_now(self, connection, item->bytes, item->size);
        if (rc == -EAGAIN)
            return true;
        if (rc != 0) {
            connection_end(self, connection, GONE, "its connection ended");
            return false;
        }
        connection->queue_bytes -= item->size;
        zlistx_delete(connection->queue, zlistx_cursor(connection->queue));
    }
    return false;
}

static void connection_close(gateway_t *self, struct connection *connection)
{
    if (!connection->told) {
        connection->told = true;
        self->ops.gone(self->ops.ctx, &connection->peer, connection->reason);
    }
    // A cut one is remembered for a while, so that what is on its way is not heard either.
    if (connection->life == GONE) {
        zhashx_t *table = self->connections[connection->peer.side];
        zhashx_delete(table, connection->peer.ref.id);
    } else {
        zlistx_destroy(&connection->queue);
        connection->queue_bytes = 0;
    }
}

static void prune(gateway_t *self)
{
    int64_t now_ns = clock_mono(self->clock);
    if (now_ns - self->pruned_mono_ns < 5 * NS_PER_S)
        return;
    self->pruned_mono_ns = now_ns;
    for (int side = 0; side < 2; side++) {
        zhashx_t *table = self->connections[side];
        for (struct connection *connection = zhashx_first(table); connection;
             connection = zhashx_next(table)) {
            if (now_ns - connection->heard_mono_ns < GATEWAY_IDLE_NS)
                continue;
            connection_end(self, connection, GONE, "nothing was heard of it");
            connection->life = GONE;
            mark_changed(self, connection);
        }
    }
}

void gateway_turn(gateway_t *self)
{
    prune(self);
    size_t count = zlistx_size(self->changed);
    while (count-- > 0) {
        struct connection *connection = zlistx_first(self->changed);
        zlistx_detach(self->changed, zlistx_cursor(self->changed));
        connection->listed = false;
        bool waits = connection->life == LIVE && queue_flush(self, connection);
        if (connection->life != LIVE) {
            if (connection->listed) { // it ended while it was flushed
                zlistx_detach(self->changed, zlistx_find(self->changed, connection));
                connection->listed = false;
            }
            connection_close(self, connection);
        } else if (waits) {
            mark_changed(self, connection);
        }
    }
}

bool gateway_pending(const gateway_t *self)
{
    return zlistx_size(self->changed) > 0;
}
