#ifndef MESHPERF_SCHEDULER_H
#define MESHPERF_SCHEDULER_H

// Which pair may start now. Pure and deterministic for a seed: no clock, no I/O, no threads.
//
// Directed pairs are edges over hosts, machines and shared values. Work-conserving: as long as
// scheduler_next gives a pair, one could start; when it gives none, none can. The rule: hosts that
// became free are taken by falling remaining work; of the free partners the one that maximises, in
// this order, (1) the largest remaining work over capacity of any resource of the edge, (2) the
// partner's remaining work, (3) the earliest round of the circle method (duplex: of the shift).
//
// All remaining edges of one scheduler cost the same, so work is counted in edges. Memory: 2 bits a
// directed pair (rows and columns) plus a few words a host.
//
// Several runs share hosts and machines: what is in use is counted in one ledger, which outlives
// the schedulers that refer to it. Who is asked first has priority.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ledger.h"
#include "meshperf.pb-c.h"

typedef struct scheduler scheduler_t;

struct schedule_host {
    uint32_t host;    // ledger numbers
    uint32_t machine; // LEDGER_NONE: machines are ignored
    uint32_t at_once; // concurrent: tests at once on this host; 0: any number
};

struct schedule_shared {
    uint32_t limit;         // tests at once that cross a value's boundary
    const uint32_t *values; // for each host the ledger's number, or LEDGER_NONE
};

// Arrays are copied.
struct schedule_config {
    Mp__Mode mode;
    uint64_t seed;
    bool bidir;        // an edge sends and receives at both ends
    uint64_t rate_bps; // stated rate of each test; 0: not stated
    size_t host_count;
    const struct schedule_host *hosts;
    size_t shared_count;
    const struct schedule_shared *shared;
};

scheduler_t *scheduler_new(ledger_t *ledger, const struct schedule_config *config);
// Gives back whatever its running edges hold.
void scheduler_destroy(scheduler_t **self_p);

// An edge to be run once; false if it is there already (remaining or running). Also brings a failed
// one back, with its priority, after scheduler_release.
bool scheduler_add(scheduler_t *self, uint32_t from, uint32_t to);
// Takes an edge out that is not running.
void scheduler_remove(scheduler_t *self, uint32_t from, uint32_t to);

// Picks a pair, takes its resources and returns true; false if no remaining pair can start now.
bool scheduler_next(scheduler_t *self, uint32_t *from, uint32_t *to);
// The pair's hosts are free again (its result may still be on the way).
void scheduler_release(scheduler_t *self, uint32_t from, uint32_t to);

// Edges of a host that is away stay, but are not picked.
void scheduler_leave(scheduler_t *self, uint32_t host);
void scheduler_return(scheduler_t *self, uint32_t host);
// The work of a host that is away does not count for priorities any more, and comes back with it.
size_t scheduler_remaining(const scheduler_t *self); // all edges not yet picked
size_t scheduler_startable(const scheduler_t *self); // of these, with both hosts present

// Is this host idle although it has a remaining edge to a free host, which a machine or shared
// value holds back? Judged at the last scheduler_next.
bool scheduler_blocked(const scheduler_t *self, uint32_t host);

#endif
