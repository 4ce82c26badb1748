#include "series.h"

#include <math.h>

static uint64_t mix(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

double series_uniform(uint64_t *state)
{
    return (double)(mix(state) >> 11) * 0x1p-53;
}

double series_normal(uint64_t *state)
{
    double radius = sqrt(-2 * log(1 - series_uniform(state)));
    return radius * cos(2 * 3.14159265358979323846 * series_uniform(state));
}

void series_begin(struct series *self, uint64_t seed)
{
    self->state = seed;
    self->at = 0;
    self->phase = series_uniform(&self->state);
    self->last = series_normal(&self->state);
}

double series_next(struct series *self)
{
    double value = 1, i = self->at++;
    self->last =
        self->rho * self->last + sqrt(1 - self->rho * self->rho) * series_normal(&self->state);
    if (self->sawtooth_samples > 0) {
        double whole;
        value = 2.0 / 3 * (1 + modf(i / self->sawtooth_samples + self->phase, &whole));
    }
    if (self->start_samples > 0)
        value *= 1 + (self->start - 1) * exp(-i / self->start_samples);
    value += self->variation * self->last;
    return value > 0 ? value : 0;
}
