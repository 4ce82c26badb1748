// What a controller reads when it starts again: its counters, and runs that are not finished.

#include <stdlib.h>

#include "errors.h"
#include "log.h"
#include "store_parts.h"

static int meta_get(struct db *db, const char *key, int64_t *value)
{
    sqlite3_stmt *row = db_bind(db, SQL_META_GET, "t", key);
    int rc = db_step(db, row);
    if (rc <= 0)
        return rc < 0 ? rc : MESH_E_NOT_FOUND;
    *value = sqlite3_column_int64(row, 0);
    sqlite3_reset(row);
    return 0;
}

int store_next_epoch(store_t *self, uint64_t *epoch)
{
    int64_t value;
    int rc = db_run(&self->db, SQL_META_ADD, "t", "epoch");
    if (rc == 0)
        rc = meta_get(&self->db, "epoch", &value);
    if (rc == 0)
        *epoch = (uint64_t)value;
    return rc;
}

uint64_t store_next_run_number(store_t *self)
{
    int64_t value = 0;
    (void)!meta_get(&self->db, "run", &value);
    return (uint64_t)value + 1;
}

// The counters in the run's own row may be older than its cells, so they are counted again.
static int done_read(struct db *db, const struct stored_run *run, bool *done)
{
    Mp__RunInfo *info = run->answer->run_answer->info;
    int64_t first = run->number << STORE_RUN_SHIFT;
    sqlite3_stmt *row = db_bind(db, SQL_CELL_STATES, "ii", first, first + run->cells);
    int rc;
    info->done = info->ok = 0;
    while ((rc = db_step(db, row)) > 0) {
        int64_t index = sqlite3_column_int64(row, 0);
        if (index < 0 || index >= (int64_t)run->cells ||
            sqlite3_column_int64(row, 1) == MP__CELL_STATE__PENDING)
            continue;
        done[index] = true;
        info->done++;
        info->ok += sqlite3_column_int64(row, 1) == MP__CELL_STATE__OK;
    }
    info->failed = info->done - info->ok;
    return rc;
}

struct resumed {
    Mp__RunAgent **agents;
    uint32_t *ids;
    struct cell_place *places;
    bool *done;
};

static int resumed_read(
    struct db *db, const struct stored_run *run, struct resumed *resumed, size_t *count)
{
    resumed->agents = zmalloc(((size_t)run->agents + 1) * sizeof *resumed->agents);
    resumed->ids = zmalloc(((size_t)run->agents + 1) * sizeof *resumed->ids);
    resumed->places = zmalloc(((size_t)run->cells + 1) * sizeof *resumed->places);
    resumed->done = zmalloc((size_t)run->cells + 1);
    int rc = stored_agents(db, run, 0, SIZE_MAX, resumed->agents, resumed->ids, count);
    if (rc == 0 && *count != run->agents)
        rc = MESH_E_INVALID;
    if (rc == 0)
        rc = stored_places(db, run, 0, run->cells, resumed->places);
    if (rc == 0)
        rc = done_read(db, run, resumed->done);
    return rc;
}

int store_load_unfinished(store_t *self,
    void (*each)(void *ctx, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
        const uint32_t *agent_ids, const struct cell_place *places, const bool *done),
    void *ctx)
{
    int64_t after = 0;
    for (;;) {
        struct stored_run run = {0};
        int rc =
            stored_run_step(&self->db, db_bind(&self->db, SQL_RUN_UNFINISHED, "i", after), &run);
        if (rc == MESH_E_NOT_FOUND)
            return 0;
        after = run.number;
        struct resumed resumed = {0};
        size_t count = 0;
        if (rc == 0)
            rc = resumed_read(&self->db, &run, &resumed, &count);
        if (rc == 0)
            each(ctx, run.answer->run_answer->info, resumed.agents, resumed.ids, resumed.places,
                resumed.done);
        else
            log_error("%s cannot be resumed: %s", run.id, mesh_strerror(rc));
        stored_agents_free(resumed.agents, count);
        free(resumed.ids);
        free(resumed.places);
        free(resumed.done);
        stored_run_release(&run);
        if (db_error_is_storage(rc))
            return rc;
    }
}
