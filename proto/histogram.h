#ifndef MESHPERF_HISTOGRAM_H
#define MESHPERF_HISTOGRAM_H

// Counts of non-negative integers (nanoseconds) in log-linear buckets, after HdrHistogram's rule:
// 2^7 sub-buckets in each power of two, so a value is off by less than 0.8 %. Covers 0 to 2^40 ns
// (18 minutes); larger values count in the last bucket, and the exact extremes are kept.
// Not thread-safe.

#include <stdint.h>

typedef struct histogram histogram_t;

histogram_t *histogram_new(void);
void histogram_destroy(histogram_t **self_p);
void histogram_record(histogram_t *self, int64_t value);   // negative values count as 0
uint64_t histogram_count(const histogram_t *self);
int64_t histogram_min(const histogram_t *self);            // exact; 0 when empty
int64_t histogram_max(const histogram_t *self);
double histogram_mean(const histogram_t *self);
// Value at quantile q in [0, 1]: the middle of its bucket, within [min, max]. 0 when empty.
double histogram_quantile(const histogram_t *self, double q);

#endif
