#ifndef MESHPERF_PACER_H
#define MESHPERF_PACER_H

// When to send the next datagram. Pure arithmetic: departure k is due at start + k * gap, computed
// from k and not by adding gaps, so that the rate over any time is exact. A sender that was held
// up may be late by at most `burst_ns`; what it owes beyond that is forgiven by moving the start.
//
// Datagrams that leave one by one also have a planned time (pacer_next): when due, or later while
// a debt is made up for. A thread that was woken 3 ms late would send all that it owes at once: a
// burst that nobody asked for, which a shallow buffer on the way drops. Instead the gaps shrink to
// LEAST_GAP of what they should be until the schedule is met again; the more is owed (from SOFT_NS
// to HARD_NS) the closer they get. Threads always wake a little late. The median of that is no
// debt: it delays all departures by the same.

#include <stdint.h>

struct pacer {
    int64_t start_ns;
    double gap_ns;
    uint64_t departed;
    int64_t burst_ns;
    int64_t next_ns, usual_late_ns; // of departures one by one
};

void pacer_start(struct pacer *pacer, int64_t now_ns, double bytes_per_packet, double rate_bps);
// When the next departure is due.
int64_t pacer_due(const struct pacer *pacer);
// The same for the one `ahead` places later.
int64_t pacer_due_ahead(const struct pacer *pacer, unsigned ahead);
// When the next departure should be, if it is alone.
int64_t pacer_next(const struct pacer *pacer);
// And the one after it, if that leaves when it should.
int64_t pacer_after_next(const struct pacer *pacer);
// How many are due by now (at most `most`), after forgiving what is too late.
unsigned pacer_ready(struct pacer *pacer, int64_t now_ns, unsigned most);
void pacer_departed(struct pacer *pacer, unsigned count, int64_t now_ns);
void pacer_set_rate(struct pacer *pacer, int64_t now_ns, double bytes_per_packet, double rate_bps);

#endif
