// A cell as JSON, and what stands within it: intervals and hops.

#include <math.h>
#include <string.h>

#include "json.h"
#include "report_parts.h"

// Moves from the object that is open to the one that `path` is in; one level deep.
static void enter_group(FILE *stream, const char **open, const char *path)
{
    const char *dot = strchr(path, '.');
    size_t length = dot ? (size_t)(dot - path) : 0;
    bool same = *open && dot && strncmp(*open, path, length + 1) == 0;
    if (*open && !same)
        fputc('}', stream);
    if (same)
        fputc(',', stream);
    else if (dot)
        fprintf(stream, ",\"%.*s\":{", (int)length, path);
    else
        fputc(',', stream);
    *open = dot ? path : NULL;
}

static void intervals_list(FILE *stream, const Mp__Cell *cell)
{
    fputs(",\"intervals\":[", stream);
    for (size_t i = 0; i < cell->n_intervals; i++) {
        fputs(i ? ",{" : "{", stream);
        report_json_interval(stream, cell->intervals[i]);
        fputc('}', stream);
    }
    fputc(']', stream);
}

static void hop_object(FILE *stream, const Mp__Hop *hop)
{
    fprintf(stream, "{\"ttl\":%u,\"address\":", hop->ttl);
    report_json_text(stream, hop->responder);
    fprintf(stream, ",\"sent\":%u,\"received\":%u", hop->sent, hop->received);
    if (hop->sent > 0 && hop->received <= hop->sent)
        report_member_real(
            stream, "loss_ratio", 1, (double)(hop->sent - hop->received) / hop->sent);
    if (hop->has_rtt_mean_s) {
        fputs(",\"rtt_s\":{\"min\":", stream);
        report_json_real(stream, hop->has_rtt_min_s ? hop->rtt_min_s : NAN);
        fputs(",\"mean\":", stream);
        report_json_real(stream, hop->rtt_mean_s);
        fputs(",\"max\":", stream);
        report_json_real(stream, hop->has_rtt_max_s ? hop->rtt_max_s : NAN);
        fputc('}', stream);
    }
    report_member_whole(stream, "mtu", hop->has_mtu, hop->mtu);
    fprintf(stream, ",\"final\":%s}", hop->has_final && hop->final ? "true" : "false");
}

static void hops_list(FILE *stream, const Mp__Cell *cell)
{
    fputs(",\"hops\":[", stream);
    for (size_t i = 0; i < cell->n_hops; i++) {
        fputs(i ? "," : "", stream);
        hop_object(stream, cell->hops[i]);
    }
    fputc(']', stream);
}

void report_json_fields(FILE *stream, const Mp__Cell *cell)
{
    size_t count;
    const struct field *fields = report_fields(&count);
    const char *open = NULL;
    for (size_t i = 0; i < count; i++) {
        struct value value = report_field(&fields[i], cell);
        if (value.type == VALUE_ABSENT && !fields[i].always)
            continue;
        enter_group(stream, &open, fields[i].path);
        const char *dot = strchr(fields[i].path, '.');
        fprintf(stream, "\"%s\":", dot ? dot + 1 : fields[i].path);
        report_json_value(stream, &value);
    }
    if (open)
        fputc('}', stream);
    report_json_passes(stream, cell);
    if (cell->n_intervals > 0)
        intervals_list(stream, cell);
    if (cell->n_hops > 0)
        hops_list(stream, cell);
}

void report_json_interval(FILE *stream, const Mp__Interval *interval)
{
    fputs("\"start_s\":", stream);
    report_json_real(stream, interval->start_s);
    fputs(",\"duration_s\":", stream);
    report_json_real(stream, interval->duration_s);
    report_member_real(
        stream, "bandwidth_bps", interval->has_bandwidth_bps, interval->bandwidth_bps);
    report_member_whole(stream, "bytes", interval->has_bytes, interval->bytes);
    report_member_whole(stream, "retransmits", interval->has_retransmits, interval->retransmits);
    report_member_whole(stream, "sent", interval->has_sent, interval->sent);
    report_member_whole(stream, "received", interval->has_received, interval->received);
    report_member_whole(stream, "lost", interval->has_lost, interval->lost);
    report_member_real(stream, "jitter_s", interval->has_jitter_s, interval->jitter_s);
}
