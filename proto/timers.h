#ifndef MESHPERF_TIMERS_H
#define MESHPERF_TIMERS_H

// A heap of deadlines behind one zloop timer (libzmq's own timers are linear). Belongs to one
// thread. Handlers may add and cancel timers, their own included.

#include <stdint.h>

#include "clock.h"

typedef struct timers timers_t;
typedef void timers_handler(void *arg, int64_t now_mono_ns);

timers_t *timers_new(const struct clock *clock);
void timers_destroy(timers_t **self_p);

// Returns an id greater than 0. One shot: a periodic job adds itself again.
uint64_t timers_at(timers_t *self, int64_t due_mono_ns, timers_handler *handler, void *arg);
uint64_t timers_after(timers_t *self, int64_t delay_ns, timers_handler *handler, void *arg);
// Unknown and spent ids are ignored; *id becomes 0.
void timers_cancel(timers_t *self, uint64_t *id);

// Milliseconds until the next deadline, rounded up, at least 0; -1 if there is none.
int timers_wait_ms(timers_t *self);
// Runs everything that is due; handlers that keep adding due work do not starve the caller.
void timers_run(timers_t *self);

// base +- spread, uniformly (libsodium's generator).
int64_t timers_jitter(int64_t base_ns, int64_t spread_ns);

#endif
