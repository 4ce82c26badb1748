// Reading the sockets of a UDP test: who sent what, in as few calls as the kernel allows. A flood
// of several streams has a thread for each, as far as there are cores. What they read is put into
// the one state of the test, a batch at a time and under its lock: that is a fiftieth of the work,
// the rest is the kernel's.

#include "udp_parts.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"

#define PAGE 4096
#define BATCH_PLAIN 64
#define HEAD_BYTES 128 // enough for a header or a control message; the rest is not copied
#define BATCH_GRO 4    // of whole packets: more at a time would not stay in the cache
#define SMALL_BYTES 16384
#define GRO_BYTES 65536 // a packet with UDP_GRO is whole: each datagram in it has its own header
#define CONTROL_BYTES 128
#define READERS_MAX 8
#define LOOK_NS (20 * NS_PER_MS) // how often the others see whether they are to end
#define TURNS_MAX 16
#define NAP_NS (1000 * NS_PER_US)
#define NAP_GRO_NS (300 * NS_PER_US)
#define NAP_LEAST_NS (50 * NS_PER_US)
#define NAP_SHARE 8 // of the buffer is filled meanwhile; what its packets hold is twice the load
#define STEP_NS (5 * NS_PER_MS)  // slewing for 10 s
#define LEAP_NS (50 * NS_PER_MS) // a step that is longer than packets wait
#define STEADY_NS (3 * NAP_NS)   // between two batches

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

// One of the threads, with its share of the sockets. The first is the test's own, and the first
// stream is where the other end speaks.
struct reader {
    struct udp_test *test;
    unsigned first, streams;
    pthread_t thread;
    atomic_int tid;
    unsigned batch, room; // packets a call, now and at most
    size_t each;
    bool waits; // one socket: the call that reads it waits, too
    bool over;  // the test was, after the last batch
    bool rests; // between batches; not any more when all has been sent
    int64_t last_load_ns;
    uint64_t taken_bytes;      // since then
    int64_t wall_ahead_ns;     // of the monotonic clock
    int64_t wall_was_ahead_ns; // before it was set
    uint8_t *bytes;
    char (*controls)[CONTROL_BYTES];
    struct iovec *iov;
    struct mmsghdr *messages;
};

struct udp_readers {
    atomic_bool end;
    struct reader of[READERS_MAX];
};

static void *zeros(size_t count, size_t size)
{
    void *at = calloc(count, size);
    if (!at)
        abort();
    return at;
}

// Arrival stamps are of the wall clock, which may be set while a test runs. The wall clock, read
// between two readings of the monotonic one, tells between what bounds it is ahead, however long
// the readings took: a step is what lies outside. Slewing is left in, it is under 500 ppm.
static void look_for_step(struct reader *self)
{
    int64_t before = clock_mono_ns(), wall = clock_wall_ns(), after = clock_mono_ns();
    int64_t least = wall - after, most = wall - before;
    if (self->wall_ahead_ns < least - STEP_NS || self->wall_ahead_ns > most + STEP_NS) {
        bool leap = llabs(self->wall_ahead_ns - most) > LEAP_NS;
        self->wall_was_ahead_ns = leap ? self->wall_ahead_ns : most;
        self->wall_ahead_ns = most;
    }
}

// What came before the wall clock was set and is read after that is stamped by the old one: of the
// two times that it may mean it is the later one that is not in the future.
static int64_t arrival_mono_ns(const struct reader *self, const struct timespec *stamp, int64_t now)
{
    int64_t wall = stamp->tv_sec * NS_PER_S + stamp->tv_nsec;
    int64_t is = wall - self->wall_ahead_ns, was = wall - self->wall_was_ahead_ns;
    bool old = was > is ? was <= now + STEP_NS : is > now + STEP_NS;
    return old ? was : is;
}

// ------------------------------------------------------------------------------- one packet

// What the kernel says beside a packet. It names its drops only once there are any, and the size of
// datagrams only when there are several.
struct beside {
    int64_t arrived_mono_ns;
    bool stamped;
    uint32_t drops;
    size_t datagram;
};

static void read_beside(const struct reader *self, struct msghdr *header, size_t size, int64_t now,
    struct beside *beside)
{
    *beside = (struct beside){.datagram = size};
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            memcpy(&beside->drops, CMSG_DATA(c), sizeof beside->drops);
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
            beside->arrived_mono_ns = arrival_mono_ns(self, &stamp, now);
            beside->stamped = true;
        } else if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int each = 0;
            memcpy(&each, CMSG_DATA(c), sizeof each);
            if (each > 0 && (size_t)each < size)
                beside->datagram = (size_t)each;
        }
    }
    if (!beside->stamped)
        beside->arrived_mono_ns = clock_mono_ns();
}

static bool is_load(const struct udp_test *test, const uint8_t *bytes, size_t size)
{
    const uint8_t *tag = test->order->keys.load_tag[!test->direction];
    return size >= UDP_HEADER && bytes[0] == UDP_LOAD && memcmp(bytes + 4, tag, 12) == 0;
}

static uint64_t big_endian(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return be64toh(value);
}

