// Agents, tokens, operators and the audit log.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_parts.h"
#include "wire.h"

#define LABEL_TEXT_MAX 130

// -------------------------------------------------------------------------------------- labels

// One "key=value" a line: neither can contain either character, and SQL users can read it.
static char *labels_to_text(const struct label *labels, size_t count)
{
    char *text = zmalloc(count * LABEL_TEXT_MAX + 1);
    size_t length = 0;
    for (size_t i = 0; i < count; i++)
        length += (size_t)snprintf(
            text + length, LABEL_TEXT_MAX, "%s=%s\n", labels[i].key, labels[i].value);
    return text;
}

// The caller frees *labels. Lines that are no labels are left out.
static size_t labels_from_text(const char *text, struct label **labels)
{
    size_t lines = 0, count = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    *labels = zmalloc((lines + 1) * sizeof **labels);
    for (const char *line = text; count < lines; line = strchr(line, '\n') + 1) {
        struct label *label = &(*labels)[count];
        if (!strchr(line, '\n'))
            break;
        if (sscanf(line, "%63[^=\n]=%63[^\n]", label->key, label->value) == 2 &&
            identity_label_valid(label->key, label->value))
            count++;
        else
            lines--;
    }
    return count;
}

// ----------------------------------------------------------------------------- jobs that change

struct change {
    struct job job;
    struct told told;
    int64_t numbers[6];
    char *texts[5];
    uint8_t key[IDENTITY_KEY_SIZE];
    uint8_t *hello;
    size_t hello_size;
};

static void change_finish(struct job *job)
{
    struct change *self = (struct change *)job;
    if (self->told.done)
        self->told.done(self->told.ctx, job->error);
}

static void change_release(struct job *job)
{
    struct change *self = (struct change *)job;
    for (size_t i = 0; i < sizeof self->texts / sizeof *self->texts; i++)
        free(self->texts[i]);
    free(self->hello);
}

static struct change *change_new(
    int (*work)(struct db *db, struct job *self), store_done *done, void *ctx)
{
    struct change *self = job_new(sizeof *self, work);
    self->job.finish = change_finish;
    self->job.release = change_release;
    self->job.writes = true;
    self->told = (struct told){done, ctx};
    return self;
}

static char *copy_of(const char *text)
{
    return text && *text ? strdup(text) : NULL;
}

static int agent_put(struct db *db, struct job *job)
{
    struct change *self = (struct change *)job;
    return db_run(db, SQL_AGENT_PUT, "itbtiitttb", self->numbers[0], self->texts[0], self->key,
        sizeof self->key, self->texts[1], self->numbers[1], self->numbers[2], self->texts[2],
        self->texts[3], self->texts[4], self->hello, self->hello_size);
}

void store_put_agent(store_t *self, const struct stored_agent *agent, store_done *done, void *ctx)
{
    struct change *job = change_new(agent_put, done, ctx);
    job->numbers[0] = agent->id;
    job->numbers[1] = agent->enrolled_wall_ns;
    job->numbers[2] = agent->draining;
    job->texts[0] = strdup(agent->name);
    job->texts[1] = copy_of(agent->token);
    for (int i = 0; i < 3; i++)
        job->texts[2 + i] = labels_to_text(agent->labels[i], agent->label_count[i]);
    memcpy(job->key, agent->key, sizeof job->key);
    if (agent->hello && agent->hello_size > 0) {
        job->hello = zmalloc(agent->hello_size);
        memcpy(job->hello, agent->hello, agent->hello_size);
        job->hello_size = agent->hello_size;
    }
    store_send(self, &job->job);
}

static int agent_drop(struct db *db, struct job *job)
{
    return db_run(db, SQL_AGENT_DROP, "i", ((struct change *)job)->numbers[0]);
}

void store_drop_agent(store_t *self, uint32_t id, store_done *done, void *ctx)
{
    struct change *job = change_new(agent_drop, done, ctx);
    job->numbers[0] = id;
    store_send(self, &job->job);
}

static int token_put(struct db *db, struct job *job)
{
    struct change *self = (struct change *)job;
    return db_run(db, SQL_TOKEN_PUT, "tbiiiiitt", self->texts[0], self->key, sizeof self->key,
        self->numbers[0], self->numbers[1], self->numbers[2], self->numbers[3], self->numbers[4],
        self->texts[1], self->texts[2]);
}

