#ifndef MESHPERF_PATH_H
#define MESHPERF_PATH_H

// The hops between two hosts, and the largest packet that passes. Driven by events, as reach.h;
// needs no privilege: time-exceeded messages come back through the error queue (IP_RECVERR,
// IPV6_RECVERR).
//
// Hops: for each TTL from 1, `attempts` probes 50 ms apart. The flow stays the same (one source
// port, one destination port or echo id), so that all of them take the path of one flow where
// routers balance (Paris traceroute, Augustin et al. 2006). Over UDP to the peer's agent, which
// answers; over TCP a SYN, where a reset is as good an answer; over ICMP an echo, where the kernel
// permits ping sockets. Three silent TTLs in a row end the walk.
//
// MTU: over UDP, with DF and without the kernel's own idea of the path (IP_PMTUDISC_PROBE),
// datagrams of several sizes at once, each once with an answer as long and once with a short one.
// What comes back short went there; what comes back long passed both ways. A size that vanishes
// without a word is a black hole; "fragmentation needed" with a size is no black hole but Path MTU
// Discovery at work (RFC 1191, RFC 8201).

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ports.h"
#include "probe.h"
#include "testspec.h"
#include "ticket.h"

// The question with a wish for a short answer, beside REACH_ASK (answered at its own length).
#define PATH_ASK_SHORT 50

struct path_peer {
    struct ticket_keys keys;
    char local_address[PROBE_ADDRESS_SIZE];
    char peer_address[PROBE_ADDRESS_SIZE];
    uint16_t peer_port; // where its agent listens, UDP
    bool target;        // no agent is there
    bool skip;          // this host's owner forbids it
};

struct path_hop {
    char address[PROBE_ADDRESS_SIZE]; // "": none answered
    unsigned ttl, sent, received, mtu;
    double rtt_min_s, rtt_sum_s, rtt_max_s;
    bool final;
};

struct path_outcome {
    enum probe_outcome outcome;
    char reason[PROBE_TEXT_SIZE];
    struct path_hop hops[TESTSPEC_HOPS_MAX];
    unsigned hop_count;
    bool reached;
    unsigned path_mtu; // largest packet that passed both ways, IP header included; 0: not measured
    char black_hole[PROBE_TEXT_SIZE];
};

typedef struct path path_t;

path_t *path_new(const struct testspec *spec, const struct path_peer *peers, size_t count);
void path_destroy(path_t **self_p);
void path_go(path_t *self, int64_t now_mono_ns);
int path_fd(const path_t *self); // readable: call path_turn
int64_t path_turn(path_t *self, int64_t now_mono_ns);
bool path_done(const path_t *self);
const struct path_outcome *path_outcome(const path_t *self, size_t peer);

#endif
