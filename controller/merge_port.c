// Both ends' findings about a port become one cell.

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "merge.h"
#include "ports.h"
#include "wire.h"

#define EVIDENCE_SIZE 512

static const char *const observed_words[] = {[MP__OBSERVED__OBSERVED_OPEN] = "open",
    [MP__OBSERVED__OBSERVED_ACCEPTED] = "accepted",
    [MP__OBSERVED__OBSERVED_REFUSED] = "refused",
    [MP__OBSERVED__OBSERVED_REJECTED] = "rejected",
    [MP__OBSERVED__OBSERVED_FILTERED] = "filtered",
    [MP__OBSERVED__OBSERVED_NO_ROUTE] = "no-route",
    [MP__OBSERVED__OBSERVED_UNSUPPORTED] = "unsupported",
    [MP__OBSERVED__OBSERVED_ERROR] = "error"};
static const char *const arrived_words[] = {[MP__ARRIVED__ARRIVED_YES] = "yes",
    [MP__ARRIVED__ARRIVED_NO] = "no",
    [MP__ARRIVED__ARRIVED_UNKNOWN] = "unknown"};
static const char *const listener_words[] = {[MP__LISTENER__LISTENER_AGENT] = "agent",
    [MP__LISTENER__LISTENER_SERVICE] = "service",
    [MP__LISTENER__LISTENER_NONE] = "none"};

struct text {
    char bytes[EVIDENCE_SIZE];
    size_t used;
};

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size =
        vsnprintf(text->bytes + text->used, sizeof text->bytes - text->used, format, arguments);
    va_end(arguments);
    if (size > 0)
        text->used += (size_t)size;
    if (text->used >= sizeof text->bytes)
        text->used = sizeof text->bytes - 1;
}

static char *text_copy(const char *text)
{
    return text && *text ? strdup(text) : NULL;
}

// ------------------------------------------------------------------------------------- arrival

struct arrival {
    Mp__Arrived arrived;
    const char *seen_from; // borrowed
    bool half_open;        // a SYN, not the nonce
    bool doubtful;         // connections that may have been ours, or somebody else's
    bool hidden;           // by a service, which has the connection
};

static bool is_source_port(const Mp__LightOutcome *near, uint32_t port)
{
    for (size_t i = 0; i < near->n_source_ports; i++)
        if (near->source_ports[i] == port)
            return true;
    return false;
}

static bool answered(const Mp__LightOutcome *near)
{
    return near->observed == MP__OBSERVED__OBSERVED_OPEN ||
           near->observed == MP__OBSERVED__OBSERVED_ACCEPTED;
}

// The nonce arrived, or a connection from the probe's source port began. Another connection may be
// the probe behind a translation of ports, and another agent's address that of a host which
// translates for this one: then nothing is claimed. A service keeps its connections to itself: that
// it got none is known only where none was made.
static struct arrival arrival_of(const Mp__LightOutcome *near, const Mp__LightOutcome *far)
{
    struct arrival seen = {.arrived = MP__ARRIVED__ARRIVED_UNKNOWN};
    if (near->observed == MP__OBSERVED__OBSERVED_OPEN)
        seen.arrived = MP__ARRIVED__ARRIVED_YES;
    if (!far || !far->has_arrived)
        return seen;
    seen.seen_from = far->seen_from;
    if (far->arrived == MP__ARRIVED__ARRIVED_YES)
        seen.arrived = MP__ARRIVED__ARRIVED_YES;
    if (seen.arrived == MP__ARRIVED__ARRIVED_YES)
        return seen;
    seen.arrived = far->arrived;
    for (size_t i = 0; i < far->n_half_open; i++) {
        const Mp__HalfOpen *contact = far->half_open[i];
        bool same = is_source_port(near, contact->port);
        if (contact->has_others && contact->others) {
            seen.doubtful = seen.doubtful || same;
            continue;
        }
        if (same) {
            seen.arrived = MP__ARRIVED__ARRIVED_YES;
            seen.seen_from = contact->seen_from;
            seen.half_open = true;
            return seen;
        }
        seen.doubtful = true;
    }
    seen.hidden = far->listener == MP__LISTENER__LISTENER_SERVICE && answered(near);
    if ((seen.doubtful || seen.hidden) && seen.arrived == MP__ARRIVED__ARRIVED_NO)
        seen.arrived = MP__ARRIVED__ARRIVED_UNKNOWN;
    return seen;
}

// ------------------------------------------------------------------------------------ evidence

static void say_icmp(struct text *text, const Mp__LightOutcome *near)
{
    add(text, "ICMP%s %u/%u", near->icmp_from && strchr(near->icmp_from, ':') ? "v6" : "",
        near->icmp_type, near->icmp_code);
    if (near->icmp_from)
        add(text, " from %s", near->icmp_from);
}