// Datagrams that follow the one at `bytes` without a gap: how many in all, at most `most`.
static unsigned run_length(const uint8_t *bytes, size_t each, unsigned most)
{
    uint64_t number = big_endian(bytes + 16);
    unsigned count = 1;
    for (const uint8_t *next = bytes + each; count < most; next += each, count++)
        if (memcmp(next, bytes, 16) != 0 || big_endian(next + 16) != number + count ||
            memcmp(next + 24, bytes + 24, 8) != 0)
            break;
    return count;
}

static void on_packet(const struct reader *self, unsigned at, struct mmsghdr *message,
    const uint8_t *bytes, int64_t now)
{
    struct udp_test *test = self->test;
    size_t size = message->msg_len, each = self->each;
    struct beside beside;
    read_beside(self, &message->msg_hdr, size, now, &beside);
    bool first = true;
    // Of a datagram that was cut off only the head is looked at, and it stands alone.
    for (size_t offset = 0; offset < size && !test->failed;) {
        size_t whole = size - offset < beside.datagram ? size - offset : beside.datagram;
        const uint8_t *head = bytes + offset;
        if (!test->receiver || !is_load(test, head, whole)) {
            if (at == 0)
                udp_heard(test, head, whole, now);
            offset += whole;
            continue;
        }
        size_t readable = size < each ? size : each;
        unsigned most = offset + whole > readable ? 1 : (unsigned)((readable - offset) / whole);
        struct udp_run run = {.stream = at,
            .omit = head[2] & UDP_FLAG_OMIT,
            .number = big_endian(head + 16),
            .count = run_length(head, whole, most),
            .size = whole,
            .offset = big_endian(head + 24),
            .arrived_mono_ns = beside.arrived_mono_ns,
            .kernel_stamp = beside.stamped};
        if (first)
            udp_receiver_packet(test, at, run.omit, beside.drops);
        first = false;
        udp_receiver_run(test, &run, now);
        offset += run.count * whole;
    }
}

// ------------------------------------------------------------------------------------ sockets

// Errors that ICMP or the local queue left: reading them clears the socket; the sender counts by
// what its own calls return.
static void drain_errors(int fd)
{
    char data[64], control[512];
    struct iovec iov = {data, sizeof data};
    for (int i = 0; i < 64; i++) {
        struct msghdr header = {.msg_iov = &iov,
            .msg_iovlen = 1,
            .msg_control = control,
            .msg_controllen = sizeof control};
        if (recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            return;
    }
}

static size_t mean_size(const struct reader *self, int count)
{
    size_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += self->messages[i].msg_len;
    return sum / (size_t)count;
}

// What one call read.
static void take_in(struct reader *self, unsigned at, int count, int64_t now)
{
    struct udp_test *test = self->test;
    pthread_mutex_lock(&test->lock);
    for (int i = 0; i < count && !test->failed; i++) {
        self->taken_bytes += self->messages[i].msg_len;
        on_packet(self, at, &self->messages[i], self->bytes + (size_t)i * self->each, now);
    }
    if (count > 0 && test->receiver && !test->failed)
        udp_receiver_pressure(test, at, now);
    self->over = udp_over(test);
    self->rests = test->receiver && !test->receiver->final_seen;
    pthread_mutex_unlock(&test->lock);
}

// One call's worth; how many packets came, or -1. `more`: there may be others.
static int read_batch(struct reader *self, unsigned at, int flags, bool *more)
{
    struct udp_test *test = self->test;
    for (unsigned i = 0; i < self->batch; i++) {
        self->iov[i] = (struct iovec){self->bytes + i * self->each, self->each};
        self->messages[i].msg_hdr = (struct msghdr){.msg_iov = &self->iov[i],
            .msg_iovlen = 1,
            .msg_control = self->controls[i],
            .msg_controllen = CONTROL_BYTES};
    }
    int count = recvmmsg(test->fds[at], self->messages, self->batch, flags | MSG_TRUNC, NULL);
    int64_t now = clock_mono_ns();
    if (count > 0)
        look_for_step(self);
    take_in(self, at, count, now);
    *more = count == (int)self->batch;
    if (count > 0 && self->each == GRO_BYTES)
        self->batch = mean_size(self, count) < SMALL_BYTES ? self->room : BATCH_GRO;
    return count;
}

static bool told_to_stop(const struct udp_test *test)
{
    struct pollfd polled = {.fd = test->hooks->stop_fd, .events = POLLIN};
    return poll(&polled, 1, 0) > 0;
}

// Load that comes steadily is read together: the first of it waits a moment in the socket, with its
// arrival stamped. A thread that wakes for each packet would cost its own host more than all the
// rest, and the sender's too where that is the same machine.
static void nap(struct reader *self, int packets)
{
    if (!self->rests || packets <= 0)
        return;
    int64_t now = clock_mono_ns(), span = now - self->last_load_ns;
    int64_t want = self->batch == self->room ? NAP_NS : NAP_GRO_NS;
    double buffer = self->test->receiver->receive_buffer; // that does not change
    double share = buffer / NAP_SHARE / (double)self->taken_bytes;
    if (want > (double)span * share)
        want = (int64_t)((double)span * share);
    self->last_load_ns = now;
    self->taken_bytes = 0;
    struct timespec rest = {0, want};
    if (span < STEADY_NS && want >= NAP_LEAST_NS)
        clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, NULL);
}

