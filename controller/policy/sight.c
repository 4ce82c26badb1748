// What a cell says, compactly.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy_parts.h"
#include "ports.h"

static bool unsupported(const Mp__Cell *cell)
{
    return cell->state == MP__CELL_STATE__UNSUPPORTED ||
           (cell->observed && strcmp(cell->observed, "unsupported") == 0);
}

// Destination unreachable: net or host, in either family (RFC 792, RFC 4443).
static bool says_unreachable(const Mp__Cell *cell)
{
    if (!cell->has_icmp_type || !cell->has_icmp_code)
        return false;
    if (cell->icmp_type == 3)
        return cell->icmp_code <= 1 || cell->icmp_code == 6 || cell->icmp_code == 7;
    return cell->icmp_type == 1 && (cell->icmp_code == 0 || cell->icmp_code == 3);
}

static double real(bool has, double value)
{
    return has ? value : NAN;
}

// Retransmitted segments as a share of those that the payload needs.
static double retransmitted(const Mp__Cell *cell)
{
    if (!cell->has_retransmits || !cell->has_mss || !cell->has_bytes || cell->bytes == 0)
        return NAN;
    return (double)cell->retransmits * cell->mss / (double)cell->bytes;
}

// In the order of policy_quantities.
static double *values_of(const Mp__Cell *cell)
{
    double *values = calloc(POLICY_VALUES_MAX, sizeof *values), *at = values;
    if (!values)
        abort();
    const Mp__Distribution *rtt = cell->rtt;
    if (cell->kind == MP__TEST_KIND__LATENCY) {
        *at++ = real(rtt && rtt->has_p50, rtt ? rtt->p50 : 0);
        *at++ = real(rtt && rtt->has_p90, rtt ? rtt->p90 : 0);
        *at++ = real(rtt && rtt->has_p99, rtt ? rtt->p99 : 0);
        *at++ = real(rtt && rtt->has_max, rtt ? rtt->max : 0);
        *at++ = real(cell->has_loss_ratio, cell->loss_ratio);
        *at++ = real(cell->has_jitter_s, cell->jitter_s);
        return values;
    }
    *at++ = real(cell->has_bandwidth_bps, cell->bandwidth_bps);
    if (cell->kind == MP__TEST_KIND__UDP) {
        *at++ = real(cell->has_loss_ratio, cell->loss_ratio);
        *at++ = real(cell->has_jitter_s, cell->jitter_s);
    } else {
        *at++ = retransmitted(cell);
    }
    return values;
}

static bool port_of(const Mp__Cell *cell, struct policy_sight *sight)
{
    struct port port;
    char error[256];
    if (!cell->port || port_parse(cell->port, &port, error) != 0)
        return false;
    sight->cell.protocol = (uint8_t)port.transport;
    sight->cell.port = port.number;
    return true;
}

// The outcome of a probe; words that are not known here are no observation.
static void outcome_of(const Mp__Cell *cell, struct policy_sight *sight)
{
    if (cell->observed)
        (void)policy_observed_parse(cell->observed, &sight->observed);
    if (cell->arrived)
        (void)policy_arrived_parse(cell->arrived, &sight->arrived);
    if (cell->listener)
        (void)policy_listener_parse(cell->listener, &sight->listener);
    sight->alive = cell->has_alive && cell->alive;
    sight->unreachable = says_unreachable(cell);
}

bool policy_sight_of(const Mp__Cell *cell, struct policy_sight *sight)
{
    const char *text = cell->state == MP__CELL_STATE__OK ? cell->evidence : cell->reason;
    *sight = (struct policy_sight){
        .cell = {.from = cell->from, .to = cell->to, .kind = (uint8_t)cell->kind},
        .measured = cell->state == MP__CELL_STATE__OK,
        .final =
            cell->state != MP__CELL_STATE__PENDING && cell->state != MP__CELL_STATE__CELL_RUNNING,
        .unsupported = unsupported(cell),
        .at_wall_ns = cell->has_started_wall_ns ? cell->started_wall_ns : 0,
        .time_s = cell->has_time_s       ? cell->time_s
                  : cell->has_duration_s ? cell->duration_s
                                         : 0};
    if (cell->kind == MP__TEST_KIND__PATH)
        return false;
    if (cell->kind == MP__TEST_KIND__PORT) {
        if (!port_of(cell, sight))
            return false;
        if (sight->measured)
            outcome_of(cell, sight);
    } else {
        sight->values = values_of(cell);
    }
    sight->text = text && *text ? strdup(text) : NULL;
    return true;
}