void store_put_token(store_t *self, const struct stored_token *token, store_done *done, void *ctx)
{
    struct change *job = change_new(token_put, done, ctx);
    const int64_t numbers[] = {
        token->created_wall_ns, token->expires_wall_ns, token->uses, token->used, token->revoked};
    memcpy(job->numbers, numbers, sizeof numbers);
    job->texts[0] = strdup(token->id);
    job->texts[1] = copy_of(token->by);
    job->texts[2] = labels_to_text(token->labels, token->label_count);
    memcpy(job->key, token->public_key, sizeof job->key);
    store_send(self, &job->job);
}

static int operator_put(struct db *db, struct job *job)
{
    struct change *self = (struct change *)job;
    return db_run(db, SQL_OPERATOR_PUT, "tibi", self->texts[0], self->numbers[0], self->key,
        sizeof self->key, self->numbers[1]);
}

void store_put_operator(
    store_t *self, const struct stored_operator *operator_, store_done *done, void *ctx)
{
    struct change *job = change_new(operator_put, done, ctx);
    job->numbers[0] = operator_->role;
    job->numbers[1] = operator_->created_wall_ns;
    job->texts[0] = strdup(operator_->name);
    memcpy(job->key, operator_->public_key, sizeof job->key);
    store_send(self, &job->job);
}

static int operator_drop(struct db *db, struct job *job)
{
    return db_run(db, SQL_OPERATOR_DROP, "t", ((struct change *)job)->texts[0]);
}

void store_drop_operator(store_t *self, const char *name, store_done *done, void *ctx)
{
    struct change *job = change_new(operator_drop, done, ctx);
    job->texts[0] = strdup(name);
    store_send(self, &job->job);
}

// ------------------------------------------------------------------------------------ loading

int store_load_agents(
    store_t *self, void (*each)(void *ctx, const struct stored_agent *), void *ctx)
{
    sqlite3_stmt *row = db_bind(&self->db, SQL_AGENTS, "");
    int rc;
    while ((rc = db_step(&self->db, row)) > 0) {
        size_t key_size;
        struct label *labels[3];
        struct stored_agent agent = {.id = (uint32_t)sqlite3_column_int64(row, 0),
            .name = db_text(row, 1),
            .key = db_blob(row, 2, &key_size),
            .token = db_text(row, 3),
            .enrolled_wall_ns = sqlite3_column_int64(row, 4),
            .draining = sqlite3_column_int(row, 5) != 0};
        for (int i = 0; i < 3; i++) {
            agent.label_count[i] = labels_from_text(db_text(row, 6 + i), &labels[i]);
            agent.labels[i] = labels[i];
        }
        agent.hello = db_blob(row, 9, &agent.hello_size);
        if (key_size == IDENTITY_KEY_SIZE && identity_name_valid(agent.name) && agent.id > 0)
            each(ctx, &agent);
        for (int i = 0; i < 3; i++)
            free(labels[i]);
    }
    return rc;
}

int store_load_tokens(
    store_t *self, void (*each)(void *ctx, const struct stored_token *), void *ctx)
{
    sqlite3_stmt *row = db_bind(&self->db, SQL_TOKENS, "");
    int rc;
    while ((rc = db_step(&self->db, row)) > 0) {
        size_t key_size;
        struct label *labels;
        struct stored_token token = {.id = db_text(row, 0),
            .public_key = db_blob(row, 1, &key_size),
            .created_wall_ns = sqlite3_column_int64(row, 2),
            .expires_wall_ns = sqlite3_column_int64(row, 3),
            .uses = (uint32_t)sqlite3_column_int64(row, 4),
            .used = (uint32_t)sqlite3_column_int64(row, 5),
            .revoked = sqlite3_column_int(row, 6) != 0,
            .by = db_text(row, 7)};
        token.label_count = labels_from_text(db_text(row, 8), &labels);
        token.labels = labels;
        if (key_size == IDENTITY_KEY_SIZE)
            each(ctx, &token);
        free(labels);
    }
    return rc;
}

