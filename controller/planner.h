#ifndef MESHPERF_PLANNER_H
#define MESHPERF_PLANNER_H

// From a request to phases, agents and cells, and what they will cost. Pure: reads the registry,
// starts nothing, keeps nothing. Every number that a peer chose is checked here.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "meshperf.pb-c.h"
#include "ports.h"
#include "registry.h"
#include "testspec.h"

#define PLANNER_PHASES_MAX TEST_KIND_MAX
#define PLANNER_SHARED_MAX 16
#define PLANNER_SETUP_S 0.02         // PREPARE, READY, START and the handshake, forecast
#define PLANNER_LIGHT_SETUP_S 0.3    // arming and collecting one batch of light probes, forecast
#define PLANNER_LIGHT_PROBE_BYTES 96 // payload of a probe and of its answer
#define PLANNER_LIGHT_A_TRIP 4       // at worst: where an owner lets it spin, three warm up
#define PLANNER_PATH_BYTES 65536     // of all probes of one path, at most

struct cell_place; // director.h
struct director_refusal;

// One kind of test of a run. Phases never overlap.
struct phase {
    struct testspec spec;
    bool light;    // latency, path, port: batches of light probes
    Mp__Mode mode; // isolated unless asked otherwise; light: concurrent
    bool flow_check; // cells that the network limits are measured once more, with several streams
};

struct plan_shared {
    char key[64];
    uint32_t limit;
};

// The options of a request after checking.
struct plan_options {
    struct phase phases[PLANNER_PHASES_MAX];
    size_t phase_count;
    struct plan_shared shared[PLANNER_SHARED_MAX];
    size_t shared_count;
    bool machines_ignore; // asked for, or implied by mode concurrent
    uint64_t seed;
    uint32_t retries;
    uint32_t passes; // at least 1
};

struct plan {
    struct plan_options options;
    struct agent **agents; // sorted by name; borrowed from the registry, then the plan's own targets
    size_t agent_count;
    size_t target_count;       // so many of the last agents are targets
    struct cell_place *places; // sorted by phase, from, to, port
    size_t place_count;
    struct port *ports; // that places count into
    size_t port_count;
    size_t pairs; // directed pairs selected (cells of one phase)
};

// ---- an explicit list of cells, instead of a selection

// An address (at most one per family) where no agent runs.
struct plan_target {
    const char *name; // as an agent's; none of the agents has it
    const char *addresses[2];
    size_t address_count;
};

struct plan_cell {
    Mp__TestKind kind; // one of the request's tests
    uint32_t from, to; // into agents, then targets; only `to` can be a target
    uint16_t port;     // kind port: into ports; else 0
    enum port_listener listener;
};

// All borrowed for the call. A cell that stands twice is measured once; of two wishes for a
// listener, agent wins over either over service. Agents without a cell are left out unless
// `keep_agents` says otherwise.
struct plan_cells {
    const char *const *agents; // names
    size_t agent_count;
    const struct plan_target *targets;
    size_t target_count;
    const struct port *ports;
    size_t port_count;
    const struct plan_cell *cells;
    size_t count;
    bool keep_agents; // agents without a cell are kept: the run knows all that were looked at
};

// 0, or a negative error with `refusal` filled in. Only the options: phases and their limits.
int planner_options(const Mp__RunRequest *request, struct plan_options *options,
    struct director_refusal *refusal) __attribute__((warn_unused_result));

// Everything; the caller's, planner_release.
int planner_plan(registry_t *registry, const Mp__RunRequest *request, struct plan *plan,
    struct director_refusal *refusal) __attribute__((warn_unused_result));
// The same for these cells: the request's selection (from, to, both, pairs, ports) is not looked at.
int planner_plan_cells(registry_t *registry, const Mp__RunRequest *request,
    const struct plan_cells *cells, struct plan *plan, struct director_refusal *refusal)
    __attribute__((warn_unused_result));
void planner_release(struct plan *plan);

// The order that places are kept in; equal ones are one cell.
int planner_place_order(const struct cell_place *a, const struct cell_place *b);

// A target as agents are described; the caller's, free().
struct agent *planner_target(const char *name, char *const *addresses, size_t address_count);

// Why this pair is not tested: PENDING if it is. UNSUPPORTED or SKIPPED with a sentence that names
// the side. An agent that never registered since it enrolled is not judged yet.
Mp__CellState planner_judge(
    const struct phase *phase, const struct agent *from, const struct agent *to, char reason[512]);
// Both can do everything else that a port asks of them: as planner_judge.
Mp__CellState planner_judge_port(
    const struct port *port, const struct agent *from, const struct agent *to, char reason[512]);

// Addresses of both for a test: IPv6 preferred unless a family is asked for. The family, or 0.
unsigned planner_addresses(const struct testspec *spec, const struct agent *from,
    const struct agent *to, const char **from_address, const char **to_address);

// Light probes. Probes a second for a pair when none is asked for: 20, at most 1,000 an agent and
// 4,000 a core of a machine in all, at least 5 in a test. Where these meet, the mesh is measured in
// several batches of at most `planner_light_peers` peers for each agent.
struct light_load {
    size_t pairs;         // of this batch
    size_t most_of_agent; // pairs that one agent probes
    double most_of_core;  // pairs that agents of one machine probe, for each of its cores
};
double planner_probe_rate(const struct testspec *spec, const struct light_load *load);
// Into how many batches pairs with such a load (all at once) have to be split.
size_t planner_light_batches(const struct testspec *spec, const struct light_load *load);

// Port and path: a batch has at most so many probes for each agent that they all begin within the
// shorter of a second and the timeout, at the agent's rate. So a batch, and a listener for it, lasts
// no longer than testspec_listen_ns.
size_t planner_probes_a_batch(const struct testspec *spec);
double planner_probes_spread_s(const struct testspec *spec, size_t probes);

// Seconds that one bandwidth test of a phase takes its hosts: at least, and as forecast.
double planner_test_least_s(const struct testspec *spec);
double planner_test_expected_s(const struct testspec *spec);

// Are some cells of this phase measured again alone afterwards? Where tests may disturb each other.
bool planner_rechecks(const struct phase *phase);

// Of all passes; bytes and expected times include what is measured again alone and what a flow check
// may come to, the number of tests and the bound do not.
struct forecast {
    uint64_t tests, bytes_max;
    bool unbounded_bytes;
    double expected_s, expected_p95_s, lower_bound_s;
    double phase_expected_s[PLANNER_PHASES_MAX]; // of one pass
    double recheck_s, flow_check_s;
    uint32_t rechecks, flow_checks; // cells
    char bound_by[200];
};
void planner_forecast(const struct plan *plan, struct forecast *forecast);

#endif
