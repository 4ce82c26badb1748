#ifndef MESHPERF_PLANNER_PARTS_H
#define MESHPERF_PLANNER_PARTS_H

// What the files of the planner share; nobody else includes this.
//
//   planner.c        options, selection, judging a pair, the forecast
//   planner_cells.c  ports, targets and explicit lists of cells

#include "director.h"
#include "errors.h"
#include "planner.h"

#define refuse(refusal, code_, ...)                                                                \
    ((refusal)->code = MP__REFUSED__CODE__##code_,                                                 \
        snprintf((refusal)->text, sizeof(refusal)->text, __VA_ARGS__), MESH_E_INVALID)

// Sorts like names of hosts: h2 before h10.
int planner_by_name(const void *a, const void *b);
// The request's ranges as single ports, each once, in the order named.
int planner_ports(
    const Mp__RunRequest *request, struct plan *plan, struct director_refusal *refusal);

#endif
