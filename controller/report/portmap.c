// Probed ports, for people: who reaches whom at which port, and how many of each kind there are.

#include <czmq.h>
#include <stdlib.h>
#include <string.h>

#include "report_parts.h"

#define MATRICES_MAX 12 // ports; beyond it only counts are printed

static const char *const words[] = {
    "", "open", "accepted", "refused", "rejected", "filtered", "no-route", "unsupported", "error"};

#define WORDS (sizeof words / sizeof *words)

struct portmap {
    struct port_seen *cells; // in the order of cells: from, to, port
    size_t count, room;
    uint32_t hint; // place of the last port in the run's table
};

void portmap_destroy(portmap_t **self_p)
{
    if (!*self_p)
        return;
    free((*self_p)->cells);
    free(*self_p);
    *self_p = NULL;
}

// -------------------------------------------------------------------------------------- keeping

static uint8_t word_of(const char *observed)
{
    for (size_t i = 1; observed && i < WORDS; i++)
        if (strcmp(words[i], observed) == 0)
            return (uint8_t)i;
    return 0;
}

// Cells walk through the table again and again.
static bool port_index(struct report *report, const char *port, uint16_t *index)
{
    size_t count = report->info->n_ports;
    for (size_t i = 0; i < count; i++) {
        size_t at = (report->ports->hint + i) % count;
        if (strcmp(report->info->ports[at], port) != 0)
            continue;
        report->ports->hint = (uint32_t)at + 1;
        *index = (uint16_t)at;
        return true;
    }
    return false;
}

void portmap_add(struct report *report, const Mp__Cell *cell)
{
    struct port_seen seen = {.from = cell->from,
        .to = cell->to,
        .state = (uint8_t)cell->state,
        .observed = word_of(cell->observed)};
    if (!cell->port || report->info->n_ports == 0 || cell->from >= report->agent_count ||
        cell->to >= report->agent_count)
        return;
    if (!report->ports)
        report->ports = zmalloc(sizeof *report->ports);
    if (!port_index(report, cell->port, &seen.port))
        return;
    seen.leaks = cell->arrived && strcmp(cell->arrived, "yes") == 0 && seen.observed > 2;
    struct portmap *self = report->ports;
    if (self->count == self->room) {
        self->room = self->room ? 2 * self->room : 256;
        self->cells = realloc(self->cells, self->room * sizeof *self->cells);
        if (!self->cells)
            abort();
    }
    self->cells[self->count++] = seen;
}

// ------------------------------------------------------------------------------------- matrices

struct port_matrix {
    const struct port_seen **at; // agents * agents; NULL: not probed
    size_t agents;
};

static bool cell_text(const struct grid *grid, size_t row, size_t column, char text[CELL_SIZE])
{
    const struct port_matrix *matrix = grid->context;
    const struct port_seen *seen = matrix->at[row * matrix->agents + column];
    if (!seen) {
        strcpy(text, row == column ? "-" : ".");
        return false;
    }
    snprintf(text, CELL_SIZE, "%s%s",
        seen->observed ? words[seen->observed] : report_state_word((Mp__CellState)seen->state),
        seen->leaks ? "!" : "");
    return seen->observed != 1 || seen->leaks;
}

static void print_port(struct report *report, struct port_matrix *matrix, size_t port)
{
    const struct portmap *self = report->ports;
    size_t n = matrix->agents;
    memset(matrix->at, 0, n * n * sizeof *matrix->at);
    struct grid grid = {.report = report, .text = cell_text, .context = matrix};
    grid.names = zmalloc((n + 1) * sizeof *grid.names);
    grid.rows = zmalloc((n + 1) * sizeof *grid.rows);
    grid.columns = zmalloc((n + 1) * sizeof *grid.columns);
    bool *lines = zmalloc(2 * n + 1);
    for (size_t i = 0; i < self->count; i++) {
        const struct port_seen *seen = &self->cells[i];
        if (seen->port != port)
            continue;
        matrix->at[seen->from * n + seen->to] = seen;
        lines[seen->from] = lines[n + seen->to] = true;
    }
    for (size_t i = 0; i < n; i++) {
        grid.names[i] = report->agents[i]->name;
        if (lines[i])
            grid.rows[grid.row_count++] = i;
        if (lines[n + i])
            grid.columns[grid.column_count++] = i;
    }
    bool md = strcmp(report->writer->format, "md") == 0;
    fprintf(report->stream, "\n%sport %s%s", md ? "## " : "", report->info->ports[port],
        md ? "\n\n" : "  (rows probe, columns are probed)\n");
    if (grid.row_count > 0)
        report_grid(&grid);
    free(grid.names);
    free(grid.rows);
    free(grid.columns);
    free(lines);
}

// --------------------------------------------------------------------------------------- counts

static void print_counts(struct report *report, bool by_port)
{
    const struct portmap *self = report->ports;
    size_t ports = by_port ? report->info->n_ports : 1;
    bool md = strcmp(report->writer->format, "md") == 0;
    uint32_t *counts = zmalloc((ports * WORDS + 1) * sizeof *counts), leaks = 0;
    for (size_t i = 0; i < self->count; i++) {
        counts[(by_port ? self->cells[i].port : 0) * WORDS + self->cells[i].observed]++;
        leaks += self->cells[i].leaks;
    }
    fputs(md || by_port ? "\n" : "", report->stream);
    for (size_t port = 0; port < ports; port++) {
        const char *between = ": ";
        fprintf(report->stream, "%s%s",
            md        ? "- "
            : by_port ? "  "
                      : "\n",
            by_port ? report->info->ports[port] : "observed");
        for (size_t w = 1; w <= WORDS; w++) {
            uint32_t count = counts[port * WORDS + w % WORDS]; // what was not measured comes last
            if (count == 0)
                continue;
            fprintf(
                report->stream, "%s%u %s", between, count, w < WORDS ? words[w] : "not measured");
            between = ", ";
        }
        fputc('\n', report->stream);
    }
    if (leaks > 0)
        fprintf(report->stream,
            "%s%u arrived although no answer came through (!): --pair FROM TO, or -o wide, has the "
            "evidence\n",
            md ? "- " : "", leaks);
    free(counts);
}

void portmap_print(struct report *report)
{
    if (!report->ports)
        return;
    struct port_matrix matrix = {.agents = report->agent_count};
    bool matrices = report->info->n_ports <= MATRICES_MAX;
    matrix.at = zmalloc((matrix.agents * matrix.agents + 1) * sizeof *matrix.at);
    for (size_t port = 0; matrices && port < report->info->n_ports; port++)
        print_port(report, &matrix, port);
    print_counts(report, !matrices);
    free(matrix.at);
}
