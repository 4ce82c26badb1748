#ifndef MESHPERF_UDP_OUTLET_H
#define MESHPERF_UDP_OUTLET_H

// What one sending thread of a UDP test sends through: its share of the test's sockets, in turn.
// Lays datagrams out (udp_parts.h), hands them to the kernel in as large packets as it takes, and
// counts what became of them. When they leave is udp_load.c's business. Used by one thread.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "udp_parts.h"

struct udp_outlet {
    struct udp_sender *sender;
    unsigned first, streams, turn; // sockets: from this one on, so many; whose turn it is
    unsigned length, path_mtu;
    unsigned segments, most; // datagrams a packet (1: no UDP_SEGMENT), and at a time
    uint8_t *bytes;          // of `most` datagrams, one after the other
    int64_t window_begin_ns;
    // of the window
    uint64_t sent_bytes, lost;
    int64_t blocked_window_ns;
    int64_t blocked_ns; // since it was opened
};

// Datagrams that leave together.
struct udp_batch {
    unsigned count, omit;     // the first `omit` of them are of before the window
    uint64_t omitted, number; // of the first of either kind
    int64_t offset_ns;        // since the window began
};

// Datagrams as long as the sender's, `most` at a time, or (0) as many as a packet holds.
void udp_outlet_open(struct udp_outlet *self, struct udp_sender *sender, unsigned first,
    unsigned streams, unsigned most);
void udp_outlet_close(struct udp_outlet *self);
// All of the batch through the next socket, which may block for as long as that has no room. The
// datagrams may become shorter, as the path takes no longer ones.
void udp_outlet_send(struct udp_outlet *self, const struct udp_batch *batch);
// One datagram of `size` bytes, which is of before the window and may be lost without a trace.
void udp_outlet_try(struct udp_outlet *self, uint64_t omitted, size_t size);
// The path takes less than was thought: shorter datagrams, unless their length is asked for.
bool udp_outlet_shrink(struct udp_outlet *self, int fd);

#endif
