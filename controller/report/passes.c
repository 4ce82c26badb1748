// A cell that was measured several times: its passes one by one.

#include <inttypes.h>
#include <math.h>

#include "json.h"
#include "report_parts.h"
#include "units.h"

// ---------------------------------------------------------------------------------------- json

struct member {
    const char *name;
    size_t has, at;
};

#define MEMBER(type, name, member)                                                                 \
    {                                                                                              \
        name, offsetof(type, has_##member), offsetof(type, member)                                 \
    }

static void members(FILE *out, const void *message, const struct member *list, size_t count)
{
    const char *base = message;
    for (size_t i = 0; i < count; i++) {
        double value = *(const double *)(base + list[i].at);
        bool has = *(const protobuf_c_boolean *)(base + list[i].has);
        report_member_real(out, list[i].name, has, value);
    }
}

static void distribution(FILE *out, const char *name, const Mp__Distribution *from)
{
    static const struct member quantiles[] = {MEMBER(Mp__Distribution, "min", min),
        MEMBER(Mp__Distribution, "mean", mean), MEMBER(Mp__Distribution, "p50", p50),
        MEMBER(Mp__Distribution, "p90", p90), MEMBER(Mp__Distribution, "p99", p99),
        MEMBER(Mp__Distribution, "p999", p999), MEMBER(Mp__Distribution, "max", max)};
    if (!from)
        return;
    fprintf(out, ",\"%s\":{\"count\":%" PRIu64, name, from->count);
    members(out, from, quantiles, sizeof quantiles / sizeof *quantiles);
    fputc('}', out);
}

static void pass_object(FILE *out, const Mp__Pass *pass)
{
    static const struct member values[] = {MEMBER(Mp__Pass, "bandwidth_bps", bandwidth_bps),
        MEMBER(Mp__Pass, "duration_s", duration_s), MEMBER(Mp__Pass, "jitter_s", jitter_s),
        MEMBER(Mp__Pass, "loss_ratio", loss_ratio)};
    fprintf(out, "{\"pass\":%u,\"state\":\"%s\",\"reason\":", pass->number,
        report_state_word(pass->state));
    report_json_text(out, pass->reason);
    fputs(",\"started\":", out);
    report_json_time(out, pass->has_started_wall_ns, pass->started_wall_ns);
    report_member_whole(out, "attempts", pass->has_attempts, pass->attempts);
    members(out, pass, values, sizeof values / sizeof *values);
    report_member_whole(out, "retransmits", pass->has_retransmits, pass->retransmits);
    distribution(out, "rtt_s", pass->rtt);
    distribution(out, "rtt_loaded_s", pass->rtt_loaded);
    report_member_text(out, "limiter", pass->limiter);
    report_member_text(out, "observed", pass->observed);
    fputc('}', out);
}

void report_json_passes(FILE *stream, const Mp__Cell *cell)
{
    if (cell->n_passes == 0)
        return;
    fputs(",\"passes\":[", stream);
    for (size_t i = 0; i < cell->n_passes; i++) {
        fputs(i ? "," : "", stream);
        pass_object(stream, cell->passes[i]);
    }
    fputc(']', stream);
}

void report_json_rechecks(FILE *stream, const Mp__RunInfo *info)
{
    static const struct member biases[] = {MEMBER(Mp__RecheckSummary, "bias", bias),
        MEMBER(Mp__RecheckSummary, "bias_worst", bias_worst)};
    if (info->n_rechecks == 0)
        return;
    fputs(",\"recheck\":[", stream);
    for (size_t i = 0; i < info->n_rechecks; i++) {
        const Mp__RecheckSummary *one = info->rechecks[i];
        fprintf(stream, "%s{\"test\":\"%s\",\"cells\":%u,\"sampled\":%u", i ? "," : "",
            report_kind_word(one->kind), one->cells, one->sampled);
        members(stream, one, biases, sizeof biases / sizeof *biases);
        fputc('}', stream);
    }
    fputc(']', stream);
}

// --------------------------------------------------------------------------------------- lines

static void column(FILE *out, int has, const char *text)
{
    fprintf(out, "  %12s", has ? text : "-");
}

void report_lines_passes(FILE *stream, const Mp__Cell *cell)
{
    char text[UNITS_TEXT_SIZE];
    if (cell->n_passes == 0)
        return;
    fprintf(stream, "  passes:\n  %4s  %-9s  %12s  %12s  %12s  %12s  %s\n", "", "state",
        "bandwidth", "jitter", "loss", "median RTT", "verdict");
    for (size_t i = 0; i < cell->n_passes; i++) {
        const Mp__Pass *pass = cell->passes[i];
        bool rtt = pass->rtt && pass->rtt->has_p50;
        fprintf(stream, "  %4u  %-9s", pass->number, report_state_word(pass->state));
        column(stream, pass->has_bandwidth_bps, units_format_rate(pass->bandwidth_bps, text));
        column(stream, pass->has_jitter_s, units_format_seconds(pass->jitter_s, text));
        column(stream, pass->has_loss_ratio, units_format_ratio(pass->loss_ratio, text));
        column(stream, rtt, units_format_seconds(rtt ? pass->rtt->p50 : 0, text));
        fprintf(stream, "  %s\n",
            pass->limiter    ? pass->limiter
            : pass->observed ? pass->observed
                             : "-");
    }
}
