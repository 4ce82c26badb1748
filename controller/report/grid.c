// One matrix on paper: as Markdown, as aligned columns, with numbers for names where those do not
// fit, and in three numbers an end where not even cells do.

#include <czmq.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report_parts.h"

#define NUMBERED_OVER 20 // columns; beyond it they have numbers instead of names

bool report_is_md(const struct report *report)
{
    return strcmp(report->writer->format, "md") == 0;
}

void report_title(const struct report *report, const struct matrix *matrix,
    const struct metric *metric, const char *unit)
{
    bool md = report_is_md(report);
    fprintf(report->stream, "\n%s%s %s%s%s", md ? "## " : "", report_kind_word(matrix->kind),
        metric->title, *unit ? ", " : "", unit);
    fputs(md ? "\n\n" : "  (rows send, columns receive)\n", report->stream);
}

size_t report_width(const char *text)
{
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static void pad(FILE *out, size_t count)
{
    while (count-- > 0)
        fputc(' ', out);
}

static size_t widest_cell(const struct grid *self)
{
    size_t widest = 1;
    char text[CELL_SIZE];
    for (size_t r = 0; r < self->row_count; r++) {
        for (size_t c = 0; c < self->column_count; c++) {
            self->text(self, self->rows[r], self->columns[c], text);
            if (report_width(text) > widest)
                widest = report_width(text);
        }
    }
    return widest;
}

static size_t widest_name(const struct grid *self, const size_t *indices, size_t count)
{
    size_t widest = 0;
    for (size_t i = 0; i < count; i++)
        if (report_width(self->names[indices[i]]) > widest)
            widest = report_width(self->names[indices[i]]);
    return widest;
}

static void print_md(const struct grid *self)
{
    FILE *out = self->report->stream;
    char text[CELL_SIZE];
    fputs("| from \\ to |", out);
    for (size_t c = 0; c < self->column_count; c++)
        fprintf(out, " %s |", self->names[self->columns[c]]);
    fputs("\n|---|", out);
    for (size_t c = 0; c < self->column_count; c++)
        fputs("---:|", out);
    fputc('\n', out);
    for (size_t r = 0; r < self->row_count; r++) {
        fprintf(out, "| %s |", self->names[self->rows[r]]);
        for (size_t c = 0; c < self->column_count; c++) {
            self->text(self, self->rows[r], self->columns[c], text);
            fprintf(out, " %s |", text);
        }
        fputc('\n', out);
    }
}

static void print_rows(const struct grid *self, size_t name_width, size_t cell_width, bool numbered)
{
    FILE *out = self->report->stream;
    char text[CELL_SIZE], label[300];
    for (size_t r = 0; r < self->row_count; r++) {
        const char *name = self->names[self->rows[r]];
        snprintf(label, sizeof label, "%s", name);
        if (numbered)
            snprintf(label, sizeof label, "%zu %s", self->rows[r] + 1, name);
        fputs(label, out);
        pad(out, name_width - report_width(label));
        for (size_t c = 0; c < self->column_count; c++) {
            bool notable = self->text(self, self->rows[r], self->columns[c], text);
            pad(out, 2 + cell_width - report_width(text));
            if (notable && self->report->options.color)
                fprintf(out, "\033[31m%s\033[0m", text);
            else
                fputs(text, out);
        }
        fputc('\n', out);
    }
}

static void print_plain(
    const struct grid *self, size_t name_width, size_t cell_width, bool numbered)
{
    FILE *out = self->report->stream;
    char label[300];
    pad(out, name_width);
    for (size_t c = 0; c < self->column_count; c++) {
        snprintf(label, sizeof label, "%s", self->names[self->columns[c]]);
        if (numbered)
            snprintf(label, sizeof label, "%zu", self->columns[c] + 1);
        pad(out, 2 + cell_width - report_width(label));
        fputs(label, out);
    }
    fputc('\n', out);
    print_rows(self, name_width, cell_width, numbered);
    if (numbered && self->row_count < self->column_count) {
        fputs("columns:", out);
        for (size_t c = 0; c < self->column_count; c++)
            fprintf(out, " %zu=%s", self->columns[c] + 1, self->names[self->columns[c]]);
        fputc('\n', out);
    }
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

// One end's cells in three numbers, where a matrix has no room.
static void print_line(const struct grid *self, size_t row, bool sends)
{
    FILE *out = self->report->stream;
    const struct matrix *matrix = self->matrix;
    float *values = zmalloc((self->column_count + self->row_count) * sizeof *values);
    size_t found = 0, total = 0, ok = 0;
    size_t count = sends ? self->column_count : self->row_count;
    for (size_t i = 0; i < count; i++) {
        size_t at =
            sends ? row * matrix->size + self->columns[i] : self->rows[i] * matrix->size + row;
        total += matrix->states[at] != 0;
        ok += matrix->states[at] == MP__CELL_STATE__OK;
        if (!isnan(matrix->values[self->metric][at]))
            values[found++] = matrix->values[self->metric][at];
    }
    qsort(values, found, sizeof *values, by_value);
    const double numbers[] = {found ? (double)values[0] : NAN, report_median(values, found),
        found ? (double)values[found - 1] : NAN};
    char share[CELL_SIZE];
    snprintf(share, sizeof share, "%zu/%zu", ok, total);
    fprintf(out, "  %9s", share);
    for (int i = 0; i < 3; i++) {
        char text[CELL_SIZE];
        report_amount(matrix->metrics[self->metric]->unit, numbers[i] / self->scale.factor, text);
        fprintf(out, " %8s", text);
    }
    free(values);
}

static void print_statistics(const struct grid *self)
{
    FILE *out = self->report->stream;
    size_t width = widest_name(self, self->rows, self->row_count);
    size_t others = widest_name(self, self->columns, self->column_count);
    width = width > others ? width : others;
    width = width > 4 ? width : 4;
    for (int side = 0; side < 2; side++) {
        const size_t *ends = side == 0 ? self->rows : self->columns;
        size_t count = side == 0 ? self->row_count : self->column_count;
        fprintf(out, "%-*s  %9s %8s %8s %8s\n", (int)width, side == 0 ? "from" : "to", "ok", "min",
            "median", "max");
        for (size_t i = 0; i < count; i++) {
            const char *name = self->names[ends[i]];
            fputs(name, out);
            pad(out, width - report_width(name));
            print_line(self, ends[i], side == 0);
            fputc('\n', out);
        }
    }
}

void report_grid(const struct grid *self)
{
    if (report_is_md(self->report)) {
        print_md(self);
        return;
    }
    unsigned limit = self->report->options.width;
    size_t cell = widest_cell(self);
    size_t name = widest_name(self, self->rows, self->row_count);
    size_t title = widest_name(self, self->columns, self->column_count);
    size_t named = title > cell ? title : cell;
    if (self->column_count <= NUMBERED_OVER &&
        (limit == 0 || name + self->column_count * (named + 2) <= limit)) {
        print_plain(self, name, named, false);
        return;
    }
    char last[24];
    snprintf(last, sizeof last, "%zu ", self->columns[self->column_count - 1] + 1);
    size_t digits = strlen(last) - 1;
    snprintf(last, sizeof last, "%zu ", self->rows[self->row_count - 1] + 1);
    size_t numbered = digits > cell ? digits : cell;
    name += strlen(last);
    if (limit == 0 || name + self->column_count * (numbered + 2) <= limit || !self->matrix)
        print_plain(self, name, numbered, true);
    else
        print_statistics(self);
}
