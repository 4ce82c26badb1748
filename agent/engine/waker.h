#ifndef MESHPERF_WAKER_H
#define MESHPERF_WAKER_H

// Wakes one thread at a row of times, close to each and for little of a core.
//
// Setting the hardware's timer is dear, in a virtual machine above all: it costs several us, for a
// sleep once when it is set and once when it fires. So there are two timers in turn, and the one
// after the next is set before the thread sleeps: the hardware is then set anew only as one fires.
//
// A thread always wakes somewhat late. It is woken earlier by about as much, and looks at the clock
// for the rest, on the average for no longer than it was told to. Of one thread.

#include <stdint.h>

struct waker {
    int fds[2];
    int64_t set_ns[2]; // what each is set to
    unsigned turn;     // the one that is waited for next
    int64_t look_ns;   // how long it may look at the clock, on the average; 0: never
    int64_t lead_ns;   // how much earlier it is woken
};

// Cannot fail: without timers (no descriptors) it sleeps in the plain way.
void waker_open(struct waker *self, int64_t look_ns);
void waker_close(struct waker *self);
// Until `then`; the time afterwards, which is not before it. `after`: the likely time of the next
// call, or `then` if it is not known.
int64_t waker_wait(struct waker *self, int64_t then_ns, int64_t after_ns);
// Until then, in the plain way, or until a signal comes; the time afterwards.
int64_t waker_sleep(int64_t until_mono_ns);

#endif
