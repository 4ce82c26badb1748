// Whether one pair can be tested, and over which addresses.

#include "planner_parts.h"

#include <stdio.h>
#include <string.h>

#include "units.h"

static const char *address_of(const struct agent *agent, unsigned family)
{
    for (size_t i = 0; i < agent->address_count && i < 2; i++)
        if (*agent->addresses[i] && (strchr(agent->addresses[i], ':') ? 6 : 4) == (int)family)
            return agent->addresses[i];
    return NULL;
}

unsigned planner_addresses(const struct testspec *spec, const struct agent *from,
    const struct agent *to, const char **from_address, const char **to_address)
{
    static const unsigned preferred[] = {6, 4};
    for (size_t i = 0; i < 2; i++) {
        unsigned family = preferred[i];
        const char *a = address_of(from, family), *b = address_of(to, family);
        if ((spec->family && spec->family != family) || !a || !b)
            continue;
        *from_address = a;
        *to_address = b;
        return family;
    }
    return 0;
}

// A stated value above an owner's limit; the agent judges alike. 0: the owner sets no limit.
static bool over_guard(const struct testspec *spec, const struct agent *agent, char *reason)
{
    const Mp__Capabilities *can = agent->capabilities;
    char asked[UNITS_TEXT_SIZE], most[UNITS_TEXT_SIZE];
    bool stated = testspec_rate_stated(spec);
    if (can->guard_rate_bps && stated && spec->bitrate_bps > can->guard_rate_bps) {
        snprintf(reason, 512, "%s's guard allows a rate of %s, %s is asked for", agent->name,
            units_word_rate(can->guard_rate_bps, most), units_word_rate(spec->bitrate_bps, asked));
        return true;
    }
    if (can->guard_duration_ns > 0 && spec->duration_ns > can->guard_duration_ns) {
        snprintf(reason, 512, "%s's guard allows a duration of %s, %s is asked for", agent->name,
            units_word_duration(can->guard_duration_ns, most),
            units_word_duration(spec->duration_ns, asked));
        return true;
    }
    double bytes = (double)spec->bitrate_bps / 8 * (double)spec->duration_ns / NS_PER_S;
    bytes *= spec->bidir ? 2 : 1;
    if (can->guard_bytes && stated && bytes > (double)can->guard_bytes) {
        snprintf(reason, 512, "%s's guard allows %s a test, this one moves %s", agent->name,
            units_format_bytes((double)can->guard_bytes, most), units_format_bytes(bytes, asked));
        return true;
    }
    return false;
}

static const char *family_word(unsigned family)
{
    return family == 4 ? "an IPv4" : family == 6 ? "an IPv6" : "any";
}

static int ends_with_agents(const struct agent *to)
{
    return to->target ? 1 : 2;
}

Mp__CellState planner_judge(
    const struct phase *phase, const struct agent *from, const struct agent *to, char reason[512])
{
    const struct agent *ends[2] = {from, to};
    const char *addresses[2];
    char why[256];
    for (int i = 0; i < 2; i++) {
        if (ends[i]->draining) {
            snprintf(reason, 512, "%s is drained", ends[i]->name);
            return MP__CELL_STATE__SKIPPED;
        }
    }
    if (!from->capabilities || (!to->capabilities && !to->target))
        return MP__CELL_STATE__PENDING;
    for (int i = 0; i < ends_with_agents(to); i++) {
        const char *cannot = agent_cannot(ends[i], (Mp__TestKind)phase->spec.kind, why);
        if (cannot) {
            snprintf(reason, 512, "%s", cannot);
            return MP__CELL_STATE__UNSUPPORTED;
        }
    }
    if (!planner_addresses(&phase->spec, from, to, &addresses[0], &addresses[1])) {
        unsigned asked = phase->spec.family;
        if (asked && !address_of(from, asked) != !address_of(to, asked))
            snprintf(reason, 512, "%s has no IPv%u address",
                address_of(from, asked) ? to->name : from->name, asked);
        else
            snprintf(reason, 512,
                "%s and %s have no address family in common (%s address is "
                "asked for)",
                from->name, to->name, family_word(asked));
        return MP__CELL_STATE__UNSUPPORTED;
    }
    for (int i = 0; i < ends_with_agents(to); i++)
        if (over_guard(&phase->spec, ends[i], reason))
            return MP__CELL_STATE__SKIPPED;
    return MP__CELL_STATE__PENDING;
}

Mp__CellState planner_judge_port(
    const struct port *port, const struct agent *from, const struct agent *to, char reason[512])
{
    const struct agent *ends[2] = {from, to};
    if (port->transport != MP__TRANSPORT__OVER_SCTP)
        return MP__CELL_STATE__PENDING;
    for (int i = 0; i < ends_with_agents(to); i++) {
        const Mp__Capabilities *can = ends[i]->capabilities;
        if (!can || can->sctp)
            continue;
        snprintf(reason, 512, "%s cannot probe sctp: %.150s", ends[i]->name,
            can->sctp_reason && *can->sctp_reason ? can->sctp_reason : "no SCTP in its kernel");
        return MP__CELL_STATE__UNSUPPORTED;
    }
    return MP__CELL_STATE__PENDING;
}
