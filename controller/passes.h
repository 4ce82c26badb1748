#ifndef MESHPERF_PASSES_H
#define MESHPERF_PASSES_H

// One cell from several measurements of its pair: the passes of a run, a measurement alone after a
// run in which tests went on beside each other, and one with several streams. Pure.
//
// Of several passes bandwidth, wire rates, jitter, loss, retransmits and the RTT distributions are
// the medians over the passes that are ok, field by field. What has no median (limiter, packets,
// intervals, host records) is of one pass, which `pass` names: one with the most frequent verdict
// (of a port: outcome), and of these one near the median; passes come one by one and only one is kept whole. The cell is
// ok if more than half of its passes are and none was cancelled, else it is what its last one that
// is not ok is.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "meshperf.pb-c.h"

// The cell with one more measurement: number `number`, counted from 1. Takes both; `so_far` may be
// NULL. Until the last one its state is PENDING.
Mp__Cell *passes_add(Mp__Cell *so_far, Mp__Cell *measured, uint32_t number, bool last);

// Notes at `cell` what the same pair read alone; `sampled`: drawn, not chosen for being bad.
void passes_recheck(Mp__Cell *cell, const Mp__Cell *alone, bool sampled);

// Notes at `cell` what the same pair read with `streams` streams instead of one, and says so in its
// limiter if each flow is what the network limits.
void passes_flow_check(Mp__Cell *cell, const Mp__Cell *measured, uint32_t streams);

// Of how many ok cells of a test of `cells` the recheck consists: drawn ones, 2 % and at least 1,
// and the worst, 1 % and at least 1, up to these.
#define RECHECK_DRAWN_MAX 32
#define RECHECK_WORST_MAX 8
uint32_t recheck_drawn(uint32_t cells);
uint32_t recheck_worst(uint32_t cells);
// Draws `count` different numbers below `cells`.
void recheck_draw(uint64_t seed, uint32_t cells, uint32_t count, uint32_t *drawn);

// Sorts. NAN if there is none.
double median_of(double *values, size_t count);

#endif