static void say_observed(
    struct text *text, const Mp__LightOutcome *near, const struct merge_names *names)
{
    bool nonce = near->observed == MP__OBSERVED__OBSERVED_OPEN;
    switch (near->observed) {
    case MP__OBSERVED__OBSERVED_OPEN:
        add(text, "nonce answered by %s", names->to);
        break;
    case MP__OBSERVED__OBSERVED_ACCEPTED:
        add(text, "something answered, and it does not know the nonce");
        break;
    case MP__OBSERVED__OBSERVED_FILTERED:
        add(text, "no answer to %u attempt%s in %.1f s", near->probes, near->probes == 1 ? "" : "s",
            near->time_s);
        break;
    default:
        if (near->has_icmp_type)
            say_icmp(text, near);
        else if (near->observed == MP__OBSERVED__OBSERVED_REFUSED)
            add(text, "reset");
        else if (near->observed == MP__OBSERVED__OBSERVED_REJECTED)
            add(text, "%s may not send it: a rule of its own", names->from);
        else
            add(text, "not sent");
        if (near->error)
            add(text, " (%s)", near->error);
    }
    if (!nonce && near->reason && *near->reason)
        add(text, " (%s)", near->reason);
}

static void say_arrival(struct text *text, const struct arrival *arrival,
    const Mp__LightOutcome *near, const Mp__LightOutcome *far, const struct merge_names *names)
{
    bool open = near->observed == MP__OBSERVED__OBSERVED_OPEN;
    if (names->target) {
        add(text, "; no agent at %s says what arrived", names->to);
    } else if (!far) {
        add(text, "; %s did not report what arrived", names->to);
    } else if (arrival->arrived == MP__ARRIVED__ARRIVED_YES) {
        if (!open)
            add(text, "; %s saw %s", names->to, arrival->half_open ? "the SYN" : "it arrive");
        if (arrival->seen_from && *arrival->seen_from)
            add(text, "%s from %s", open ? ", seen" : "", arrival->seen_from);
        // Otherwise it is why the far end alone was not sure.
        if (far->arrived == MP__ARRIVED__ARRIVED_YES && far->reason && *far->reason)
            add(text, ", %s", far->reason);
    } else if (arrival->arrived == MP__ARRIVED__ARRIVED_NO) {
        add(text, "; nothing arrived at %s", names->to);
    } else if (arrival->hidden) {
        add(text, "; %s cannot tell what arrived: a service holds the port", names->to);
    } else if (arrival->doubtful) {
        add(text, "; connections that %s saw may have been others'", names->to);
    } else {
        add(text, "; %s cannot tell what arrived: %s", names->to,
            far->reason && *far->reason ? far->reason : "it gives no reason");
    }
}

// Where it got in, the way there is no evidence.
static void say_last_hop(
    struct text *text, const struct arrival *arrival, const Mp__LightOutcome *near)
{
    if (near->last_hop && *near->last_hop && arrival->arrived != MP__ARRIVED__ARRIVED_YES)
        add(text, "; the last hop that answers on the way is %s, at %u", near->last_hop,
            near->last_hop_ttl);
}

// --------------------------------------------------------------------------------- the whole cell

static void copy_near(const Mp__LightOutcome *near, Mp__Cell *cell)
{
    cell->observed = strdup(observed_words[near->observed]);
    cell->error = text_copy(near->error);
    cell->has_icmp_type = near->has_icmp_type;
    cell->icmp_type = near->icmp_type;
    cell->has_icmp_code = near->has_icmp_code;
    cell->icmp_code = near->icmp_code;
    cell->icmp_from = text_copy(near->icmp_from);
    cell->last_hop = text_copy(near->last_hop);
    cell->has_probes = near->has_probes;
    cell->probes = near->probes;
    cell->has_time_s = near->has_time_s;
    cell->time_s = near->time_s;
    cell->has_source_port = near->n_source_ports > 0;
    if (near->n_source_ports > 0)
        cell->source_port = near->source_ports[near->n_source_ports - 1];
}

static void set_alive(const Mp__LightOutcome *near, const Mp__LightOutcome *far,
    const struct merge_names *names, Mp__Cell *cell)
{
    char how[256];
    cell->has_alive = true;
    cell->alive = far != NULL || near->observed == MP__OBSERVED__OBSERVED_OPEN;
    if (cell->alive) {
        snprintf(how, sizeof how, "the agent of %s reported after the probe", names->to);
        cell->alive_how = strdup(how);
    } else if (near->has_alive && near->alive) {
        cell->alive = true;
        cell->alive_how = text_copy(near->alive_how);
    }
}

