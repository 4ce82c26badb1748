#ifndef MESHPERF_REACH_PARTS_H
#define MESHPERF_REACH_PARTS_H

// What the files of the port probes share; nobody else includes this.
//
//   reach.c        the calls of reach.h, the batch's time
//   reach_near.c   the probing end
//   reach_trace.c  where a silent port's probes end
//   reach_far.c    the listening end
//   reach_diag.c   what the kernel knows of a port's sockets
//   reach_errors.c errno and ICMP become an observation
//   reach_bytes.c  question and answer

#include "clock.h"
#include "reach.h"

#define CONTACTS_A_LISTENER 1024
#define CONNECTIONS_MAX 1024 // without a nonce yet, of a batch; the oldest goes first
#define CONNECTION_NS (5 * NS_PER_S)
#define LOOK_NS (250 * NS_PER_MS) // between two looks for half-open connections
// After the last try: for a hop or two that stay silent, and short enough for what has to be said
// before the listeners close by themselves (testspec_listen_ns).
#define TRACE_NS (1200 * NS_PER_MS)
#define NO_FILES_NS (50 * NS_PER_MS) // a probe without a descriptor tries again

enum watch_kind { WATCH_PROBE, WATCH_LISTENER, WATCH_CONNECTION };

// What an event belongs to: the first member of what epoll points at.
struct watch {
    enum watch_kind kind;
    int fd;
};

enum step { STEP_WAITS, STEP_CONNECTS, STEP_ASKED, STEP_TRACES, STEP_DONE };

// One end of one probe.
struct entry {
    struct watch watch; // probing end
    struct reach_peer peer;
    struct reach_outcome outcome;
    struct listener *listener;      // listening end; NULL: none
    const struct listener *came_to; // where its question arrived
    bool service, quiet;            // quiet: connect only
    bool shook;                     // a handshake was completed in some try
    enum step step;
    int64_t due_mono_ns, first_mono_ns;
    unsigned ttl, ttl_silent; // of the trace
    uint8_t nonce[16];
    uint8_t bytes[REACH_SIZE];
    size_t got;
};

// One port of one address, for all who probe it.
struct listener {
    struct watch watch; // fd -1: a service holds the port, or it cannot be opened
    struct port port;
    char address[PROBE_ADDRESS_SIZE];
    bool service;
    char why[PROBE_TEXT_SIZE]; // it is not open
    struct reach_contact *contacts;
    unsigned contact_count, contact_room;
    unsigned backlog; // TCP: half-open connections that the kernel keeps at most; 0: not known
    uint64_t drops, drops_before; // TCP: packets that the kernel threw away at this listener
    struct listener *next;
};

// An accepted connection that has not said its nonce.
struct connection {
    struct watch watch;
    struct listener *listener;
    struct reach_contact peer;
    uint8_t bytes[REACH_SIZE];
    size_t got;
    bool known; // its nonce is ours
    int64_t until_mono_ns;
    struct connection *next;
};

struct reach {
    struct testspec spec;
    int epoll;
    struct entry *entries;
    size_t count, probes, open; // open: probes without an outcome
    struct listener *listeners;
    struct connection *connections;
    struct connection *ended; // events of this turn may still point at them
    size_t connection_count;
    bool (*allowed)(const void *ctx, const char *address);
    const void *ctx;
    bool going, closed, listens;
    unsigned traces; // ports whose last hop was looked for
    int64_t trace_until_mono_ns, trace_slot_mono_ns;
    bool diag_works, cookies_always;
    uint64_t sctp_before; // packets of SCTP that had come when the listeners opened
    bool sctp_still;      // and none since
    int64_t listen_until_mono_ns, look_mono_ns;
};

// ------------------------------------------------------------------------------------ reach.c

bool reach_watch(struct reach *self, struct watch *watch, unsigned events);
void reach_unwatch(struct watch *watch); // closes the descriptor
// The address and port in socket form; false if the text is no address.
bool reach_address(
    const char *text, uint16_t port, struct sockaddr_storage *address, socklen_t *size);
void reach_text(const struct sockaddr_storage *address, struct reach_contact *contact);
int reach_socket(unsigned family, Mp__Transport transport);
void reach_set_ttl(int fd, bool six, unsigned ttl);
// The probe that a whole question belongs to, at any port; NULL: none.
struct entry *reach_entry_of(struct reach *self, const uint8_t *bytes, size_t size);

// --------------------------------------------------------------------------------- reach_near.c

void near_start(struct reach *self, int64_t now);
void near_event(struct reach *self, struct entry *entry, unsigned events, int64_t now);
int64_t near_due(struct reach *self, int64_t now); // tries and gives up; the next deadline
void near_stop(struct reach *self);
// A fresh socket on its way to the port, from this source port (0: any) and with this TTL (0: the
// usual one). 0 or an errno.
int near_dial(struct reach *self, struct entry *entry, uint16_t source_port, unsigned ttl);
int near_ask(struct entry *entry); // sends the question; 0 or an errno
void near_end(struct reach *self, struct entry *entry);

// -------------------------------------------------------------------------------- reach_trace.c

// After its verdict, silence. False: it is not to be traced.
bool trace_begin(struct reach *self, struct entry *entry, int64_t now);
void trace_event(struct reach *self, struct entry *entry, int64_t now);
void trace_due(struct reach *self, struct entry *entry, int64_t now); // its due time has come

// ---------------------------------------------------------------------------------- reach_far.c

void far_open(struct reach *self);
void far_event(struct reach *self, struct watch *watch, int64_t now);
int64_t far_due(struct reach *self, int64_t now);
void far_close(struct reach *self, bool in_time);
void far_bury(struct reach *self); // frees ended connections, between two turns
void contact_add(struct listener *listener, const struct reach_contact *contact);

// --------------------------------------------------------------------------------- reach_diag.c

// Does somebody listen on this port of this address (or of all)?
bool diag_listens(const struct port *port, const char *address);
// Half-open TCP connections to any of the listeners become their contacts. False: the kernel does
// not tell.
bool diag_half_open(struct listener *listeners);
// What TCP listeners have thrown away becomes their `drops`, and their `backlog` is filled in. A
// half-open connection that a reset or an ICMP message ends leaves no other trace. False: the
// kernel does not tell.
bool diag_drops(struct listener *listeners);
// Packets of SCTP that have come to this host, whatever became of them. False: the kernel does not
// tell, or has no SCTP.
bool diag_sctp_packets(uint64_t *count);
bool diag_cookies_always(void); // a SYN leaves no trace before its handshake is complete

// ------------------------------------------------------------------------------- reach_errors.c

struct socket_error {
    int error;
    bool has_icmp, local;                // local: found by this host itself
    unsigned icmp_type, icmp_code, info; // info: the MTU that a router told
    char from[PROBE_ADDRESS_SIZE];
};
// The first queued error. False: none.
bool error_next(int fd, struct socket_error *error);
// The queued error of a socket (IP_RECVERR), the last one if there are several. False: none.
bool error_read(int fd, struct socket_error *error);
// The TTL ran out: `from` is a hop.
bool error_is_hop(const struct socket_error *error);
// What an errno and its ICMP message say of the port.
Mp__Observed error_observed(const struct socket_error *error, const struct reach_peer *peer);

#endif
