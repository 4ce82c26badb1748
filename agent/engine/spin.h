#ifndef MESHPERF_SPIN_H
#define MESHPERF_SPIN_H

// Leave to spin: a latency test that looks at its sockets all the time instead of sleeping. One
// that sleeps measures hosts that must first wake; this one measures what is left when they are
// awake. It costs a core at each end, so it is the owner's to allow (guard: spin), and it is given
// only while no bandwidth test is in flight here and a core stays free: of N cores that this
// process may use at most N - 1 are spun on. Two threads of an agent may ask, whatever the number
// of peers: the one that asks light probes and the one that answers them; each ends with its test's
// time.
//
// Any thread; nothing blocks. What is called with a spin_t * of NULL is not allowed.

#include <stdbool.h>
#include <stdint.h>

typedef struct spin spin_t;

spin_t *spin_new(bool allowed);
void spin_destroy(spin_t **self_p);

// So many bandwidth tests are in flight now. If any, whoever spins stops.
void spin_load(spin_t *self, unsigned tests);

// One thread that spins from time to time. Plain data, zero at first.
struct spinner {
    bool spins;
    int64_t next_try_mono_ns;
};

// Whether to look again at once (true) or to sleep. `wanted`: there is something to spin for. Asks
// for leave at most once a second. Its last call must be with `wanted` false.
bool spinner_turn(struct spinner *self, spin_t *spin, bool wanted, int64_t now_mono_ns);

#endif
