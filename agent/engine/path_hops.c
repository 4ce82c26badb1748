// The hops of a path: for each TTL some probes of one flow, and who answers them.

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "path_parts.h"

#define SPACING_NS (50 * NS_PER_MS)
#define SILENT_TTLS 3

static void walk_fail(struct path *self, struct walk *walk, int error)
{
    bool cannot = error == EPROTONOSUPPORT || error == EACCES || error == EPERM;
    walk->outcome.outcome = cannot ? PROBE_UNSUPPORTED : PROBE_FAILED;
    snprintf(walk->outcome.reason, PROBE_TEXT_SIZE, "%s %s: %s",
        cannot ? "this host does not permit probes by" : "no path can be probed by",
        transport_name((Mp__Transport)self->spec.via), strerror(error));
    path_walk_end(self, walk);
}

static struct path_hop *hop_of(struct walk *walk)
{
    while (walk->outcome.hop_count < walk->ttl) {
        struct path_hop *fresh = &walk->outcome.hops[walk->outcome.hop_count++];
        fresh->ttl = walk->outcome.hop_count;
    }
    return &walk->outcome.hops[walk->ttl - 1];
}

static int ask(struct path *self, struct walk *walk, unsigned tag)
{
    return self->spec.via == MP__TRANSPORT__OVER_ICMP
               ? path_echo(walk, tag)
               : path_say(walk, PATH_ASK_SHORT, tag, REACH_SIZE);
}

static int send_probe(struct path *self, struct walk *walk, int64_t now)
{
    struct sent_probe *probe = &walk->probes[walk->sent];
    unsigned tag = walk->ttl * TESTSPEC_ATTEMPTS_MAX + walk->sent;
    *probe = (struct sent_probe){.watch = {WATCH_PROBE, -1}, .at_mono_ns = now};
    walk->sent++;
    hop_of(walk)->sent++;
    if (self->spec.via == MP__TRANSPORT__OVER_TCP) {
        // One flow is one connection at a time.
        for (unsigned i = 0; i + 1 < walk->sent; i++)
            reach_unwatch(&walk->probes[i].watch);
        return path_dial(self, walk, &probe->watch, self->spec.via);
    }
    int error = walk->watch.fd < 0 ? path_dial(self, walk, &walk->watch, self->spec.via) : 0;
    if (error)
        return error;
    reach_set_ttl(walk->watch.fd, walk->six, walk->ttl);
    error = ask(self, walk, tag);
    // Left over from an earlier probe's answer.
    if (error == EHOSTUNREACH || error == ECONNREFUSED || error == ENETUNREACH)
        error = ask(self, walk, tag);
    return error == EHOSTUNREACH || error == ECONNREFUSED ? 0 : error;
}

static void answered(
    struct walk *walk, struct sent_probe *probe, const char *from, bool final, int64_t now)
{
    struct path_hop *hop = hop_of(walk);
    double rtt_s = (double)(now - probe->at_mono_ns) / 1e9;
    if (probe->answered)
        return;
    probe->answered = true;
    snprintf(hop->address, sizeof hop->address, "%s", from);
    hop->rtt_min_s = hop->received == 0 || rtt_s < hop->rtt_min_s ? rtt_s : hop->rtt_min_s;
    hop->rtt_max_s = rtt_s > hop->rtt_max_s ? rtt_s : hop->rtt_max_s;
    hop->rtt_sum_s += rtt_s;
    hop->received++;
    hop->final = hop->final || final;
    walk->outcome.reached = walk->outcome.reached || final;
}

static bool all_answered(const struct walk *walk)
{
    for (unsigned i = 0; i < walk->sent; i++)
        if (!walk->probes[i].answered)
            return false;
    return true;
}

static void ttl_next(struct path *self, struct walk *walk, int64_t now)
{
    const struct path_hop *hop = hop_of(walk);
    walk->silent = hop->received ? 0 : walk->silent + 1;
    for (unsigned i = 0; i < walk->sent; i++)
        reach_unwatch(&walk->probes[i].watch);
    walk->sent = 0;
    walk->due_mono_ns = now;
    if (walk->outcome.reached && !walk->peer.target)
        mtu_begin(self, walk, now);
    else if (walk->outcome.reached || walk->silent >= SILENT_TTLS ||
             walk->ttl >= TESTSPEC_HOPS_MAX - 1)
        path_walk_end(self, walk);
    else
        walk->ttl++;
}

// Which probe an error belongs to, since it does not say: the first one that waits.
static struct sent_probe *waiting(struct walk *walk)
{
    for (unsigned i = 0; i < walk->sent; i++)
        if (!walk->probes[i].answered)
            return &walk->probes[i];
    return NULL;
}

static void error_of(
    struct walk *walk, struct sent_probe *probe, const struct socket_error *error, int64_t now)
{
    bool theirs = strcmp(error->from, walk->peer.peer_address) == 0;
    if (probe && error->has_icmp && (error_is_hop(error) || theirs))
        answered(walk, probe, error->from, !error_is_hop(error), now);
}

void hops_error(struct walk *walk, const struct socket_error *error, int64_t now)
{
    error_of(walk, waiting(walk), error, now);
}

void hops_reply(struct walk *walk, unsigned tag, int64_t now)
{
    unsigned number = tag % TESTSPEC_ATTEMPTS_MAX;
    if (tag / TESTSPEC_ATTEMPTS_MAX == walk->ttl && number < walk->sent)
        answered(walk, &walk->probes[number], walk->peer.peer_address, true, now);
}

static bool connected(const struct sent_probe *probe)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return getpeername(probe->watch.fd, (struct sockaddr *)&peer, &size) == 0;
}

void hops_connection(struct walk *walk, struct sent_probe *probe, int64_t now)
{
    struct socket_error error = {0};
    int value = 0;
    socklen_t size = sizeof value;
    bool queued = error_read(probe->watch.fd, &error);
    (void)getsockopt(probe->watch.fd, SOL_SOCKET, SO_ERROR, &value, &size);
    if (queued && error.has_icmp)
        error_of(walk, probe, &error, now);
    else if (value == ECONNREFUSED || value == ECONNRESET || (value == 0 && connected(probe)))
        answered(walk, probe, walk->peer.peer_address, true, now);
    reach_unwatch(&probe->watch);
    if (walk->due_mono_ns > now + SPACING_NS)
        walk->due_mono_ns = now + SPACING_NS;
}

// A connection of the flow must have ended before the next one begins.
static int64_t spacing_ns(const struct path *self, const struct walk *walk)
{
    bool tcp = self->spec.via == MP__TRANSPORT__OVER_TCP;
    bool open = tcp && walk->probes[walk->sent - 1].watch.fd >= 0;
    return open ? self->spec.timeout_ns / 2 : SPACING_NS;
}

void hops_due(struct path *self, struct walk *walk, int64_t now)
{
    if (walk->sent == self->spec.attempts && (all_answered(walk) || now >= walk->due_mono_ns)) {
        ttl_next(self, walk, now);
        if (walk->stage != STAGE_HOPS)
            return;
    }
    if (walk->sent == self->spec.attempts || now < walk->due_mono_ns)
        return;
    int error = send_probe(self, walk, now);
    bool last = walk->sent == self->spec.attempts;
    walk->due_mono_ns = now + (last ? self->spec.timeout_ns : spacing_ns(self, walk));
    if (error && error != EHOSTUNREACH && error != ECONNREFUSED && error != EADDRNOTAVAIL)
        walk_fail(self, walk, error);
}
