#ifndef MESHPERF_UDP_FLOW_H
#define MESHPERF_UDP_FLOW_H

// One direction of a UDP test. udp.c opens P connected sockets a flow; stream 0's socket also
// carries the control messages. A bidirectional test has two flows with sockets and a thread each.
//
// A load datagram begins with UDP_HEADER bytes, numbers big endian:
//   0 type  1 stream  2 flags  4 tag (12 bytes)  16 sequence  24 send time since the window's start
// Sequences count the whole test's window from 0, over all streams; omitted datagrams carry
// UDP_OMIT and a sequence that means nothing. Lengths may be any from UDP_HEADER on.

#include <stdbool.h>
#include <stdint.h>

#include "control.h"
#include "cpu.h"
#include "probe.h"

#define UDP_LOAD 0x4c // no other message of the data plane begins with it
#define UDP_OMIT 1
#define UDP_HEADER 32
#define UDP_START_NS (5 * INT64_C(1000000000))
#define UDP_FINAL_NS (3 * INT64_C(1000000000))

struct udp_flow {
    const struct probe_order *order;
    const struct probe_hooks *hooks;
    int *fds;
    unsigned streams;
    unsigned length; // of the sender's datagrams
    uint32_t sequence_out, sequence_in;
};

// Both block until their part is over, and fill their half of the report and its load.
void udp_send(struct udp_flow *flow, struct probe_report *report);
void udp_receive(struct udp_flow *flow, struct probe_report *report);

// A control message out on stream 0: 0 or -errno.
int udp_control_send(struct udp_flow *flow, struct control *message);
// True for a new message of the peer.
bool udp_control_check(
    struct udp_flow *flow, const uint8_t *bytes, size_t size, struct control *message);
bool udp_stopped(const struct udp_flow *flow);

#endif
