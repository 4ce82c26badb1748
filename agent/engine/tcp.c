#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "kinds.h"
#include "tcp_parts.h"

// Streams are numbered flow by flow: control, then load 1..P. Flow 0 is the only one, or with
// --bidir the one in which the connecting end sends; flow 1 is then the other direction.
#define FLOWS_MAX 2
#define STREAM_NUMBERS 256

struct tcp_test {
    const struct probe_order *order;
    const struct probe_hooks *hooks;
    dataport_t *port;
    struct probe_report *report;
    admission_t *admission;
    unsigned flow_count, streams; // streams: all of them, control included
    int fds[STREAM_NUMBERS];
    struct tcp_flow flows[FLOWS_MAX];
};

// ------------------------------------------------------------------ a socket's options

static int set_int(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

static int dress(int fd, void *ctx)
{
    const struct tcp_test *self = ctx;
    const struct testspec *spec = &self->order->spec;
    int rc = 0;
    if (spec->window) {
        rc = set_int(fd, SOL_SOCKET, SO_SNDBUF, (int)spec->window);
        if (rc == 0)
            rc = set_int(fd, SOL_SOCKET, SO_RCVBUF, (int)spec->window);
    }
    if (rc == 0 && spec->mss)
        rc = set_int(fd, IPPROTO_TCP, TCP_MAXSEG, (int)spec->mss);
    if (rc == 0 && spec->dscp >= 0) {
        int domain = AF_INET;
        socklen_t size = sizeof domain;
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
        rc = domain == AF_INET ? set_int(fd, IPPROTO_IP, IP_TOS, spec->dscp << 2)
                               : set_int(fd, IPPROTO_IPV6, IPV6_TCLASS, spec->dscp << 2);
    }
    if (rc == 0 && spec->congestion[0] && self->order->sends &&
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, spec->congestion,
            (socklen_t)strlen(spec->congestion)) < 0)
        rc = errno == ENOENT || errno == EPERM ? MESH_E_UNSUPPORTED : -errno;
    return rc;
}

static bool is_control(const struct tcp_test *self, unsigned stream)
{
    return stream % (self->order->spec.parallel + 1) == 0;
}

// ------------------------------------------------------------------ opening the streams

static void explain(struct tcp_test *self, int error)
{
    const struct probe_order *order = self->order;
    struct probe_report *report = self->report;
    if (error == MESH_E_TIMEOUT)
        probe_report_fail(report, PROBE_FAILED, false, "no answer on the data port within 3 s");
    else if (error == MESH_E_STOPPED)
        probe_report_fail(report, PROBE_STOPPED, false, "stopped");
    else if (error == MESH_E_UNSUPPORTED)
        probe_report_fail(report, PROBE_UNSUPPORTED, false,
            "congestion control %s is not available on the sending host", order->spec.congestion);
    else if (error == MESH_E_AUTH)
        probe_report_fail(report, PROBE_FAILED, false,
            "what answers on the data port does not hold this test's key");
    else if (error == -ECONNREFUSED)
        probe_report_fail(report, PROBE_FAILED, true, "%s port %u refuses connections",
            order->peer_address, order->peer_port);
    else if (error == -ECONNRESET || error == -EPIPE)
        probe_report_fail(
            report, PROBE_FAILED, true, "the peer closed the connection during the handshake");
    else
        probe_report_fail(report, PROBE_FAILED, true, "cannot connect to %s port %u: %s",
            order->peer_address, order->peer_port, mesh_strerror(error));
}

static bool connect_all(struct tcp_test *self)
{
    const struct probe_order *order = self->order;
    for (unsigned i = 0; i < self->streams; i++) {
        struct dataport_target target = {.protocol = DATAPORT_TCP,
            .local_address = order->local_address,
            .peer_address = order->peer_address,
            .peer_port = order->peer_port,
            .prepare = is_control(self, i) ? NULL : dress,
            .ctx = self,
            .deadline_mono_ns = clock_mono_ns() + PROBE_HANDSHAKE_NS,
            .stop_fd = self->hooks->stop_fd};
        int fd = dataport_connect(&target, &order->keys, (uint8_t)i);
        if (fd < 0) {
            explain(self, fd);
            return false;
        }
        self->fds[i] = fd;
    }
    return true;
}

