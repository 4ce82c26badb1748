// What the receiving end found out.

#include "udp_parts.h"

#include <math.h>
#include <stdlib.h>

#include "wire_rate.h"

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

// A range that ended before its time has fewer slices; what left a moment late is the last one's.
static void end_slices(struct udp_receiver *self)
{
    int64_t window_ns = self->final.window_ns, interval_ns = self->interval_ns; // as the peer says
    size_t count = window_ns <= 0 ? 0 : (size_t)((window_ns - 1) / interval_ns + 1);
    if (count == 0 || count >= self->slice_count)
        return;
    struct udp_slice *last = &self->slices[count - 1];
    for (size_t i = count; i < self->slice_count; i++) {
        const struct udp_slice *late = &self->slices[i];
        if (late->any && (!last->any || late->first_number < last->first_number))
            last->first_number = late->first_number;
        last->any = last->any || late->any;
        last->received += late->received;
        last->bytes += late->bytes;
        last->jitter_sum_s += late->jitter_sum_s;
        last->jitter_count += late->jitter_count;
    }
    self->slice_count = count;
}

static void report_slices(struct udp_test *test)
{
    struct udp_receiver *self = test->receiver;
    end_slices(self);
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

// Packets of the window that the sockets dropped: after the last one before it. The kernel's count
// beside a packet was taken when that was queued, however late it is read.
static uint64_t window_drops(const struct udp_test *test)
{
    const struct udp_receiver *self = test->receiver;
    uint64_t before = 0;
    for (unsigned i = 0; i < test->streams; i++)
        before += self->drops_omit[i];
    return self->drops_now > before ? self->drops_now - before : 0;
}

static uint64_t at_most(uint64_t value, uint64_t limit)
{
    return value < limit ? value : limit;
}

// The kernel counts a packet that the socket dropped as one, also if it is many datagrams. How many
// those were is told by the others: as many on the mean, and no more than a packet can hold.
static void split_loss(struct udp_test *test, uint64_t missing, struct probe_receive *out)
{
    const struct udp_receiver *self = test->receiver;
    uint64_t drops = window_drops(test), each = 1, most = 1;
    if (self->gro && self->length > 0) {
        if (self->packets > 0)
            each = (self->arrivals + self->packets / 2) / self->packets;
        most = UDP_PAYLOAD_MAX / self->length;
        if (each == 0)
            each = 1;
    }
    drops = at_most(drops, missing); // so that the products stay small
    out->packets_lost_receiver = at_most(drops * each, missing);
    uint64_t bound = at_most(drops * most, missing);
    if (bound > out->packets_lost_receiver)
        out->packets_lost_receiver_max = bound;
}

static void report_counts(struct udp_test *test, struct probe_receive *out)
{
    struct udp_receiver *self = test->receiver;
    struct seqtrack_summary summary;
    seqtrack_finish(self->track, self->final.end_sequence, &summary);
    uint64_t expected = self->final.end_sequence - self->final.lost_sender;
    uint64_t missing = expected > summary.distinct ? expected - summary.distinct : 0;
    out->packets_expected = expected;
    out->packets_received = summary.distinct;
    out->packets_lost = missing;
    split_loss(test, missing, out);
    out->reordered = summary.reordered;
    out->duplicate = summary.duplicate;
    out->reorder_extent = summary.reorder_extent;
    out->loss_bursts = summary.bursts; // with gaps that never left the sender's host
    out->loss_burst_longest = summary.burst_longest;
}

// Of what arrived, duplicates included, in the pieces that the sender made of it.
static void report_wire(struct udp_test *test, struct probe_receive *out)
{
    const struct udp_receiver *self = test->receiver;
    int fd = test->fds[0];
    if (self->length == 0)
        return;
    struct wire_traffic traffic = wire_of_datagrams(out->packets_received + out->duplicate,
        self->length, udp_is_six(fd) ? 6 : 4, (unsigned)at_most(self->final.path_mtu, UINT16_MAX));
    wire_rates(&traffic, out->duration_s, out);
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
    report_wire(test, out);
    out->bandwidth_bps = out->duration_s > 0 ? (double)self->bytes * 8 / out->duration_s : 0;
    out->omitted_s = (double)testspec_omit_max_ns(&test->order->spec) / 1e9;
    out->jitter_s = jitter_mean_s(self->jitter);
    out->jitter_rfc3550_s = jitter_rfc3550_s(self->jitter);
    jitter_pdv(self->jitter, &out->pdv);
    jitter_ipdv(self->jitter, &out->ipdv);
    out->stamps = self->kernel_stamps ? "kernel" : "user";
    out->receive_buffer = self->receive_buffer;
    report_slices(test);
    out->whole_bytes = self->all_bytes;
    out->whole_s = (double)(self->last_load_ns - self->first_load_ns) / 1e9;
    bucket_find(&self->bucket, self->last_load_ns - self->first_load_ns, &out->bucket);
    converge_report(&self->converge, &out->convergence);
}
