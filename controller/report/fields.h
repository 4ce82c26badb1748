#ifndef MESHPERF_FIELDS_H
#define MESHPERF_FIELDS_H

// Every value of a cell, once: its name as in JSON (nested names joined by dots, which is the
// column in csv), its type and how to get it. JSON, jsonl, csv and `--pair` are driven by this
// table; a new value of a cell is a new row here. Private to the reports.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "meshperf.pb-c.h"

enum value_type { VALUE_ABSENT, VALUE_REAL, VALUE_WHOLE, VALUE_BOOL, VALUE_TEXT, VALUE_TIME };

struct value {
    enum value_type type;
    double real;
    uint64_t whole;   // VALUE_BOOL: 0 or 1
    const char *text; // borrowed from the cell
    int64_t wall_ns;
};

struct field {
    const char *path;
    bool always; // in JSON even if absent, as null
    struct value (*get)(const struct field *self, const Mp__Cell *cell);
    size_t parent; // offset of the pointer to the part of the cell that has it, or NO_PARENT
    size_t has;    // offset of the presence flag
    size_t at;     // offset of the value
    enum value_type type;
};

// In the order of printing; test, from and to are printed before.
const struct field *report_fields(size_t *count);
struct value report_field(const struct field *field, const Mp__Cell *cell);

const char *report_state_word(Mp__CellState state); // "ok" "failed" ...
const char *report_run_state_word(Mp__RunState state);
const char *report_mode_word(const Mp__RunRequest *request);
const char *report_kind_word(Mp__TestKind kind); // "tcp"

// The shortest decimal that reads back as the same number; "null" unless finite.
void report_json_real(FILE *stream, double value);
// The value as JSON; VALUE_ABSENT is null.
void report_json_value(FILE *stream, const struct value *value);
// All fields of a cell after the names, as members of an open object: `,"state":"ok",...`.
void report_json_fields(FILE *stream, const Mp__Cell *cell);
void report_json_interval(FILE *stream, const Mp__Interval *interval); // members without braces
// Separated members of the run and agents objects, shared by document and events.
void report_json_run(FILE *stream, const Mp__RunInfo *info);
void report_json_agents(FILE *stream, Mp__RunAgent *const *agents, size_t count);
void report_json_time(FILE *stream, int64_t wall_ns); // "2026-11-23T10:00:00.000Z"

#endif
