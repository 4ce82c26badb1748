// The probing end: one socket a probe, tried again while it stays silent.

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

// Needs the sockets' headers before it.
#include <linux/sctp.h>

#include "reach_parts.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

// ------------------------------------------------------------------------------------ the outcome

static bool answered(const struct reach_outcome *out, const struct reach_peer *peer)
{
    switch (out->observed) {
    case MP__OBSERVED__OBSERVED_OPEN:
    case MP__OBSERVED__OBSERVED_ACCEPTED:
    case MP__OBSERVED__OBSERVED_REFUSED:
        return true;
    default:
        return out->has_icmp && strcmp(out->icmp_from, peer->peer_address) == 0;
    }
}

// A target without an agent is shown alive by any other answer of its own.
static void targets_alive(struct reach *self)
{
    char port[PORT_TEXT_SIZE];
    for (size_t i = 0; i < self->count; i++) {
        const struct entry *live = &self->entries[i];
        if (!live->peer.target || !answered(&live->outcome, &live->peer))
            continue;
        for (size_t k = 0; k < self->count; k++) {
            struct entry *entry = &self->entries[k];
            if (!entry->peer.target || entry->outcome.alive ||
                strcmp(entry->peer.peer_address, live->peer.peer_address) != 0)
                continue;
            entry->outcome.alive = true;
            snprintf(entry->outcome.alive_how, PROBE_TEXT_SIZE, "it answered on %s",
                port_format(&live->peer.port, port));
        }
    }
}

void near_end(struct reach *self, struct entry *entry)
{
    reach_unwatch(&entry->watch);
    entry->step = STEP_DONE;
    if (--self->open == 0)
        targets_alive(self);
}

static void finish(struct reach *self, struct entry *entry, Mp__Observed observed,
    const struct socket_error *error, int64_t now)
{
    struct reach_outcome *out = &entry->outcome;
    reach_unwatch(&entry->watch);
    out->outcome = observed == MP__OBSERVED__OBSERVED_UNSUPPORTED ? PROBE_UNSUPPORTED : PROBE_OK;
    *out->reason = '\0';
    if (out->outcome == PROBE_UNSUPPORTED)
        snprintf(out->reason, PROBE_TEXT_SIZE, "no such socket can be had here: %s",
            strerror(error ? error->error : EPROTONOSUPPORT));
    out->observed = observed;
    out->time_s = (double)(now - entry->first_mono_ns) / 1e9;
    if (error) {
        out->error = error->error;
        out->has_icmp = error->has_icmp;
        out->icmp_type = error->icmp_type;
        out->icmp_code = error->icmp_code;
        memcpy(out->icmp_from, error->from, sizeof out->icmp_from);
    }
    if (observed != MP__OBSERVED__OBSERVED_FILTERED || !trace_begin(self, entry, now))
        near_end(self, entry);
}

// A handshake was completed, but nobody knew our nonce.
static void finish_silent(struct reach *self, struct entry *entry, int64_t now)
{
    finish(self, entry,
        entry->shook ? MP__OBSERVED__OBSERVED_ACCEPTED : MP__OBSERVED__OBSERVED_FILTERED, NULL,
        now);
}

static void finish_error(struct reach *self, struct entry *entry, int error, int64_t now)
{
    struct socket_error seen = {0};
    if (entry->watch.fd >= 0)
        (void)!error_read(entry->watch.fd, &seen);
    if (error)
        seen.error = error;
    Mp__Observed observed = error_observed(&seen, &entry->peer);
    if (entry->shook && observed == MP__OBSERVED__OBSERVED_REFUSED)
        observed = MP__OBSERVED__OBSERVED_ACCEPTED; // a reset after the handshake
    // The kernel lost patience before us; or what follows a handshake is rejected, of which it
    // tells a number only. The next try may fare better.
    if (observed == MP__OBSERVED__OBSERVED_FILTERED ||
        (entry->shook && observed != MP__OBSERVED__OBSERVED_ACCEPTED)) {
        reach_unwatch(&entry->watch);
        return;
    }
    finish(self, entry, observed, &seen, now);
}

// --------------------------------------------------------------------------------------- one try

static void ask_for_icmp(int fd, unsigned family)
{
    int one = 1;
    if (family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &one, sizeof one);
    else
        (void)setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof one);
}

static void set_options(int fd, unsigned family, Mp__Transport transport, int64_t timeout_ns)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    // Of SCTP the kernel tells a number only, no sender and no code: "no route" and "forbidden" of
    // our own would look the same.
    if (transport != MP__TRANSPORT__OVER_SCTP)
        ask_for_icmp(fd, family);
    if (transport != MP__TRANSPORT__OVER_UDP)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (transport == MP__TRANSPORT__OVER_SCTP) {
        struct sctp_initmsg init = {.sinit_max_attempts = 2,
            .sinit_max_init_timeo =
                (uint16_t)(timeout_ns / NS_PER_MS < 60000 ? timeout_ns / NS_PER_MS : 60000)};
        (void)setsockopt(fd, IPPROTO_SCTP, SCTP_INITMSG, &init, sizeof init);
    }
}

