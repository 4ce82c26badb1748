#ifndef MESHPERF_SERVER_H
#define MESHPERF_SERVER_H

// The controller as one object: sockets, sessions of agents, questions of operators, and the glue
// between registry, director and store. Everything happens in the thread that calls server_step;
// besides it there are the ZAP handler and the store's writer. One in a process (libzmq asks one
// ZAP handler).

#include <stdbool.h>
#include <stdint.h>

#include "clock.h"

#define SERVER_ERROR_SIZE 512
#define SERVER_HEARTBEAT_MS 2500
#define SERVER_LEASE_MS 10000

typedef struct server server_t;

struct server_options {
    const char *listen;          // "tcp://*:5700"
    const char *advertise;       // NULL: worked out from the bound address
    const char *operator_listen; // NULL: ipc:// in the state directory
    const char *state_dir;
};

// Locks the state directory, makes what a first start needs, loads everything, binds, writes the
// operator's context. NULL with a sentence in `error`: the configuration or the host forbids it.
server_t *server_new(
    const struct server_options *options, const struct clock *clock, char error[SERVER_ERROR_SIZE]);
void server_destroy(server_t **self_p);

// Waits at most so long for anything to do and does it. `wake_fd` (-1: none) ends the wait when it
// is readable. 0, or a negative error after which the server is of no more use.
int server_step(server_t *self, int wait_ms, int wake_fd) __attribute__((warn_unused_result));

const char *server_endpoint(const server_t *self);     // advertised to agents
const char *server_context_path(const server_t *self); // of the operator's context

#endif
