#include "tcp_crew.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "sctp.h"

// A member of a sending crew. Two ways: send() copies, several times from the same few bytes so
// that they stay in the cache. Without copies: a pipe is filled once with random bytes (vmsplice
// lends our pages to it), tee() refers to them again in a second pipe, and splice() hands that to
// the socket; what a socket did not take goes to the next one, it is all the same bytes.
// tcp_trial.h says which of them is used.
//
// Larger pieces than these hold the socket for so long that acknowledgements queue up, and were
// slower.

#define BYTES (1024 * 1024) // of a pipe
#define SOURCE_BYTES (64 * 1024)
#define COPY_CHUNK (512 * 1024)
#define SPLICE_CHUNK (128 * 1024)
#define QUANTUM_NS (8 * NS_PER_MS) // a paced sender wakes this often; the kernel spreads it
#define QUANTUM_LEAST 1400         // a packet
#define QUANTUM_MAX (256 * 1024)
#define BURST_NS (50 * NS_PER_MS) // what it may catch up on after a late wake-up
#define LOOK_NS (50 * NS_PER_MS)  // orders are looked at this often when nothing else happens
#define WAKE UINT32_MAX

struct load {
    struct tcp_member *member;
    struct tcp_crew *crew;
    const int *fds;
    unsigned streams, blocked, next;
    bool *writable;
    unsigned *number; // of the stream that an association's next message goes on
    int epoll_fd;
    uint8_t *bytes;        // BYTES of them
    int well[2], relay[2]; // pipes; -1: none
    struct tcp_trial trial;
    bool trying;
    size_t relayed; // bytes that the relay holds
    double tokens;  // bytes that may leave now, of a paced flow
    int64_t tokens_at_ns;
};

// ------------------------------------------------------------------ the way without copies

static void close_pipes(struct load *self)
{
    int *const ends[] = {&self->well[0], &self->well[1], &self->relay[0], &self->relay[1]};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (*ends[i] >= 0)
            close(*ends[i]);
        *ends[i] = -1;
    }
}

static bool fill_well(struct load *self)
{
    int room = fcntl(self->well[1], F_GETPIPE_SZ);
    struct iovec rest = {self->bytes, room < BYTES ? (size_t)room : BYTES};
    while (rest.iov_len > 0) {
        ssize_t put = vmsplice(self->well[1], &rest, 1, SPLICE_F_NONBLOCK);
        if (put <= 0)
            return rest.iov_base != self->bytes; // the pipe is full
        rest.iov_base = (uint8_t *)rest.iov_base + put;
        rest.iov_len -= (size_t)put;
    }
    return true;
}

// False: not on this kernel, or not with these limits.
static bool open_pipes(struct load *self)
{
    if (pipe2(self->well, O_CLOEXEC | O_NONBLOCK) < 0 ||
        pipe2(self->relay, O_CLOEXEC | O_NONBLOCK) < 0)
        return false;
    // Smaller ones do as well, with more calls.
    (void)fcntl(self->well[1], F_SETPIPE_SZ, BYTES);
    (void)fcntl(self->relay[1], F_SETPIPE_SZ, BYTES);
    return fcntl(self->well[1], F_GETPIPE_SZ) >= SPLICE_CHUNK && fill_well(self);
}

// splice() heeds the socket's own flag, not one of the call.
static void make_nonblocking(const struct load *self)
{
    for (unsigned i = 0; i < self->streams; i++)
        (void)fcntl(self->fds[i], F_SETFL, fcntl(self->fds[i], F_GETFL) | O_NONBLOCK);
}