// To our own address if it is local, and to --from-port. With one source port for all, each socket
// shares it with ours only: whoever else has it makes the bind fail.
static int bind_source(int fd, const struct entry *entry, unsigned family, uint16_t port)
{
    struct sockaddr_storage local;
    socklen_t size;
    int one = 1, rc = 0;
    bool datagram = entry->peer.port.transport == MP__TRANSPORT__OVER_UDP;
    if (!reach_address(entry->peer.local_address, port, &local, &size) || local.ss_family != family)
        return port ? -EADDRNOTAVAIL : 0;
    if (port)
        (void)setsockopt(fd, SOL_SOCKET, datagram ? SO_REUSEPORT : SO_REUSEADDR, &one, sizeof one);
    else if (entry->peer.port.transport == MP__TRANSPORT__OVER_TCP)
        (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&local, size) < 0)
        rc = -errno;
    return port || rc != -EADDRNOTAVAIL ? rc : 0; // translated: not our address here
}

static void note_source(struct entry *entry)
{
    struct sockaddr_storage local;
    socklen_t size = sizeof local;
    struct reach_contact source;
    struct reach_outcome *out = &entry->outcome;
    if (getsockname(entry->watch.fd, (struct sockaddr *)&local, &size) < 0)
        return;
    reach_text(&local, &source);
    for (unsigned i = 0; i < out->source_port_count; i++)
        if (out->source_ports[i] == source.port)
            return;
    if (source.port && out->source_port_count < TESTSPEC_ATTEMPTS_MAX)
        out->source_ports[out->source_port_count++] = source.port;
}

int near_ask(struct entry *entry)
{
    uint8_t question[REACH_SIZE];
    reach_pack(&entry->peer.keys, REACH_ASK, entry->nonce, question);
    ssize_t sent = send(entry->watch.fd, question, sizeof question, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 && errno != EAGAIN ? errno : 0;
}

static int say(struct entry *entry)
{
    entry->got = 0;
    entry->step = STEP_ASKED;
    return near_ask(entry);
}

int near_dial(struct reach *self, struct entry *entry, uint16_t source_port, unsigned ttl)
{
    struct sockaddr_storage peer;
    socklen_t size;
    Mp__Transport transport = entry->peer.port.transport;
    if (!reach_address(entry->peer.peer_address, entry->peer.port.number, &peer, &size))
        return EDESTADDRREQ;
    entry->watch.fd = reach_socket(peer.ss_family, transport);
    if (entry->watch.fd < 0)
        return errno;
    set_options(entry->watch.fd, peer.ss_family, transport, self->spec.timeout_ns);
    int rc = bind_source(entry->watch.fd, entry, peer.ss_family, source_port);
    if (rc != 0)
        return -rc;
    if (ttl)
        reach_set_ttl(entry->watch.fd, peer.ss_family == AF_INET6, ttl);
    rc = connect(entry->watch.fd, (struct sockaddr *)&peer, size) < 0 ? errno : 0;
    note_source(entry);
    if (!reach_watch(self, &entry->watch,
            transport == MP__TRANSPORT__OVER_UDP ? EPOLLIN : EPOLLIN | EPOLLOUT))
        return errno;
    return rc == EINPROGRESS ? 0 : rc;
}

static void try_begin(struct reach *self, struct entry *entry, int64_t now)
{
    bool datagram = entry->peer.port.transport == MP__TRANSPORT__OVER_UDP;
    int error = 0;
    if (entry->outcome.probes == 0)
        entry->first_mono_ns = now;
    if (!datagram)
        reach_unwatch(&entry->watch);
    if (entry->watch.fd < 0) {
        entry->step = STEP_CONNECTS;
        error = near_dial(self, entry, (uint16_t)self->spec.from_port, 0);
    }
    if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
        reach_unwatch(&entry->watch);
        entry->due_mono_ns = now + NO_FILES_NS;
        return;
    }
    if (error == 0 && datagram)
        error = say(entry);
    // What an earlier datagram's error left behind is not this one's failure.
    entry->outcome.probes++;
    entry->due_mono_ns = now + self->spec.timeout_ns;
    if (error)
        finish_error(self, entry, error, now);
}

// ---------------------------------------------------------------------------------------- events

// SO_ERROR also tells of an ICMP that the kernel bore: TCP forgets it with the handshake, SCTP does
// not, so that there only a true failure may be read.
static int connect_error(const struct entry *entry, unsigned events)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (entry->peer.port.transport == MP__TRANSPORT__OVER_SCTP && !(events & (EPOLLERR | EPOLLHUP)))
        return 0;
    return getsockopt(entry->watch.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? errno : error;
}

