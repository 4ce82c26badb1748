// The thread that sends UDP load: when, how much at a time, and what became of it.

#include "udp_parts.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"
#include "pacer.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define PAGE 4096
#define SEGMENTS_MAX 128 // of newer kernels; older ones refuse more than 64
#define SEGMENTS_OLD 64
#define RAMP_NS (50 * NS_PER_MS)
#define OWED_NS (50 * NS_PER_MS) // after the window's end, for what was due before it
#define FLOOD_START_BPS 200e6
#define QUANTUM_NS (250 * NS_PER_US)
#define SLEEP_GAP_NS (50 * NS_PER_US) // closer than this a thread cannot wake
#define BEHIND_NS (20 * NS_PER_MS)    // a pace that is not kept
#define BEHIND_LOOKS 4
#define ONE_BY_ONE_PPS 500e3 // more than a core sends as single packets
#define FULL_LOOK_NS (50 * NS_PER_US)
#define FULL_MAX_NS (50 * NS_PER_MS) // the word that there is room again may be lost
#define REFUSALS_MAX 3
#define PATH_NS (200 * NS_PER_MS) // before the load, until a datagram of full length arrives
#define PATH_AGAIN_NS (20 * NS_PER_MS)
#define PATH_LOOK_NS (200 * NS_PER_US)

// The state of the sending loop.
struct loop {
    struct udp_sender *sender;
    struct pacer pacer;
    int64_t load_begin_ns, window_begin_ns, window_end_ns, ramp_ns;
    double rate_bps;
    int64_t blocked_ns, blocked_before_ns, looked_ns;
    uint64_t number, omitted, drops_seen;
    unsigned stream, behind, most; // most datagrams at a time
    bool ramping;
    uint8_t *bytes; // `most` datagrams, one after the other
};

// Datagrams that leave together.
struct batch {
    unsigned count, omit;     // the first `omit` of them are of before the window
    uint64_t omitted, number; // of the first of either kind
    int64_t offset_ns;
};

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

bool udp_in_quanta(const struct testspec *spec)
{
    unsigned length = spec->length ? spec->length : TESTSPEC_LENGTH_DEFAULT;
    return spec->bitrate_max || (double)spec->bitrate_bps / 8 / length > ONE_BY_ONE_PPS;
}

// -------------------------------------------------------------------------- what is sent

static void lay_out(const struct loop *loop, const struct batch *batch)
{
    const struct udp_sender *sender = loop->sender;
    uint64_t offset = htobe64(batch->offset_ns > 0 ? (uint64_t)batch->offset_ns : 0);
    uint8_t constant[16] = {UDP_LOAD, (uint8_t)loop->stream};
    memcpy(constant + 4, sender->order->keys.load_tag[sender->direction], 12);
    uint8_t *at = loop->bytes;
    for (unsigned i = 0; i < batch->count; i++, at += sender->length) {
        bool omit = i < batch->omit;
        uint64_t number = htobe64(omit ? batch->omitted + i : batch->number + i - batch->omit);
        constant[2] = omit ? UDP_FLAG_OMIT : 0;
        memcpy(at, constant, sizeof constant);
        memcpy(at + 16, &number, sizeof number);
        memcpy(at + 24, &offset, sizeof offset);
    }
}

// A datagram belongs where it was due, so that a late wake-up moves nothing across the window's
// edge; a flood has no times of its own.
static struct batch take(struct loop *loop, unsigned count, int64_t now)
{
    struct batch batch = {.count = count,
        .omitted = loop->omitted,
        .number = loop->number,
        .offset_ns = now - loop->window_begin_ns};
    if (loop->sender->flood)
        batch.omit = now < loop->window_begin_ns ? count : 0;
    else
        while (
            batch.omit < count && pacer_due_ahead(&loop->pacer, batch.omit) < loop->window_begin_ns)
            batch.omit++;
    loop->omitted += batch.omit;
    loop->number += count - batch.omit;
    return batch;
}

