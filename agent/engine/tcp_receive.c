// The conversation of the receiving end: consent, when the window begins and ends, limits and the
// end. The load is read by a crew (tcp_drain.c).

#include "tcp_receive.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "tcpinfo.h"

#define LOWAT_MAX (1024 * 1024)
#define LOWAT_NS (4 * NS_PER_MS) // kept under 5 ms of the rate
#define SILENT_NS (5 * NS_PER_S)
#define LINGER_NS (200 * NS_PER_MS) // for what drains after the final count
#define GLANCE_NS (10 * NS_PER_MS)  // between samples while a burst may pass
#define GLANCES_NS (500 * NS_PER_MS)

static void fail(struct tcp_receiver *self, bool retry, const char *words)
{
    probe_report_fail(self->report, PROBE_FAILED, retry, "%s", words);
    self->over = true;
}

void tcp_receiver_feedback(struct tcp_receiver *self)
{
    struct control message = {.type = CONTROL_FEEDBACK,
        .phase = self->phase,
        .final_seen = self->final_seen,
        .bytes = self->bytes - self->base_bytes};
    self->next_feedback_ns = clock_mono_ns() + CONTROL_FEEDBACK_NS;
    int rc = tcp_link_send(self->flow, &message);
    if (rc < 0 && rc != -EAGAIN && !self->final_seen)
        fail(self, true, "the sender closed the control connection before the end");
}

// ------------------------------------------------------------------ where the window begins

static bool omits_by_itself(const struct tcp_receiver *self)
{
    return self->phase == CONTROL_OMIT && self->flow->order->spec.omit_ns < 0;
}

static bool slow_start_over(struct tcp_receiver *self)
{
    return tcp_ramp_over(&self->ramp, self->sampled_ns, self->bytes, self->out_of_order,
        TCP_TICK_NS - NS_PER_MS, self->rtt_ns);
}

// When what was asked to be omitted is over.
static int64_t window_due_ns(const struct tcp_receiver *self)
{
    bool asked = self->phase == CONTROL_OMIT && !omits_by_itself(self);
    return asked ? self->start_ns + self->flow->order->spec.omit_ns : INT64_MAX;
}

// ------------------------------------------------------------------ limits and deadlines

static void check_limits(struct tcp_receiver *self)
{
    const struct probe_order *order = self->flow->order;
    uint64_t bytes = self->bytes - self->base_bytes;
    if (self->phase == CONTROL_DONE || !self->start_ns)
        return;
    double elapsed_s = (double)(self->sampled_ns - self->start_ns) * 1e-9;
    double most = ((double)order->limit_bps / 8) * (1.1 * elapsed_s + 0.2) + (4 << 20);
    if (order->limit_bps && (double)bytes > most) {
        fail(self, false, "the sender exceeds the rate that its ticket allows");
        return;
    }
    bool volume = order->limit_bytes && bytes >= order->limit_bytes;
    bool time = order->limit_ns > 0 && self->sampled_ns >= self->start_ns + order->limit_ns;
    if (!volume && !time)
        return;
    const char *what = volume ? "volume" : "time";
    if (self->phase != CONTROL_WINDOW || self->sampled_ns <= self->t0_ns) {
        probe_report_fail(self->report, PROBE_FAILED, false,
            "the %s that the ticket allows was used up before the window began", what);
        self->over = true;
        return;
    }
    snprintf(self->report->reason, sizeof self->report->reason,
        "ended early: the %s that the ticket allows was used up", what);
    self->report->outcome = PROBE_OK;
    tcp_receiver_close(self);
}

static void check_silence(struct tcp_receiver *self, int64_t now_ns)
{
    if (self->done_ns) {
        if (self->final_seen && (atomic_load(&self->crew.closed) == self->flow->streams ||
                                    now_ns >= self->final_ns + LINGER_NS))
            self->over = true;
        else if (!self->final_seen && now_ns >= self->done_ns + TCP_FINAL_NS)
            fail(self, true, "the sender vanished before its final count");
    } else if (!self->start_ns) {
        if (now_ns >= self->created_ns + TCP_START_NS)
            fail(self, true, "no load arrived within 5 s");
    } else if (now_ns >= self->last_growth_ns + SILENT_NS) {
        fail(self, true, "the sender has been silent for 5 s");
    }
}

// ------------------------------------------------------------------ reading

