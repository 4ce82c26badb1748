#ifndef MESHPERF_STORE_PARTS_H
#define MESHPERF_STORE_PARTS_H

// How the store's files fit together. Private to the store and its tests.
//
// A job is a heap object whose ownership travels with its pointer over a PAIR of sockets: the
// control thread makes it, the writer works it off, and it comes back to store_dispatch, which
// calls `finish` and releases it. Writes gather in a batch that is one transaction; a read ends the
// batch first.

#include <czmq.h>
#include <pthread.h>

#include "store.h"
#include "store_sql.h"

struct job {
    int (*work)(struct db *db, struct job *self); // writer: 0 or a negative error
    void (*finish)(struct job *self);             // control thread; may be NULL
    void (*release)(struct job *self); // frees what the job owns, not the job; may be NULL
    int error;
    bool writes;
    bool patient;           // may wait for others to be committed with it
    bool kept;              // nobody is told of a failure: it is tried again until it succeeds
    const char *supersedes; // a kept job replaces the earlier one with the same word; may be NULL
};

struct store {
    struct db db;
    char path[512];
    zsock_t *front; // control thread's end
    zsock_t *back;  // the writer's
    pthread_t writer;
    bool started;
    char *trouble; // NULL: the last write succeeded
};

// ------------------------------------------------------------------------------ store.c

void *job_new(size_t size, int (*work)(struct db *db, struct job *self));
void job_free(struct job **self_p);
void store_send(store_t *self, struct job *job); // takes the job

// A completion that only says how it ended.
struct told {
    store_done *done;
    void *ctx;
};

// ----------------------------------------------------------------------- store_writer.c

// Body of the writer's thread: works off jobs until it is sent a NULL pointer. Argument: store_t.
void *store_writer(void *arg);

// -------------------------------------------------------------------------- store_runs.c

#define STORE_RUN_SHIFT 24 // bits of a cell's index within its id

struct stored_run {
    int64_t number;
    char id[DIRECTOR_RUN_ID_SIZE];
    uint32_t agents, cells;
    Mp__Envelope *answer; // RUN_ANSWER with the run's info; owned
};
// The run `name`, or the newest for "last". 0, MESH_E_NOT_FOUND or an error.
int stored_run_find(struct db *db, const char *name, struct stored_run *run)
    __attribute__((warn_unused_result));
void stored_run_release(struct stored_run *run);
// Number of "r-17"; 0 for anything else.
int64_t stored_run_number(const char *id);
// Takes over a row of number, id, agents, cells, info; MESH_E_NOT_FOUND if there is none.
int stored_run_step(struct db *db, sqlite3_stmt *row, struct stored_run *run)
    __attribute__((warn_unused_result));
// Agents from `offset` until `bytes_max` is reached; `agents` has room for all, `ids` may be NULL.
int stored_agents(struct db *db, const struct stored_run *run, uint32_t offset, size_t bytes_max,
    Mp__RunAgent **agents, uint32_t *ids, size_t *count) __attribute__((warn_unused_result));
void stored_agents_free(Mp__RunAgent **agents, size_t count);

// ------------------------------------------------------------------------ store_places.c

#define STORE_PLACES_CHUNK 4096u // places in one row
#define STORE_PLACE_BYTES 12     // a packed place

uint8_t *stored_places_pack(const struct cell_place *places, size_t count); // the caller's
// Places [offset, offset + count), which the run must have.
int stored_places(struct db *db, const struct stored_run *run, uint32_t offset, uint32_t count,
    struct cell_place *places) __attribute__((warn_unused_result));

#endif