int store_load_operators(
    store_t *self, void (*each)(void *ctx, const struct stored_operator *), void *ctx)
{
    sqlite3_stmt *row = db_bind(&self->db, SQL_OPERATORS, "");
    int rc;
    while ((rc = db_step(&self->db, row)) > 0) {
        size_t key_size;
        int role = sqlite3_column_int(row, 1);
        struct stored_operator operator_ = {.name = db_text(row, 0),
            .role = (Mp__Role)role,
            .public_key = db_blob(row, 2, &key_size),
            .created_wall_ns = sqlite3_column_int64(row, 3)};
        if (key_size == IDENTITY_KEY_SIZE && identity_name_valid(operator_.name) &&
            role >= MP__ROLE__VIEWER && role <= MP__ROLE__ADMIN)
            each(ctx, &operator_);
    }
    return rc;
}

// -------------------------------------------------------------------------------------- audit

struct audit_put {
    struct job job;
    Mp__AuditEntry *entry;
};

static int audit_put(struct db *db, struct job *job)
{
    const Mp__AuditEntry *entry = ((struct audit_put *)job)->entry;
    return db_run(db, SQL_AUDIT_ADD, "itttt", entry->wall_ns, entry->who, entry->what,
        entry->object, entry->detail);
}

static void audit_put_release(struct job *job)
{
    mp__audit_entry__free_unpacked(((struct audit_put *)job)->entry, NULL);
}

void store_audit(store_t *self, const Mp__AuditEntry *entry)
{
    struct audit_put *job = job_new(sizeof *job, audit_put);
    job->entry = (Mp__AuditEntry *)wire_copy(&entry->base);
    job->job.release = audit_put_release;
    job->job.writes = job->job.patient = job->job.kept = true;
    store_send(self, &job->job);
}

struct audit_get {
    struct job job;
    uint32_t offset, limit, total;
    Mp__AuditEntry **entries;
    size_t count;
    store_audit_done *done;
    void *ctx;
};

static Mp__AuditEntry *audit_row(sqlite3_stmt *row)
{
    Mp__AuditEntry entry = MP__AUDIT_ENTRY__INIT;
    entry.wall_ns = sqlite3_column_int64(row, 0);
    char **texts[] = {&entry.who, &entry.what, &entry.object, &entry.detail};
    for (int i = 0; i < 4; i++)
        if (i < 2 || sqlite3_column_type(row, i + 1) != SQLITE_NULL)
            *texts[i] = (char *)db_text(row, i + 1);
    return (Mp__AuditEntry *)wire_copy(&entry.base);
}

static int audit_get(struct db *db, struct job *job)
{
    struct audit_get *self = (struct audit_get *)job;
    sqlite3_stmt *row = db_bind(db, SQL_AUDIT_COUNT, "");
    int rc = db_step(db, row);
    if (rc < 0)
        return rc;
    self->total = (uint32_t)sqlite3_column_int64(row, 0);
    sqlite3_reset(row);
    uint32_t left = self->total > self->offset ? self->total - self->offset : 0;
    uint32_t limit = self->limit < left ? self->limit : left;
    self->entries = zmalloc(((size_t)limit + 1) * sizeof *self->entries);
    row = db_bind(db, SQL_AUDIT_PAGE, "ii", (int64_t)self->offset, (int64_t)limit);
    size_t bytes = 0;
    while (self->count < limit && (rc = db_step(db, row)) > 0) {
        Mp__AuditEntry *entry = audit_row(row);
        bytes += wire_packed_size(&entry->base) + 8;
        self->entries[self->count++] = entry;
        if (bytes > WIRE_PART_BYTES)
            break;
    }
    if (row)
        sqlite3_reset(row);
    return rc < 0 ? rc : 0;
}

static void audit_get_finish(struct job *job)
{
    struct audit_get *self = (struct audit_get *)job;
    self->done(self->ctx, job->error, self->entries, self->count, self->total);
}

static void audit_get_release(struct job *job)
{
    struct audit_get *self = (struct audit_get *)job;
    for (size_t i = 0; i < self->count; i++)
        mp__audit_entry__free_unpacked(self->entries[i], NULL);
    free(self->entries);
}

void store_get_audit(
    store_t *self, uint32_t offset, uint32_t limit, store_audit_done *done, void *ctx)
{
    struct audit_get *job = job_new(sizeof *job, audit_get);
    job->job.finish = audit_get_finish;
    job->job.release = audit_get_release;
    job->offset = offset;
    job->limit = limit;
    job->done = done;
    job->ctx = ctx;
    store_send(self, &job->job);
}
