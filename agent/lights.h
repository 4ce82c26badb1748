#ifndef MESHPERF_LIGHTS_H
#define MESHPERF_LIGHTS_H

// Light probes: batches of peers that are asked or answered. A list comes in numbered parts; when
// all are there the data port answers for this batch, and LIGHT_GO lets one thread, the same for
// all batches, ask. A batch's state ends with its expiry. Belongs to the control thread.

#include <czmq.h>

#include "clock.h"
#include "guard.h"
#include "light.h"
#include "meshperf.pb-c.h"
#include "timers.h"

typedef struct lights lights_t;

struct lights_ops {
    void *ctx;
    void (*armed)(void *ctx, const uint8_t batch[TICKET_ID_SIZE], const char *refused);
    // One part; borrowed. Its sequence is still to be given.
    void (*result)(void *ctx, Mp__LightResult *result);
    // light_run, but for tests of this module.
    void (*run)(const struct testspec *spec, const struct light_peer *peers, size_t count,
        spin_t *spin, int stop_fd, struct light_outcome *outcomes, struct light_summary *summary);
};

// `guard`, `port`, `spin`, `timers` and `clock` are borrowed.
lights_t *lights_new(const struct guard *guard, dataport_t *port, spin_t *spin, timers_t *timers,
    const struct clock *clock, const struct lights_ops *ops);
void lights_destroy(lights_t **self_p); // stops and waits

zsock_t *lights_events(const lights_t *self); // readable: call lights_turn
void lights_turn(lights_t *self);

void lights_arm(lights_t *self, const Mp__LightArm *arm);
void lights_go(lights_t *self, const uint8_t batch[TICKET_ID_SIZE]);
void lights_stop(lights_t *self, const uint8_t batch[TICKET_ID_SIZE]); // unknown: ignored
void lights_stop_all(lights_t *self);
size_t lights_count(const lights_t *self); // batches known

#endif
