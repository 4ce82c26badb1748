// The listening end: listeners, the connections they accept, and what looking on finds.

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "path.h"
#include "reach_parts.h"

#define BACKLOG 4096 // or what the kernel permits: what does not fit leaves no trace
#define ACCEPTS_A_TURN 64

// -------------------------------------------------------------------------------------- contacts

void contact_add(struct listener *listener, const struct reach_contact *contact)
{
    for (unsigned i = 0; i < listener->contact_count; i++)
        if (listener->contacts[i].port == contact->port &&
            strcmp(listener->contacts[i].address, contact->address) == 0)
            return;
    if (listener->contact_count == CONTACTS_A_LISTENER)
        return;
    if (listener->contact_count == listener->contact_room) {
        listener->contact_room = listener->contact_room ? 2 * listener->contact_room : 8;
        listener->contacts =
            realloc(listener->contacts, listener->contact_room * sizeof *listener->contacts);
        if (!listener->contacts)
            abort();
    }
    listener->contacts[listener->contact_count++] = *contact;
}

// -------------------------------------------------------------------------------------- opening

static struct listener *listener_of(struct reach *self, const struct entry *entry)
{
    struct listener *l = self->listeners;
    while (l && (l->port.transport != entry->peer.port.transport ||
                    l->port.number != entry->peer.port.number ||
                    strcmp(l->address, entry->peer.local_address) != 0))
        l = l->next;
    if (l)
        return l;
    l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->watch = (struct watch){WATCH_LISTENER, -1};
    l->port = entry->peer.port;
    memcpy(l->address, entry->peer.local_address, sizeof l->address);
    l->next = self->listeners;
    self->listeners = l;
    return l;
}

static int bind_to(int fd, const char *text, uint16_t port)
{
    struct sockaddr_storage address;
    socklen_t size;
    if (!reach_address(text, port, &address, &size))
        return EINVAL;
    if (bind(fd, (struct sockaddr *)&address, size) == 0)
        return 0;
    if (errno != EADDRNOTAVAIL)
        return errno;
    // Translated on the way here: the address is not this host's own.
    const char *any = address.ss_family == AF_INET6 ? "::" : "0.0.0.0";
    (void)!reach_address(any, port, &address, &size);
    return bind(fd, (struct sockaddr *)&address, size) == 0 ? 0 : errno;
}

// Answers go out whole, whatever the kernel believes of the path.
static void set_probe(int fd, unsigned family)
{
    int probe = family == AF_INET6 ? IPV6_PMTUDISC_PROBE : IP_PMTUDISC_PROBE;
    if (family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &probe, sizeof probe);
    else
        (void)setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof probe);
}

