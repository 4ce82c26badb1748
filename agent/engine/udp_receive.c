#include "udp_parts.h"

#include <linux/sock_diag.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"

#define MISSING_NS NS_PER_S // a datagram is lost when it is absent for so long
#define MISSING_MAX_NS (10 * NS_PER_S)
// What is read at once after this host stood still is what came until the sender held its load.
#define LIMIT_DEPTH_S 2
#define IDLE_NS (6 * NS_PER_S) // longer than a sender may hold its load
#define BUFFER_BYTES (32 * 1024 * 1024)
#define BUFFER_PLAIN (4 * 1024 * 1024)
#define AHEAD_NS (10 * NS_PER_S) // an offset may be so far beyond the stated time
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#define NUMBERS_MAX (UINT64_C(1) << 48)

struct memory {
    uint32_t of[SK_MEMINFO_VARS];
};

static struct memory memory_of(int fd)
{
    struct memory memory = {{0}};
    socklen_t size = sizeof memory.of;
    (void)getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory.of, &size);
    return memory;
}

static uint32_t drops_of(int fd)
{
    return memory_of(fd).of[SK_MEMINFO_DROPS];
}

static uint64_t socket_drops(const struct udp_test *test)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < test->streams; i++)
        sum += drops_of(test->fds[i]);
    return sum;
}

static unsigned slice_room(const struct testspec *spec, int64_t *interval_ns)
{
    int64_t least = spec->duration_ns / TESTSPEC_INTERVALS_MAX + 1;
    *interval_ns = spec->interval_ns < least ? least : spec->interval_ns;
    return (unsigned)((spec->duration_ns + *interval_ns - 1) / *interval_ns);
}

