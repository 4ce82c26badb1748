#ifndef MESHPERF_ADVERTISE_H
#define MESHPERF_ADVERTISE_H

// The endpoint that others are told: the one given, else the bound one, else (for a wildcard) the
// address of this host that its default route uses. No socket stays open and nothing is sent.

#include <stdbool.h>

#include "identity.h"

// Is it "tcp://HOST:PORT" with a real port, and no wildcard?
bool advertise_valid(const char *endpoint);

// From an endpoint as libzmq says it was bound ("tcp://[::]:5700", "ipc:///path").
void advertise_endpoint(const char *bound, char endpoint[IDENTITY_ENDPOINT_SIZE]);

#endif
