#include "path.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "reach_parts.h"

#define SPACING_NS (50 * NS_PER_MS)
#define SILENT_TTLS 3
#define MARGIN_NS (NS_PER_S / 2) // before the far end's listener closes by itself
#define SIZES_MAX 24
#define MTU_WAIT_NS (600 * NS_PER_MS)
#define HEADERS4 28u
#define HEADERS6 48u

enum stage { STAGE_HOPS, STAGE_MTU, STAGE_DONE };

struct sent_probe {
    struct watch watch; // tcp: its own socket; else fd -1
    int64_t at_mono_ns;
    bool answered;
};

struct walk {
    struct watch watch; // udp, icmp: the one socket; mtu: its own
    struct path_peer peer;
    struct path_outcome outcome;
    enum stage stage;
    unsigned ttl, silent;
    struct sent_probe probes[TESTSPEC_ATTEMPTS_MAX];
    unsigned sent;
    uint16_t source_port; // tcp
    int64_t due_mono_ns;
    uint8_t nonce[16];
    // The sizes that are tried; a bit each.
    unsigned sizes[SIZES_MAX], size_count;
    uint32_t there, back; // came back short, came back long
    unsigned told_mtu, mtu_tries;
    bool six;
};

struct path {
    struct testspec spec;
    int epoll;
    struct walk *walks;
    size_t count, open;
    bool going;
    int64_t end_mono_ns;
};

// ----------------------------------------------------------------------------------------- sockets

static void watch_it(struct path *self, struct watch *watch, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    (void)!epoll_ctl(self->epoll, EPOLL_CTL_ADD, watch->fd, &event);
}

static void set_errors(int fd, bool six)
{
    int one = 1;
    (void)setsockopt(
        fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVERR : IP_RECVERR, &one, sizeof one);
}

static void set_ttl(int fd, bool six, int ttl)
{
    (void)setsockopt(
        fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_UNICAST_HOPS : IP_TTL, &ttl, sizeof ttl);
}

static void set_probe(int fd, bool six)
{
    int probe = six ? IPV6_PMTUDISC_PROBE : IP_PMTUDISC_PROBE;
    (void)setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER,
        &probe, sizeof probe);
}

static int socket_of(unsigned via, bool six)
{
    if (via == MP__TRANSPORT__OVER_ICMP)
        return socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
            six ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
    return reach_socket(six ? AF_INET6 : AF_INET, (Mp__Transport)via);
}

