#include "udp_flow.h"

#include <endian.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "pacer.h"
#include "tcp_parts.h"

#define BATCH 64
#define TICK_NS (10 * NS_PER_MS)
#define FINAL_EVERY_NS (50 * NS_PER_MS)
#define MAX_START_BPS 200e6 // where the search for the greatest rate begins
#define REFUSALS_MAX 10

struct sender {
    struct udp_flow *flow;
    struct probe_report *report;
    struct pacer pacer;
    cpu_t *cpu;
    double rate_bps;
    bool search, searching_fast; // -b max
    bool omitting, over, final_seen;
    int64_t created_ns, last_feedback_ns, start_ns, window_ns, held_since_ns, end_ns;
    int64_t next_tick_ns;
    uint64_t sequence, sent, lost_sender, all_bytes, drops_seen;
    unsigned next_stream, refusals;
    double stalled_s, blocked_s;
    uint8_t *payload; // what follows the header, the same in all
    uint8_t headers[BATCH][UDP_HEADER];
    struct iovec iov[BATCH][2];
    struct mmsghdr messages[BATCH];
};

static void fail(struct sender *self, const char *reason)
{
    probe_report_fail(self->report, PROBE_FAILED, true, "%s", reason);
    self->over = true;
}

// ------------------------------------------------------------------ what the receiver says

static void adapt(struct sender *self, uint64_t drops, int64_t now_ns)
{
    if (!self->search)
        return;
    bool lossy = drops > self->drops_seen, capped;
    self->drops_seen = drops;
    if (lossy)
        self->searching_fast = false;
    double rate = self->rate_bps * (lossy ? 0.85 : self->searching_fast ? 1.6 : 1.02);
    double most = (double)tcp_rate(self->flow->order, &capped);
    if (most > 0 && rate > most)
        rate = most;
    self->rate_bps = rate;
    pacer_set_rate(&self->pacer, now_ns, self->flow->length, rate);
}

static void hear(struct sender *self, const struct control *message, int64_t now_ns)
{
    if (message->type == CONTROL_ABORT) {
        fail(self, "the receiver ended the test");
        return;
    }
    if (message->type != CONTROL_FEEDBACK)
        return;
    self->last_feedback_ns = now_ns;
    self->refusals = 0;
    self->final_seen = self->final_seen || message->final_seen;
    if (self->held_since_ns) {
        self->stalled_s += (double)(now_ns - self->held_since_ns) / 1e9;
        self->held_since_ns = 0;
        pacer_set_rate(&self->pacer, now_ns, self->flow->length, self->rate_bps);
    }
    if (self->start_ns && !self->end_ns)
        adapt(self, message->drops_receiver, now_ns);
}

