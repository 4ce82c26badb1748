// The conversation of the sending end: consent, window, counters and the end. The load itself is
// moved by a crew (tcp_load.c).

#include "tcp_crew.h"

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
#include "converge.h"
#include "errors.h"
#include "histogram.h"
#include "sctp.h"
#include "tcpinfo.h"

// The kernel smooths, the tokens below are exact. Of several streams one that lags must catch up.
#define PACING_ROOM_ONE 1.05
#define PACING_ROOM_MANY 3.0
#define QUEUE_DELAY 1.5 // smoothed over smallest RTT: a queue stands on the path

struct sender {
    struct tcp_flow *flow;
    struct probe_report *report;
    cpu_t *cpu;
    histogram_t *rtt;
    int epoll_fd;
    struct tcp_crew crew;
    struct tcp_counters *begin, *now_counters;
    enum control_phase phase;
    bool started, window, over;
    int64_t created_ns, start_ns, last_feedback_ns, held_since_ns, stalled_ns, next_tick_ns;
    int64_t window_begin_ns, window_end_ns, done_ns;
    uint64_t begin_bytes, rate_bps;
    int64_t begin_blocked_ns;
    // With `until` only: what the receiver needs to know of the path.
    struct sawtooth *teeth; // one a stream
    int64_t next_path_ns;
    struct sctp_shares shares;       // of associations, in the window
    uint64_t looks, short_of_buffer; // at connections, in the window
};

