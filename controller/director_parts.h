#ifndef MESHPERF_DIRECTOR_PARTS_H
#define MESHPERF_DIRECTOR_PARTS_H

// What the files of the director share; nobody else includes this.
//
//   director.c         the calls of director.h, changes of agents, the turn
//   director_start.c   how a run comes to be: planned, started, resumed
//   director_run.c     a run: cells, commits, changes of its agents, the end
//   director_phase.c   which of a run's tests may start now
//   director_test.c    one bandwidth test
//   director_batches.c which cells the next batch of light probes has
//   director_light.c   one batch of light probes
//   director_arm.c     how it gets ready
//   director_again.c   cells that are measured more than once: passes, alone after the run, and with
//                      several streams
//   director_port.c    what is different where the probes are of ports
//   director_events.c  what followers of a run are told

#include <czmq.h>

#include "bound.h"
#include "director.h"
#include "ledger.h"
#include "passes.h"
#include "planner.h"
#include "scheduler.h"
#include "timers.h"

#define ID_SIZE 16
#define KEY_SIZE 32
#define ID_TEXT_SIZE (2 * ID_SIZE + 1)
#define NO_PHASE UINT32_MAX
#define NO_CELL UINT32_MAX

#define READY_DEADLINE_NS (5 * NS_PER_S)
#define TICKET_EXPIRY_NS (15 * NS_PER_S)
#define HANDSHAKE_NS (3 * NS_PER_S)
#define RESULT_MARGIN_NS (10 * NS_PER_S)
#define SECOND_OPINION_NS (2 * NS_PER_S) // after a failure, for the other end's report
#define QUIET_NS (20 * NS_PER_S)         // longer than any lease: a quiet agent is lost by then
#define QUIET_CHECK_NS (500 * NS_PER_MS)
#define LIMIT_MARGIN_NS (5 * NS_PER_S) // load may flow so much longer than asked
#define ARMED_DEADLINE_NS (10 * NS_PER_S)
#define LIGHT_PEERS_A_PART 500 // under WIRE_PART_BYTES even with the longest names and addresses
#define LIGHT_MARGIN_NS (15 * NS_PER_S)
#define LOST_NS (30 * NS_PER_S)
#define LOST_AT_START_NS (60 * NS_PER_S)
#define SAVE_AGAIN_NS (3 * NS_PER_S)
#define LINGER_NS (15 * NS_PER_S)
#define GATHER_NS (3 * NS_PER_S) // a resumed light phase waits so long for its agents
#define DOUBT_NS (20 * NS_PER_MS) // between two looks for a sign of life
#define SEND_AGAIN_NS (20 * NS_PER_MS)
#define REQUEUES_MAX 20 // a cell whose agents keep going away
#define HOLD_PART 50    // of a test's time: ends that are due are awaited so long
#define HOLD_MOST_NS (50 * NS_PER_MS)
#define STARTS_A_TURN 256
#define UNCOMMITTED_MAX 8192       // beyond it nothing new starts
#define UNCOMMITTED_TROUBLE_MAX 64 // the same while the store cannot write

// An agent as the director knows it.
struct host {
    uint32_t agent_id;
    uint32_t ledger;
    uint32_t tests;   // bandwidth tests and light batches that it takes part in
    bool unreachable; // nothing can be sent although it is not lost yet; until it comes back
};

// A report that its agent keeps until all the cells that came with it are committed.
struct receipt {
    uint32_t agent_id;
    uint32_t cells;
    uint64_t sequence;
};

// A cell on its way into the store.
struct final_cell {
    Mp__Cell *cell;
    struct receipt *receipts[2];
    bool failed_to_save;
};

enum cell_step { CELL_WAITS, CELL_RUNS, CELL_FINAL, CELL_COMMITTED };

struct cell_state {
    struct final_cell *final; // only while CELL_FINAL
    uint8_t step;
    uint8_t attempts;
    uint8_t requeued;
    uint8_t passes; // measurements that are over
    uint8_t again;  // bits of enum again
};

