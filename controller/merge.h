#ifndef MESHPERF_MERGE_H
#define MESHPERF_MERGE_H

// Two ends' reports become one cell of the matrix. Pure. What was not measured stays absent.
//
// Bandwidth, bytes, loss, jitter come from the receiver; retransmits, RTT under load and the limits
// from the sender. Packets are made consistent: sent = received + lost_network + lost_receiver,
// with `sent` the sender's final count and lost_receiver at most what is missing (with GRO it is a
// bound).

#include <stdbool.h>

#include "meshperf.pb-c.h"
#include "testspec.h"

// Fills a cell whose index, kind, from, to, phase and attempts are set. With bidir each report
// holds both halves: the sender's `send` and the receiver's `receive` count here. Everything in the
// cell is the caller's: free it with mp__cell__free_unpacked. False if an end reports success
// without its numbers; then the cell is untouched.
bool merge_ends(const struct testspec *spec, const Mp__EndReport *sender,
    const Mp__EndReport *receiver, Mp__Cell *cell) __attribute__((warn_unused_result));

// A light probe's outcome, one of those in `result`: from = the prober, packets are round trips.
void merge_light(const Mp__LightOutcome *outcome, const Mp__LightResult *result, Mp__Cell *cell);

struct merge_names {
    const char *from, *to; // of the hosts, for sentences
    bool target;           // no agent is at the other end
};
// A port, from what its probing end observed and its listening end heard (NULL: it did not report).
// Did it arrive? Yes if the nonce did, or if the listening end saw a connection begin from one of
// the probe's source ports. Another connection that the agent's own listener saw may be the probe
// behind a translation of ports, so that it is unknown then. The cell's observation is a
// measurement whatever it is.
void merge_port(const Mp__LightOutcome *near, const Mp__LightOutcome *far,
    const struct merge_names *names, Mp__Cell *cell);

// A path, from what the walking end found.
void merge_path(const struct testspec *spec, const Mp__LightOutcome *near,
    const struct merge_names *names, Mp__Cell *cell);

#endif