static void on_connected(struct reach *self, struct entry *entry, unsigned events, int64_t now)
{
    int error = connect_error(entry, events);
    struct sockaddr_storage peer;
    socklen_t peer_size = sizeof peer;
    bool connected = getpeername(entry->watch.fd, (struct sockaddr *)&peer, &peer_size) == 0;
    if (error == 0 && !connected)
        return; // a soft error that the kernel goes on after
    // One that came behind the handshake ends no connection of TCP.
    if (error && !(connected && entry->peer.port.transport == MP__TRANSPORT__OVER_TCP)) {
        finish_error(self, entry, error, now);
        return;
    }
    entry->shook = true;
    if (entry->quiet) {
        finish(self, entry, MP__OBSERVED__OBSERVED_ACCEPTED, NULL, now);
        return;
    }
    (void)!reach_watch(self, &entry->watch, EPOLLIN);
    error = say(entry);
    if (error)
        finish_error(self, entry, error, now);
}

static void on_bytes(struct reach *self, struct entry *entry, int64_t now)
{
    bool datagram = entry->peer.port.transport == MP__TRANSPORT__OVER_UDP;
    uint8_t bytes[REACH_SIZE + 1], nonce[16];
    size_t room = datagram ? sizeof bytes : REACH_SIZE - entry->got;
    ssize_t got = recv(entry->watch.fd, bytes, room, MSG_DONTWAIT);
    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR)
            finish_error(self, entry, errno, now);
        return;
    }
    size_t size = (size_t)got;
    if (!datagram && size > 0) {
        memcpy(entry->bytes + entry->got, bytes, size);
        entry->got += size;
        size = entry->got;
        memcpy(bytes, entry->bytes, size);
        if (size < REACH_SIZE && size >= 4 && memcmp(bytes, "MPR1", 4) == 0)
            return;
        if (size < 4)
            return;
    }
    bool ours = reach_unpack(&entry->peer.keys, REACH_REPLY, bytes, size, nonce) &&
                memcmp(nonce, entry->nonce, sizeof nonce) == 0;
    finish(self, entry, ours ? MP__OBSERVED__OBSERVED_OPEN : MP__OBSERVED__OBSERVED_ACCEPTED, NULL,
        now);
}

static void on_answer(struct reach *self, struct entry *entry, unsigned events, int64_t now)
{
    if (events & EPOLLIN) {
        on_bytes(self, entry, now);
        if (entry->step == STEP_DONE)
            return;
    }
    if (events & (EPOLLERR | EPOLLHUP)) {
        int error = 0;
        socklen_t size = sizeof error;
        (void)getsockopt(entry->watch.fd, SOL_SOCKET, SO_ERROR, &error, &size);
        finish_error(self, entry, error, now);
    }
}

void near_event(struct reach *self, struct entry *entry, unsigned events, int64_t now)
{
    if (entry->step == STEP_CONNECTS)
        on_connected(self, entry, events, now);
    else if (entry->step == STEP_ASKED)
        on_answer(self, entry, events, now);
    else if (entry->step == STEP_TRACES)
        trace_event(self, entry, now);
}

// ------------------------------------------------------------------------------------------- time

// In random order, evenly spread at the agent's rate.
void near_start(struct reach *self, int64_t now)
{
    self->trace_until_mono_ns = now + self->spec.attempts * self->spec.timeout_ns + TRACE_NS;
    size_t *order = calloc(self->probes + 1, sizeof *order), n = 0;
    if (!order)
        abort();
    for (size_t i = 0; i < self->count; i++)
        if (self->entries[i].peer.probes && !self->entries[i].peer.skip)
            order[n++] = i;
    for (size_t i = n; i > 1; i--) {
        uint32_t random;
        ticket_random(&random, sizeof random);
        size_t j = random % i, kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
    for (size_t i = 0; i < n; i++)
        self->entries[order[i]].due_mono_ns =
            now + (int64_t)((double)i / self->spec.agent_rate * 1e9);
    free(order);
}

static void entry_due(struct reach *self, struct entry *entry, int64_t now)
{
    if (entry->step == STEP_TRACES)
        trace_due(self, entry, now);
    else if (entry->outcome.probes < self->spec.attempts)
        try_begin(self, entry, now);
    else
        finish_silent(self, entry, now);
}

int64_t near_due(struct reach *self, int64_t now)
{
    int64_t next = INT64_MAX;
    for (size_t i = 0; self->going && self->open > 0 && i < self->count; i++) {
        struct entry *entry = &self->entries[i];
        if (!entry->peer.probes || entry->peer.skip || entry->step == STEP_DONE)
            continue;
        if (entry->due_mono_ns <= now)
            entry_due(self, entry, now);
        if (entry->step != STEP_DONE && entry->due_mono_ns < next)
            next = entry->due_mono_ns;
    }
    return next;
}

void near_stop(struct reach *self)
{
    for (size_t i = 0; i < self->count; i++)
        reach_unwatch(&self->entries[i].watch);
}
