// The matrix, for people: as aligned text (table) and as Markdown (md).

#include <czmq.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report_parts.h"

// --------------------------------------------------------------------------- texts of cells

static const char *short_word(Mp__CellState state)
{
    if (state == MP__CELL_STATE__UNSUPPORTED)
        return "unsupp";
    if (state == MP__CELL_STATE__CELL_CANCELLED)
        return "cancel";
    return report_state_word(state);
}

static bool agent_text(const struct grid *self, size_t row, size_t column, char text[CELL_SIZE])
{
    size_t at = row * self->matrix->size + column;
    Mp__CellState state = (Mp__CellState)self->matrix->states[at];
    if (state == 0) {
        strcpy(text, row == column ? "-" : ".");
        return false;
    }
    if (state != MP__CELL_STATE__OK) {
        snprintf(text, CELL_SIZE, "%s", short_word(state));
        return true;
    }
    double value = self->matrix->values[self->metric][at];
    if (isnan(value))
        strcpy(text, "n/a");
    else
        report_amount(self->matrix->metrics[self->metric]->unit, value / self->scale.factor, text);
    return false;
}

// ------------------------------------------------------------------------------------ a matrix

static void print_notes(const struct report *report, const struct matrix *matrix)
{
    FILE *out = report->stream;
    bool md = report_is_md(report);
    if (matrix->note_count > 0)
        fputc('\n', out);
    for (size_t i = 0; i < matrix->note_count; i++) {
        const struct matrix_note *note = &matrix->notes[i];
        fprintf(out, "%s%s > %s: %s", md ? "- " : "  ", report_agent_name(report, note->from),
            report_agent_name(report, note->to), report_state_word(note->state));
        if (note->reason) {
            fputs(": ", out);
            report_plain(out, note->reason, md);
        }
        fputc('\n', out);
    }
    if (matrix->not_ok > matrix->note_count)
        fprintf(out, "%sand %u more\n", md ? "- " : "  ", matrix->not_ok - matrix->note_count);
}

static void print_summary(const struct report *report, const struct matrix *matrix)
{
    FILE *out = report->stream;
    fprintf(
        out, "\n%s: %u of %u pairs ok", report_kind_word(matrix->kind), matrix->ok, matrix->total);
    for (size_t m = 0; m < matrix->metric_count; m++) {
        size_t count;
        float *sorted = matrix_sorted(matrix, m, &count);
        if (!sorted)
            continue;
        const struct metric *metric = matrix->metrics[m];
        char texts[3][48];
        report_human(metric, (double)sorted[0], texts[0]);
        report_human(metric, report_median(sorted, count), texts[1]);
        report_human(metric, (double)sorted[count - 1], texts[2]);
        fprintf(out, "; %s min %s, median %s, max %s", metric->title, texts[0], texts[1], texts[2]);
        free(sorted);
    }
    for (size_t i = 0; i < matrix->limit_count; i++)
        fprintf(out, "%s%s %u", i ? ", " : "; limited by: ", matrix->limits[i].verdict,
            matrix->limits[i].count);
    fputc('\n', out);
}

// Rows and columns in which any pair was selected.
static void choose_lines(struct grid *grid)
{
    const struct matrix *matrix = grid->matrix;
    size_t n = matrix->size;
    uint8_t *sends = zmalloc(n), *receives = zmalloc(n);
    for (size_t i = 0; i < n * n; i++) {
        sends[i / n] |= matrix->states[i] != 0;
        receives[i % n] |= matrix->states[i] != 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (sends[i])
            grid->rows[grid->row_count++] = i;
        if (receives[i])
            grid->columns[grid->column_count++] = i;
    }
    free(sends);
    free(receives);
}