static int listener_bind(struct listener *self)
{
    bool datagram = self->port.transport == MP__TRANSPORT__OVER_UDP;
    unsigned family = strchr(self->address, ':') ? AF_INET6 : AF_INET;
    int one = 1;
    self->watch.fd = reach_socket(family, self->port.transport);
    if (self->watch.fd < 0)
        return errno;
    if (self->port.transport == MP__TRANSPORT__OVER_TCP)
        (void)setsockopt(self->watch.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (datagram)
        set_probe(self->watch.fd, family);
    int error = bind_to(self->watch.fd, self->address, self->port.number);
    if (error == 0 && !datagram && listen(self->watch.fd, BACKLOG) < 0)
        error = errno;
    return error;
}

static void listener_open(struct reach *self, struct listener *listener)
{
    int error = listener_bind(listener);
    if (error == 0 && !reach_watch(self, &listener->watch, EPOLLIN))
        error = errno;
    if (error == 0)
        return;
    reach_unwatch(&listener->watch);
    listener->service = error == EADDRINUSE ||
                        (error == EACCES && diag_listens(&listener->port, listener->address));
    if (error == EACCES)
        snprintf(listener->why, PROBE_TEXT_SIZE,
            "the agent may not open this port without CAP_NET_BIND_SERVICE");
    else
        snprintf(
            listener->why, PROBE_TEXT_SIZE, "the agent cannot open this port: %s", strerror(error));
}

void far_open(struct reach *self)
{
    for (size_t i = 0; i < self->count; i++) {
        struct entry *entry = &self->entries[i];
        if (entry->peer.probes || entry->peer.skip)
            continue;
        entry->listener = listener_of(self, entry);
        if (entry->peer.arm && entry->listener->watch.fd < 0 && !*entry->listener->why)
            listener_open(self, entry->listener);
    }
    for (struct listener *l = self->listeners; l; l = l->next) {
        if (l->watch.fd >= 0 || *l->why)
            continue;
        l->service = diag_listens(&l->port, l->address);
        snprintf(l->why, PROBE_TEXT_SIZE, "a service is expected there, and none listens");
    }
    for (size_t i = 0; i < self->count; i++)
        if (self->entries[i].listener)
            self->entries[i].service = self->entries[i].listener->service;
    self->sctp_still = diag_sctp_packets(&self->sctp_before);
    self->diag_works = diag_drops(self->listeners);
    for (struct listener *l = self->listeners; l; l = l->next)
        l->drops_before = l->drops;
}

// ----------------------------------------------------------------------------------------
// answering

static bool may_speak(const struct reach *self, const char *address)
{
    return !self->allowed || self->allowed(self->ctx, address);
}

// The whole question of somebody: whose probe is it? The answer is written if it is one. It may
// have been meant for another port and translated to this one: then it has arrived, and gets no
// answer.
static const struct entry *recognise(struct reach *self, const struct listener *listener,
    const uint8_t *bytes, size_t size, const struct reach_contact *from, uint8_t answer[REACH_SIZE])
{
    uint8_t nonce[16];
    struct entry *entry = reach_entry_of(self, bytes, size);
    if (!entry || !entry->listener || entry->peer.port.transport != listener->port.transport ||
        (!reach_unpack(&entry->peer.keys, REACH_ASK, bytes, size, nonce) &&
            !reach_unpack(&entry->peer.keys, PATH_ASK_SHORT, bytes, size, nonce)) ||
        !may_speak(self, from->address))
        return NULL;
    entry->outcome.arrived = MP__ARRIVED__ARRIVED_YES;
    entry->came_to = listener;
    memcpy(entry->outcome.seen_from, from->address, sizeof entry->outcome.seen_from);
    reach_pack(&entry->peer.keys, REACH_REPLY, nonce, answer);
    return entry;
}

// A question may be longer than its head: then so is the answer, if that is wished, with DF.
static void on_datagrams(struct reach *self, struct listener *listener)
{
    uint8_t bytes[65536];
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        uint8_t head[REACH_SIZE];
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        struct reach_contact from;
        ssize_t got = recvfrom(
            listener->watch.fd, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&peer, &size);
        if (got < 0)
            return;
        reach_text(&peer, &from);
        const struct entry *entry =
            got < REACH_SIZE ? NULL : recognise(self, listener, bytes, REACH_SIZE, &from, head);
        if (!entry || entry->listener != listener)
            continue;
        size_t length = bytes[REACH_AT_TYPE] == PATH_ASK_SHORT ? REACH_SIZE : (size_t)got;
        memcpy(bytes, head, sizeof head);
        (void)!sendto(listener->watch.fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL,
            (struct sockaddr *)&peer, size);
    }
}