enum again {
    AGAIN_DRAWN = 1, // to be measured again alone: drawn by the seed
    AGAIN_WORST = 2, // or because it is one of the worst
    AGAIN_NOW = 4,   // its turn has come
    AGAIN_DONE = 8,
    AGAIN_FLOWS = 16 // to be measured once more with several streams
};

// A cell as far as it is known, packed.
struct kept_cell {
    uint8_t *bytes;
    size_t size;
};

// What cells of a phase read alone.
struct recheck {
    bool wanted;
    uint32_t worst[RECHECK_WORST_MAX]; // cells
    double worst_bps[RECHECK_WORST_MAX];
    uint32_t worst_count, worst_most;
    double bias[2][RECHECK_DRAWN_MAX + RECHECK_WORST_MAX]; // of the worst, of the drawn
    size_t bias_count[2];
};

// How a host of a run spends a phase.
struct host_use {
    uint32_t in_use;
    bool touched;
    int64_t busy_since_mono_ns, busy_ns;
    int64_t blocked_since_mono_ns, blocked_ns; // since: 0 = it is not
    int64_t last_end_mono_ns;
};

struct event {
    uint64_t number;
    Mp__Event *message;
};

struct events {
    struct event *items; // by rising number
    size_t first, count, room;
    uint64_t next;        // number of the next event
    uint64_t lost_before; // a result or agent event below this number was dropped
};

struct run {
    director_t *director;
    Mp__RunInfo *info;
    uint64_t number;
    struct plan_options options;
    uint32_t agent_count;
    char **names;
    struct host **hosts;       // NULL: the agent is gone for good, or a target
    struct agent **targets;    // owned; NULL: an agent
    struct port *ports;        // that places count into
    struct cell_place *places; // sorted by phase, from, to, port
    struct cell_state *cells;
    uint32_t cell_count;
    uint32_t phase_first[PLANNER_PHASES_MAX + 1];
    uint32_t waiting[PLANNER_PHASES_MAX]; // cells that are not final
    double expected_s[PLANNER_PHASES_MAX];
    uint32_t committed, uncommitted;
    bool cancelled;
    bool resumed;
    bool dirty; // worth looking for a phase with something to start

    uint32_t pass;                            // the one that the active phase is in, from 0
    uint32_t results[PLANNER_PHASES_MAX];     // measurements that are over, all passes
    struct kept_cell *kept;                   // by cell; NULL: no cell is measured twice
    struct recheck rechecks[PLANNER_PHASES_MAX];
    uint32_t alone; // the cell that is measured again alone, or NO_CELL
    double alone_s; // time that such tests took
    bool checks_flows; // what waits now are cells that get several streams
    uint32_t flows_checked, flows_capped; // such cells, and how many were limited by flow

    uint32_t phase;         // the active one, or NO_PHASE
    scheduler_t *scheduler; // of the active phase, unless it is a concurrent light one
    uint64_t schedulers;    // made so far, for other orders
    bound_t *bounds[PLANNER_PHASES_MAX];
    struct host_use *uses; // of the active phase
    int64_t phase_since_mono_ns;
    double light_least_s; // measured time of concurrent light batches
    double turnaround_s, tail_s, blocked_s;
    zlistx_t *tests;   // struct test
    zlistx_t *batches; // struct batch
    int64_t started_mono_ns;
    int64_t gather_until_mono_ns;
    int64_t hold_until_mono_ns, hold_reserved_mono_ns;
    uint64_t look_timer, save_timer, end_timer;
    bool ended; // lingers for followers
    struct events events;
};

