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

#endif