// Ends by reset, so that nothing of it stays behind. Who said no nonce was a contact all the same.
static void connection_end(struct reach *self, struct connection **at)
{
    struct connection *connection = *at;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(connection->watch.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    reach_unwatch(&connection->watch);
    if (!connection->known)
        contact_add(connection->listener, &connection->peer);
    *at = connection->next;
    self->connection_count--;
    connection->next = self->ended;
    self->ended = connection;
}

void far_bury(struct reach *self)
{
    while (self->ended) {
        struct connection *connection = self->ended;
        self->ended = connection->next;
        free(connection);
    }
}

static void on_connections(struct reach *self, struct listener *listener, int64_t now)
{
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        int fd = accept4(
            listener->watch.fd, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        struct connection **last = &self->connections;
        while (*last && (*last)->next)
            last = &(*last)->next;
        if (self->connection_count >= CONNECTIONS_MAX)
            connection_end(self, last); // new ones stand in front
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection)
            abort();
        connection->watch = (struct watch){WATCH_CONNECTION, fd};
        connection->listener = listener;
        connection->until_mono_ns = now + CONNECTION_NS;
        reach_text(&peer, &connection->peer);
        connection->next = self->connections;
        self->connections = connection;
        self->connection_count++;
        if (!reach_watch(self, &connection->watch, EPOLLIN))
            connection_end(self, &self->connections);
    }
}

static void on_bytes(struct reach *self, struct connection *connection)
{
    struct connection **at = &self->connections;
    uint8_t answer[REACH_SIZE];
    while (*at != connection)
        at = &(*at)->next;
    if (connection->known) { // it was to close
        connection_end(self, at);
        return;
    }
    ssize_t got = recv(connection->watch.fd, connection->bytes + connection->got,
        REACH_SIZE - connection->got, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0)
        connection->got += (size_t)got;
    if (got > 0 && connection->got < REACH_SIZE)
        return;
    const struct entry *entry = got <= 0 ? NULL
                                         : recognise(self, connection->listener, connection->bytes,
                                               connection->got, &connection->peer, answer);
    connection->known = entry != NULL;
    if (!entry || entry->listener != connection->listener ||
        send(connection->watch.fd, answer, sizeof answer, MSG_DONTWAIT | MSG_NOSIGNAL) !=
            (ssize_t)sizeof answer)
        connection_end(self, at);
}

void far_event(struct reach *self, struct watch *watch, int64_t now)
{
    if (watch->kind == WATCH_CONNECTION)
        on_bytes(self, (struct connection *)watch);
    else if (((struct listener *)watch)->port.transport == MP__TRANSPORT__OVER_UDP)
        on_datagrams(self, (struct listener *)watch);
    else
        on_connections(self, (struct listener *)watch, now);
}

// ----------------------------------------------------------------------------------------- the end

static bool is_peer_of(const struct reach *self, const struct listener *listener, const char *from)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->entries[i].listener == listener &&
            strcmp(self->entries[i].peer.peer_address, from) == 0)
            return true;
    return false;
}

// Contacts of its own peer and of addresses that nobody here has (translated ones), and behind them
// those of other peers, as far as there is room. False: the former are too many.
static bool take_contacts(const struct reach *self, struct entry *entry)
{
    const struct listener *l = entry->listener;
    struct reach_outcome *out = &entry->outcome;
    for (int others = 0; others < 2; others++)
        for (unsigned i = 0; i < l->contact_count; i++) {
            struct reach_contact contact = l->contacts[i];
            contact.others = strcmp(contact.address, entry->peer.peer_address) != 0 &&
                             is_peer_of(self, l, contact.address);
            if (contact.others != others)
                continue;
            if (out->contact_count == REACH_CONTACTS)
                return others;
            out->contacts[out->contact_count++] = contact;
        }
    return true;
}

static bool is_crowded(const struct listener *l)
{
    return l->contact_count >= CONTACTS_A_LISTENER ||
           (l->backlog && l->contact_count >= l->backlog);
}

