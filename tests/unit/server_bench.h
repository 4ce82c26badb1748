#ifndef MESHPERF_SERVER_BENCH_H
#define MESHPERF_SERVER_BENCH_H

// A whole controller in the test's own thread, with time that can be skipped, and clients at its
// sockets. Nothing sleeps: waiting steps the controller until the event or a deadline.

#include "meshtest.h"

#include <czmq.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "identity.h"
#include "link.h"
#include "server.h"
#include "wire.h"

struct bench {
    char dir[64];
    int64_t skipped_ns;
    struct clock clock;
    server_t *server;
    struct operator_context admin;
    link_t *operator_;
    uint64_t request;
};

// One agent's process.
struct visitor {
    struct identity key;
    uint8_t instance[16];
    uint8_t session[16];
    link_t *link;
};

#define UNTIL(condition)                                                                           \
    for (int64_t until_ns = clock_mono_ns() + 10 * NS_PER_S;                                       \
         !(condition) && clock_mono_ns() < until_ns; step(bench))

void bench_start(struct bench *bench);
void bench_stop(struct bench *bench);
int bench_set_up(void **state);
int bench_tear_down(void **state);
void step(struct bench *bench);
// Sends, waiting until the link is up.
void say(struct bench *bench, link_t *link, Mp__Envelope *envelope);
// The next message, or NULL after some seconds.
Mp__Envelope *hear(struct bench *bench, link_t *link);
// The next message of this kind; others are passed over.
Mp__Envelope *hear_a(struct bench *bench, link_t *link, Mp__Envelope__BodyCase body);
Mp__Envelope *ask_as(struct bench *bench, link_t *link, Mp__Envelope *question);
Mp__Envelope *ask(struct bench *bench, Mp__Envelope *question);
struct join_token new_token(struct bench *bench, uint32_t uses, char id[16]);
// Asks to join; the answer is the caller's.
Mp__Envelope *join(struct bench *bench, const struct join_token *token, const struct identity *own,
    const char *name);
void say_hello(struct bench *bench, struct visitor *visitor, uint32_t version);
struct visitor visit(struct bench *bench, const struct join_token *token,
    const struct identity *key, uint8_t instance);
void be_welcomed(struct bench *bench, struct visitor *visitor);
struct identity enrolled(struct bench *bench, const struct join_token *token, const char *name);
void say_in_session(
    struct bench *bench, struct visitor *visitor, Mp__Envelope *envelope, const uint8_t *session);
void beat(struct bench *bench, struct visitor *visitor, const uint8_t *session);
Mp__Envelope *agents(struct bench *bench, const char *name);
Mp__AgentState state_of(struct bench *bench, const char *name);
Mp__Envelope *change(struct bench *bench, const char *name, Mp__AgentChange__What what,
    Mp__Label **labels, size_t count);
void assert_refused(Mp__Envelope *answer, Mp__Refused__Code code, const char *words);
void assert_done(Mp__Envelope *answer);
bool link_is_refused(struct bench *bench, link_t *link);

#endif