static bool set_on(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

static void grow_buffer(struct udp_test *test, int fd)
{
    if (test->order->spec.window)
        return;
    test->receiver->forced_buffer = set_on(fd, SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES);
    if (!test->receiver->forced_buffer)
        (void)set_on(fd, SOL_SOCKET, SO_RCVBUF, BUFFER_PLAIN); // up to net.core.rmem_max
}

static void prepare_sockets(struct udp_test *test)
{
    struct udp_receiver *self = test->receiver;
    int granted = 0;
    socklen_t size = sizeof granted;
    self->gro = udp_in_quanta(&test->order->spec);
    for (unsigned i = 0; i < test->streams; i++) {
        grow_buffer(test, test->fds[i]);
        (void)set_on(test->fds[i], SOL_SOCKET, SO_TIMESTAMPNS, 1);
        (void)set_on(test->fds[i], SOL_SOCKET, SO_RXQ_OVFL, 1);
        // Without it the kernel takes such packets apart again, at its own cost.
        self->gro = self->gro && set_on(test->fds[i], SOL_UDP, UDP_GRO, 1);
    }
    if (getsockopt(test->fds[0], SOL_SOCKET, SO_RCVBUF, &granted, &size) == 0)
        self->receive_buffer = (unsigned)granted;
}

static uint64_t missing_now(const struct udp_receiver *self)
{
    uint64_t expected = self->final.end_sequence - self->final.lost_sender;
    uint64_t distinct = seqtrack_distinct(self->track);
    return self->final_seen && expected > distinct ? expected - distinct : 0;
}

static void say_feedback(struct udp_test *test, int64_t now)
{
    struct udp_receiver *self = test->receiver;
    struct control feedback = {.type = CONTROL_FEEDBACK,
        .phase = self->phase,
        .final_seen = self->final_seen,
        .full = self->full_said,
        .bytes = self->all_bytes,
        .packets = self->arrivals,
        .drops_receiver = self->drops_now - self->drops_begin,
        .missing = missing_now(self)};
    udp_say(test, &feedback);
    self->next_feedback_ns = now + CONTROL_FEEDBACK_NS / 2;
}

void udp_receiver_start(struct udp_test *test, int64_t now)
{
    struct udp_receiver *self = test->receiver;
    self->track = seqtrack_new();
    self->jitter = jitter_new(udp_in_quanta(&test->order->spec) ? 1 : test->streams);
    self->slice_count = slice_room(&test->order->spec, &self->interval_ns);
    self->slices = calloc(self->slice_count, sizeof *self->slices);
    if (!self->slices)
        abort();
    self->waiting_since_ns = self->first_feedback_ns = self->last_load_ns = now;
    self->kernel_stamps = true;
    self->phase = CONTROL_OMIT;
    bucket_begin(&self->bucket);
    converge_begin(&self->converge, test->order->spec.until);
    prepare_sockets(test);
    self->drops_begin = self->drops_now = socket_drops(test);
    for (unsigned i = 0; i < test->streams; i++)
        self->drops_omit[i] = drops_of(test->fds[i]);
    say_feedback(test, now);
}

// --------------------------------------------------------------------------------- load

static void into_slice(
    struct udp_receiver *self, const struct udp_run *run, unsigned fresh, double d_s)
{
    size_t index = (size_t)((int64_t)run->offset / self->interval_ns);
    if (index >= self->slice_count)
        index = self->slice_count - 1; // the last datagram may leave a moment late
    struct udp_slice *slice = &self->slices[index];
    if (!slice->any || run->number < slice->first_number)
        slice->first_number = run->number;
    slice->any = true;
    slice->received += fresh;
    slice->bytes += fresh * run->size;
    if (!isnan(d_s)) {
        slice->jitter_sum_s += d_s;
        slice->jitter_count++;
    }
}

// Of a run the first datagram stands for all: the stamp is its.
static void first_copies(struct udp_receiver *self, const struct udp_run *run, unsigned fresh)
{
    int64_t arrived = run->arrived_mono_ns;
    if (self->arrivals == 0 || arrived < self->first_arrival_ns) {
        self->first_arrival_ns = arrived;
        self->first_number = run->number;
    }
    if (self->arrivals == 0 || arrived >= self->last_arrival_ns) {
        self->last_arrival_ns = arrived;
        self->last_number = run->number;
    }
    self->arrivals += fresh;
    self->bytes += fresh * run->size;
    double d_s = jitter_arrive(
        self->jitter, run->stream, run->number, run->count, (int64_t)run->offset, arrived);
    into_slice(self, run, fresh, d_s);
}

static bool over_limits(struct udp_test *test, int64_t now)
{
    struct udp_receiver *self = test->receiver;
    const struct probe_order *order = test->order;
    uint64_t slack = order->limit_bytes / 50 + 100000;
    if (order->limit_bytes && self->all_bytes > order->limit_bytes + slack)
        return true;
    if (order->limit_bps == 0)
        return false;
    double rate = (double)order->limit_bps / 8 * 1.25, most = rate * LIMIT_DEPTH_S + 1e6;
    double more = self->allowed_ns ? rate * (double)(now - self->allowed_ns) * 1e-9 : most;
    self->allowed_bytes = fmin(self->allowed_bytes + more, most);
    self->allowed_bytes -= (double)(self->all_bytes - self->allowed_seen_bytes);
    self->allowed_ns = now;
    self->allowed_seen_bytes = self->all_bytes;
    return self->allowed_bytes < 0;
}

static bool plausible(const struct udp_test *test, const struct udp_run *run)
{
    const struct udp_receiver *self = test->receiver;
    if (run->offset > (uint64_t)(test->order->spec.duration_ns + AHEAD_NS))
        return false;
    uint64_t end = self->final_seen ? self->final.end_sequence : NUMBERS_MAX;
    return run->number < end && run->count <= end - run->number;
}

void udp_receiver_packet(struct udp_test *test, unsigned at, bool omit, uint32_t drops)
{
    if (omit)
        test->receiver->drops_omit[at] = drops;
    else
        test->receiver->packets++;
}

void udp_receiver_run(struct udp_test *test, const struct udp_run *run, int64_t now)
{
    struct udp_receiver *self = test->receiver;
    bool first = self->first_load_ns == 0;
    self->last_load_ns = now;
    self->all_bytes += run->count * run->size;
    if (first) {
        self->first_load_ns = now;
        say_feedback(test, now); // the sender waits to hear that its datagrams fit the path
    }
    if (run->omit)
        return;
    if (!plausible(test, run)) {
        self->strangers += run->count;
        return;
    }
    if (!self->window_open) {
        self->window_open = true;
        self->phase = CONTROL_WINDOW;
        self->length = (unsigned)run->size;
        udp_measure(test, true);
    }
    if (run->count > self->most_in_packet)
        self->most_in_packet = run->count;
    self->kernel_stamps = self->kernel_stamps && run->kernel_stamp;
    unsigned fresh = seqtrack_arrive(self->track, run->stream, run->number, run->count);
    if (fresh > 0)
        first_copies(self, run, fresh);
}

void udp_receiver_pressure(struct udp_test *test, unsigned at, int64_t now)
{
    struct udp_receiver *self = test->receiver;
    if (!test->order->spec.bitrate_max || self->final_seen)
        return;
    struct memory memory = memory_of(test->fds[at]);
    uint32_t held = memory.of[SK_MEMINFO_RMEM_ALLOC], limit = memory.of[SK_MEMINFO_RCVBUF];
    bool full = self->full[at] ? held > limit / 16 : held > limit / 4;
    if (full == self->full[at])
        return;
    self->full[at] = full;
    self->full_count += full ? 1 : -1;
    if (self->full_said == (self->full_count > 0))
        return;
    self->full_said = self->full_count > 0;
    say_feedback(test, now);
}

void udp_receiver_final(struct udp_test *test, const struct control *message, int64_t now)
{
    struct udp_receiver *self = test->receiver;
    if (!self->final_seen) {
        if (message->end_sequence >= NUMBERS_MAX || message->lost_sender > message->end_sequence ||
            seqtrack_end(self->track) > message->end_sequence) {
            udp_fail(test, false, "the sender's final count makes no sense");
            return;
        }
        self->final = *message;
        self->final_seen = true;
        self->final_ns = now;
        udp_measure(test, false);
        beside_pause(test->beside);
    }
    self->phase = CONTROL_DONE;
    self->drops_now = socket_drops(test);
    say_feedback(test, now);
}

// ------------------------------------------------------------------------------------ time

// The first load follows the first feedback by a round trip at least.
static int64_t patience_ns(const struct udp_receiver *self)
{
    int64_t rtt = self->first_load_ns - self->first_feedback_ns;
    int64_t wait = 4 * rtt > MISSING_NS ? 4 * rtt : MISSING_NS;
    return wait > MISSING_MAX_NS ? MISSING_MAX_NS : wait;
}

// What has arrived so far: is it a burst's, is it enough, and what may the probes beside it take?
static void look_at_rate(struct udp_test *test, int64_t now)
{
    // Datagrams do not wait for each other's round trips.
    static const struct converge_path path = {.known = true};
    struct udp_receiver *self = test->receiver;
    if (!self->first_load_ns || self->final_seen)
        return;
    bucket_add(&self->bucket, now - self->first_load_ns, self->all_bytes);
    if (self->arrivals == 0)
        return;
    beside_goodput(test->beside, self->bytes);
    if (converge_progress(&self->converge, now - self->first_arrival_ns, self->bytes) &&
        converge_look(&self->converge, &path)) {
        self->phase = CONTROL_DONE; // the sender's range ends when it hears this
        say_feedback(test, now);
    }
}

void udp_receiver_tick(struct udp_test *test, int64_t now)
{
    struct udp_receiver *self = test->receiver;
    if (self->finished)
        return;
    self->drops_now = socket_drops(test);
    if (!self->final_seen && now - self->last_load_ns > IDLE_NS) {
        udp_fail(test, true,
            self->first_load_ns ? "the sender fell silent without a final count"
                                : "no load came from the sender");
        return;
    }
    if (over_limits(test, now)) {
        udp_fail(test, false, "the sender exceeded the limits of its ticket");
        return;
    }
    look_at_rate(test, now);
    if (now >= self->next_feedback_ns)
        say_feedback(test, now);
    if (!self->final_seen)
        return;
    if (missing_now(self) == 0 || now - self->final_ns >= patience_ns(self)) {
        for (int copy = 0; copy < 3; copy++)
            say_feedback(test, now);
        self->finished = true;
    }
}

void udp_receiver_release(struct udp_receiver *receiver)
{
    seqtrack_destroy(&receiver->track);
    jitter_destroy(&receiver->jitter);
    free(receiver->slices);
}

void udp_receiver_technique(const struct udp_test *test, char *text, size_t size)
{
    const struct udp_receiver *self = test->receiver;
    const char *unable =
        udp_in_quanta(&test->order->spec) && !self->gro ? " (no UDP_GRO here)" : "";
    const char *buffer = self->forced_buffer        ? "SO_RCVBUFFORCE"
                         : test->order->spec.window ? "as asked"
                                                    : "net.core.rmem_max";
    char threads[24] = "";
    if (test->reader_count > 1)
        snprintf(threads, sizeof threads, ", %u threads", test->reader_count);
    snprintf(text, size, "%s%s, receive buffer %u K (%s)%s",
        self->gro ? "UDP_GRO, recvmmsg of 4 packets" : "recvmmsg of 64 datagrams", unable,
        self->receive_buffer / 1024, buffer, threads);
}