// As send().
static ssize_t put_spliced(struct load *self, int fd, size_t size)
{
    if (self->relayed == 0) {
        ssize_t lent = tee(self->well[0], self->relay[1], BYTES, SPLICE_F_NONBLOCK);
        if (lent <= 0)
            return lent < 0 && errno != EAGAIN ? -1 : 0;
        self->relayed = (size_t)lent;
    }
    if (size > self->relayed)
        size = self->relayed;
    ssize_t moved = splice(self->relay[0], NULL, fd, NULL, size, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (moved > 0)
        self->relayed -= (size_t)moved;
    return moved;
}

static ssize_t put_copied(const struct load *self, int fd, size_t size)
{
    if (size <= SOURCE_BYTES)
        return send(fd, self->bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    struct iovec pieces[COPY_CHUNK / SOURCE_BYTES];
    struct msghdr message = {.msg_iov = pieces};
    for (size_t left = size; left > 0; message.msg_iovlen++) {
        size_t piece = left < SOURCE_BYTES ? left : SOURCE_BYTES;
        pieces[message.msg_iovlen] = (struct iovec){self->bytes, piece};
        left -= piece;
    }
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// The next message of an association, on the next stream number.
static ssize_t put_message(const struct load *self, unsigned stream, size_t size)
{
    ssize_t sent = sctp_put(self->fds[stream], self->bytes, size, self->number[stream]);
    if (sent > 0)
        self->number[stream] = (self->number[stream] + 1) % self->crew->stream_numbers;
    return sent;
}

static ssize_t put(struct load *self, unsigned stream, size_t size)
{
    int fd = self->fds[stream];
    if (self->crew->flow->sctp)
        return put_message(self, stream, size);
    if (atomic_load(&self->crew->way) == TCP_SPLICE && self->well[0] >= 0) {
        ssize_t moved = put_spliced(self, fd, size < SPLICE_CHUNK ? size : SPLICE_CHUNK);
        if (moved > 0 || (moved < 0 && errno != EINVAL && errno != ENOSYS && errno != EPERM))
            return moved;
        // Refused: never again in this test.
        atomic_store(&self->crew->way, TCP_COPY);
        atomic_store(&self->crew->settled, true);
    }
    return put_copied(self, fd, size);
}

// ------------------------------------------------------------------ how much

size_t tcp_quantum(uint64_t rate_bps, size_t most)
{
    double bytes = (double)rate_bps / 8e9 * (double)QUANTUM_NS;
    return bytes < QUANTUM_LEAST ? QUANTUM_LEAST : bytes > (double)most ? most : (size_t)bytes;
}

static size_t quantum(const struct load *self)
{
    if (self->crew->flow->sctp)
        return self->crew->message_bytes;
    return tcp_quantum(self->crew->rate_bps, QUANTUM_MAX);
}

static void refill(struct load *self, int64_t now_ns)
{
    double per_ns = (double)self->crew->rate_bps / 8e9;
    double most = per_ns * (double)BURST_NS;
    if (most < 2.0 * (double)quantum(self))
        most = 2.0 * (double)quantum(self);
    self->tokens += per_ns * (double)(now_ns - self->tokens_at_ns);
    if (self->tokens > most)
        self->tokens = most;
    self->tokens_at_ns = now_ns;
}

// 0: nothing may leave now.
static size_t allowance(const struct load *self)
{
    const struct tcp_crew *crew = self->crew;
    size_t size = crew->flow->sctp ? crew->message_bytes : COPY_CHUNK;
    if (crew->rate_bps) {
        size = quantum(self);
        if (self->tokens < (double)size)
            return 0;
    }
    if (crew->limit_bytes) {
        uint64_t gone = atomic_load(&crew->bytes);
        uint64_t left = gone < crew->limit_bytes ? crew->limit_bytes - gone : 0;
        if (left < size)
            size = (size_t)left;
    }
    return size;
}

// ------------------------------------------------------------------ which way

static int64_t cpu_ns(void)
{
    struct timespec used = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return used.tv_sec * NS_PER_S + used.tv_nsec;
}

void tcp_load_settle(struct tcp_crew *self)
{
    atomic_store(&self->settled, true);
}

static void begin_trial(struct load *self)
{
    self->trying = true;
    atomic_store(&self->crew->tried, true);
    tcp_trial_begin(&self->trial, clock_mono_ns(), atomic_load(&self->crew->bytes), cpu_ns());
    atomic_store(&self->crew->way, tcp_trial_way(&self->trial));
}

// The first member's, between two rounds.
static void go_on_with_trial(struct load *self, int64_t now_ns)
{
    bool settled = atomic_load(&self->crew->settled), more = true;
    if (!settled && !tcp_trial_due(&self->trial, now_ns))
        return;
    if (!settled)
        more = tcp_trial_next(&self->trial, now_ns, atomic_load(&self->crew->bytes), cpu_ns());
    self->trying = more && !settled;
    atomic_store(&self->crew->way,
        self->trying ? tcp_trial_way(&self->trial) : tcp_trial_better(&self->trial));
    if (!self->trying)
        atomic_store(&self->crew->settled, true);
}

// ------------------------------------------------------------------ the loop

static void stream_broke(struct load *self, unsigned stream)
{
    (void)epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, self->fds[stream], NULL);
    if (self->writable[stream])
        self->blocked++;
    self->writable[stream] = false;
    atomic_fetch_add(&self->crew->closed, 1);
    tcp_crew_news(self->crew);
}

// One chunk on each stream in turn that takes one; false when there is nothing more to do now.
static bool round_of_streams(struct load *self)
{
    bool moved_any = false;
    for (unsigned i = 0; i < self->streams; i++) {
        unsigned stream = (self->next + i) % self->streams;
        if (!self->writable[stream])
            continue;
        size_t size = allowance(self);
        if (size == 0)
            break;
        ssize_t moved = put(self, stream, size);
        if (moved > 0) {
            atomic_fetch_add(&self->crew->bytes, (uint64_t)moved);
            self->tokens -= (double)moved;
            moved_any = true;
        } else if (moved < 0 && errno == EAGAIN) {
            // Only a refusal promises an edge of EPOLLOUT; a short write does not.
            self->writable[stream] = false;
            self->blocked++;
        } else if (moved < 0 && errno != EINTR) {
            stream_broke(self, stream);
        }
    }
    self->next = (self->next + 1) % self->streams;
    return moved_any;
}

// How long to wait for a stream or an order; 0: there is work.
static int64_t rest_ns(const struct load *self, bool moved)
{
    if (self->blocked == self->streams)
        return LOOK_NS;
    if (!self->crew->rate_bps)
        return moved ? 0 : LOOK_NS / 50;
    double missing = (double)quantum(self) - self->tokens;
    if (missing <= 0)
        return 0;
    int64_t wait = (int64_t)(missing * 8e9 / (double)self->crew->rate_bps) + 1;
    return wait < LOOK_NS ? wait : LOOK_NS;
}

static void listen_to_sockets(struct load *self, int64_t wait_ns)
{
    struct epoll_event events[64];
    if (wait_ns == 0 && self->blocked == 0)
        return;
    bool full = self->blocked == self->streams;
    int64_t since = clock_mono_ns();
    int count = tcp_wait(self->epoll_fd, events, 64, wait_ns ? since + wait_ns : 0);
    if (full)
        atomic_fetch_add(&self->crew->blocked_ns, clock_mono_ns() - since);
    for (int i = 0; i < count; i++) {
        uint32_t stream = events[i].data.u32;
        uint64_t wakes;
        if (stream == WAKE) {
            (void)!read(self->member->wake_fd, &wakes, sizeof wakes);
        } else if (events[i].events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) {
            stream_broke(self, stream);
        } else if (!self->writable[stream]) {
            self->writable[stream] = true;
            self->blocked--;
        }
    }
}

static bool may_send(struct load *self, int64_t now_ns)
{
    return now_ns < atomic_load(&self->crew->until_mono_ns) &&
           (!self->crew->limit_bytes || atomic_load(&self->crew->bytes) < self->crew->limit_bytes);
}

static void send_until_told(struct load *self)
{
    self->tokens_at_ns = clock_mono_ns();
    while (atomic_load(&self->crew->order) == TCP_CREW_GO) {
        int64_t now = clock_mono_ns();
        bool moved = false;
        if (self->trying)
            go_on_with_trial(self, now);
        if (may_send(self, now)) {
            if (self->crew->rate_bps)
                refill(self, now);
            // A paced sender sends all it may; an unlimited one looks up after each round.
            do
                moved = round_of_streams(self);
            while (moved && self->crew->rate_bps);
            listen_to_sockets(self, rest_ns(self, moved));
        } else {
            listen_to_sockets(self, LOOK_NS);
        }
    }
}

// ------------------------------------------------------------------ begin and end

static uint8_t *random_bytes(void)
{
    void *at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        abort();
    ticket_random(at, BYTES);
    return at;
}

static bool watch(struct load *self)
{
    self->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = WAKE};
    bool ok = self->epoll_fd >= 0 &&
              epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, self->member->wake_fd, &event) == 0;
    for (unsigned i = 0; ok && i < self->streams; i++) {
        event = (struct epoll_event){.events = EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = i};
        ok = epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, self->fds[i], &event) == 0;
    }
    return ok;
}

