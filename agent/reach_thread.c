#include "reach_thread.h"

#include <sodium.h>

#include "clock.h"
#include "log.h"

struct batch {
    uint8_t id[TICKET_ID_SIZE];
    reach_t *reach; // of paths: their listening end only
    path_t *path;   // of paths: their probing end; NULL: of ports
    size_t count, listeners;
    bool probed, heard; // told
    bool probes, listens;
    int64_t due_mono_ns;
    struct batch *next;
};

struct thread {
    void *socket;
    const struct guard *guard;
    struct batch *batches;
};

static bool allowed(const void *ctx, const char *address)
{
    return guard_peer_allowed(ctx, address);
}

// ---------------------------------------------------------------------------------------- answers

static void answer(struct thread *self, const struct batch *batch, enum reach_answer_kind kind,
    const void *values, size_t size)
{
    struct reach_answer head = {.kind = kind, .count = batch->count};
    memcpy(head.batch, batch->id, sizeof head.batch);
    (void)zmq_send(self->socket, &head, sizeof head, ZMQ_SNDMORE);
    (void)zmq_send(self->socket, values, batch->count * size, 0);
}

static void answer_outcomes(
    struct thread *self, const struct batch *batch, enum reach_answer_kind kind)
{
    struct reach_outcome *outcomes = zmalloc((batch->count + 1) * sizeof *outcomes);
    for (size_t i = 0; i < batch->count; i++)
        outcomes[i] = *reach_outcome(batch->reach, i);
    answer(self, batch, kind, outcomes, sizeof *outcomes);
    free(outcomes);
}

static void answer_paths(struct thread *self, const struct batch *batch)
{
    struct path_outcome *outcomes = zmalloc((batch->count + 1) * sizeof *outcomes);
    for (size_t i = 0; i < batch->count; i++)
        outcomes[i] = *path_outcome(batch->path, i);
    answer(self, batch, REACH_PROBED, outcomes, sizeof *outcomes);
    free(outcomes);
}

static void log_closed(struct batch *batch)
{
    if (batch->listeners)
        log_info("port probes: %zu listener%s closed", batch->listeners,
            batch->listeners == 1 ? " is" : "s are");
    batch->listeners = 0;
}

// ----------------------------------------------------------------------------------------- orders

static struct batch **find(struct thread *self, const uint8_t id[TICKET_ID_SIZE])
{
    struct batch **at = &self->batches;
    while (*at && memcmp((*at)->id, id, TICKET_ID_SIZE) != 0)
        at = &(*at)->next;
    return at;
}

static void batch_free(struct batch **at)
{
    struct batch *batch = *at;
    *at = batch->next;
    log_closed(batch);
    reach_destroy(&batch->reach);
    path_destroy(&batch->path);
    free(batch);
}

static path_t *path_of(const struct reach_order *order, const struct reach_peer *peers)
{
    struct path_peer *list = zmalloc((order->count + 1) * sizeof *list);
    for (size_t i = 0; i < order->count; i++) {
        list[i] = (struct path_peer){.keys = peers[i].keys,
            .peer_port = peers[i].port.number,
            .target = peers[i].target,
            .skip = peers[i].skip || !peers[i].probes};
        memcpy(list[i].local_address, peers[i].local_address, PROBE_ADDRESS_SIZE);
        memcpy(list[i].peer_address, peers[i].peer_address, PROBE_ADDRESS_SIZE);
    }
    path_t *path = path_new(&order->spec, list, order->count);
    sodium_memzero(list, (order->count + 1) * sizeof *list);
    free(list);
    return path;
}

// The listening end of a path's probes is that of a port, and nothing else of it is used.
static reach_t *reach_of(const struct reach_order *order, const struct reach_peer *peers)
{
    if (order->spec.kind == TEST_PORT)
        return reach_new(&order->spec, peers, order->count);
    struct reach_peer *list = zmalloc((order->count + 1) * sizeof *list);
    memcpy(list, peers, order->count * sizeof *list);
    for (size_t i = 0; i < order->count; i++)
        list[i].skip = list[i].skip || list[i].probes;
    reach_t *reach = reach_new(&order->spec, list, order->count);
    sodium_memzero(list, (order->count + 1) * sizeof *list);
    free(list);
    return reach;
}

static void on_arm(
    struct thread *self, const struct reach_order *order, const struct reach_peer *peers)
{
    if (*find(self, order->batch))
        return;
    struct batch *batch = zmalloc(sizeof *batch);
    memcpy(batch->id, order->batch, sizeof batch->id);
    batch->count = order->count;
    batch->due_mono_ns = INT64_MAX;
    for (size_t i = 0; i < order->count; i++) {
        batch->probes = batch->probes || peers[i].probes;
        batch->listens = batch->listens || !peers[i].probes;
    }
    bool paths = order->spec.kind == TEST_PATH;
    batch->reach = reach_of(order, peers);
    batch->path = paths ? path_of(order, peers) : NULL;
    if (!batch->reach || (paths && !batch->path)) {
        log_error("port probes cannot begin: no descriptors are left");
        reach_destroy(&batch->reach);
        path_destroy(&batch->path);
        free(batch);
        return;
    }
    reach_set_guard(batch->reach, allowed, self->guard);
    batch->next = self->batches;
    self->batches = batch;
}

