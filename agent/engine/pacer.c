#include "pacer.h"

#include <math.h>

#define BURST_NS INT64_C(50000000)

void pacer_start(struct pacer *pacer, int64_t now_ns, double bytes_per_packet, double rate_bps)
{
    *pacer = (struct pacer){
        .start_ns = now_ns, .gap_ns = bytes_per_packet * 8e9 / rate_bps, .burst_ns = BURST_NS};
    // Slow rates must not see every small delay as a debt to forgive.
    if (pacer->gap_ns > (double)BURST_NS / 4)
        pacer->burst_ns = (int64_t)(pacer->gap_ns * 4);
}

int64_t pacer_due_ahead(const struct pacer *pacer, unsigned ahead)
{
    return pacer->start_ns + llround((double)(pacer->departed + ahead) * pacer->gap_ns);
}

int64_t pacer_due(const struct pacer *pacer)
{
    return pacer_due_ahead(pacer, 0);
}

unsigned pacer_ready(struct pacer *pacer, int64_t now_ns, unsigned most)
{
    int64_t late_ns = now_ns - pacer_due(pacer);
    if (late_ns < 0)
        return 0;
    if (late_ns > pacer->burst_ns)
        pacer->start_ns += late_ns - pacer->burst_ns;
    double due =
        floor((double)(now_ns - pacer->start_ns) / pacer->gap_ns) + 1 - (double)pacer->departed;
    if (due < 1)
        due = 1;
    return due > most ? most : (unsigned)due;
}

void pacer_departed(struct pacer *pacer, unsigned count)
{
    pacer->departed += count;
}

void pacer_set_rate(struct pacer *pacer, int64_t now_ns, double bytes_per_packet, double rate_bps)
{
    pacer_start(pacer, now_ns, bytes_per_packet, rate_bps);
}
