#include "light_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"

static void flow_medians(
    struct light_prober *self, struct light_pair *pair, struct light_outcome *out, int64_t *values)
{
    out->best_flow_p50_s = out->worst_flow_p50_s = NAN;
    for (unsigned flow = 0; flow < self->flow_count; flow++) {
        struct probe_distribution one;
        size_t count = 0;
        for (size_t i = 0; i < pair->count; i++)
            if (pair->samples[i].flow == flow)
                values[count++] = pair->samples[i].rtt_ns;
        if (count == 0)
            continue;
        light_distribution(values, count, &one);
        if (!(out->best_flow_p50_s <= one.p50_s))
            out->best_flow_p50_s = one.p50_s;
        if (!(out->worst_flow_p50_s >= one.p50_s))
            out->worst_flow_p50_s = one.p50_s;
    }
}

static void one_way(
    const struct light_pair *pair, struct light_outcome *out, int64_t *at, int64_t *delay)
{
    for (size_t i = 0; i < pair->count; i++) {
        at[i] = pair->samples[i].at_ns;
        delay[i] = pair->samples[i].forward_ns;
    }
    light_pdv(at, delay, pair->count, &out->pdv_forward);
    for (size_t i = 0; i < pair->count; i++)
        delay[i] = pair->samples[i].backward_ns;
    light_pdv(at, delay, pair->count, &out->pdv_backward);
}

void light_conclude(struct light_prober *self, size_t index, bool stopped)
{
    struct light_pair *pair = &self->pairs[index];
    struct light_outcome *out = &self->outcomes[index];
    out->sent = pair->sent;
    out->received = pair->received;
    out->duplicate = pair->duplicate;
    out->reordered = pair->reordered;
    out->discarded = pair->discarded;
    out->far_spun = pair->far_spun;
    int64_t now = clock_mono_ns(), ended = pair->settled_ns ? pair->settled_ns : self->end_ns;
    out->duration_s = (double)((now < ended ? now : ended) - pair->begin_ns) / 1e9;
    converge_report(&pair->converge, &out->convergence);
    out->flows = self->per_family;
    out->family = pair->target.address.ss_family == AF_INET ? 4 : 6;
    out->jitter_s = light_jitter_s(pair->samples, pair->count);
    int64_t *values = malloc((pair->count + 1) * sizeof *values),
            *at = malloc((pair->count + 1) * sizeof *at);
    if (!values || !at)
        abort();
    flow_medians(self, pair, out, values);
    one_way(pair, out, at, values);
    light_one_way(pair->samples, pair->count, self->near_error_ns, pair->far_error_ns, out);
    for (size_t i = 0; i < pair->count; i++)
        values[i] = pair->samples[i].rtt_ns;
    light_distribution(values, pair->count, &out->rtt);
    free(values);
    free(at);
    out->outcome = stopped ? PROBE_STOPPED : PROBE_OK;
    if (stopped) {
        snprintf(out->reason, sizeof out->reason, "stopped");
    } else if (pair->sent == 0 || pair->received == 0) {
        out->outcome = PROBE_FAILED;
        if (!*out->reason)
            snprintf(out->reason, sizeof out->reason,
                pair->sent ? "none of %llu probes was answered" : "no probe could be sent (%llu)",
                (unsigned long long)pair->sent);
    }
}

static const char *origin(uint64_t missing, uint64_t answers)
{
    return missing == 0 ? "kernel" : missing < answers ? "kernel or user" : "user";
}

static void tell_stamps(const struct light_prober *self, struct light_summary *summary)
{
    int have = snprintf(summary->stamps, sizeof summary->stamps, "t1 %s, t2 %s, t3 user, t4 %s",
        origin(self->missing_t1, self->answers), origin(self->missing_t2, self->answers),
        origin(self->missing_t4, self->answers));
    if (self->discarded > 0)
        snprintf(summary->stamps + have, sizeof summary->stamps - (size_t)have,
            "; %llu of %llu discarded, as a clock stepped", (unsigned long long)self->discarded,
            (unsigned long long)self->answers);
}

void light_summarise(const struct light_prober *self, struct light_summary *summary)
{
    tell_stamps(self, summary);
    snprintf(summary->technique, sizeof summary->technique,
        "UDP from %u source port%s a family, prober %s", self->per_family,
        self->per_family == 1 ? "" : "s",
        self->spun == 0               ? "sleeps"
        : self->spun == self->answers ? "spins"
                                      : "spins in part");
}