struct test {
    struct run *run;
    struct testspec spec;
    char id_text[ID_TEXT_SIZE];
    uint8_t id[ID_SIZE], key[KEY_SIZE];
    uint32_t cell, back;         // back: the other direction's cell with bidir, or NO_CELL
    uint32_t from, to;           // run's agents
    uint32_t ends[2];            // agent ids: sender, receiver
    bool listens[2], aborted[2]; // aborted: this end was told to stop
    bool started, released, failing;
    int64_t reserved_mono_ns, started_wall_ns;
    int64_t asked_mono_ns; // the last time that something was asked of the ends
    int64_t late_mono_ns;  // the first deadline that passed since; 0: none
    Mp__EndReport *reports[2];
    uint64_t sequences[2];
    uint64_t timer;
    void *place; // in run->tests
};

struct light_entry {
    uint8_t id[ID_SIZE];
    uint32_t cell;
    bool resolved;
    // Probes were lost: whether the reflector still lives decides what that means.
    Mp__Cell *doubtful;
    struct receipt *receipt; // a hold on the result that it came with
    int64_t asked_mono_ns;   // when the reflector was asked for a sign of life
    // Ports: what both ends found, and a service that holds the port.
    Mp__LightOutcome *ends[2]; // probing, listening
    struct receipt *receipts[2];
    bool service;
};

struct light_agent {
    uint32_t index;    // in the run
    struct host *host; // stays when the run forgets it, its agent removed
    uint32_t *peers; // entries: probed ones first
    uint32_t peer_count, probed;
    uint32_t part, parts; // next part to arm, and how many
    uint32_t parts_seen;
    bool armed, out; // out: left behind, lost or refused
    bool done;
    bool opened;              // ports: its listeners stand open
    uint32_t heard_parts_seen; // ports: of its results as the listening end
    bool heard;
    char *why; // it is out
};

struct batch {
    struct run *run;
    uint32_t phase;
    char id_text[ID_TEXT_SIZE];
    uint8_t id[ID_SIZE], secret[KEY_SIZE];
    struct testspec spec;
    struct light_entry *entries; // sorted by id
    uint32_t entry_count, unresolved;
    struct light_agent *agents;
    uint32_t agent_count;
    uint32_t from, to; // scheduled: the pair that it holds; from == to: none
    bool going, ending;
    bool ports, opening, closing; // of ports: listeners open before probes go, and close after them
    int64_t since_mono_ns, started_wall_ns;
    uint64_t timer, send_timer, doubt_timer;
    void *place; // in run->batches
};

enum change { CHANGE_UP, CHANGE_FRESH, CHANGE_LOST, CHANGE_REMOVED, CHANGE_CHANGED };

struct agent_change {
    uint32_t agent_id;
    enum change what;
};

struct director {
    registry_t *registry;
    const struct clock *clock;
    struct director_ops ops;
    timers_t *timers;
    ledger_t *ledger;
    uint64_t epoch, next_run, tests_done;
    int64_t started_mono_ns;
    char *trouble;
    struct host **hosts; // by agent id
    size_t host_room;
    zlistx_t *runs;        // struct run, in order of start; ended ones linger
    zhashx_t *tests;       // id as text -> struct test
    zhashx_t *batches;     // id as text -> struct batch
    struct run *exclusive; // a concurrent bandwidth phase has the mesh to itself
    struct agent_change *changes;
    size_t change_count, change_room;
    Mp__Cell scratch;   // answer of director_cell
    Mp__Event **answer; // answer of director_events
};

// ------------------------------------------------------------------------------------ director.c

struct run *director_run(director_t *self, const char *run_id); // ended ones too; NULL: none
struct host *director_host(director_t *self, uint32_t agent_id);
void id_text(const uint8_t id[ID_SIZE], char text[ID_TEXT_SIZE]);
// Sends STOP; an agent that is not there is left to its own deadlines.
void director_stop(director_t *self, uint32_t agent_id, const uint8_t id[ID_SIZE], const char *why);

// -------------------------------------------------------------------------------- director_run.c

struct run *run_new(director_t *director, const Mp__RunInfo *info,
    const struct plan_options *options, const struct cell_place *places);
