// The matrix, for people: as aligned text (table) and as Markdown (md).

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report_parts.h"

#define NUMBERED_OVER 20 // columns; beyond it they have numbers instead of names
#define GROUP_NONE "(none)"

static void *memory(size_t count, size_t size)
{
    void *block = calloc(count ? count : 1, size);
    if (!block)
        abort();
    return block;
}

static bool is_md(const struct report *report)
{
    return strcmp(report->writer->format, "md") == 0;
}

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

static bool group_text(const struct grid *self, size_t row, size_t column, char text[CELL_SIZE])
{
    size_t at = row * self->group_count + column;
    if (self->pairs[at] == 0)
        strcpy(text, ".");
    else if (isnan(self->medians[at]))
        strcpy(text, "none");
    else
        report_three_digits((double)self->medians[at] / self->scale.factor, text);
    return self->pairs[at] != 0 && isnan(self->medians[at]);
}

// ------------------------------------------------------------------------------------ printing

// Columns on a terminal: code points, which is right for names and numbers.
static size_t text_width(const char *text)
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
            if (text_width(text) > widest)
                widest = text_width(text);
        }
    }
    return widest;
}

static size_t widest_name(const struct grid *self, const size_t *indices, size_t count)
{
    size_t widest = 0;
    for (size_t i = 0; i < count; i++)
        if (text_width(self->names[indices[i]]) > widest)
            widest = text_width(self->names[indices[i]]);
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
        pad(out, name_width - text_width(label));
        for (size_t c = 0; c < self->column_count; c++) {
            bool notable = self->text(self, self->rows[r], self->columns[c], text);
            pad(out, 2 + cell_width - text_width(text));
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
        pad(out, 2 + cell_width - text_width(label));
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
    float *values = memory(self->column_count + self->row_count, sizeof *values);
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
            pad(out, width - text_width(name));
            print_line(self, ends[i], side == 0);
            fputc('\n', out);
        }
    }
}