static void print_matrix(struct report *report, const struct matrix *matrix, size_t metric)
{
    size_t n = matrix->size, count;
    struct grid grid = {.report = report, .matrix = matrix, .metric = metric, .text = agent_text};
    grid.names = zmalloc(n * sizeof *grid.names);
    grid.rows = zmalloc(n * sizeof *grid.rows);
    grid.columns = zmalloc(n * sizeof *grid.columns);
    for (size_t i = 0; i < n; i++)
        grid.names[i] = report->agents[i]->name;
    choose_lines(&grid);
    float *sorted = matrix_sorted(matrix, metric, &count);
    grid.scale =
        report_scale(matrix->metrics[metric]->unit, sorted ? report_median(sorted, count) : 0);
    free(sorted);
    report_title(report, matrix, matrix->metrics[metric], grid.scale.word);
    report_grid(&grid);
    free(grid.names);
    free(grid.rows);
    free(grid.columns);
}

// --------------------------------------------------------------------------------------- worst

struct ranked {
    double badness; // larger is worse; what could not be measured is worst
    uint32_t at;
};

static int by_badness(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->badness != y->badness)
        return x->badness > y->badness ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static void print_worst(struct report *report, const struct matrix *matrix, size_t m)
{
    const struct metric *metric = matrix->metrics[m];
    struct ranked *ranked = zmalloc(matrix->total * sizeof *ranked);
    size_t n = matrix->size, found = 0;
    for (size_t i = 0; i < n * n && found < matrix->total; i++) {
        if (matrix->states[i] == 0)
            continue;
        double value = matrix->values[m][i];
        ranked[found].at = (uint32_t)i;
        ranked[found++].badness = isnan(value) ? INFINITY : metric->low_is_good ? value : -value;
    }
    qsort(ranked, found, sizeof *ranked, by_badness);
    if (found > report->options.worst)
        found = report->options.worst;
    bool md = report_is_md(report);
    fprintf(report->stream, "\n%s%s: the %zu worst of %u pairs by %s\n%s", md ? "## " : "",
        report_kind_word(matrix->kind), found, matrix->total, metric->title, md ? "\n" : "");
    for (size_t i = 0; i < found; i++) {
        char text[48];
        Mp__CellState state = (Mp__CellState)matrix->states[ranked[i].at];
        report_human(metric, (double)matrix->values[m][ranked[i].at], text);
        fprintf(report->stream, "%s%s > %s: %s\n", md ? "- " : "  ",
            report_agent_name(report, (uint32_t)(ranked[i].at / n)),
            report_agent_name(report, (uint32_t)(ranked[i].at % n)),
            state == MP__CELL_STATE__OK ? text : report_state_word(state));
    }
    free(ranked);
}

// ------------------------------------------------------------------------------------ a report

static void human_begin(struct report *self)
{
    if (report_is_md(self))
        fputs("# ", self->stream);
    report_headline(self, ", ");
}

static void print_kind(struct report *self, const struct matrix *matrix)
{
    if (matrix->metric_count == 0 && self->metric)
        return;
    if (matrix->kind == MP__TEST_KIND__PORT)
        portmap_print(self);
    if (self->options.worst > 0) {
        if (matrix->metric_count > 0)
            print_worst(self, matrix, 0);
        return;
    }
    for (size_t m = 0; m < matrix->metric_count; m++) {
        if (self->group_by)
            groups_print(self, matrix, m);
        else
            print_matrix(self, matrix, m);
    }
    print_notes(self, matrix);
    print_summary(self, matrix);
}

static void human_end(struct report *self)
{
    if (self->cells == 0)
        fputs("\nno cells\n", self->stream);
    const Mp__RunRequest *request = self->info->request;
    for (size_t i = 0; i < request->n_tests; i++) {
        struct matrix *matrix = (size_t)request->tests[i]->kind < REPORT_KINDS
                                    ? self->matrix[request->tests[i]->kind]
                                    : NULL;
        if (matrix)
            print_kind(self, matrix);
    }
    for (size_t i = 0; i < self->info->n_notes; i++) {
        fputs(i ? "note: " : "\nnote: ", self->stream);
        report_plain(self->stream, self->info->notes[i], report_is_md(self));
        fputc('\n', self->stream);
    }
}

static void human_cell(struct report *self, const Mp__Cell *cell)
{
    matrix_add(self, cell);
    portmap_add(self, cell);
}

const struct writer report_writer_table = {"table", human_begin, human_cell, human_end};
const struct writer report_writer_md = {"md", human_begin, human_cell, human_end};