void run_destroy(struct run **self_p);
void run_set_agent(struct run *self, uint32_t index, const char *name, uint32_t agent_id);
void run_set_target(
    struct run *self, uint32_t index, const char *name, char *const *addresses, size_t count);
void run_restore(struct run *self, const bool *done);
// The agent (or target) behind an index, or NULL if it was removed.
struct agent *run_agent(const struct run *self, uint32_t index);
bool run_agent_there(const struct run *self, uint32_t index);
// A phase's cell of this pair (the first, of ports), or NO_CELL.
uint32_t run_cell_of(const struct run *self, uint32_t phase, uint32_t from, uint32_t to);
// The port of a place, or NULL.
const struct port *run_port(const struct run *self, const struct cell_place *place);
void run_agent_changed(struct run *self, uint32_t agent_id, enum change what);
void run_cancel(struct run *self);
void run_saved(struct run *self, uint32_t index, int error);
void run_refresh(struct run *self); // brings info up to date

void run_end(struct run *self); // every cell is committed

// The first test of a run begins.
void run_begins(struct run *self);
// The rest of a run's cells: a new cell with the place filled in; then hand it to run_cell_final,
// which takes it and the receipts (each may be NULL).
Mp__Cell *run_cell_new(
    const struct run *self, uint32_t index, Mp__CellState state, const char *reason);
void run_cell_final(
    struct run *self, Mp__Cell *cell, struct receipt *first, struct receipt *second);
void run_cell_end(struct run *self, uint32_t index, Mp__CellState state, const char *reason);
struct receipt *receipt_new(uint32_t agent_id, uint64_t sequence);
// Tells the agent at once if no cell refers to it.
void receipt_settle(director_t *self, struct receipt **receipt_p);
// The cell goes back to the waiting ones. `lost`: an agent went away; it costs no attempt.
// False if there were too many: the cell is final then.
bool run_cell_again(struct run *self, uint32_t index, bool lost);

// ------------------------------------------------------------------------------ director_again.c

void again_prepare(struct run *self);
void again_release(struct run *self);
// Is this cell one of those that the active phase measures now?
bool again_due(const struct run *self, uint32_t index);
// What is measured of it now.
void again_spec(const struct run *self, uint32_t index, struct testspec *spec);
// A measurement becomes a cell: with the earlier passes, or beside the value that it had in the run.
// Takes the cell.
Mp__Cell *again_absorb(struct run *self, Mp__Cell *measured);
// Its cell is committed, and waits for the next pass (true), or is what the run says of it.
bool again_committed(struct run *self, const Mp__Cell *cell);
// A cell that an earlier life of the controller committed.
void again_restore(struct run *self, const Mp__Cell *cell);
// The next cell to be measured alone goes back into the plan, or all those whose flows are checked.
// False: there is none.
bool again_next(struct run *self);
// Seconds that the flow checks still to be done will take; 0: there are none.
double again_left_s(const struct run *self);
void again_summarize(struct run *self); // at the end, into the run's info

// ------------------------------------------------------------------------------ director_phase.c

// Starts what can start. Returns false if later runs must wait behind this one.
bool run_turn(struct run *self, unsigned *starts_left);
void run_phase_leave(struct run *self);
void run_host_busy(struct run *self, uint32_t index, bool busy);
// A test that began at this time has ended: others that did are about to.
void run_hold(struct run *self, int64_t reserved_mono_ns);

// ------------------------------------------------------------------------------- director_test.c

void test_start(struct run *run, uint32_t from, uint32_t to);
void test_ready(struct test *self, uint32_t agent_id);
void test_result(struct test *self, uint32_t agent_id, const Mp__Result *result);
// The agent is lost: the pair goes back into the plan.
void test_agent_gone(struct test *self, uint32_t agent_id);
// Stops both ends and forgets the test; its cells keep their state.
void test_abort(struct test **self_p, const char *why);
bool test_has(const struct test *self, uint32_t agent_id);

