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

static void set_int(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

static int tcp_options(int fd, const struct testspec *spec)
{
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (spec->mss)
        set_int(fd, IPPROTO_TCP, TCP_MAXSEG, (int)spec->mss);
    if (!*spec->congestion)
        return 0;
    size_t size = strlen(spec->congestion);
    return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, spec->congestion, (socklen_t)size) < 0
               ? MESH_E_UNSUPPORTED
               : 0;
}

int probe_socket_options(int fd, const struct probe_order *order)
{
    const struct testspec *spec = &order->spec;
    if (spec->window) {
        int size = (int)spec->window;
        if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
            set_int(fd, SOL_SOCKET, SO_SNDBUF, size);
        if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
            set_int(fd, SOL_SOCKET, SO_RCVBUF, size);
    }
    if (spec->dscp >= 0) {
        set_int(fd, IPPROTO_IP, IP_TOS, spec->dscp << 2);
        set_int(fd, IPPROTO_IPV6, IPV6_TCLASS, spec->dscp << 2);
    }
    return spec->kind == TEST_TCP ? tcp_options(fd, spec) : 0;
}

static int wait_stream(const struct probe_hooks *hooks, int fd, int64_t until)
{
    struct pollfd polled[2] = {
        {.fd = hooks->stop_fd, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    int64_t left = until - clock_mono_ns();
    if (left <= 0)
        return MESH_E_TIMEOUT;
    int ready = poll(polled, 2, (int)(left / NS_PER_MS + 1));
    if (ready > 0 && polled[0].revents)
        return MESH_E_STOPPED;
    return 0;
}

admission_t *probe_admit(const struct probe_order *order, dataport_t *port,
    enum dataport_protocol protocol, const struct probe_hooks *hooks, unsigned count, int *fds,
    bool *complete, struct probe_report *report)
{
    *complete = false;
    int error;
    admission_t *admission =
        dataport_admit(port, protocol, &order->keys, order->local_address, count, &error);
    if (!admission) {
        probe_report_fail(report, PROBE_FAILED, error != -EADDRINUSE,
            "cannot open data port %u: %s", dataport_number(port), mesh_strerror(error));
        return NULL;
    }
    hooks->ready(hooks->ctx);
    unsigned have = 0;
    int64_t until = order->expiry_mono_ns;
    while (have < count && !error) {
        struct admitted admitted;
        while (admission_take(admission, &admitted) == 0) {
            fds[admitted.stream] = admitted.fd;
            // The first one is there: the others follow at once or not at all.
            if (have++ == 0 && clock_mono_ns() + PROBE_HANDSHAKE_NS < until)
                until = clock_mono_ns() + PROBE_HANDSHAKE_NS;
        }
        if (have < count)
            error = wait_stream(hooks, admission_fd(admission), until);
    }
    if (error == MESH_E_STOPPED)
        probe_report_fail(report, PROBE_STOPPED, false, "stopped");
    else if (error)
        probe_report_fail(report, PROBE_FAILED, false,
            "%s did not come to the data port: %u of %u streams", order->peer_address, have, count);
    *complete = !error;
    return admission;
}

void probe_setup_failed(struct probe_report *report, const struct probe_order *order, int error)
{
    if (error == MESH_E_STOPPED)
        probe_report_fail(report, PROBE_STOPPED, false, "stopped");
    else if (error == MESH_E_UNSUPPORTED)
        probe_report_fail(report, PROBE_UNSUPPORTED, false,
            "congestion control '%s' is not available on this host", order->spec.congestion);
    else if (error == MESH_E_TIMEOUT)
        probe_report_fail(report, PROBE_FAILED, false, "no answer from %s port %u within 3 s",
            order->peer_address, order->peer_port);
    else if (error == MESH_E_AUTH)
        probe_report_fail(report, PROBE_FAILED, false,
            "%s port %u answers, but not as the agent that was expected", order->peer_address,
            order->peer_port);
    else
        probe_report_fail(report, PROBE_FAILED, true, "connecting to %s port %u: %s",
            order->peer_address, order->peer_port, mesh_strerror(error));
}

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
    int fd, const struct probe_order *order, bool sends, struct probe_report *report)
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
    report->family = own.ss_family == AF_INET ? 4 : 6;
    report->source_port = sends ? own_port : peer_port;
    report->destination_port = sends ? peer_port : own_port;
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