void report_grid(const struct grid *self)
{
    if (is_md(self->report)) {
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

// --------------------------------------------------------------------------- around a matrix

static void print_title(const struct report *report, const struct matrix *matrix,
    const struct metric *metric, const char *unit)
{
    bool md = is_md(report);
    fprintf(report->stream, "\n%s%s %s%s%s", md ? "## " : "", report_kind_word(matrix->kind),
        metric->title, *unit ? ", " : "", unit);
    fputs(md ? "\n\n" : "  (rows send, columns receive)\n", report->stream);
}

static void print_notes(const struct report *report, const struct matrix *matrix)
{
    FILE *out = report->stream;
    bool md = is_md(report);
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
    uint8_t *sends = memory(n, 1), *receives = memory(n, 1);
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
    grid.names = memory(n, sizeof *grid.names);
    grid.rows = memory(n, sizeof *grid.rows);
    grid.columns = memory(n, sizeof *grid.columns);
    for (size_t i = 0; i < n; i++)
        grid.names[i] = report->agents[i]->name;
    choose_lines(&grid);
    float *sorted = matrix_sorted(matrix, metric, &count);
    grid.scale =
        report_scale(matrix->metrics[metric]->unit, sorted ? report_median(sorted, count) : 0);
    free(sorted);
    print_title(report, matrix, matrix->metrics[metric], grid.scale.word);
    report_grid(&grid);
    free(grid.names);
    free(grid.rows);
    free(grid.columns);
}

// -------------------------------------------------------------------------------------- groups

struct groups {
    char **names; // borrowed from the agents' labels
    size_t count;
    size_t *of; // group of each agent
};

static char *label_of(const Mp__RunAgent *agent, const char *key)
{
    for (size_t i = 0; i < agent->n_labels; i++)
        if (strcmp(agent->labels[i]->key, key) == 0)
            return agent->labels[i]->value;
    static char none[] = GROUP_NONE;
    return none;
}

static void groups_make(const struct report *report, struct groups *groups)
{
    groups->names = memory(report->agent_count, sizeof *groups->names);
    groups->of = memory(report->agent_count, sizeof *groups->of);
    groups->count = 0;
    for (size_t i = 0; i < report->agent_count; i++) {
        char *name = label_of(report->agents[i], report->group_by);
        size_t at = 0;
        while (at < groups->count && strcmp(groups->names[at], name) != 0)
            at++;
        if (at == groups->count)
            groups->names[groups->count++] = name;
        groups->of[i] = at;
    }
}

struct group_cells {
    float *medians, *lows;
    uint32_t *pairs, *ok;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed {
        uint32_t key;
        float value;
    } *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->value < y->value ? -1 : x->value > y->value;
}

// Sorts all values by (group pair, value) once; medians are then read off.
static void group_medians(const struct matrix *matrix, size_t metric, const struct groups *groups,
    struct group_cells *cells)
{
    struct keyed {
        uint32_t key;
        float value;
    } *sorted = memory(matrix->total, sizeof *sorted);
    size_t n = matrix->size, found = 0;
    for (size_t i = 0; i < n * n; i++) {
        if (matrix->states[i] == 0)
            continue;
        size_t key = groups->of[i / n] * groups->count + groups->of[i % n];
        cells->pairs[key]++;
        cells->ok[key] += matrix->states[i] == MP__CELL_STATE__OK;
        if (!isnan(matrix->values[metric][i]) && found < matrix->total)
            sorted[found++] = (struct keyed){(uint32_t)key, matrix->values[metric][i]};
    }
    qsort(sorted, found, sizeof *sorted, by_key);
    for (size_t first = 0, end; first < found; first = end) {
        for (end = first; end < found && sorted[end].key == sorted[first].key;)
            end++;
        size_t middle = first + (end - first) / 2;
        float median = (end - first) % 2 ? sorted[middle].value
                                         : (sorted[middle - 1].value + sorted[middle].value) / 2;
        cells->medians[sorted[first].key] = median;
        cells->lows[sorted[first].key] = sorted[first].value;
    }
    free(sorted);
}

static void group_list(struct report *report, const struct metric *metric,
    const struct groups *groups, const struct group_cells *cells)
{
    FILE *out = report->stream;
    bool md = is_md(report);
    fputc('\n', out);
    for (size_t i = 0; i < groups->count * groups->count; i++) {
        if (cells->pairs[i] == 0)
            continue;
        fprintf(out, "%s%s > %s: %u of %u pairs ok", md ? "- " : "  ",
            groups->names[i / groups->count], groups->names[i % groups->count], cells->ok[i],
            cells->pairs[i]);
        if (!isnan(cells->medians[i])) {
            char low[48], median[48];
            report_human(metric, (double)cells->lows[i], low);
            report_human(metric, (double)cells->medians[i], median);
            fprintf(out, ", median %s, min %s", median, low);
        }
        fputc('\n', out);
    }
}

static void print_groups(struct report *report, const struct matrix *matrix, size_t metric)
{
    struct groups groups;
    groups_make(report, &groups);
    size_t n = groups.count, count;
    struct group_cells cells = {memory(n * n, sizeof(float)), memory(n * n, sizeof(float)),
        memory(n * n, sizeof(uint32_t)), memory(n * n, sizeof(uint32_t))};
    for (size_t i = 0; i < n * n; i++)
        cells.medians[i] = cells.lows[i] = NAN;
    group_medians(matrix, metric, &groups, &cells);
    size_t *lines = memory(n, sizeof *lines);
    for (size_t i = 0; i < n; i++)
        lines[i] = i;
    float *sorted = matrix_sorted(matrix, metric, &count);
    struct grid grid = {.report = report,
        .names = groups.names,
        .rows = lines,
        .columns = lines,
        .row_count = n,
        .column_count = n,
        .text = group_text,
        .medians = cells.medians,
        .pairs = cells.pairs,
        .group_count = n,
        .scale =
            report_scale(matrix->metrics[metric]->unit, sorted ? report_median(sorted, count) : 0)};
    print_title(report, matrix, matrix->metrics[metric], grid.scale.word);
    report_grid(&grid);
    group_list(report, matrix->metrics[metric], &groups, &cells);
    free(sorted);
    free(lines);
    free(cells.medians);
    free(cells.lows);
    free(cells.pairs);
    free(cells.ok);
    free(groups.names);
    free(groups.of);
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
    struct ranked *ranked = memory(matrix->total, sizeof *ranked);
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
    bool md = is_md(report);
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
    if (is_md(self))
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
            print_groups(self, matrix, m);
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
        report_plain(self->stream, self->info->notes[i], is_md(self));
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