static bool refused_to_try(const Mp__LightOutcome *outcome, Mp__Cell *cell)
{
    if (!outcome || outcome->outcome != MP__OUTCOME__OUTCOME_SKIPPED)
        return false;
    cell->state = MP__CELL_STATE__SKIPPED;
    cell->reason =
        strdup(outcome->reason && *outcome->reason ? outcome->reason : "an agent gives no reason");
    return true;
}

void merge_port(const Mp__LightOutcome *near, const Mp__LightOutcome *far,
    const struct merge_names *names, Mp__Cell *cell)
{
    struct text text = {.used = 0};
    if (refused_to_try(near, cell) || refused_to_try(far, cell))
        return;
    if (!near->has_observed) {
        cell->state = MP__CELL_STATE__FAILED;
        cell->reason = strdup("the prober does not say what it observed");
        return;
    }
    struct arrival arrival = arrival_of(near, far);
    copy_near(near, cell);
    cell->arrived = strdup(arrived_words[arrival.arrived]);
    cell->listener = strdup(
        listener_words[far && far->has_listener ? far->listener : MP__LISTENER__LISTENER_NONE]);
    if (arrival.arrived == MP__ARRIVED__ARRIVED_YES)
        cell->seen_from = text_copy(arrival.seen_from);
    set_alive(near, far, names, cell);
    say_observed(&text, near, names);
    say_arrival(&text, &arrival, near, far, names);
    say_last_hop(&text, &arrival, near);
    cell->evidence = strdup(text.bytes);
    cell->state = MP__CELL_STATE__OK;
    if (near->observed == MP__OBSERVED__OBSERVED_UNSUPPORTED) {
        cell->state = MP__CELL_STATE__UNSUPPORTED;
        cell->reason = strdup(text.bytes);
    }
}

// ----------------------------------------------------------------------------------------- paths

static void copy_hops(const Mp__LightOutcome *near, Mp__Cell *cell)
{
    cell->hops = calloc(near->n_hops + 1, sizeof *cell->hops);
    if (!cell->hops)
        abort();
    for (size_t i = 0; i < near->n_hops; i++) {
        cell->hops[cell->n_hops] = (Mp__Hop *)wire_copy(&near->hops[i]->base);
        cell->n_hops += cell->hops[cell->n_hops] != NULL;
    }
}

static void say_path(
    struct text *text, const Mp__LightOutcome *near, const struct merge_names *names)
{
    const Mp__Hop *last = NULL;
    for (size_t i = 0; i < near->n_hops; i++)
        if (near->hops[i]->responder)
            last = near->hops[i];
    if (near->has_reached && near->reached)
        add(text, "%zu hop%s to %s", near->n_hops, near->n_hops == 1 ? "" : "s", names->to);
    else if (last)
        add(text, "%s does not answer; the last hop that does is %s, at %u", names->to,
            last->responder, last->ttl);
    else
        add(text, "no hop answers");
    if (near->has_path_mtu)
        add(text, ", %u bytes pass both ways", near->path_mtu);
    if (near->black_hole)
        add(text, "; %s", near->black_hole);
}

void merge_path(const struct testspec *spec, const Mp__LightOutcome *near,
    const struct merge_names *names, Mp__Cell *cell)
{
    struct text text = {.used = 0};
    if (refused_to_try(near, cell))
        return;
    cell->via = strdup(transport_name((Mp__Transport)spec->via));
    if (near->outcome != MP__OUTCOME__OUTCOME_OK) {
        cell->state = near->outcome == MP__OUTCOME__OUTCOME_UNSUPPORTED
                          ? MP__CELL_STATE__UNSUPPORTED
                          : MP__CELL_STATE__FAILED;
        cell->reason = strdup(near->reason && *near->reason ? near->reason : "no reason is given");
        return;
    }
    copy_hops(near, cell);
    cell->has_reached = near->has_reached;
    cell->reached = near->reached;
    cell->has_path_mtu = near->has_path_mtu;
    cell->path_mtu = near->path_mtu;
    cell->black_hole = text_copy(near->black_hole);
    say_path(&text, near, names);
    cell->evidence = strdup(text.bytes);
    cell->state = MP__CELL_STATE__OK;
    for (size_t i = 0; i < near->n_hops; i++) {
        const Mp__Hop *hop = near->hops[i];
        if (!hop->has_final || !hop->final || !hop->has_rtt_mean_s)
            continue;
        cell->rtt = calloc(1, sizeof *cell->rtt);
        if (!cell->rtt)
            abort();
        mp__distribution__init(cell->rtt);
        cell->rtt->count = hop->received;
        cell->rtt->has_min = cell->rtt->has_mean = cell->rtt->has_max = true;
        cell->rtt->min = hop->rtt_min_s;
        cell->rtt->mean = hop->rtt_mean_s;
        cell->rtt->max = hop->rtt_max_s;
    }
}
