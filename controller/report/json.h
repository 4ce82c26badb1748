#ifndef MESHPERF_JSON_H
#define MESHPERF_JSON_H

// What the documents, the events and the lists have in common when they are JSON. Written straight
// to the stream, without white space; nothing here fails (the stream keeps its own error).
// Strings: report_json_string in report.h.

#include <stdbool.h>

#include "fields.h"

// ------------------------------------------------------------------------------- json.c: values

// The shortest decimal that reads back as the same number; null unless finite.
void report_json_real(FILE *stream, double value);
// The string; null for NULL.
void report_json_text(FILE *stream, const char *text);
// "2026-11-23T10:00:00.000Z"; null if it is not there.
void report_json_time(FILE *stream, bool has, int64_t wall_ns);
// VALUE_ABSENT is null.
void report_json_value(FILE *stream, const struct value *value);

// Members of an open object, with a comma before each: nothing if the value is not there.
void report_member_real(FILE *stream, const char *name, bool has, double value);
void report_member_whole(FILE *stream, const char *name, bool has, uint64_t value);
void report_member_true(FILE *stream, const char *name, bool has, bool value);
void report_member_text(FILE *stream, const char *name, const char *text);
void report_member_list(FILE *stream, const char *name, char *const *texts, size_t count);
void report_member_labels(FILE *stream, Mp__Label *const *labels, size_t count); // always

// ------------------------------------------------------------------- json_cell.c and passes.c

// All fields of a cell after the names, as members of an open object: `,"state":"ok",...`.
void report_json_fields(FILE *stream, const Mp__Cell *cell);
void report_json_interval(FILE *stream, const Mp__Interval *interval); // members without braces
// What several measurements of a cell read, `,"passes":[...]` or nothing.
void report_json_passes(FILE *stream, const Mp__Cell *cell);
// What a run's cells read when measured again alone, `,"recheck":[...]` or nothing.
void report_json_rechecks(FILE *stream, const Mp__RunInfo *info);

// ------------------------------------------------------------------ json_run.c, json_agents.c

void report_json_run(FILE *stream, const Mp__RunInfo *info);
void report_json_agents(FILE *stream, Mp__RunAgent *const *agents, size_t count);
void report_plan_json(FILE *stream, const Mp__PlanAnswer *plan);

#endif
