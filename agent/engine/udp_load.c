// The threads that send UDP load: when and how much. A flood of several streams has a thread for
// each as far as there are cores, and each looks for its own rate; what they send is numbered in
// one range. A stated rate is kept by one thread, as it is one schedule.

#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"
#include "pacer.h"
#include "udp_outlet.h"
#include "waker.h"

#define RAMP_NS (50 * NS_PER_MS)
#define OWED_NS (50 * NS_PER_MS) // after the window's end, for what was due before it
#define FLOOD_START_BPS 200e6
#define QUANTUM_NS (250 * NS_PER_US)
#define SLEEP_GAP_NS (50 * NS_PER_US) // closer than this a thread cannot wake
#define LOOK_NS (3 * NS_PER_US)       // at the clock, before each
#define BEHIND_NS (20 * NS_PER_MS)    // a pace that is not kept
#define BEHIND_LOOKS 4
#define ONE_BY_ONE_PPS 500e3 // more than a core sends as single packets
#define FULL_LOOK_NS (50 * NS_PER_US)
#define FULL_MAX_NS (50 * NS_PER_MS) // the word that there is room again may be lost

#define LOADERS_MAX 8
#define STACK_BYTES (256 * 1024)

// One of the threads, with its share of the sockets.
struct udp_loader {
    struct udp_sender *sender;
    unsigned first, streams;
    pthread_t thread;
    atomic_int tid;
    int64_t window_ns; // of its load; valid when it has ended, as is what its outlet counted
    struct udp_outlet outlet;
};

// What it does.
struct loop {
    struct udp_sender *sender;
    struct udp_outlet out;
    struct pacer pacer;
    struct waker waker;
    int64_t load_begin_ns, window_begin_ns, window_end_ns, ramp_ns;
    int64_t window_ns; // as long as it was
    double rate_bps, most_bps;
    int64_t blocked_before_ns;
    uint64_t drops_seen;
    unsigned behind;
    bool ramping;
};

bool udp_in_quanta(const struct testspec *spec)
{
    unsigned length = spec->length ? spec->length : TESTSPEC_LENGTH_DEFAULT;
    return spec->bitrate_max || (double)spec->bitrate_bps / 8 / length > ONE_BY_ONE_PPS;
}

// -------------------------------------------------------------------------- departures

// A datagram belongs where it was due, so that a late wake-up moves nothing across the window's
// edge; a flood has no times of its own.
static struct udp_batch take(struct loop *loop, unsigned count, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    struct udp_batch batch = {.count = count, .offset_ns = now - loop->window_begin_ns};
    if (sender->flood)
        batch.omit = now < loop->window_begin_ns ? count : 0;
    else
        while (
            batch.omit < count && pacer_due_ahead(&loop->pacer, batch.omit) < loop->window_begin_ns)
            batch.omit++;
    batch.omitted = atomic_fetch_add(&sender->omitted, batch.omit);
    batch.number = atomic_fetch_add(&sender->numbers, count - batch.omit);
    return batch;
}

// The time afterwards.
static int64_t depart(struct loop *loop, unsigned count, int64_t now)
{
    unsigned length = loop->out.length;
    struct udp_batch batch = take(loop, count, now);
    udp_outlet_send(&loop->out, &batch);
    pacer_departed(&loop->pacer, count, now);
    int64_t after = clock_mono_ns();
    if (loop->out.length != length)
        pacer_set_rate(&loop->pacer, after, loop->out.length, loop->rate_bps);
    return after;
}

// ---------------------------------------------------------------------------------- pacing

// May a thread look at the clock all the time, or go before others? Not where they need the core.
static bool may_keep_a_core(void)
{
    return cgroup_cores() >= 2;
}

static enum udp_pace choose_pace(const struct udp_sender *sender)
{
    double gap_ns = (double)sender->length * 8e9 / (double)sender->rate_bps;
    if (sender->flood || gap_ns < 1e9 / ONE_BY_ONE_PPS)
        return UDP_QUANTA;
    if (gap_ns >= (double)SLEEP_GAP_NS)
        return UDP_SLEEP;
    return may_keep_a_core() ? UDP_SPIN : UDP_QUANTA;
}

