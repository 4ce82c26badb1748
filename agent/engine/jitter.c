#include "jitter.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "histogram.h"

// Delays are wanted above the smallest, which is known only at the end, so they are kept: all of
// them up to this many, a uniform sample (Vitter's algorithm R) beyond.
#define SAMPLES 65536

struct last {
    bool any;
    uint64_t number;
    int64_t sent_ns, arrived_ns;
};

struct jitter {
    unsigned stride;
    uint64_t arrivals, differences;
    struct last last[JITTER_STREAMS];
    int64_t first_delay_ns, least_ns, most_ns; // least and most relative to the first
    double delay_sum_ns;                       // relative to the first
    double sum_s, smooth_s;
    uint64_t random;
    histogram_t *ipdv;
    int64_t samples[SAMPLES];
};

jitter_t *jitter_new(unsigned stride)
{
    jitter_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->stride = stride;
    self->ipdv = histogram_new();
    self->random = UINT64_C(0x9e3779b97f4a7c15);
    return self;
}

void jitter_destroy(jitter_t **self_p)
{
    if (*self_p)
        histogram_destroy(&(*self_p)->ipdv);
    free(*self_p);
    *self_p = NULL;
}

static uint64_t draw(jitter_t *self, uint64_t below)
{
    self->random ^= self->random << 13;
    self->random ^= self->random >> 7;
    self->random ^= self->random << 17;
    return self->random % below;
}

static void keep_delay(jitter_t *self, int64_t delay_ns)
{
    if (self->arrivals == 0)
        self->first_delay_ns = delay_ns;
    int64_t relative = delay_ns - self->first_delay_ns;
    if (relative < self->least_ns)
        self->least_ns = relative;
    if (relative > self->most_ns)
        self->most_ns = relative;
    self->delay_sum_ns += (double)relative;
    uint64_t at = self->arrivals < SAMPLES ? self->arrivals : draw(self, self->arrivals + 1);
    if (at < SAMPLES)
        self->samples[at] = relative;
}

double jitter_arrive(jitter_t *self, unsigned stream, uint64_t first, unsigned count,
    int64_t sent_ns, int64_t arrived_ns)
{
    struct last *last = &self->last[stream];
    double d_s = NAN;
    keep_delay(self, arrived_ns - sent_ns);
    self->arrivals++;
    if (last->any) {
        int64_t difference = (arrived_ns - last->arrived_ns) - (sent_ns - last->sent_ns);
        d_s = fabs((double)difference) / 1e9;
        self->sum_s += d_s;
        self->smooth_s += (d_s - self->smooth_s) / 16;
        self->differences++;
        if (first == last->number + self->stride)
            histogram_record(self->ipdv, difference < 0 ? -difference : difference);
    }
    *last = (struct last){true, first + count - 1, sent_ns, arrived_ns};
    return d_s;
}

double jitter_mean_s(const jitter_t *self)
{
    return self->differences ? self->sum_s / (double)self->differences : NAN;
}

double jitter_rfc3550_s(const jitter_t *self)
{
    return self->differences ? self->smooth_s : NAN;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void jitter_pdv(const jitter_t *self, struct probe_distribution *pdv)
{
    *pdv = (struct probe_distribution){0};
    size_t count = self->arrivals < SAMPLES ? (size_t)self->arrivals : SAMPLES;
    if (count == 0)
        return;
    int64_t *sorted = malloc(count * sizeof *sorted);
    if (!sorted)
        abort();
    for (size_t i = 0; i < count; i++)
        sorted[i] = self->samples[i] - self->least_ns;
    qsort(sorted, count, sizeof *sorted, by_value);
    const double quantiles[] = {0.5, 0.9, 0.99, 0.999};
    double *const outputs[] = {&pdv->p50_s, &pdv->p90_s, &pdv->p99_s, &pdv->p999_s};
    for (unsigned i = 0; i < 4; i++) {
        size_t rank = (size_t)ceil(quantiles[i] * (double)count);
        *outputs[i] = (double)sorted[rank ? rank - 1 : 0] / 1e9;
    }
    free(sorted);
    pdv->count = self->arrivals;
    pdv->min_s = 0;
    pdv->max_s = (double)(self->most_ns - self->least_ns) / 1e9;
    pdv->mean_s = (self->delay_sum_ns / (double)self->arrivals - (double)self->least_ns) / 1e9;
}

void jitter_ipdv(const jitter_t *self, struct probe_distribution *ipdv)
{
    *ipdv = (struct probe_distribution){
        .count = histogram_count(self->ipdv),
        .min_s = (double)histogram_min(self->ipdv) / 1e9,
        .mean_s = histogram_mean(self->ipdv) / 1e9,
        .p50_s = histogram_quantile(self->ipdv, 0.5) / 1e9,
        .p90_s = histogram_quantile(self->ipdv, 0.9) / 1e9,
        .p99_s = histogram_quantile(self->ipdv, 0.99) / 1e9,
        .p999_s = histogram_quantile(self->ipdv, 0.999) / 1e9,
        .max_s = (double)histogram_max(self->ipdv) / 1e9,
    };
}