// Takes what waits; the number of streams taken, or a negative error.
static int take_waiting(struct tcp_test *self)
{
    struct admitted admitted;
    int taken = 0;
    while (admission_take(self->admission, &admitted) == 0) {
        int rc = is_control(self, admitted.stream) ? 0 : dress(admitted.fd, self);
        if (rc < 0) {
            close(admitted.fd);
            return rc;
        }
        self->fds[admitted.stream] = admitted.fd;
        taken++;
    }
    return taken;
}

static bool await_all(struct tcp_test *self)
{
    int64_t deadline = self->order->expiry_mono_ns;
    for (unsigned have = 0; have < self->streams;) {
        int64_t left = deadline - clock_mono_ns();
        struct timespec wait = {left / NS_PER_S, left % NS_PER_S};
        struct pollfd polls[2] = {{.fd = admission_fd(self->admission), .events = POLLIN},
            {.fd = self->hooks->stop_fd, .events = POLLIN}};
        int count = left > 0 ? ppoll(polls, 2, &wait, NULL) : 0;
        if (count < 0 && errno == EINTR)
            continue;
        if (count > 0 && polls[1].revents) {
            explain(self, MESH_E_STOPPED);
            return false;
        }
        if (count == 0) {
            probe_report_fail(self->report, PROBE_FAILED, have > 0,
                "only %u of %u connections of the peer arrived", have, self->streams);
            return false;
        }
        int taken = take_waiting(self);
        if (taken < 0) {
            explain(self, taken);
            return false;
        }
        // The others follow the first one, a handshake's time each at most.
        have += (unsigned)taken;
        if (taken > 0)
            deadline = clock_mono_ns() + PROBE_HANDSHAKE_NS;
    }
    return true;
}

static bool listen_for_all(struct tcp_test *self)
{
    int error;
    self->admission = dataport_admit(self->port, DATAPORT_TCP, &self->order->keys,
        self->order->local_address, self->streams, &error);
    if (!self->admission) {
        probe_report_fail(self->report, PROBE_FAILED, true, "cannot open data port %u: %s",
            dataport_number(self->port), mesh_strerror(error));
        return false;
    }
    if (self->hooks->ready)
        self->hooks->ready(self->hooks->ctx);
    return await_all(self);
}

// ------------------------------------------------------------------ what both ends look like

static void text_of(
    const struct sockaddr_storage *address, char text[PROBE_ADDRESS_SIZE], uint16_t *port)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    bool four = address->ss_family == AF_INET;
    const void *bytes = four ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr;
    if (!inet_ntop(address->ss_family, bytes, text, PROBE_ADDRESS_SIZE))
        text[0] = '\0';
    *port = ntohs(four ? v4->sin_port : v6->sin6_port);
}

static void describe(struct tcp_test *self)
{
    struct probe_report *report = self->report;
    struct sockaddr_storage local = {0}, peer = {0};
    socklen_t local_size = sizeof local, peer_size = sizeof peer;
    char here[PROBE_ADDRESS_SIZE], there[PROBE_ADDRESS_SIZE];
    uint16_t here_port, there_port;
    getsockname(self->fds[1], (struct sockaddr *)&local, &local_size);
    getpeername(self->fds[1], (struct sockaddr *)&peer, &peer_size);
    text_of(&local, here, &here_port);
    text_of(&peer, there, &there_port);
    if (there[0] && strcmp(there, self->order->peer_address) != 0)
        memcpy(report->peer_seen, there, sizeof there);
    report->family = local.ss_family == AF_INET ? 4 : 6;
    // In a bidirectional test flow 0 is the connecting end's.
    bool sends = self->flow_count == 2 ? self->order->connects : self->order->sends;
    report->source_port = sends ? here_port : there_port;
    report->destination_port = sends ? there_port : here_port;
    snprintf(report->technique, sizeof report->technique, "send 256K; recv MSG_TRUNC lowat");
}

