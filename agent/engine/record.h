#ifndef MESHPERF_RECORD_H
#define MESHPERF_RECORD_H

// What this host is, kept beside each result so that two runs can be compared: kernel, the interface
// that the test's packets pass with its driver, speed, MTU, offloads and queue, limits of the
// socket buffers, cores, quota, virtualisation, boot.

#include "probe.h"

// `local_address`: the test's own. Never fails; what cannot be read is absent. Some 20 system calls.
void record_read(const char *local_address, struct probe_record *record);

// The sum of the interface's counters of what its provider's allowances held back (their names end
// in "allowance_exceeded": bandwidth, packets, connections). PROBE_ABSENT: it has none.
uint64_t record_allowance_exceeded(const char *interface);
// Packets that came to the interface and that it, or the kernel right after it, did not take: no
// room in its ring (rx_missed_errors), no memory or no use for them (rx_dropped), of all programs.
// PROBE_ABSENT: not known.
uint64_t record_interface_dropped(const char *interface);

#endif
