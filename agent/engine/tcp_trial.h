#ifndef MESHPERF_TCP_TRIAL_H
#define MESHPERF_TCP_TRIAL_H

// Which of two ways of moving load suits this host and path. Neither wins everywhere: splice()
// saves a copy, which is much on a real card and less than it costs where packets stay in memory
// and the copied bytes are in the cache. So both are tried, in slices of the omitted part of a
// test, in the order A B B A, so that a rate which grows favours neither.
//
// Where the thread was busy throughout, the way that moved more bytes a second is better; else the
// network is what limits, and the one that took less CPU a byte. Pure arithmetic.

#include <stdbool.h>
#include <stdint.h>

enum tcp_way { TCP_COPY, TCP_SPLICE };

#define TCP_TRIAL_SLICE_NS INT64_C(20000000)
#define TCP_TRIAL_SLICES 8

struct tcp_trial {
    unsigned slice;
    int64_t slice_since_ns, cpu_since_ns;
    uint64_t bytes_since;
    struct {
        double bytes, wall_ns, cpu_ns;
    } ways[2];
};

// What has been moved, and the thread's CPU time, when load begins.
void tcp_trial_begin(struct tcp_trial *self, int64_t now_ns, uint64_t bytes, int64_t cpu_ns);
// True if a slice is over: then tcp_trial_next is due.
bool tcp_trial_due(const struct tcp_trial *self, int64_t now_ns);
// False when the last slice is over.
bool tcp_trial_next(struct tcp_trial *self, int64_t now_ns, uint64_t bytes, int64_t cpu_ns);
// The way of the present slice.
enum tcp_way tcp_trial_way(const struct tcp_trial *self);
// By the slices that are over; TCP_COPY while the two had not the same number of them.
enum tcp_way tcp_trial_better(const struct tcp_trial *self);

#endif
