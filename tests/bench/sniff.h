#ifndef MESHPERF_BENCH_SNIFF_H
#define MESHPERF_BENCH_SNIFF_H

// A passive look at a link, for the truth about pacing: arrival stamps of the kernel (AF_PACKET),
// of UDP datagrams of one length over IPv4. Neither program that is compared has a hand in it.

#include <stdint.h>

struct sniffed {
    uint64_t packets;
    double mean_gap_s, p99_error_s; // p99 of |gap - mean gap|
};

// Listens on the interface, of this process's network namespace, until nothing of that kind came
// for 1 s, and at most `most_s` seconds; leaves out the first and last twentieth. 0 or -errno.
int sniff(const char *interface, unsigned udp_payload, unsigned most_s, struct sniffed *sniffed);

#endif
