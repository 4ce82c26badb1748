#include "tcp_crew.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "sctp.h"

// A member of a receiving crew: takes what has come out of the sockets, and throws it away.
// MSG_TRUNC spares the copy of TCP's bytes; SO_RCVLOWAT, which the conversation adapts to the rate,
// spares most wake-ups. What is reported comes from the kernel's counters.

#define READ_SIZE (1024 * 1024)
#define READS_A_TURN 4
#define WAKE UINT32_MAX

struct drain {
    struct tcp_member *member;
    struct tcp_crew *crew;
    const int *fds;
    int epoll_fd;
    uint8_t *buffer; // not written to with MSG_TRUNC
};

static void stream_closed(struct drain *self, unsigned stream)
{
    (void)epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, self->fds[stream], NULL);
    atomic_fetch_add(&self->crew->closed, 1);
    tcp_crew_news(self->crew);
}

static void took(struct drain *self, size_t bytes)
{
    int_least64_t never = 0;
    atomic_fetch_add(&self->crew->bytes, bytes);
    if (atomic_load(&self->crew->first_mono_ns) == 0 &&
        atomic_compare_exchange_strong(&self->crew->first_mono_ns, &never, clock_mono_ns()))
        tcp_crew_news(self->crew);
}

static void saw_number(struct tcp_crew *crew, unsigned number)
{
    uint64_t bit = UINT64_C(1) << (number % 64);
    atomic_uint_least64_t *word = &crew->numbers_seen[number / 64 % (TESTSPEC_STREAMS_MAX / 64)];
    if (!(atomic_load(word) & bit))
        atomic_fetch_or(word, bit);
}

static void saw_message(struct tcp_crew *crew, unsigned bytes)
{
    unsigned longest = atomic_load(&crew->message_seen);
    while (bytes > longest && !atomic_compare_exchange_weak(&crew->message_seen, &longest, bytes))
        ;
}

static ssize_t read_some(const struct drain *self, int fd)
{
    if (!self->crew->flow->sctp)
        return recv(fd, self->buffer, READ_SIZE, MSG_DONTWAIT | MSG_TRUNC);
    unsigned number = 0;
    ssize_t got = sctp_take(fd, self->buffer, READ_SIZE, &number);
    if (got > 0) {
        saw_number(self->crew, number);
        saw_message(self->crew, (unsigned)got);
    }
    return got;
}

static void read_stream(struct drain *self, unsigned stream)
{
    for (int i = 0; i < READS_A_TURN; i++) {
        ssize_t got = read_some(self, self->fds[stream]);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            stream_closed(self, stream);
            return;
        }
        took(self, (size_t)got);
    }
}

static void read_until_told(struct drain *self)
{
    struct epoll_event events[64];
    while (atomic_load(&self->crew->order) == TCP_CREW_GO) {
        int count = epoll_wait(self->epoll_fd, events, 64, -1);
        uint64_t wakes;
        for (int i = 0; i < count; i++)
            if (events[i].data.u32 == WAKE)
                (void)!read(self->member->wake_fd, &wakes, sizeof wakes);
            else
                read_stream(self, events[i].data.u32);
    }
}

static bool watch(struct drain *self)
{
    self->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = WAKE};
    bool ok = self->epoll_fd >= 0 &&
              epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, self->member->wake_fd, &event) == 0;
    for (unsigned i = 0; ok && i < self->member->streams; i++) {
        event = (struct epoll_event){.events = EPOLLIN, .data.u32 = i};
        ok = epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, self->fds[i], &event) == 0;
    }
    return ok;
}

void *tcp_drain(void *arg)
{
    struct tcp_member *member = arg;
    struct drain self = {.member = member,
        .crew = member->crew,
        .fds = member->crew->flow->fds + member->first,
        .buffer = malloc(READ_SIZE)};
    atomic_store(&member->tid, gettid());
    if (!self.buffer)
        abort();
    for (unsigned i = 0; member->crew->flow->sctp && i < member->streams; i++)
        sctp_tell_streams(self.fds[i]);
    if (!watch(&self))
        stream_closed(&self, 0);
    while (tcp_crew_await(member) == TCP_CREW_GO)
        read_until_told(&self);
    if (self.epoll_fd >= 0)
        close(self.epoll_fd);
    free(self.buffer);
    return NULL;
}
