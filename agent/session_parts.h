#ifndef MESHPERF_SESSION_PARTS_H
#define MESHPERF_SESSION_PARTS_H

// Private to session*.c: session.c keeps the link and the state, session_orders.c handles what the
// controller says and what tests answer.

#include "capability.h"
#include "link.h"
#include "session.h"
#include "spool.h"
#include "timers.h"

#define ID_SIZE TICKET_ID_SIZE

enum state { STATE_WAITING, STATE_ENROLLING, STATE_GREETING, STATE_REGISTERED };

struct session {
    struct session_options options;
    struct join_token token;
    const struct clock *clock;
    timers_t *timers;
    spool_t *spool;
    runner_t *runner;
    lights_t *lights;
    reaches_t *reaches;
    struct capability capability;
    uint8_t instance[ID_SIZE];

    enum state state;
    link_t *link; // NULL while waiting
    bool connected;
    unsigned failures;  // in a row, for the delays
    unsigned strangers; // handshakes in a row that came to nothing
    int fatal;          // what session_step returns from now on
    char error[SESSION_ERROR_SIZE];

    uint8_t id[ID_SIZE]; // as WELCOME gave it
    uint64_t epoch;
    int64_t heartbeat_ns, lease_ns, registered_mono_ns;
    uint64_t heartbeat_sequence;
    unsigned missed; // heartbeats sent since the last acknowledgement
    int64_t resend_ns;
    zlist_t *outbox; // of Mp__Envelope that the link had no room for

    // Timers, 0 when not set.
    uint64_t open_timer, answer_timer, hello_timer, heartbeat_timer, lease_timer;
    uint64_t resend_timer, flush_timer;
};

// session.c
void session_send(session_t *self, Mp__Envelope *envelope); // kept for a while if there is no room
bool session_try(session_t *self, Mp__Envelope *envelope);  // or dropped
void session_fail(session_t *self, int64_t delay_ns);       // tears the link down, opens it later
int64_t session_delay(session_t *self);                     // random, by failures in a row
int64_t session_slowly(void);                               // random, for refusals
void session_refused(session_t *self, const char *words);   // final
void session_hello_soon(session_t *self, int64_t delay_ns);
void session_as_itself(session_t *self);
void session_heartbeats(session_t *self);
void session_lease(session_t *self);

// session_orders.c
void orders_take(session_t *self, const Mp__Envelope *envelope);
void orders_pump(session_t *self); // sends results as far as window and link allow
void orders_ready(void *ctx, const uint8_t test_id[ID_SIZE]);
void orders_progress(
    void *ctx, const uint8_t test_id[ID_SIZE], const struct probe_interval *interval);
void orders_report(void *ctx, const uint8_t test_id[ID_SIZE], Mp__EndReport *report);
void orders_light_armed(void *ctx, const uint8_t batch[ID_SIZE], const char *refused);
void orders_light_opened(void *ctx, Mp__LightOpened *opened);
void orders_light_result(void *ctx, Mp__LightResult *result);
void orders_stop_all(session_t *self);

#endif
