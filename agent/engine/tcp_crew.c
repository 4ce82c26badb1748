#include "tcp_crew.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "cgroup.h"

unsigned tcp_crew_size(unsigned streams)
{
    unsigned most = cgroup_affinity();
    if (most > TCP_CREW_MAX)
        most = TCP_CREW_MAX;
    return most > streams ? streams : most;
}

void tcp_crew_news(struct tcp_crew *self)
{
    (void)!write(self->news_fd, &(uint64_t){1}, sizeof(uint64_t));
}

unsigned tcp_crew_numbers_seen(struct tcp_crew *self)
{
    unsigned count = 0;
    for (size_t i = 0; i < sizeof self->numbers_seen / sizeof *self->numbers_seen; i++)
        count += (unsigned)__builtin_popcountll(atomic_load(&self->numbers_seen[i]));
    return count;
}

enum tcp_crew_order tcp_crew_await(struct tcp_member *member)
{
    struct pollfd wake = {.fd = member->wake_fd, .events = POLLIN};
    uint64_t count;
    for (;;) {
        enum tcp_crew_order order = (enum tcp_crew_order)atomic_load(&member->crew->order);
        if (order != TCP_CREW_PAUSE)
            return order;
        (void)poll(&wake, 1, -1);
        (void)!read(member->wake_fd, &count, sizeof count);
    }
}

struct start {
    struct tcp_member *member;
    void *(*work)(void *member);
};

static void share_out(struct tcp_crew *self, unsigned index)
{
    struct tcp_member *member = &self->members[index];
    unsigned streams = self->flow->streams;
    member->first = index * streams / self->size;
    member->streams = (index + 1) * streams / self->size - member->first;
    member->crew = self;
}

bool tcp_crew_start(
    struct tcp_crew *self, const struct tcp_flow *flow, unsigned size, void *(*work)(void *member))
{
    self->flow = flow;
    self->size = size;
    atomic_store(&self->order, TCP_CREW_PAUSE);
    self->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    for (unsigned i = 0; i < size; i++) {
        share_out(self, i);
        self->members[i].wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    // The members inherit a mask in which nothing interrupts them; splice() to a stream that the
    // peer closed raises SIGPIPE.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    unsigned started = 0;
    while (started < size && self->news_fd >= 0 && self->members[started].wake_fd >= 0 &&
           pthread_create(&self->members[started].thread, NULL, work, &self->members[started]) == 0)
        started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started == size)
        return true;
    for (unsigned i = started; i < size; i++)
        if (self->members[i].wake_fd >= 0)
            close(self->members[i].wake_fd);
    self->size = started;
    tcp_crew_end(self);
    return false;
}

void tcp_crew_watch(const struct tcp_crew *self, cpu_t *cpu)
{
    for (unsigned i = 0; i < self->size; i++)
        if (atomic_load(&self->members[i].tid))
            cpu_watch(cpu, atomic_load(&self->members[i].tid));
}

void tcp_crew_order(struct tcp_crew *self, enum tcp_crew_order order)
{
    if (atomic_exchange(&self->order, order) == (int)order)
        return;
    for (unsigned i = 0; i < self->size; i++)
        (void)!write(self->members[i].wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

void tcp_crew_end(struct tcp_crew *self)
{
    if (!self->flow)
        return;
    tcp_crew_order(self, TCP_CREW_END);
    for (unsigned i = 0; i < self->size; i++) {
        pthread_join(self->members[i].thread, NULL);
        close(self->members[i].wake_fd);
    }
    if (self->news_fd >= 0)
        close(self->news_fd);
    self->size = 0;
    self->flow = NULL;
}