// ---------------------------------------------------------------------------- director_batches.c

// Chooses the next cells of a concurrent light phase. False if hosts are busy: wait.
bool batch_start_next(struct run *run);

// ------------------------------------------------------------------------------ director_light.c

// A batch of these cells (all waiting, all of the active phase); hosts are already claimed if
// `scheduled`, otherwise the batch claims them. Cells are marked as running.
void batch_start(
    struct run *run, const uint32_t *cells, uint32_t count, double rate, bool scheduled);
bool batch_result(struct batch *self, uint32_t agent_id, const Mp__LightResult *result);
void batch_opened(struct batch *self, uint32_t agent_id, const Mp__LightOpened *opened);
void batch_agent_gone(struct batch *self, uint32_t agent_id);
void batch_abort(struct batch **self_p, const char *why);
bool batch_has(const struct batch *self, uint32_t agent_id);

// Shared with director_arm.c and director_port.c.
const struct cell_place *batch_place(const struct batch *self, uint32_t entry);
struct light_agent *batch_agent(const struct batch *self, uint32_t agent_id);
struct light_entry *batch_entry(const struct batch *self, const ProtobufCBinaryData *id);
int batch_send(struct batch *self, const struct light_agent *agent, Mp__Envelope *envelope);
void batch_go(struct batch *self);
void batch_leave_out(
    struct batch *self, struct light_agent *agent, bool lost, const char *why);
// Leaves out all who are still awaited: "NAME did not WHAT within N s".
void batch_leave_out_late(struct batch *self, bool (*awaited)(const struct light_agent *),
    const char *what, int64_t waited_ns);
bool batch_awaits(const struct batch *self, bool (*awaited)(const struct light_agent *));
void batch_refused(struct batch *self, struct light_agent *agent, const char *why); // for good
void batch_entry_again(struct batch *self, uint32_t entry, bool lost, const char *why);
void batch_entry_final(
    struct batch *self, uint32_t entry, Mp__Cell *cell, struct receipt *first, struct receipt *second);
bool batch_settle(struct batch *self); // true if it is over and gone
void batch_deadline(struct batch *self, int64_t delay_ns); // everything that is open then goes back

// -------------------------------------------------------------------------------- director_arm.c

void batch_arm(struct batch *self); // sends the lists
void batch_armed(struct batch *self, uint32_t agent_id, const Mp__LightArmed *armed);
// Goes on to the probes, or to the listeners of ports, as soon as nobody is awaited.
void batch_go_if_armed(struct batch *self);

// ------------------------------------------------------------------------------- director_port.c

// Every agent has its list: listeners open now, probes go after them.
void ports_open(struct batch *self);
void ports_go(struct batch *self, struct light_agent *agent, Mp__LightGo *go);
int64_t ports_duration_ns(const struct batch *self);
bool ports_result(struct batch *self, struct light_agent *agent, const Mp__LightResult *result);
void ports_forget(struct batch *self, uint32_t entry); // what its ends said
// Both ends' part in what is left of a batch without this agent.
bool ports_still_good(const struct batch *self, const struct light_agent *agent, uint32_t entry);
void ports_close_if_probed(struct batch *self);
bool ports_end(struct batch *self, uint32_t number);
void ports_part(const struct batch *self, uint32_t entry, bool probes, Mp__LightPeer *peer);
// Chooses the cells of the next batch: keeps them at the front of `cells`, and returns how many.
uint32_t ports_thin(struct run *run, uint32_t *cells, uint32_t count);

// ----------------------------------------------------------------------------- director_events.c

void events_result(struct run *run, Mp__Cell **cell_p); // takes the cell
void events_interval(struct run *run, uint32_t cell, const Mp__Interval *interval);
void events_agent(struct run *run, const char *agent, const char *text);
void events_release(struct events *events);
void events_answer(struct run *run, uint64_t since, uint32_t limit, Mp__EventsAnswer *answer);

#endif
