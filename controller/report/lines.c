// Cells as lines: `wide`, one row a pair and test; `--pair`, everything about one pair.

#include <string.h>

#include "clock.h"
#include "report_parts.h"
#include "units.h"

static size_t name_width(const struct report *self)
{
    size_t width = 4;
    for (size_t i = 0; i < self->agent_count; i++)
        if (strlen(self->agents[i]->name) > width)
            width = strlen(self->agents[i]->name);
    return width;
}

// ---------------------------------------------------------------------------------------- wide

static bool several_passes(const struct report *self)
{
    return self->info->request->has_passes && self->info->request->passes > 1;
}

static void wide_begin(struct report *self)
{
    int width = (int)name_width(self);
    fprintf(self->stream, "%-*s  %-*s  %-7s  %-11s  %12s", width, "FROM", width, "TO", "TEST",
        "STATE", "BANDWIDTH");
    if (several_passes(self))
        fprintf(self->stream, "  %7s", "SPREAD");
    fprintf(self->stream, "  %9s  %9s  %9s  %7s  %-14s  %s\n", "JITTER", "LOSS", "RTT", "RETRANS",
        "LIMITER", "REASON");
}

static void wide_number(FILE *out, int width, int has, const char *text)
{
    fprintf(out, "  %*s", width, has ? text : "-");
}

// A port has no numbers: what was seen, and the sentence that proves it.
static void wide_port(struct report *self, const Mp__Cell *cell)
{
    FILE *out = self->stream;
    int width = (int)name_width(self);
    const char *words = cell->evidence ? cell->evidence : cell->reason ? cell->reason : "";
    fprintf(out, "%-*s  %-*s  %-9s  %-11s  arrived %-7s  listener %-7s  ", width,
        report_agent_name(self, cell->from), width, report_agent_name(self, cell->to), cell->port,
        cell->observed ? cell->observed : report_state_word(cell->state),
        cell->arrived ? cell->arrived : "-", cell->listener ? cell->listener : "-");
    report_plain(out, words, false);
    fputc('\n', out);
}

static void wide_cell(struct report *self, const Mp__Cell *cell)
{
    if (cell->port) {
        wide_port(self, cell);
        return;
    }
    FILE *out = self->stream;
    int width = (int)name_width(self);
    char text[UNITS_TEXT_SIZE];
    bool rtt = cell->rtt && cell->rtt->has_p50;
    fprintf(out, "%-*s  %-*s  %-7s  %-11s", width, report_agent_name(self, cell->from), width,
        report_agent_name(self, cell->to), report_kind_word(cell->kind),
        report_state_word(cell->state));
    wide_number(out, 12, cell->has_bandwidth_bps, units_format_rate(cell->bandwidth_bps, text));
    if (several_passes(self)) {
        bool spread = cell->spread && cell->spread->has_bandwidth;
        wide_number(out, 7, spread, units_format_ratio(spread ? cell->spread->bandwidth : 0, text));
    }
    wide_number(out, 9, cell->has_jitter_s, units_format_seconds(cell->jitter_s, text));
    wide_number(out, 9, cell->has_loss_ratio, units_format_ratio(cell->loss_ratio, text));
    wide_number(out, 9, rtt, units_format_seconds(rtt ? cell->rtt->p50 : 0, text));
    snprintf(text, sizeof text, "%llu", (unsigned long long)cell->retransmits);
    wide_number(out, 7, cell->has_retransmits, text);
    const char *verdict = cell->limiter && cell->limiter->verdict ? cell->limiter->verdict : "-";
    if (!cell->reason) {
        fprintf(out, "  %s\n", verdict);
        return;
    }
    fprintf(out, "  %-14s  ", verdict);
    report_plain(out, cell->reason, false);
    fputc('\n', out);
}

const struct writer report_writer_wide = {"wide", wide_begin, wide_cell, NULL};

// ---------------------------------------------------------------------------------------- pair

static bool ends_with(const char *text, const char *ending)
{
    size_t length = strlen(text), tail = strlen(ending);
    return length >= tail && strcmp(text + length - tail, ending) == 0;
}

// The unit stands in the name of the field or of the object it is in.
static void pair_real(FILE *out, const char *path, double value)
{
    char text[48], base[64];
    snprintf(base, sizeof base, "%.*s", (int)strcspn(path, "."), path);
    if (ends_with(base, "_bps"))
        units_format_rate(value, text);
    else if (ends_with(base, "_s"))
        units_format_seconds(value, text);
    else if (ends_with(base, "_ratio") || strcmp(base, "spread") == 0)
        units_format_ratio(value, text);
    else
        report_three_digits(value, text);
    fputs(text, out);
}

static void pair_value(FILE *out, const char *path, const struct value *value)
{
    char time[CLOCK_ISO_SIZE];
    if (value->type == VALUE_TEXT) {
        report_plain(out, value->text, false);
    } else if (value->type == VALUE_TIME) {
        clock_iso8601(value->wall_ns, time);
        fputs(time, out);
    } else if (value->type == VALUE_BOOL) {
        fputs(value->whole ? "yes" : "no", out);
    } else if (value->type == VALUE_REAL) {
        pair_real(out, path, value->real);
    } else {
        fprintf(out, "%llu", (unsigned long long)value->whole);
    }
}

static void interval_number(FILE *out, int has, const char *text)
{
    fprintf(out, "  %12s", has ? text : "-");
}

static void pair_interval(FILE *out, const Mp__Interval *interval)
{
    char text[UNITS_TEXT_SIZE];
    fprintf(out, "  %8.2f  %8.2f", interval->start_s, interval->start_s + interval->duration_s);
    interval_number(
        out, interval->has_bandwidth_bps, units_format_rate(interval->bandwidth_bps, text));
    snprintf(text, sizeof text, "%llu", (unsigned long long)interval->retransmits);
    interval_number(out, interval->has_retransmits, text);
    snprintf(text, sizeof text, "%llu", (unsigned long long)interval->lost);
    interval_number(out, interval->has_lost, text);
    interval_number(out, interval->has_jitter_s, units_format_seconds(interval->jitter_s, text));
    fputc('\n', out);
}

static void pair_cell(struct report *self, const Mp__Cell *cell)
{
    FILE *out = self->stream;
    size_t count;
    const struct field *fields = report_fields(&count);
    fprintf(out, "\n%s %s > %s\n", cell->port ? cell->port : report_kind_word(cell->kind),
        report_agent_name(self, cell->from), report_agent_name(self, cell->to));
    for (size_t i = 0; i < count; i++) {
        struct value value = report_field(&fields[i], cell);
        if (value.type == VALUE_ABSENT)
            continue;
        fprintf(out, "  %s: ", fields[i].path);
        pair_value(out, fields[i].path, &value);
        fputc('\n', out);
    }
    report_lines_passes(out, cell);
    if (cell->n_intervals == 0)
        return;
    fprintf(out, "  intervals:\n  %8s  %8s  %12s  %12s  %12s  %12s\n", "from, s", "to, s",
        "bandwidth", "retransmits", "lost", "jitter");
    for (size_t i = 0; i < cell->n_intervals; i++)
        pair_interval(out, cell->intervals[i]);
}

static void pair_begin(struct report *self)
{
    report_headline(self, ", ");
}

static void pair_end(struct report *self)
{
    if (self->cells == 0)
        fprintf(self->stream, "\nno test of %s > %s in this run\n", self->pair_from, self->pair_to);
}

const struct writer report_writer_pair = {"pair", pair_begin, pair_cell, pair_end};
