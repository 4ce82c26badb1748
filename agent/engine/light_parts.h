#ifndef MESHPERF_LIGHT_PARTS_H
#define MESHPERF_LIGHT_PARTS_H

// The bytes of a light probe and the arithmetic over its samples; private to the engine.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "converge.h"
#include "light.h"

// Layout, big endian: magic 4, type, flags, flow 2, id 16, number 8, offset 8, t2 8, t3 8, error 8,
// zero, MAC. A question carries zeros from the offset on; the answer repeats the rest and adds
// them: t2 and t3 by its monotonic clock, what its wall clock is ahead of that, and that clock's
// error.

struct light_datagram {
    unsigned type, flags, flow;
    uint64_t number;
    int64_t t2_ns, t3_ns, offset_ns, error_ns;
};

void light_pack(
    const struct light_datagram *datagram, const struct ticket_keys *keys, uint8_t out[LIGHT_SIZE]);
bool light_unpack(const uint8_t *bytes, size_t size, const struct ticket_keys *keys,
    struct light_datagram *datagram);

// A question that was asked, until its answer comes.
struct light_asked {
    uint64_t number;
    int64_t t1_wall_ns, offset_ns; // the stamp, and what the clocks differed by right before it
    int64_t asked_mono_ns;
    bool waiting, kernel_t1;
    bool spun; // the prober was spinning
};

// One round trip, in the order of asking. One-way: difference of two unrelated monotonic clocks.
struct light_sample {
    int64_t rtt_ns, forward_ns, backward_ns, at_ns;
    int64_t clocks_ns; // what the far monotonic clock is ahead by, if both wall clocks are right
    uint16_t flow;
};

// light_round.c, pure. An answer of kernel or user stamp `t4_wall_ns` that was read at
// `now_mono_ns` with the clocks differing by `offset_ns`. False if the stamps make no sense: the
// wall clock of either end stepped between two of them.
bool light_round(const struct light_asked *asked, const struct light_datagram *answer,
    int64_t t4_wall_ns, int64_t offset_ns, int64_t now_mono_ns, struct light_sample *sample);

// A source port (light_flow.c): an unconnected socket, and which question each of its transmit
// stamps belongs to.
#define LIGHT_STAMPS 4096 // that may be awaited; a power of two

struct light_flow {
    int fd;
    unsigned family;
    uint32_t sent;
    struct {
        uint32_t owner, key;
        uint64_t number;
    } stamps[LIGHT_STAMPS];
};

struct light_target {
    struct sockaddr_storage address;
    socklen_t size;
};

bool light_target_set(struct light_target *self, const char *address, uint16_t port);
// Binds to `local` if it is an address of this host. False: no socket, errno says why.
bool light_flow_open(struct light_flow *self, unsigned family, const char *local);
// Asks, and fills `asked`. `owner` comes back with the stamp; `index` is written into the question.
// False if it never left this host.
bool light_flow_ask(struct light_flow *self, const struct light_target *target,
    const struct ticket_keys *keys, uint64_t number, uint32_t owner, unsigned index,
    const struct light_clock *clock, struct light_asked *asked);
// The next transmit stamp that the kernel has, or false. `known`: it belongs to a question here.
// The first one of a question counts: a packet that passes several interfaces of one kernel (a
// container's pair, a bridge) is stamped at each.
bool light_flow_stamp(
    struct light_flow *self, bool *known, uint32_t *owner, uint64_t *number, int64_t *wall_ns);
// The next datagram, or negative; the stamp is the program's if `kernel` is false.
ssize_t light_flow_read(
    struct light_flow *self, uint8_t bytes[LIGHT_SIZE + 1], int64_t *wall_ns, bool *kernel);

// What light_run keeps (light_probe.c) until it concludes (light_result.c).
#define LIGHT_PENDING 512 // questions of one pair that may be on their way; a power of two

struct light_pair {
    const struct light_peer *peer;
    struct light_target target;
    int64_t due_ns, begin_ns, settled_ns; // 0: not settled
    uint64_t sent, received, duplicate, reordered, discarded, far_spun, next_expected, limit;
    uint64_t received_keep; // keep every so many-th sample
    struct light_asked pending[LIGHT_PENDING];
    struct light_sample *samples;
    size_t count, room;
    int64_t rtt_ns;                // the last; 0: none yet
    uint64_t warmed, warm_awaited; // so many questions only to warm up; the number of one, or 0
    int64_t far_error_ns;          // the largest that its clock claimed; -1: not synchronised
    struct converge converge;
    struct { // round trips of the sample that is being made
        int64_t since_ns;
        double sum_s;
        unsigned count;
    } mean;
    bool unusable;
};

struct light_prober {
    const struct testspec *spec;
    struct light_pair *pairs;
    struct light_outcome *outcomes;
    size_t count;
    struct light_flow *flows;
    unsigned flow_count, per_family;
    int64_t end_ns, largest_rtt_ns;
    double rate;
    struct light_clock clock;
    int64_t near_error_ns; // as far_error_ns
    uint64_t missing_t1, missing_t2, missing_t4, answers, discarded, spun;
    spin_t *spin;
    struct spinner spinner;
};

void light_conclude(struct light_prober *self, size_t index, bool stopped);
void light_summarise(const struct light_prober *self, struct light_summary *summary);

// Statistics of a pair's samples (light_stats.c, pure). `samples` is reordered.
void light_distribution(int64_t *values_ns, size_t count, struct probe_distribution *out);
double light_jitter_s(const struct light_sample *samples, size_t count);
// Removes the linear drift between two clocks: the lower convex hull of the (time, delay) points is
// what an uncongested path would show (Moon, Skelly, Towsley 1999); what is above it is variation.
// Medians of both ways and their bound, where `near_error_ns` and `far_error_ns` (the largest
// during the test; -1: not synchronised) are under a quarter of the smallest RTT; else absent.
void light_one_way(const struct light_sample *samples, size_t count, int64_t near_error_ns,
    int64_t far_error_ns, struct light_outcome *out);
void light_pdv(
    const int64_t *at_ns, const int64_t *delay_ns, size_t count, struct probe_distribution *out);

#endif
