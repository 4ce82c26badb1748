// The compact form of a test's cells that the human formats keep: one byte and a few floats a pair.

#include <czmq.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report_parts.h"

static bool wanted(const struct report *report, const struct metric *metric, Mp__TestKind kind)
{
    unsigned bit = 1u << kind;
    if (report->metric)
        return strcmp(metric->name, report->metric) == 0 && (metric->possible & bit);
    return (metric->usual & bit) != 0;
}

static struct matrix *matrix_new(const struct report *report, Mp__TestKind kind)
{
    struct matrix *self = zmalloc(sizeof *self);
    self->kind = kind;
    self->size = report->agent_count;
    size_t pairs = self->size * self->size, count;
    self->states = zmalloc(pairs);
    const struct metric *metrics = report_metric_table(&count);
    for (size_t i = 0; i < count && self->metric_count < MATRIX_METRICS_MAX; i++) {
        if (!wanted(report, &metrics[i], kind))
            continue;
        float *values = zmalloc(pairs * sizeof *values);
        for (size_t k = 0; k < pairs; k++)
            values[k] = NAN;
        self->metrics[self->metric_count] = &metrics[i];
        self->values[self->metric_count++] = values;
    }
    return self;
}

void matrix_destroy(matrix_t **self_p)
{
    struct matrix *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->metric_count; i++)
        free(self->values[i]);
    for (size_t i = 0; i < self->note_count; i++)
        free(self->notes[i].reason);
    free(self->states);
    free(self);
    *self_p = NULL;
}

static void count_limit(struct matrix *self, const Mp__Cell *cell)
{
    if (!cell->limiter || !cell->limiter->verdict)
        return;
    for (size_t i = 0; i < self->limit_count; i++) {
        if (strncmp(self->limits[i].verdict, cell->limiter->verdict,
                sizeof self->limits[i].verdict - 1) == 0) {
            // The most frequent one stays first.
            struct matrix_count raised = self->limits[i];
            raised.count++;
            for (; i > 0 && self->limits[i - 1].count < raised.count; i--)
                self->limits[i] = self->limits[i - 1];
            self->limits[i] = raised;
            return;
        }
    }
    if (self->limit_count == sizeof self->limits / sizeof *self->limits)
        return;
    struct matrix_count *fresh = &self->limits[self->limit_count++];
    strncpy(fresh->verdict, cell->limiter->verdict, sizeof fresh->verdict - 1);
    fresh->count = 1;
}

static void note(struct matrix *self, const Mp__Cell *cell)
{
    self->not_ok++;
    if (self->note_count == MATRIX_NOTES_MAX)
        return;
    self->notes[self->note_count++] = (struct matrix_note){.from = cell->from,
        .to = cell->to,
        .state = cell->state,
        .reason = cell->reason ? strdup(cell->reason) : NULL};
}

static void keep_values(struct matrix *self, const Mp__Cell *cell, size_t at)
{
    size_t count;
    const struct field *fields = report_fields(&count);
    for (size_t m = 0; m < self->metric_count; m++) {
        for (size_t i = 0; i < count; i++) {
            if (strcmp(fields[i].path, self->metrics[m]->path) != 0)
                continue;
            struct value value = report_field(&fields[i], cell);
            if (value.type == VALUE_REAL)
                self->values[m][at] = (float)value.real;
            else if (value.type == VALUE_WHOLE)
                self->values[m][at] = (float)value.whole;
        }
    }
}

void matrix_add(struct report *report, const Mp__Cell *cell)
{
    if (cell->kind >= REPORT_KINDS || cell->from >= report->agent_count ||
        cell->to >= report->agent_count)
        return;
    struct matrix **slot = &report->matrix[cell->kind];
    if (!*slot)
        *slot = matrix_new(report, cell->kind);
    struct matrix *self = *slot;
    size_t at = cell->from * self->size + cell->to;
    self->states[at] = (uint8_t)cell->state;
    self->total++;
    if (cell->state == MP__CELL_STATE__OK) {
        self->ok++;
        count_limit(self, cell);
        keep_values(self, cell, at);
    } else if (cell->state == MP__CELL_STATE__PENDING ||
               cell->state == MP__CELL_STATE__CELL_RUNNING) {
        self->open++;
    } else {
        note(self, cell);
    }
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

float *matrix_sorted(const matrix_t *self, size_t metric, size_t *count)
{
    size_t pairs = self->size * self->size, found = 0;
    float *sorted = zmalloc(pairs * sizeof *sorted);
    for (size_t i = 0; i < pairs; i++)
        if (!isnan(self->values[metric][i]))
            sorted[found++] = self->values[metric][i];
    *count = found;
    if (found == 0) {
        free(sorted);
        return NULL;
    }
    qsort(sorted, found, sizeof *sorted, by_value);
    return sorted;
}

double report_median(const float *sorted, size_t count)
{
    if (count == 0)
        return NAN;
    return count % 2 ? sorted[count / 2]
                     : ((double)sorted[count / 2 - 1] + (double)sorted[count / 2]) / 2;
}

struct unit_scale report_scale(enum unit unit, double typical)
{
    static const struct unit_scale rates[] = {
        {1, "bit/s"}, {1e3, "kbit/s"}, {1e6, "Mbit/s"}, {1e9, "Gbit/s"}, {1e12, "Tbit/s"}};
    static const struct unit_scale times[] = {{1e-9, "ns"}, {1e-6, "us"}, {1e-3, "ms"}, {1, "s"}};
    if (unit == UNIT_RATIO)
        return (struct unit_scale){0.01, "%"};
    if (unit == UNIT_COUNT)
        return (struct unit_scale){1, ""};
    const struct unit_scale *scales = unit == UNIT_RATE ? rates : times;
    size_t count = unit == UNIT_RATE ? 5 : 4, best = 0;
    for (size_t i = 0; i < count; i++)
        if (typical >= scales[i].factor * 0.9995)
            best = i;
    return typical > 0 ? scales[best] : unit == UNIT_RATE ? rates[2] : times[2];
}
