#include "spin.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "cgroup.h"
#include "clock.h"

#define TRY_NS NS_PER_S

struct spin {
    bool allowed;
    atomic_uint tests, spinning;
};

spin_t *spin_new(bool allowed)
{
    spin_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->allowed = allowed;
    return self;
}

void spin_destroy(spin_t **self_p)
{
    free(*self_p);
    *self_p = NULL;
}

void spin_load(spin_t *self, unsigned tests)
{
    if (self)
        atomic_store(&self->tests, tests);
}

static bool may_spin(spin_t *self)
{
    return self && self->allowed && atomic_load(&self->tests) == 0;
}

static bool begin(spin_t *self)
{
    if (!may_spin(self))
        return false;
    unsigned cores = (unsigned)cgroup_cores(), others = atomic_load(&self->spinning);
    while (others + 1 < cores)
        if (atomic_compare_exchange_weak(&self->spinning, &others, others + 1))
            return true;
    return false;
}

bool spinner_turn(struct spinner *self, spin_t *spin, bool wanted, int64_t now_mono_ns)
{
    if (self->spins && (!wanted || !may_spin(spin))) {
        self->spins = false;
        atomic_fetch_sub(&spin->spinning, 1);
    } else if (!self->spins && wanted && now_mono_ns >= self->next_try_mono_ns) {
        self->next_try_mono_ns = now_mono_ns + TRY_NS;
        self->spins = begin(spin);
    }
    return self->spins;
}
