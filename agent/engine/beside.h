#ifndef MESHPERF_BESIDE_H
#define MESHPERF_BESIDE_H

// Latency beside the load of a bandwidth test. The connecting end sends light probes in a flow of
// their own to the listening end's data port: on the idle path first, before any load, and then
// while the load runs, so that both are the same packets over the same path and their difference is
// what the load adds ("foreign": other people's packets; the load's own round trips are its TCP's
// smoothed RTT).
//
// Under load the flow asks 100 times a second at most, at random times, and its bytes never exceed
// 0.05 % of the goodput and those of 50 questions, which a slow load may give 0.2 % of its own for.
// A thread of its own does it, because the test's threads are busy; the other end's data port
// answers. Where UDP does not pass there are no answers, and nothing else changes.

#include <stdint.h>

#include "probe.h"

typedef struct beside beside_t;

// Before the streams are opened: the listening end answers from now on.
beside_t *beside_new(const struct probe_order *order, dataport_t *port);
// When the streams are open: the connecting end asks for testspec_idle_ns, and then stops until
// there is load. Blocks for that time, or until `stop_fd` becomes readable.
void beside_idle(beside_t *self, int stop_fd);
// The window has begun, and so many bytes have passed in it. From any thread.
void beside_goodput(beside_t *self, uint64_t bytes);
// The window is over: no more questions. From any thread.
void beside_pause(beside_t *self);
// Waits a moment for the last answers, and fills rtt_idle and rtt_foreign.
void beside_end(beside_t **self_p, struct probe_report *report);

#endif
