#include "seqtrack.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_BITS 21
#define WINDOW (UINT64_C(1) << WINDOW_BITS)
#define WORDS (WINDOW / 64)

// Numbers below `floor` are settled: their gaps are in missing and bursts. The bitmap covers
// [floor, floor + WINDOW) as a ring. Counting begins at 0.
struct seqtrack {
    uint64_t floor;
    uint64_t next; // one above the highest seen
    uint64_t distinct, duplicate, late, reordered, extent;
    uint64_t missing, bursts, longest, burst; // `burst`: length of the gap that ends at floor
    uint64_t stream_next[SEQTRACK_STREAMS];   // the same of each stream
    uint64_t words[WORDS];
};

seqtrack_t *seqtrack_new(void)
{
    seqtrack_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    return self;
}

void seqtrack_destroy(seqtrack_t **self_p)
{
    free(*self_p);
    *self_p = NULL;
}

static bool test(const seqtrack_t *self, uint64_t number)
{
    uint64_t at = number & (WINDOW - 1);
    return self->words[at / 64] >> (at % 64) & 1;
}

static void end_burst(seqtrack_t *self)
{
    if (self->burst > 0) {
        self->bursts++;
        if (self->burst > self->longest)
            self->longest = self->burst;
    }
    self->burst = 0;
}

static void settle_one(seqtrack_t *self)
{
    uint64_t at = self->floor & (WINDOW - 1);
    uint64_t bit = UINT64_C(1) << (at % 64);
    if (self->words[at / 64] & bit) {
        end_burst(self);
        self->words[at / 64] &= ~bit;
    } else {
        self->missing++;
        self->burst++;
    }
    self->floor++;
}

static void settle_gap(seqtrack_t *self, uint64_t numbers)
{
    self->missing += numbers;
    self->burst += numbers;
    self->floor += numbers;
}

// Settles everything below `floor`. Empty words go at once and beyond the window nothing is walked,
// so that a peer whose numbers jump costs little.
static void settle(seqtrack_t *self, uint64_t floor)
{
    uint64_t walked_to = self->floor + WINDOW;
    while (self->floor < floor && self->floor < walked_to) {
        uint64_t at = self->floor & (WINDOW - 1);
        if (at % 64 == 0 && floor - self->floor >= 64 && self->words[at / 64] == 0)
            settle_gap(self, 64);
        else
            settle_one(self);
    }
    if (self->floor < floor)
        settle_gap(self, floor - self->floor);
}

static bool arrive_one(seqtrack_t *self, unsigned stream, uint64_t number)
{
    if (number < self->floor) {
        self->late++;
        return false;
    }
    if (number >= self->floor + WINDOW)
        settle(self, number - WINDOW + 1);
    if (test(self, number)) {
        self->duplicate++;
        return false;
    }
    uint64_t at = number & (WINDOW - 1), *next = &self->stream_next[stream];
    self->words[at / 64] |= UINT64_C(1) << (at % 64);
    self->distinct++;
    if (number < *next) {
        self->reordered++;
        if (*next - 1 - number > self->extent)
            self->extent = *next - 1 - number;
    } else {
        *next = number + 1;
    }
    if (number >= self->next)
        self->next = number + 1;
    return true;
}

// Of numbers above all that were seen there is nothing to find out: whole words at a time.
static void arrive_ahead(seqtrack_t *self, unsigned stream, uint64_t first, unsigned count)
{
    uint64_t end = first + count;
    if (end > self->floor + WINDOW)
        settle(self, end - WINDOW);
    for (uint64_t number = first; number < end;) {
        uint64_t at = number & (WINDOW - 1), bits = 64 - at % 64;
        uint64_t ones = ~UINT64_C(0);
        if (bits > end - number)
            bits = end - number;
        if (bits < 64)
            ones = (UINT64_C(1) << bits) - 1;
        self->words[at / 64] |= ones << (at % 64);
        number += bits;
    }
    self->distinct += count;
    self->next = self->stream_next[stream] = end;
}

unsigned seqtrack_arrive(seqtrack_t *self, unsigned stream, uint64_t first, unsigned count)
{
    assert(stream < SEQTRACK_STREAMS && count < WINDOW);
    if (count > 1 && first >= self->next) {
        arrive_ahead(self, stream, first, count);
        return count;
    }
    unsigned fresh = 0;
    for (unsigned i = 0; i < count; i++)
        fresh += arrive_one(self, stream, first + i);
    return fresh;
}

uint64_t seqtrack_distinct(const seqtrack_t *self)
{
    return self->distinct;
}

uint64_t seqtrack_end(const seqtrack_t *self)
{
    return self->next;
}

void seqtrack_finish(seqtrack_t *self, uint64_t end, struct seqtrack_summary *summary)
{
    assert(end >= self->next);
    settle(self, end);
    end_burst(self);
    *summary = (struct seqtrack_summary){
        .distinct = self->distinct,
        .duplicate = self->duplicate,
        .late = self->late,
        .reordered = self->reordered,
        .reorder_extent = self->extent,
        .missing = self->missing,
        .bursts = self->bursts,
        .burst_longest = self->longest,
    };
}
