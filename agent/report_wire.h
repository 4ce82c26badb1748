#ifndef MESHPERF_REPORT_WIRE_H
#define MESHPERF_REPORT_WIRE_H

// The engine's reports in the protocol's form. What was not measured is not set. The result owns
// copies of everything: free it with mp__end_report__free_unpacked (report, NULL) and so on.

#include "light.h"
#include "meshperf.pb-c.h"
#include "path.h"
#include "probe.h"
#include "reach.h"

// Intervals are merged pairwise until the report fits into one message.
Mp__EndReport *report_to_wire(const struct probe_report *report);
// A report that says only why there is none.
Mp__EndReport *report_refusal(Mp__Outcome outcome, bool retry, const char *reason);

void interval_to_wire(const struct probe_interval *interval, Mp__Interval *wire);

Mp__LightOutcome *light_to_wire(
    const uint8_t test_id[TICKET_ID_SIZE], const struct light_outcome *outcome);
Mp__LightOutcome *reach_to_wire(
    const uint8_t test_id[TICKET_ID_SIZE], const struct reach_outcome *outcome, bool far);
Mp__LightOutcome *path_to_wire(
    const uint8_t test_id[TICKET_ID_SIZE], const struct path_outcome *outcome);
Mp__HostLoad *load_to_wire(const struct probe_load *load); // NULL if nothing was measured

#endif
