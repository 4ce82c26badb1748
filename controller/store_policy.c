// The text of a check's policy, kept with its run.

#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "store_parts.h"
#include "wire.h"

struct policy_get {
    struct job job;
    char *run;
    uint32_t offset, total;
    uint8_t *bytes;
    size_t size;
    store_policy_done *done;
    void *ctx;
};

static int policy_get(struct db *db, struct job *job)
{
    struct policy_get *self = (struct policy_get *)job;
    struct stored_run run = {0};
    int rc = stored_run_find(db, self->run, &run);
    if (rc != 0)
        return rc;
    // SQL counts bytes from 1.
    sqlite3_stmt *row = db_bind(
        db, SQL_POLICY_GET, "iii", run.number, (int64_t)self->offset + 1, (int64_t)WIRE_PART_BYTES);
    stored_run_release(&run);
    rc = db_step(db, row);
    if (rc <= 0)
        return rc < 0 ? rc : MESH_E_NOT_FOUND;
    size_t size;
    self->total = (uint32_t)sqlite3_column_int64(row, 0);
    const void *bytes = db_blob(row, 1, &size);
    self->size = size < WIRE_PART_BYTES ? size : WIRE_PART_BYTES;
    self->bytes = zmalloc(self->size + 1);
    if (self->size)
        memcpy(self->bytes, bytes, self->size);
    sqlite3_reset(row);
    return 0;
}

static void policy_get_finish(struct job *job)
{
    struct policy_get *self = (struct policy_get *)job;
    self->done(self->ctx, job->error, self->bytes, self->size, self->total);
}

static void policy_get_release(struct job *job)
{
    struct policy_get *self = (struct policy_get *)job;
    free(self->run);
    free(self->bytes);
}

void store_get_policy(
    store_t *self, const char *run, uint32_t offset, store_policy_done *done, void *ctx)
{
    struct policy_get *job = job_new(sizeof *job, policy_get);
    job->job.finish = policy_get_finish;
    job->job.release = policy_get_release;
    job->run = strdup(run);
    job->offset = offset;
    job->done = done;
    job->ctx = ctx;
    store_send(self, &job->job);
}
