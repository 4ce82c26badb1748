// Which hosts' slots are worth a look: free, with work left, and something changed for them. The
// one with the most work left comes first.

#include "scheduler_parts.h"

static bool before(const scheduler_t *self, struct entry a, struct entry b)
{
    if (a.load != b.load)
        return a.load > b.load;
    uint32_t pa = self->position[host_of(self, a.node)], pb = self->position[host_of(self, b.node)];
    return pa != pb ? pa < pb : a.node < b.node;
}

static void sift_down(scheduler_t *self, uint32_t i)
{
    struct entry moving = self->heap[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= self->heap_count)
            break;
        if (child + 1 < self->heap_count && before(self, self->heap[child + 1], self->heap[child]))
            child++;
        if (!before(self, self->heap[child], moving))
            break;
        self->heap[i] = self->heap[child];
        i = child;
    }
    self->heap[i] = moving;
}

static void queue_rebuild(scheduler_t *self)
{
    for (uint32_t i = 0; i < self->heap_count; i++)
        self->heap[i].load = self->load[self->heap[i].node];
    for (uint32_t i = self->heap_count / 2; i-- > 0;)
        sift_down(self, i);
    self->heap_stale = false;
}

static void queue_because(scheduler_t *self, uint32_t node, uint32_t group)
{
    if (self->pending[node]) {
        if (self->woken_by[node] != group)
            self->woken_by[node] = NO_GROUP;
        return;
    }
    if (self->load[node] == 0 || !node_free(self, node))
        return;
    self->pending[node] = true;
    self->woken_by[node] = group;
    struct entry moving = {self->load[node], node};
    uint32_t i = self->heap_count++;
    while (i > 0 && before(self, moving, self->heap[(i - 1) / 2])) {
        self->heap[i] = self->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    self->heap[i] = moving;
}

void queue_node(scheduler_t *self, uint32_t node)
{
    queue_because(self, node, NO_GROUP);
}

void queue_host(scheduler_t *self, uint32_t host, uint32_t group)
{
    queue_because(self, sender_node(host), group);
    queue_because(self, receiver_node(self, host), group);
}

uint32_t queue_pop(scheduler_t *self)
{
    if (self->heap_stale)
        queue_rebuild(self);
    uint32_t node = self->heap[0].node;
    self->heap[0] = self->heap[--self->heap_count];
    if (self->heap_count > 0)
        sift_down(self, 0);
    self->pending[node] = false;
    return node;
}
