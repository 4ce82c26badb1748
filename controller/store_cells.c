// Cells: one row each once they are final.

#include <stdlib.h>
#include <string.h>

#include "store_parts.h"
#include "wire.h"

struct cell_put {
    struct job job;
    Mp__Cell *cell;
    char run[DIRECTOR_RUN_ID_SIZE];
    store_cell_done *done;
    void *ctx;
};

static int cell_put(struct db *db, struct job *job)
{
    struct cell_put *self = (struct cell_put *)job;
    const Mp__Cell *cell = self->cell;
    int64_t number = stored_run_number(self->run);
    size_t size = wire_packed_size(&cell->base);
    uint8_t *bytes = zmalloc(size + 1);
    mp__cell__pack(cell, bytes);
    bool rtt = cell->rtt && cell->rtt->has_p50;
    int rc = db_run(db, SQL_CELL_PUT, "iiiiiiitioooobi",
        (number << STORE_RUN_SHIFT) + (int64_t)cell->index, number, (int64_t)cell->index,
        (int64_t)cell->kind, (int64_t)cell->from, (int64_t)cell->to, (int64_t)cell->state,
        cell->reason, cell->started_wall_ns, cell->has_bandwidth_bps, cell->bandwidth_bps,
        cell->has_loss_ratio, cell->loss_ratio, cell->has_jitter_s, cell->jitter_s, (int)rtt,
        rtt ? cell->rtt->p50 : 0.0, bytes, size, (int64_t)(cell->recheck || cell->flow_check));
    free(bytes);
    return rc;
}

static void cell_put_finish(struct job *job)
{
    struct cell_put *self = (struct cell_put *)job;
    if (self->done)
        self->done(self->ctx, self->run, self->cell->index, job->error);
}

static void cell_put_release(struct job *job)
{
    mp__cell__free_unpacked(((struct cell_put *)job)->cell, NULL);
}

void store_put_cell(
    store_t *self, const char *run, const Mp__Cell *cell, store_cell_done *done, void *ctx)
{
    struct cell_put *job = job_new(sizeof *job, cell_put);
    job->job.finish = cell_put_finish;
    job->job.release = cell_put_release;
    job->job.writes = job->job.patient = true;
    job->cell = (Mp__Cell *)wire_copy(&cell->base);
    strncpy(job->run, run, sizeof job->run - 1);
    job->done = done;
    job->ctx = ctx;
    store_send(self, &job->job);
}

// ------------------------------------------------------------------------------------- reading

int store_load_cells(
    store_t *self, const char *run, void (*each)(void *ctx, const Mp__Cell *cell), void *ctx)
{
    int64_t first = stored_run_number(run) << STORE_RUN_SHIFT;
    sqlite3_stmt *row =
        db_bind(&self->db, SQL_CELL_PAGE, "ii", first, first + (INT64_C(1) << STORE_RUN_SHIFT));
    int rc;
    while ((rc = db_step(&self->db, row)) > 0) {
        size_t size;
        const void *blob = db_blob(row, 1, &size);
        Mp__Cell *cell = wire_cell_unpack(blob, size);
        if (!cell)
            continue; // it is shown as one that cannot be read
        each(ctx, cell);
        mp__cell__free_unpacked(cell, NULL);
    }
    return rc;
}

struct cells_get {
    struct job job;
    char *name;
    uint32_t offset, limit;
    struct stored_run run;
    Mp__Cell **cells;
    size_t count;
    store_cells_done *done;
    void *ctx;
};

static Mp__Cell *cell_without_row(
    const struct stored_run *run, const struct cell_place *place, uint32_t index)
{
    const Mp__RunInfo *info = run->answer->run_answer->info;
    Mp__Cell *cell = zmalloc(sizeof *cell);
    mp__cell__init(cell);
    cell->index = index;
    cell->kind = (Mp__TestKind)place->kind;
    cell->from = place->from;
    cell->to = place->to;
    cell->state = MP__CELL_STATE__PENDING;
    cell->has_phase = true;
    cell->phase = place->phase;
    if (place->kind == MP__TEST_KIND__PORT && place->port < info->n_ports)
        cell->port = strdup(info->ports[place->port]);
    return cell;
}

