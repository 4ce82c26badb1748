// Runs: their descriptions and agents as they were.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "log.h"
#include "store_parts.h"
#include "units.h"
#include "wire.h"

#define RUN_NUMBER_MAX (INT64_C(1) << 38)

int64_t stored_run_number(const char *id)
{
    uint64_t number;
    if (strncmp(id, "r-", 2) != 0 || units_count(id + 2, 1, (uint64_t)RUN_NUMBER_MAX, &number) != 0)
        return 0;
    return (int64_t)number;
}

// ------------------------------------------------------------------------------- descriptions

// A run's info is kept as the message that shows it, so that reading it back is the same border
// as the network.
static uint8_t *info_pack(const Mp__RunInfo *info, size_t *size)
{
    Mp__RunAnswer answer = MP__RUN_ANSWER__INIT;
    answer.info = (Mp__RunInfo *)info;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_RUN_ANSWER;
    envelope.run_answer = &answer;
    return wire_pack(&envelope, size);
}

static Mp__Envelope *info_unpack(sqlite3_stmt *row, int column)
{
    size_t size;
    int error;
    char text[256] = "";
    const void *bytes = db_blob(row, column, &size);
    Mp__Envelope *envelope = wire_unpack(bytes, size, WIRE_CONTROLLER, true, &error, text);
    if (envelope && envelope->body_case == MP__ENVELOPE__BODY_RUN_ANSWER)
        return envelope;
    log_error("the description of a stored run cannot be read: %s", text);
    wire_free(&envelope);
    return NULL;
}

int stored_run_step(struct db *db, sqlite3_stmt *row, struct stored_run *run)
{
    int rc = db_step(db, row);
    if (rc <= 0)
        return rc < 0 ? rc : MESH_E_NOT_FOUND;
    run->number = sqlite3_column_int64(row, 0);
    snprintf(run->id, sizeof run->id, "%s", db_text(row, 1));
    run->agents = (uint32_t)sqlite3_column_int64(row, 2);
    run->cells = (uint32_t)sqlite3_column_int64(row, 3);
    run->answer = info_unpack(row, 4);
    sqlite3_reset(row);
    if (!run->answer)
        return MESH_E_INVALID;
    if (run->cells > DIRECTOR_CELLS_MAX || run->agents > REGISTRY_AGENTS_MAX) {
        stored_run_release(run);
        return MESH_E_INVALID;
    }
    return 0;
}

int stored_run_find(struct db *db, const char *name, struct stored_run *run)
{
    if (strcmp(name, "last") == 0)
        return stored_run_step(db, db_bind(db, SQL_RUN_LAST, ""), run);
    return stored_run_step(db, db_bind(db, SQL_RUN_GET, "t", name), run);
}

void stored_run_release(struct stored_run *run)
{
    wire_free(&run->answer);
}

// -------------------------------------------------------------------------------------- agents

static Mp__RunAgent *agent_unpack(sqlite3_stmt *row)
{
    size_t size;
    const void *bytes = db_blob(row, 2, &size);
    Mp__RunAgent *agent = size <= WIRE_PART_BYTES ? mp__run_agent__unpack(NULL, size, bytes) : NULL;
    if (agent && identity_name_valid(agent->name))
        return agent;
    if (agent)
        mp__run_agent__free_unpacked(agent, NULL);
    return NULL;
}

int stored_agents(struct db *db, const struct stored_run *run, uint32_t offset, size_t bytes_max,
    Mp__RunAgent **agents, uint32_t *ids, size_t *count)
{
    size_t bytes = 0;
    sqlite3_stmt *row = db_bind(db, SQL_RUN_AGENTS, "ii", run->number, (int64_t)offset);
    int rc = 0;
    while (offset + *count < run->agents && bytes <= bytes_max && (rc = db_step(db, row)) > 0) {
        Mp__RunAgent *agent = agent_unpack(row);
        if (!agent || sqlite3_column_int64(row, 0) != (int64_t)(offset + *count)) {
            if (agent)
                mp__run_agent__free_unpacked(agent, NULL);
            rc = MESH_E_INVALID;
            break;
        }
        bytes += wire_packed_size(&agent->base) + 8;
        if (ids)
            ids[*count] = (uint32_t)sqlite3_column_int64(row, 1);
        agents[(*count)++] = agent;
    }
    if (row)
        sqlite3_reset(row);
    return rc < 0 ? rc : 0;
}

void stored_agents_free(Mp__RunAgent **agents, size_t count)
{
    for (size_t i = 0; i < count; i++)
        mp__run_agent__free_unpacked(agents[i], NULL);
    free(agents);
}

