// How the probes of a path leave: one socket for all of a flow, or of TCP one each from the same
// port.

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <string.h>
#include <sys/epoll.h>

#include "path_parts.h"

static void watch_it(struct path *self, struct watch *watch, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    (void)!epoll_ctl(self->epoll, EPOLL_CTL_ADD, watch->fd, &event);
}

static void set_errors(int fd, bool six)
{
    int one = 1;
    (void)setsockopt(
        fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVERR : IP_RECVERR, &one, sizeof one);
}

static int socket_of(unsigned via, bool six)
{
    if (via == MP__TRANSPORT__OVER_ICMP)
        return socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
            six ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
    return reach_socket(six ? AF_INET6 : AF_INET, (Mp__Transport)via);
}

int path_dial(struct path *self, struct walk *walk, struct watch *watch, unsigned via)
{
    struct sockaddr_storage local, peer;
    socklen_t local_size, peer_size;
    int one = 1;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (!reach_address(walk->peer.local_address, walk->source_port, &local, &local_size) ||
        !reach_address(walk->peer.peer_address, walk->peer.peer_port, &peer, &peer_size))
        return EDESTADDRREQ;
    walk->six = peer.ss_family == AF_INET6;
    watch->fd = socket_of(via, walk->six);
    if (watch->fd < 0)
        return errno;
    set_errors(watch->fd, walk->six);
    if (via == MP__TRANSPORT__OVER_TCP) {
        (void)setsockopt(watch->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        (void)setsockopt(watch->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        reach_set_ttl(watch->fd, walk->six, walk->ttl);
    }
    if (via == MP__TRANSPORT__OVER_ICMP)
        ((struct sockaddr_in *)&local)->sin_port = 0;
    (void)!bind(watch->fd, (struct sockaddr *)&local, local_size);
    int rc = connect(watch->fd, (struct sockaddr *)&peer, peer_size) < 0 ? errno : 0;
    struct sockaddr_storage own;
    socklen_t own_size = sizeof own;
    struct reach_contact source;
    if (getsockname(watch->fd, (struct sockaddr *)&own, &own_size) == 0) {
        reach_text(&own, &source);
        walk->source_port = source.port; // the flow stays the same
    }
    if (rc == 0 || rc == EINPROGRESS)
        watch_it(self, watch, via == MP__TRANSPORT__OVER_TCP ? EPOLLOUT : EPOLLIN);
    else
        reach_unwatch(watch);
    return rc == EINPROGRESS ? 0 : rc;
}

int path_say(struct walk *walk, unsigned type, unsigned tag, size_t size)
{
    uint8_t bytes[65536] = {0}, nonce[16];
    memcpy(nonce, walk->nonce, sizeof nonce);
    nonce[14] = (uint8_t)(tag >> 8);
    nonce[15] = (uint8_t)tag;
    reach_pack(&walk->peer.keys, type, nonce, bytes);
    return send(walk->watch.fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

int path_echo(struct walk *walk, unsigned tag)
{
    struct icmphdr four = {.type = ICMP_ECHO, .un.echo.sequence = htons((uint16_t)tag)};
    struct icmp6_hdr v6 = {.icmp6_type = ICMP6_ECHO_REQUEST, .icmp6_seq = htons((uint16_t)tag)};
    uint8_t bytes[REACH_SIZE] = {0};
    memcpy(bytes, walk->six ? (void *)&v6 : (void *)&four, 8);
    return send(walk->watch.fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}
