#include "tcp_parts.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "histogram.h"
#include "tcpinfo.h"

#define CHUNK (256 * 1024)
#define SCTP_MESSAGE (16 * 1024)
#define QUANTUM_NS (2 * NS_PER_MS) // a paced sender wakes this often
#define BURST_NS (50 * NS_PER_MS)  // what it may catch up on after a late wake-up
// The kernel smooths, the tokens below are exact. Of several streams one that lags must catch up.
#define PACING_ROOM_ONE 1.05
#define PACING_ROOM_MANY 3.0

struct sender {
    struct tcp_flow *flow;
    struct probe_report *report;
    cpu_t *cpu;
    histogram_t *rtt;
    int epoll_fd;
    uint8_t *chunk;
    bool *writable;
    unsigned next; // whose turn it is
    struct tcp_counters *begin, *now_counters;
    enum control_phase phase;
    bool started, window, over;
    int64_t created_ns, start_ns, last_feedback_ns, held_since_ns, stalled_ns, next_tick_ns;
    int64_t window_begin_ns, window_end_ns, done_ns;
    uint64_t sent_bytes, begin_bytes, rate_bps;
    double tokens; // bytes that may leave now
    int64_t tokens_at_ns;
};

static void fail(struct sender *self, const char *words)
{
    probe_report_fail(self->report, PROBE_FAILED, true, "%s", words);
    self->over = true;
}

// An association takes messages of one size only.
static size_t message_size(const struct sender *self)
{
    unsigned length = self->flow->order->spec.length;
    return length ? length : SCTP_MESSAGE;
}

static size_t quantum(const struct sender *self)
{
    if (self->flow->sctp)
        return message_size(self);
    double bytes = (double)self->rate_bps / 8e9 * (double)QUANTUM_NS;
    return bytes < 1400 ? 1400 : bytes > CHUNK ? CHUNK : (size_t)bytes;
}

static void refill(struct sender *self, int64_t now_ns)
{
    double per_ns = (double)self->rate_bps / 8e9;
    double most = per_ns * (double)BURST_NS;
    if (most < 2.0 * (double)quantum(self))
        most = 2.0 * (double)quantum(self);
    self->tokens += per_ns * (double)(now_ns - self->tokens_at_ns);
    if (self->tokens > most)
        self->tokens = most;
    self->tokens_at_ns = now_ns;
}

static void pace_streams(struct sender *self)
{
    if (!self->rate_bps)
        return;
    double room = self->flow->streams == 1 ? PACING_ROOM_ONE : PACING_ROOM_MANY;
    double share = (double)self->rate_bps / 8 / self->flow->streams * room;
    unsigned long pace = (unsigned long)share + 1;
    for (unsigned i = 0; i < self->flow->streams; i++)
        setsockopt(self->flow->fds[i], SOL_SOCKET, SO_MAX_PACING_RATE, &pace, sizeof pace);
}

// ------------------------------------------------------------------ the window's counters

static void read_counters(struct sender *self, struct tcp_counters *counters)
{
    for (unsigned i = 0; i < self->flow->streams; i++)
        tcp_flow_counters(self->flow, i, &counters[i]);
}

static void open_window(struct sender *self, int64_t now_ns)
{
    self->window = true;
    self->window_begin_ns = now_ns;
    self->begin_bytes = self->sent_bytes;
    read_counters(self, self->begin);
    cpu_begin(self->cpu);
}

static void tick(struct sender *self)
{
    struct probe_send *send = &self->report->send;
    read_counters(self, self->now_counters);
    for (unsigned i = 0; self->window && i < self->flow->streams; i++) {
        const struct tcp_counters *one = &self->now_counters[i];
        if (one->rtt_us)
            histogram_record(self->rtt, (int64_t)one->rtt_us * NS_PER_US);
        if (one->min_rtt_us && !(send->min_rtt_s <= one->min_rtt_us * 1e-6))
            send->min_rtt_s = one->min_rtt_us * 1e-6;
        if (send->cwnd_max == PROBE_ABSENT || one->cwnd > send->cwnd_max)
            send->cwnd_max = one->cwnd;
    }
}