static void read_one(struct reader *self, int64_t until_mono_ns)
{
    bool more;
    do {
        int count = read_batch(self, self->first, MSG_WAITFORONE, &more);
        if (count < 0 && errno != EAGAIN && errno != EINTR)
            drain_errors(self->test->fds[self->first]);
        if (!more)
            nap(self, count);
    } while (!self->over && clock_mono_ns() < until_mono_ns);
}

static void read_several(struct reader *self, int64_t until_mono_ns)
{
    struct pollfd polled[UDP_STREAMS_MAX];
    int64_t left = until_mono_ns - clock_mono_ns();
    struct timespec wait = {0, left > 0 ? left : 0};
    const int *fds = self->test->fds + self->first;
    for (unsigned i = 0; i < self->streams; i++)
        polled[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    int ready = ppoll(polled, self->streams, &wait, NULL), packets = 0;
    for (unsigned i = 0; ready > 0 && i < self->streams; i++) {
        if (polled[i].revents & POLLERR)
            drain_errors(fds[i]);
        bool more = polled[i].revents;
        for (int turn = 0; turn < TURNS_MAX && more; turn++) {
            int count = read_batch(self, self->first + i, MSG_DONTWAIT, &more);
            packets += count > 0 ? count : 0;
        }
    }
    nap(self, packets);
}

static void read_share(struct reader *self, int64_t until_mono_ns)
{
    if (self->waits)
        read_one(self, until_mono_ns);
    else
        read_several(self, until_mono_ns);
}

bool udp_read(struct udp_test *test, int64_t until_mono_ns)
{
    if (told_to_stop(test))
        return false;
    read_share(&test->readers->of[0], until_mono_ns);
    return true;
}

// -------------------------------------------------------------------------------- the threads

static unsigned readers_for(const struct udp_test *test)
{
    unsigned cores = cgroup_affinity(), most = cores > READERS_MAX ? READERS_MAX : cores;
    if (!test->receiver || !udp_in_quanta(&test->order->spec))
        return 1;
    return most < test->streams ? most : test->streams;
}

static void set_up(struct reader *self, struct udp_test *test, unsigned first, unsigned end)
{
    bool gro = test->receiver && test->receiver->gro;
    struct timeval patience = {.tv_usec = LOOK_NS / NS_PER_US};
    self->test = test;
    self->first = first;
    self->streams = end - first;
    self->wall_ahead_ns = self->wall_was_ahead_ns = clock_wall_ns() - clock_mono_ns();
    self->room = BATCH_PLAIN;
    self->batch = gro ? BATCH_GRO : BATCH_PLAIN;
    self->each = gro ? GRO_BYTES : HEAD_BYTES;
    self->bytes = aligned_alloc(PAGE, self->room * self->each); // the kernel copies faster there
    if (!self->bytes)
        abort();
    self->controls = zeros(self->room, sizeof *self->controls);
    self->iov = zeros(self->room, sizeof *self->iov);
    self->messages = zeros(self->room, sizeof *self->messages);
    int fd = test->fds[first], flags = fcntl(fd, F_GETFL);
    self->waits = self->streams == 1 && flags >= 0 &&
                  fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 &&
                  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0;
}

static void *help(void *reader)
{
    struct reader *self = reader;
    atomic_store(&self->tid, gettid());
    while (!atomic_load(&self->test->readers->end))
        read_share(self, clock_mono_ns() + LOOK_NS);
    return NULL;
}

static void tear_down(struct reader *self)
{
    free(self->bytes);
    free(self->controls);
    free(self->iov);
    free(self->messages);
}

bool udp_readers_start(struct udp_test *test)
{
    struct udp_readers *self = zeros(1, sizeof *self);
    unsigned wanted = readers_for(test), count = 1;
    for (unsigned i = 0; i < wanted; i++)
        set_up(&self->of[i], test, i * test->streams / wanted, (i + 1) * test->streams / wanted);
    self->of[0].tid = gettid();
    test->readers = self;
    while (count < wanted &&
           pthread_create(&self->of[count].thread, NULL, help, &self->of[count]) == 0)
        count++;
    test->reader_count = count;
    return count == wanted;
}

void udp_readers_watch(const struct udp_test *test)
{
    for (unsigned i = 0; test->readers && i < READERS_MAX; i++)
        if (atomic_load(&test->readers->of[i].tid))
            cpu_watch(test->cpu, atomic_load(&test->readers->of[i].tid));
}

void udp_readers_end(struct udp_test *test)
{
    struct udp_readers *self = test->readers;
    if (!self)
        return;
    atomic_store(&self->end, true);
    for (unsigned i = 1; i < test->reader_count; i++)
        pthread_join(self->of[i].thread, NULL);
    for (unsigned i = 0; i < READERS_MAX; i++)
        tear_down(&self->of[i]);
    free(self);
    test->readers = NULL;
}
