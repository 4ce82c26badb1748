#ifndef MESHPERF_PATH_PARTS_H
#define MESHPERF_PATH_PARTS_H

// What the files of the paths share; nobody else includes this.
//
//   path.c         the calls of path.h, whose turn it is
//   path_socket.c  how probes leave
//   path_hops.c    the hops, TTL by TTL
//   path_mtu.c     what sizes pass

#include "path.h"
#include "reach_parts.h"

#define SIZES_MAX 24

enum stage { STAGE_HOPS, STAGE_MTU, STAGE_DONE };

struct sent_probe {
    struct watch watch; // tcp: its own socket; else fd -1
    int64_t at_mono_ns;
    bool answered;
};

struct walk {
    struct watch watch; // udp, icmp: the one socket; mtu: its own
    struct path_peer peer;
    struct path_outcome outcome;
    enum stage stage;
    unsigned ttl, silent;
    struct sent_probe probes[TESTSPEC_ATTEMPTS_MAX];
    unsigned sent;
    uint16_t source_port; // tcp
    int64_t due_mono_ns;
    uint8_t nonce[16];
    // The sizes that are tried; a bit each.
    unsigned sizes[SIZES_MAX], size_count;
    uint32_t there, back; // came back short, came back long
    unsigned told_mtu, mtu_tries;
    bool six;
};

struct path {
    struct testspec spec;
    int epoll;
    struct walk *walks;
    size_t count, open;
    bool going;
    int64_t end_mono_ns;
};

// ---------------------------------------------------------------------------------------- path.c

void path_walk_end(struct path *self, struct walk *walk);

// ---------------------------------------------------------------------------------- path_socket.c

// Bound and on its way to the peer. 0 or an errno; a connection that is under way is none.
int path_dial(struct path *self, struct walk *walk, struct watch *watch, unsigned via);
// Our datagram, padded to `size` payload bytes; its nonce tells the probe. 0 or an errno.
int path_say(struct walk *walk, unsigned type, unsigned tag, size_t size);
int path_echo(struct walk *walk, unsigned tag); // the same of ICMP

// ------------------------------------------------------------------------------------ path_hops.c

void hops_due(struct path *self, struct walk *walk, int64_t now);
void hops_reply(struct walk *walk, unsigned tag, int64_t now); // of the destination
void hops_error(struct walk *walk, const struct socket_error *error, int64_t now);
void hops_connection(struct walk *walk, struct sent_probe *probe, int64_t now);

// ------------------------------------------------------------------------------------- path_mtu.c

void mtu_begin(struct path *self, struct walk *walk, int64_t now);
void mtu_due(struct path *self, struct walk *walk, int64_t now);
void mtu_end(struct path *self, struct walk *walk);
void mtu_reply(struct walk *walk, unsigned tag, size_t size);
void mtu_error(struct walk *walk, const struct socket_error *error); // "fragmentation needed"

#endif
