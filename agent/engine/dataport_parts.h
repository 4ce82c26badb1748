#ifndef MESHPERF_DATAPORT_PARTS_H
#define MESHPERF_DATAPORT_PARTS_H

// What the files of the data port share. Everything here belongs to the port's thread alone, but
// for what is noted.

#include <netinet/in.h>
#include <pthread.h>

#include "dataport.h"
#include "light.h"
#include "ticket.h"

#define PENDING_MAX 256 // connections that have not proved anything yet
#define LISTENERS_MAX 16
#define STREAMS_MAX 256
#define GREETING_NS (3 * INT64_C(1000000000))

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage storage;
};

// "127.0.0.1" or "::1" and a port; false if it is no numeric address.
bool address_parse(const char *text, uint16_t port, union address *address);
socklen_t address_size(const union address *address);
void address_wildcard(sa_family_t family, uint16_t port, union address *address);

struct listener {
    int fd; // -1: a free slot
    enum dataport_protocol protocol;
    union address asked; // what the ticket named
    bool wildcard;       // it is bound to the family's wildcard instead
    unsigned users;
    uint32_t generation; // tells an old event from one of the slot's next owner
};

// A stream's UDP handshake. The state outlives PROOF, so that repeated messages find it.
struct greeting {
    bool answered, proven;
    uint8_t nonce_c[TICKET_NONCE_SIZE], nonce_l[TICKET_NONCE_SIZE];
};

struct admission {
    struct ticket_keys keys;
    enum dataport_protocol protocol;
    struct listener *listener;
    unsigned streams;
    struct greeting *greetings; // one a stream
    int fds[2];                 // [0] the taker's end, [1] ours: whole struct admitted, in order
};

// One live ticket: a test that waits for streams, or light probes to answer.
struct entry {
    uint8_t id[TICKET_ID_SIZE];
    admission_t *admission;   // NULL: light probes
    struct ticket_keys *keys; // light probes
    struct listener *listener;
    int64_t expiry_mono_ns;
    int64_t spin_ns, spin_end_mono_ns; // light probes: how long may be spun, and until when
};

struct pending {
    int fd; // -1: a free slot
    enum dataport_protocol protocol;
    uint32_t generation;
    int64_t deadline_mono_ns;
    bool answered;
    uint8_t bytes[TICKET_OPEN_SIZE];
    size_t have;
    uint8_t id[TICKET_ID_SIZE], stream;
    uint8_t nonce_c[TICKET_NONCE_SIZE], nonce_l[TICKET_NONCE_SIZE];
    union address peer;
};

struct dataport {
    uint16_t port;
    pthread_t thread;
    pthread_mutex_t calls; // one caller at a time has the command pair
    int commands[2];       // [0] callers, [1] the thread
    int epoll_fd, spare_fd;
    struct listener listeners[LISTENERS_MAX];
    struct pending pending[PENDING_MAX];
    unsigned pending_count;
    struct entry *entries; // sorted by id
    size_t entry_count, entry_room;
    int64_t next_expiry_mono_ns;
    struct light_clock clock; // as of the last datagrams
    spin_t *spin;             // borrowed
    struct spinner spinner;
    int64_t spin_end_mono_ns, spun_for_mono_ns; // of all entries; when one of them was last asked
    struct dataport_counters counters;
};

enum source { SOURCE_COMMAND, SOURCE_LISTENER, SOURCE_PENDING };
int dataport_watch(dataport_t *self, int fd, enum source source, size_t index, uint32_t generation);
void dataport_unwatch(dataport_t *self, int fd);

struct entry *dataport_entry(dataport_t *self, const uint8_t id[TICKET_ID_SIZE]);
// Takes fd: hands it to the admission, or closes it and says false.
bool admission_give(admission_t *self, int fd, uint8_t stream, const union address *peer);

// dataport_listen.c: a new non-blocking socket, without delay of small messages; or -errno. An
// association is aborted when its socket is closed.
int protocol_socket(enum dataport_protocol protocol, sa_family_t family);
void protocol_dress(enum dataport_protocol protocol, int fd);

// Finds or opens the socket for a ticket, and lets it go.
struct listener *listener_open(
    dataport_t *self, enum dataport_protocol protocol, const char *local_address, int *error);
void listener_release(dataport_t *self, struct listener *listener);

// dataport_tcp.c
void dataport_accept(dataport_t *self, struct listener *listener);
void dataport_greet(dataport_t *self, struct pending *pending);
void pending_close(dataport_t *self, struct pending *pending);
void pending_expire(dataport_t *self, int64_t now_mono_ns);

// dataport_udp.c
void dataport_datagrams(dataport_t *self, struct listener *listener);

#endif
