#ifndef MESHPERF_LINK_H
#define MESHPERF_LINK_H

// One outward CURVE connection to the controller: a DEALER with its monitor, as agents and the
// command line use it. Wraps the socket options that docs/protocol.md explains. Belongs to the
// thread that made it. Sending never blocks.

#include <czmq.h>
#include <stdbool.h>
#include <stdint.h>

#include "identity.h"
#include "meshperf.pb-c.h"

typedef struct link link_t;

enum link_kind { LINK_AGENT, LINK_COMMAND };

// What the monitor saw since the last call of link_event.
enum link_event {
    LINK_NOTHING,
    LINK_CONNECTED,      // CURVE and ZAP succeeded: messages flow
    LINK_DISCONNECTED,
    LINK_REFUSED,        // ZAP said 400: this key is not known (any more)
    LINK_SHED,           // ZAP said 300: come back later
    LINK_NO_HANDSHAKE,   // something answers there, but it is no controller with this key
    LINK_RETRYING,       // the connection attempt failed; libzmq tries again by itself
};

// NULL when the endpoint is malformed or no socket can be had.
link_t *link_new(const char *endpoint, const uint8_t controller_key[IDENTITY_KEY_SIZE],
    const struct identity *own, enum link_kind kind);
void link_destroy(link_t **self_p);

zsock_t *link_socket(link_t *self);    // to poll for input
zsock_t *link_monitor(link_t *self);   // to poll for events
enum link_event link_event(link_t *self);

// 0, -EAGAIN (not connected, or the queue is full: nothing was kept), MESH_E_TOO_LARGE.
int link_send(link_t *self, Mp__Envelope *envelope) __attribute__((warn_unused_result));

// One message from the controller, checked; NULL if none is waiting (*error = 0) or if it was
// refused by wire_unpack (*error < 0). Free with wire_free.
Mp__Envelope *link_receive(link_t *self, int *error);

// The local address of the TCP connection to the controller (numeric), found with a throw-away
// connected UDP socket toward the endpoint's host; 0 or -errno. Also for a chosen family.
int link_local_address(const char *endpoint, unsigned family, char text[64]);

#endif
