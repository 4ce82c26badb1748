#include "udp_outlet.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define PAGE 4096
#define SEGMENTS_MAX 128 // of newer kernels; older ones refuse more than 64
#define SEGMENTS_OLD 64
#define REFUSALS_MAX 3

unsigned udp_route_mtu(int fd)
{
    int mtu = 0;
    socklen_t size = sizeof mtu;
    int failed = udp_is_six(fd) ? getsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &size)
                                : getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &size);
    return failed ? 0 : (unsigned)mtu;
}

bool udp_is_six(int fd)
{
    struct sockaddr_storage own = {0};
    socklen_t size = sizeof own;
    (void)getsockname(fd, (struct sockaddr *)&own, &size);
    return own.ss_family == AF_INET6;
}

// -------------------------------------------------------------------------- what is sent

static void lay_out(const struct udp_outlet *self, const struct udp_batch *batch)
{
    const struct udp_sender *sender = self->sender;
    uint64_t offset = htobe64(batch->offset_ns > 0 ? (uint64_t)batch->offset_ns : 0);
    uint8_t constant[16] = {UDP_LOAD, (uint8_t)(self->first + self->turn)};
    memcpy(constant + 4, sender->order->keys.load_tag[sender->direction], 12);
    uint8_t *at = self->bytes;
    for (unsigned i = 0; i < batch->count; i++, at += self->length) {
        bool omit = i < batch->omit;
        uint64_t number = htobe64(omit ? batch->omitted + i : batch->number + i - batch->omit);
        constant[2] = omit ? UDP_FLAG_OMIT : 0;
        memcpy(at, constant, sizeof constant);
        memcpy(at + 16, &number, sizeof number);
        memcpy(at + 24, &offset, sizeof offset);
    }
}

// -------------------------------------------------------------------------- one packet

static void wait_room(struct udp_outlet *self, int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLOUT};
    int64_t before = clock_mono_ns();
    poll(&polled, 1, 20);
    int64_t waited = clock_mono_ns() - before;
    self->blocked_ns += waited;
    if (before >= self->window_begin_ns)
        self->blocked_window_ns += waited;
}

bool udp_outlet_shrink(struct udp_outlet *self, int fd)
{
    unsigned mtu = udp_route_mtu(fd), headers = udp_is_six(fd) ? 48 : 28;
    if (self->sender->order->spec.length || mtu < headers + UDP_HEADER ||
        mtu - headers >= self->length)
        return false;
    self->path_mtu = mtu;
    self->length = mtu - headers;
    return true;
}

enum fate { SENT, AGAIN, LOST, SHORTER, ONE_BY_ONE };

// What to do about a packet that the kernel did not take.
static enum fate fate_of(struct udp_outlet *self, int fd, unsigned count, unsigned *refusals)
{
    switch (errno) {
    case EAGAIN:
        wait_room(self, fd);
        return atomic_load(&self->sender->link.stop) ? LOST : AGAIN;
    case EINTR:
        return AGAIN;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
        // A pending ICMP error of an earlier datagram: this one has not been tried yet.
        return ++*refusals < REFUSALS_MAX ? AGAIN : LOST;
    case EMSGSIZE:
        if (udp_outlet_shrink(self, fd))
            return SHORTER;
        return count > 1 ? ONE_BY_ONE : LOST;
    case EIO:
    case EINVAL:
    case EOPNOTSUPP:
    case ENOPROTOOPT:
        // Segmenting is refused: too many for this kernel, or this device cannot.
        return count > 1 ? ONE_BY_ONE : LOST;
    default:
        return LOST;
    }
}

static ssize_t send_packet(const struct udp_outlet *self, int fd, unsigned first, unsigned count)
{
    uint16_t each = (uint16_t)self->length;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof each)] = {0};
    uint8_t *at = self->bytes + (size_t)first * each;
    if (count == 1)
        return send(fd, at, each, MSG_DONTWAIT | MSG_NOSIGNAL);
    struct iovec iov = {at, (size_t)count * each};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_UDP;
    header->cmsg_type = UDP_SEGMENT;
    header->cmsg_len = CMSG_LEN(sizeof each);
    memcpy(CMSG_DATA(header), &each, sizeof each);
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// Fewer segments from now on.
static void segment_less(struct udp_outlet *self)
{
    self->segments = self->segments > SEGMENTS_OLD ? SEGMENTS_OLD : 1;
}

static void account(struct udp_outlet *self, const struct udp_batch *batch, unsigned first,
    unsigned count, bool sent)
{
    unsigned end = first + count, window = end - (first > batch->omit ? first : batch->omit);
    if (end <= batch->omit)
        return;
    if (sent)
        self->sent_bytes += (uint64_t)window * self->length;
    else
        self->lost += window;
}

// One call a packet: sendmmsg keeps the error of any but its first to itself, and a packet that the
// host's own queue dropped would be sent again as if it had never been tried.
void udp_outlet_send(struct udp_outlet *self, const struct udp_batch *batch)
{
    int fd = self->sender->fds[self->first + self->turn];
    unsigned refusals = 0;
    lay_out(self, batch);
    for (unsigned first = 0; first < batch->count;) {
        unsigned left = batch->count - first;
        unsigned count = left < self->segments ? left : self->segments;
        enum fate fate =
            send_packet(self, fd, first, count) >= 0 ? SENT : fate_of(self, fd, count, &refusals);
        if (fate == ONE_BY_ONE)
            segment_less(self);
        else if (fate == SHORTER)
            lay_out(self, batch);
        if (fate != SENT && fate != LOST)
            continue;
        account(self, batch, first, count, fate == SENT);
        first += count;
        refusals = 0;
    }
    self->turn = (self->turn + 1) % self->streams;
}

void udp_outlet_try(struct udp_outlet *self, uint64_t omitted, size_t size)
{
    struct udp_batch one = {.count = 1, .omit = 1, .omitted = omitted};
    lay_out(self, &one);
    (void)send(self->sender->fds[self->first], self->bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// ---------------------------------------------------------------------------------- opening

static bool can_segment(int fd)
{
    int each = 0;
    socklen_t size = sizeof each;
    return getsockopt(fd, SOL_UDP, UDP_SEGMENT, &each, &size) == 0 &&
           setsockopt(fd, SOL_UDP, UDP_SEGMENT, &each, sizeof each) == 0;
}

void udp_outlet_open(struct udp_outlet *self, struct udp_sender *sender, unsigned first,
    unsigned streams, unsigned most)
{
    unsigned fit = UDP_PAYLOAD_MAX / sender->length;
    *self = (struct udp_outlet){.sender = sender,
        .first = first,
        .streams = streams,
        .length = sender->length,
        .path_mtu = sender->path_mtu,
        .most = most ? most : fit};
    if (self->most > SEGMENTS_MAX)
        self->most = SEGMENTS_MAX;
    if (self->most < 1)
        self->most = 1;
    self->segments = sender->fragmented || !can_segment(sender->fds[first]) ? 1 : self->most;
    // On a page's edge the kernel copies faster. One byte more: see udp_path.c.
    size_t size = ((size_t)self->most * self->length + 1 + PAGE - 1) / PAGE * PAGE;
    self->bytes = aligned_alloc(PAGE, size);
    if (!self->bytes)
        abort();
    memset(self->bytes, 0, size);
}

void udp_outlet_close(struct udp_outlet *self)
{
    free(self->bytes);
    self->bytes = NULL;
}
