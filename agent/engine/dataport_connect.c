#include "dataport.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "dataport_parts.h"
#include "errors.h"

#define REPEAT_NS (100 * NS_PER_MS)
#define PROOFS_MAX 5 // without a receipt; the peer has proved itself by then

struct greeter {
    const struct dataport_target *target;
    const struct ticket_keys *keys;
    uint8_t stream;
    int fd;
    uint8_t nonce_c[TICKET_NONCE_SIZE], nonce_l[TICKET_NONCE_SIZE];
};

// Waits for `events` on fd (-1: only for time) until `until_mono_ns`: 0, MESH_E_TIMEOUT or
// MESH_E_STOPPED.
static int await(const struct greeter *self, int fd, short events, int64_t until_mono_ns)
{
    for (;;) {
        int64_t left = until_mono_ns - clock_mono_ns();
        if (left <= 0)
            return MESH_E_TIMEOUT;
        struct pollfd polls[2] = {
            {.fd = fd, .events = events}, {.fd = self->target->stop_fd, .events = POLLIN}};
        struct timespec wait = {left / NS_PER_S, left % NS_PER_S};
        int count = ppoll(polls, 2, &wait, NULL);
        if (count > 0 && polls[1].revents)
            return MESH_E_STOPPED;
        if (count > 0 && polls[0].revents)
            return 0;
    }
}

