#ifndef MESHPERF_PLANNER_PARTS_H
#define MESHPERF_PLANNER_PARTS_H

// What the files of the planner share; nobody else includes this.
//
//   planner.c           options, the plan of a whole run
//   planner_select.c    agents and pairs that a request selects
//   planner_cells.c     ports, targets and explicit lists of cells
//   planner_judge.c     whether one pair can be tested
//   planner_forecast.c  what a plan costs

#include "director.h"
#include "errors.h"
#include "planner.h"

#define refuse(refusal, code_, ...)                                                                \
    ((refusal)->code = MP__REFUSED__CODE__##code_,                                                 \
        snprintf((refusal)->text, sizeof(refusal)->text, __VA_ARGS__), MESH_E_INVALID)

// The selected directed pairs as a bit matrix, rows are senders.
struct pairs {
    size_t count, words; // agents
    uint64_t *bits;      // free()
};
bool pairs_get(const struct pairs *pairs, size_t from, size_t to);
size_t pairs_count(const struct pairs *pairs);
// Agents into the plan, pairs of them into `pairs`, whose bits are the caller's even on failure.
int planner_select(registry_t *registry, const Mp__RunRequest *request, struct plan *plan,
    struct pairs *pairs, struct director_refusal *refusal);

// Sorts like names of hosts: h2 before h10.
int planner_by_name(const void *a, const void *b);
// The request's ranges as single ports, each once, in the order named.
int planner_ports(
    const Mp__RunRequest *request, struct plan *plan, struct director_refusal *refusal);

#endif
