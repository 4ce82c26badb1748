#include "tcp_parts.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "sctp.h"

int tcp_link_send(struct tcp_flow *flow, struct control *message)
{
    uint8_t bytes[CONTROL_SIZE];
    message->sequence = ++flow->sequence_out;
    control_pack(message, &flow->order->keys, flow->order->connects ? 0 : 1, bytes);
    ssize_t sent = send(flow->control_fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == (ssize_t)sizeof bytes)
        return 0;
    // Half a message would spoil all that follow; a full buffer means that nobody reads.
    return sent < 0 ? -errno : -EPIPE;
}

int tcp_link_read(struct tcp_flow *flow, struct control *message)
{
    while (flow->have < CONTROL_SIZE) {
        ssize_t got =
            recv(flow->control_fd, flow->in + flow->have, CONTROL_SIZE - flow->have, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return 0;
        if (got <= 0)
            return -ECONNRESET;
        flow->have += (size_t)got;
    }
    flow->have = 0;
    unsigned direction = flow->order->connects ? 1 : 0;
    if (!control_unpack(flow->in, CONTROL_SIZE, &flow->order->keys, direction, message) ||
        message->sequence <= flow->sequence_in)
        return MESH_E_AUTH;
    flow->sequence_in = message->sequence;
    return 1;
}

static int add(int epoll_fd, int fd, uint32_t events, enum tcp_event name)
{
    struct epoll_event event = {.events = events, .data.u32 = name};
    return fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

int tcp_watch(const struct tcp_flow *flow, int news_fd)
{
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        return -errno;
    int rc = add(epoll_fd, flow->hooks->stop_fd, EPOLLIN, TCP_EVENT_STOP);
    if (rc == 0)
        rc = add(epoll_fd, flow->control_fd, EPOLLIN, TCP_EVENT_CONTROL);
    if (rc == 0)
        rc = add(epoll_fd, news_fd, EPOLLIN, TCP_EVENT_NEWS);
    if (rc < 0)
        close(epoll_fd);
    return rc < 0 ? rc : epoll_fd;
}

int tcp_wait(int epoll_fd, struct epoll_event *events, int room, int64_t until_mono_ns)
{
    int64_t left = until_mono_ns ? until_mono_ns - clock_mono_ns() : 0;
    if (left < 0)
        left = 0;
    struct timespec wait = {left / NS_PER_S, left % NS_PER_S};
    int count = epoll_pwait2(epoll_fd, events, room, &wait, NULL);
    return count < 0 ? 0 : count;
}

bool tcp_flow_counters(const struct tcp_flow *flow, unsigned stream, struct tcp_counters *counters)
{
    return flow->sctp ? sctpinfo_read(flow->fds[stream], counters)
                      : tcpinfo_read(flow->fds[stream], counters);
}

uint64_t tcp_rate(const struct probe_order *order, bool *capped)
{
    uint64_t asked = order->spec.bitrate_max ? 0 : order->spec.bitrate_bps, rate = asked;
    const uint64_t limits[] = {order->limit_bps, order->cap_bps};
    for (int i = 0; i < 2; i++)
        if (limits[i] && (!rate || limits[i] < rate))
            rate = limits[i];
    *capped = rate != asked;
    return rate;
}
