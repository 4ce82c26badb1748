#ifndef MESHPERF_SESSION_H
#define MESHPERF_SESSION_H

// The conversation with the controller: enrol, register, heartbeat, reconnect, take orders, send
// results until they are acknowledged. Owns the link, the spool, the runner and the light probes;
// all of it belongs to one thread, which calls session_step again and again. Measuring happens in
// other threads that are reached by messages only.
//
//   WAITING -> (link) ENROLLING -> (ENROLLED, as itself) GREETING -> (WELCOME) REGISTERED
//
// Every failure goes back to WAITING for a random time. Without an identity a refusal is final.

#include "account.h"
#include "clock.h"
#include "lights.h"
#include "reaches.h"
#include "runner.h"
#include "settings.h"

typedef struct session session_t;

#define SESSION_ERROR_SIZE 1024

struct session_options {
    const struct agent_settings *settings;
    struct account *account;        // becomes enrolled when the controller says so
    const struct join_token *token; // needed if it is not enrolled yet
    dataport_t *port;
    spin_t *spin; // by what settings->guard allows
    const struct clock *clock;
    void *ctx;
    void (*registered)(void *ctx, const char *name);       // at each WELCOME
    const struct probe_kind *(*find)(enum test_kind kind); // probe_find
    void (*light_run)(const struct testspec *spec, const struct light_peer *peers, size_t count,
        spin_t *spin, int stop_fd, struct light_outcome *outcomes, struct light_summary *summary);
};

// Everything but `token` (which is copied) is borrowed for the session's life.
session_t *session_new(const struct session_options *options);
void session_destroy(session_t **self_p); // stops all tests and waits for them

// Waits for events at most `timeout_ms` and handles them; `wake_fd` (or -1) ends the wait. 0;
// MESH_E_REFUSED: final, session_error has the words; or another negative error (a bug, or the
// state directory cannot be written).
int session_step(session_t *self, int timeout_ms, int wake_fd) __attribute__((warn_unused_result));
const char *session_error(const session_t *self);

// An orderly end: tests are stopped, and the controller is told so that it need not wait.
void session_goodbye(session_t *self);

#endif
