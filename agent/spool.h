#ifndef MESHPERF_SPOOL_H
#define MESHPERF_SPOOL_H

// Results that the controller has not confirmed yet. Each gets a sequence number that counts from 1
// for this start of the process; the controller confirms cumulatively, after its commit. Bounded in
// number and bytes. At most SPOOL_WINDOW are in flight. Belongs to the control thread.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "meshperf.pb-c.h"

typedef struct spool spool_t;

#define SPOOL_RESULTS_MAX 1024
#define SPOOL_BYTES_MAX (32 * 1024 * 1024)
// Beyond the limit there is room for words about refused tests.
#define SPOOL_REFUSALS_MAX 256
#define SPOOL_WINDOW 64

spool_t *spool_new(void);
void spool_destroy(spool_t **self_p);

// Is there room for this many results more, those of running tests included?
bool spool_room(const spool_t *self, size_t results);

// Keeps a RESULT or LIGHT_RESULT under the next number, which it writes into the message. The
// envelope is borrowed. MESH_E_FULL (even the room for refusals is used up) or MESH_E_TOO_LARGE.
int spool_put(spool_t *self, Mp__Envelope *envelope) __attribute__((warn_unused_result));

// The next one to send, NULL if all are on their way or the window is used up. The caller frees it
// with wire_free; spool_sent says that the link took it.
Mp__Envelope *spool_next(const spool_t *self);
void spool_sent(spool_t *self);
// Everything unconfirmed has to be sent again, in order (a new session, or no answer).
void spool_rewind(spool_t *self);

// All up to and including `sequence` are safe. Numbers never given are ignored. True if that freed
// something.
bool spool_acknowledge(spool_t *self, uint64_t sequence);

size_t spool_count(const spool_t *self);
size_t spool_in_flight(const spool_t *self);
size_t spool_bytes(const spool_t *self);

#endif
