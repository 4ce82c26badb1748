#include "histogram.h"

#include <czmq.h>

// Bucket index: values below 2^8 count exactly; above, the 7 bits behind the leading one.
#define SUB_BITS 7
#define SUB_COUNT (1u << SUB_BITS)
#define MAX_BITS 40
#define BUCKETS ((MAX_BITS - SUB_BITS + 1) * SUB_COUNT)

struct histogram {
    uint64_t count;
    int64_t min, max;
    double sum;
    uint64_t buckets[BUCKETS];
};

histogram_t *histogram_new(void)
{
    return zmalloc(sizeof(histogram_t));
}

void histogram_destroy(histogram_t **self_p)
{
    free(*self_p);
    *self_p = NULL;
}

static unsigned bucket_of(uint64_t value)
{
    if (value < SUB_COUNT)
        return (unsigned)value;
    unsigned top = 63 - (unsigned)__builtin_clzll(value);
    if (top >= MAX_BITS)
        return BUCKETS - 1;
    unsigned shift = top - SUB_BITS;
    return (shift + 1) * SUB_COUNT + (unsigned)((value >> shift) - SUB_COUNT);
}

// The middle of a bucket.
static double middle_of(unsigned bucket)
{
    if (bucket < SUB_COUNT)
        return bucket;
    unsigned shift = bucket / SUB_COUNT - 1;
    double low = (double)((uint64_t)(SUB_COUNT + bucket % SUB_COUNT) << shift);
    return low + ((double)((uint64_t)1 << shift) - 1) / 2;
}

void histogram_record(histogram_t *self, int64_t value)
{
    if (value < 0)
        value = 0;
    if (self->count == 0 || value < self->min)
        self->min = value;
    if (self->count == 0 || value > self->max)
        self->max = value;
    self->count++;
    self->sum += (double)value;
    self->buckets[bucket_of((uint64_t)value)]++;
}

uint64_t histogram_count(const histogram_t *self)
{
    return self->count;
}

int64_t histogram_min(const histogram_t *self)
{
    return self->min;
}

int64_t histogram_max(const histogram_t *self)
{
    return self->max;
}

double histogram_mean(const histogram_t *self)
{
    return self->count ? self->sum / (double)self->count : 0;
}

double histogram_quantile(const histogram_t *self, double q)
{
    if (self->count == 0)
        return 0;
    // The smallest value with at least the share q at or below it.
    double rank = q * (double)self->count;
    uint64_t seen = 0;
    double value = (double)self->max;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += self->buckets[i];
        if (seen > 0 && (double)seen >= rank) {
            value = middle_of(i);
            break;
        }
    }
    if (value < (double)self->min)
        value = (double)self->min;
    if (value > (double)self->max)
        value = (double)self->max;
    return value;
}