static void fail(struct sender *self, const char *words)
{
    probe_report_fail(self->report, PROBE_FAILED, true, "%s", words);
    self->over = true;
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

// ------------------------------------------------------------------ the kernel's counters

static void read_counters(struct sender *self, struct tcp_counters *counters)
{
    for (unsigned i = 0; i < self->flow->streams; i++)
        tcp_flow_counters(self->flow, i, &counters[i]);
}

// ------------------------------------------------------------------ the path, for the receiver

static void watch_path(struct sender *self, int64_t now_ns)
{
    if (self->flow->order->spec.until <= 0)
        return;
    self->teeth = calloc(self->flow->streams, sizeof *self->teeth);
    if (!self->teeth)
        abort();
    for (unsigned i = 0; i < self->flow->streams; i++)
        sawtooth_begin(&self->teeth[i], self->begin[i].cwnd);
    self->next_path_ns = now_ns;
}

static void tell_path(struct sender *self, int64_t now_ns)
{
    struct control path = {.type = CONTROL_PATH, .phase = self->phase};
    for (unsigned i = 0; i < self->flow->streams; i++) {
        const struct tcp_counters *one = &self->now_counters[i];
        struct sawtooth *tooth = &self->teeth[i];
        int64_t rtt_ns = (int64_t)one->rtt_us * NS_PER_US;
        sawtooth_add(tooth, now_ns, one->cwnd);
        path.retransmits += one->retransmits - self->begin[i].retransmits;
        path.falls += tooth->falls;
        if (tooth->longest_ns > path.sawtooth_ns)
            path.sawtooth_ns = tooth->longest_ns;
        if (rtt_ns > path.rtt_ns)
            path.rtt_ns = rtt_ns;
    }
    if (now_ns < self->next_path_ns)
        return;
    self->next_path_ns = now_ns + CONVERGE_SAMPLE_NS - TCP_TICK_NS / 2;
    (void)tcp_link_send(self->flow, &path); // one that is lost costs a claim at most
}

// ------------------------------------------------------------------ the window

static void open_window(struct sender *self, int64_t now_ns)
{
    self->window = true;
    self->window_begin_ns = now_ns;
    tcp_load_settle(&self->crew);
    self->begin_bytes = atomic_load(&self->crew.bytes);
    self->begin_blocked_ns = atomic_load(&self->crew.blocked_ns);
    read_counters(self, self->begin);
    watch_path(self, now_ns);
    tcp_crew_watch(&self->crew, self->cpu);
    cpu_watch_interface(self->cpu, self->report->record.interface);
    cpu_begin(self->cpu);
}

static void look_at_associations(struct sender *self)
{
    struct sctp_standing standing;
    for (unsigned i = 0; self->window && self->flow->sctp && i < self->flow->streams; i++)
        if (sctp_standing_read(self->flow->fds[i], self->crew.message_bytes, &standing))
            sctp_shares_add(&self->shares, &standing);
}

// All that a send buffer holds is on its way, with room for more in the congestion window, no queue
// on the path that would hold it anyway, and nothing kept only because a loss is repaired. The
// kernel's clock for that (tcpi_sndbuf_limited) starts only where the program was refused before
// the last piece left, and mostly it was not.
static bool short_of_buffer(const struct tcp_counters *one)
{
    return one->unsent_bytes == 0 && one->in_flight > 0 && one->in_flight < one->cwnd &&
           one->behind_hole == 0 && one->rtt_us < one->min_rtt_us * QUEUE_DELAY;
}

static void look_at_connections(struct sender *self)
{
    for (unsigned i = 0; self->window && !self->flow->sctp && i < self->flow->streams; i++) {
        self->looks++;
        self->short_of_buffer += short_of_buffer(&self->now_counters[i]);
    }
}

// What the receiver has acknowledged in the window; of associations, what they took in.
static uint64_t window_bytes(const struct sender *self)
{
    uint64_t acked = 0;
    if (self->flow->sctp)
        return atomic_load(&self->crew.bytes) - self->begin_bytes;
    for (unsigned i = 0; i < self->flow->streams; i++)
        acked += self->now_counters[i].bytes_acked - self->begin[i].bytes_acked;
    return acked;
}

static void tick(struct sender *self)
{
    struct probe_send *send = &self->report->send;
    read_counters(self, self->now_counters);
    if (self->window)
        beside_goodput(self->flow->beside, window_bytes(self));
    look_at_associations(self);
    look_at_connections(self);
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

static void name_technique(struct sender *self)
{
    char messages[80] = "";
    const struct testspec *spec = &self->flow->order->spec;
    if (self->flow->sctp)
        snprintf(messages, sizeof messages, ", messages of %u on %u stream%s",
            self->crew.message_bytes, self->crew.stream_numbers,
            self->crew.stream_numbers < spec->streams ? "s, as many as were granted"
            : self->crew.stream_numbers > 1           ? "s"
                                                      : "");
    snprintf(self->report->technique, sizeof self->report->technique, "%s%s%s",
        tcp_load_technique(&self->crew), messages, self->crew.size > 1 ? ", several threads" : "");
}

static void report_associations(struct sender *self)
{
    struct probe_send *send = &self->report->send;
    // No count of what the peer acknowledged: what the associations took in stands for it.
    send->bytes = atomic_load(&self->crew.bytes) - self->begin_bytes;
    send->length = self->crew.message_bytes;
    send->busy = 1 - sctp_share(&self->shares, SCTP_LIMIT_IDLE);
    send->receive_window_limited = sctp_share(&self->shares, SCTP_LIMIT_WINDOW);
    send->send_buffer_limited = sctp_share(&self->shares, SCTP_LIMIT_BUFFER);
}

// By the looks, at most the time that no stream had room for more.
static double share_short_of_buffer(const struct sender *self)
{
    const struct probe_send *send = &self->report->send;
    double share = self->looks ? (double)self->short_of_buffer / (double)self->looks : 0;
    return fmin(share, send->blocked_s / send->duration_s);
}

static void close_window(struct sender *self, int64_t now_ns)
{
    struct probe_send *send = &self->report->send;
    tick(self);
    beside_pause(self->flow->beside);
    cpu_end(self->cpu, &self->report->load);
    self->window_end_ns = now_ns;
    double span_s = (double)(now_ns - self->window_begin_ns) * 1e-9;
    double busy_us = 0, rwnd_us = 0, sndbuf_us = 0;
    send->bytes = send->retransmits = send->segments = send->delivered_ce = 0;
    for (unsigned i = 0; i < self->flow->streams; i++) {
        const struct tcp_counters *from = &self->begin[i], *to = &self->now_counters[i];
        send->bytes += to->bytes_acked - from->bytes_acked;
        send->retransmits += to->retransmits - from->retransmits;
        send->segments += to->segments_out - from->segments_out;
        send->delivered_ce += to->delivered_ce - from->delivered_ce;
        busy_us += (double)(to->busy_us - from->busy_us);
        rwnd_us += (double)(to->rwnd_limited_us - from->rwnd_limited_us);
        sndbuf_us += (double)(to->sndbuf_limited_us - from->sndbuf_limited_us);
    }
    if (self->flow->sctp)
        report_associations(self);
    double all_us = span_s * 1e6 * self->flow->streams;
    send->duration_s = span_s;
    int64_t blocked_ns = atomic_load(&self->crew.blocked_ns) - self->begin_blocked_ns;
    send->blocked_s = fmin((double)blocked_ns * 1e-9 / self->crew.size, span_s);
    if (span_s > 0)
        send->offered_bps = 8.0 * (double)send->bytes / span_s;
    if (all_us > 0 && !self->flow->sctp) {
        send->busy = fmin(busy_us / all_us, 1);
        send->receive_window_limited = fmin(rwnd_us / all_us, 1);
        send->send_buffer_limited = fmin(fmax(sndbuf_us / all_us, share_short_of_buffer(self)), 1);
    }
    name_technique(self);
    send->mss = self->now_counters[0].mss;
    send->path_mtu = self->now_counters[0].path_mtu;
    send->stalled_s = (double)self->stalled_ns * 1e-9;
    probe_distribution_of(self->rtt, &send->rtt_loaded);
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
    tcp_crew_end(&self->crew);
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

static int64_t limit_ns(const struct sender *self)
{
    const struct probe_order *order = self->flow->order;
    int64_t most = testspec_omit_max_ns(&order->spec) + order->spec.duration_ns + 2 * NS_PER_S;
    return order->limit_ns > 0 && order->limit_ns < most ? order->limit_ns : most;
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
        self->start_ns = now_ns;
        atomic_store(&self->crew.until_mono_ns, now_ns + limit_ns(self));
    }
    if (self->held_since_ns) {
        self->stalled_ns += now_ns - self->held_since_ns;
        self->held_since_ns = 0;
    }
    self->last_feedback_ns = now_ns;
    self->phase = message->phase;
    if (self->phase != CONTROL_DONE)
        tcp_crew_order(&self->crew, TCP_CREW_GO);
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
    if (silent_ns >= CONTROL_SILENCE_NS && !self->held_since_ns) {
        self->held_since_ns = now_ns;
        tcp_crew_order(&self->crew, TCP_CREW_PAUSE);
    }
    if (silent_ns >= CONTROL_GIVE_UP_NS)
        fail(self, "the receiver has been silent for 5 s");
    else if (now_ns >= self->start_ns + limit_ns(self) + NS_PER_S)
        fail(self, "the receiver did not end the test by its deadline");
}

// ------------------------------------------------------------------ the loop

static void handle(struct sender *self, uint32_t event, int64_t now_ns)
{
    if (self->over)
        return;
    if (event == TCP_EVENT_STOP) {
        probe_report_fail(self->report, PROBE_STOPPED, false, "stopped");
        self->over = true;
    } else {
        // The crew's news is that a stream broke; the receiver may have said why.
        listen_to_receiver(self, now_ns);
        if (!self->over && !self->done_ns && atomic_load(&self->crew.closed) > 0)
            fail(self, "the receiver closed a load connection before the end");
    }
}

static void turn(struct sender *self)
{
    struct epoll_event events[4];
    int count = tcp_wait(self->epoll_fd, events, 4, self->next_tick_ns);
    int64_t now = clock_mono_ns();
    for (int i = 0; i < count; i++)
        handle(self, events[i].data.u32, now);
    if (self->over)
        return;
    check_times(self, now);
    if (now < self->next_tick_ns)
        return;
    self->next_tick_ns = now + TCP_TICK_NS;
    if (!self->done_ns)
        tick(self);
    if (!self->done_ns && self->teeth)
        tell_path(self, now);
}

static void release(struct sender *self)
{
    tcp_crew_end(&self->crew);
    if (self->epoll_fd >= 0)
        close(self->epoll_fd);
    cpu_destroy(&self->cpu);
    histogram_destroy(&self->rtt);
    free(self->teeth);
    free(self->begin);
    free(self->now_counters);
}

// False after having said why.
static bool plan_messages(struct sender *self)
{
    const struct testspec *spec = &self->flow->order->spec;
    int first = self->flow->fds[0];
    self->crew.message_bytes =
        spec->length ? spec->length : sctp_message_default(first, self->rate_bps);
    self->crew.stream_numbers = spec->streams;
    for (unsigned i = 0; i < self->flow->streams; i++) {
        unsigned granted = sctp_streams_granted(self->flow->fds[i]);
        if (granted && granted < self->crew.stream_numbers)
            self->crew.stream_numbers = granted;
    }
    if (self->crew.message_bytes <= sctp_send_buffer(first))
        return true;
    probe_report_fail(self->report, PROBE_FAILED, false,
        "the send buffer of %u bytes cannot take messages of %u bytes (--window, "
        "net.core.wmem_max)",
        sctp_send_buffer(first), self->crew.message_bytes);
    self->over = true;
    return false;
}

static bool start_crew(struct sender *self)
{
    self->crew.rate_bps = self->rate_bps;
    self->crew.limit_bytes = self->flow->order->limit_bytes;
    // A paced sender's pieces are small.
    atomic_store(&self->crew.settled, self->rate_bps > 0 || self->flow->sctp);
    // One thread keeps a rate exactly, several would keep their parts of it.
    unsigned size = self->rate_bps ? 1 : tcp_crew_size(self->flow->streams);
    return tcp_crew_start(&self->crew, self->flow, size, tcp_load);
}

static void begin(struct sender *self)
{
    if (!start_crew(self))
        fail(self, "no thread for the load");
    else if ((self->epoll_fd = tcp_watch(self->flow, self->crew.news_fd)) < 0)
        fail(self, mesh_strerror(self->epoll_fd));
}

static void prepare(struct sender *self)
{
    bool capped;
    self->rate_bps = tcp_rate(self->flow->order, &capped);
    if (capped)
        self->report->send.capped_bps = self->rate_bps;
    self->cpu = cpu_new();
    cpu_watch(self->cpu, gettid());
    self->rtt = histogram_new();
    self->begin = calloc(self->flow->streams, sizeof *self->begin);
    self->now_counters = calloc(self->flow->streams, sizeof *self->now_counters);
    if (!self->begin || !self->now_counters)
        abort();
    pace_streams(self);
    self->next_tick_ns = self->created_ns + TCP_TICK_NS;
    self->epoll_fd = -1;
}

void tcp_send(struct tcp_flow *flow, struct probe_report *report)
{
    struct sender self = {.flow = flow, .report = report, .created_ns = clock_mono_ns()};
    prepare(&self);
    if (!flow->sctp || plan_messages(&self))
        begin(&self);
    while (!self.over)
        turn(&self);
    if (report->reason[0] == '\0')
        report->outcome = PROBE_OK;
    else
        tcp_link_send(flow, &(struct control){.type = CONTROL_ABORT});
    release(&self);
}