static int new_socket(const struct greeter *self, const union address *peer)
{
    const struct dataport_target *target = self->target;
    union address local;
    int one = 1, fd = protocol_socket(target->protocol, peer->any.sa_family);
    if (fd < 0)
        return fd;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    int rc = target->prepare ? target->prepare(fd, target->ctx) : 0;
    // A ticket may name an address that only a translator knows: then the route chooses.
    if (rc == 0 && target->local_address && address_parse(target->local_address, 0, &local) &&
        local.any.sa_family == peer->any.sa_family &&
        bind(fd, &local.any, address_size(&local)) < 0 && errno != EADDRNOTAVAIL)
        rc = -errno;
    if (rc < 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

// SO_ERROR alone does not say that a connection failed: it also tells of an ICMP that the kernel
// bore, and SCTP keeps that beyond the handshake.
static int connect_outcome(int fd)
{
    union address peer;
    socklen_t size = sizeof peer;
    int error = 0;
    if (getpeername(fd, &peer.any, &size) == 0)
        return 0;
    size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error ? -error : -ECONNABORTED;
}

static int connect_once(struct greeter *self, const union address *peer)
{
    self->fd = new_socket(self, peer);
    if (self->fd < 0)
        return self->fd;
    if (connect(self->fd, &peer->any, address_size(peer)) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    int rc = await(self, self->fd, POLLOUT, self->target->deadline_mono_ns);
    return rc < 0 ? rc : connect_outcome(self->fd);
}

static int connect_patiently(struct greeter *self, const union address *peer)
{
    for (;;) {
        int rc = connect_once(self, peer);
        if (rc != -ECONNREFUSED)
            return rc;
        close(self->fd);
        self->fd = -1;
        int64_t again = clock_mono_ns() + REPEAT_NS;
        if (again >= self->target->deadline_mono_ns)
            return rc;
        if (await(self, -1, 0, again) == MESH_E_STOPPED)
            return MESH_E_STOPPED;
    }
}

static int read_whole(const struct greeter *self, uint8_t *bytes, size_t size)
{
    for (size_t have = 0; have < size;) {
        ssize_t got = recv(self->fd, bytes + have, size - have, 0);
        if (got == 0)
            return -ECONNRESET;
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (got > 0)
            have += (size_t)got;
        else {
            int rc = await(self, self->fd, POLLIN, self->target->deadline_mono_ns);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int send_whole(const struct greeter *self, const uint8_t *bytes, size_t size)
{
    // A fresh connection's buffer always holds a greeting.
    ssize_t sent = send(self->fd, bytes, size, MSG_NOSIGNAL);
    return sent == (ssize_t)size ? 0 : sent < 0 ? -errno : -EIO;
}

static int greet_tcp(struct greeter *self)
{
    uint8_t open[TICKET_OPEN_SIZE], answer[TICKET_ANSWER_SIZE], proof[TICKET_PROOF_SIZE];
    ticket_make_open(self->keys, self->stream, self->nonce_c, open);
    int rc = send_whole(self, open, sizeof open);
    if (rc == 0)
        rc = read_whole(self, answer, sizeof answer);
    if (rc < 0)
        return rc;
    if (!ticket_check_answer(
            self->keys, answer, sizeof answer, self->stream, self->nonce_c, self->nonce_l))
        return MESH_E_AUTH;
    ticket_make_proof(self->keys, self->stream, self->nonce_c, self->nonce_l, proof);
    return send_whole(self, proof, sizeof proof);
}

// Reads what has come: 1 an answer to OPEN, 2 a sign that PROOF has arrived, 0 nothing of use.
static int read_answers(struct greeter *self, bool *strange)
{
    uint8_t bytes[CONTROL_SIZE + 1], nonce[TICKET_NONCE_SIZE];
    struct control control;
    ssize_t got;
    while (
        (got = recv(self->fd, bytes, sizeof bytes, MSG_DONTWAIT)) >= 0 || errno == ECONNREFUSED) {
        if (got < 0)
            continue;
        size_t size = (size_t)got;
        if (ticket_check_answer(
                self->keys, bytes, size, self->stream, self->nonce_c, self->nonce_l))
            return 1;
        if (ticket_check_answer(self->keys, bytes, size, self->stream, self->nonce_l, nonce) ||
            control_unpack(bytes, size, self->keys, 1, &control))
            return 2;
        *strange = true;
    }
    return 0;
}

// Sends one message each 100 ms until `wanted` comes, at most `repeats` times.
static int ask(
    struct greeter *self, const uint8_t *message, size_t size, int wanted, unsigned repeats)
{
    bool strange = false;
    for (unsigned i = 0; i < repeats; i++) {
        (void)!send(self->fd, message, size, MSG_NOSIGNAL);
        int64_t until = clock_mono_ns() + REPEAT_NS;
        if (until > self->target->deadline_mono_ns)
            until = self->target->deadline_mono_ns;
        int rc;
        while ((rc = await(self, self->fd, POLLIN, until)) == 0)
            if (read_answers(self, &strange) >= wanted)
                return 0;
        if (rc == MESH_E_STOPPED)
            return rc;
        if (clock_mono_ns() >= self->target->deadline_mono_ns)
            break;
    }
    return strange ? MESH_E_AUTH : MESH_E_TIMEOUT;
}

static int greet_udp(struct greeter *self)
{
    uint8_t open[TICKET_OPEN_SIZE], proof[TICKET_PROOF_SIZE];
    ticket_make_open(self->keys, self->stream, self->nonce_c, open);
    int rc = ask(self, open, sizeof open, 1, UINT32_MAX);
    if (rc < 0)
        return rc;
    ticket_make_proof(self->keys, self->stream, self->nonce_c, self->nonce_l, proof);
    rc = ask(self, proof, sizeof proof, 2, PROOFS_MAX);
    return rc == MESH_E_STOPPED ? rc : 0;
}

int dataport_connect(
    const struct dataport_target *target, const struct ticket_keys *keys, uint8_t stream)
{
    struct greeter self = {.target = target, .keys = keys, .stream = stream, .fd = -1};
    union address peer;
    if (!address_parse(target->peer_address, target->peer_port, &peer))
        return -EINVAL;
    ticket_random(self.nonce_c, sizeof self.nonce_c);
    int rc;
    if (target->protocol != DATAPORT_UDP) {
        rc = connect_patiently(&self, &peer);
        if (rc == 0)
            rc = greet_tcp(&self);
    } else {
        rc = connect_once(&self, &peer);
        if (rc == 0)
            rc = greet_udp(&self);
    }
    if (rc == 0)
        return self.fd;
    if (self.fd >= 0)
        close(self.fd);
    return rc;
}
