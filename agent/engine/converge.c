#include "converge.h"

#include <math.h>
#include <string.h>

#include "clock.h"

#define BATCHES 10
#define MSER_GROUP 5
#define HALF(n) ((n) / 2)
#define BATCH_LEAST_NS (200 * NS_PER_MS)
#define STEADY_VARIATION 0.02 // samples that vary by less are as good as independent
#define STEADY_STEP 0.125     // of the target, from sample to sample: see creeps
#define INDEPENDENT_LEAST 12
#define RTTS_A_BATCH 20
#define SAWTEETH_A_BATCH 2

static const unsigned looks_at[] = {20, 30, 40, 60, 90};
#define LOOKS (sizeof looks_at / sizeof *looks_at)

void converge_begin(struct converge *self, double target)
{
    memset(self, 0, sizeof *self);
    self->target = target;
    self->half_width = self->autocorrelation = NAN;
    self->grid_ns = CONVERGE_SAMPLE_NS;
    self->why = "the test was over before the first look";
}

static bool takes_samples(const struct converge *self)
{
    return self->target > 0 && !self->reached && self->count < CONVERGE_SAMPLES_MAX;
}

bool converge_add(struct converge *self, double value)
{
    if (!takes_samples(self))
        return false;
    self->samples[self->count++] = value;
    for (size_t i = 0; i < LOOKS; i++)
        if (looks_at[i] == self->count)
            return true;
    return false;
}

bool converge_progress(struct converge *self, int64_t at_ns, uint64_t total)
{
    bool due = false;
    while (takes_samples(self) && at_ns >= self->grid_ns) {
        double share = (double)(self->grid_ns - self->last_ns) / (double)(at_ns - self->last_ns);
        double there = self->last_total + share * ((double)total - self->last_total);
        due = converge_add(self, there - self->grid_total) || due;
        self->grid_total = there;
        self->grid_ns += CONVERGE_SAMPLE_NS;
    }
    self->last_ns = at_ns;
    self->last_total = (double)total;
    return due;
}

// ------------------------------------------------------------------ arithmetic

static double mean_of(const double *values, unsigned count)
{
    double sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += values[i];
    return sum / count;
}

static double squares_of(const double *values, unsigned count)
{
    double mean = mean_of(values, count), sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += (values[i] - mean) * (values[i] - mean);
    return sum;
}

// Samples to leave out at the start: where the standard error of what remains is least, in groups
// of five.
static unsigned truncation(const double *samples, unsigned count)
{
    double groups[CONVERGE_SAMPLES_MAX / MSER_GROUP], least = INFINITY;
    unsigned n = count / MSER_GROUP, best = 0;
    for (unsigned i = 0; i < n; i++)
        groups[i] = mean_of(samples + i * MSER_GROUP, MSER_GROUP);
    for (unsigned d = 0; d <= HALF(n); d++) {
        double left = n - d, error = squares_of(groups + d, n - d) / (left * left);
        if (error < least) {
            least = error;
            best = d;
        }
    }
    return best * MSER_GROUP;
}

// Quantile of Student's t at the level that is 2.82 for ten batches (0.99 one-sided); 4 to 9
// degrees of freedom.
static double student(unsigned batches)
{
    static const double t[] = {3.75, 3.36, 3.14, 3.00, 2.90, 2.82};
    return t[batches - 5];
}

// Lag-1 autocorrelation.
static double lagged(const double *values, unsigned count)
{
    double mean = mean_of(values, count), all = squares_of(values, count), sum = 0;
    for (unsigned i = 1; i < count; i++)
        sum += (values[i] - mean) * (values[i - 1] - mean);
    return all > 0 ? sum / all : 0;
}

// Of batches: corrected for its bias, and never below 0.
static double correlation(const double *values, unsigned count)
{
    double rho = lagged(values, count) + 1.0 / count;
    return rho < 0 ? 0 : rho;
}

// Of samples: the bias is Kendall's.
static double follows(const double *samples, unsigned count)
{
    double rho = lagged(samples, count);
    return rho + (1 + 3 * rho) / count;
}

// How many independent samples the window is worth, as if it were a first-order autoregression: ten
// batches say little about what lasts longer than they do.
static double independent(const double *samples, unsigned count)
{
    double rho = follows(samples, count);
    return rho <= 0 ? count : rho >= 1 ? 0 : count * (1 - rho) / (1 + rho);
}

// Samples can be alike because the rate has had no time to go far. With steps from one to the next
// of an eighth of the target it does not go further than the target, by two deviations, even if it
// forgets only in three seconds (rho 0.97: the deviation is 4.1 steps).
static bool creeps(const double *samples, unsigned count, double target)
{
    double squares = 0;
    for (unsigned i = 1; i < count; i++)
        squares += (samples[i] - samples[i - 1]) * (samples[i] - samples[i - 1]);
    double step = sqrt(squares / (count - 1)) / mean_of(samples, count);
    return follows(samples, count) > 0 && step > STEADY_STEP * target;
}

