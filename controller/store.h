#ifndef MESHPERF_STORE_H
#define MESHPERF_STORE_H

// SQLite (WAL) behind one interface: runs, agents as they were, cells, agents, tokens, operators,
// audit, settings. One actor thread owns the database; the control thread only sends jobs and gets
// completions, in order, by store_dispatch. Everything before store_start is synchronous.
// A failed write (disk full, read-only) changes nothing, is reported with words, and the store
// stays usable: store_trouble says whether the last write failed; a probe write is tried again
// every few seconds while it did.

#include <czmq.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "director.h"
#include "identity.h"
#include "meshperf.pb-c.h"

typedef struct store store_t;

// Opens or creates the file, migrates forward (each step in a transaction), refuses a schema newer
// than ours. NULL with a sentence in `error` (512 bytes).
store_t *store_new(const char *path, char *error);
void store_destroy(store_t **self_p);   // finishes queued writes first

// --------------------------------------------------- synchronous, before store_start

// Adds one and commits: the controller's epoch.
int store_next_epoch(store_t *self, uint64_t *epoch) __attribute__((warn_unused_result));
uint64_t store_next_run_number(store_t *self);

struct stored_agent {
    uint32_t id;
    const char *name;
    const uint8_t *key;
    const char *token;
    int64_t enrolled_wall_ns;
    bool draining;
    // Three strengths of labels, kept apart: 0 = --label, 1 = token, 2 = agent label.
    const struct label *labels[3];
    size_t label_count[3];
    const uint8_t *hello;          // packed Mp__Hello of its last registration, or NULL
    size_t hello_size;
};
struct stored_token {
    const char *id;                // 8 hex digits
    const uint8_t *public_key;
    int64_t created_wall_ns, expires_wall_ns;
    uint32_t uses, used;
    bool revoked;
    const char *by;
    const struct label *labels;
    size_t label_count;
};
struct stored_operator {
    const char *name;
    Mp__Role role;
    const uint8_t *public_key;
    int64_t created_wall_ns;
};
int store_load_agents(store_t *self, void (*each)(void *ctx, const struct stored_agent *), void *ctx);
int store_load_tokens(store_t *self, void (*each)(void *ctx, const struct stored_token *), void *ctx);
int store_load_operators(store_t *self, void (*each)(void *ctx, const struct stored_operator *), void *ctx);
// Every run that is not in a final state, oldest first, ready for director_resume.
int store_load_unfinished(store_t *self, void (*each)(void *ctx, const Mp__RunInfo *info,
    Mp__RunAgent *const *agents, const uint32_t *agent_ids, const struct cell_place *places,
    const bool *done), void *ctx);

// Every cell that such a run has committed, by rising index; may be called from `each` of the above.
int store_load_cells(store_t *self, const char *run, void (*each)(void *ctx, const Mp__Cell *), void *ctx);

// --------------------------------------------------- asynchronous, after store_start

void store_start(store_t *self);
zsock_t *store_socket(store_t *self);   // readable: call store_dispatch
void store_dispatch(store_t *self);     // runs completions in the caller's thread
const char *store_trouble(store_t *self);   // NULL, or why the last write failed

// `done` (may be NULL) is called from store_dispatch with 0 or a negative error. Arguments are copied.
typedef void store_done(void *ctx, int error);
void store_put_agent(store_t *self, const struct stored_agent *agent, store_done *done, void *ctx);
void store_drop_agent(store_t *self, uint32_t id, store_done *done, void *ctx);
void store_put_token(store_t *self, const struct stored_token *token, store_done *done, void *ctx);
void store_put_operator(store_t *self, const struct stored_operator *operator_, store_done *done, void *ctx);
void store_drop_operator(store_t *self, const char *name, store_done *done, void *ctx);
void store_audit(store_t *self, const Mp__AuditEntry *entry);

// `policy` (may be NULL) is the text that the run is a check of: committed with it or not at all.
struct stored_policy {
    const void *text;
    size_t size;
};
void store_put_new_run(store_t *self, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
    const uint32_t *agent_ids, const struct cell_place *places, const struct stored_policy *policy,
    store_done *done, void *ctx);
void store_put_run(store_t *self, const Mp__RunInfo *info);
// A second copy of a final cell changes nothing, unless it was measured again alone since. With
// --passes a cell comes after each of them, PENDING until its last one. Cells queue up and are committed together (at most 20 ms or 500 cells later). A cell of a run whose
// own commit failed (so that its start was refused) is dropped without an error. store_put_run and
// store_audit tell nobody: on trouble they are kept and written once the store works again.
typedef void store_cell_done(void *ctx, const char *run, uint32_t cell_index, int error);
void store_put_cell(store_t *self, const char *run, const Mp__Cell *cell, store_cell_done *done, void *ctx);

// Reading, in the actor too, so that a page sees every earlier write. The callback gets borrowed
// messages; `error` is negative (MESH_E_NOT_FOUND) or 0. `run` may be "last".
typedef void store_runs_done(void *ctx, int error, Mp__RunInfo *const *runs, size_t count, uint32_t total);
void store_get_runs(store_t *self, uint32_t offset, uint32_t limit, store_runs_done *done, void *ctx);
typedef void store_run_done(void *ctx, int error, const Mp__RunInfo *info, Mp__RunAgent *const *agents, size_t count);
void store_get_run(store_t *self, const char *run, uint32_t agents_offset, store_run_done *done, void *ctx);
// Cells [offset, offset + limit) as far as WIRE_PART_BYTES goes; cells without a row come as PENDING.
typedef void store_cells_done(void *ctx, int error, const char *run, Mp__Cell *const *cells, size_t count, uint32_t total);
void store_get_cells(store_t *self, const char *run, uint32_t offset, uint32_t limit, store_cells_done *done, void *ctx);
// The policy's text from `offset` on, at most WIRE_PART_BYTES of `total`; MESH_E_NOT_FOUND: there is
// no such run, or it is no check.
typedef void store_policy_done(void *ctx, int error, const void *bytes, size_t size, uint32_t total);
void store_get_policy(store_t *self, const char *run, uint32_t offset, store_policy_done *done, void *ctx);
typedef void store_audit_done(void *ctx, int error, Mp__AuditEntry *const *entries, size_t count, uint32_t total);
void store_get_audit(store_t *self, uint32_t offset, uint32_t limit, store_audit_done *done, void *ctx);

#endif
