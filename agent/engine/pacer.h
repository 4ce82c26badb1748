#ifndef MESHPERF_PACER_H
#define MESHPERF_PACER_H

// When to send the next datagram. Pure arithmetic: departure k is due at start + k * gap, computed
// from k and not by adding gaps, so that the rate over any time is exact. A sender that was held
// up may be late by at most `burst_ns`; what it owes beyond that is forgiven by moving the start.

#include <stdint.h>

struct pacer {
    int64_t start_ns;
    double gap_ns;
    uint64_t departed;
    int64_t burst_ns;
};

void pacer_start(struct pacer *pacer, int64_t now_ns, double bytes_per_packet, double rate_bps);
// When the next departure is due.
int64_t pacer_due(const struct pacer *pacer);
// The same for the one `ahead` places later.
int64_t pacer_due_ahead(const struct pacer *pacer, unsigned ahead);
// How many are due by now (at most `most`), after forgiving what is too late.
unsigned pacer_ready(struct pacer *pacer, int64_t now_ns, unsigned most);
void pacer_departed(struct pacer *pacer, unsigned count);
void pacer_set_rate(struct pacer *pacer, int64_t now_ns, double bytes_per_packet, double rate_bps);

#endif
