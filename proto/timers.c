#include "timers.h"

#include <czmq.h>
#include <sodium.h>

struct timer {
    int64_t due_mono_ns;
    uint64_t id;
    timers_handler *handler;
    void *arg;
};

// A binary heap by (due, id): equal deadlines run in the order they were set.
struct timers {
    const struct clock *clock;
    struct timer *heap;
    size_t count, room;
    uint64_t last_id;
};

timers_t *timers_new(const struct clock *clock)
{
    timers_t *self = zmalloc(sizeof *self);
    self->clock = clock;
    return self;
}

void timers_destroy(timers_t **self_p)
{
    if (*self_p)
        free((*self_p)->heap);
    free(*self_p);
    *self_p = NULL;
}

static bool earlier(const struct timer *a, const struct timer *b)
{
    return a->due_mono_ns != b->due_mono_ns ? a->due_mono_ns < b->due_mono_ns : a->id < b->id;
}

static void sift_up(timers_t *self, size_t at)
{
    struct timer moving = self->heap[at];
    while (at > 0 && earlier(&moving, &self->heap[(at - 1) / 2])) {
        self->heap[at] = self->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    self->heap[at] = moving;
}

static void sift_down(timers_t *self, size_t at)
{
    struct timer moving = self->heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= self->count)
            break;
        if (child + 1 < self->count && earlier(&self->heap[child + 1], &self->heap[child]))
            child++;
        if (!earlier(&self->heap[child], &moving))
            break;
        self->heap[at] = self->heap[child];
        at = child;
    }
    self->heap[at] = moving;
}

static void remove_at(timers_t *self, size_t at)
{
    self->heap[at] = self->heap[--self->count];
    if (at < self->count) {
        sift_up(self, at);
        sift_down(self, at);
    }
}

uint64_t timers_at(timers_t *self, int64_t due_mono_ns, timers_handler *handler, void *arg)
{
    if (self->count == self->room) {
        self->room = self->room ? self->room * 2 : 16;
        self->heap = realloc(self->heap, self->room * sizeof *self->heap);
        if (!self->heap)
            abort();
    }
    uint64_t id = ++self->last_id;
    self->heap[self->count] = (struct timer){due_mono_ns, id, handler, arg};
    sift_up(self, self->count++);
    return id;
}

uint64_t timers_after(timers_t *self, int64_t delay_ns, timers_handler *handler, void *arg)
{
    return timers_at(self, clock_mono(self->clock) + delay_ns, handler, arg);
}

void timers_cancel(timers_t *self, uint64_t *id)
{
    for (size_t i = 0; *id && i < self->count; i++) {
        if (self->heap[i].id == *id) {
            remove_at(self, i);
            break;
        }
    }
    *id = 0;
}

int timers_wait_ms(timers_t *self)
{
    if (self->count == 0)
        return -1;
    int64_t wait_ns = self->heap[0].due_mono_ns - clock_mono(self->clock);
    if (wait_ns <= 0)
        return 0;
    int64_t wait_ms = (wait_ns + NS_PER_MS - 1) / NS_PER_MS;
    return wait_ms > 3600000 ? 3600000 : (int)wait_ms;
}

void timers_run(timers_t *self)
{
    int64_t now = clock_mono(self->clock);
    uint64_t newest = self->last_id; // what handlers add runs in a later turn
    while (self->count > 0 && self->heap[0].due_mono_ns <= now && self->heap[0].id <= newest) {
        struct timer timer = self->heap[0];
        remove_at(self, 0);
        timer.handler(timer.arg, now);
    }
}

int64_t timers_jitter(int64_t base_ns, int64_t spread_ns)
{
    if (spread_ns <= 0)
        return base_ns;
    uint64_t draw;
    randombytes_buf(&draw, sizeof draw);
    return base_ns - spread_ns + (int64_t)(draw % (uint64_t)(2 * spread_ns + 1));
}
