#ifndef MESHPERF_RUNNER_H
#define MESHPERF_RUNNER_H

// Bandwidth tests in flight: a thread each, which runs the engine and speaks back by messages. All
// functions belong to the control thread. Every test that runner_start takes ends with exactly one
// ops.report, unless the runner is destroyed before.

#include <czmq.h>

#include "guard.h"
#include "meshperf.pb-c.h"
#include "probe.h"

typedef struct runner runner_t;

struct runner_ops {
    void *ctx;
    void (*ready)(void *ctx, const uint8_t test_id[TICKET_ID_SIZE]);
    void (*progress)(
        void *ctx, const uint8_t test_id[TICKET_ID_SIZE], const struct probe_interval *interval);
    // Takes the report.
    void (*report)(void *ctx, const uint8_t test_id[TICKET_ID_SIZE], Mp__EndReport *report);
    // Which tests this build knows; probe_find, but for tests of the runner itself.
    const struct probe_kind *(*find)(enum test_kind kind);
};

// `guard`, `port` and `spin`, which is told how many tests there are, are borrowed for the runner's
// life.
runner_t *runner_new(
    const struct guard *guard, dataport_t *port, spin_t *spin, const struct runner_ops *ops);
// Stops all tests and waits for their threads; their reports are dropped.
void runner_destroy(runner_t **self_p);

zsock_t *runner_events(const runner_t *self); // readable: call runner_turn
void runner_turn(runner_t *self);

// Begins a test, or reports at once why not. The same id again: one that runs is not started anew,
// and says once more that it is ready if it is; one that is over is ignored.
void runner_start(runner_t *self, const Mp__Ticket *ticket, const Mp__TestSpec *spec);
void runner_stop(runner_t *self, const uint8_t test_id[TICKET_ID_SIZE]); // unknown: ignored
void runner_stop_all(runner_t *self);

unsigned runner_count(const runner_t *self);
// Their ids, at most `most`; the bytes belong to the runner until its next call.
size_t runner_ids(const runner_t *self, ProtobufCBinaryData *ids, size_t most);

#endif