// A thread that sleeps to each departure wakes closer to it if it need not queue for a core. The
// least real-time priority does that; who may have it is told by RLIMIT_RTPRIO.
static bool set_urgent(bool urgent)
{
    struct sched_param priority = {
        .sched_priority = urgent ? sched_get_priority_min(SCHED_FIFO) : 0};
    return sched_setscheduler(0, urgent ? SCHED_FIFO : SCHED_OTHER, &priority) == 0;
}

// How many leave at a time, at this rate and at most.
static unsigned quantum(const struct loop *loop)
{
    if (loop->sender->pace != UDP_QUANTA)
        return 1;
    double due = (double)QUANTUM_NS / loop->pacer.gap_ns;
    return due < 1 ? 1 : due > loop->out.most ? loop->out.most : (unsigned)due;
}

static unsigned most_at_once(const struct loop *loop)
{
    return loop->sender->pace == UDP_QUANTA ? loop->out.most : 1;
}

static int64_t next_departure(const struct loop *loop)
{
    return loop->sender->pace == UDP_QUANTA ? pacer_due_ahead(&loop->pacer, quantum(loop) - 1)
                                            : pacer_next(&loop->pacer);
}

static int64_t departure_after_next(const struct loop *loop)
{
    return loop->sender->pace == UDP_QUANTA ? pacer_due_ahead(&loop->pacer, 2 * quantum(loop) - 1)
                                            : pacer_after_next(&loop->pacer);
}

// Waits until then or `until`; the time afterwards.
static int64_t wait_departure(struct loop *loop, int64_t now, int64_t until)
{
    int64_t next = next_departure(loop);
    if (loop->sender->pace == UDP_SPIN)
        while (now < next && now < until)
            now = clock_mono_ns();
    else if (next <= until)
        now = waker_wait(&loop->waker, next, departure_after_next(loop));
    else
        now = waker_sleep(until);
    return now;
}

// A flood: doubles while nothing is lost at either host, gives way when something is.
static void adapt_flood(struct loop *loop, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    if (now < loop->ramp_ns)
        return;
    loop->ramp_ns = now + RAMP_NS;
    uint64_t drops = atomic_load(&sender->link.drops_receiver) + loop->out.lost;
    bool lossy = drops > loop->drops_seen;
    bool blocked = loop->out.blocked_ns > loop->blocked_before_ns + RAMP_NS / 2;
    loop->drops_seen = drops;
    loop->blocked_before_ns = loop->out.blocked_ns;
    // A sender that is behind its own pace cannot go faster either.
    bool behind = now - pacer_due(&loop->pacer) > loop->pacer.burst_ns / 2;
    double before_bps = loop->rate_bps;
    if (lossy || blocked)
        loop->ramping = false;
    if (lossy)
        loop->rate_bps *= 0.85;
    else if (!blocked && !behind)
        loop->rate_bps *= loop->ramping ? 2 : 1.03;
    if (loop->most_bps > 0 && loop->rate_bps > loop->most_bps)
        loop->rate_bps = loop->most_bps;
    // At its cap it goes on as it is: each new beginning would be a datagram more than the cap
    // allows.
    if (loop->rate_bps != before_bps || behind || blocked)
        pacer_set_rate(&loop->pacer, now, loop->out.length, loop->rate_bps);
}

// A stated pace that this core does not keep one by one is kept in quanta; one that the path holds
// up is not.
static void adapt_pace(struct loop *loop, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    if (now < loop->ramp_ns)
        return;
    loop->ramp_ns = now + RAMP_NS;
    bool blocked = loop->out.blocked_ns > loop->blocked_before_ns;
    loop->blocked_before_ns = loop->out.blocked_ns;
    bool behind = now - pacer_due(&loop->pacer) > BEHIND_NS && !blocked;
    loop->behind = behind ? loop->behind + 1 : 0;
    if (loop->behind < BEHIND_LOOKS)
        return;
    sender->pace = UDP_QUANTA;
    loop->waker.look_ns = 0;
    if (sender->urgent)
        sender->urgent = !set_urgent(false);
}

// ---------------------------------------------------------------------------------- the loop

