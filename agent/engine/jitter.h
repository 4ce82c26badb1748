#ifndef MESHPERF_JITTER_H
#define MESHPERF_JITTER_H

// Delay variation of a stream of datagrams, each with a sending and an arrival time; the two clocks
// need no common zero. Pure arithmetic.
//
//   D = (arrival - arrival') - (sending - sending') of consecutive arrivals (RFC 3550, 6.4.1)
//
//   jitter: mean |D|. RFC 3550's filter J = J + (|D| - J) / 16 is kept apart.
//
//   IPDV: D for numbers i-1 and i that both arrived, in order (RFC 5481).
//
//   PDV: delay - smallest delay (RFC 5481).

#include <stdint.h>

#include "probe.h"

typedef struct jitter jitter_t;

jitter_t *jitter_new(void);
void jitter_destroy(jitter_t **self_p);
// A first copy, in order of arrival.
void jitter_arrive(jitter_t *self, uint64_t number, int64_t sent_ns, int64_t arrived_ns);
// Mean |D| and J in seconds, NAN with fewer than two arrivals.
double jitter_mean_s(const jitter_t *self);
double jitter_rfc3550_s(const jitter_t *self);
void jitter_pdv(const jitter_t *self, struct probe_distribution *pdv);
void jitter_ipdv(const jitter_t *self, struct probe_distribution *ipdv);

#endif
