#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "errors.h"
#include "log.h"
#include "store_parts.h"

#define BATCH_JOBS_MAX 500
#define BATCH_WAIT_NS (20 * NS_PER_MS)
#define PROBE_NS (2 * NS_PER_S)
#define KEPT_MAX 4096

// The writer's own state; nothing of it is seen by the control thread.
struct writer {
    store_t *store;
    struct db *db;
    zsock_t *socket;
    struct job *batch[KEPT_MAX + BATCH_JOBS_MAX]; // kept ones from a failed batch first
    size_t count;
    size_t kept;           // how many of them were tried before
    int64_t due_mono_ns;   // the batch is committed then
    int64_t probe_mono_ns; // next trial while in trouble
    int trouble;           // error of the last write, 0: it succeeded
};

static void give_back(struct writer *self, struct job *job)
{
    if (zsock_send(self->socket, "p", job) != 0)
        job_free(&job);
}

// ------------------------------------------------------------------------------------- trouble

struct trouble {
    struct job job;
    store_t *store;
    char *text;
};

static void trouble_finish(struct job *job)
{
    struct trouble *self = (struct trouble *)job;
    free(self->store->trouble);
    self->store->trouble = self->text;
    self->text = NULL;
}

static void trouble_release(struct job *job)
{
    free(((struct trouble *)job)->text);
}

// Travels before the completions that it explains.
static void tell_trouble(struct writer *self, int error)
{
    if (error == self->trouble)
        return;
    self->trouble = error;
    struct trouble *trouble = job_new(sizeof *trouble, NULL);
    trouble->job.finish = trouble_finish;
    trouble->job.release = trouble_release;
    trouble->store = self->store;
    if (error)
        trouble->text = zsys_sprintf("%s: %s", self->store->path, mesh_strerror(error));
    give_back(self, &trouble->job);
}

// --------------------------------------------------------------------------------- transactions

static int transact(struct writer *self, struct job **jobs, size_t count, bool probe)
{
    int rc = db_run(self->db, SQL_BEGIN, "");
    if (rc == 0 && probe)
        rc = db_run(self->db, SQL_PROBE, "");
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = jobs[i]->work(self->db, jobs[i]);
    if (rc == 0)
        rc = db_run(self->db, SQL_COMMIT, "");
    // Some failures have rolled back already.
    if (rc != 0 && !sqlite3_get_autocommit(self->db->handle))
        (void)!db_run(self->db, SQL_ROLLBACK, "");
    return rc;
}

// Keeps what nobody else keeps; the newest state of a run replaces an older one.
static bool keep(struct writer *self, struct job *job, size_t *kept)
{
    if (!job->kept)
        return false;
    for (size_t i = 0; job->supersedes && i < *kept; i++) {
        if (self->batch[i]->supersedes &&
            strcmp(self->batch[i]->supersedes, job->supersedes) == 0) {
            give_back(self, self->batch[i]);
            self->batch[i] = job;
            return true;
        }
    }
    if (*kept == KEPT_MAX)
        return false;
    self->batch[(*kept)++] = job;
    return true;
}

static void fail_batch(struct writer *self, int error)
{
    tell_trouble(self, error);
    size_t kept = 0;
    for (size_t i = 0; i < self->count; i++) {
        struct job *job = self->batch[i];
        job->error = error;
        if (!keep(self, job, &kept))
            give_back(self, job);
    }
    self->count = self->kept = kept;
    self->probe_mono_ns = clock_mono_ns() + PROBE_NS;
}

// One job of the batch cannot be done, whatever room there is: each on its own.
static void flush_singly(struct writer *self)
{
    for (size_t i = 0; i < self->count; i++) {
        struct job *job = self->batch[i];
        job->error = transact(self, &job, 1, false);
        if (db_error_is_storage(job->error)) {
            self->count -= i;
            memmove(self->batch, self->batch + i, self->count * sizeof *self->batch);
            fail_batch(self, job->error);
            return;
        }
        if (job->error && job->kept)
            log_error("a row cannot be stored: %s", mesh_strerror(job->error));
        give_back(self, job);
    }
    self->count = self->kept = 0;
}

static void flush(struct writer *self)
{
    if (self->count == 0 && !self->trouble)
        return;
    int rc = transact(self, self->batch, self->count, self->trouble != 0);
    if (rc != 0 && db_error_is_storage(rc)) {
        fail_batch(self, rc);
        return;
    }
    tell_trouble(self, 0);
    if (rc != 0) {
        flush_singly(self);
        return;
    }
    for (size_t i = 0; i < self->count; i++) {
        self->batch[i]->error = 0;
        give_back(self, self->batch[i]);
    }
    self->count = self->kept = 0;
}

// ------------------------------------------------------------------------------------ the loop

static bool batch_prompt(const struct writer *self)
{
    for (size_t i = self->kept; i < self->count; i++)
        if (!self->batch[i]->patient)
            return true;
    return false;
}

static void take(struct writer *self, struct job *job)
{
    if (job->writes) {
        if (self->count == self->kept)
            self->due_mono_ns = clock_mono_ns() + BATCH_WAIT_NS;
        self->batch[self->count++] = job;
        if (self->count - self->kept >= BATCH_JOBS_MAX)
            flush(self);
        return;
    }
    if (self->count > self->kept)
        flush(self);
    job->error = job->work(self->db, job);
    give_back(self, job);
}

// How long to wait for a job; the queue is worked off before a batch with nobody waiting is.
static int wait_ms(const struct writer *self)
{
    int64_t due_ns = INT64_MAX;
    if (self->count > self->kept)
        due_ns = batch_prompt(self) ? 0 : self->due_mono_ns;
    if (self->trouble && self->probe_mono_ns < due_ns)
        due_ns = self->probe_mono_ns;
    if (due_ns == INT64_MAX)
        return -1;
    int64_t left_ns = due_ns - clock_mono_ns();
    return left_ns <= 0 ? 0 : (int)((left_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static bool flush_due(const struct writer *self)
{
    int64_t now_ns = clock_mono_ns();
    if (self->count > self->kept && (batch_prompt(self) || now_ns >= self->due_mono_ns))
        return true;
    return self->trouble && now_ns >= self->probe_mono_ns;
}

void *store_writer(void *arg)
{
    struct writer *self = zmalloc(sizeof *self);
    self->store = arg;
    self->db = &self->store->db;
    self->socket = self->store->back;
    for (;;) {
        zmq_pollitem_t item = {.socket = zsock_resolve(self->socket), .events = ZMQ_POLLIN};
        int ready = zmq_poll(&item, 1, wait_ms(self));
        if (ready > 0) {
            struct job *job = NULL;
            if (zsock_recv(self->socket, "p", &job) == 0) {
                if (!job)
                    break;
                take(self, job);
                continue;
            }
        }
        if (flush_due(self))
            flush(self);
    }
    flush(self);
    for (size_t i = 0; i < self->count; i++)
        job_free(&self->batch[i]);
    free(self);
    return NULL;
}
