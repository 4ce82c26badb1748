#include "link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <sodium.h>
#include <sys/socket.h>

#include "errors.h"
#include "timers.h"
#include "wire.h"

struct link {
    zsock_t *socket;
    zsock_t *monitor;
    bool connected;
};

static void set_option(void *handle, int option, int value)
{
    // Only options that the libzmq we were built against lacks can fail here.
    (void)zmq_setsockopt(handle, option, &value, sizeof value);
}

static void set_options(void *handle, enum link_kind kind)
{
    int reconnect_ms = 100;
    if (kind == LINK_AGENT)
        reconnect_ms = (int)(timers_jitter(8 * NS_PER_S, 4 * NS_PER_S) / NS_PER_MS);
    const struct {
        int option;
        int value;
    } options[] = {{ZMQ_IPV6, 1}, {ZMQ_IMMEDIATE, 1}, {ZMQ_LINGER, 0}, {ZMQ_SNDHWM, 64},
        {ZMQ_RCVHWM, 1000}, {ZMQ_RECONNECT_IVL, reconnect_ms}, {ZMQ_CONNECT_TIMEOUT, 5000},
        {ZMQ_HANDSHAKE_IVL, 10000}, {ZMQ_TCP_KEEPALIVE, 1}, {ZMQ_TCP_KEEPALIVE_IDLE, 30},
        {ZMQ_TCP_KEEPALIVE_INTVL, 10}, {ZMQ_TCP_KEEPALIVE_CNT, 3}, {ZMQ_TCP_MAXRT, 30000}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        set_option(handle, options[i].option, options[i].value);
    int64_t most = WIRE_MESSAGE_MAX;
    zmq_setsockopt(handle, ZMQ_MAXMSGSIZE, &most, sizeof most);
}

static bool set_curve(
    void *handle, const uint8_t controller_key[IDENTITY_KEY_SIZE], const struct identity *own)
{
    return zmq_setsockopt(handle, ZMQ_CURVE_SERVERKEY, controller_key, IDENTITY_KEY_SIZE) == 0 &&
           zmq_setsockopt(handle, ZMQ_CURVE_PUBLICKEY, own->public_key, IDENTITY_KEY_SIZE) == 0 &&
           zmq_setsockopt(handle, ZMQ_CURVE_SECRETKEY, own->secret_key, IDENTITY_KEY_SIZE) == 0;
}

static bool start_monitor(link_t *self, void *handle)
{
    char endpoint[64];
    uint64_t number;
    randombytes_buf(&number, sizeof number);
    snprintf(endpoint, sizeof endpoint, "inproc://link-%016llx", (unsigned long long)number);
    int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                 ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                 ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CONNECT_RETRIED;
    if (zmq_socket_monitor(handle, endpoint, events) < 0)
        return false;
    self->monitor = zsock_new(ZMQ_PAIR);
    return self->monitor && zsock_connect(self->monitor, "%s", endpoint) == 0;
}

link_t *link_new(const char *endpoint, const uint8_t controller_key[IDENTITY_KEY_SIZE],
    const struct identity *own, enum link_kind kind)
{
    link_t *self = zmalloc(sizeof *self);
    self->socket = zsock_new(ZMQ_DEALER);
    void *handle = self->socket ? zsock_resolve(self->socket) : NULL;
    if (handle && set_curve(handle, controller_key, own)) {
        set_options(handle, kind);
        if (start_monitor(self, handle) && zmq_connect(handle, endpoint) == 0)
            return self;
    }
    link_destroy(&self);
    return NULL;
}

void link_destroy(link_t **self_p)
{
    link_t *self = *self_p;
    if (!self)
        return;
    if (self->socket)
        zmq_socket_monitor(zsock_resolve(self->socket), NULL, 0);
    zsock_destroy(&self->monitor);
    zsock_destroy(&self->socket);
    free(self);
    *self_p = NULL;
}

zsock_t *link_socket(link_t *self)
{
    return self->socket;
}

zsock_t *link_monitor(link_t *self)
{
    return self->monitor;
}

static enum link_event translate(uint16_t event, uint32_t value)
{
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        return LINK_CONNECTED;
    case ZMQ_EVENT_DISCONNECTED:
        return LINK_DISCONNECTED;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        return value == 300 ? LINK_SHED : LINK_REFUSED;
    case ZMQ_EVENT_CONNECT_RETRIED:
        return LINK_RETRYING;
    default:
        return LINK_NO_HANDSHAKE;
    }
}

