#include "beside.h"

#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "histogram.h"
#include "light_parts.h"

#define IDLE_SPACING_NS (5 * NS_PER_MS)
#define LOADED_SPACING_NS (10 * NS_PER_MS)
#define SHARE_OF_GOODPUT 0.0005
#define FIRST 50 // questions that are not of that share, but of
#define SHARE_OF_FIRST 0.0015
#define PENDING 512 // questions that may be on their way; a power of two
#define LINK_HEADERS 14
#define STRAGGLERS_NS (10 * NS_PER_MS)
#define STRAGGLERS_MOST_NS (300 * NS_PER_MS)
#define STACK_BYTES (512 * 1024) // what is thread-local anywhere in the program is in it too

enum phase { PHASE_IDLE, PHASE_WAIT, PHASE_LOADED, PHASE_OVER, PHASE_END };

struct beside {
    const struct probe_order *order;
    dataport_t *port;
    struct ticket_keys keys;
    bool reflects, runs;
    // shared with the asking thread
    atomic_int phase;
    atomic_uint_least64_t bytes; // goodput of the window so far
    int wake_fd;
    pthread_t thread;
    // of the asking thread, and of the others once it has ended
    struct light_flow flow;
    struct light_target target;
    struct light_clock clock;
    struct light_asked pending[PENDING];
    uint64_t sent, answered, idle_end, loaded_sent; // idle_end: number of the first question after
    int64_t largest_rtt_ns, due_ns, probe_bytes;
    histogram_t *idle, *foreign;
};

// The test's own id is that of its streams; its probes have another one, which both ends can tell.
static void derive_keys(const struct ticket_keys *test, struct ticket_keys *keys)
{
    static const char name[] = "light probes beside the load";
    _Static_assert(TICKET_MAC_SIZE == TICKET_ID_SIZE, "an id is made of a MAC");
    *keys = *test;
    ticket_mac(test->light, name, sizeof name, keys->id);
}

// ------------------------------------------------------------------ the asking thread

static int64_t spacing_ns(int64_t mean_ns)
{
    uint64_t random;
    ticket_random(&random, sizeof random);
    return mean_ns / 2 + (int64_t)((double)(random >> 11) * 0x1p-53 * (double)mean_ns);
}

static bool within_share(const struct beside *self)
{
    double bytes = (double)atomic_load(&self->bytes), each = (double)self->probe_bytes;
    double allowed = SHARE_OF_GOODPUT * bytes + fmin(SHARE_OF_FIRST * bytes, FIRST * each);
    return (double)(self->loaded_sent + 1) * each <= allowed;
}

// Asks if it is time; when to look again.
static int64_t ask(struct beside *self, enum phase phase, int64_t now)
{
    bool idle = phase == PHASE_IDLE;
    if (!idle && phase != PHASE_LOADED)
        return INT64_MAX;
    if (now < self->due_ns)
        return self->due_ns;
    self->due_ns = now + spacing_ns(idle ? IDLE_SPACING_NS : LOADED_SPACING_NS);
    if (!idle && !within_share(self))
        return self->due_ns;
    light_clock_read(&self->clock);
    if (light_flow_ask(&self->flow, &self->target, &self->keys, self->sent, 0, 0, &self->clock,
            &self->pending[self->sent % PENDING])) {
        self->sent++;
        self->loaded_sent += !idle;
    }
    return self->due_ns;
}

static void read_stamps(struct beside *self)
{
    bool known;
    uint32_t owner;
    uint64_t number;
    int64_t stamp;
    while (light_flow_stamp(&self->flow, &known, &owner, &number, &stamp)) {
        struct light_asked *asked = &self->pending[number % PENDING];
        if (!known || !asked->waiting || asked->kernel_t1 || asked->number != number)
            continue;
        asked->t1_wall_ns = stamp;
        asked->kernel_t1 = true;
    }
}

static void take(struct beside *self, const struct light_datagram *answer, int64_t t4_wall_ns)
{
    struct light_asked *asked = &self->pending[answer->number % PENDING];
    struct light_sample sample;
    if (!asked->waiting || asked->number != answer->number)
        return;
    asked->waiting = false;
    self->answered++;
    light_clock_read(&self->clock);
    if (!light_round(asked, answer, t4_wall_ns, self->clock.offset_ns, clock_mono_ns(), &sample))
        return;
    histogram_record(answer->number < self->idle_end ? self->idle : self->foreign, sample.rtt_ns);
    if (sample.rtt_ns > self->largest_rtt_ns)
        self->largest_rtt_ns = sample.rtt_ns;
}

static void read_answers(struct beside *self)
{
    uint8_t bytes[LIGHT_SIZE + 1];
    int64_t t4_wall_ns;
    bool kernel;
    ssize_t got;
    while ((got = light_flow_read(&self->flow, bytes, &t4_wall_ns, &kernel)) >= 0) {
        struct light_datagram answer;
        if (light_unpack(bytes, (size_t)got, &self->keys, &answer) && answer.type == LIGHT_REPLY)
            take(self, &answer, t4_wall_ns);
    }
}

