#ifndef MESHPERF_BUCKET_H
#define MESHPERF_BUCKET_H

// Finds a rate that falls after a burst and stays low: a token bucket in a cloud's or a provider's
// policy, most likely. Pure arithmetic over the bytes that arrived since the load began.
//
// Under a bucket the bytes over time are two straight lines, a steep one and then a flat one. Where
// they meet is the point that lies highest above the straight line from the first point to the last
// one. It is a bucket if the rate before is 1.4 times the one after, if what came in excess of the
// later rate is no trifle (128 KiB, and 25 ms of that rate), if the later rate was seen for a
// second at least, and if the later points keep to their line.

#include <stdbool.h>
#include <stdint.h>

#include "probe.h"

#define BUCKET_POINTS 512

struct bucket {
    struct {
        int64_t at_ns;
        uint64_t bytes;
    } points[BUCKET_POINTS];
    unsigned count;
    int64_t step_ns;         // points are at least so far apart
};

void bucket_begin(struct bucket *self);
// Bytes that had arrived `at_ns` after the load began; times rise. When it is full every second
// point is dropped, so any length of test fits. A burst of some milliseconds is seen if the first
// points are close together.
void bucket_add(struct bucket *self, int64_t at_ns, uint64_t bytes);
// Looks at the points up to `end_ns`. `out` is absent if there is no fall.
void bucket_find(const struct bucket *self, int64_t end_ns, struct probe_bucket *out);

#endif
