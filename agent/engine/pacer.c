#include "pacer.h"

#include <math.h>

#define BURST_NS INT64_C(50000000)
#define LEAST_GAP 0.8
#define SOFT_NS 5e6
#define HARD_NS 15e6
#define LATE_STEP_NS 500 // by which the median of late wake-ups is followed

void pacer_start(struct pacer *pacer, int64_t now_ns, double bytes_per_packet, double rate_bps)
{
    *pacer = (struct pacer){.start_ns = now_ns,
        .gap_ns = bytes_per_packet * 8e9 / rate_bps,
        .burst_ns = BURST_NS,
        .next_ns = now_ns};
    // Slow rates must not see every small delay as a debt to forgive.
    if (pacer->gap_ns > (double)BURST_NS / 4)
        pacer->burst_ns = (int64_t)(pacer->gap_ns * 4);
}

static int64_t due_of(const struct pacer *pacer, uint64_t departure)
{
    return pacer->start_ns + llround((double)departure * pacer->gap_ns);
}

int64_t pacer_due_ahead(const struct pacer *pacer, unsigned ahead)
{
    return due_of(pacer, pacer->departed + ahead);
}

int64_t pacer_due(const struct pacer *pacer)
{
    return pacer_due_ahead(pacer, 0);
}

int64_t pacer_next(const struct pacer *pacer)
{
    return pacer->next_ns;
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

// How far the gap may shrink for one who owes so much.
static double least_gap(double debt_ns)
{
    double softness = (HARD_NS - debt_ns) / (HARD_NS - SOFT_NS);
    return LEAST_GAP * fmin(fmax(softness, 0), 1);
}

// When the next one should leave, of `departed` the last at `left_ns`.
static int64_t plan(const struct pacer *pacer, uint64_t departed, int64_t left_ns)
{
    int64_t due_ns = due_of(pacer, departed);
    double debt_ns = (double)(left_ns - due_ns) + pacer->gap_ns;
    int64_t soon_ns = left_ns + llround(least_gap(debt_ns) * pacer->gap_ns);
    return soon_ns > due_ns ? soon_ns : due_ns;
}

int64_t pacer_after_next(const struct pacer *pacer)
{
    return plan(pacer, pacer->departed + 1, pacer->next_ns);
}

void pacer_departed(struct pacer *pacer, unsigned count, int64_t now_ns)
{
    int64_t late_ns = now_ns - pacer->next_ns, slip_ns = late_ns - pacer->usual_late_ns;
    pacer->usual_late_ns += slip_ns > 0 ? LATE_STEP_NS : -LATE_STEP_NS;
    pacer->departed += count;
    int64_t left_ns = pacer->next_ns + (slip_ns > 0 ? slip_ns : 0); // but for the usual
    pacer->next_ns = plan(pacer, pacer->departed, left_ns);
}

void pacer_set_rate(struct pacer *pacer, int64_t now_ns, double bytes_per_packet, double rate_bps)
{
    pacer_start(pacer, now_ns, bytes_per_packet, rate_bps);
}