void *tcp_load(void *arg)
{
    struct tcp_member *member = arg;
    struct load self = {.member = member,
        .crew = member->crew,
        .fds = member->crew->flow->fds + member->first,
        .streams = member->streams,
        .blocked = member->streams,
        .writable = calloc(member->streams, sizeof *self.writable),
        .number = calloc(member->streams, sizeof *self.number),
        .well = {-1, -1},
        .relay = {-1, -1}};
    atomic_store(&member->tid, gettid());
    if (!self.writable || !self.number)
        abort();
    self.bytes = random_bytes();
    make_nonblocking(&self);
    bool able = !atomic_load(&self.crew->settled) && open_pipes(&self);
    if (!able)
        close_pipes(&self);
    if (!watch(&self))
        stream_broke(&self, 0);
    while (tcp_crew_await(member) == TCP_CREW_GO) {
        if (able && member == member->crew->members && !atomic_load(&self.crew->tried))
            begin_trial(&self);
        send_until_told(&self);
    }
    if (self.epoll_fd >= 0)
        close(self.epoll_fd);
    close_pipes(&self);
    free(self.writable);
    free(self.number);
    munmap(self.bytes, BYTES);
    return NULL;
}

const char *tcp_load_technique(const struct tcp_crew *self)
{
    if (self->flow->sctp)
        return "sctp one-to-one";
    if (atomic_load(&self->way) == TCP_SPLICE)
        return "tee and splice of 128K";
    return atomic_load(&self->tried) ? "send of 512K, better here than splice" : "send of 512K";
}
