#include "dataport_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

void pending_close(dataport_t *self, struct pending *pending)
{
    if (pending->fd >= 0)
        close(pending->fd);
    pending->fd = -1;
    self->pending_count--;
}

static struct pending *oldest(dataport_t *self)
{
    struct pending *found = NULL;
    for (size_t i = 0; i < PENDING_MAX; i++) {
        struct pending *one = &self->pending[i];
        if (one->fd >= 0 && (!found || one->deadline_mono_ns < found->deadline_mono_ns))
            found = one;
    }
    return found;
}

static struct pending *free_slot(dataport_t *self)
{
    if (self->pending_count == PENDING_MAX) {
        self->counters.strangers++;
        pending_close(self, oldest(self));
    }
    for (size_t i = 0; i < PENDING_MAX; i++)
        if (self->pending[i].fd < 0)
            return &self->pending[i];
    return NULL;
}

void pending_expire(dataport_t *self, int64_t now_mono_ns)
{
    for (size_t i = 0; self->pending_count > 0 && i < PENDING_MAX; i++) {
        struct pending *one = &self->pending[i];
        if (one->fd < 0 || one->deadline_mono_ns > now_mono_ns)
            continue;
        self->counters.strangers++;
        pending_close(self, one);
    }
}

// Out of descriptors the connection would stay in the queue and wake us for ever: the spare one
// takes it, only to close it.
static void shed(dataport_t *self, struct listener *listener)
{
    if (self->pending_count > 0)
        pending_close(self, oldest(self));
    close(self->spare_fd);
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    self->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void welcome(
    dataport_t *self, enum dataport_protocol protocol, int fd, const union address *peer)
{
    self->counters.accepted++;
    protocol_dress(protocol, fd);
    struct pending *pending = free_slot(self);
    *pending = (struct pending){.fd = fd,
        .protocol = protocol,
        .generation = pending->generation + 1,
        .deadline_mono_ns = clock_mono_ns() + GREETING_NS,
        .peer = *peer};
    self->pending_count++;
    if (dataport_watch(
            self, fd, SOURCE_PENDING, (size_t)(pending - self->pending), pending->generation) < 0)
        pending_close(self, pending);
    else
        dataport_greet(self, pending);
}

void dataport_accept(dataport_t *self, struct listener *listener)
{
    for (int i = 0; i < 64; i++) {
        union address peer;
        socklen_t size = sizeof peer;
        memset(&peer, 0, sizeof peer);
        int fd = accept4(listener->fd, &peer.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            welcome(self, listener->protocol, fd, &peer);
        else if (errno == EMFILE || errno == ENFILE)
            shed(self, listener);
        else if (errno == EAGAIN)
            return;
    }
}

// True when the connection may go on; otherwise the count says why it may not.
static bool open_is_good(dataport_t *self, struct pending *pending)
{
    const uint8_t *id;
    if (ticket_peek(pending->bytes, TICKET_OPEN_SIZE, &id, &pending->stream) != TICKET_OPEN) {
        self->counters.strangers++;
        return false;
    }
    memcpy(pending->id, id, TICKET_ID_SIZE);
    struct entry *entry = dataport_entry(self, id);
    if (!entry || !entry->admission || entry->admission->protocol != pending->protocol ||
        pending->stream >= entry->admission->streams) {
        self->counters.strangers++;
        return false;
    }
    const struct ticket_keys *keys = &entry->admission->keys;
    if (!ticket_check_open(keys, pending->bytes, TICKET_OPEN_SIZE, pending->nonce_c)) {
        self->counters.forged++;
        return false;
    }
    if (entry->admission->greetings[pending->stream].proven) {
        self->counters.replayed++;
        return false;
    }
    uint8_t answer[TICKET_ANSWER_SIZE];
    ticket_random(pending->nonce_l, sizeof pending->nonce_l);
    ticket_make_answer(keys, pending->stream, pending->nonce_c, pending->nonce_l, answer);
    return send(pending->fd, answer, sizeof answer, MSG_NOSIGNAL) == (ssize_t)sizeof answer;
}

// The connection leaves us, whether it is proven or not.
static void finish(dataport_t *self, struct pending *pending)
{
    struct entry *entry = dataport_entry(self, pending->id);
    if (!entry || !entry->admission) {
        self->counters.strangers++;
    } else if (!ticket_check_proof(&entry->admission->keys, pending->bytes, TICKET_PROOF_SIZE,
                   pending->stream, pending->nonce_c, pending->nonce_l)) {
        self->counters.forged++;
    } else if (entry->admission->greetings[pending->stream].proven) {
        self->counters.replayed++;
    } else {
        int fd = pending->fd;
        self->counters.proven++;
        entry->admission->greetings[pending->stream].proven = true;
        // Only taken off, not closed: the descriptor is the test's from now on.
        dataport_unwatch(self, fd);
        pending->fd = -1;
        admission_give(entry->admission, fd, pending->stream, &pending->peer);
    }
    pending_close(self, pending);
}

void dataport_greet(dataport_t *self, struct pending *pending)
{
    // Exactly one message is read at a time: what follows PROOF belongs to the test.
    for (;;) {
        size_t need = pending->answered ? TICKET_PROOF_SIZE : TICKET_OPEN_SIZE;
        ssize_t got = recv(pending->fd, pending->bytes + pending->have, need - pending->have, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            self->counters.strangers++;
            pending_close(self, pending);
            return;
        }
        pending->have += (size_t)got;
        if (pending->have < need)
            continue;
        pending->have = 0;
        if (pending->answered) {
            finish(self, pending);
            return;
        }
        if (!open_is_good(self, pending)) {
            pending_close(self, pending);
            return;
        }
        pending->answered = true;
    }
}