// ------------------------------------------------------------------ running

struct helper {
    struct tcp_flow *flow;
    struct probe_report report;
};

static void *receive_apart(void *arg)
{
    struct helper *helper = arg;
    tcp_receive(helper->flow, &helper->report);
    return NULL;
}

static void join_reports(struct probe_report *report, struct probe_report *other)
{
    report->receive = other->receive;
    report->has_receive = other->has_receive;
    if (!(report->load.busiest_thread >= other->load.busiest_thread))
        report->load.busiest_thread = other->load.busiest_thread;
    if (!(report->load.run_queue_wait >= other->load.run_queue_wait))
        report->load.run_queue_wait = other->load.run_queue_wait;
    report->load.cores += other->load.cores;
    if (other->outcome != PROBE_OK)
        probe_report_fail(report, other->outcome, other->retry, "%s", other->reason);
    else if (other->reason[0] && !report->reason[0])
        memcpy(report->reason, other->reason, sizeof report->reason);
}

static void run_both(struct tcp_test *self)
{
    struct tcp_flow *out = &self->flows[self->order->connects ? 0 : 1];
    struct tcp_flow *in = &self->flows[self->order->connects ? 1 : 0];
    struct helper helper = {.flow = in};
    probe_report_init(&helper.report);
    pthread_t thread;
    int error = pthread_create(&thread, NULL, receive_apart, &helper);
    if (error) {
        probe_report_fail(self->report, PROBE_FAILED, true, "no thread: %s", strerror(error));
        return;
    }
    tcp_send(out, self->report);
    pthread_join(thread, NULL);
    join_reports(self->report, &helper.report);
}

static void make_flows(struct tcp_test *self)
{
    unsigned parallel = self->order->spec.parallel;
    for (unsigned i = 0; i < self->flow_count; i++) {
        int *first = self->fds + i * (parallel + 1);
        self->flows[i] = (struct tcp_flow){.order = self->order,
            .hooks = self->hooks,
            .control_fd = first[0],
            .fds = first + 1,
            .streams = parallel};
    }
}

static void run(const struct probe_order *order, dataport_t *port, const struct probe_hooks *hooks,
    struct probe_report *report)
{
    struct tcp_test self = {.order = order,
        .port = port,
        .hooks = hooks,
        .report = report,
        .flow_count = order->sends && order->receives ? 2 : 1};
    self.streams = self.flow_count * (order->spec.parallel + 1);
    if (self.streams > STREAM_NUMBERS) {
        probe_report_fail(
            report, PROBE_UNSUPPORTED, false, "--bidir takes at most 127 parallel streams");
        return;
    }
    for (unsigned i = 0; i < STREAM_NUMBERS; i++)
        self.fds[i] = -1;
    if (order->connects ? connect_all(&self) : listen_for_all(&self)) {
        make_flows(&self);
        describe(&self);
        if (self.flow_count == 2)
            run_both(&self);
        else if (order->sends)
            tcp_send(&self.flows[0], report);
        else
            tcp_receive(&self.flows[0], report);
    }
    for (unsigned i = 0; i < STREAM_NUMBERS; i++)
        if (self.fds[i] >= 0)
            close(self.fds[i]);
    dataport_dismiss(port, &self.admission);
}

static bool supported(char *reason)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        snprintf(reason, PROBE_TEXT_SIZE, "no TCP sockets: %s", strerror(errno));
        return false;
    }
    close(fd);
    return true;
}

const struct probe_kind probe_tcp = {
    .kind = TEST_TCP, .name = "tcp", .supported = supported, .run = run};
