#ifndef MESHPERF_REACHES_H
#define MESHPERF_REACHES_H

// Port probes: batches of ports that are probed at peers, and of ports that peers probe here. A
// list comes in numbered parts; LIGHT_GO{open} opens the listeners, LIGHT_GO starts the probes,
// LIGHT_CLOSE ends the listening. One thread drives all batches (reach_thread.h). A batch's state
// ends with its expiry. Belongs to the control thread.

#include <czmq.h>

#include "clock.h"
#include "guard.h"
#include "meshperf.pb-c.h"
#include "ticket.h"
#include "timers.h"

typedef struct reaches reaches_t;

struct reaches_ops {
    void *ctx;
    void (*armed)(void *ctx, const uint8_t batch[TICKET_ID_SIZE], const char *refused);
    void (*opened)(void *ctx, Mp__LightOpened *opened); // borrowed
    void (*result)(void *ctx, Mp__LightResult *result); // borrowed; one part
};

reaches_t *reaches_new(const struct guard *guard, timers_t *timers, const struct clock *clock,
    const struct reaches_ops *ops);
void reaches_destroy(reaches_t **self_p); // stops and waits

// Is this a batch that belongs here?
bool reaches_knows(const Mp__TestSpec *spec);

zsock_t *reaches_events(const reaches_t *self); // readable: call reaches_turn
void reaches_turn(reaches_t *self);

void reaches_arm(reaches_t *self, const Mp__LightArm *arm);
// Unknown batches are ignored.
void reaches_go(reaches_t *self, const Mp__LightGo *go);
void reaches_close(reaches_t *self, const uint8_t batch[TICKET_ID_SIZE]);
void reaches_stop(reaches_t *self, const uint8_t batch[TICKET_ID_SIZE]);
void reaches_stop_all(reaches_t *self);

// Results that a batch with so many parts may bring.
size_t reaches_results(uint32_t parts);

#endif
