#include "sequences.h"

#include <string.h>

enum { EMPTY, ARRIVED, DONE };

void sequences_reset(struct sequences *self)
{
    memset(self, 0, sizeof *self);
}

static uint8_t *state_of(struct sequences *self, uint64_t sequence)
{
    return self->states + sequence % SEQUENCES_WINDOW;
}

enum sequence_verdict sequences_arrive(struct sequences *self, uint64_t sequence)
{
    if (sequence == 0)
        return SEQUENCE_BEYOND;
    if (!self->based) {
        self->based = true;
        self->acknowledged = sequence - 1;
    }
    if (sequence <= self->acknowledged)
        return SEQUENCE_SAFE;
    if (sequence - self->acknowledged > SEQUENCES_WINDOW)
        return SEQUENCE_BEYOND;
    uint8_t *state = state_of(self, sequence);
    if (*state != EMPTY)
        return SEQUENCE_DUPLICATE;
    *state = ARRIVED;
    return SEQUENCE_FRESH;
}

bool sequences_done(struct sequences *self, uint64_t sequence)
{
    if (!self->based || sequence <= self->acknowledged ||
        sequence - self->acknowledged > SEQUENCES_WINDOW)
        return false;
    uint8_t *state = state_of(self, sequence);
    if (*state != ARRIVED)
        return false;
    *state = DONE;
    bool grew = false;
    for (; *state_of(self, self->acknowledged + 1) == DONE; grew = true) {
        *state_of(self, self->acknowledged + 1) = EMPTY;
        self->acknowledged++;
    }
    return grew;
}