static void on_open(struct thread *self, struct batch *batch)
{
    int64_t now = clock_mono_ns();
    char text[PROBE_TEXT_SIZE];
    reach_open(batch->reach, now);
    while (reach_listener(batch->reach, batch->listeners, text)) {
        batch->listeners++;
        log_info("port probes: a listener is open: %s", text);
    }
    bool *services = zmalloc(batch->count + 1);
    for (size_t i = 0; i < batch->count; i++)
        services[i] = reach_service(batch->reach, i);
    answer(self, batch, REACH_OPENED, services, sizeof *services);
    free(services);
    batch->due_mono_ns = now;
}

static void take(
    struct thread *self, const struct reach_order *order, const void *values, size_t size)
{
    struct batch **at = find(self, order->batch);
    int64_t now = clock_mono_ns();
    if (order->kind == REACH_ARM && size == order->count * sizeof(struct reach_peer))
        on_arm(self, order, values);
    if (!*at)
        return;
    (*at)->due_mono_ns = now;
    if (order->kind == REACH_OPEN)
        on_open(self, *at);
    else if (order->kind == REACH_GO && (*at)->path)
        path_go((*at)->path, now);
    else if (order->kind == REACH_GO)
        reach_go((*at)->reach, size == (*at)->count ? values : NULL, now);
    else if (order->kind == REACH_CLOSE)
        reach_close((*at)->reach, now);
    else if (order->kind == REACH_STOP)
        batch_free(at);
}

// False at the end.
static bool take_orders(struct thread *self)
{
    struct reach_order order;
    while (zmq_recv(self->socket, &order, sizeof order, ZMQ_DONTWAIT) == (int)sizeof order) {
        zmq_msg_t values;
        zmq_msg_init(&values);
        if (zmq_msg_recv(&values, self->socket, 0) >= 0)
            take(self, &order, zmq_msg_data(&values), zmq_msg_size(&values));
        if (order.kind == REACH_ARM)
            sodium_memzero(zmq_msg_data(&values), zmq_msg_size(&values));
        zmq_msg_close(&values);
        if (order.kind == REACH_QUIT)
            return false;
    }
    return true;
}

// ------------------------------------------------------------------------------------------- turns

static void batch_turn(struct thread *self, struct batch *batch, int64_t now)
{
    int64_t path_due = batch->path ? path_turn(batch->path, now) : INT64_MAX;
    batch->due_mono_ns = reach_turn(batch->reach, now);
    batch->due_mono_ns = path_due < batch->due_mono_ns ? path_due : batch->due_mono_ns;
    bool probed = batch->path ? path_done(batch->path) : reach_probed(batch->reach);
    if (batch->probes && !batch->probed && probed) {
        batch->probed = true;
        if (batch->path)
            answer_paths(self, batch);
        else
            answer_outcomes(self, batch, REACH_PROBED);
    }
    if (batch->listens && !batch->heard && reach_closed(batch->reach)) {
        batch->heard = true;
        log_closed(batch);
        answer_outcomes(self, batch, REACH_HEARD);
    }
}

static long wait_ms(const struct thread *self)
{
    int64_t due = INT64_MAX, now = clock_mono_ns();
    for (const struct batch *b = self->batches; b; b = b->next)
        due = b->due_mono_ns < due ? b->due_mono_ns : due;
    if (due == INT64_MAX)
        return -1;
    return due <= now ? 0 : (long)((due - now) / NS_PER_MS + 1);
}

static void wait_for_events(struct thread *self)
{
    size_t count = 1;
    for (struct batch *b = self->batches; b; b = b->next)
        count += 2;
    zmq_pollitem_t *items = zmalloc(count * sizeof *items);
    items[0] = (zmq_pollitem_t){.socket = self->socket, .events = ZMQ_POLLIN};
    count = 1;
    for (struct batch *b = self->batches; b; b = b->next) {
        items[count++] = (zmq_pollitem_t){.fd = reach_fd(b->reach), .events = ZMQ_POLLIN};
        items[count++] = (zmq_pollitem_t){
            .fd = b->path ? path_fd(b->path) : reach_fd(b->reach), .events = ZMQ_POLLIN};
    }
    if (zmq_poll(items, (int)count, wait_ms(self)) > 0) {
        count = 1;
        for (struct batch *b = self->batches; b; b = b->next, count += 2)
            if (items[count].revents || items[count + 1].revents)
                b->due_mono_ns = 0;
    }
    free(items);
}

void *reach_thread(void *arg)
{
    struct reach_assignment *assignment = arg;
    struct thread self = {.socket = zsock_resolve(assignment->pipe), .guard = &assignment->guard};
    while (take_orders(&self)) {
        int64_t now = clock_mono_ns();
        for (struct batch *b = self.batches; b; b = b->next)
            if (b->due_mono_ns <= now)
                batch_turn(&self, b, now);
        wait_for_events(&self);
    }
    while (self.batches)
        batch_free(&self.batches);
    zsock_destroy(&assignment->pipe);
    free(assignment);
    return NULL;
}
