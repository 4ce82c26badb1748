#ifndef MESHPERF_MIX_H
#define MESHPERF_MIX_H

// Choices that a seed repeats: splitmix64 (Steele, Lea, Flood, OOPSLA 2014), small and good enough
// to shuffle and to draw. Nothing secret comes from here.

#include <stdint.h>

uint64_t mix_next(uint64_t *state);
// A permutation of 0 .. count - 1; zmalloc'ed, the caller's.
uint32_t *mix_permutation(uint32_t count, uint64_t seed);

#endif