static void read_control(struct sender *self, int64_t now_ns)
{
    uint8_t bytes[CONTROL_SIZE + 1];
    struct control message;
    // A flood of strange datagrams must not keep the sender here.
    for (int i = 0; i < 32 && !self->over; i++) {
        ssize_t got = recv(self->flow->fds[0], bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0 && errno == ECONNREFUSED)
            self->refusals++;
        else if (got < 0)
            break;
        else if (udp_control_check(self->flow, bytes, (size_t)got, &message))
            hear(self, &message, now_ns);
    }
    for (unsigned i = 0; i < self->flow->streams; i++) {
        struct msghdr error = {0};
        for (int k = 0; k < 16; k++)
            if (recvmsg(self->flow->fds[i], &error, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
                break;
    }
}

static void check_silence(struct sender *self, int64_t now_ns)
{
    int64_t silent_ns = now_ns - self->last_feedback_ns;
    if (silent_ns >= CONTROL_SILENCE_NS && !self->held_since_ns)
        self->held_since_ns = now_ns;
    if (silent_ns >= CONTROL_GIVE_UP_NS)
        fail(self, "the receiver has been silent for 5 s");
    else if (self->refusals >= REFUSALS_MAX && silent_ns >= 3 * CONTROL_FEEDBACK_NS)
        fail(self, "the receiver has closed its port");
}

static void tick(struct sender *self, int64_t now_ns)
{
    self->next_tick_ns = now_ns + TICK_NS;
    if (udp_stopped(self->flow)) {
        probe_report_fail(self->report, PROBE_STOPPED, false, "stopped");
        self->over = true;
        return;
    }
    read_control(self, now_ns);
    // After the window send_final has a deadline of its own.
    if (!self->over && self->start_ns && !self->end_ns)
        check_silence(self, now_ns);
}

// ------------------------------------------------------------------ load

static void fill(struct sender *self, unsigned count, unsigned stream, int64_t now_ns)
{
    const struct probe_order *order = self->flow->order;
    uint64_t at = htobe64((uint64_t)(now_ns - self->window_ns));
    for (unsigned i = 0; i < count; i++) {
        uint8_t *header = self->headers[i];
        uint64_t number = htobe64(self->sequence + i);
        header[0] = UDP_LOAD;
        header[1] = (uint8_t)stream;
        header[2] = self->omitting ? UDP_OMIT : 0;
        memcpy(header + 4, order->keys.load_tag[order->connects ? 0 : 1], 12);
        memcpy(header + 16, &number, 8);
        memcpy(header + 24, &at, 8);
        self->iov[i][1].iov_len = self->flow->length - UDP_HEADER;
    }
}

static void count_departed(struct sender *self, unsigned count, bool left)
{
    pacer_departed(&self->pacer, count);
    if (left)
        self->all_bytes += (uint64_t)count * self->flow->length;
    if (self->omitting)
        return;
    self->sequence += count;
    if (left)
        self->sent += count;
    else
        self->lost_sender += count;
}

static void wait_for_room(struct sender *self, int fd)
{
    int64_t before = clock_mono_ns();
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    poll(&room, 1, 10);
    self->blocked_s += (double)(clock_mono_ns() - before) / 1e9;
}

static void send_some(struct sender *self, unsigned count, int64_t now_ns)
{
    unsigned stream = self->next_stream++ % self->flow->streams;
    int fd = self->flow->fds[stream];
    fill(self, count, stream, now_ns);
    int sent = sendmmsg(fd, self->messages, count, MSG_DONTWAIT);
    if (sent > 0)
        count_departed(self, (unsigned)sent, true);
    else if (errno == EAGAIN)
        wait_for_room(self, fd);
    else if (errno == ENOBUFS)
        count_departed(self, 1, false);
    else if (errno == ECONNREFUSED || errno == EINTR)
        self->refusals += errno == ECONNREFUSED;
    else if (errno == EMSGSIZE)
        fail(self, "the path does not take datagrams of this length");
    else
        fail(self, strerror(errno));
}

static void begin_window(struct sender *self, int64_t now_ns)
{
    self->omitting = false;
    self->window_ns = now_ns;
    self->stalled_s = self->blocked_s = 0;
    cpu_begin(self->cpu);
    pacer_set_rate(&self->pacer, now_ns, self->flow->length, self->rate_bps);
}

static void start(struct sender *self, int64_t now_ns)
{
    int64_t omit_ns = self->flow->order->spec.omit_ns;
    self->start_ns = now_ns;
    self->window_ns = now_ns + (omit_ns > 0 ? omit_ns : 0);
    self->omitting = omit_ns > 0;
    pacer_start(&self->pacer, now_ns, self->flow->length, self->rate_bps);
    if (!self->omitting)
        begin_window(self, now_ns);
}

static bool window_is_over(const struct sender *self, int64_t now_ns)
{
    const struct probe_order *order = self->flow->order;
    int64_t end = self->window_ns + order->spec.duration_ns;
    if (order->limit_bytes && self->all_bytes + self->flow->length > order->limit_bytes)
        return true;
    if (order->limit_ns > 0 && now_ns >= self->start_ns + order->limit_ns)
        return true;
    if (self->omitting)
        return false;
    // What was due within the window may leave a little after it.
    return now_ns >= end + self->pacer.burst_ns ||
           (now_ns >= end && pacer_due(&self->pacer) >= end);
}

// How many datagrams may leave now: due, within the window and within the ticket's volume.
static unsigned allowance(struct sender *self, int64_t now_ns)
{
    const struct probe_order *order = self->flow->order;
    unsigned most = BATCH;
    if (self->held_since_ns)
        return 0;
    if (order->limit_bytes) {
        uint64_t left = (order->limit_bytes - self->all_bytes) / self->flow->length;
        most = left < BATCH ? (unsigned)left : BATCH;
    }
    unsigned count = pacer_ready(&self->pacer, now_ns, most);
    if (self->omitting || count == 0)
        return count;
    int64_t end = self->window_ns + order->spec.duration_ns;
    double left = ceil((double)(end - pacer_due(&self->pacer)) / self->pacer.gap_ns);
    if (left <= 0)
        return 0;
    return left < count ? (unsigned)left : count;
}

static void sleep_until(int64_t at_ns)
{
    struct timespec at = {at_ns / NS_PER_S, at_ns % NS_PER_S};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static void load_turn(struct sender *self)
{
    int64_t now = clock_mono_ns();
    if (now >= self->next_tick_ns)
        tick(self, now);
    if (self->over)
        return;
    if (self->omitting && now >= self->window_ns)
        begin_window(self, now);
    if (window_is_over(self, now)) {
        self->end_ns = now;
        return;
    }
    unsigned count = allowance(self, now);
    if (count > 0) {
        send_some(self, count, now);
        return;
    }
    int64_t due = pacer_due(&self->pacer);
    sleep_until(due > now && due < self->next_tick_ns ? due : self->next_tick_ns);
}

// ------------------------------------------------------------------ before and after it

static void await_control(struct sender *self, int64_t until_ns)
{
    int64_t left = until_ns - clock_mono_ns();
    struct timespec wait = {left > 0 ? left / NS_PER_S : 0, left > 0 ? left % NS_PER_S : 0};
    struct pollfd polls[2] = {{.fd = self->flow->fds[0], .events = POLLIN},
        {.fd = self->flow->hooks->stop_fd, .events = POLLIN}};
    ppoll(polls, 2, &wait, NULL);
    tick(self, clock_mono_ns());
}

static void await_consent(struct sender *self)
{
    while (!self->over && !self->last_feedback_ns) {
        int64_t now = clock_mono_ns();
        if (now >= self->created_ns + UDP_START_NS)
            fail(self, "the receiver did not give its consent to load within 5 s");
        else
            await_control(self, now + CONTROL_FEEDBACK_NS);
    }
}

static void send_final(struct sender *self)
{
    int64_t give_up = clock_mono_ns() + UDP_FINAL_NS;
    self->refusals = 0;
    while (!self->over && !self->final_seen) {
        int64_t now = clock_mono_ns();
        struct control final = {.type = CONTROL_FINAL,
            .bytes = self->sent * self->flow->length,
            .packets = self->sent,
            .end_sequence = self->sequence,
            .lost_sender = self->lost_sender,
            .window_ns = self->end_ns - self->window_ns};
        if (udp_control_send(self->flow, &final) == -ECONNREFUSED)
            self->refusals++;
        while (!self->over && !self->final_seen && clock_mono_ns() < now + FINAL_EVERY_NS)
            await_control(self, now + FINAL_EVERY_NS);
        // A receiver that has all it wants may have gone before its confirmation got through.
        if (self->refusals > 1)
            break;
        if (now >= give_up && !self->final_seen)
            fail(self, "the receiver did not confirm the final count");
    }
}

static void fill_report(struct sender *self)
{
    struct probe_send *send = &self->report->send;
    double spent_s = (double)(self->end_ns - self->window_ns) / 1e9;
    self->report->has_send = true;
    send->duration_s = (double)self->flow->order->spec.duration_ns / 1e9;
    if (spent_s < send->duration_s)
        send->duration_s = spent_s;
    send->bytes = self->sent * self->flow->length;
    send->packets_sent = self->sent;
    send->packets_lost_sender = self->lost_sender;
    send->offered_bps = send->duration_s > 0 ? 8 * (double)send->bytes / send->duration_s : NAN;
    send->stalled_s = self->stalled_s;
    send->blocked_s = self->blocked_s;
}

static void prepare(struct sender *self)
{
    bool capped;
    const struct probe_order *order = self->flow->order;
    uint64_t rate = tcp_rate(order, &capped);
    self->search = order->spec.bitrate_max;
    self->searching_fast = true;
    self->rate_bps = rate ? (double)rate : MAX_START_BPS;
    if (self->search && self->rate_bps > MAX_START_BPS)
        self->rate_bps = MAX_START_BPS;
    if (capped)
        self->report->send.capped_bps = rate;
    self->payload = malloc(TESTSPEC_LENGTH_MAX);
    if (!self->payload)
        abort();
    ticket_random(self->payload, TESTSPEC_LENGTH_MAX);
    for (unsigned i = 0; i < BATCH; i++) {
        self->iov[i][0] = (struct iovec){self->headers[i], UDP_HEADER};
        self->iov[i][1] = (struct iovec){self->payload, 0};
        self->messages[i].msg_hdr = (struct msghdr){.msg_iov = self->iov[i], .msg_iovlen = 2};
    }
    self->cpu = cpu_new();
    cpu_watch(self->cpu, gettid());
    prctl(PR_SET_TIMERSLACK, 1UL);
}

void udp_send(struct udp_flow *flow, struct probe_report *report)
{
    struct sender *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->flow = flow;
    self->report = report;
    self->created_ns = clock_mono_ns();
    prepare(self);
    await_consent(self);
    if (!self->over)
        start(self, clock_mono_ns());
    while (!self->over && !self->end_ns)
        load_turn(self);
    if (!self->over && self->omitting)
        fail(self, "the ticket's limit was reached before the window began");
    if (!self->over) {
        cpu_end(self->cpu, &report->load);
        fill_report(self);
        send_final(self);
    }
    if (report->reason[0] == '\0')
        report->outcome = PROBE_OK;
    else
        udp_control_send(flow, &(struct control){.type = CONTROL_ABORT});
    prctl(PR_SET_TIMERSLACK, 0UL);
    cpu_destroy(&self->cpu);
    free(self->payload);
    free(self);
}
