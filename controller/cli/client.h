#ifndef MESHPERF_CLIENT_H
#define MESHPERF_CLIENT_H

// The command line's side of the conversation: one question, one answer, over link.h. Blocking, one
// thread. A controller that restarts is found again by the link itself.

#include <stdbool.h>
#include <stdint.h>

#include "identity.h"
#include "meshperf.pb-c.h"

typedef struct client client_t;

// NULL if the context's endpoint is malformed.
client_t *client_new(const struct operator_context *context);
void client_destroy(client_t **self_p);

// Asks and waits; asks again after a lost connection unless the question changes something (a start
// whose answer was lost must not start twice). Fills in version and request number. NULL with
// *error: MESH_E_TIMEOUT (nobody answers), MESH_E_REFUSED (this key is not known there),
// MESH_E_STOPPED (*interrupted was set, and nothing was asked that changes something),
// MESH_E_TOO_LARGE, or what the border said of the answer. Free with wire_free.
Mp__Envelope *client_ask(client_t *self, Mp__Envelope *question, int64_t timeout_ns,
    const volatile bool *interrupted, int *error);

#endif
