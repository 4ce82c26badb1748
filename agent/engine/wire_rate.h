#ifndef MESHPERF_WIRE_RATE_H
#define MESHPERF_WIRE_RATE_H

// What a payload is on the wire. Pure arithmetic, from the kernel's packet counts.
//
//   l3    IP packets whole
//   l2    and 14 bytes of Ethernet header each: what a token bucket of Linux counts
//   line  and 4 of FCS, 8 of preamble, 12 of gap; a frame has 60 bytes before its FCS at least
//
// Tunnels and VLAN tags on the way are not seen.

#include <stdint.h>

#include "probe.h"

// Bytes of headers of one packet, and what each unit of payload (message, fragment) adds.
struct wire_traffic {
    uint64_t payload_bytes, packets;
    unsigned packet_bytes; // IP and transport headers
    uint64_t extra_bytes;  // all else at this layer, in sum: chunk headers, padding
};

#define WIRE_IPV4 20
#define WIRE_IPV6 40
#define WIRE_TCP 20
#define WIRE_TCP_TIMESTAMPS 12 // RFC 7323, padded
#define WIRE_UDP 8
#define WIRE_SCTP 12
#define WIRE_SCTP_DATA 16

// Sets the three rates of `receive`; leaves them absent without packets or time.
void wire_rates(const struct wire_traffic *traffic, double seconds, struct probe_receive *receive);

// UDP datagrams of one length: fragments as the path MTU makes them (0: unknown, none).
struct wire_traffic wire_of_datagrams(
    uint64_t count, unsigned length, unsigned family, unsigned path_mtu);

// What SCTP adds to `payload_bytes` beyond its packets' headers: those of `chunks` DATA chunks, the
// padding of each message of `message` bytes (0: none), and `duplicates` chunks that came again.
uint64_t wire_of_chunks(
    uint64_t payload_bytes, uint64_t chunks, uint64_t duplicates, unsigned message);

// The fewest packets that carry `chunks` DATA chunks of messages of `message` bytes, where the
// largest chunk has `piece` bytes and fills a packet.
uint64_t wire_packets_of_chunks(uint64_t chunks, unsigned piece, unsigned message);

#endif
