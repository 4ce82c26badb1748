// A matrix whose rows and columns are the values of a label (--group-by): each cell is the median
// of its pairs.

#include <czmq.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report_parts.h"

#define GROUP_NONE "(none)"

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
    groups->names = zmalloc(report->agent_count * sizeof *groups->names);
    groups->of = zmalloc(report->agent_count * sizeof *groups->of);
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
    } *sorted = zmalloc(matrix->total * sizeof *sorted);
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
    bool md = report_is_md(report);
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

void groups_print(struct report *report, const struct matrix *matrix, size_t metric)
{
    struct groups groups;
    groups_make(report, &groups);
    size_t n = groups.count, count;
    struct group_cells cells = {zmalloc(n * n * sizeof(float)), zmalloc(n * n * sizeof(float)),
        zmalloc(n * n * sizeof(uint32_t)), zmalloc(n * n * sizeof(uint32_t))};
    for (size_t i = 0; i < n * n; i++)
        cells.medians[i] = cells.lows[i] = NAN;
    group_medians(matrix, metric, &groups, &cells);
    size_t *lines = zmalloc(n * sizeof *lines);
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
    report_title(report, matrix, matrix->metrics[metric], grid.scale.word);
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
