// What the kernel has counted at the receiving end, and the window between two looks at it.

#include "tcp_receive.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "clock.h"
#include "sctp_limits.h"
#include "tcpinfo.h"
#include "wire_rate.h"

// No association holds more unread than its buffer.
static uint64_t unread_most(const struct tcp_receiver *self)
{
    int bytes = 0;
    socklen_t size = sizeof bytes;
    getsockopt(self->flow->fds[0], SOL_SOCKET, SO_RCVBUF, &bytes, &size);
    return (uint64_t)bytes * self->flow->streams;
}

void tcp_receiver_sample(struct tcp_receiver *self)
{
    // Before the counters, which then have what was read in any case.
    uint64_t read = atomic_load(&self->crew.bytes);
    uint64_t bytes = 0, segments = 0, packets = 0, duplicates = 0, out_of_order = 0;
    int64_t before = clock_mono_ns();
    for (unsigned i = 0; i < self->flow->streams; i++) {
        struct tcp_counters counters;
        if (!tcp_flow_counters(self->flow, i, &counters))
            continue;
        bytes += counters.bytes_received;
        segments += counters.segments_in;
        packets += counters.packets_in;
        duplicates += counters.duplicates_in;
        out_of_order += counters.out_of_order_in;
        self->timestamps = counters.timestamps;
        self->piece = counters.mss;
        self->payload_max = counters.payload_max;
        if (!self->rtt_ns)
            self->rtt_ns = (int64_t)counters.rtt_us * NS_PER_US; // the handshake's
    }
    int64_t after = clock_mono_ns();
    self->sampled_ns = before + (after - before) / 2;
    if (self->flow->sctp)
        bytes = sctp_arrived(read, segments - self->base_segments,
            atomic_load(&self->crew.message_seen), self->piece, unread_most(self));
    if (bytes > self->bytes) {
        self->last_growth_ns = self->sampled_ns;
        self->bytes = bytes;
    }
    self->segments = segments;
    self->packets = packets;
    self->duplicates = duplicates;
    self->out_of_order = out_of_order;
}

void tcp_receiver_open(struct tcp_receiver *self)
{
    tcp_receiver_sample(self);
    tcp_crew_watch(&self->crew, self->cpu);
    cpu_watch_interface(self->cpu, self->report->record.interface);
    cpu_begin(self->cpu);
    self->phase = CONTROL_WINDOW;
    self->t0_ns = self->sampled_ns;
    self->t0_bytes = self->bytes;
    self->t0_segments = self->segments;
    self->t0_packets = self->packets;
    self->t0_duplicates = self->duplicates;
    self->t1_ns = self->t0_ns + self->flow->order->spec.duration_ns;
    tcp_intervals_begin(
        &self->intervals, self->t0_ns, self->t1_ns, self->interval_ns, self->t0_bytes);
    converge_begin(&self->converge, self->flow->order->spec.until);
    tcp_receiver_feedback(self);
}

static void keep_interval(struct tcp_receiver *self, const struct probe_interval *one)
{
    struct probe_receive *receive = &self->report->receive;
    if (receive->interval_count == self->interval_room) {
        self->interval_room = self->interval_room ? 2 * self->interval_room : 16;
        receive->intervals =
            realloc(receive->intervals, self->interval_room * sizeof *receive->intervals);
        if (!receive->intervals)
            abort();
    }
    receive->intervals[receive->interval_count++] = *one;
    if (self->flow->hooks->interval)
        self->flow->hooks->interval(self->flow->hooks->ctx, one);
}

void tcp_receiver_intervals(struct tcp_receiver *self)
{
    struct probe_interval one;
    while (tcp_intervals_next(&self->intervals, self->sampled_ns, self->bytes, &one))
        keep_interval(self, &one);
}

// What the window was on the wire: a connection's segments are packets; an association's packets
// carry chunks, each padded to a multiple of four.
static void report_wire(const struct tcp_receiver *self, double span_s)
{
    struct probe_receive *receive = &self->report->receive;
    unsigned ip = self->report->family == 6 ? WIRE_IPV6 : WIRE_IPV4;
    struct wire_traffic traffic = {
        .payload_bytes = receive->bytes, .packets = self->packets - self->t0_packets};
    if (self->flow->sctp) {
        unsigned message = atomic_load(&self->crew.message_seen);
        uint64_t again = self->duplicates - self->t0_duplicates;
        // What the sender's kernel segments late, in the card or behind a veth, counts as one
        // packet.
        uint64_t least = wire_packets_of_chunks(receive->segments + again, self->piece, message);
        if (traffic.packets < least)
            traffic.packets = least;
        traffic.packet_bytes = ip + WIRE_SCTP;
        traffic.extra_bytes = wire_of_chunks(receive->bytes, receive->segments, again, message);
    } else {
        traffic.packet_bytes = ip + WIRE_TCP + (self->timestamps ? WIRE_TCP_TIMESTAMPS : 0);
    }
    wire_rates(&traffic, span_s, receive);
}

// Since the load began, the omitted part included.
static void report_whole(const struct tcp_receiver *self)
{
    struct probe_receive *receive = &self->report->receive;
    receive->whole_bytes = self->bytes - self->base_bytes;
    receive->whole_s = (double)(self->sampled_ns - self->start_ns) * 1e-9;
    bucket_find(&self->bucket, INT64_MAX, &receive->bucket);
    converge_report(&self->converge, &receive->convergence);
}

static uint64_t window_bytes(const struct tcp_receiver *self)
{
    struct tcp_count from = {self->t0_bytes, self->t0_segments};
    struct tcp_count to = {self->bytes, self->segments};
    return self->flow->sctp ? to.bytes - from.bytes : tcp_arrived(&from, &to, self->payload_max);
}

void tcp_receiver_close(struct tcp_receiver *self)
{
    struct probe_receive *receive = &self->report->receive;
    beside_pause(self->flow->beside);
    cpu_end(self->cpu, &self->report->load);
    struct probe_interval last;
    tcp_receiver_intervals(self);
    if (tcp_intervals_last(&self->intervals, self->sampled_ns, self->bytes, &last))
        keep_interval(self, &last);
    double span_s = (double)(self->sampled_ns - self->t0_ns) * 1e-9;
    receive->bytes = window_bytes(self);
    tcp_intervals_correct(
        receive->intervals, receive->interval_count, self->bytes - self->t0_bytes - receive->bytes);
    receive->segments = self->segments - self->t0_segments;
    report_wire(self, span_s);
    report_whole(self);
    receive->duration_s = span_s;
    receive->omitted_s = (double)(self->t0_ns - self->start_ns) * 1e-9;
    receive->bandwidth_bps = 8.0 * (double)receive->bytes / span_s;
    if (self->queue_samples)
        receive->receive_queue_high = (double)self->queue_high / self->queue_samples;
    socklen_t size = sizeof receive->receive_buffer;
    getsockopt(self->flow->fds[0], SOL_SOCKET, SO_RCVBUF, &receive->receive_buffer, &size);
    snprintf(self->report->technique, sizeof self->report->technique, "%s%s",
        self->flow->sctp ? "recvmsg" : "recv MSG_TRUNC, SO_RCVLOWAT",
        self->crew.size > 1 ? ", several threads" : "");
    if (self->flow->sctp)
        receive->streams = tcp_crew_numbers_seen(&self->crew);
    self->report->has_receive = true;
    self->t1_bytes = self->bytes;
    self->done_ns = self->sampled_ns;
    self->phase = CONTROL_DONE;
    tcp_receiver_feedback(self);
}
