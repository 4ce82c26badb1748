#include "probe_setup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "record.h"

// ------------------------------------------------------------------ a socket's options

static int set_int(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

// With CAP_NET_ADMIN beyond the host's limits, otherwise up to them.
static int set_buffer(int fd, int forced, int plain, unsigned size)
{
    return set_int(fd, SOL_SOCKET, forced, (int)size) == 0
               ? 0
               : set_int(fd, SOL_SOCKET, plain, (int)size);
}

static int set_dscp(int fd, int dscp)
{
    int domain = AF_INET;
    socklen_t size = sizeof domain;
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
    return domain == AF_INET ? set_int(fd, IPPROTO_IP, IP_TOS, dscp << 2)
                             : set_int(fd, IPPROTO_IPV6, IPV6_TCLASS, dscp << 2);
}

static int set_congestion(int fd, const char *name)
{
    if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)) == 0)
        return 0;
    return errno == ENOENT || errno == EPERM ? MESH_E_UNSUPPORTED : -errno;
}

int probe_socket_options(int fd, const struct probe_order *order)
{
    const struct testspec *spec = &order->spec;
    int rc = 0;
    if (spec->window) {
        rc = set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, spec->window);
        if (rc == 0)
            rc = set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, spec->window);
    }
    if (rc == 0 && spec->dscp >= 0)
        rc = set_dscp(fd, spec->dscp);
    if (rc == 0 && spec->kind == TEST_TCP && spec->mss)
        rc = set_int(fd, IPPROTO_TCP, TCP_MAXSEG, (int)spec->mss);
    if (rc == 0 && spec->kind == TEST_TCP && order->sends && *spec->congestion)
        rc = set_congestion(fd, spec->congestion);
    return rc;
}

// ------------------------------------------------------------------ what failed

static void explain(struct probe_streams *self, int error)
{
    const struct probe_order *order = self->order;
    const char *peer = order->peer_address;
    static const struct {
        int error;
        enum probe_outcome outcome;
        bool retry;
        const char *words;
    } rows[] = {
        {MESH_E_STOPPED, PROBE_STOPPED, false, "stopped"},
        {MESH_E_TIMEOUT, PROBE_FAILED, false, "no answer within 3 s"},
        {MESH_E_AUTH, PROBE_FAILED, false, "what answers does not hold this test's key"},
        {-ECONNREFUSED, PROBE_FAILED, true, "it refuses connections"},
        {-ECONNRESET, PROBE_FAILED, true, "the peer closed the connection during the handshake"},
        {-EPIPE, PROBE_FAILED, true, "the peer closed the connection during the handshake"},
    };
    if (error == MESH_E_UNSUPPORTED) {
        probe_report_fail(self->report, PROBE_UNSUPPORTED, false,
            "congestion control '%s' is not available on this host", order->spec.congestion);
        return;
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].error != error)
            continue;
        if (error == MESH_E_STOPPED)
            probe_report_fail(self->report, rows[i].outcome, rows[i].retry, "%s", rows[i].words);
        else
            probe_report_fail(self->report, rows[i].outcome, rows[i].retry,
                "data port %u of %s: %s", order->peer_port, peer, rows[i].words);
        return;
    }
    probe_report_fail(self->report, PROBE_FAILED, true, "data port %u of %s: %s", order->peer_port,
        peer, mesh_strerror(error));
}

// ------------------------------------------------------------------ the connecting end

struct connecting {
    const struct probe_streams *streams;
    unsigned stream;
};

static int prepare_one(int fd, void *ctx)
{
    const struct connecting *it = ctx;
    return it->streams->prepare(fd, it->stream, it->streams->order);
}

static int connect_all(struct probe_streams *self)
{
    const struct probe_order *order = self->order;
    for (unsigned i = 0; i < self->count; i++) {
        struct connecting one = {self, i};
        struct dataport_target target = {.protocol = self->protocol,
            .local_address = order->local_address,
            .peer_address = order->peer_address,
            .peer_port = order->peer_port,
            .prepare = prepare_one,
            .ctx = &one,
            .deadline_mono_ns = clock_mono_ns() + PROBE_HANDSHAKE_NS,
            .stop_fd = self->hooks->stop_fd};
        int fd = dataport_connect(&target, &order->keys, (uint8_t)i);
        if (fd < 0)
            return fd;
        self->fds[i] = fd;
    }
    return 0;
}

// ------------------------------------------------------------------ the listening end

