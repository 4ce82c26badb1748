#ifndef MESHPERF_TEST_CRASH_H
#define MESHPERF_TEST_CRASH_H

// What the tests of crashes share: a mesh of equal hosts h1..h5, and a run that is long enough to be
// caught in its middle.

#include "mesh.h"

// Bandwidth tests with a stated rate, so that pairs run at once although all hosts are one machine.
#define CRASH_RUN "run udp -b 1M -t 3s"
#define CRASH_AGENTS 5

int crash_bring_up(void **state); // a mesh_t

// Until `count` cells of the last run are ok.
void crash_wait_for_results(mesh_t *mesh, unsigned count);
// What the command line printed, as JSON; fails the test if it is none. The caller json_decrefs.
json_t *crash_document(struct outcome *outcome);

#endif