// ------------------------------------------------------------------------------------- writing

struct run_put {
    struct job job;
    struct told told;
    Mp__RunInfo *info;
    // A new run only.
    uint8_t **records; // packed agents
    size_t *record_sizes;
    char **names;
    uint32_t *ids;
    uint8_t *places;
    uint8_t *policy; // NULL: it is no check
    size_t policy_size;
};

static void run_put_finish(struct job *job)
{
    struct run_put *self = (struct run_put *)job;
    if (self->told.done)
        self->told.done(self->told.ctx, job->error);
}

static void run_put_release(struct job *job)
{
    struct run_put *self = (struct run_put *)job;
    for (size_t i = 0; self->records && i < self->info->agents; i++) {
        free(self->records[i]);
        free(self->names[i]);
    }
    free(self->records);
    free(self->record_sizes);
    free(self->names);
    free(self->ids);
    free(self->places);
    free(self->policy);
    mp__run_info__free_unpacked(self->info, NULL);
}

static int add_run(struct db *db, const Mp__RunInfo *info, int64_t number)
{
    size_t size;
    uint8_t *bytes = info_pack(info, &size);
    if (!bytes)
        return MESH_E_TOO_LARGE;
    int rc = db_run(db, SQL_RUN_ADD, "itittiiib", number, info->id, (int64_t)info->state,
        info->request->name, info->by, info->created_wall_ns, (int64_t)info->agents,
        (int64_t)info->cells, bytes, size);
    free(bytes);
    if (rc == 0)
        rc = db_run(db, SQL_META_RAISE, "ti", "run", number);
    return rc;
}

static int run_add(struct db *db, struct job *job)
{
    struct run_put *self = (struct run_put *)job;
    const Mp__RunInfo *info = self->info;
    int64_t number = stored_run_number(info->id);
    if (number == 0 || info->cells > DIRECTOR_CELLS_MAX)
        return MESH_E_INVALID;
    int rc = add_run(db, info, number);
    for (size_t i = 0; i < info->agents && rc == 0; i++)
        rc = db_run(db, SQL_RUN_AGENT_ADD, "iiitb", number, (int64_t)i, (int64_t)self->ids[i],
            self->names[i], self->records[i], self->record_sizes[i]);
    for (uint32_t at = 0; at < info->cells && rc == 0; at += STORE_PLACES_CHUNK) {
        uint32_t left = info->cells - at;
        size_t count = left < STORE_PLACES_CHUNK ? left : STORE_PLACES_CHUNK;
        rc = db_run(db, SQL_RUN_PLACES_ADD, "iib", number, (int64_t)(at / STORE_PLACES_CHUNK),
            self->places + (size_t)at * STORE_PLACE_BYTES, count * STORE_PLACE_BYTES);
    }
    if (rc == 0 && self->policy)
        rc = db_run(db, SQL_POLICY_ADD, "ib", number, self->policy, self->policy_size);
    return rc;
}

static struct run_put *run_put_new(
    int (*work)(struct db *db, struct job *self), const Mp__RunInfo *info)
{
    struct run_put *self = job_new(sizeof *self, work);
    self->job.finish = run_put_finish;
    self->job.release = run_put_release;
    self->job.writes = true;
    self->info = (Mp__RunInfo *)wire_copy(&info->base);
    return self;
}

void store_put_new_run(store_t *self, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
    const uint32_t *agent_ids, const struct cell_place *places, const struct stored_policy *policy,
    store_done *done, void *ctx)
{
    struct run_put *job = run_put_new(run_add, info);
    size_t count = info->agents;
    job->told = (struct told){done, ctx};
    job->records = zmalloc((count + 1) * sizeof *job->records);
    job->record_sizes = zmalloc((count + 1) * sizeof *job->record_sizes);
    job->names = zmalloc((count + 1) * sizeof *job->names);
    job->ids = zmalloc((count + 1) * sizeof *job->ids);
    for (size_t i = 0; i < count; i++) {
        job->records[i] = zmalloc(wire_packed_size(&agents[i]->base) + 1);
        job->record_sizes[i] = mp__run_agent__pack(agents[i], job->records[i]);
        job->names[i] = strdup(agents[i]->name);
        job->ids[i] = agent_ids[i];
    }
    job->places = stored_places_pack(places, info->cells);
    if (policy) {
        job->policy = zmalloc(policy->size + 1);
        memcpy(job->policy, policy->text, policy->size);
        job->policy_size = policy->size;
    }
    store_send(self, &job->job);
}