// -------------------------------------------------------------------------- one packet

static void wait_room(struct loop *loop, int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLOUT};
    int64_t before = clock_mono_ns();
    poll(&polled, 1, 20);
    int64_t waited = clock_mono_ns() - before;
    loop->blocked_ns += waited;
    if (before >= loop->window_begin_ns)
        loop->sender->blocked_ns += waited;
}

// The path takes less than was thought: shorter datagrams, unless their length is asked for.
static bool shrink(struct loop *loop, int fd)
{
    struct udp_sender *sender = loop->sender;
    unsigned mtu = udp_route_mtu(fd), headers = udp_is_six(fd) ? 48 : 28;
    if (sender->order->spec.length || mtu < headers + UDP_HEADER || mtu - headers >= sender->length)
        return false;
    sender->path_mtu = mtu;
    sender->length = mtu - headers;
    pacer_set_rate(&loop->pacer, clock_mono_ns(), sender->length, loop->rate_bps);
    return true;
}

enum fate { SENT, AGAIN, LOST, SHORTER, ONE_BY_ONE };

// What to do about a packet that the kernel did not take.
static enum fate fate_of(struct loop *loop, int fd, unsigned count, unsigned *refusals)
{
    struct udp_sender *sender = loop->sender;
    switch (errno) {
    case EAGAIN:
        wait_room(loop, fd);
        return atomic_load(&sender->link.stop) ? LOST : AGAIN;
    case EINTR:
        return AGAIN;
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
        // A pending ICMP error of an earlier datagram: this one has not been tried yet.
        return ++*refusals < REFUSALS_MAX ? AGAIN : LOST;
    case EMSGSIZE:
        if (shrink(loop, fd))
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

static ssize_t send_packet(const struct loop *loop, int fd, unsigned first, unsigned count)
{
    uint16_t each = (uint16_t)loop->sender->length;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof each)] = {0};
    uint8_t *at = loop->bytes + (size_t)first * each;
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
static void segment_less(struct udp_sender *sender)
{
    sender->segments = sender->segments > SEGMENTS_OLD ? SEGMENTS_OLD : 1;
}

static void account(
    struct loop *loop, const struct batch *batch, unsigned first, unsigned count, bool sent)
{
    unsigned end = first + count, window = end - (first > batch->omit ? first : batch->omit);
    if (end <= batch->omit)
        return;
    if (sent)
        loop->sender->bytes += (uint64_t)window * loop->sender->length;
    else
        loop->sender->lost_sender += window;
}

// One call a packet: sendmmsg keeps the error of any but its first to itself, and a packet that the
// host's own queue dropped would be sent again as if it had never been tried.
static void send_batch(struct loop *loop, const struct batch *batch)
{
    struct udp_sender *sender = loop->sender;
    int fd = sender->fds[loop->stream];
    unsigned refusals = 0;
    lay_out(loop, batch);
    for (unsigned first = 0; first < batch->count;) {
        unsigned left = batch->count - first;
        unsigned count = left < sender->segments ? left : sender->segments;
        enum fate fate =
            send_packet(loop, fd, first, count) >= 0 ? SENT : fate_of(loop, fd, count, &refusals);
        if (fate == ONE_BY_ONE)
            segment_less(sender);
        else if (fate == SHORTER)
            lay_out(loop, batch);
        if (fate != SENT && fate != LOST)
            continue;
        account(loop, batch, first, count, fate == SENT);
        first += count;
        refusals = 0;
    }
    loop->stream = (loop->stream + 1) % sender->streams;
}

// The time afterwards.
static int64_t depart(struct loop *loop, unsigned count, int64_t now)
{
    struct batch batch = take(loop, count, now);
    send_batch(loop, &batch);
    pacer_departed(&loop->pacer, count, now);
    return clock_mono_ns();
}

// ---------------------------------------------------------------------------------- pacing

static void sleep_until(int64_t due_ns)
{
    struct timespec due = {due_ns / NS_PER_S, due_ns % NS_PER_S};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

// May a thread look at the clock all the time? Not where others need the core.
static bool may_spin(void)
{
    cpu_set_t set;
    struct cgroup_cpu quota;
    cgroup_cpu_read(&quota);
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 1 &&
           !(quota.quota_cores < 2);
}

static enum udp_pace choose_pace(const struct loop *loop)
{
    const struct udp_sender *sender = loop->sender;
    double gap_ns = (double)sender->length * 8e9 / loop->rate_bps;
    if (sender->flood || gap_ns < 1e9 / ONE_BY_ONE_PPS)
        return UDP_QUANTA;
    if (gap_ns >= (double)SLEEP_GAP_NS)
        return UDP_SLEEP;
    return may_spin() ? UDP_SPIN : UDP_QUANTA;
}

// How many leave at a time, at this rate and at most.
static unsigned quantum(const struct loop *loop)
{
    if (loop->sender->pace != UDP_QUANTA)
        return 1;
    double due = (double)QUANTUM_NS / loop->pacer.gap_ns;
    return due < 1 ? 1 : due > loop->most ? loop->most : (unsigned)due;
}

static unsigned most_at_once(const struct loop *loop)
{
    return loop->sender->pace == UDP_QUANTA ? loop->most : 1;
}

static int64_t next_departure(const struct loop *loop)
{
    return loop->sender->pace == UDP_QUANTA ? pacer_due_ahead(&loop->pacer, quantum(loop) - 1)
                                            : pacer_next(&loop->pacer);
}

// Waits until then or `until`; the time afterwards.
static int64_t wait_departure(const struct loop *loop, int64_t now, int64_t until)
{
    int64_t next = next_departure(loop);
    if (next > until)
        next = until;
    if (loop->sender->pace != UDP_SPIN) {
        sleep_until(next);
        return clock_mono_ns();
    }
    while (now < next)
        now = clock_mono_ns();
    return now;
}

// A flood: doubles while nothing is lost at either host, gives way when something is.
static void adapt_flood(struct loop *loop, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    if (now < loop->ramp_ns)
        return;
    loop->ramp_ns = now + RAMP_NS;
    uint64_t drops = atomic_load(&sender->link.drops_receiver) + sender->lost_sender;
    bool lossy = drops > loop->drops_seen;
    bool blocked = loop->blocked_ns > loop->blocked_before_ns + RAMP_NS / 2;
    loop->drops_seen = drops;
    loop->blocked_before_ns = loop->blocked_ns;
    // A sender that is behind its own pace cannot go faster either.
    bool behind = now - pacer_due(&loop->pacer) > loop->pacer.burst_ns / 2;
    if (lossy || blocked)
        loop->ramping = false;
    if (lossy)
        loop->rate_bps *= 0.85;
    else if (!blocked && !behind)
        loop->rate_bps *= loop->ramping ? 2 : 1.03;
    if (sender->rate_bps && loop->rate_bps > (double)sender->rate_bps)
        loop->rate_bps = (double)sender->rate_bps;
    pacer_set_rate(&loop->pacer, now, sender->length, loop->rate_bps);
}

// A stated pace that this core does not keep one by one is kept in quanta; one that the path holds
// up is not.
static void adapt_pace(struct loop *loop, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    if (now < loop->ramp_ns)
        return;
    loop->ramp_ns = now + RAMP_NS;
    bool blocked = loop->blocked_ns > loop->blocked_before_ns;
    loop->blocked_before_ns = loop->blocked_ns;
    bool behind = now - pacer_due(&loop->pacer) > BEHIND_NS && !blocked;
    loop->behind = behind ? loop->behind + 1 : 0;
    if (loop->behind == BEHIND_LOOKS)
        sender->pace = UDP_QUANTA;
}

// ------------------------------------------------------------------------- the path's MTU

// An asked length that the path does not take whole: its routers may fragment from now on.
static void let_fragment(struct udp_sender *sender, unsigned mtu)
{
    sender->path_mtu = mtu;
    sender->fragmented = true;
    for (unsigned i = 0; i < sender->streams; i++)
        udp_set_fragments(sender->fds[i], true);
}

static void fit(struct loop *loop, int fd)
{
    struct udp_sender *sender = loop->sender;
    unsigned mtu = udp_route_mtu(fd), headers = udp_is_six(fd) ? 48 : 28;
    if (sender->order->spec.length && mtu && mtu < sender->length + headers)
        let_fragment(sender, mtu);
    else
        (void)shrink(loop, fd);
}

// A byte longer than the load's datagrams or, where the MTU leaves no room for that, shorter:
// whoever counts the load by its length does not count these.
static size_t path_probe_size(const struct udp_sender *sender, int fd)
{
    unsigned mtu = udp_route_mtu(fd), headers = udp_is_six(fd) ? 48 : 28;
    bool longer = mtu == 0 || sender->length + headers < mtu || sender->length == UDP_HEADER;
    return longer ? sender->length + 1 : sender->length - 1;
}

// Before the load: datagrams that are no part of the window, until one arrives. What a router
// refuses of them (RFC 1191, RFC 8201) is not lost from the sequence range then. A path that
// swallows them in silence is loaded all the same.
static void find_path_mtu(struct udp_sender *sender, uint64_t *omitted)
{
    struct loop probe = {.sender = sender, .rate_bps = 1e9, .bytes = calloc(1, sender->length + 1)};
    struct udp_link *link = &sender->link;
    int fd = sender->fds[0];
    int64_t now = clock_mono_ns(), until = now + PATH_NS, next = now;
    if (!probe.bytes)
        abort();
    while (!sender->fragmented && !atomic_load(&link->arrived) && !atomic_load(&link->stop) &&
           now < until) {
        unsigned length = sender->length;
        fit(&probe, fd);
        if (now >= next || sender->length != length) {
            struct batch one = {.count = 1, .omit = 1, .omitted = (*omitted)++};
            lay_out(&probe, &one);
            (void)send(fd, probe.bytes, path_probe_size(sender, fd), MSG_DONTWAIT | MSG_NOSIGNAL);
            next = now + PATH_AGAIN_NS;
        }
        sleep_until(now + PATH_LOOK_NS);
        now = clock_mono_ns();
    }
    free(probe.bytes);
}

// ---------------------------------------------------------------------------------- the loop

static bool can_segment(int fd)
{
    int each = 0;
    socklen_t size = sizeof each;
    return getsockopt(fd, SOL_UDP, UDP_SEGMENT, &each, &size) == 0 &&
           setsockopt(fd, SOL_UDP, UDP_SEGMENT, &each, sizeof each) == 0;
}

static void start_loop(struct loop *loop, struct udp_sender *sender)
{
    const struct testspec *spec = &sender->order->spec;
    int64_t omit = testspec_omit_max_ns(spec), now = clock_mono_ns();
    *loop = (struct loop){.sender = sender,
        .ramping = spec->bitrate_max,
        .rate_bps = spec->bitrate_max ? FLOOD_START_BPS : (double)sender->rate_bps,
        .load_begin_ns = now,
        .ramp_ns = now + RAMP_NS,
        .window_begin_ns = now + omit,
        .window_end_ns = now + omit + spec->duration_ns};
    if (loop->window_end_ns > now + sender->order->limit_ns)
        loop->window_end_ns = now + sender->order->limit_ns;
    sender->flood = spec->bitrate_max;
    sender->pace = sender->pace_first = choose_pace(loop);
    loop->most = UDP_PAYLOAD_MAX / sender->length;
    if (loop->most > SEGMENTS_MAX)
        loop->most = SEGMENTS_MAX;
    if (loop->most < 1)
        loop->most = 1;
    sender->segments = sender->fragmented || !can_segment(sender->fds[0]) ? 1 : loop->most;
    // On a page's edge the kernel copies faster.
    size_t size = ((size_t)loop->most * sender->length + PAGE - 1) / PAGE * PAGE;
    loop->bytes = aligned_alloc(PAGE, size);
    if (!loop->bytes)
        abort();
    memset(loop->bytes, 0, size);
    pacer_start(&loop->pacer, now, sender->length, loop->rate_bps);
}

static bool volume_reached(const struct loop *loop)
{
    uint64_t limit = loop->sender->order->limit_bytes;
    return limit && (loop->number + loop->omitted) * loop->sender->length >= limit;
}

// What was due within the window and is late still belongs to it; the window is then as long as was
// asked. A path that does not take it in time keeps the difference.
static void send_owed(struct loop *loop, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    int64_t until = loop->window_end_ns + OWED_NS, limit = sender->order->limit_ns;
    if (until > loop->load_begin_ns + limit)
        until = loop->load_begin_ns + limit;
    while (pacer_due(&loop->pacer) < loop->window_end_ns) {
        if (now >= until || atomic_load(&sender->link.stop) || atomic_load(&sender->link.hold) ||
            volume_reached(loop))
            return;
        if (sender->pace != UDP_QUANTA)
            now = wait_departure(loop, now, until);
        now = depart(
            loop, pacer_ready(&loop->pacer, loop->window_end_ns - 1, most_at_once(loop)), now);
    }
    sender->window_ns = loop->window_end_ns - loop->window_begin_ns;
}

// While the receiver is silent, or has much to read yet; the time afterwards.
static int64_t rest(struct loop *loop, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    if (atomic_load(&sender->link.hold)) {
        sleep_until(now + 5 * NS_PER_MS);
    } else {
        int64_t until = now + FULL_MAX_NS;
        while (atomic_load(&sender->link.full) && clock_mono_ns() < until)
            sleep_until(clock_mono_ns() + FULL_LOOK_NS);
        atomic_store(&sender->link.full, false);
    }
    now = clock_mono_ns();
    pacer_start(&loop->pacer, now, sender->length, loop->rate_bps);
    return now;
}

static void send_until_over(struct loop *loop)
{
    struct udp_sender *sender = loop->sender;
    int64_t now = clock_mono_ns();
    while (now < loop->window_end_ns && !atomic_load(&sender->link.stop) && !volume_reached(loop)) {
        if (atomic_load(&sender->link.hold) || atomic_load(&sender->link.full)) {
            now = rest(loop, now);
            continue;
        }
        if (atomic_load(&sender->link.enough) && now > loop->window_begin_ns) {
            loop->window_end_ns = now; // no number after this one is of the range
            break;
        }
        if (sender->flood)
            adapt_flood(loop, now);
        else if (sender->pace != UDP_QUANTA)
            adapt_pace(loop, now);
        if (now >= loop->window_begin_ns)
            atomic_store_explicit(&sender->in_window, true, memory_order_relaxed);
        if (now >= next_departure(loop))
            now = depart(loop, pacer_ready(&loop->pacer, now, most_at_once(loop)), now);
        else
            now = wait_departure(loop, now, now + 20 * NS_PER_MS);
    }
    sender->window_ns = now - loop->window_begin_ns;
    if (now >= loop->window_end_ns && !sender->flood)
        send_owed(loop, now);
}

void *udp_load(void *arg)
{
    struct udp_sender *sender = arg;
    struct loop loop;
    uint64_t omitted = 0;
    prctl(PR_SET_TIMERSLACK, 1);
    atomic_store(&sender->tid, gettid());
    sem_post(&sender->started);
    find_path_mtu(sender, &omitted);
    start_loop(&loop, sender);
    loop.omitted = omitted;
    send_until_over(&loop);
    sender->packets = loop.number;
    free(loop.bytes);
    atomic_store(&sender->finished, true);
    while (sem_wait(&sender->leave) < 0)
        ;
    return NULL;
}
