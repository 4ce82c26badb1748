#include "report.h"

#include <czmq.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "json.h"
#include "report_parts.h"
#include "units.h"
#include "wire.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

// ------------------------------------------------------------------------------------- tables

static const struct writer *const writers[] = {&report_writer_table, &report_writer_wide,
    &report_writer_json, &report_writer_jsonl, &report_writer_csv, &report_writer_md};

static const char *const format_names[] = {"table", "wide", "json", "jsonl", "csv", "md"};

#define BIT(kind) (1u << MP__TEST_KIND__##kind)
#define BANDWIDTH (BIT(TCP) | BIT(UDP) | BIT(SCTP))

static const struct metric metrics[] = {
    {"bandwidth", "bandwidth_bps", "bandwidth", UNIT_RATE, false, BANDWIDTH, BANDWIDTH},
    {"rtt", "rtt_s.p50", "median RTT", UNIT_SECONDS, true, BIT(LATENCY),
        BIT(TCP) | BIT(SCTP) | BIT(LATENCY)},
    {"jitter", "jitter_s", "jitter", UNIT_SECONDS, true, BIT(UDP), BIT(UDP) | BIT(LATENCY)},
    {"loss", "loss_ratio", "loss", UNIT_RATIO, true, BIT(UDP) | BIT(LATENCY),
        BIT(UDP) | BIT(LATENCY)},
    {"rtt_p99", "rtt_s.p99", "RTT, 99th percentile", UNIT_SECONDS, true, 0,
        BIT(TCP) | BIT(SCTP) | BIT(LATENCY)},
    {"rtt_loaded", "rtt_loaded_s.p50", "median RTT under load", UNIT_SECONDS, true, 0,
        BIT(TCP) | BIT(SCTP)},
    {"pdv", "pdv_s.p99", "delay variation, 99th percentile", UNIT_SECONDS, true, 0, BIT(UDP)},
    {"retransmits", "retransmits", "retransmits", UNIT_COUNT, true, 0, BIT(TCP) | BIT(SCTP)},
    {"reordered", "packets.reordered", "reordered packets", UNIT_COUNT, true, 0, BIT(UDP)},
    {"spread", "spread.bandwidth", "spread of the bandwidth between passes", UNIT_RATIO, true, 0,
        BANDWIDTH},
    {"cpu_sender", "cpu.sender", "cores used by the sender", UNIT_COUNT, true, 0, BANDWIDTH},
    {"cpu_receiver", "cpu.receiver", "cores used by the receiver", UNIT_COUNT, true, 0, BANDWIDTH},
};

const struct metric *report_metric_table(size_t *count)
{
    *count = COUNT(metrics);
    return metrics;
}

const char *const *report_formats(size_t *count)
{
    *count = COUNT(format_names);
    return format_names;
}

bool report_format_known(const char *format)
{
    for (size_t i = 0; i < COUNT(format_names); i++)
        if (strcmp(format, format_names[i]) == 0)
            return true;
    return false;
}

bool report_metric_known(const char *metric)
{
    for (size_t i = 0; i < COUNT(metrics); i++)
        if (strcmp(metric, metrics[i].name) == 0)
            return true;
    return false;
}

// ----------------------------------------------------------------------------------- a report

static char *copy_of(const char *text)
{
    return text ? strdup(text) : NULL;
}

report_t *report_new(const struct report_options *options, FILE *stream)
{
    const struct writer *writer = NULL;
    for (size_t i = 0; i < COUNT(writers); i++)
        if (strcmp(options->format, writers[i]->format) == 0)
            writer = writers[i];
    if (!writer || (options->metric && !report_metric_known(options->metric)))
        return NULL;
    // One pair in full is no matrix.
    if (options->pair_from && options->pair_to && writer == &report_writer_table)
        writer = &report_writer_pair;
    report_t *self = zmalloc(sizeof *self);
    self->options = *options;
    self->options.format = writer->format;
    self->options.metric = self->metric = copy_of(options->metric);
    self->options.group_by = self->group_by = copy_of(options->group_by);
    self->options.pair_from = self->pair_from = copy_of(options->pair_from);
    self->options.pair_to = self->pair_to = copy_of(options->pair_to);
    self->writer = writer;
    self->stream = stream;
    return self;
}

