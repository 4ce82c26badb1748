#ifndef MESHPERF_CONVERGE_H
#define MESHPERF_CONVERGE_H

// When a test may end before its time because more of it would not change its result: the rule
// behind `--until`. Pure arithmetic; the caller owns the clock and the counters. The rule, why it
// is so strict, and how often it is wrong: docs/measurement.md, "Convergence".
//
// A test is looked at five times at most, after 20, 30, 40, 60 and 90 samples, because each look is
// another chance of a false claim. At a look
//   - what comes before the steady state is truncated by MSER-5 (White, Cobb, Spratt 2000), at most
//     half of the samples;
//   - the rest is cut into ten batches (batch means, Law & Kelton), and the half-width of their
//   mean
//     at t = 2.82 is widened by sqrt((1 + rho) / (1 - rho)), rho being the batches' lag-1
//     autocorrelation plus 1/k for its bias;
//   - the result is the mean of the whole window, so its distance from the mean of the rest counts
//     as part of the half-width;
//   - both halves of the rest must agree within the target;
//   - a batch must be longer than what makes neighbours alike: 20 round trips, and two sawteeth of
//     the congestion window where it has any. Where samples vary under 2 % and do not creep, and
//     nothing was retransmitted or a whole sawtooth has left no mark on them, 200 ms are enough.
//   - a window that is worth fewer than 12 independent samples claims nothing.

#include <stdbool.h>
#include <stdint.h>

#include "probe.h"

#define CONVERGE_SAMPLE_NS (100 * INT64_C(1000000))
#define CONVERGE_SAMPLES_MAX 90

// What the sending end knows of its path, for the length of a batch.
struct converge_path {
    bool known;          // false: nothing, hence no claim
    bool retransmitted;  // something was, in the window
    bool reduced;        // a congestion window fell, in the window
    int64_t rtt_ns;      // smoothed, under load; 0: round trips do not matter
    int64_t sawtooth_ns; // the longest whole one; 0: none yet
};

struct converge {
    double target; // half-width as a share of the mean; 0: never ends early
    double samples[CONVERGE_SAMPLES_MAX];
    unsigned count, looks;
    int64_t grid_ns; // where the next sample ends, and the count at its beginning
    int64_t last_ns;
    double grid_total, last_total;
    double half_width, autocorrelation;
    bool reached;
    const char *why;
};

void converge_begin(struct converge *self, double target);

// A sample. True if it is time for a look after it.
bool converge_add(struct converge *self, double value);
// Samples of a count that rises (bytes), at any times that rise: cut into CONVERGE_SAMPLE_NS by
// straight lines between what was seen. `at_ns` since the window began, when the count was 0.
bool converge_progress(struct converge *self, int64_t at_ns, uint64_t total);

// The look: true if the test may end now. Once for each time it is due.
bool converge_look(struct converge *self, const struct converge_path *path);

void converge_report(const struct converge *self, struct probe_convergence *out);

// ------------------------------------------------------------------ the congestion window's shape

// One stream's sawtooth from samples of its congestion window: it falls by a sixth at least from
// its peak, and a next fall counts after it has grown again.
struct sawtooth {
    uint32_t peak, trough;
    bool falling; // since the last fall it has not grown
    unsigned falls;
    int64_t fell_ns, longest_ns;
};

void sawtooth_begin(struct sawtooth *self, uint32_t cwnd);
void sawtooth_add(struct sawtooth *self, int64_t now_ns, uint32_t cwnd);

#endif