static void start_loop(struct loop *loop, const struct udp_loader *loader)
{
    struct udp_sender *sender = loader->sender;
    const struct testspec *spec = &sender->order->spec;
    int64_t begin = sender->begin_ns, omit = testspec_omit_max_ns(spec);
    *loop = (struct loop){.sender = sender,
        .ramping = sender->flood,
        .rate_bps = FLOOD_START_BPS,
        .most_bps = (double)sender->rate_bps / sender->loader_count,
        .ramp_ns = begin + RAMP_NS,
        .load_begin_ns = begin,
        .window_begin_ns = begin + omit,
        .window_end_ns = begin + omit + spec->duration_ns};
    if (loop->most_bps > 0 && (!sender->flood || loop->rate_bps > loop->most_bps))
        loop->rate_bps = loop->most_bps;
    if (loop->window_end_ns > begin + sender->order->limit_ns)
        loop->window_end_ns = begin + sender->order->limit_ns;
    udp_outlet_open(&loop->out, sender, loader->first, loader->streams, 0);
    loop->out.window_begin_ns = loop->window_begin_ns;
    pacer_start(&loop->pacer, begin, loop->out.length, loop->rate_bps);
    waker_open(&loop->waker, sender->pace == UDP_SLEEP ? LOOK_NS : 0);
}

static bool volume_reached(const struct loop *loop)
{
    uint64_t limit = loop->sender->order->limit_bytes;
    uint64_t sent = atomic_load_explicit(&loop->sender->numbers, memory_order_relaxed) +
                    atomic_load_explicit(&loop->sender->omitted, memory_order_relaxed);
    return limit && sent * loop->out.length >= limit;
}

// What was due within the window and is late still belongs to it; the window is then as long as was
// asked. A path that does not take it in time keeps the difference.
static void send_owed(struct loop *loop, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    int64_t until = loop->window_end_ns + OWED_NS, limit = sender->order->limit_ns;
    if (until > loop->load_begin_ns + limit)
        until = loop->load_begin_ns + limit;
    while (pacer_due(&loop->pacer) < loop->window_end_ns) {
        if (now >= until || atomic_load(&sender->link.stop) || atomic_load(&sender->link.hold) ||
            volume_reached(loop))
            return;
        if (sender->pace != UDP_QUANTA)
            now = wait_departure(loop, now, until);
        now = depart(
            loop, pacer_ready(&loop->pacer, loop->window_end_ns - 1, most_at_once(loop)), now);
    }
    loop->window_ns = loop->window_end_ns - loop->window_begin_ns;
}

// While the receiver is silent, or has much to read yet; the time afterwards.
static int64_t rest(struct loop *loop, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    if (atomic_load(&sender->link.hold)) {
        (void)waker_sleep(now + 5 * NS_PER_MS);
    } else {
        int64_t until = now + FULL_MAX_NS;
        while (atomic_load(&sender->link.full) && clock_mono_ns() < until)
            (void)waker_sleep(clock_mono_ns() + FULL_LOOK_NS);
        atomic_store(&sender->link.full, false);
    }
    now = clock_mono_ns();
    pacer_start(&loop->pacer, now, loop->out.length, loop->rate_bps);
    return now;
}

static void send_until_over(struct loop *loop)
{
    struct udp_sender *sender = loop->sender;
    int64_t now = clock_mono_ns();
    while (now < loop->window_end_ns && !atomic_load(&sender->link.stop) && !volume_reached(loop)) {
        if (atomic_load(&sender->link.hold) || atomic_load(&sender->link.full)) {
            now = rest(loop, now);
            continue;
        }
        if (atomic_load(&sender->link.enough) && now > loop->window_begin_ns) {
            loop->window_end_ns = now; // no number after this one is of the range
            break;
        }
        if (sender->flood)
            adapt_flood(loop, now);
        else if (sender->pace != UDP_QUANTA)
            adapt_pace(loop, now);
        if (now >= loop->window_begin_ns)
            atomic_store_explicit(&sender->in_window, true, memory_order_release);
        if (now >= next_departure(loop))
            now = depart(loop, pacer_ready(&loop->pacer, now, most_at_once(loop)), now);
        else
            now = wait_departure(loop, now, now + 20 * NS_PER_MS);
    }
    loop->window_ns = now - loop->window_begin_ns;
    if (now >= loop->window_end_ns && !sender->flood)
        send_owed(loop, now);
}

// --------------------------------------------------------------------------------- the threads

static unsigned loaders_for(const struct udp_sender *sender)
{
    unsigned cores = cgroup_affinity(), most = cores > LOADERS_MAX ? LOADERS_MAX : cores;
    return !sender->flood ? 1 : most < sender->streams ? most : sender->streams;
}

