#ifndef MESHPERF_SEQTRACK_H
#define MESHPERF_SEQTRACK_H

// Which sequence numbers of a range have arrived: distinct, duplicates, reordering and loss bursts.
// Exact over a sliding window of 2^21 numbers; an arrival that is older than that counts as late
// (it is neither distinct nor duplicate). Single-threaded, no clock.
//
// Reordering after RFC 4737: a first copy whose number is below the next expected one of its stream
// is reordered; its extent is the distance in numbers to the highest seen on that stream. Streams
// share the numbers, but one is not behind because the sockets of others were read first.

#include <stdbool.h>
#include <stdint.h>

#define SEQTRACK_STREAMS 128

typedef struct seqtrack seqtrack_t;

seqtrack_t *seqtrack_new(void);
void seqtrack_destroy(seqtrack_t **self_p);
// Numbers `first` to first + count - 1, in this order on one stream; how many of them are new.
unsigned seqtrack_arrive(seqtrack_t *self, unsigned stream, uint64_t first, unsigned count);

struct seqtrack_summary {
    uint64_t distinct, duplicate, late, reordered, reorder_extent;
    uint64_t missing, bursts, burst_longest;
};
// What is known of numbers [0, end): distinct + missing = end. What was late counts as missing.
// `end` must be seqtrack_end at least. Call once, when nothing more is awaited.
void seqtrack_finish(seqtrack_t *self, uint64_t end, struct seqtrack_summary *summary);
uint64_t seqtrack_distinct(const seqtrack_t *self);
uint64_t seqtrack_end(const seqtrack_t *self); // one above the highest number seen

#endif
