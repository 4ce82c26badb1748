#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "light_parts.h"

bool light_target_set(struct light_target *self, const char *address, uint16_t port)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&self->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&self->address;
    memset(self, 0, sizeof *self);
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        self->size = sizeof *v4;
        return true;
    }
    if (inet_pton(AF_INET6, address, &v6->sin6_addr) != 1)
        return false;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    self->size = sizeof *v6;
    return true;
}

// Bound to our own address of that family if it is local, else to any.
static void bind_local(int fd, unsigned family, const char *local)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (family == AF_INET && inet_pton(AF_INET, local, &v4.sin_addr) == 1)
        (void)!bind(fd, (struct sockaddr *)&v4, sizeof v4);
    else if (family == AF_INET6 && inet_pton(AF_INET6, local, &v6.sin6_addr) == 1)
        (void)!bind(fd, (struct sockaddr *)&v6, sizeof v6);
}

bool light_flow_open(struct light_flow *self, unsigned family, const char *local)
{
    // Sending is stamped where the packet enters the interface's queue (not where it leaves it):
    // what it waits there, behind this host's own load, is part of what its sender feels.
    int stamping = SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_RX_SOFTWARE |
                   SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID |
                   SOF_TIMESTAMPING_OPT_TSONLY;
    self->family = family;
    self->sent = 0;
    self->fd = socket((int)family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (self->fd < 0)
        return false;
    (void)setsockopt(self->fd, SOL_SOCKET, SO_TIMESTAMPING, &stamping, sizeof stamping);
    bind_local(self->fd, family, local);
    return true;
}

static bool put(int fd, const uint8_t *bytes, const struct light_target *target)
{
    const struct sockaddr *address = (const struct sockaddr *)&target->address;
    ssize_t sent =
        sendto(fd, bytes, LIGHT_SIZE, MSG_DONTWAIT | MSG_NOSIGNAL, address, target->size);
    // A pending ICMP error of an earlier question: this one has not been tried yet.
    if (sent < 0 && (errno == ECONNREFUSED || errno == EHOSTUNREACH || errno == ENETUNREACH))
        sent = sendto(fd, bytes, LIGHT_SIZE, MSG_DONTWAIT | MSG_NOSIGNAL, address, target->size);
    return sent >= 0;
}

bool light_flow_ask(struct light_flow *self, const struct light_target *target,
    const struct ticket_keys *keys, uint64_t number, uint32_t owner, unsigned index,
    const struct light_clock *clock, struct light_asked *asked)
{
    struct light_datagram question = {.type = LIGHT_ASK, .number = number, .flow = index};
    uint8_t bytes[LIGHT_SIZE];
    light_pack(&question, keys, bytes);
    int64_t now = clock_mono_ns();
    *asked = (struct light_asked){.number = number,
        .t1_wall_ns = now + clock->offset_ns,
        .offset_ns = clock->offset_ns,
        .asked_mono_ns = now,
        .waiting = put(self->fd, bytes, target)};
    if (!asked->waiting)
        return false;
    uint32_t key = self->sent++;
    self->stamps[key % LIGHT_STAMPS].owner = owner;
    self->stamps[key % LIGHT_STAMPS].key = key;
    self->stamps[key % LIGHT_STAMPS].number = number;
    return true;
}

static int64_t to_ns(const struct timespec *stamp)
{
    return stamp->tv_sec * NS_PER_S + stamp->tv_nsec;
}

// The software stamp of a received message or of an entry of the error queue.
static bool stamp_of(struct msghdr *header, int64_t *stamp_ns, uint32_t *key)
{
    bool stamped = false;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPING) {
            struct scm_timestamping stamps;
            memcpy(&stamps, CMSG_DATA(c), sizeof stamps);
            *stamp_ns = to_ns(&stamps.ts[0]);
            stamped = *stamp_ns > 0;
        } else if (key && ((c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR) ||
                              (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_RECVERR))) {
            struct sock_extended_err error;
            memcpy(&error, CMSG_DATA(c), sizeof error);
            *key = error.ee_data;
        }
    }
    return stamped;
}

bool light_flow_stamp(
    struct light_flow *self, bool *known, uint32_t *owner, uint64_t *number, int64_t *wall_ns)
{
    _Alignas(struct cmsghdr) char control[512];
    struct msghdr header = {.msg_control = control, .msg_controllen = sizeof control};
    uint32_t key = UINT32_MAX;
    if (recvmsg(self->fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
        return false;
    bool stamped = stamp_of(&header, wall_ns, &key);
    *known = stamped && self->stamps[key % LIGHT_STAMPS].key == key && key < self->sent;
    *owner = self->stamps[key % LIGHT_STAMPS].owner;
    *number = self->stamps[key % LIGHT_STAMPS].number;
    return true;
}

ssize_t light_flow_read(
    struct light_flow *self, uint8_t bytes[LIGHT_SIZE + 1], int64_t *wall_ns, bool *kernel)
{
    _Alignas(struct cmsghdr) char control[512];
    struct iovec iov = {bytes, LIGHT_SIZE + 1};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(self->fd, &header, MSG_DONTWAIT);
    if (got < 0)
        return got;
    *kernel = stamp_of(&header, wall_ns, NULL);
    if (!*kernel)
        *wall_ns = clock_wall_ns();
    return got;
}
