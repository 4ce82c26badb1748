#include "dataport_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#include "sctp.h"
#include "testspec.h"

// Needs the sockets' headers before it.
#include <linux/sctp.h>

bool address_parse(const char *text, uint16_t port, union address *address)
{
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, text, &address->v4.sin_addr) == 1) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons(port);
        return true;
    }
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET6, text, &address->v6.sin6_addr) != 1)
        return false;
    address->v6.sin6_family = AF_INET6;
    address->v6.sin6_port = htons(port);
    return true;
}

socklen_t address_size(const union address *address)
{
    return address->any.sa_family == AF_INET ? sizeof address->v4 : sizeof address->v6;
}

void address_wildcard(sa_family_t family, uint16_t port, union address *address)
{
    memset(address, 0, sizeof *address);
    address->any.sa_family = family;
    if (family == AF_INET)
        address->v4.sin_port = htons(port);
    else
        address->v6.sin6_port = htons(port);
}

static int set_int(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

void protocol_dress(enum dataport_protocol protocol, int fd)
{
    if (protocol == DATAPORT_TCP)
        set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (protocol != DATAPORT_SCTP)
        return;
    set_int(fd, IPPROTO_SCTP, SCTP_NODELAY, 1);
    sctp_abort_on_close(fd);
    sctp_hurry(fd);
}

int protocol_socket(enum dataport_protocol protocol, sa_family_t family)
{
    int type = protocol == DATAPORT_UDP ? SOCK_DGRAM : SOCK_STREAM;
    int number = protocol == DATAPORT_SCTP ? IPPROTO_SCTP : 0;
    int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, number);
    if (fd < 0)
        return -errno;
    protocol_dress(protocol, fd);
    return fd;
}

// Every flow that has no connected socket stays with the first of the group: the listener.
static int keep_strangers(int fd)
{
    struct sock_filter first[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog program = {.len = 1, .filter = first};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0)
        return -errno;
    return 0;
}

static int prepare_udp(int fd, sa_family_t family)
{
    set_int(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);  // without it light probes get user stamps
    set_int(fd, SOL_SOCKET, SO_RCVBUF, 4 << 20); // a mesh's probes may come all at once
    if (family == AF_INET)
        return set_int(fd, IPPROTO_IP, IP_PKTINFO, 1);
    return set_int(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
}

// Without SO_REUSEPORT, so that another program's socket on this port is noticed.
static int port_is_free(const union address *address)
{
    int fd = socket(address->any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (address->any.sa_family == AF_INET6)
        set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    int rc = bind(fd, &address->any, address_size(address)) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

static int open_socket(enum dataport_protocol protocol, const union address *address)
{
    bool udp = protocol == DATAPORT_UDP;
    sa_family_t family = address->any.sa_family;
    int rc = udp ? port_is_free(address) : 0;
    if (rc < 0)
        return rc;
    int fd = protocol_socket(protocol, family);
    if (fd < 0)
        return fd;
    if (family == AF_INET6)
        rc = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (rc == 0)
        rc = set_int(fd, SOL_SOCKET, udp ? SO_REUSEPORT : SO_REUSEADDR, 1);
    if (rc == 0 && udp)
        rc = prepare_udp(fd, family);
    if (rc == 0 && protocol == DATAPORT_SCTP)
        rc = sctp_ask_streams(fd, TESTSPEC_STREAMS_MAX); // the peer asks for fewer
    if (rc == 0 && bind(fd, &address->any, address_size(address)) < 0)
        rc = -errno;
    if (rc == 0)
        rc = udp ? keep_strangers(fd) : (listen(fd, 512) < 0 ? -errno : 0);
    if (rc < 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

static struct listener *find_same(
    dataport_t *self, enum dataport_protocol protocol, const union address *address)
{
    for (size_t i = 0; i < LISTENERS_MAX; i++) {
        struct listener *one = &self->listeners[i];
        if (one->fd >= 0 && one->protocol == protocol &&
            one->asked.any.sa_family == address->any.sa_family &&
            (one->wildcard || memcmp(&one->asked, address, sizeof *address) == 0))
            return one;
    }
    return NULL;
}

static struct listener *free_slot(dataport_t *self)
{
    for (size_t i = 0; i < LISTENERS_MAX; i++)
        if (self->listeners[i].fd < 0)
            return &self->listeners[i];
    return NULL;
}

struct listener *listener_open(
    dataport_t *self, enum dataport_protocol protocol, const char *local_address, int *error)
{
    union address address, wildcard;
    *error = -EINVAL;
    if (!address_parse(local_address, self->port, &address))
        return NULL;
    struct listener *listener = find_same(self, protocol, &address);
    if (listener) {
        listener->users++;
        return listener;
    }
    listener = free_slot(self);
    *error = -EMFILE;
    if (!listener)
        return NULL;
    bool elsewhere = false;
    int fd = open_socket(protocol, &address);
    if (fd == -EADDRNOTAVAIL) {
        address_wildcard(address.any.sa_family, self->port, &wildcard);
        fd = open_socket(protocol, &wildcard);
        elsewhere = true;
    }
    *error = fd;
    if (fd < 0)
        return NULL;
    *listener = (struct listener){.fd = fd,
        .protocol = protocol,
        .asked = address,
        .wildcard = elsewhere,
        .users = 1,
        .generation = listener->generation + 1};
    *error = dataport_watch(
        self, fd, SOURCE_LISTENER, (size_t)(listener - self->listeners), listener->generation);
    if (*error == 0)
        return listener;
    listener_release(self, listener);
    return NULL;
}

void listener_release(dataport_t *self, struct listener *listener)
{
    (void)self;
    if (--listener->users > 0)
        return;
    close(listener->fd);
    listener->fd = -1;
}
