#ifndef MESHPERF_VERDICT_H
#define MESHPERF_VERDICT_H

// What limited a test, from both ends' reports: the rules of docs/measurement.md, first match wins.
// Pure. The thresholds stand in verdict.c; the evidence is a short phrase with the numbers.

#include "meshperf.pb-c.h"
#include "testspec.h"

// A new Limiter for the direction sender -> receiver; the caller's (mp__limiter__free_unpacked).
// Both reports have their half (send, receive).
Mp__Limiter *verdict_new(
    const struct testspec *spec, const Mp__EndReport *sender, const Mp__EndReport *receiver);

#endif