static void load(struct udp_loader *self)
{
    struct udp_sender *sender = self->sender;
    struct loop loop;
    prctl(PR_SET_TIMERSLACK, 1);
    start_loop(&loop, self);
    send_until_over(&loop);
    udp_outlet_close(&loop.out);
    waker_close(&loop.waker);
    self->window_ns = loop.window_ns;
    self->outlet = loop.out;
    if (atomic_fetch_sub(&sender->loading, 1) == 1)
        atomic_store(&sender->finished, true);
    while (sem_wait(&sender->leave) < 0)
        ;
}

static bool start_thread(struct udp_loader *loader, void *(*body)(void *loader))
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    bool started = pthread_create(&loader->thread, &attributes, body, loader) == 0;
    pthread_attr_destroy(&attributes);
    return started;
}

static void *follow(void *loader)
{
    struct udp_loader *self = loader;
    atomic_store(&self->tid, gettid());
    while (sem_wait(&self->sender->go) < 0)
        ;
    load(self);
    return NULL;
}

// As many as can be had; then each gets its share of the sockets.
static void start_others(struct udp_sender *sender, unsigned wanted)
{
    unsigned count = 1;
    while (count < wanted && start_thread(&sender->loaders[count], follow))
        count++;
    for (unsigned i = 0; i < count; i++) {
        unsigned first = i * sender->streams / count;
        sender->loaders[i].first = first;
        sender->loaders[i].streams = (i + 1) * sender->streams / count - first;
    }
    sender->loader_count = count;
    sender->begin_ns = clock_mono_ns();
    atomic_store(&sender->loading, count);
    for (unsigned i = 1; i < count; i++)
        sem_post(&sender->go);
}

static void *lead(void *loader)
{
    struct udp_loader *self = loader;
    struct udp_sender *sender = self->sender;
    atomic_store(&self->tid, gettid());
    sem_post(&sender->started);
    udp_find_path_mtu(sender);
    sender->flood = sender->order->spec.bitrate_max;
    sender->pace = sender->pace_first = choose_pace(sender);
    sender->urgent = sender->pace == UDP_SLEEP && may_keep_a_core() && set_urgent(true);
    start_others(sender, loaders_for(sender));
    load(self);
    return NULL;
}

bool udp_load_start(struct udp_sender *sender)
{
    sem_init(&sender->started, 0, 0);
    sem_init(&sender->go, 0, 0);
    sem_init(&sender->leave, 0, 0);
    sender->loaders = calloc(LOADERS_MAX, sizeof *sender->loaders);
    if (!sender->loaders)
        abort();
    for (unsigned i = 0; i < LOADERS_MAX; i++)
        sender->loaders[i].sender = sender;
    sender->running = start_thread(&sender->loaders[0], lead);
    if (!sender->running) {
        free(sender->loaders);
        sender->loaders = NULL;
        return false;
    }
    while (sem_wait(&sender->started) < 0)
        ;
    return true;
}

void udp_load_watch(const struct udp_sender *sender, cpu_t *cpu)
{
    for (unsigned i = 0; i < LOADERS_MAX; i++)
        if (atomic_load(&sender->loaders[i].tid))
            cpu_watch(cpu, atomic_load(&sender->loaders[i].tid));
}

static void add_up(struct udp_sender *sender, const struct udp_loader *loader)
{
    const struct udp_outlet *outlet = &loader->outlet;
    sender->bytes += outlet->sent_bytes;
    sender->lost_sender += outlet->lost;
    sender->blocked_ns += outlet->blocked_window_ns / sender->loader_count;
    if (loader->window_ns > sender->window_ns)
        sender->window_ns = loader->window_ns;
    if (outlet->length < sender->length) {
        sender->length = outlet->length;
        sender->path_mtu = outlet->path_mtu;
    }
    if (sender->segments == 0 || outlet->segments < sender->segments)
        sender->segments = outlet->segments;
}

void udp_load_end(struct udp_sender *sender)
{
    atomic_store(&sender->link.stop, true);
    for (unsigned i = 0; i < LOADERS_MAX; i++)
        sem_post(&sender->leave);
    pthread_join(sender->loaders[0].thread, NULL);
    for (unsigned i = 1; i < sender->loader_count; i++)
        pthread_join(sender->loaders[i].thread, NULL);
    for (unsigned i = 0; i < sender->loader_count; i++)
        add_up(sender, &sender->loaders[i]);
    sender->packets = atomic_load(&sender->numbers);
    free(sender->loaders);
    sender->loaders = NULL;
    sender->running = false;
    sender->joined = true;
}
