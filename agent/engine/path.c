#include "path.h"

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "path_parts.h"

#define STAGGER_NS (NS_PER_MS * 5 / 2) // between the starts of two walks
#define MARGIN_NS (NS_PER_S / 2)       // before the far end's listener closes by itself

void path_walk_end(struct path *self, struct walk *walk)
{
    for (unsigned i = 0; i < TESTSPEC_ATTEMPTS_MAX; i++)
        reach_unwatch(&walk->probes[i].watch);
    reach_unwatch(&walk->watch);
    if (walk->stage != STAGE_DONE)
        self->open--;
    walk->stage = STAGE_DONE;
}

// ----------------------------------------------------------------------------------------- events

// "Fragmentation needed", a hop, or the destination's own refusal.
static void on_error(struct walk *walk, const struct socket_error *error, int64_t now)
{
    bool too_large = error->error == EMSGSIZE && error->info > 0;
    if (walk->stage == STAGE_MTU && too_large)
        mtu_error(walk, error);
    else if (walk->stage == STAGE_HOPS && !too_large)
        hops_error(walk, error, now);
}

static void on_errors(struct walk *walk, int64_t now)
{
    struct socket_error error;
    int value;
    socklen_t size = sizeof value;
    while (error_next(walk->watch.fd, &error))
        on_error(walk, &error, now);
    (void)getsockopt(walk->watch.fd, SOL_SOCKET, SO_ERROR, &value, &size);
}

static void on_echo(struct walk *walk, const uint8_t *bytes, size_t size, int64_t now)
{
    if (size >= 8 && bytes[0] == (walk->six ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY))
        hops_reply(walk, bytes[6] * 256u + bytes[7], now);
}

static void on_reply(struct walk *walk, const uint8_t *bytes, size_t size, int64_t now)
{
    uint8_t nonce[16];
    if (size < REACH_SIZE ||
        !reach_unpack(&walk->peer.keys, REACH_REPLY, bytes, REACH_SIZE, nonce) ||
        memcmp(nonce, walk->nonce, 14) != 0)
        return;
    unsigned tag = (unsigned)nonce[14] << 8 | nonce[15];
    if (walk->stage == STAGE_MTU)
        mtu_reply(walk, tag, size);
    else
        hops_reply(walk, tag, now);
}

static void on_datagrams(struct path *self, struct walk *walk, int64_t now)
{
    uint8_t bytes[65536]; // of a thread with a large stack
    bool ping = self->spec.via == MP__TRANSPORT__OVER_ICMP && walk->stage == STAGE_HOPS;
    on_errors(walk, now);
    for (int i = 0; i < 64; i++) {
        ssize_t got = recv(walk->watch.fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0)
            break;
        if (ping)
            on_echo(walk, bytes, (size_t)got, now);
        else
            on_reply(walk, bytes, (size_t)got, now);
    }
}

static void walk_event(struct path *self, struct watch *watch, int64_t now)
{
    for (size_t i = 0; i < self->count; i++) {
        struct walk *walk = &self->walks[i];
        if (watch == &walk->watch)
            on_datagrams(self, walk, now);
        for (unsigned k = 0; k < TESTSPEC_ATTEMPTS_MAX; k++)
            if (watch == &walk->probes[k].watch && watch->fd >= 0)
                hops_connection(walk, &walk->probes[k], now);
    }
}

static void walk_due(struct path *self, struct walk *walk, int64_t now)
{
    bool late = now >= self->end_mono_ns;
    if (walk->stage == STAGE_MTU && late)
        mtu_end(self, walk);
    else if (late)
        path_walk_end(self, walk);
    else if (walk->stage == STAGE_MTU)
        mtu_due(self, walk, now);
    else
        hops_due(self, walk, now);
}

// -------------------------------------------------------------------------------------------- life

path_t *path_new(const struct testspec *spec, const struct path_peer *peers, size_t count)
{
    path_t *self = calloc(1, sizeof *self);
    struct walk *walks = calloc(count + 1, sizeof *walks);
    if (!self || !walks)
        abort();
    self->spec = *spec;
    self->walks = walks;
    self->count = count;
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < count; i++) {
        struct walk *walk = &walks[i];
        walk->watch = (struct watch){WATCH_PROBE, -1};
        for (unsigned k = 0; k < TESTSPEC_ATTEMPTS_MAX; k++)
            walk->probes[k].watch = (struct watch){WATCH_PROBE, -1};
        walk->peer = peers[i];
        walk->ttl = 1;
        walk->stage = peers[i].skip ? STAGE_DONE : STAGE_HOPS;
        walk->outcome.outcome = PROBE_STOPPED;
        ticket_random(walk->nonce, sizeof walk->nonce);
        self->open += !peers[i].skip;
    }
    if (self->epoll < 0)
        path_destroy(&self);
    return self;
}

void path_destroy(path_t **self_p)
{
    path_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++) {
        path_walk_end(self, &self->walks[i]);
        ticket_wipe(&self->walks[i].peer.keys);
    }
    if (self->epoll >= 0)
        close(self->epoll);
    free(self->walks);
    free(self);
    *self_p = NULL;
}

void path_go(path_t *self, int64_t now_mono_ns)
{
    if (self->going)
        return;
    self->going = true;
    self->end_mono_ns = now_mono_ns + testspec_listen_ns(&self->spec) - MARGIN_NS;
    for (size_t i = 0; i < self->count; i++) {
        self->walks[i].due_mono_ns = now_mono_ns + (int64_t)i * STAGGER_NS;
        self->walks[i].outcome.outcome = PROBE_OK;
    }
}

int path_fd(const path_t *self)
{
    return self->epoll;
}

int64_t path_turn(path_t *self, int64_t now_mono_ns)
{
    struct epoll_event events[64];
    int64_t next = INT64_MAX;
    int ready = epoll_wait(self->epoll, events, 64, 0);
    for (int i = 0; i < ready; i++)
        walk_event(self, events[i].data.ptr, now_mono_ns);
    for (size_t i = 0; self->going && i < self->count; i++) {
        struct walk *walk = &self->walks[i];
        if (walk->stage == STAGE_DONE)
            continue;
        walk_due(self, walk, now_mono_ns);
        int64_t due = walk->due_mono_ns < self->end_mono_ns ? walk->due_mono_ns : self->end_mono_ns;
        if (walk->stage != STAGE_DONE && due < next)
            next = due;
    }
    return next;
}

bool path_done(const path_t *self)
{
    return self->going && self->open == 0;
}

const struct path_outcome *path_outcome(const path_t *self, size_t peer)
{
    return &self->walks[peer].outcome;
}