static void forget_run(report_t *self)
{
    for (size_t i = 0; i < self->agent_count; i++)
        mp__run_agent__free_unpacked(self->agents[i], NULL);
    free(self->agents);
    self->agents = NULL;
    self->agent_count = 0;
    if (self->info)
        mp__run_info__free_unpacked(self->info, NULL);
    self->info = NULL;
    for (size_t i = 0; i < REPORT_KINDS; i++)
        matrix_destroy(&self->matrix[i]);
    portmap_destroy(&self->ports);
}

void report_destroy(report_t **self_p)
{
    if (!self_p || !*self_p)
        return;
    report_t *self = *self_p;
    forget_run(self);
    free(self->metric);
    free(self->group_by);
    free(self->pair_from);
    free(self->pair_to);
    free(self);
    *self_p = NULL;
}

static int settle(report_t *self)
{
    if (self->error == 0 && ferror(self->stream))
        self->error = errno ? -errno : -EIO;
    return self->error;
}

int report_begin(report_t *self, const Mp__RunInfo *info, Mp__RunAgent *const *agents, size_t count)
{
    forget_run(self);
    self->info = (Mp__RunInfo *)wire_copy(&info->base);
    self->agents = zmalloc((count + 1) * sizeof *self->agents);
    for (size_t i = 0; i < count; i++)
        self->agents[i] = (Mp__RunAgent *)wire_copy(&agents[i]->base);
    self->agent_count = count;
    if (self->writer->begin)
        self->writer->begin(self);
    return settle(self);
}

static bool selected(const report_t *self, const Mp__Cell *cell)
{
    if (self->pair_from && strcmp(self->pair_from, report_agent_name(self, cell->from)) != 0)
        return false;
    return !self->pair_to || strcmp(self->pair_to, report_agent_name(self, cell->to)) == 0;
}

int report_cell(report_t *self, const Mp__Cell *cell)
{
    if (self->error == 0 && selected(self, cell)) {
        self->writer->cell(self, cell);
        self->cells++;
    }
    return settle(self);
}

int report_end(report_t *self)
{
    if (self->error == 0 && self->writer->end)
        self->writer->end(self);
    if (self->error == 0 && fflush(self->stream) != 0)
        self->error = errno ? -errno : -EIO;
    return settle(self);
}

const char *report_agent_name(const struct report *self, uint32_t index)
{
    return index < self->agent_count ? self->agents[index]->name : "?";
}

int report_exit_status(const Mp__RunInfo *info, bool allow_incomplete)
{
    if (info->state == MP__RUN_STATE__CANCELLED)
        return 5;
    bool complete = info->ok >= info->cells;
    return complete || allow_incomplete ? 0 : 4;
}

// -------------------------------------------------------------------------------- texts for people

void report_plain(FILE *stream, const char *text, bool md)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)) {
            c += *c == 0xc2;
            fputc(' ', stream);
            continue;
        }
        if (md && strchr("\\|*_`<[", *c))
            fputc('\\', stream);
        fputc(*c, stream);
    }
}

void report_three_digits(double value, char text[32])
{
    if (!isfinite(value)) {
        strcpy(text, "-");
        return;
    }
    if (value == 0 || fabs(value) < 1e-6) {
        strcpy(text, value == 0 ? "0" : "<1e-6");
        return;
    }
    char rounded[32];
    snprintf(rounded, sizeof rounded, "%.2e", value);
    value = strtod(rounded, NULL);
    int decimals = 2 - (int)floor(log10(fabs(value)) + 1e-9);
    snprintf(text, 32, "%.*f", decimals < 0 ? 0 : decimals, value);
}

void report_amount(enum unit unit, double value, char text[32])
{
    if (unit == UNIT_COUNT && value == floor(value) && fabs(value) < 1e15)
        snprintf(text, 32, "%.0f", value);
    else
        report_three_digits(value, text);
}

