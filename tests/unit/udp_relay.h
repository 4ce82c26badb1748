#ifndef MESHPERF_UDP_RELAY_H
#define MESHPERF_UDP_RELAY_H

// A path between two ends on loopback that does to datagrams what a test tells it, and counts what
// it did: the truth to compare with. A thread of its own; one upstream socket for each source port.

#include <stddef.h>
#include <stdint.h>

enum relay_direction { RELAY_FORWARD, RELAY_BACKWARD }; // from the connecting end, and back
enum relay_action {
    RELAY_PASS,
    RELAY_DROP,
    RELAY_TWICE,
    RELAY_SWAP,  // after its successor
    RELAY_FORGE, // after a forgery with another tag, one that is cut off, and one that is longer
};

// Called for every datagram, in order. Load of a udp test: number >= 0 within the window, else -1.
typedef enum relay_action relay_rule(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number);

struct relay_counts {
    uint64_t dropped, twice, swapped,
        forged; // of load within the window, or of all where that has none
};

typedef struct udp_relay udp_relay_t;

// Forwards 127.0.0.1:(its port) to 127.0.0.1:port, each datagram `delay_ns` later each way.
udp_relay_t *udp_relay_new(uint16_t port, int64_t delay_ns, relay_rule *rule, void *ctx);
uint16_t udp_relay_port(const udp_relay_t *self);
struct relay_counts udp_relay_end(udp_relay_t **self_p); // stops, frees, and tells

#endif
