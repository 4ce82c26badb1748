#include "spool.h"

#include <czmq.h>

#include "errors.h"
#include "wire.h"

struct kept {
    uint8_t *bytes; // the packed envelope
    size_t size;
};

// A ring: results[first ... first + count), the first `sent` of them in flight.
struct spool {
    struct kept *results;
    size_t room, first, count, sent, bytes;
    uint64_t confirmed; // sequence of the last one dropped
};

#define ENTRIES_MAX (SPOOL_RESULTS_MAX + SPOOL_REFUSALS_MAX)

spool_t *spool_new(void)
{
    return zmalloc(sizeof(spool_t));
}

static struct kept *entry(const spool_t *self, size_t place)
{
    return &self->results[(self->first + place) % self->room];
}

static void drop_first(spool_t *self)
{
    struct kept *kept = entry(self, 0);
    self->bytes -= kept->size;
    free(kept->bytes);
    self->first = (self->first + 1) % self->room;
    self->count--;
    self->sent -= self->sent > 0;
    self->confirmed++;
}

void spool_destroy(spool_t **self_p)
{
    spool_t *self = *self_p;
    if (!self)
        return;
    while (self->count > 0)
        drop_first(self);
    free(self->results);
    free(self);
    *self_p = NULL;
}

bool spool_room(const spool_t *self, size_t results)
{
    return self->count + results <= SPOOL_RESULTS_MAX && self->bytes < SPOOL_BYTES_MAX;
}

static void grow(spool_t *self)
{
    if (self->count < self->room)
        return;
    size_t room = self->room ? self->room * 2 : 16;
    struct kept *results = zmalloc(room * sizeof *results);
    for (size_t i = 0; i < self->count; i++)
        results[i] = *entry(self, i);
    free(self->results);
    self->results = results;
    self->room = room;
    self->first = 0;
}

int spool_put(spool_t *self, Mp__Envelope *envelope)
{
    uint64_t sequence = self->confirmed + self->count + 1;
    if (self->count >= ENTRIES_MAX || self->bytes >= 2 * (size_t)SPOOL_BYTES_MAX)
        return MESH_E_FULL;
    assert(envelope->body_case == MP__ENVELOPE__BODY_RESULT ||
           envelope->body_case == MP__ENVELOPE__BODY_LIGHT_RESULT);
    if (envelope->body_case == MP__ENVELOPE__BODY_RESULT)
        envelope->result->sequence = sequence;
    else
        envelope->light_result->sequence = sequence;
    size_t size;
    uint8_t *bytes = wire_pack(envelope, &size);
    if (!bytes)
        return MESH_E_TOO_LARGE;
    grow(self);
    *entry(self, self->count++) = (struct kept){bytes, size};
    self->bytes += size;
    return 0;
}

Mp__Envelope *spool_next(const spool_t *self)
{
    if (self->sent == self->count || self->sent >= SPOOL_WINDOW)
        return NULL;
    const struct kept *kept = entry(self, self->sent);
    Mp__Envelope *envelope = mp__envelope__unpack(NULL, kept->size, kept->bytes);
    assert(envelope);
    return envelope;
}

void spool_sent(spool_t *self)
{
    assert(self->sent < self->count);
    self->sent++;
}

void spool_rewind(spool_t *self)
{
    self->sent = 0;
}

bool spool_acknowledge(spool_t *self, uint64_t sequence)
{
    bool freed = false;
    if (sequence > self->confirmed + self->count)
        return false;
    while (self->count > 0 && self->confirmed < sequence) {
        drop_first(self);
        freed = true;
    }
    return freed;
}

size_t spool_count(const spool_t *self)
{
    return self->count;
}

size_t spool_in_flight(const spool_t *self)
{
    return self->sent;
}

size_t spool_bytes(const spool_t *self)
{
    return self->bytes;
}
