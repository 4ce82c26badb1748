#include "dataport_parts.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "light.h"

#define BATCH 32
#define DATAGRAM_ROOM 128 // no message to the listener is longer

// One turn's datagrams and their answers, on the thread's stack.
struct batch {
    struct mmsghdr in[BATCH], out[BATCH];
    struct iovec in_iov[BATCH], out_iov[BATCH];
    union address peer[BATCH];
    uint8_t bytes[BATCH][DATAGRAM_ROOM], answer[BATCH][LIGHT_SIZE];
    _Alignas(struct cmsghdr) uint8_t ancillary[BATCH][256], source[BATCH][64];
    unsigned answers;
};

struct arrival {
    int64_t stamp_ns; // CLOCK_REALTIME
    bool kernel_stamp;
    union address local; // the address it was sent to; family 0: unknown
};

static void prepare(struct batch *batch)
{
    batch->answers = 0;
    for (size_t i = 0; i < BATCH; i++) {
        batch->in_iov[i] = (struct iovec){batch->bytes[i], DATAGRAM_ROOM};
        batch->in[i].msg_hdr = (struct msghdr){.msg_name = &batch->peer[i],
            .msg_namelen = sizeof batch->peer[i],
            .msg_iov = &batch->in_iov[i],
            .msg_iovlen = 1,
            .msg_control = batch->ancillary[i],
            .msg_controllen = sizeof batch->ancillary[i]};
    }
}

static void read_ancillary(struct msghdr *header, uint16_t port, struct arrival *arrival)
{
    memset(arrival, 0, sizeof *arrival);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
            arrival->stamp_ns = stamp.tv_sec * NS_PER_S + stamp.tv_nsec;
            arrival->kernel_stamp = true;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            address_wildcard(AF_INET, port, &arrival->local);
            arrival->local.v4.sin_addr = info.ipi_addr;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            address_wildcard(AF_INET6, port, &arrival->local);
            arrival->local.v6.sin6_addr = info.ipi6_addr;
        }
    }
    if (!arrival->kernel_stamp)
        arrival->stamp_ns = clock_wall_ns();
}

// An answer leaves from the address that was asked, which matters at a wildcard.
static void put_source(struct msghdr *header, const union address *local, uint8_t *room)
{
    header->msg_control = room;
    struct cmsghdr *c = (struct cmsghdr *)room;
    if (local->any.sa_family == AF_INET) {
        struct in_pktinfo info = {.ipi_spec_dst = local->v4.sin_addr};
        header->msg_controllen = CMSG_SPACE(sizeof info);
        *c = (struct cmsghdr){CMSG_LEN(sizeof info), IPPROTO_IP, IP_PKTINFO};
        memcpy(CMSG_DATA(c), &info, sizeof info);
    } else {
        struct in6_pktinfo info = {.ipi6_addr = local->v6.sin6_addr};
        header->msg_controllen = CMSG_SPACE(sizeof info);
        *c = (struct cmsghdr){CMSG_LEN(sizeof info), IPPROTO_IPV6, IPV6_PKTINFO};
        memcpy(CMSG_DATA(c), &info, sizeof info);
    }
}

static void queue_answer(
    struct batch *batch, size_t question, size_t size, const union address *local)
{
    unsigned n = batch->answers++;
    batch->out_iov[n] = (struct iovec){batch->answer[n], size};
    batch->out[n].msg_hdr = (struct msghdr){.msg_name = &batch->peer[question],
        .msg_namelen = batch->in[question].msg_hdr.msg_namelen,
        .msg_iov = &batch->out_iov[n],
        .msg_iovlen = 1};
    if (local->any.sa_family != 0)
        put_source(&batch->out[n].msg_hdr, local, batch->source[n]);
}

