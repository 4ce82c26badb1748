#ifndef MESHPERF_DIRECTOR_H
#define MESHPERF_DIRECTOR_H

// Runs from request to the last cell: plans, schedules, prepares and starts tests, merges both ends'
// reports, retries, and gives up. No I/O of its own: messages and commits go out through
// `struct director_ops`, everything else comes in by the calls below. One thread (control).
// The clock is handed in, so tests own time.
//
// After the end a run knows its lower bound, computed from the time that each test really occupied its
// hosts (from PREPARE to the sender's report, failures included), and where the rest went, as means
// over its hosts in seconds: `tail` = after the host's last test of a phase until the phase ended;
// `blocked` = idle although a partner was free, held back by a machine or shared value; `turnaround` =
// all other idle time between tests, and what arming and collecting of light probes took.
// A run that an earlier life of the controller began is accounted from the restart on.
//
// A run that has ended stays known to director_events for some seconds, so that followers see its
// last events; for everything else it is not active any more.
//
// A test's life: PREPARE -> READY -> START -> reports of both ends -> merged cell. Each step has a
// deadline (director_turn enforces them); on failure both ends get STOP. Losing an agent re-queues
// its tests; a cell becomes `lost` when its agent has been lost for 30 s (60 s after the
// controller's start) and nothing else of the run is left to do, or at once when it is removed.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "meshperf.pb-c.h"
#include "registry.h"

typedef struct director director_t;

#define DIRECTOR_RUN_ID_SIZE 24
#define DIRECTOR_RUNS_MAX 64            // active at once
#define DIRECTOR_CELLS_MAX 4000000      // in one run

// Where a cell stands in the matrix; the compact form kept with the run.
struct cell_place {
    uint8_t kind;      // Mp__TestKind
    uint8_t phase;
    uint16_t port;     // kind port: index into the run's table of ports (info->ports); else 0
    uint8_t listener;  // kind port: enum port_listener
    uint32_t from;     // index into the run's agents
    uint32_t to;
};
struct plan_cells; // planner.h

struct director_ops {
    void *ctx;
    // To one agent. 0; -EAGAIN (its queue is full), MESH_E_NOT_FOUND (no session). Does not keep
    // the envelope; fills in the session id.
    int (*send)(void *ctx, uint32_t agent_id, Mp__Envelope *envelope);
    // A report that came with `sequence` from this agent needs no more keeping there: its cell is
    // committed, or the report is superfluous.
    void (*report_done)(void *ctx, uint32_t agent_id, uint64_t sequence);
    // Persist. Pointers are borrowed for the call. Completion of cells is told by director_saved.
    // A new run: `info`, its agents and places (info->cells many).
    void (*save_new_run)(void *ctx, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
        const uint32_t *agent_ids, const struct cell_place *places);
    void (*save_run)(void *ctx, const Mp__RunInfo *info);                // state, times, counters
    void (*save_cell)(void *ctx, const char *run, const Mp__Cell *cell); // final cells only
};

director_t *director_new(registry_t *registry, const struct clock *clock,
    const struct director_ops *ops);
void director_destroy(director_t **self_p);

// The controller's epoch, which PREPARE, START and LIGHT_ARM carry. Before the first turn.
void director_set_epoch(director_t *self, uint64_t epoch);

// Numbers of runs continue after the highest one ever given.
void director_set_next_run(director_t *self, uint64_t number);

// What a run would do; nothing is started. 0 or a negative error and a Refused code with words.
// The answer is the caller's: director_plan_release.
struct director_refusal { Mp__Refused__Code code; char text[512]; };
int director_plan(director_t *self, const Mp__RunRequest *request, Mp__PlanAnswer *answer,
    struct director_refusal *refusal) __attribute__((warn_unused_result));
void director_plan_release(Mp__PlanAnswer *answer);

int director_start(director_t *self, const Mp__RunRequest *request, const char *by,
    char run_id[DIRECTOR_RUN_ID_SIZE], struct director_refusal *refusal)
    __attribute__((warn_unused_result));

// The same for an explicit list of cells instead of a selection (planner_plan_cells).
int director_start_cells(director_t *self, const Mp__RunRequest *request,
    const struct plan_cells *cells, const char *by, char run_id[DIRECTOR_RUN_ID_SIZE],
    struct director_refusal *refusal) __attribute__((warn_unused_result));

// Continues a run of an earlier life of the controller. `done` has one bool per cell (committed in
// a final state; with --passes a cell is committed after each of them, PENDING until the last). Agents that are not registered any more are lost for good: their id is 0.
int director_resume(director_t *self, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
    const uint32_t *agent_ids, const struct cell_place *places, const bool *done)
    __attribute__((warn_unused_result));

// Cells are measured more than once in such a run: director_resume_cell must be given each one that
// was committed, final or not, after director_resume and before the first turn.
bool director_wants_cells(const Mp__RunInfo *info);
void director_resume_cell(director_t *self, const char *run_id, const Mp__Cell *cell);

int director_cancel(director_t *self, const char *run_id);   // 0 or MESH_E_NOT_FOUND

// From agents. The server has already checked session and sequence (no duplicates arrive here).
void director_ready(director_t *self, uint32_t agent_id, const Mp__Ready *ready);
void director_progress(director_t *self, uint32_t agent_id, const Mp__Progress *progress);
void director_result(director_t *self, uint32_t agent_id, const Mp__Result *result);
void director_light_armed(director_t *self, uint32_t agent_id, const Mp__LightArmed *armed);
void director_light_opened(director_t *self, uint32_t agent_id, const Mp__LightOpened *opened);
void director_light_result(director_t *self, uint32_t agent_id, const Mp__LightResult *result);

// Changes of an agent. `fresh` = another process than before (its running tests are gone).
void director_agent_up(director_t *self, uint32_t agent_id, bool fresh);
void director_agent_lost(director_t *self, uint32_t agent_id);
void director_agent_removed(director_t *self, uint32_t agent_id);
void director_agent_changed(director_t *self, uint32_t agent_id);   // drained or resumed

// A cell's commit ended; error 0, or negative and the director keeps the cell and hands it to
// save_cell again later (every few seconds) without measuring it again.
void director_saved(director_t *self, const char *run_id, uint32_t cell_index, int error);
// The store cannot write (disk full, read-only): new runs are refused with these words; NULL: it can.
void director_storage(director_t *self, const char *trouble);

// Works off everything that is due and returns the next deadline (monotonic), INT64_MAX if none.
// Call after any of the above and when the deadline has come.
int64_t director_turn(director_t *self);

// Questions about active runs. NULL / false if the run is not active (ask the store).
const Mp__RunInfo *director_info(director_t *self, const char *run_id);  // borrowed until the next call
size_t director_active(director_t *self, const Mp__RunInfo **infos, size_t room);
bool director_agent_busy(director_t *self, uint32_t agent_id);
uint64_t director_tests_done(const director_t *self);
// State of a cell that is not committed yet (pending, running, or waiting for its commit). The
// returned cell is borrowed until the next call; NULL: the run is not active or has no such cell.
const Mp__Cell *director_cell(director_t *self, const char *run_id, uint32_t index);
// Events since a number, at most `limit` and about WIRE_PART_BYTES; false if the run is not active.
// Pointers in the answer are borrowed until the next call of any director function.
bool director_events(director_t *self, const char *run_id, uint64_t since, uint32_t limit,
    Mp__EventsAnswer *answer);

#endif
