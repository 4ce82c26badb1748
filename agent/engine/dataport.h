#ifndef MESHPERF_DATAPORT_H
#define MESHPERF_DATAPORT_H

// The one port number on which other agents reach this one: TCP and UDP, IPv4 and IPv6. A thread of
// its own accepts, reads and checks the keyed handshake of proto/ticket.h, and hands every proven
// connection to the test that waits for it. Sockets are open only while some ticket is live.
// Strangers get silence: a TCP connection that does not open with a live ticket's OPEN within 3 s
// is closed (at most 256 such at a time, the oldest goes first), a datagram is counted and dropped.
//
// UDP: the listening socket has SO_REUSEPORT and a CBPF program that keeps every unconnected flow on
// it; after PROOF a second socket is bound to the same port and connected to the peer.
// Its first datagram is a receipt (an ANSWER made over nonce_l alone), so that the peer stops
// repeating its PROOF. The taker may see repeated PROOFs and must ignore them.
// Light probes (latency) are answered by this thread, see light.h.
//
// All functions may be called from any thread; they talk to the port's thread through a socket pair.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "spin.h"
#include "ticket.h"

typedef struct dataport dataport_t;
typedef struct admission admission_t;

// SCTP: one-to-one sockets, with the same handshake as TCP.
enum dataport_protocol { DATAPORT_TCP, DATAPORT_UDP, DATAPORT_SCTP };

// NULL and -errno in *error if no thread can be had. No socket is opened yet. `spin` (NULL: never) is
// borrowed for the port's life.
dataport_t *dataport_new(uint16_t port, spin_t *spin, int *error);
void dataport_destroy(dataport_t **self_p);   // every admission must have been dismissed
uint16_t dataport_number(const dataport_t *self);

struct dataport_counters {
    uint64_t accepted, proven;       // connections; streams handed on
    uint64_t strangers;              // no handshake, unknown id
    uint64_t forged, replayed;       // known id but wrong MAC; a stream that was proven already
};
void dataport_counters(dataport_t *self, struct dataport_counters *counters);

// Opens the port for one test and waits until the sockets listen. `streams` streams, numbered from
// 0, may come, each once. The listener binds to `local_address` if it is local, else to the
// wildcard of its family. NULL with -errno in *error (EADDRINUSE: somebody else has the port).
admission_t *dataport_admit(dataport_t *self, enum dataport_protocol protocol,
    const struct ticket_keys *keys, const char *local_address, unsigned streams, int *error);
// Close the UDP sockets that you took first: the port's next listener must be the first of its
// group.
void dataport_dismiss(dataport_t *self, admission_t **admission_p);  // closes what nobody took

int admission_fd(const admission_t *self);    // readable when a stream is waiting

struct admitted {
    int fd;                          // the taker's: a non-blocking socket, connected
    uint8_t stream;
    struct sockaddr_storage peer;
};
// 0, -EAGAIN if none is waiting. UDP: datagrams that reached the listener between PROOF and connect
// are not lost for counting: load starts only after the first feedback (see control.h).
int admission_take(admission_t *self, struct admitted *admitted);

// The connecting end. Opens stream `stream` to the peer and runs the whole handshake; blocks until
// deadline or until stop_fd becomes readable. `prepare` (may be NULL) is called with the new socket
// before connect, for buffers, MSS, congestion control and DSCP. Returns a non-blocking socket, or
// -errno, MESH_E_TIMEOUT (silence), MESH_E_STOPPED, MESH_E_AUTH (an answer without proof).
// UDP answers are asked for again every 100 ms; TCP connects once, or again on ECONNREFUSED.
struct dataport_target {
    enum dataport_protocol protocol;
    const char *local_address;       // bound as source if it is local
    const char *peer_address;
    uint16_t peer_port;
    int (*prepare)(int fd, void *ctx);
    void *ctx;
    int64_t deadline_mono_ns;
    int stop_fd;
};
int dataport_connect(const struct dataport_target *target, const struct ticket_keys *keys,
    uint8_t stream);

// ------------------------------------------------------------------ answering light probes

// Lets the port's thread answer light probes for a ticket until `expiry_mono_ns`. Any number of
// tickets; ids are forgotten at expiry or by dataport_unreflect. 0 or -errno. Where it has leave to
// spin (spin.h), the thread does so for `spin_ns` (0: not for these) from the ticket's first question
// on, however many more come, and not while none has come for 2 s.
int dataport_reflect(dataport_t *self, const struct ticket_keys *keys, const char *local_address,
    int64_t expiry_mono_ns, int64_t spin_ns);
void dataport_unreflect(dataport_t *self, const uint8_t id[TICKET_ID_SIZE]);

#endif
