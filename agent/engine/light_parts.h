#ifndef MESHPERF_LIGHT_PARTS_H
#define MESHPERF_LIGHT_PARTS_H

// The bytes of a light probe and the arithmetic over its samples; private to the engine.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "light.h"

// Layout, big endian: magic 4, type, flags, flow 2, id 16, number 8, t1 8, t2 8, t3 8, zero, MAC.
// A question carries zeros for t2 and t3; the answer repeats the rest and adds them.
#define LIGHT_FLAG_KERNEL_T2 1

struct light_datagram {
    unsigned type, flags, flow;
    uint64_t number;
    int64_t t2_ns, t3_ns;
};

void light_pack(
    const struct light_datagram *datagram, const struct ticket_keys *keys, uint8_t out[LIGHT_SIZE]);
bool light_unpack(const uint8_t *bytes, size_t size, const struct ticket_keys *keys,
    struct light_datagram *datagram);

// One round trip, in the order of asking.
struct light_sample {
    int64_t rtt_ns, forward_ns, backward_ns, at_ns; // one-way: difference of two unrelated clocks
    uint16_t flow;
};

// Statistics of a pair's samples (light_stats.c, pure). `samples` is reordered.
void light_distribution(int64_t *values_ns, size_t count, struct probe_distribution *out);
double light_jitter_s(const struct light_sample *samples, size_t count);
// Removes the linear drift between two clocks: the lower convex hull of the (time, delay) points is
// what an uncongested path would show (Moon, Skelly, Towsley 1999); what is above it is variation.
void light_pdv(
    const int64_t *at_ns, const int64_t *delay_ns, size_t count, struct probe_distribution *out);

#endif