// Bound and on its way to the peer. 0 or an errno; a connection that is under way is none.
static int dial(struct path *self, struct walk *walk, struct watch *watch, unsigned via)
{
    struct sockaddr_storage local, peer;
    socklen_t local_size, peer_size;
    int one = 1;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (!reach_address(walk->peer.local_address, walk->source_port, &local, &local_size) ||
        !reach_address(walk->peer.peer_address, walk->peer.peer_port, &peer, &peer_size))
        return EDESTADDRREQ;
    walk->six = peer.ss_family == AF_INET6;
    watch->fd = socket_of(via, walk->six);
    if (watch->fd < 0)
        return errno;
    set_errors(watch->fd, walk->six);
    if (via == MP__TRANSPORT__OVER_TCP) {
        (void)setsockopt(watch->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        (void)setsockopt(watch->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        set_ttl(watch->fd, walk->six, (int)walk->ttl);
    }
    if (via == MP__TRANSPORT__OVER_ICMP)
        ((struct sockaddr_in *)&local)->sin_port = 0;
    (void)!bind(watch->fd, (struct sockaddr *)&local, local_size);
    int rc = connect(watch->fd, (struct sockaddr *)&peer, peer_size) < 0 ? errno : 0;
    struct sockaddr_storage own;
    socklen_t own_size = sizeof own;
    struct reach_contact source;
    if (getsockname(watch->fd, (struct sockaddr *)&own, &own_size) == 0) {
        reach_text(&own, &source);
        walk->source_port = source.port; // the flow stays the same
    }
    if (rc == 0 || rc == EINPROGRESS)
        watch_it(self, watch, via == MP__TRANSPORT__OVER_TCP ? EPOLLOUT : EPOLLIN);
    else
        reach_unwatch(watch);
    return rc == EINPROGRESS ? 0 : rc;
}

// ------------------------------------------------------------------------------------------ hops

static void walk_end(struct path *self, struct walk *walk)
{
    for (unsigned i = 0; i < TESTSPEC_ATTEMPTS_MAX; i++)
        reach_unwatch(&walk->probes[i].watch);
    reach_unwatch(&walk->watch);
    if (walk->stage != STAGE_DONE)
        self->open--;
    walk->stage = STAGE_DONE;
}

static void walk_fail(struct path *self, struct walk *walk, int error)
{
    bool cannot = error == EPROTONOSUPPORT || error == EACCES || error == EPERM;
    walk->outcome.outcome = cannot ? PROBE_UNSUPPORTED : PROBE_FAILED;
    snprintf(walk->outcome.reason, PROBE_TEXT_SIZE, "%s %s: %s",
        cannot ? "this host does not permit probes by" : "no path can be probed by",
        transport_name((Mp__Transport)self->spec.via), strerror(error));
    walk_end(self, walk);
}

static struct path_hop *hop_of(struct walk *walk)
{
    while (walk->outcome.hop_count < walk->ttl) {
        struct path_hop *fresh = &walk->outcome.hops[walk->outcome.hop_count++];
        fresh->ttl = walk->outcome.hop_count;
    }
    return &walk->outcome.hops[walk->ttl - 1];
}

// Our datagram, padded to `size` payload bytes; its nonce tells the probe.
static int say(struct walk *walk, unsigned type, unsigned tag, size_t size)
{
    uint8_t bytes[65536] = {0}, nonce[16];
    memcpy(nonce, walk->nonce, sizeof nonce);
    nonce[14] = (uint8_t)(tag >> 8);
    nonce[15] = (uint8_t)tag;
    reach_pack(&walk->peer.keys, type, nonce, bytes);
    return send(walk->watch.fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

static int echo(struct walk *walk, unsigned tag)
{
    struct icmphdr four = {.type = ICMP_ECHO, .un.echo.sequence = htons((uint16_t)tag)};
    struct icmp6_hdr v6 = {.icmp6_type = ICMP6_ECHO_REQUEST, .icmp6_seq = htons((uint16_t)tag)};
    uint8_t bytes[REACH_SIZE] = {0};
    memcpy(bytes, walk->six ? (void *)&v6 : (void *)&four, 8);
    return send(walk->watch.fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

static void drain_errors(struct walk *walk)
{
    struct socket_error ignored;
    int value;
    socklen_t size = sizeof value;
    (void)!error_read(walk->watch.fd, &ignored);
    (void)getsockopt(walk->watch.fd, SOL_SOCKET, SO_ERROR, &value, &size);
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
        return dial(self, walk, &probe->watch, self->spec.via);
    }
    if (walk->watch.fd < 0) {
        int error = dial(self, walk, &walk->watch, self->spec.via);
        if (error)
            return error;
    }
    set_ttl(walk->watch.fd, walk->six, (int)walk->ttl);
    bool ping = self->spec.via == MP__TRANSPORT__OVER_ICMP;
    int error = ping ? echo(walk, tag) : say(walk, PATH_ASK_SHORT, tag, REACH_SIZE);
    if (error == EHOSTUNREACH || error == ECONNREFUSED || error == ENETUNREACH) {
        // Left over from an earlier probe's answer.
        error = ping ? echo(walk, tag) : say(walk, PATH_ASK_SHORT, tag, REACH_SIZE);
    }
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

// ------------------------------------------------------------------------------------------- MTU

static unsigned headers(const struct walk *walk)
{
    return walk->six ? HEADERS6 : HEADERS4;
}

static void add_size(struct walk *walk, unsigned size)
{
    for (unsigned i = 0; i < walk->size_count; i++)
        if (walk->sizes[i] == size)
            return;
    if (walk->size_count < SIZES_MAX && size > headers(walk) + REACH_SIZE)
        walk->sizes[walk->size_count++] = size;
}

static void say_sizes(struct walk *walk)
{
    for (unsigned i = 0; i < walk->size_count; i++) {
        unsigned payload = walk->sizes[i] - headers(walk);
        if (!(walk->there >> i & 1))
            (void)!say(walk, PATH_ASK_SHORT, i, payload);
        if (!(walk->back >> i & 1))
            (void)!say(walk, REACH_ASK, i, payload);
    }
}

// From the interface's own size downwards, at the steps that tunnels make.
static void mtu_begin(struct path *self, struct walk *walk, int64_t now)
{
    static const unsigned steps[] = {9000, 8950, 4352, 1500, 1492, 1480, 1476, 1460, 1450, 1440,
        1420, 1412, 1400, 1380, 1360, 1340, 1320, 1300, 1280, 1024, 576};
    for (unsigned i = 0; i < TESTSPEC_ATTEMPTS_MAX; i++)
        reach_unwatch(&walk->probes[i].watch);
    reach_unwatch(&walk->watch);
    walk->source_port = 0;
    walk->stage = STAGE_MTU;
    int mtu = 0, error = dial(self, walk, &walk->watch, MP__TRANSPORT__OVER_UDP);
    socklen_t size = sizeof mtu;
    if (error || getsockopt(walk->watch.fd, walk->six ? IPPROTO_IPV6 : IPPROTO_IP,
                     walk->six ? IPV6_MTU : IP_MTU, &mtu, &size) < 0) {
        walk_end(self, walk);
        return;
    }
    set_probe(walk->watch.fd, walk->six);
    unsigned local = mtu > 65000 ? 65000 : (unsigned)mtu;
    add_size(walk, local);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (steps[i] < local && (steps[i] >= 1280 || !walk->six))
            add_size(walk, steps[i]);
    say_sizes(walk);
    walk->due_mono_ns = now + MTU_WAIT_NS;
}

static void mtu_end(struct path *self, struct walk *walk)
{
    unsigned there = 0, back = 0;
    for (unsigned i = 0; i < walk->size_count; i++) {
        if (walk->there >> i & 1 && walk->sizes[i] > there)
            there = walk->sizes[i];
        if (walk->back >> i & 1 && walk->sizes[i] > back)
            back = walk->sizes[i];
    }
    struct path_outcome *out = &walk->outcome;
    out->path_mtu = back;
    // Told by a router, or kept by the interface: no black hole.
    unsigned expected = walk->told_mtu ? walk->told_mtu : walk->size_count ? walk->sizes[0] : 0;
    if (there > 0 && there < expected)
        snprintf(out->black_hole, PROBE_TEXT_SIZE,
            "packets of %u bytes vanish on the way there without a word; %u pass", expected, there);
    else if (there > 0 && back < there)
        snprintf(out->black_hole, PROBE_TEXT_SIZE,
            "packets of %u bytes vanish on the way back; %s%u pass", there, back ? "" : "at most ",
            back ? back : REACH_SIZE + headers(walk));
    walk_end(self, walk);
}

static void mtu_due(struct path *self, struct walk *walk, int64_t now)
{
    if (walk->told_mtu && walk->mtu_tries < 2)
        add_size(walk, walk->told_mtu);
    if (walk->mtu_tries++ >= 2) {
        mtu_end(self, walk);
        return;
    }
    // What was lost by chance comes through the second time.
    say_sizes(walk);
    walk->due_mono_ns = now + MTU_WAIT_NS;
}

// ----------------------------------------------------------------------------------------- events

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
        walk_end(self, walk);
    else
        walk->ttl++;
}

// An ICMP error: a hop, the destination's own refusal, or a packet that was too large.
static void on_error(
    struct walk *walk, struct sent_probe *probe, const struct socket_error *error, int64_t now)
{
    bool exceeded = walk->six ? error->icmp_type == ICMP6_TIME_EXCEEDED
                              : error->icmp_type == ICMP_TIME_EXCEEDED;
    if (error->error == EMSGSIZE && error->info > 0) {
        if (walk->stage == STAGE_MTU && (!walk->told_mtu || error->info < walk->told_mtu)) {
            walk->told_mtu = error->info;
            for (unsigned i = 0; i < walk->outcome.hop_count; i++)
                if (strcmp(walk->outcome.hops[i].address, error->from) == 0)
                    walk->outcome.hops[i].mtu = error->info;
        }
        return;
    }
    if (!error->has_icmp || walk->stage != STAGE_HOPS || !probe)
        return;
    bool theirs = strcmp(error->from, walk->peer.peer_address) == 0;
    if (exceeded || theirs)
        answered(walk, probe, error->from, theirs && !exceeded, now);
}

// Which probe an answer belongs to, if it does not say: the first one that waits.
static struct sent_probe *waiting(struct walk *walk)
{
    for (unsigned i = 0; i < walk->sent; i++)
        if (!walk->probes[i].answered)
            return &walk->probes[i];
    return NULL;
}

static void on_reply(struct walk *walk, const uint8_t *bytes, size_t size, int64_t now)
{
    uint8_t nonce[16];
    if (size < REACH_SIZE ||
        !reach_unpack(&walk->peer.keys, REACH_REPLY, bytes, REACH_SIZE, nonce) ||
        memcmp(nonce, walk->nonce, 14) != 0)
        return;
    unsigned tag = (unsigned)nonce[14] << 8 | nonce[15];
    if (walk->stage == STAGE_MTU) {
        if (tag >= walk->size_count)
            return;
        walk->there |= 1u << tag;
        if (size > REACH_SIZE)
            walk->back |= 1u << tag;
        return;
    }
    unsigned number = tag % TESTSPEC_ATTEMPTS_MAX;
    if (tag / TESTSPEC_ATTEMPTS_MAX == walk->ttl && number < walk->sent)
        answered(walk, &walk->probes[number], walk->peer.peer_address, true, now);
}

static void on_datagrams(struct path *self, struct walk *walk, int64_t now)
{
    uint8_t bytes[65536]; // of a thread with a large stack
    struct socket_error error;
    // Messages are taken one by one, each for the probe that waits.
    while (error_next(walk->watch.fd, &error))
        on_error(walk, waiting(walk), &error, now);
    drain_errors(walk);
    for (int i = 0; i < 64; i++) {
        ssize_t got = recv(walk->watch.fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0)
            break;
        if (self->spec.via != MP__TRANSPORT__OVER_ICMP || walk->stage == STAGE_MTU) {
            on_reply(walk, bytes, (size_t)got, now);
            continue;
        }
        unsigned type = got >= 8 ? bytes[0] : 0, tag = got >= 8 ? bytes[6] * 256u + bytes[7] : 0;
        unsigned number = tag % TESTSPEC_ATTEMPTS_MAX;
        if (type == (walk->six ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY) &&
            tag / TESTSPEC_ATTEMPTS_MAX == walk->ttl && number < walk->sent)
            answered(walk, &walk->probes[number], walk->peer.peer_address, true, now);
    }
}

static bool connected(const struct sent_probe *probe)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return getpeername(probe->watch.fd, (struct sockaddr *)&peer, &size) == 0;
}

static void on_connection(struct walk *walk, struct sent_probe *probe, int64_t now)
{
    struct socket_error error = {0};
    int value = 0;
    socklen_t size = sizeof value;
    bool queued = error_read(probe->watch.fd, &error);
    (void)getsockopt(probe->watch.fd, SOL_SOCKET, SO_ERROR, &value, &size);
    if (queued && error.has_icmp)
        on_error(walk, probe, &error, now);
    else if (value == ECONNREFUSED || value == ECONNRESET || (value == 0 && connected(probe)))
        answered(walk, probe, walk->peer.peer_address, true, now);
    reach_unwatch(&probe->watch);
    if (walk->due_mono_ns > now + SPACING_NS)
        walk->due_mono_ns = now + SPACING_NS;
}

static void walk_event(struct path *self, struct watch *watch, int64_t now)
{
    for (size_t i = 0; i < self->count; i++) {
        struct walk *walk = &self->walks[i];
        if (watch == &walk->watch)
            on_datagrams(self, walk, now);
        for (unsigned k = 0; k < TESTSPEC_ATTEMPTS_MAX; k++)
            if (watch == &walk->probes[k].watch && watch->fd >= 0)
                on_connection(walk, &walk->probes[k], now);
    }
}

// A connection of the flow must have ended before the next one begins.
static int64_t spacing_ns(const struct path *self, const struct walk *walk)
{
    bool tcp = self->spec.via == MP__TRANSPORT__OVER_TCP;
    bool open = tcp && walk->probes[walk->sent - 1].watch.fd >= 0;
    return open ? self->spec.timeout_ns / 2 : SPACING_NS;
}

static void walk_due(struct path *self, struct walk *walk, int64_t now)
{
    if (now >= self->end_mono_ns) {
        if (walk->stage == STAGE_MTU)
            mtu_end(self, walk);
        else
            walk_end(self, walk);
        return;
    }
    if (walk->stage == STAGE_MTU) {
        bool all = walk->back == (1u << walk->size_count) - 1;
        if (all)
            mtu_end(self, walk);
        else if (now >= walk->due_mono_ns)
            mtu_due(self, walk, now);
        return;
    }
    if (walk->sent == self->spec.attempts && (all_answered(walk) || now >= walk->due_mono_ns)) {
        ttl_next(self, walk, now);
        if (walk->stage != STAGE_HOPS)
            return;
    }
    if (walk->sent < self->spec.attempts && now >= walk->due_mono_ns) {
        int error = send_probe(self, walk, now);
        bool last = walk->sent == self->spec.attempts;
        walk->due_mono_ns = now + (last ? self->spec.timeout_ns : spacing_ns(self, walk));
        if (error && error != EHOSTUNREACH && error != ECONNREFUSED && error != EADDRNOTAVAIL)
            walk_fail(self, walk, error);
    }
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
        walk_end(self, &self->walks[i]);
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
        self->walks[i].due_mono_ns = now_mono_ns + (int64_t)i * SPACING_NS / 20;
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