// Takes what waits; the number of streams taken, or a negative error.
static int take_waiting(struct probe_streams *self)
{
    struct admitted admitted;
    int taken = 0;
    while (admission_take(self->admission, &admitted) == 0) {
        self->fds[admitted.stream] = admitted.fd;
        int rc = self->prepare(admitted.fd, admitted.stream, self->order);
        if (rc < 0)
            return rc;
        taken++;
    }
    return taken;
}

static int wait_stream(const struct probe_streams *self, int64_t until_mono_ns)
{
    struct pollfd polled[2] = {{.fd = self->hooks->stop_fd, .events = POLLIN},
        {.fd = admission_fd(self->admission), .events = POLLIN}};
    int64_t left = until_mono_ns - clock_mono_ns();
    if (left <= 0)
        return MESH_E_TIMEOUT;
    int ready = poll(polled, 2, (int)(left / NS_PER_MS + 1));
    return ready > 0 && polled[0].revents ? MESH_E_STOPPED : 0;
}

// False after having said why.
static bool admit_all(struct probe_streams *self)
{
    unsigned have = 0;
    int64_t until = self->order->expiry_mono_ns;
    for (;;) {
        int rc = take_waiting(self);
        have += rc > 0 ? (unsigned)rc : 0;
        if (have == self->count)
            return true;
        // The others follow the first one, a handshake's time each at most.
        if (rc > 0)
            until = clock_mono_ns() + PROBE_HANDSHAKE_NS;
        if (rc >= 0)
            rc = wait_stream(self, until);
        if (rc == MESH_E_TIMEOUT)
            probe_report_fail(self->report, PROBE_FAILED, have > 0,
                "%s did not come to the data port: %u of %u streams", self->order->peer_address,
                have, self->count);
        else if (rc < 0)
            explain(self, rc);
        if (rc < 0)
            return false;
    }
}

static bool listen_for_all(struct probe_streams *self)
{
    int error;
    self->admission = dataport_admit(self->port, self->protocol, &self->order->keys,
        self->order->local_address, self->count, &error);
    if (!self->admission) {
        probe_report_fail(self->report, PROBE_FAILED, true, "cannot open data port %u: %s",
            dataport_number(self->port), mesh_strerror(error));
        return false;
    }
    if (self->hooks->ready)
        self->hooks->ready(self->hooks->ctx);
    return admit_all(self);
}

bool probe_streams_open(struct probe_streams *self)
{
    if (!self->order->connects)
        return listen_for_all(self);
    int error = connect_all(self);
    if (error)
        explain(self, error);
    return !error;
}

void probe_streams_close(struct probe_streams *self)
{
    for (unsigned i = 0; i < self->count; i++)
        if (self->fds[i] >= 0)
            close(self->fds[i]);
    dataport_dismiss(self->port, &self->admission);
}

// ------------------------------------------------------------------ what both ends look like

static void text_of(const struct sockaddr_storage *address, char *text, uint16_t *port)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    if (address->ss_family == AF_INET)
        inet_ntop(AF_INET, &v4->sin_addr, text, PROBE_ADDRESS_SIZE);
    else
        inet_ntop(AF_INET6, &v6->sin6_addr, text, PROBE_ADDRESS_SIZE);
    *port = ntohs(address->ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
}

void probe_describe_socket(
    int fd, const struct probe_order *order, bool forward, struct probe_report *report)
{
    struct sockaddr_storage own = {0}, peer = {0};
    socklen_t own_size = sizeof own, peer_size = sizeof peer;
    char own_text[PROBE_ADDRESS_SIZE] = "", peer_text[PROBE_ADDRESS_SIZE] = "";
    uint16_t own_port, peer_port;
    if (getsockname(fd, (struct sockaddr *)&own, &own_size) < 0 ||
        getpeername(fd, (struct sockaddr *)&peer, &peer_size) < 0)
        return;
    text_of(&own, own_text, &own_port);
    text_of(&peer, peer_text, &peer_port);
    record_read(own_text, &report->record);
    report->family = own.ss_family == AF_INET ? 4 : 6;
    report->source_port = forward ? own_port : peer_port;
    report->destination_port = forward ? peer_port : own_port;
    // Two spellings of one address must not look like a translation.
    unsigned char wanted[16];
    int family = own.ss_family;
    if (inet_pton(family, order->peer_address, wanted) == 1) {
        char canonical[PROBE_ADDRESS_SIZE];
        inet_ntop(family, wanted, canonical, sizeof canonical);
        if (strcmp(canonical, peer_text) != 0)
            memcpy(report->peer_seen, peer_text, sizeof report->peer_seen);
    }
}
