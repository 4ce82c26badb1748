#ifndef MESHPERF_REPORT_H
#define MESHPERF_REPORT_H

// A run, printed. One writer per output format behind one table; no I/O but the stream handed in, no
// network, no clock. Cells come one at a time in order of their index, so that a million of them
// need no tree; what a format must keep (the matrix) it keeps compactly.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "meshperf.pb-c.h"

typedef struct report report_t;

struct report_options {
    const char *format;        // "table" "wide" "json" "jsonl" "csv" "md"
    const char *metric;        // table: a metric's name, NULL = each test's usual ones
    const char *group_by;      // label key: rows and columns are label values, cells medians; NULL = agents
    const char *pair_from;     // only this pair (in every format); with both, `table` tells all of it
    const char *pair_to;
    unsigned worst;            // table: the N worst pairs by the metric instead of the matrix; 0 = off
    bool color;
    unsigned width;            // columns of the terminal; 0 = unlimited
    bool verbose;
};

// NULL for an unknown format or metric (check with report_format_known and report_metric_known).
report_t *report_new(const struct report_options *options, FILE *stream);
void report_destroy(report_t **self_p);
// 0 or -errno of the stream (EPIPE, ENOSPC), sticky.
int report_begin(report_t *self, const Mp__RunInfo *info, Mp__RunAgent *const *agents, size_t count);
int report_cell(report_t *self, const Mp__Cell *cell);
int report_end(report_t *self);

bool report_format_known(const char *format);
const char *const *report_formats(size_t *count);
bool report_metric_known(const char *metric); // "bandwidth" "jitter" "loss" "rtt" ...

// The event stream (-o jsonl of a run that is under way): one object a line, see meshperf(1).
void report_event_plan(FILE *stream, const Mp__RunInfo *info, Mp__RunAgent *const *agents, size_t count);
void report_event(FILE *stream, const Mp__Event *event, Mp__RunAgent *const *agents, size_t count);
void report_event_end(FILE *stream, const Mp__RunInfo *info, int exit_status);

// Plain lists: `agent list`, `token list`, `runs`, ... as an aligned table or csv/md/json.
// A JSON name that starts with "#" (left out when printing) is of a number or truth value.
struct report_column { const char *title; const char *json; };
typedef struct report_list report_list_t;
report_list_t *report_list_new(const char *format, const char *schema, const char *array,
    const struct report_column *columns, size_t columns_count, FILE *stream);
void report_list_row(report_list_t *self, const char *const *texts);   // one per column; "" = absent
void report_list_destroy(report_list_t **self_p);                      // prints the end

// JSON documents with fixed schemas that are no runs.
void report_agents_json(FILE *stream, Mp__AgentInfo *const *agents, size_t count);  // meshperf.agents/1
void report_plan(FILE *stream, const char *format, const Mp__PlanAnswer *plan);     // meshperf.plan/1
// Exit status of a run by its cells: 0, 4 (5 if cancelled).
int report_exit_status(const Mp__RunInfo *info, bool allow_incomplete);

// Writes a string as a JSON string with quotes, escapes and valid UTF-8.
void report_json_string(FILE *stream, const char *text);

#endif
