#ifndef MESHPERF_DIRECTOR_BENCH_H
#define MESHPERF_DIRECTOR_BENCH_H

// A world for the director in one process: a registry, fake agents that answer orders with made-up
// reports, a fake store, and a clock that jumps to the next thing that happens.

#include <czmq.h>

#include "clock.h"
#include "director.h"

#define AGENTS_MAX 60
#define CELLS_MAX 8192

struct happening {
    int64_t due_ns;
    uint32_t agent;
    Mp__Envelope *answer; // as from the agent
    uint64_t order;
};

struct mesh {
    registry_t *registry;
    director_t *director;
    int64_t now_ns;
    struct clock clock;
    struct happening *happenings;
    size_t happening_count;
    uint64_t order;
    uint64_t sequence[AGENTS_MAX + 1];
    uint64_t done_reports[AGENTS_MAX + 1], sent_reports[AGENTS_MAX + 1];
    uint32_t prepares, starts, stops, arms;
    bool silent[AGENTS_MAX + 1];        // takes orders, answers nothing
    uint32_t fail_next[AGENTS_MAX + 1]; // so many reports are failures
    Mp__Outcome fail_as;
    bool fail_retry;
    bool receiver_first;
    double bps[64]; // that the tests read, in turn; 0: 1e6
    size_t bps_count, bps_next;
    bool network;              // is what limits all of them
    double gain;               // of several streams
    uint32_t streams;          // of the test that began last
    uint32_t many;             // tests with several streams
    bool dead[AGENTS_MAX + 1]; // sends no heartbeats any more
    bool dies[AGENTS_MAX + 1]; // will be dead after its next READY, or once its listeners are open
    // Ports: lists as armed (one part), what probes observe, and messages of each step.
    Mp__Envelope *port_arms[AGENTS_MAX + 1];
    Mp__Observed observed;
    uint32_t opens, goes, closes, most_probes; // most_probes: that one agent got in a batch
    bool service;                              // services hold all ports
    uint32_t told_services;                    // ids that probing ends were told of
    // the store
    int store_error;
    uint32_t saves;
    Mp__CellState states[CELLS_MAX];
    char *reasons[CELLS_MAX];
    uint32_t attempts[CELLS_MAX];
    uint32_t commits[CELLS_MAX]; // of final cells, without what was measured again alone
    uint32_t partial[CELLS_MAX],
        again[CELLS_MAX];      // commits of unfinished passes, and of the latter
    Mp__Cell *kept[CELLS_MAX]; // as last saved
    struct {
        char run[DIRECTOR_RUN_ID_SIZE];
        uint32_t index, *counter;
    } saving[CELLS_MAX];
    size_t saving_count;
    char ended[DIRECTOR_RUN_ID_SIZE];
    Mp__RunInfo *info; // as last saved
    uint32_t cells;
    struct cell_place *places;
    uint32_t ids[AGENTS_MAX];
};

struct ask {
    Mp__TestKind kinds[3];
    size_t count;
    bool bidir, one_way; // one_way: h1 to h2
    Mp__Mode mode;
    uint32_t passes;
    bool flow_check;
};

struct mesh *mesh_new(uint32_t agents);
void mesh_free(struct mesh **mesh_p);
void mesh_open_director(struct mesh *mesh); // again, after the first one was destroyed

// Starts a run and tells its id.
void mesh_start(struct mesh *mesh, const struct ask *ask, char run[DIRECTOR_RUN_ID_SIZE]);
// Lets time pass until the deadline, or until nothing more is going to happen.
void mesh_pass(struct mesh *mesh, int64_t duration_ns);
void mesh_lose(struct mesh *mesh, uint32_t agent);
void mesh_come_back(struct mesh *mesh, uint32_t agent, bool fresh);

uint32_t mesh_count(const struct mesh *mesh, Mp__CellState state); // cells in this state
void mesh_assert_reports_done(const struct mesh *mesh);

#endif