static void wait_until(struct beside *self, int64_t until_mono_ns)
{
    struct pollfd polled[2] = {
        {.fd = self->flow.fd, .events = POLLIN}, {.fd = self->wake_fd, .events = POLLIN}};
    int64_t left = until_mono_ns == INT64_MAX ? NS_PER_S : until_mono_ns - clock_mono_ns();
    struct timespec wait = {0, 0};
    uint64_t wakes;
    if (left > 0)
        wait = (struct timespec){left / NS_PER_S, left % NS_PER_S};
    if (ppoll(polled, 2, &wait, NULL) <= 0)
        return;
    if (polled[1].revents)
        (void)!read(self->wake_fd, &wakes, sizeof wakes);
    read_stamps(self);
    read_answers(self);
}

static void await_stragglers(struct beside *self)
{
    int64_t wait = 2 * self->largest_rtt_ns;
    wait = wait < STRAGGLERS_NS ? STRAGGLERS_NS : wait;
    wait = wait > STRAGGLERS_MOST_NS ? STRAGGLERS_MOST_NS : wait;
    int64_t until = clock_mono_ns() + wait;
    while (self->answered > 0 && self->answered < self->sent && clock_mono_ns() < until)
        wait_until(self, until);
}

static void *ask_until_told(void *arg)
{
    struct beside *self = arg;
    enum phase phase;
    while ((phase = (enum phase)atomic_load(&self->phase)) != PHASE_END) {
        if (phase != PHASE_IDLE && self->idle_end == UINT64_MAX)
            self->idle_end = self->sent;
        wait_until(self, ask(self, phase, clock_mono_ns()));
    }
    await_stragglers(self);
    return NULL;
}

// ------------------------------------------------------------------ the test's threads

// Phases only go forward; true if this one is new.
static bool enter(struct beside *self, enum phase phase)
{
    int now = atomic_load(&self->phase);
    while (now < (int)phase)
        if (atomic_compare_exchange_weak(&self->phase, &now, (int)phase)) {
            uint64_t one = 1;
            (void)!write(self->wake_fd, &one, sizeof one);
            return true;
        }
    return false;
}

beside_t *beside_new(const struct probe_order *order, dataport_t *port)
{
    struct beside *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->order = order;
    self->port = port;
    self->flow.fd = self->wake_fd = -1;
    self->idle_end = UINT64_MAX;
    derive_keys(&order->keys, &self->keys);
    // Best effort: without it there are no answers.
    self->reflects = !order->connects && !order->alone &&
                     dataport_reflect(port, &self->keys, order->local_address,
                         order->expiry_mono_ns + order->limit_ns + 10 * NS_PER_S, 0) == 0;
    return self;
}

static bool start(struct beside *self)
{
    const struct probe_order *order = self->order;
    if (!light_target_set(&self->target, order->peer_address, order->peer_port))
        return false;
    unsigned family = self->target.address.ss_family;
    self->probe_bytes = LIGHT_SIZE + LINK_HEADERS + (family == AF_INET ? 28 : 48);
    self->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->wake_fd < 0 || !light_flow_open(&self->flow, family, order->local_address))
        return false;
    self->idle = histogram_new();
    self->foreign = histogram_new();
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    self->runs = pthread_create(&self->thread, &attributes, ask_until_told, self) == 0;
    pthread_attr_destroy(&attributes);
    return self->runs;
}

void beside_idle(beside_t *self, int stop_fd)
{
    if (!self->order->connects || self->order->alone || !start(self))
        return;
    struct pollfd polled = {.fd = stop_fd, .events = POLLIN};
    int64_t idle_ns = testspec_idle_ns(&self->order->spec);
    struct timespec wait = {idle_ns / NS_PER_S, idle_ns % NS_PER_S};
    (void)ppoll(&polled, 1, &wait, NULL);
    enter(self, PHASE_WAIT);
}

void beside_goodput(beside_t *self, uint64_t bytes)
{
    if (!self || !self->runs)
        return;
    uint_least64_t before = atomic_load(&self->bytes);
    while (before < bytes && !atomic_compare_exchange_weak(&self->bytes, &before, bytes))
        ;
    enter(self, PHASE_LOADED);
}

void beside_pause(beside_t *self)
{
    if (self && self->runs)
        enter(self, PHASE_OVER);
}

void beside_end(beside_t **self_p, struct probe_report *report)
{
    struct beside *self = *self_p;
    if (!self)
        return;
    if (self->runs) {
        enter(self, PHASE_END);
        pthread_join(self->thread, NULL);
        probe_distribution_of(self->idle, &report->rtt_idle);
        probe_distribution_of(self->foreign, &report->rtt_foreign);
    }
    if (self->reflects)
        dataport_unreflect(self->port, self->keys.id);
    if (self->flow.fd >= 0)
        close(self->flow.fd);
    if (self->wake_fd >= 0)
        close(self->wake_fd);
    histogram_destroy(&self->idle);
    histogram_destroy(&self->foreign);
    ticket_wipe(&self->keys);
    free(self);
    *self_p = NULL;
}