// Why nobody can say that nothing arrived at this listener; NULL: it can be said. It must have
// stood open all the time (or be a TCP service's), and an arrival must have left a trace.
static const char *doubt(const struct reach *self, const struct listener *l, bool in_time)
{
    bool open = l->watch.fd >= 0, tcp = l->port.transport == MP__TRANSPORT__OVER_TCP;
    if (!open && !l->service)
        return l->why;
    if (!open && !tcp)
        return "a service holds the port";
    if (!in_time)
        return "the listener was closed before the probes ended";
    if (l->port.transport == MP__TRANSPORT__OVER_SCTP && !self->sctp_still)
        return "packets of SCTP came, and a listener does not learn of an INIT whose answer is "
               "lost";
    if (tcp && !self->diag_works)
        return "the kernel does not show half-open connections (sock_diag)";
    if (tcp && self->cookies_always)
        return "with tcp_syncookies=2 the kernel keeps no half-open connections";
    if (tcp && is_crowded(l))
        return "more connections were begun than can be kept apart";
    if (tcp && l->drops != l->drops_before)
        return "packets came to the port and vanished there: answers may be rejected on the way "
               "back";
    return NULL;
}

static void settle(const struct reach *self, struct entry *entry, bool in_time)
{
    const struct listener *l = entry->listener;
    struct reach_outcome *out = &entry->outcome;
    char port[PORT_TEXT_SIZE];
    out->outcome = PROBE_OK;
    *out->reason = '\0';
    out->listener = l->watch.fd >= 0 ? MP__LISTENER__LISTENER_AGENT
                    : l->service     ? MP__LISTENER__LISTENER_SERVICE
                                     : MP__LISTENER__LISTENER_NONE;
    bool all = take_contacts(self, entry);
    if (out->arrived == MP__ARRIVED__ARRIVED_YES) {
        if (entry->came_to != l)
            snprintf(out->reason, PROBE_TEXT_SIZE, "translated to %s",
                port_format(&entry->came_to->port, port));
        return;
    }
    const char *why = doubt(self, l, in_time);
    if (!why && !all)
        why = "more connections were begun than can be kept apart";
    out->arrived = why ? MP__ARRIVED__ARRIVED_UNKNOWN : MP__ARRIVED__ARRIVED_NO;
    snprintf(out->reason, PROBE_TEXT_SIZE, "%s", why ? why : "");
}

void far_close(struct reach *self, bool in_time)
{
    if (!self->listens || self->closed)
        return;
    struct listener *l = self->listeners;
    for (; l; l = l->next)
        if (l->watch.fd >= 0 && l->port.transport == MP__TRANSPORT__OVER_UDP)
            on_datagrams(self, l);
    for (l = self->listeners; l; l = l->next)
        if (l->watch.fd >= 0 && l->port.transport != MP__TRANSPORT__OVER_UDP)
            on_connections(self, l, 0);
    self->diag_works =
        diag_half_open(self->listeners) && diag_drops(self->listeners) && self->diag_works;
    uint64_t sctp;
    self->sctp_still = self->sctp_still && diag_sctp_packets(&sctp) && sctp == self->sctp_before;
    while (self->connections)
        connection_end(self, &self->connections);
    for (size_t i = 0; i < self->count; i++)
        if (self->entries[i].listener)
            settle(self, &self->entries[i], in_time);
    for (l = self->listeners; l; l = l->next)
        reach_unwatch(&l->watch);
    self->closed = true;
}

int64_t far_due(struct reach *self, int64_t now)
{
    if (!self->listens || self->closed)
        return INT64_MAX;
    for (struct connection **at = &self->connections; *at;) {
        if ((*at)->until_mono_ns <= now)
            connection_end(self, at);
        else
            at = &(*at)->next;
    }
    if (now >= self->listen_until_mono_ns) {
        far_close(self, false);
        return now;
    }
    if (now >= self->look_mono_ns) {
        self->diag_works = diag_half_open(self->listeners) && self->diag_works;
        self->look_mono_ns = now + LOOK_NS;
    }
    return self->look_mono_ns < self->listen_until_mono_ns ? self->look_mono_ns
                                                           : self->listen_until_mono_ns;
}
