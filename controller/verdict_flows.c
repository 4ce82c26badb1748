// A cap on each flow: it takes a second test with several streams.

#include "verdict_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "units.h"

#define FLOWS_GAIN 1.5 // so much more than one stream: each is limited, and not all together

bool verdict_flows_open(const Mp__Cell *cell)
{
    return cell->state == MP__CELL_STATE__OK && cell->has_bandwidth_bps &&
           cell->bandwidth_bps > 0 && cell->limiter &&
           strcmp(cell->limiter->verdict, "network") == 0;
}

double verdict_flows_one_bps(const Mp__Cell *cell)
{
    return cell->bucket && cell->bucket->before_bps > cell->bandwidth_bps ? cell->bucket->before_bps
                                                                          : cell->bandwidth_bps;
}

bool verdict_flows(Mp__Limiter *limiter, uint32_t streams, double one_bps, double all_bps)
{
    char one[UNITS_TEXT_SIZE], all[UNITS_TEXT_SIZE], text[2 * TEXT_SIZE];
    if (!(all_bps > FLOWS_GAIN * one_bps))
        return false;
    units_format_rate(one_bps, one);
    units_format_rate(all_bps, all);
    snprintf(text, sizeof text, "each flow: %u streams carried %s, one %s, which was limited by %s",
        streams, all, one, limiter->evidence ? limiter->evidence : "the network");
    free(limiter->evidence);
    free(limiter->subtype);
    limiter->evidence = strdup(text);
    limiter->subtype = strdup("flow_cap");
    return true;
}