// A monitor event: a frame with number and value, then one with the address.
static bool next_event(link_t *self, enum link_event *event)
{
    void *handle = zsock_resolve(self->monitor);
    uint8_t bytes[6], address[512];
    int size = zmq_recv(handle, bytes, sizeof bytes, ZMQ_DONTWAIT);
    if (size < 0)
        return false;
    (void)zmq_recv(handle, address, sizeof address, ZMQ_DONTWAIT);
    uint16_t number;
    uint32_t value;
    memcpy(&number, bytes, sizeof number);
    memcpy(&value, bytes + 2, sizeof value);
    *event = size == sizeof bytes ? translate(number, value) : LINK_NOTHING;
    return true;
}

enum link_event link_event(link_t *self)
{
    enum link_event event;
    return next_event(self, &event) ? event : LINK_NOTHING;
}

int link_send(link_t *self, Mp__Envelope *envelope)
{
    size_t size;
    uint8_t *bytes = wire_pack(envelope, &size);
    if (!bytes)
        return MESH_E_TOO_LARGE;
    int sent = zmq_send(zsock_resolve(self->socket), bytes, size, ZMQ_DONTWAIT);
    int result = sent < 0 ? -EAGAIN : 0;
    free(bytes);
    return result;
}

Mp__Envelope *link_receive(link_t *self, int *error)
{
    void *handle = zsock_resolve(self->socket);
    zmq_msg_t message;
    *error = 0;
    zmq_msg_init(&message);
    if (zmq_msg_recv(&message, handle, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&message);
        return NULL;
    }
    Mp__Envelope *envelope = NULL;
    if (!zmq_msg_more(&message)) {
        envelope = wire_unpack(
            zmq_msg_data(&message), zmq_msg_size(&message), WIRE_CONTROLLER, true, error, NULL);
    } else {
        *error = MESH_E_DECODE;
        while (zmq_msg_more(&message) && zmq_msg_recv(&message, handle, ZMQ_DONTWAIT) >= 0)
            continue;
    }
    zmq_msg_close(&message);
    return envelope;
}

// "tcp://HOST:PORT" or "tcp://[HOST]:PORT" into its two parts.
static bool split_endpoint(const char *endpoint, char host[256], char port[16])
{
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return false;
    const char *begin = endpoint + 6, *colon = strrchr(begin, ':');
    if (!colon || colon == begin)
        return false;
    size_t size = (size_t)(colon - begin);
    if (*begin == '[' && begin[size - 1] == ']') {
        begin++;
        size -= 2;
    }
    if (size == 0 || size >= 256)
        return false;
    memcpy(host, begin, size);
    host[size] = '\0';
    return snprintf(port, 16, "%s", colon + 1) < 16;
}

static int address_toward(const struct addrinfo *to, char text[64])
{
    int fd = socket(to->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    struct sockaddr_storage own;
    socklen_t size = sizeof own;
    int result = 0;
    // Connecting a UDP socket sends nothing; it only asks the routing table.
    if (connect(fd, to->ai_addr, to->ai_addrlen) < 0 ||
        getsockname(fd, (struct sockaddr *)&own, &size) < 0)
        result = -errno;
    else if (getnameinfo((struct sockaddr *)&own, size, text, 64, NULL, 0, NI_NUMERICHOST) != 0)
        result = -EINVAL;
    close(fd);
    return result;
}

int link_local_address(const char *endpoint, unsigned family, char text[64])
{
    char host[256], port[16];
    if (!split_endpoint(endpoint, host, port))
        return -EINVAL;
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM,
        .ai_family = family == 4   ? AF_INET
                     : family == 6 ? AF_INET6
                                   : AF_UNSPEC};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return -EHOSTUNREACH;
    int result = -EHOSTUNREACH;
    for (const struct addrinfo *to = found; to && result; to = to->ai_next)
        result = address_toward(to, text);
    freeaddrinfo(found);
    return result;
}