static void report_rtt(const struct sender *self)
{
    const histogram_t *h = self->rtt;
    self->report->send.rtt_loaded = (struct probe_distribution){.count = histogram_count(h),
        .min_s = (double)histogram_min(h) * 1e-9,
        .mean_s = histogram_mean(h) * 1e-9,
        .p50_s = histogram_quantile(h, 0.5) * 1e-9,
        .p90_s = histogram_quantile(h, 0.9) * 1e-9,
        .p99_s = histogram_quantile(h, 0.99) * 1e-9,
        .p999_s = histogram_quantile(h, 0.999) * 1e-9,
        .max_s = (double)histogram_max(h) * 1e-9};
}

static void close_window(struct sender *self, int64_t now_ns)
{
    struct probe_send *send = &self->report->send;
    tick(self);
    cpu_end(self->cpu, &self->report->load);
    self->window_end_ns = now_ns;
    double span_s = (double)(now_ns - self->window_begin_ns) * 1e-9;
    double busy_us = 0, rwnd_us = 0, sndbuf_us = 0;
    send->bytes = send->retransmits = send->segments = 0;
    for (unsigned i = 0; i < self->flow->streams; i++) {
        const struct tcp_counters *from = &self->begin[i], *to = &self->now_counters[i];
        send->bytes += to->bytes_acked - from->bytes_acked;
        send->retransmits += to->retransmits - from->retransmits;
        send->segments += to->segments_out - from->segments_out;
        busy_us += (double)(to->busy_us - from->busy_us);
        rwnd_us += (double)(to->rwnd_limited_us - from->rwnd_limited_us);
        sndbuf_us += (double)(to->sndbuf_limited_us - from->sndbuf_limited_us);
    }
    // No count of what the peer acknowledged: what the associations took in stands for it.
    if (self->flow->sctp)
        send->bytes = self->sent_bytes - self->begin_bytes;
    double all_us = span_s * 1e6 * self->flow->streams;
    send->duration_s = span_s;
    if (span_s > 0)
        send->offered_bps = 8.0 * (double)send->bytes / span_s;
    if (all_us > 0 && !self->flow->sctp) {
        send->busy = fmin(busy_us / all_us, 1);
        send->receive_window_limited = fmin(rwnd_us / all_us, 1);
        send->send_buffer_limited = fmin(sndbuf_us / all_us, 1);
    }
    send->mss = self->now_counters[0].mss;
    send->path_mtu = self->now_counters[0].path_mtu;
    send->stalled_s = (double)self->stalled_ns * 1e-9;
    report_rtt(self);
    socklen_t size = sizeof send->congestion;
    if (!self->flow->sctp)
        getsockopt(self->flow->fds[0], IPPROTO_TCP, TCP_CONGESTION, send->congestion, &size);
    send->congestion[sizeof send->congestion - 1] = '\0';
    self->report->has_send = true;
}

// Load ends at once: what the socket buffers still hold is thrown away.
static void drop_load(struct sender *self)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    for (unsigned i = 0; i < self->flow->streams; i++) {
        setsockopt(self->flow->fds[i], SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close(self->flow->fds[i]);
        self->flow->fds[i] = -1;
    }
}

// ------------------------------------------------------------------ consent

static void finish_window(struct sender *self, int64_t now_ns)
{
    if (!self->window) {
        fail(self, "the receiver ended the test before its window began");
        return;
    }
    close_window(self, now_ns);
    self->done_ns = now_ns;
    drop_load(self);
    struct control final = {.type = CONTROL_FINAL,
        .phase = CONTROL_DONE,
        .bytes = self->report->send.bytes,
        .packets = self->report->send.segments,
        .window_ns = self->window_end_ns - self->window_begin_ns};
    if (tcp_link_send(self->flow, &final) < 0)
        fail(self, "the control connection broke at the end of the test");
}

