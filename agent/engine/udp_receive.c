#include "udp_parts.h"

#include <endian.h>
#include <linux/sock_diag.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"

#define MISSING_NS NS_PER_S // a datagram is lost when it is absent for so long
#define MISSING_MAX_NS (10 * NS_PER_S)
#define IDLE_NS (6 * NS_PER_S) // longer than a sender may hold its load
#define BUFFER_BYTES (32 * 1024 * 1024)
#define BUFFER_PLAIN (4 * 1024 * 1024)
#define AHEAD_NS (10 * NS_PER_S) // an offset may be so far beyond the stated time
#define NUMBERS_MAX (UINT64_C(1) << 48)

static uint32_t drops_of(int fd)
{
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof memory;
    (void)getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size);
    return memory[SK_MEMINFO_DROPS];
}

static uint64_t socket_drops(const struct udp_test *test)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < test->streams; i++)
        sum += drops_of(test->fds[i]);
    return sum;
}

// Those of the window: what the sockets dropped after the last datagram before it. The kernel's
// count beside a datagram was taken when it was queued, however late it is read.
static uint64_t window_drops(const struct udp_test *test)
{
    const struct udp_receiver *self = test->receiver;
    uint64_t before = 0;
    for (unsigned i = 0; i < test->streams; i++)
        before += self->drops_omit[i];
    return self->drops_now > before ? self->drops_now - before : 0;
}

static unsigned slice_room(const struct testspec *spec, int64_t *interval_ns)
{
    int64_t least = spec->duration_ns / TESTSPEC_INTERVALS_MAX + 1;
    *interval_ns = spec->interval_ns < least ? least : spec->interval_ns;
    return (unsigned)((spec->duration_ns + *interval_ns - 1) / *interval_ns);
}

