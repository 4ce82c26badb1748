#ifndef MESHPERF_TEST_SERIES_H
#define MESHPERF_TEST_SERIES_H

// Synthetic rates whose true mean is 1: what unit tests and benchmarks judge arithmetic by. A series
// is the same on every machine for the same seed.

#include <stdint.h>

struct series {
    double variation;        // coefficient of variation of the noise
    double rho;              // its lag-1 autocorrelation (a first-order autoregression)
    double sawtooth_samples; // period of a sawtooth between 2/3 and 4/3; 0: none
    double start, start_samples; // begins at `start` and nears 1 exponentially; 0: steady at once
    uint64_t state;
    double last, phase;
    unsigned at;
};

void series_begin(struct series *self, uint64_t seed);
double series_next(struct series *self);
double series_uniform(uint64_t *state); // [0, 1)
double series_normal(uint64_t *state);

#endif