static int run_put(struct db *db, struct job *job)
{
    const Mp__RunInfo *info = ((struct run_put *)job)->info;
    size_t size;
    uint8_t *bytes = info_pack(info, &size);
    if (!bytes)
        return MESH_E_TOO_LARGE;
    int rc = db_run(
        db, SQL_RUN_PUT, "iib", stored_run_number(info->id), (int64_t)info->state, bytes, size);
    free(bytes);
    return rc;
}

void store_put_run(store_t *self, const Mp__RunInfo *info)
{
    struct run_put *job = run_put_new(run_put, info);
    job->job.kept = job->job.patient = true;
    job->job.supersedes = job->info->id;
    store_send(self, &job->job);
}

// ------------------------------------------------------------------------------------- reading

struct runs_get {
    struct job job;
    uint32_t offset, limit, total;
    Mp__Envelope **answers;
    Mp__RunInfo **infos;
    size_t count;
    store_runs_done *done;
    void *ctx;
};

static int runs_get(struct db *db, struct job *job)
{
    struct runs_get *self = (struct runs_get *)job;
    sqlite3_stmt *row = db_bind(db, SQL_RUN_COUNT, "");
    int rc = db_step(db, row);
    if (rc < 0)
        return rc;
    self->total = (uint32_t)sqlite3_column_int64(row, 0);
    sqlite3_reset(row);
    uint32_t left = self->total > self->offset ? self->total - self->offset : 0;
    size_t limit = self->limit < left ? self->limit : left, bytes = 0;
    self->answers = zmalloc((limit + 1) * sizeof *self->answers);
    self->infos = zmalloc((limit + 1) * sizeof *self->infos);
    row = db_bind(db, SQL_RUN_PAGE, "ii", (int64_t)self->offset, (int64_t)limit);
    rc = 0;
    while (self->count < limit && bytes <= WIRE_PART_BYTES && (rc = db_step(db, row)) > 0) {
        Mp__Envelope *answer = info_unpack(row, 0);
        if (!answer) {
            rc = MESH_E_INVALID;
            break;
        }
        self->answers[self->count] = answer;
        self->infos[self->count++] = answer->run_answer->info;
        bytes += wire_packed_size(&answer->run_answer->info->base) + 8;
    }
    if (row)
        sqlite3_reset(row);
    return rc < 0 ? rc : 0;
}

static void runs_get_finish(struct job *job)
{
    struct runs_get *self = (struct runs_get *)job;
    self->done(self->ctx, job->error, self->infos, self->count, self->total);
}

static void runs_get_release(struct job *job)
{
    struct runs_get *self = (struct runs_get *)job;
    for (size_t i = 0; i < self->count; i++)
        wire_free(&self->answers[i]);
    free(self->answers);
    free(self->infos);
}

void store_get_runs(
    store_t *self, uint32_t offset, uint32_t limit, store_runs_done *done, void *ctx)
{
    struct runs_get *job = job_new(sizeof *job, runs_get);
    job->job.finish = runs_get_finish;
    job->job.release = runs_get_release;
    job->offset = offset;
    job->limit = limit;
    job->done = done;
    job->ctx = ctx;
    store_send(self, &job->job);
}

struct run_get {
    struct job job;
    char *name;
    uint32_t offset;
    struct stored_run run;
    Mp__RunAgent **agents;
    size_t count;
    store_run_done *done;
    void *ctx;
};

static int run_get(struct db *db, struct job *job)
{
    struct run_get *self = (struct run_get *)job;
    int rc = stored_run_find(db, self->name, &self->run);
    if (rc != 0)
        return rc;
    self->agents = zmalloc(((size_t)self->run.agents + 1) * sizeof *self->agents);
    if (self->offset >= self->run.agents)
        return 0;
    return stored_agents(
        db, &self->run, self->offset, WIRE_PART_BYTES, self->agents, NULL, &self->count);
}

static void run_get_finish(struct job *job)
{
    struct run_get *self = (struct run_get *)job;
    const Mp__RunInfo *info = self->run.answer ? self->run.answer->run_answer->info : NULL;
    self->done(self->ctx, job->error, info, self->agents, self->count);
}

static void run_get_release(struct job *job)
{
    struct run_get *self = (struct run_get *)job;
    stored_run_release(&self->run);
    stored_agents_free(self->agents, self->count);
    free(self->name);
}

void store_get_run(
    store_t *self, const char *run, uint32_t agents_offset, store_run_done *done, void *ctx)
{
    struct run_get *job = job_new(sizeof *job, run_get);
    job->job.finish = run_get_finish;
    job->job.release = run_get_release;
    job->name = strdup(run);
    job->offset = agents_offset;
    job->done = done;
    job->ctx = ctx;
    store_send(self, &job->job);
}
