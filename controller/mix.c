#include "mix.h"

#include <czmq.h>

uint64_t mix_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint32_t *mix_permutation(uint32_t count, uint64_t seed)
{
    uint32_t *items = zmalloc(((size_t)count + 1) * sizeof *items);
    for (uint32_t i = 0; i < count; i++)
        items[i] = i;
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = (uint32_t)(mix_next(&seed) % i), kept = items[i - 1];
        items[i - 1] = items[j];
        items[j] = kept;
    }
    return items;
}