static int bound_and_connected(
    const union address *from, const union address *peer, union address *local)
{
    int fd = socket(peer->any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    socklen_t size = sizeof *local;
    if (fd < 0)
        return -errno;
    if (peer->any.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) == 0 &&
        bind(fd, &from->any, address_size(from)) == 0 &&
        connect(fd, &peer->any, address_size(peer)) == 0 &&
        getsockname(fd, &local->any, &size) == 0)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

static bool same_ip(const union address *a, const union address *b)
{
    if (a->any.sa_family == AF_INET)
        return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0;
}

// Bound to what the listener is bound to, so that they are one group; only where the route would
// choose another source address than the one asked, bound to that one.
static int open_connected(dataport_t *self, const struct listener *listener,
    const union address *asked, const union address *peer)
{
    union address from = listener->asked, local;
    if (listener->wildcard)
        address_wildcard(peer->any.sa_family, self->port, &from);
    int fd = bound_and_connected(&from, peer, &local);
    if (fd < 0 || asked->any.sa_family == 0 || same_ip(asked, &local))
        return fd;
    close(fd);
    return bound_and_connected(asked, peer, &local);
}

static size_t answer_open(dataport_t *self, admission_t *admission, uint8_t stream,
    const uint8_t *bytes, size_t size, uint8_t *out)
{
    struct greeting *greeting = &admission->greetings[stream];
    uint8_t nonce_c[TICKET_NONCE_SIZE];
    if (!ticket_check_open(&admission->keys, bytes, size, nonce_c)) {
        self->counters.forged++;
        return 0;
    }
    bool same = greeting->answered && memcmp(greeting->nonce_c, nonce_c, sizeof nonce_c) == 0;
    if (greeting->proven && !same) {
        self->counters.replayed++;
        return 0;
    }
    if (!same) {
        memcpy(greeting->nonce_c, nonce_c, sizeof nonce_c);
        ticket_random(greeting->nonce_l, sizeof greeting->nonce_l);
        greeting->answered = true;
    }
    ticket_make_answer(&admission->keys, stream, nonce_c, greeting->nonce_l, out);
    return TICKET_ANSWER_SIZE;
}

static void accept_proof(dataport_t *self, struct listener *listener, admission_t *admission,
    uint8_t stream, const uint8_t *bytes, size_t size, const union address *asked,
    const union address *peer)
{
    struct greeting *greeting = &admission->greetings[stream];
    if (!greeting->answered || !ticket_check_proof(&admission->keys, bytes, size, stream,
                                   greeting->nonce_c, greeting->nonce_l)) {
        self->counters.forged++;
        return;
    }
    if (greeting->proven) {
        self->counters.replayed++;
        return;
    }
    int fd = open_connected(self, listener, asked, peer);
    if (fd < 0)
        return; // the peer repeats its PROOF
    greeting->proven = true;
    self->counters.proven++;
    // The receipt: an ANSWER under the listening end's nonce, so that the peer stops repeating.
    uint8_t receipt[TICKET_ANSWER_SIZE];
    ticket_make_answer(&admission->keys, stream, greeting->nonce_l, greeting->nonce_l, receipt);
    (void)!send(fd, receipt, sizeof receipt, MSG_NOSIGNAL);
    admission_give(admission, fd, stream, peer);
}

// Only what the key proves lets the thread spin, and the time begins once.
static void spin_for(dataport_t *self, struct entry *entry)
{
    int64_t now = clock_mono_ns();
    if (entry->spin_ns == 0)
        return;
    if (entry->spin_end_mono_ns == 0)
        entry->spin_end_mono_ns = now + entry->spin_ns;
    if (entry->spin_end_mono_ns > self->spin_end_mono_ns)
        self->spin_end_mono_ns = entry->spin_end_mono_ns;
    if (now < entry->spin_end_mono_ns)
        self->spun_for_mono_ns = now;
}

// False: it is no light probe, or nobody's.
static bool reflect(
    dataport_t *self, struct batch *batch, size_t i, size_t size, const struct arrival *arrival)
{
    const uint8_t *id = light_peek(batch->bytes[i], size);
    struct entry *entry = id ? dataport_entry(self, id) : NULL;
    if (!entry || !entry->keys)
        return false;
    unsigned flags = (arrival->kernel_stamp ? LIGHT_FLAG_KERNEL_T2 : 0) |
                     (self->spinner.spins ? LIGHT_FLAG_SPUN : 0);
    size_t length = light_answer(entry->keys, batch->bytes[i], size, arrival->stamp_ns, flags,
        &self->clock, batch->answer[batch->answers]);
    if (length == 0 || length > size) {
        self->counters.forged++;
        return true;
    }
    queue_answer(batch, i, length, &arrival->local);
    spin_for(self, entry);
    return true;
}

static void handle(dataport_t *self, struct listener *listener, struct batch *batch, size_t i)
{
    struct arrival arrival;
    size_t size = batch->in[i].msg_len;
    read_ancillary(&batch->in[i].msg_hdr, self->port, &arrival);
    const uint8_t *id, *bytes = batch->bytes[i];
    uint8_t stream;
    if (batch->in[i].msg_hdr.msg_flags & MSG_TRUNC) {
        self->counters.strangers++;
        return;
    }
    int type = ticket_peek(bytes, size, &id, &stream);
    if (type == 0) {
        if (!reflect(self, batch, i, size, &arrival))
            self->counters.strangers++;
        return;
    }
    struct entry *entry = dataport_entry(self, id);
    admission_t *admission = entry ? entry->admission : NULL;
    if (!admission || admission->protocol != DATAPORT_UDP || stream >= admission->streams) {
        self->counters.strangers++;
    } else if (type == TICKET_OPEN) {
        size_t length =
            answer_open(self, admission, stream, bytes, size, batch->answer[batch->answers]);
        if (length > 0)
            queue_answer(batch, i, length, &arrival.local);
    } else if (type == TICKET_PROOF) {
        accept_proof(
            self, listener, admission, stream, bytes, size, &arrival.local, &batch->peer[i]);
    }
}

static void flush(struct listener *listener, struct batch *batch)
{
    unsigned sent = 0;
    while (sent < batch->answers) {
        int n = sendmmsg(
            listener->fd, batch->out + sent, batch->answers - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (unsigned)n : 1; // one that cannot be sent must not hold the others
    }
}

void dataport_datagrams(dataport_t *self, struct listener *listener)
{
    struct batch batch;
    prepare(&batch);
    int count = recvmmsg(listener->fd, batch.in, BATCH, MSG_DONTWAIT, NULL);
    light_clock_read(&self->clock);
    for (int i = 0; i < count; i++)
        handle(self, listener, &batch, (size_t)i);
    flush(listener, &batch);
}
