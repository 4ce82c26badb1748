#ifndef MESHPERF_TCPINFO_H
#define MESHPERF_TCPINFO_H

// The kernel's counters of one TCP connection (linux/tcp.h; RFC 4898 names most of them). A field
// that the running kernel does not know reads 0. linux/tcp.h and netinet/tcp.h exclude each other,
// so nothing else includes the former.

#include <stdbool.h>
#include <stdint.h>

struct tcp_counters {
    uint64_t bytes_received; // payload in order, whether the program has read it or not
    uint64_t bytes_acked;
    uint64_t busy_us, rwnd_limited_us, sndbuf_limited_us; // busy includes the other two
    uint64_t segments_in, segments_out, retransmits;      // of data
    uint64_t packets_in;                                  // that carried them
    uint64_t out_of_order_in;                         // segments that came before others of theirs
    uint64_t duplicates_in;                           // segments that came once more; sctp
    uint64_t delivered_ce;                            // segments that met congestion (ECN)
    uint32_t rtt_us, min_rtt_us, cwnd, mss, path_mtu; // rtt: smoothed; cwnd in packets
    uint32_t in_flight;                               // packets that nobody has acknowledged
    uint32_t behind_hole;  // packets of these that were lost or wait for one that was
    uint32_t unsent_bytes; // in the send buffer, and not on their way yet
    uint32_t payload_max;  // of a segment that comes in: what this end permits
    bool timestamps;       // RFC 7323, in every segment
};

// False, and nothing written, if fd is no TCP connection.
bool tcpinfo_read(int fd, struct tcp_counters *counters);

#endif