static void adapt_lowat(struct tcp_receiver *self)
{
    double span_ns = (double)(self->sampled_ns - self->tick_ns);
    if (span_ns <= 0 || self->flow->sctp)
        return;
    double rate = (double)(self->bytes - self->tick_bytes) / span_ns / self->flow->streams;
    double wanted = rate * (double)LOWAT_NS;
    unsigned lowat = self->done_ns || wanted < 1 ? 1
                     : wanted > LOWAT_MAX        ? LOWAT_MAX
                                                 : (unsigned)wanted;
    // A change under a third is not worth a system call a stream.
    if (lowat < self->lowat + self->lowat / 3 && lowat > self->lowat - self->lowat / 3)
        return;
    self->lowat = lowat;
    for (unsigned i = 0; i < self->flow->streams; i++)
        setsockopt(self->flow->fds[i], SOL_SOCKET, SO_RCVLOWAT, &lowat, sizeof lowat);
}

static void look_at_queue(struct tcp_receiver *self)
{
    uint32_t memory[SK_MEMINFO_VARS];
    socklen_t size = sizeof memory;
    if (getsockopt(self->flow->fds[0], SOL_SOCKET, SO_MEMINFO, memory, &size) < 0)
        return;
    self->queue_samples++;
    self->queue_high += memory[SK_MEMINFO_RMEM_ALLOC] > memory[SK_MEMINFO_RCVBUF] / 2;
}

static void begin_load(struct tcp_receiver *self, int64_t now_ns)
{
    self->start_ns = now_ns;
    tcp_ramp_begin(&self->ramp, now_ns, self->base_bytes,
        now_ns + testspec_omit_max_ns(&self->flow->order->spec));
    self->phase = CONTROL_OMIT;
    self->next_tick_ns = self->next_glance_ns = now_ns;
    bucket_begin(&self->bucket);
}

// The first load has come, or a stream has ended.
static void hear_crew(struct tcp_receiver *self)
{
    uint64_t count;
    (void)!read(self->crew.news_fd, &count, sizeof count);
    int64_t first = atomic_load(&self->crew.first_mono_ns);
    if (first && !self->start_ns)
        begin_load(self, first);
    if (atomic_load(&self->crew.closed) > 0 && !self->done_ns)
        fail(self, true, "the sender closed a load connection before the end");
}

static void listen_to_sender(struct tcp_receiver *self)
{
    struct control message;
    int rc = 0;
    while (!self->over && (rc = tcp_link_read(self->flow, &message)) == 1) {
        if (message.type == CONTROL_ABORT)
            fail(self, true, "the sender gave up");
        if (message.type == CONTROL_PATH)
            self->path = (struct converge_path){.known = true,
                .retransmitted = message.retransmits > 0,
                .reduced = message.falls > 0,
                .rtt_ns = message.rtt_ns,
                .sawtooth_ns = message.sawtooth_ns};
        if (message.type == CONTROL_FINAL && self->done_ns && !self->final_seen) {
            self->final_seen = true;
            self->final_ns = clock_mono_ns();
            tcp_receiver_feedback(self);
        }
    }
    if (rc == MESH_E_AUTH)
        fail(self, false, "a message on the control connection is not the sender's");
    else if (rc < 0 && self->final_seen)
        self->over = true;
    else if (rc < 0)
        fail(self, true, "the sender closed the control connection before the end");
}

// ------------------------------------------------------------------ the loop

static int64_t wake_at(const struct tcp_receiver *self)
{
    int64_t at =
        self->next_feedback_ns < self->next_tick_ns ? self->next_feedback_ns : self->next_tick_ns;
    if (self->next_glance_ns && self->next_glance_ns < at)
        at = self->next_glance_ns;
    if (self->phase == CONTROL_WINDOW && self->intervals.due_ns < at)
        at = self->intervals.due_ns;
    if (window_due_ns(self) < at)
        at = window_due_ns(self);
    return at;
}

// A point of the load's beginning, where a token bucket's burst may pass in a few milliseconds.
static void glance(struct tcp_receiver *self, int64_t now_ns)
{
    tcp_receiver_sample(self);
    bucket_add(&self->bucket, self->sampled_ns - self->start_ns, self->bytes - self->base_bytes);
    self->next_glance_ns = now_ns < self->start_ns + GLANCES_NS ? now_ns + GLANCE_NS : 0;
}

// True if the window may end now, by what has arrived in it.
static bool settled(struct tcp_receiver *self)
{
    bool due = converge_progress(
        &self->converge, self->sampled_ns - self->t0_ns, self->bytes - self->t0_bytes);
    beside_goodput(self->flow->beside, self->bytes - self->t0_bytes);
    return due && converge_look(&self->converge, &self->path);
}