void report_human(const struct metric *metric, double value, char text[48])
{
    char buffer[UNITS_TEXT_SIZE];
    if (metric->unit == UNIT_RATE)
        snprintf(text, 48, "%s", units_format_rate(value, buffer));
    else if (metric->unit == UNIT_SECONDS)
        snprintf(text, 48, "%s", units_format_seconds(value, buffer));
    else if (metric->unit == UNIT_RATIO)
        snprintf(text, 48, "%s", units_format_ratio(value, buffer));
    else
        report_amount(UNIT_COUNT, value, text);
}

void report_headline(struct report *self, const char *separator)
{
    const Mp__RunInfo *info = self->info;
    FILE *out = self->stream;
    char text[UNITS_TEXT_SIZE], time[CLOCK_ISO_SIZE];
    fprintf(out, "%s", info->id);
    if (info->request->name) {
        fputs(" \"", out);
        report_plain(out, info->request->name, false);
        fputc('"', out);
    }
    fprintf(out, "%s%s%s", separator, report_run_state_word(info->state), separator);
    for (size_t i = 0; i < info->request->n_tests; i++)
        fprintf(out, "%s%s", i ? " " : "", report_kind_word(info->request->tests[i]->kind));
    fprintf(out, "%s%u agent%s%s%s", separator, info->agents, info->agents == 1 ? "" : "s",
        separator, report_mode_word(info->request));
    if (info->has_started_wall_ns) {
        clock_iso8601(info->started_wall_ns, time);
        fprintf(out, "%s%.10s %.8s UTC", separator, time, time + 11);
    }
    if (info->has_elapsed_s)
        fprintf(out, "%s%s", separator, units_format_seconds(info->elapsed_s, text));
    if (info->has_lower_bound_s)
        fprintf(out, " (bound %s)", units_format_seconds(info->lower_bound_s, text));
    fputc('\n', out);
}

// ---------------------------------------------------------------------------------------- plan

static void plan_row(FILE *out, bool md, const char *name, const char *text)
{
    fprintf(out, md ? "| %s | " : "%-14s ", name);
    report_plain(out, text, md);
    fputs(md ? " |\n" : "\n", out);
}

static void plan_table(FILE *out, const Mp__PlanAnswer *plan, bool md)
{
    char text[UNITS_TEXT_SIZE];
    if (md)
        fputs("| | |\n|---|---|\n", out);
    snprintf(text, sizeof text, "%llu", (unsigned long long)plan->pairs);
    plan_row(out, md, "pairs", text);
    snprintf(text, sizeof text, "%llu", (unsigned long long)plan->tests);
    plan_row(out, md, "tests", text);
    bool unbounded = plan->has_unbounded_bytes && plan->unbounded_bytes;
    plan_row(out, md, "bytes at most",
        unbounded ? "without bound: a test has no bitrate"
                  : units_format_bytes((double)plan->bytes_max, text));
    plan_row(out, md, "expected time", units_format_seconds(plan->expected_s, text));
    plan_row(out, md, "19 of 20 runs", units_format_seconds(plan->expected_p95_s, text));
    plan_row(out, md, "lower bound", units_format_seconds(plan->lower_bound_s, text));
    if (plan->bound_by)
        plan_row(out, md, "bound by", plan->bound_by);
    for (size_t i = 0; i < plan->n_notes; i++)
        plan_row(out, md, "note", plan->notes[i]);
}

void report_plan(FILE *stream, const char *format, const Mp__PlanAnswer *plan)
{
    if (strcmp(format, "json") == 0 || strcmp(format, "jsonl") == 0) {
        report_plan_json(stream, plan);
    } else if (strcmp(format, "csv") == 0) {
        fputs("pairs,tests,bytes_max,expected_s,expected_p95_s,lower_bound_s\r\n", stream);
        fprintf(
            stream, "%llu,%llu,", (unsigned long long)plan->pairs, (unsigned long long)plan->tests);
        if (!plan->has_unbounded_bytes || !plan->unbounded_bytes)
            fprintf(stream, "%llu", (unsigned long long)plan->bytes_max);
        const double times[] = {plan->expected_s, plan->expected_p95_s, plan->lower_bound_s};
        for (int i = 0; i < 3; i++) {
            fputc(',', stream);
            report_json_real(stream, times[i]);
        }
        fputs("\r\n", stream);
    } else {
        plan_table(stream, plan, strcmp(format, "md") == 0);
    }
}