static void grow_buffers(struct udp_test *test)
{
    int wanted = BUFFER_BYTES, plain = BUFFER_PLAIN, on = 1, granted = 0;
    socklen_t size = sizeof granted;
    for (unsigned i = 0; i < test->streams; i++) {
        if (!test->order->spec.window &&
            setsockopt(test->fds[i], SOL_SOCKET, SO_RCVBUFFORCE, &wanted, sizeof wanted) < 0)
            (void)setsockopt(test->fds[i], SOL_SOCKET, SO_RCVBUF, &plain, sizeof plain);
        (void)setsockopt(test->fds[i], SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
        (void)setsockopt(test->fds[i], SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on);
    }
    if (getsockopt(test->fds[0], SOL_SOCKET, SO_RCVBUF, &granted, &size) == 0)
        test->receiver->receive_buffer = (unsigned)granted;
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
    self->jitter = jitter_new();
    self->slice_count = slice_room(&test->order->spec, &self->interval_ns);
    self->slices = calloc(self->slice_count, sizeof *self->slices);
    if (!self->slices)
        abort();
    self->waiting_since_ns = self->first_feedback_ns = self->last_load_ns = now;
    self->kernel_stamps = true;
    self->phase = CONTROL_OMIT;
    grow_buffers(test);
    self->drops_begin = self->drops_now = socket_drops(test);
    for (unsigned i = 0; i < test->streams; i++)
        self->drops_omit[i] = drops_of(test->fds[i]);
    say_feedback(test, now);
}

// --------------------------------------------------------------------------------- load

static void into_slice(
    struct udp_receiver *self, uint64_t number, int64_t offset, size_t size, double d_s)
{
    size_t index = (size_t)(offset / self->interval_ns);
    if (index >= self->slice_count)
        index = self->slice_count - 1; // the last datagram may leave a moment late
    struct udp_slice *slice = &self->slices[index];
    if (!slice->any || number < slice->first_number)
        slice->first_number = number;
    slice->any = true;
    slice->received++;
    slice->bytes += size;
    if (!isnan(d_s)) {
        slice->jitter_sum_s += d_s;
        slice->jitter_count++;
    }
}

static void first_copy(
    struct udp_receiver *self, uint64_t number, int64_t offset, size_t size, int64_t arrived)
{
    double d_s = NAN;
    if (self->arrivals > 0) {
        int64_t gap = arrived - self->last_jitter_arrival_ns;
        d_s = fabs((double)(gap - (offset - self->last_offset_ns))) / 1e9;
    } else {
        self->first_arrival_ns = arrived;
        self->first_number = number;
    }
    if (arrived >= self->last_arrival_ns) {
        self->last_arrival_ns = arrived;
        self->last_number = number;
    }
    self->last_jitter_arrival_ns = arrived;
    self->last_offset_ns = offset;
    self->arrivals++;
    self->bytes += size;
    jitter_arrive(self->jitter, number, offset, arrived);
    into_slice(self, number, offset, size, d_s);
}

static bool over_limits(struct udp_test *test, int64_t now)
{
    struct udp_receiver *self = test->receiver;
    const struct probe_order *order = test->order;
    uint64_t slack = order->limit_bytes / 50 + 100000;
    if (order->limit_bytes && self->all_bytes > order->limit_bytes + slack)
        return true;
    if (order->limit_bps == 0 || now - self->rate_check_ns < NS_PER_S)
        return false;
    double seconds = (double)(now - self->rate_check_ns) / 1e9;
    double allowed = (double)order->limit_bps / 8 * seconds * 1.25 + 1e6;
    bool over =
        self->rate_check_ns > 0 && (double)(self->all_bytes - self->rate_check_bytes) > allowed;
    self->rate_check_ns = now;
    self->rate_check_bytes = self->all_bytes;
    return over;
}

static bool plausible(const struct udp_test *test, uint64_t number, int64_t offset_ns)
{
    const struct udp_receiver *self = test->receiver;
    if (offset_ns < 0 || offset_ns > test->order->spec.duration_ns + AHEAD_NS)
        return false;
    return number < (self->final_seen ? self->final.end_sequence : NUMBERS_MAX);
}

void udp_receiver_drops(struct udp_test *test, unsigned at, const uint8_t *header, uint32_t drops)
{
    if (header[2] & UDP_FLAG_OMIT)
        test->receiver->drops_omit[at] = drops;
}

void udp_receiver_load(struct udp_test *test, const uint8_t *header, size_t size,
    int64_t arrived_wall_ns, bool kernel, int64_t now)
{
    struct udp_receiver *self = test->receiver;
    uint64_t number, offset;
    memcpy(&number, header + 16, sizeof number);
    memcpy(&offset, header + 24, sizeof offset);
    number = be64toh(number);
    int64_t offset_ns = (int64_t)be64toh(offset);
    self->last_load_ns = now;
    if (!self->first_load_ns)
        self->first_load_ns = now;
    self->all_bytes += size;
    if (header[2] & UDP_FLAG_OMIT)
        return;
    if (!plausible(test, number, offset_ns)) {
        self->strangers++;
        return;
    }
    if (!self->window_open) {
        self->window_open = true;
        self->phase = CONTROL_WINDOW;
        udp_measure(test, true);
    }
    self->kernel_stamps = self->kernel_stamps && kernel;
    if (seqtrack_arrive(self->track, number) == SEQTRACK_NEW)
        first_copy(self, number, offset_ns, size, arrived_wall_ns);
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

// ---------------------------------------------------------------------------------- report

// The span that the whole range took: what was seen from the first to the last arrival, stretched
// to all numbers of the range, so that n datagrams count n gaps.
static double span_s(const struct udp_receiver *self)
{
    double seen = (double)(self->last_arrival_ns - self->first_arrival_ns) / 1e9;
    if (self->last_number <= self->first_number || seen <= 0)
        return (double)self->final.window_ns / 1e9;
    double numbers = (double)(self->last_number - self->first_number);
    return seen * (double)self->final.end_sequence / numbers;
}

static void report_slices(struct udp_test *test)
{
    struct udp_receiver *self = test->receiver;
    struct probe_receive *out = &test->report->receive;
    out->intervals = calloc(self->slice_count, sizeof *out->intervals);
    if (!out->intervals)
        abort();
    out->interval_count = self->slice_count;
    double total_s = (double)self->final.window_ns / 1e9, step_s = (double)self->interval_ns / 1e9;
    uint64_t next_first = self->final.end_sequence;
    size_t earliest = 0; // what is missing before the first arrival is missing in its interval
    while (earliest + 1 < self->slice_count && !self->slices[earliest].any)
        earliest++;
    for (size_t i = self->slice_count; i-- > 0;) {
        const struct udp_slice *slice = &self->slices[i];
        double start = (double)i * step_s;
        bool last = i + 1 == self->slice_count;
        double duration = last && total_s > start ? total_s - start : step_s;
        uint64_t first = i == earliest ? 0 : slice->first_number;
        uint64_t sent = slice->any && next_first > first ? next_first - first : 0;
        out->intervals[i] = (struct probe_interval){.start_s = start,
            .duration_s = duration,
            .bandwidth_bps = (double)slice->bytes * 8 / duration,
            .bytes = slice->bytes,
            .retransmits = PROBE_ABSENT,
            .sent = sent,
            .received = slice->received,
            .lost = sent > slice->received ? sent - slice->received : 0,
            .jitter_s =
                slice->jitter_count ? slice->jitter_sum_s / (double)slice->jitter_count : NAN};
        if (slice->any)
            next_first = first;
    }
}

static void report_counts(struct udp_test *test, struct probe_receive *out)
{
    struct udp_receiver *self = test->receiver;
    struct seqtrack_summary summary;
    seqtrack_finish(self->track, self->final.end_sequence, &summary);
    uint64_t expected = self->final.end_sequence - self->final.lost_sender;
    uint64_t missing = expected > summary.distinct ? expected - summary.distinct : 0;
    uint64_t drops = window_drops(test);
    out->packets_expected = expected;
    out->packets_received = summary.distinct;
    out->packets_lost_receiver = drops < missing ? drops : missing;
    out->packets_lost = missing;
    out->reordered = summary.reordered;
    out->duplicate = summary.duplicate;
    out->reorder_extent = summary.reorder_extent;
    out->loss_bursts = summary.bursts; // with gaps that never left the sender's host
    out->loss_burst_longest = summary.burst_longest;
}

void udp_receiver_report(struct udp_test *test)
{
    struct udp_receiver *self = test->receiver;
    struct probe_receive *out = &test->report->receive;
    test->report->has_receive = true;
    if (!self->final_seen)
        return;
    report_counts(test, out);
    out->bytes = self->bytes;
    out->duration_s = span_s(self);
    out->bandwidth_bps = out->duration_s > 0 ? (double)self->bytes * 8 / out->duration_s : 0;
    out->omitted_s = (double)testspec_omit_max_ns(&test->order->spec) / 1e9;
    out->jitter_s = jitter_mean_s(self->jitter);
    out->jitter_rfc3550_s = jitter_rfc3550_s(self->jitter);
    jitter_pdv(self->jitter, &out->pdv);
    jitter_ipdv(self->jitter, &out->ipdv);
    out->stamps = self->kernel_stamps ? "kernel" : "user";
    out->receive_buffer = self->receive_buffer;
    report_slices(test);
}

void udp_receiver_release(struct udp_receiver *receiver)
{
    seqtrack_destroy(&receiver->track);
    jitter_destroy(&receiver->jitter);
    free(receiver->slices);
}
