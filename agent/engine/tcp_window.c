#include "tcp_window.h"

#include <math.h>

#include "clock.h"

#define GROWTH 1.25 // slow start is over when a bin grows by less
#define HOLES_NS (500 * NS_PER_MS)

// ------------------------------------------------------------------ slow start

void tcp_ramp_begin(struct tcp_ramp *self, int64_t now_ns, uint64_t bytes, int64_t latest_ns)
{
    *self = (struct tcp_ramp){.latest_ns = latest_ns, .from_ns = now_ns, .bytes = bytes};
}

static bool grown_up(
    struct tcp_ramp *self, int64_t now_ns, uint64_t bytes, int64_t bin_ns, int64_t rtt_ns)
{
    int64_t span_ns = now_ns - self->from_ns;
    if (span_ns < bin_ns || span_ns < 2 * rtt_ns)
        return false;
    double rate = (double)(bytes - self->bytes) / (double)span_ns;
    double before = (self->rates[0] + self->rates[1]) / 2;
    bool over = self->bins >= 2 && rate > 0 && rate <= GROWTH * before;
    self->rates[self->bins++ % 2] = rate;
    self->from_ns = now_ns;
    self->bytes = bytes;
    return over;
}

bool tcp_ramp_over(struct tcp_ramp *self, int64_t now_ns, uint64_t bytes, uint64_t out_of_order,
    int64_t bin_ns, int64_t rtt_ns)
{
    bool whole = bytes > self->seen_bytes && out_of_order == self->seen_out_of_order;
    self->seen_bytes = bytes;
    self->seen_out_of_order = out_of_order;
    bool over = grown_up(self, now_ns, bytes, bin_ns, rtt_ns) || now_ns >= self->latest_ns;
    if (over && !self->over_ns)
        self->over_ns = now_ns;
    return self->over_ns && (whole || now_ns >= self->over_ns + HOLES_NS);
}

// ------------------------------------------------------------------ what arrived

static bool holds(const struct tcp_count *count, unsigned payload_max)
{
    return count->segments * payload_max >= count->bytes;
}

uint64_t tcp_arrived(const struct tcp_count *from, const struct tcp_count *to, unsigned payload_max)
{
    uint64_t bytes = to->bytes - from->bytes;
    uint64_t most = (to->segments - from->segments) * payload_max;
    bool believed = holds(from, payload_max) && holds(to, payload_max);
    return believed && most < bytes ? most : bytes;
}

// ------------------------------------------------------------------ intervals

// When the interval that begins at `from_ns` is due.
static int64_t due_after(const struct tcp_intervals *self, int64_t from_ns)
{
    int64_t steps = (from_ns - self->begin_ns) / self->step_ns + 1;
    int64_t due_ns = self->begin_ns + steps * self->step_ns;
    return due_ns > self->end_ns - self->step_ns / 10 ? self->end_ns : due_ns;
}

void tcp_intervals_begin(
    struct tcp_intervals *self, int64_t begin_ns, int64_t end_ns, int64_t step_ns, uint64_t bytes)
{
    *self = (struct tcp_intervals){.begin_ns = begin_ns,
        .end_ns = end_ns,
        .step_ns = step_ns,
        .from_ns = begin_ns,
        .bytes = bytes,
        .rate = -1};
    self->due_ns = due_after(self, begin_ns);
}

static void cut(
    struct tcp_intervals *self, int64_t until_ns, uint64_t bytes, struct probe_interval *out)
{
    double span_ns = (double)(until_ns - self->from_ns);
    *out = (struct probe_interval){.start_s = (double)(self->from_ns - self->begin_ns) * 1e-9,
        .duration_s = span_ns * 1e-9,
        .bandwidth_bps = 8e9 * (double)bytes / span_ns,
        .bytes = bytes,
        .retransmits = PROBE_ABSENT,
        .sent = PROBE_ABSENT,
        .received = PROBE_ABSENT,
        .lost = PROBE_ABSENT,
        .jitter_s = NAN};
    self->bytes += bytes;
    self->from_ns = until_ns;
    self->due_ns = due_after(self, until_ns);
}

bool tcp_intervals_next(
    struct tcp_intervals *self, int64_t now_ns, uint64_t bytes, struct probe_interval *out)
{
    uint64_t left = bytes - self->bytes;
    if (now_ns < self->due_ns || self->due_ns >= self->end_ns)
        return false;
    if (now_ns < self->due_ns + self->step_ns / 2) {
        self->rate = (double)left / (double)(now_ns - self->from_ns);
        cut(self, now_ns, left, out);
        return true;
    }
    if (self->rate < 0) // nothing is known but the mean
        self->rate = (double)left / (double)(now_ns - self->from_ns);
    uint64_t most = (uint64_t)(self->rate * (double)(self->due_ns - self->from_ns));
    cut(self, self->due_ns, left < most ? left : most, out);
    return true;
}

bool tcp_intervals_last(
    struct tcp_intervals *self, int64_t now_ns, uint64_t bytes, struct probe_interval *out)
{
    if (now_ns <= self->from_ns)
        return false;
    cut(self, now_ns, bytes - self->bytes, out);
    return true;
}

void tcp_intervals_correct(struct probe_interval *intervals, size_t count, uint64_t bytes)
{
    for (size_t i = 0; i < count && bytes > 0; i++) {
        struct probe_interval *one = &intervals[i];
        uint64_t less = bytes < one->bytes ? bytes : one->bytes;
        bytes -= less;
        one->bytes -= less;
        one->bandwidth_bps = 8.0 * (double)one->bytes / one->duration_s;
    }
}
