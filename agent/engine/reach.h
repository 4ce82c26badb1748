#ifndef MESHPERF_REACH_H
#define MESHPERF_REACH_H

// Can a port be reached? Both ends of a batch of port probes, driven by events: nothing here
// blocks.
//
// The listening end opens a listener for each port that nobody holds, bound to the probed address:
// UDP without SO_REUSEADDR and SO_REUSEPORT, which would steal a wildcard service's datagrams; TCP
// with SO_REUSEADDR. A port that a service holds is left to it and looked at only, through
// sock_diag. Listeners answer nothing but a nonce under the key of one of the batch's probes, with
// an answer as long as the question, and close by themselves after testspec_listen_ns.
//
// The probing end connects (or sends a datagram), sends the nonce once connected, and closes by
// reset, so that neither end keeps a connection. Behind a service's port, and where no agent is,
// TCP and SCTP only connect and say nothing; a UDP probe has no other way than its datagram.
//
// A TCP listener never learns of a SYN whose SYN-ACK is lost: so connections in SYN_RECV on the
// port are read from the kernel while probing goes on and once at its end. Such a connection, and
// one that completes and stays without a nonce, is a `contact`; whether it was the probe is decided
// where both ends' findings meet, by its source port. Of SCTP the kernel shows nothing before an
// association is complete; but where no packet of SCTP came to the host at all, none came to a
// port.
//
// Behind silence the probing end looks which hop is the last to answer on the way to that port: a
// few probes of the same flow with a small TTL, for at most REACH_TRACES ports of a batch (routers
// answer few a second), TCP and UDP. The listeners still hear those that get in.
//
// Life: reach_new, reach_open (listeners), reach_go (probes), then reach_turn whenever reach_fd is
// readable or its deadline has come, until reach_probed; reach_close ends the listening; the
// outcomes stand from then on.

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "ports.h"
#include "probe.h"
#include "testspec.h"
#include "ticket.h"

#define REACH_CONTACTS 48
#define REACH_TRACES 32

// One probe of one port between two hosts, for one of its ends. `keys` by ticket_derive.
struct reach_peer {
    struct ticket_keys keys;
    char local_address[PROBE_ADDRESS_SIZE];
    char peer_address[PROBE_ADDRESS_SIZE];
    struct port port;
    bool probes; // this end asks; otherwise it listens
    bool arm;    // listening end: open a listener if nobody holds the port
    bool target; // probing end: no agent is there
    bool skip;   // this host's owner forbids it: nothing is sent or opened
};

struct reach_contact {
    char address[PROBE_ADDRESS_SIZE];
    uint16_t port;
    bool others; // the address of another peer: its own, or what this peer's was translated to
};

struct reach_outcome {
    enum probe_outcome outcome; // PROBE_OK, whatever was observed; UNSUPPORTED, STOPPED or FAILED
    char reason[PROBE_TEXT_SIZE];
    // Probing end.
    Mp__Observed observed;
    int error; // errno of the socket, 0: none
    bool has_icmp;
    unsigned icmp_type, icmp_code;
    char icmp_from[PROBE_ADDRESS_SIZE];
    unsigned probes; // tries made
    double time_s;   // from the first try to the outcome
    uint16_t source_ports[TESTSPEC_ATTEMPTS_MAX];
    unsigned source_port_count;
    char last_hop[PROBE_ADDRESS_SIZE]; // on the way to a silent port; "": none is known
    unsigned last_hop_ttl;
    bool alive; // a target that answered another probe of this batch
    char alive_how[PROBE_TEXT_SIZE];
    // Listening end.
    Mp__Arrived arrived;
    Mp__Listener listener;
    char seen_from[PROBE_ADDRESS_SIZE];
    struct reach_contact contacts[REACH_CONTACTS];
    unsigned contact_count;
};

typedef struct reach reach_t;

// The peers are copied. NULL: no descriptors are left.
reach_t *reach_new(const struct testspec *spec, const struct reach_peer *peers, size_t count);
void reach_destroy(reach_t **self_p); // closes everything

// Addresses that this host's owner does not allow get no answer. `allowed` may be NULL.
void reach_set_guard(
    reach_t *self, bool (*allowed)(const void *ctx, const char *address), const void *ctx);

void reach_open(reach_t *self, int64_t now_mono_ns);
// After reach_open: a service holds the port of this peer.
bool reach_service(const reach_t *self, size_t peer);
// The listeners that stand open, for the log: "tcp/443 at 10.0.0.2", false behind the last one.
bool reach_listener(const reach_t *self, size_t index, char text[PROBE_TEXT_SIZE]);

// `services`: one bool a peer: the other end says that a service holds the port. May be NULL.
void reach_go(reach_t *self, const bool *services, int64_t now_mono_ns);
void reach_close(reach_t *self, int64_t now_mono_ns);

int reach_fd(const reach_t *self); // readable: call reach_turn
// Works off what is due; the next deadline, INT64_MAX if there is none.
int64_t reach_turn(reach_t *self, int64_t now_mono_ns);

bool reach_probed(const reach_t *self); // every probe of this end has its outcome
bool reach_closed(
    const reach_t *self); // the listeners are closed: by reach_close, or by their deadline
const struct reach_outcome *reach_outcome(const reach_t *self, size_t peer);

// Pure: the question and answer. An answer repeats its question's nonce.
#define REACH_SIZE 64
#define REACH_AT_TYPE 4
enum { REACH_ASK = 48, REACH_REPLY = 49 };
void reach_pack(const struct ticket_keys *keys, unsigned type, const uint8_t nonce[16],
    uint8_t out[REACH_SIZE]);
// Only if whole, of this type and under this key; `nonce` is filled in.
bool reach_unpack(const struct ticket_keys *keys, unsigned type, const uint8_t *bytes, size_t size,
    uint8_t nonce[16]);
const uint8_t *reach_peek(const uint8_t *bytes, size_t size); // the id, or NULL if it is none

#endif
