#ifndef MESHPERF_REPORT_PARTS_H
#define MESHPERF_REPORT_PARTS_H

// How the writers fit together. Private to the reports.

#include "fields.h"
#include "report.h"

struct report;

// One row of the table of formats. begin and end may be NULL.
struct writer {
    const char *format;
    void (*begin)(struct report *self);
    void (*cell)(struct report *self, const Mp__Cell *cell);
    void (*end)(struct report *self);
};

enum unit { UNIT_RATE, UNIT_SECONDS, UNIT_RATIO, UNIT_COUNT };

// A value that can fill a matrix.
struct metric {
    const char *name;
    const char *path;  // its field
    const char *title; // "bandwidth"
    enum unit unit;
    bool low_is_good;
    unsigned usual;    // tests whose usual matrices have it: bits 1 << Mp__TestKind
    unsigned possible; // tests that can have it
};
const struct metric *report_metric_table(size_t *count);

#define REPORT_KINDS 7 // Mp__TestKind is 1..6

typedef struct matrix matrix_t;

struct report {
    struct report_options options;
    char *metric, *group_by, *pair_from, *pair_to;
    FILE *stream;
    int error;
    const struct writer *writer;
    Mp__RunInfo *info; // owned copies
    Mp__RunAgent **agents;
    size_t agent_count;
    uint64_t cells; // printed so far
    matrix_t *matrix[REPORT_KINDS];
    struct portmap *ports; // NULL: no port was probed
};

const char *report_agent_name(const struct report *self, uint32_t index);

extern const struct writer report_writer_json, report_writer_jsonl, report_writer_csv,
    report_writer_wide, report_writer_pair, report_writer_table, report_writer_md;

// passes.c: what several measurements of a cell read, in lines for people.
void report_lines_passes(FILE *stream, const Mp__Cell *cell);

// Text for a terminal: control characters become blanks. `md`: also escapes what Markdown reads.
void report_plain(FILE *stream, const char *text, bool md);
void report_csv_text(FILE *stream, const char *text);
// At most three significant digits in a chosen unit.
void report_three_digits(double value, char text[32]);
// The same for a number in this unit; whole counts stay whole.
void report_amount(enum unit unit, double value, char text[32]);
// The first line of a human report: id, state, tests, agents, times.
void report_headline(struct report *self, const char *separator);
// A value in its own unit, for people.
void report_human(const struct metric *metric, double value, char text[48]);

// ------------------------------------------------------------------------------ matrix.c

// What human formats keep of a test's cells: per pair a state and one float a metric.
#define MATRIX_NOTES_MAX 20
#define MATRIX_METRICS_MAX 4

struct matrix_note {
    uint32_t from, to;
    Mp__CellState state;
    char *reason;
};
struct matrix_count {
    char verdict[32];
    uint32_t count;
};
struct matrix {
    Mp__TestKind kind;
    size_t size;     // agents
    uint8_t *states; // size * size; 0: not selected
    const struct metric *metrics[MATRIX_METRICS_MAX];
    float *values[MATRIX_METRICS_MAX]; // size * size; NAN: absent
    size_t metric_count;
    uint32_t total, ok;
    struct matrix_note notes[MATRIX_NOTES_MAX];
    uint32_t note_count, not_ok; // final, but not ok
    uint32_t open;               // not final yet
    struct matrix_count limits[16];
    size_t limit_count;
};
void matrix_add(struct report *report, const Mp__Cell *cell);
void matrix_destroy(matrix_t **self_p);
// Sorted values of a metric that are there; the caller frees. NULL if none.
float *matrix_sorted(const matrix_t *self, size_t metric, size_t *count);
double report_median(const float *sorted, size_t count);

// The unit for a whole matrix, chosen by what is typical in it.
struct unit_scale {
    double factor;
    const char *word;
};
struct unit_scale report_scale(enum unit unit, double typical);

// -------------------------------------------------------------------------------- grid.c

#define CELL_SIZE 32

// One matrix to print: lines of `rows` by `columns`, indices into `names`.
struct grid {
    struct report *report;
    char **names;
    size_t *rows, *columns;
    size_t row_count, column_count;
    // Text of a cell and whether it stands for something that is not ok.
    bool (*text)(const struct grid *self, size_t row, size_t column, char text[CELL_SIZE]);
    const struct matrix *matrix; // NULL: not of a matrix's values
    size_t metric;
    struct unit_scale scale;
    const float *medians; // groups: group_count * group_count
    const uint32_t *pairs;
    size_t group_count;
    const void *context;
};
void report_grid(const struct grid *self);
// The line above a matrix.
void report_title(const struct report *report, const struct matrix *matrix,
    const struct metric *metric, const char *unit);
bool report_is_md(const struct report *report);
// Columns on a terminal: code points, which is right for names and numbers.
size_t report_width(const char *text);

// ------------------------------------------------------------------------------ groups.c

void groups_print(struct report *report, const struct matrix *matrix, size_t metric);

// ------------------------------------------------------------------------------ portmap.c

// What human formats keep of probed ports.
struct port_seen {
    uint32_t from, to;
    uint16_t port;    // index into the run's table
    uint8_t state;    // Mp__CellState
    uint8_t observed; // index into words, 0: nothing
    bool leaks;       // it arrived although it was not answered
};
typedef struct portmap portmap_t;
void portmap_add(struct report *report, const Mp__Cell *cell);
void portmap_print(struct report *report);
void portmap_destroy(portmap_t **self_p);

#endif