// A row that cannot be trusted stands as a failed cell instead of hiding its neighbours.
static Mp__Cell *cell_of_row(const struct stored_run *run, const void *bytes, size_t size,
    const struct cell_place *place, uint32_t index)
{
    Mp__Cell *cell = wire_cell_unpack(bytes, size);
    if (cell && cell->index == index && cell->kind == (Mp__TestKind)place->kind &&
        cell->from == place->from && cell->to == place->to)
        return cell;
    if (cell)
        mp__cell__free_unpacked(cell, NULL);
    cell = cell_without_row(run, place, index);
    cell->state = MP__CELL_STATE__FAILED;
    cell->reason = strdup("the stored result cannot be read");
    return cell;
}

static int cells_fill(
    struct db *db, struct cells_get *self, const struct cell_place *places, uint32_t count)
{
    int64_t first = (self->run.number << STORE_RUN_SHIFT) + self->offset;
    sqlite3_stmt *row = db_bind(db, SQL_CELL_PAGE, "ii", first, first + count);
    int rc = db_step(db, row);
    size_t bytes = 0;
    while (rc >= 0 && self->count < count && bytes <= WIRE_PART_BYTES) {
        uint32_t index = self->offset + (uint32_t)self->count;
        const struct cell_place *place = &places[self->count];
        Mp__Cell *cell;
        if (rc > 0 && sqlite3_column_int64(row, 0) == (int64_t)index) {
            size_t size;
            const void *blob = db_blob(row, 1, &size);
            cell = cell_of_row(&self->run, blob, size, place, index);
            rc = db_step(db, row);
        } else {
            cell = cell_without_row(&self->run, place, index);
        }
        bytes += wire_packed_size(&cell->base) + 8;
        self->cells[self->count++] = cell;
    }
    if (row)
        sqlite3_reset(row);
    return rc < 0 ? rc : 0;
}

static int cells_get(struct db *db, struct job *job)
{
    struct cells_get *self = (struct cells_get *)job;
    int rc = stored_run_find(db, self->name, &self->run);
    if (rc != 0)
        return rc;
    uint32_t left = self->run.cells > self->offset ? self->run.cells - self->offset : 0;
    uint32_t count = self->limit < left ? self->limit : left;
    // A cell has some ten bytes at least, so no more of them fit.
    if (count > WIRE_PART_BYTES / 8)
        count = WIRE_PART_BYTES / 8;
    if (count == 0)
        return 0;
    self->cells = zmalloc(count * sizeof *self->cells);
    struct cell_place *places = zmalloc(count * sizeof *places);
    rc = stored_places(db, &self->run, self->offset, count, places);
    if (rc == 0)
        rc = cells_fill(db, self, places, count);
    free(places);
    return rc;
}

static void cells_get_finish(struct job *job)
{
    struct cells_get *self = (struct cells_get *)job;
    self->done(self->ctx, job->error, self->run.id, self->cells, self->count, self->run.cells);
}

static void cells_get_release(struct job *job)
{
    struct cells_get *self = (struct cells_get *)job;
    for (size_t i = 0; i < self->count; i++)
        mp__cell__free_unpacked(self->cells[i], NULL);
    free(self->cells);
    free(self->name);
    stored_run_release(&self->run);
}

void store_get_cells(store_t *self, const char *run, uint32_t offset, uint32_t limit,
    store_cells_done *done, void *ctx)
{
    struct cells_get *job = job_new(sizeof *job, cells_get);
    job->job.finish = cells_get_finish;
    job->job.release = cells_get_release;
    job->name = strdup(run);
    job->offset = offset;
    job->limit = limit;
    job->done = done;
    job->ctx = ctx;
    store_send(self, &job->job);
}
