#ifndef MESHPERF_TCP_WINDOW_H
#define MESHPERF_TCP_WINDOW_H

// Where a receiving end's window begins, and how it is cut into intervals. Pure arithmetic over
// samples of a byte count; the caller owns clock and counters. Times are monotonic.

#include <stdbool.h>
#include <stdint.h>

#include "probe.h"

// The end of slow start: the first bin of two round trips that has grown by less than a quarter
// over the two before it, or `latest_ns`. Slow start ends in losses, and what lies behind a hole is
// in no count until the hole is filled: a window that begins before would count what arrived before
// it. So it begins at the first sample after which everything came in order, or half a second
// later.
struct tcp_ramp {
    int64_t latest_ns;
    int64_t from_ns;
    uint64_t bytes;
    double rates[2]; // of the two last bins, bytes per ns
    unsigned bins;
    int64_t over_ns; // 0: not yet
    uint64_t seen_bytes, seen_out_of_order;
};

void tcp_ramp_begin(struct tcp_ramp *self, int64_t now_ns, uint64_t bytes, int64_t latest_ns);
// A sample, with the count of segments that arrived out of order; `bin_ns` is the least that a bin
// is long. True once the window may begin.
bool tcp_ramp_over(struct tcp_ramp *self, int64_t now_ns, uint64_t bytes, uint64_t out_of_order,
    int64_t bin_ns, int64_t rtt_ns);

// What arrived between two samples of all streams. `bytes` count in order, so what lay behind a
// hole at the first one is counted when that is filled; of several streams in a short queue one has
// a hole nearly always. But no more can have arrived than the window's segments hold. Segments are
// not believed where they cannot hold what came: some cards do not say how many a large packet is.
struct tcp_count {
    uint64_t bytes, segments; // since the streams exist
};
uint64_t tcp_arrived(
    const struct tcp_count *from, const struct tcp_count *to, unsigned payload_max);

// Intervals on a grid of `step_ns` from the window's begin; a rest under a tenth of a step belongs
// to the one before it. They end when somebody has looked, a moment after the grid. Where nobody
// looked for half a step more, because this program was stopped, the kernel took what came until
// its buffers were full or the sender paused: the missed steps are filled in order at the rate
// before, and those for which nothing is left read 0.
struct tcp_intervals {
    int64_t begin_ns, end_ns, step_ns;
    int64_t from_ns, due_ns; // of the present interval
    uint64_t bytes;          // counted before it
    double rate;             // of the one before it, bytes per ns; below 0: there was none
};

void tcp_intervals_begin(
    struct tcp_intervals *self, int64_t begin_ns, int64_t end_ns, int64_t step_ns, uint64_t bytes);
// The next interval that is over at a sample; false: none is, any more.
bool tcp_intervals_next(
    struct tcp_intervals *self, int64_t now_ns, uint64_t bytes, struct probe_interval *out);
// Takes away what arrived before the window, from the first intervals on.
void tcp_intervals_correct(struct probe_interval *intervals, size_t count, uint64_t bytes);
// The window ends at a sample: false if nothing is left of it.
bool tcp_intervals_last(
    struct tcp_intervals *self, int64_t now_ns, uint64_t bytes, struct probe_interval *out);

#endif