static void hear(struct sender *self, const struct control *message, int64_t now_ns)
{
    if (message->type == CONTROL_ABORT) {
        fail(self, "the receiver gave up");
        return;
    }
    if (message->type != CONTROL_FEEDBACK || message->phase < self->phase)
        return;
    if (!self->started) {
        self->started = true;
        self->start_ns = self->tokens_at_ns = now_ns;
    }
    if (self->held_since_ns) {
        self->stalled_ns += now_ns - self->held_since_ns;
        self->held_since_ns = 0;
        self->tokens_at_ns = now_ns;
    }
    self->last_feedback_ns = now_ns;
    self->phase = message->phase;
    if (message->phase == CONTROL_WINDOW && !self->window)
        open_window(self, now_ns);
    if (message->phase == CONTROL_DONE && !self->done_ns)
        finish_window(self, now_ns);
    else if (message->final_seen)
        self->over = true;
}

static void listen_to_receiver(struct sender *self, int64_t now_ns)
{
    struct control message;
    int rc = 0;
    while (!self->over && (rc = tcp_link_read(self->flow, &message)) == 1)
        hear(self, &message, now_ns);
    if (self->over || rc == 0)
        return;
    if (rc == MESH_E_AUTH)
        fail(self, "a message on the control connection is not the receiver's");
    else if (self->done_ns)
        self->over = true; // the receiver has its count, and has gone
    else
        fail(self, "the receiver closed the control connection before the end");
}

static int64_t limit_ns(const struct sender *self)
{
    const struct probe_order *order = self->flow->order;
    int64_t most = testspec_omit_max_ns(&order->spec) + order->spec.duration_ns + 2 * NS_PER_S;
    return order->limit_ns > 0 && order->limit_ns < most ? order->limit_ns : most;
}

static void check_times(struct sender *self, int64_t now_ns)
{
    if (self->done_ns) {
        if (now_ns >= self->done_ns + TCP_FINAL_NS)
            fail(self, "the receiver did not confirm the final count");
        return;
    }
    if (!self->started) {
        if (now_ns >= self->created_ns + TCP_START_NS)
            fail(self, "the receiver did not give its consent to load within 5 s");
        return;
    }
    int64_t silent_ns = now_ns - self->last_feedback_ns;
    if (silent_ns >= CONTROL_SILENCE_NS && !self->held_since_ns)
        self->held_since_ns = now_ns;
    if (silent_ns >= CONTROL_GIVE_UP_NS)
        fail(self, "the receiver has been silent for 5 s");
    else if (now_ns >= self->start_ns + limit_ns(self) + NS_PER_S)
        fail(self, "the receiver did not end the test by its deadline");
}

// ------------------------------------------------------------------ load

static bool may_send(const struct sender *self, int64_t now_ns)
{
    uint64_t limit_bytes = self->flow->order->limit_bytes;
    return self->started && !self->done_ns && !self->held_since_ns && !self->over &&
           now_ns < self->start_ns + limit_ns(self) &&
           (!limit_bytes || self->sent_bytes < limit_bytes);
}

static size_t allowance(const struct sender *self)
{
    size_t size = self->flow->sctp ? message_size(self) : CHUNK;
    if (self->rate_bps) {
        size = quantum(self);
        if (self->tokens < (double)size)
            return 0;
    }
    uint64_t limit = self->flow->order->limit_bytes;
    if (limit && limit - self->sent_bytes < size)
        size = (size_t)(limit - self->sent_bytes);
    return size;
}

// One chunk on each stream in turn that takes one; false when there is nothing more to do now.
static bool send_round(struct sender *self)
{
    bool sent_any = false;
    for (unsigned i = 0; i < self->flow->streams; i++) {
        size_t size = allowance(self);
        unsigned stream = (self->next + i) % self->flow->streams;
        if (size == 0)
            break;
        if (!self->writable[stream])
            continue;
        ssize_t sent =
            send(self->flow->fds[stream], self->chunk, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        // Only a refusal promises an edge of EPOLLOUT; a short write does not.
        if (sent < 0 && errno == EAGAIN)
            self->writable[stream] = false;
        if (sent > 0) {
            self->sent_bytes += (uint64_t)sent;
            self->tokens -= (double)sent;
            sent_any = true;
        } else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            fail(self, "the receiver closed a load connection before the end");
            return false;
        }
    }
    self->next = (self->next + 1) % self->flow->streams;
    return sent_any;
}

