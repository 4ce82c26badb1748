#ifndef MESHPERF_GUARD_H
#define MESHPERF_GUARD_H

// What this host's owner allows. A stated value above a guard refuses the test with a sentence that
// names the guard; an unlimited one is capped. Pure: no sockets, no clock. What it cannot judge it
// refuses.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "probe.h"
#include "selector.h"
#include "testspec.h"

#define GUARD_PEERS_MAX 256
#define GUARD_TESTS_DEFAULT 64
#define GUARD_TESTS_MAX 256
#define GUARD_DURATION_DEFAULT_NS (3600 * INT64_C(1000000000))
#define GUARD_TEXT_SIZE PROBE_TEXT_SIZE

struct guard {
    struct cidr peers[GUARD_PEERS_MAX];
    size_t peer_count; // 0: any peer
    uint64_t rate_bps; // 0: any rate
    int64_t duration_ns;
    uint64_t bytes; // 0: any volume of one test
    unsigned tests; // bandwidth tests at once
    bool spin;      // latency tests may keep a core busy (engine/spin.h)
};

void guard_defaults(struct guard *guard);

// False also for what is no numeric address.
bool guard_peer_allowed(const struct guard *guard, const char *address);

// Narrows the order's limits and sets its cap; false with the reason if it may not run at all.
// `running` bandwidth tests are in flight already.
bool guard_admit(const struct guard *guard, struct probe_order *order, unsigned running,
    char reason[GUARD_TEXT_SIZE]);

// May light probes of this kind, to `probed` peers, run at all? Peers are judged one by one.
bool guard_admit_light(const struct guard *guard, const struct testspec *spec, size_t probed,
    char reason[GUARD_TEXT_SIZE]);

// The limits in words, for `meshperf agent show`; empty if there are none but the defaults.
void guard_words(const struct guard *guard, char text[GUARD_TEXT_SIZE]);

#endif
