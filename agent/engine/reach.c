#include "reach.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "reach_parts.h"

#define EVENTS_A_TURN 256

// -------------------------------------------------------------------------------- shared by the
// ends

bool reach_watch(struct reach *self, struct watch *watch, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(self->epoll, EPOLL_CTL_ADD, watch->fd, &event) == 0 ||
           (errno == EEXIST && epoll_ctl(self->epoll, EPOLL_CTL_MOD, watch->fd, &event) == 0);
}

void reach_unwatch(struct watch *watch)
{
    if (watch->fd >= 0)
        close(watch->fd); // which takes it out of the epoll set
    watch->fd = -1;
}

bool reach_address(
    const char *text, uint16_t port, struct sockaddr_storage *address, socklen_t *size)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *size = sizeof *v4;
        return true;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1)
        return false;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    *size = sizeof *v6;
    return true;
}

void reach_text(const struct sockaddr_storage *address, struct reach_contact *contact)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    bool six = address->ss_family == AF_INET6;
    const void *bytes = six ? (const void *)&v6->sin6_addr : (const void *)&v4->sin_addr;
    memset(contact, 0, sizeof *contact);
    if (address->ss_family != AF_INET && !six)
        return;
    contact->port = ntohs(six ? v6->sin6_port : v4->sin_port);
    (void)!inet_ntop(address->ss_family, bytes, contact->address, sizeof contact->address);
}

int reach_socket(unsigned family, Mp__Transport transport)
{
    static const struct {
        int type, protocol;
    } of[] = {[MP__TRANSPORT__OVER_TCP] = {SOCK_STREAM, IPPROTO_TCP},
        [MP__TRANSPORT__OVER_UDP] = {SOCK_DGRAM, IPPROTO_UDP},
        [MP__TRANSPORT__OVER_SCTP] = {SOCK_STREAM, IPPROTO_SCTP}};
    int fd = socket(
        (int)family, of[transport].type | SOCK_CLOEXEC | SOCK_NONBLOCK, of[transport].protocol);
    int one = 1;
    if (fd >= 0 && family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    return fd;
}

void reach_set_ttl(int fd, bool six, unsigned ttl)
{
    int hops = (int)ttl;
    (void)setsockopt(
        fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_UNICAST_HOPS : IP_TTL, &hops, sizeof hops);
}

struct entry *reach_entry_of(struct reach *self, const uint8_t *bytes, size_t size)
{
    const uint8_t *id = reach_peek(bytes, size);
    for (size_t i = 0; id && i < self->count; i++)
        if (memcmp(self->entries[i].peer.keys.id, id, TICKET_ID_SIZE) == 0)
            return &self->entries[i];
    return NULL;
}

// ------------------------------------------------------------------------------------------- life

reach_t *reach_new(const struct testspec *spec, const struct reach_peer *peers, size_t count)
{
    reach_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->spec = *spec;
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    self->entries = calloc(count + 1, sizeof *self->entries);
    if (!self->entries)
        abort();
    self->count = count;
    for (size_t i = 0; i < count; i++) {
        struct entry *entry = &self->entries[i];
        entry->watch = (struct watch){WATCH_PROBE, -1};
        entry->peer = peers[i];
        entry->outcome.outcome = PROBE_STOPPED;
        snprintf(entry->outcome.reason, PROBE_TEXT_SIZE, "it was stopped");
        ticket_random(entry->nonce, sizeof entry->nonce);
        self->probes += peers[i].probes;
        self->open += peers[i].probes && !peers[i].skip;
    }
    self->closed = true;
    if (self->epoll < 0)
        reach_destroy(&self);
    return self;
}

void reach_destroy(reach_t **self_p)
{
    reach_t *self = *self_p;
    if (!self)
        return;
    near_stop(self);
    far_close(self, false);
    far_bury(self);
    while (self->listeners) {
        struct listener *listener = self->listeners;
        self->listeners = listener->next;
        free(listener->contacts);
        free(listener);
    }
    if (self->epoll >= 0)
        close(self->epoll);
    for (size_t i = 0; i < self->count; i++)
        ticket_wipe(&self->entries[i].peer.keys);
    free(self->entries);
    free(self);
    *self_p = NULL;
}

void reach_set_guard(
    reach_t *self, bool (*allowed)(const void *ctx, const char *address), const void *ctx)
{
    self->allowed = allowed;
    self->ctx = ctx;
}

// -------------------------------------------------------------------------------------- the steps

void reach_open(reach_t *self, int64_t now_mono_ns)
{
    if (self->listens)
        return;
    self->listens = true;
    self->closed = self->probes == self->count;
    self->listen_until_mono_ns = now_mono_ns + testspec_listen_ns(&self->spec);
    self->look_mono_ns = now_mono_ns + LOOK_NS;
    self->cookies_always = diag_cookies_always();
    far_open(self);
}

bool reach_service(const reach_t *self, size_t peer)
{
    return self->entries[peer].service;
}

bool reach_listener(const reach_t *self, size_t index, char text[PROBE_TEXT_SIZE])
{
    char port[PORT_TEXT_SIZE];
    for (const struct listener *l = self->listeners; l; l = l->next) {
        if (l->watch.fd < 0 || index-- > 0)
            continue;
        snprintf(text, PROBE_TEXT_SIZE, "%s at %s", port_format(&l->port, port), l->address);
        return true;
    }
    return false;
}

void reach_go(reach_t *self, const bool *services, int64_t now_mono_ns)
{
    if (self->going)
        return;
    self->going = true;
    for (size_t i = 0; i < self->count; i++) {
        struct entry *entry = &self->entries[i];
        bool datagram = entry->peer.port.transport == MP__TRANSPORT__OVER_UDP;
        entry->quiet = !datagram && (entry->peer.target || (services && services[i]));
    }
    near_start(self, now_mono_ns);
}

void reach_close(reach_t *self, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    if (self->listens && !self->closed)
        far_close(self, true);
}

int reach_fd(const reach_t *self)
{
    return self->epoll;
}

int64_t reach_turn(reach_t *self, int64_t now_mono_ns)
{
    struct epoll_event events[EVENTS_A_TURN];
    far_bury(self);
    int ready = epoll_wait(self->epoll, events, EVENTS_A_TURN, 0);
    for (int i = 0; i < ready; i++) {
        struct watch *watch = events[i].data.ptr;
        if (watch->fd < 0) // closed by an event before this one
            continue;
        if (watch->kind == WATCH_PROBE)
            near_event(self, (struct entry *)watch, events[i].events, now_mono_ns);
        else
            far_event(self, watch, now_mono_ns);
    }
    int64_t near = near_due(self, now_mono_ns), far = far_due(self, now_mono_ns);
    return near < far ? near : far;
}

bool reach_probed(const reach_t *self)
{
    return self->going && self->open == 0;
}

bool reach_closed(const reach_t *self)
{
    return self->listens && self->closed;
}

const struct reach_outcome *reach_outcome(const reach_t *self, size_t peer)
{
    return &self->entries[peer].outcome;
}
