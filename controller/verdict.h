#ifndef MESHPERF_VERDICT_H
#define MESHPERF_VERDICT_H

// What limited a test, from both ends' reports: the rules of docs/measurement.md, first match wins.
// Pure. The thresholds stand in verdict.c; the evidence is a short phrase with the numbers.

#include <stdbool.h>

#include "meshperf.pb-c.h"
#include "testspec.h"

// A new Limiter for the direction sender -> receiver; the caller's (mp__limiter__free_unpacked).
// Both reports have their half (send, receive).
Mp__Limiter *verdict_new(
    const struct testspec *spec, const Mp__EndReport *sender, const Mp__EndReport *receiver);

// Is it worth a second test to learn whether the network limits each flow and not all together?
// Where the network limited the one stream, whatever it did to it: a policer of each flow loses, a
// shaper queues.
bool verdict_flows_open(const Mp__Cell *cell);

// The rate of one stream that several are compared with: the cell's, or that before it fell, since
// a later and shorter test may see the burst again.
double verdict_flows_one_bps(const Mp__Cell *cell);

// What `streams` streams carried where one carried `one_bps`: over 1.5 times as much, and the
// subtype becomes flow_cap. The evidence names both and keeps what it said. True if it did.
bool verdict_flows(Mp__Limiter *limiter, uint32_t streams, double one_bps, double all_bps);

#endif