static void tick(struct tcp_receiver *self, int64_t now_ns)
{
    tcp_receiver_sample(self);
    // The first message may take a while to be whole.
    if (!self->start_ns && self->bytes > self->base_bytes)
        begin_load(self, self->sampled_ns);
    if (self->start_ns)
        bucket_add(
            &self->bucket, self->sampled_ns - self->start_ns, self->bytes - self->base_bytes);
    adapt_lowat(self);
    if (self->phase == CONTROL_WINDOW)
        look_at_queue(self);
    bool detected = omits_by_itself(self) && slow_start_over(self);
    self->tick_bytes = self->bytes;
    self->tick_ns = self->sampled_ns;
    self->next_tick_ns = now_ns + TCP_TICK_NS;
    check_limits(self);
    if (detected && !self->over)
        tcp_receiver_open(self);
    else if (self->phase == CONTROL_WINDOW && !self->over && settled(self))
        tcp_receiver_close(self);
}

static void keep_time(struct tcp_receiver *self)
{
    int64_t now = clock_mono_ns();
    if (self->next_glance_ns && now >= self->next_glance_ns)
        glance(self, now);
    if (now >= self->next_tick_ns)
        tick(self, now);
    if (!self->over && now >= window_due_ns(self))
        tcp_receiver_open(self);
    if (!self->over && self->phase == CONTROL_WINDOW && now >= self->intervals.due_ns) {
        tcp_receiver_sample(self);
        if (self->sampled_ns >= self->t1_ns)
            tcp_receiver_close(self);
        else
            tcp_receiver_intervals(self);
    }
    if (!self->over && now >= self->next_feedback_ns)
        tcp_receiver_feedback(self);
}

static void turn(struct tcp_receiver *self)
{
    struct epoll_event events[4];
    int count = tcp_wait(self->epoll_fd, events, 4, wake_at(self));
    // Time first: a sample must not wait.
    keep_time(self);
    for (int i = 0; i < count && !self->over; i++) {
        uint32_t event = events[i].data.u32;
        if (event == TCP_EVENT_STOP) {
            probe_report_fail(self->report, PROBE_STOPPED, false, "stopped");
            self->over = true;
        } else if (event == TCP_EVENT_CONTROL) {
            listen_to_sender(self);
        } else {
            hear_crew(self);
        }
    }
    if (!self->over)
        check_silence(self, clock_mono_ns());
}

static void prepare(struct tcp_receiver *self)
{
    const struct testspec *spec = &self->flow->order->spec;
    self->interval_ns = spec->interval_ns > 0 ? spec->interval_ns : NS_PER_S;
    if (self->interval_ns < spec->duration_ns / TESTSPEC_INTERVALS_MAX)
        self->interval_ns = spec->duration_ns / TESTSPEC_INTERVALS_MAX + 1;
    self->lowat = 1;
    self->epoll_fd = -1;
    self->cpu = cpu_new();
    cpu_watch(self->cpu, gettid());
    tcp_receiver_sample(self);
    if (self->flow->sctp) { // what has come by now was the handshake
        self->base_segments = self->segments;
        self->bytes = 0;
    }
    self->base_bytes = self->tick_bytes = self->bytes;
    self->tick_ns = self->last_growth_ns = self->sampled_ns;
    self->next_tick_ns = self->created_ns + TCP_TICK_NS;
}

static bool start_crew(struct tcp_receiver *self)
{
    unsigned size = tcp_crew_size(self->flow->streams);
    if (!tcp_crew_start(&self->crew, self->flow, size, tcp_drain))
        return false;
    tcp_crew_order(&self->crew, TCP_CREW_GO);
    return true;
}

static void release(struct tcp_receiver *self)
{
    tcp_crew_end(&self->crew);
    if (self->epoll_fd >= 0)
        close(self->epoll_fd);
    cpu_destroy(&self->cpu);
}

void tcp_receive(struct tcp_flow *flow, struct probe_report *report)
{
    struct tcp_receiver self = {.flow = flow, .report = report, .created_ns = clock_mono_ns()};
    prepare(&self);
    if (!start_crew(&self))
        fail(&self, true, "no thread for the load");
    else if ((self.epoll_fd = tcp_watch(flow, self.crew.news_fd)) < 0)
        fail(&self, false, mesh_strerror(self.epoll_fd));
    else
        tcp_receiver_feedback(&self); // consent
    while (!self.over)
        turn(&self);
    tcp_receiver_sample(&self);
    if (self.done_ns && self.bytes >= self.t1_bytes)
        report->receive.drained_bytes = self.bytes - self.t1_bytes;
    if (report->reason[0] == '\0')
        report->outcome = PROBE_OK;
    if (report->outcome != PROBE_OK)
        tcp_link_send(flow, &(struct control){.type = CONTROL_ABORT});
    release(&self);
}
