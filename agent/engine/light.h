#ifndef MESHPERF_LIGHT_H
#define MESHPERF_LIGHT_H

// Light probes: few small datagrams to many peers at once, all from one thread. No handshake; each
// datagram carries a MAC, and an answer is never longer than its question. Four stamps as in STAMP
// (RFC 8762): RTT = (t4 - t1) - (t3 - t2), with kernel stamps where the kernel gives them, so that
// wake-ups drop out. Probe spacing is random (RFC 3432, uniform in [0.5, 1.5] of the mean).
//
// The kernel stamps by the wall clock, which may step. Each end turns its stamps into its monotonic
// clock, by what the two clocks differ at that time (light_clock); what does not fit in between two
// readings of the monotonic clock is discarded and counted.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataport.h"
#include "probe.h"
#include "spin.h"
#include "testspec.h"
#include "ticket.h"

#define LIGHT_SIZE 96 // bytes of a probe and of its answer, UDP payload
#define LIGHT_ASK 32  // first byte after the magic, beside enum ticket_message and control_type
#define LIGHT_REPLY 33

// What an answer says of the end that gives it.
#define LIGHT_FLAG_KERNEL_T2 1 // its receive stamp is the kernel's
#define LIGHT_FLAG_SPUN 2      // it was spinning when the question came

// Where the prober spins, so many round trips go ahead of each that counts, one after the other, as
// code and tables that nobody has touched for a few milliseconds are no longer at hand at either
// end. Not on a path so slow that it makes no difference.
#define LIGHT_WARM 3

struct light_peer {
    struct ticket_keys keys;
    char local_address[PROBE_ADDRESS_SIZE];
    char peer_address[PROBE_ADDRESS_SIZE];
    uint16_t peer_port;
};

struct light_outcome {
    enum probe_outcome outcome;
    char reason[PROBE_TEXT_SIZE];
    uint64_t sent, received, duplicate, reordered;
    double duration_s;
    struct probe_distribution rtt;
    double jitter_s; // mean |D| of consecutive round trips
    unsigned flows, family;
    double worst_flow_p50_s, best_flow_p50_s;
    struct probe_distribution pdv_forward, pdv_backward; // one-way, skew removed (lower hull)
    uint64_t discarded; // received, but their stamps made no sense: a clock stepped
    uint64_t far_spun;  // received, and the reflector was spinning when it was asked
    // Only where both clocks claim to be synchronised to within a quarter of the smallest RTT:
    double one_way_forward_s, one_way_backward_s; // medians; NAN
    double one_way_bound_s;                       // sum of both clocks' largest errors; NAN
    struct probe_convergence convergence;
};

struct light_summary {
    char stamps[PROBE_TEXT_SIZE];    // where the four stamps came from
    char technique[PROBE_TEXT_SIZE]; // how the probes were moved, and whether the prober spun
    struct probe_load load;
};

// The wall clock as this host sees it now.
struct light_clock {
    int64_t offset_ns;      // wall less monotonic
    int64_t offset_mono_ns; // when that was read with care
    int64_t error_ns;       // largest error that the kernel claims; -1: not synchronised
    int64_t error_mono_ns;  // when that was asked; once a second is enough
};
void light_clock_read(struct light_clock *self);

// Probes all peers at once for spec->duration_ns at spec->probe_rate each, over spec->flows source
// ports, and then waits max(1 s, 4 * largest RTT) for stragglers if any are missing. With
// spec->until a peer is left alone once its mean RTT is known so well (converge.h). Spins while
// `spin` gives leave. Blocks; readable stop_fd ends it early with what there is (outcome
// PROBE_STOPPED).
void light_run(const struct testspec *spec, const struct light_peer *peers, size_t count,
    spin_t *spin, int stop_fd, struct light_outcome *outcomes, struct light_summary *summary);

// Pure: checks a question and writes its answer. For the data port's thread. `t2_ns` is the
// receive stamp (CLOCK_REALTIME), the kernel's if `flags` (LIGHT_FLAG_*) say so, else the user's;
// `clock` was read after it. Returns the answer's size (LIGHT_SIZE) or 0 if it must be ignored.
size_t light_answer(const struct ticket_keys *keys, const uint8_t *question, size_t size,
    int64_t t2_ns, unsigned flags, const struct light_clock *clock, uint8_t answer[LIGHT_SIZE]);
// The test id in a light datagram, or NULL if it is none.
const uint8_t *light_peek(const uint8_t *bytes, size_t size);

#endif