// ------------------------------------------------------------------ the look

// How many samples make a batch; 0 with a reason if the window is too short for ten.
static unsigned batch_of(
    struct converge *self, const struct converge_path *path, unsigned rest, double variation)
{
    bool steady = variation < STEADY_VARIATION &&
                  !creeps(self->samples + self->count - rest, rest, self->target);
    // A window that fell is no matter where a whole sawtooth left no mark on the rate: a queue has
    // filled its gaps.
    bool quiet = path->reduced ? path->sawtooth_ns > 0 : !path->retransmitted;
    unsigned batch = rest / BATCHES;
    int64_t length_ns = batch * CONVERGE_SAMPLE_NS;
    if (quiet && steady) // then five batches are enough
        return batch < 2 ? 2 : batch;
    if (path->reduced && path->sawtooth_ns == 0)
        self->why = "the congestion window fell and has not shown a whole sawtooth";
    else if (length_ns < SAWTEETH_A_BATCH * path->sawtooth_ns)
        self->why = "a tenth of the window is less than two sawteeth of the congestion window";
    else if (length_ns < RTTS_A_BATCH * path->rtt_ns)
        self->why = "a tenth of the window is less than 20 round trips";
    else if (length_ns < BATCH_LEAST_NS)
        self->why = "too little of the window is steady";
    else if (independent(self->samples, self->count) < INDEPENDENT_LEAST)
        self->why = "the rate changes too slowly for so short a window";
    else
        return batch;
    return 0;
}

// The half-width as a share of the mean, from batches of `batch` samples each, the last ones.
static double half_width(struct converge *self, const double *rest, unsigned count, unsigned batch)
{
    double means[BATCHES];
    unsigned k = count / batch < BATCHES ? count / batch : BATCHES;
    const double *first = rest + count - k * batch;
    for (unsigned i = 0; i < k; i++)
        means[i] = mean_of(first + i * batch, batch);
    double deviation = sqrt(squares_of(means, k) / (k - 1)), rho = correlation(means, k);
    self->autocorrelation = rho;
    if (rho >= 0.99)
        return INFINITY;
    double widened = sqrt((1 + rho) / (1 - rho));
    return student(k) * deviation / sqrt(k) * widened / mean_of(means, k);
}

bool converge_look(struct converge *self, const struct converge_path *path)
{
    unsigned skipped = truncation(self->samples, self->count), count = self->count - skipped;
    const double *rest = self->samples + skipped;
    double mean = mean_of(rest, count), whole = mean_of(self->samples, self->count);
    self->looks++;
    if (!(mean > 0)) {
        self->why = "nothing arrived";
        return false;
    }
    if (!path->known) {
        self->why = "the sender told nothing of its path";
        return false;
    }
    unsigned batch = batch_of(self, path, count, sqrt(squares_of(rest, count) / count) / mean);
    if (batch == 0)
        return false;
    self->half_width = half_width(self, rest, count, batch) + fabs(whole - mean) / mean;
    double halves =
        fabs(mean_of(rest, HALF(count)) - mean_of(rest + HALF(count), count - HALF(count)));
    if (!(self->half_width <= self->target))
        self->why = "the interval is wider than was asked for";
    else if (halves > self->target * mean)
        self->why = "the first and the second half differ by more than was asked for";
    else
        self->reached = true;
    return self->reached;
}

void converge_report(const struct converge *self, struct probe_convergence *out)
{
    *out = (struct probe_convergence){.target = self->target,
        .half_width = self->half_width,
        .reached = self->reached,
        .samples = self->count,
        .looks = self->looks,
        .autocorrelation = self->autocorrelation,
        .why = self->reached ? NULL : self->why};
}

// ------------------------------------------------------------------ the congestion window's shape

void sawtooth_begin(struct sawtooth *self, uint32_t cwnd)
{
    *self = (struct sawtooth){.peak = cwnd, .trough = cwnd};
}

static void fall(struct sawtooth *self, int64_t now_ns, uint32_t cwnd)
{
    if (self->falls > 0 && now_ns - self->fell_ns > self->longest_ns)
        self->longest_ns = now_ns - self->fell_ns;
    self->falls++;
    self->fell_ns = now_ns;
    self->falling = true;
    self->trough = cwnd;
}

void sawtooth_add(struct sawtooth *self, int64_t now_ns, uint32_t cwnd)
{
    if (self->falling && cwnd > self->trough) {
        self->falling = false;
        self->peak = cwnd;
    } else if (self->falling) {
        self->trough = cwnd;
    } else if (cwnd > self->peak) {
        self->peak = cwnd;
    } else if ((uint64_t)cwnd * 6 <= (uint64_t)self->peak * 5) {
        fall(self, now_ns, cwnd);
    }
}
