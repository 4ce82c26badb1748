#include "crash.h"

#include <stdlib.h>

#include "meshtest.h"

int crash_bring_up(void **state)
{
    char *topology = mesh_topology_plain(CRASH_AGENTS);
    *state = mesh_up(topology, "");
    free(topology);
    return 0;
}

void crash_wait_for_results(mesh_t *mesh, unsigned count)
{
    mesh_wait_until(
        mesh, 60, "test $($LAB meshperf show last -o csv | grep -c ',ok,') -ge %u", count);
}

json_t *crash_document(struct outcome *outcome)
{
    json_t *run = json_loads(outcome->out, 0, NULL);
    if (!run)
        fail_msg("status %d\n%s\n%s", outcome->status, outcome->out, outcome->err);
    return run;
}
