#include "waker.h"

#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

#define LEAD_MAX_NS (50 * NS_PER_US)
#define LEAD_SHARE 32           // of what was looked too long or too little it is led less or more
#define NEAR_NS (2 * NS_PER_US) // a timer this close to what is wanted is left as it is

void waker_open(struct waker *self, int64_t look_ns)
{
    *self = (struct waker){.look_ns = look_ns};
    for (int i = 0; i < 2; i++)
        self->fds[i] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
}

void waker_close(struct waker *self)
{
    for (int i = 0; i < 2; i++)
        if (self->fds[i] >= 0)
            close(self->fds[i]);
}

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){ns / NS_PER_S, ns % NS_PER_S};
}

int64_t waker_sleep(int64_t until_mono_ns)
{
    struct timespec until = timespec_of(until_mono_ns);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    return clock_mono_ns();
}

static void set(struct waker *self, unsigned which, int64_t at_ns)
{
    struct itimerspec at = {.it_value = timespec_of(at_ns)};
    int64_t off_ns = at_ns - self->set_ns[which];
    if (off_ns > -NEAR_NS && off_ns < NEAR_NS)
        return;
    self->set_ns[which] = at_ns;
    (void)timerfd_settime(self->fds[which], TFD_TIMER_ABSTIME, &at, NULL);
}

// Until about `then`, early rather than late.
static int64_t doze(struct waker *self, int64_t now, int64_t then_ns, int64_t after_ns)
{
    unsigned which = self->turn;
    uint64_t fired;
    if (self->fds[0] < 0 || self->fds[1] < 0)
        return waker_sleep(then_ns);
    set(self, which, then_ns);
    if (after_ns > then_ns)
        set(self, !which, after_ns);
    self->turn = !which;
    if (now < then_ns && read(self->fds[which], &fired, sizeof fired) != sizeof fired)
        (void)waker_sleep(then_ns);
    self->set_ns[which] = 0; // it is used up
    return clock_mono_ns();
}

int64_t waker_wait(struct waker *self, int64_t then_ns, int64_t after_ns)
{
    int64_t now = clock_mono_ns(), lead_ns = self->lead_ns, woke;
    now = woke = doze(self, now, then_ns - lead_ns, after_ns - lead_ns);
    while (now < then_ns)
        now = clock_mono_ns();
    lead_ns += (self->look_ns - (now - woke)) / LEAD_SHARE;
    self->lead_ns = lead_ns < 0 ? 0 : lead_ns > LEAD_MAX_NS ? LEAD_MAX_NS : lead_ns;
    return now;
}
