#ifndef MESHPERF_JITTER_H
#define MESHPERF_JITTER_H

// Delay variation of a stream of datagrams, each with a sending and an arrival time; the two clocks
// need no common zero. Pure arithmetic.
//
//   D = (arrival - arrival') - (sending - sending') of consecutive arrivals (RFC 3550, 6.4.1) on
//       one stream
//
//   jitter: mean |D|. RFC 3550's filter J = J + (|D| - J) / 16 is kept apart.
//
//   IPDV: D for consecutive numbers of a stream that both arrived, in order (RFC 5481).
//
//   PDV: delay - smallest delay (RFC 5481).
//
// Datagrams that were sent and arrived together (segmentation and receive offload) have one sending
// time and one arrival stamp, that of the first: they count as one, never among each other.

#include <stdint.h>

#include "probe.h"

#define JITTER_STREAMS 128

typedef struct jitter jitter_t;

// `stride`: how far apart consecutive numbers of one stream are.
jitter_t *jitter_new(unsigned stride);
void jitter_destroy(jitter_t **self_p);
// First copies of numbers `first` to first + count - 1, in order of arrival. |D| in seconds, NAN
// for the first of a stream.
double jitter_arrive(jitter_t *self, unsigned stream, uint64_t first, unsigned count,
    int64_t sent_ns, int64_t arrived_ns);
// Mean |D| and J in seconds, NAN with fewer than two arrivals.
double jitter_mean_s(const jitter_t *self);
double jitter_rfc3550_s(const jitter_t *self);
void jitter_pdv(const jitter_t *self, struct probe_distribution *pdv);
void jitter_ipdv(const jitter_t *self, struct probe_distribution *ipdv);

#endif