static bool any_writable(const struct sender *self)
{
    for (unsigned i = 0; i < self->flow->streams; i++)
        if (self->writable[i])
            return true;
    return false;
}

static int64_t wake_at(const struct sender *self, int64_t now_ns)
{
    if (!may_send(self, now_ns) || !any_writable(self))
        return self->next_tick_ns;
    if (!self->rate_bps)
        return 0;
    double missing = (double)quantum(self) - self->tokens;
    if (missing <= 0)
        return 0;
    int64_t at = now_ns + (int64_t)(missing * 8e9 / (double)self->rate_bps) + 1;
    return at < self->next_tick_ns ? at : self->next_tick_ns;
}

static void handle(struct sender *self, const struct epoll_event *event, int64_t now_ns)
{
    if (self->over)
        return;
    if (event->data.u32 == TCP_EVENT_STOP) {
        probe_report_fail(self->report, PROBE_STOPPED, false, "stopped");
        self->over = true;
    } else if (event->data.u32 == TCP_EVENT_CONTROL) {
        listen_to_receiver(self, now_ns);
    } else if (!self->done_ns && event->events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) {
        // The receiver may have said why on the control connection.
        listen_to_receiver(self, now_ns);
        if (!self->over && !self->done_ns)
            fail(self, "the receiver closed a load connection before the end");
    } else {
        self->writable[event->data.u32] = true;
    }
}

static void turn(struct sender *self)
{
    struct epoll_event events[64];
    int64_t now = clock_mono_ns();
    int count = tcp_wait(self->epoll_fd, events, 64, wake_at(self, now));
    now = clock_mono_ns();
    for (int i = 0; i < count; i++)
        handle(self, &events[i], now);
    if (self->over)
        return;
    check_times(self, now);
    if (now >= self->next_tick_ns) {
        self->next_tick_ns = now + TCP_TICK_NS;
        if (!self->done_ns)
            tick(self);
    }
    if (self->rate_bps && self->started)
        refill(self, now);
    // A paced sender sends all it may; an unlimited one looks up after each round.
    while (may_send(self, now) && send_round(self) && self->rate_bps)
        continue;
}

static void release(struct sender *self)
{
    if (self->epoll_fd >= 0)
        close(self->epoll_fd);
    cpu_destroy(&self->cpu);
    histogram_destroy(&self->rtt);
    free(self->chunk);
    free(self->writable);
    free(self->begin);
    free(self->now_counters);
}

void tcp_send(struct tcp_flow *flow, struct probe_report *report)
{
    bool capped;
    struct sender self = {.flow = flow, .report = report, .created_ns = clock_mono_ns()};
    self.rate_bps = tcp_rate(flow->order, &capped);
    if (capped)
        report->send.capped_bps = self.rate_bps;
    self.cpu = cpu_new();
    cpu_watch(self.cpu, gettid());
    self.rtt = histogram_new();
    self.chunk = malloc(CHUNK);
    self.writable = calloc(flow->streams, sizeof *self.writable);
    self.begin = calloc(flow->streams, sizeof *self.begin);
    self.now_counters = calloc(flow->streams, sizeof *self.now_counters);
    if (!self.chunk || !self.writable || !self.begin || !self.now_counters)
        abort();
    ticket_random(self.chunk, CHUNK);
    pace_streams(&self);
    self.next_tick_ns = self.created_ns + TCP_TICK_NS;
    self.epoll_fd = tcp_watch(flow, EPOLLOUT | EPOLLRDHUP | EPOLLET);
    if (self.epoll_fd < 0)
        fail(&self, mesh_strerror(self.epoll_fd));
    while (!self.over)
        turn(&self);
    if (report->reason[0] == '\0')
        report->outcome = PROBE_OK;
    else
        tcp_link_send(flow, &(struct control){.type = CONTROL_ABORT});
    release(&self);
}
