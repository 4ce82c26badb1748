// Where the probes of a silent port end: the same flow again, with a TTL that grows, until nobody
// answers any more. The last one who did stands before what swallows them (or is it).

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "reach_parts.h"

#define HOP_NS (300 * NS_PER_MS)
#define SILENT_HOPS 2
#define HOPS_MAX 30

bool trace_begin(struct reach *self, struct entry *entry, int64_t now)
{
    if (self->traces >= REACH_TRACES || now >= self->trace_until_mono_ns ||
        entry->peer.port.transport == MP__TRANSPORT__OVER_SCTP)
        return false;
    self->traces++;
    entry->step = STEP_TRACES;
    entry->ttl = 1;
    entry->due_mono_ns = now;
    return true;
}

// One probe, when the agent's rate has room for it.
static void hop_ask(struct reach *self, struct entry *entry, int64_t now)
{
    const struct reach_outcome *out = &entry->outcome;
    bool datagram = entry->peer.port.transport == MP__TRANSPORT__OVER_UDP;
    if (now < self->trace_slot_mono_ns) {
        entry->due_mono_ns = self->trace_slot_mono_ns;
        return;
    }
    self->trace_slot_mono_ns = now + (int64_t)(1e9 / self->spec.agent_rate);
    entry->due_mono_ns =
        now + HOP_NS < self->trace_until_mono_ns ? now + HOP_NS : self->trace_until_mono_ns;
    uint16_t flow = out->source_port_count ? out->source_ports[out->source_port_count - 1] : 0;
    int error = near_dial(self, entry, flow, entry->ttl);
    if (error == 0 && datagram)
        error = near_ask(entry);
    if (error) // the flow cannot be had again
        near_end(self, entry);
}

static void hop_answered(
    struct reach *self, struct entry *entry, const char *from, bool last, int64_t now)
{
    reach_unwatch(&entry->watch);
    memcpy(entry->outcome.last_hop, from, sizeof entry->outcome.last_hop);
    entry->outcome.last_hop_ttl = entry->ttl;
    entry->ttl_silent = 0;
    entry->due_mono_ns = now;
    if (last || ++entry->ttl > HOPS_MAX)
        near_end(self, entry);
}

static void hop_silent(struct reach *self, struct entry *entry, int64_t now)
{
    reach_unwatch(&entry->watch);
    entry->ttl++;
    entry->due_mono_ns = now;
    if (++entry->ttl_silent >= SILENT_HOPS)
        near_end(self, entry);
}

// Whoever sends an error is a hop; an answer of the destination itself ends the trace.
void trace_event(struct reach *self, struct entry *entry, int64_t now)
{
    struct socket_error seen;
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer, error_size = sizeof(int);
    int error = 0;
    bool datagram = entry->peer.port.transport == MP__TRANSPORT__OVER_UDP;
    bool queued = error_read(entry->watch.fd, &seen);
    (void)getsockopt(entry->watch.fd, SOL_SOCKET, SO_ERROR, &error, &error_size);
    bool refused = error == ECONNREFUSED || error == ECONNRESET;
    bool answered = error == 0 && (datagram || getpeername(entry->watch.fd,
                                                   (struct sockaddr *)&peer, &size) == 0);
    if (queued && seen.has_icmp && strcmp(seen.from, entry->peer.local_address) != 0)
        hop_answered(self, entry, seen.from, !error_is_hop(&seen), now);
    else if (refused || answered)
        hop_answered(self, entry, entry->peer.peer_address, true, now);
    else
        hop_silent(self, entry, now);
}

void trace_due(struct reach *self, struct entry *entry, int64_t now)
{
    if (now >= self->trace_until_mono_ns)
        near_end(self, entry);
    else if (entry->watch.fd >= 0)
        hop_silent(self, entry, now);
    else
        hop_ask(self, entry, now);
}
