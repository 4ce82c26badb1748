#ifndef MESHPERF_SCTP_H
#define MESHPERF_SCTP_H

// The kernel's counters of a one-to-one SCTP association (RFC 6458, 8.2.1; SCTP_GET_ASSOC_STATS is
// Linux's own), in the shape of a TCP connection's: segments are DATA chunks, cwnd is in packets of
// the path MTU, mss is the largest piece of a message, RTT comes in whole ms. Other fields read 0.

#include <stdbool.h>
#include <stddef.h>

#include "tcpinfo.h"

// False, and nothing written, if fd is no association.
bool sctpinfo_read(int fd, struct tcp_counters *counters);

// Can this host do it? False with a sentence in `reason`.
bool sctp_supported(char *reason, size_t size);

#endif
