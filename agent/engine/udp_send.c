#include "udp_parts.h"

#include <endian.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "pacer.h"

#define BATCH 32
#define LENGTH_MAX 65000
#define RAMP_NS (100 * NS_PER_MS)
#define OWED_NS (50 * NS_PER_MS) // after the window's end, for what was due before it
#define FLOOD_START_BPS 50e6

// The state of the sending loop.
struct loop {
    struct udp_sender *sender;
    struct pacer pacer;
    int64_t load_begin_ns, window_begin_ns, window_end_ns, ramp_ns;
    double rate_bps;
    int64_t blocked_ns, blocked_before_ns;
    uint64_t number, omitted, drops_seen;
    unsigned stream;
    bool ramping;
    uint8_t headers[BATCH][UDP_HEADER];
    struct iovec iov[BATCH][2];
    struct msghdr messages[BATCH];
};

static uint64_t least(uint64_t a, uint64_t b)
{
    return a == 0 ? b : b == 0 ? a : a < b ? a : b;
}

static void set_int(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

static unsigned route_mtu(int fd, bool six)
{
    int mtu = 0;
    socklen_t size = sizeof mtu;
    int failed = six ? getsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &size)
                     : getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &size);
    return failed ? 0 : (unsigned)mtu;
}

static bool is_six(int fd)
{
    struct sockaddr_storage own = {0};
    socklen_t size = sizeof own;
    (void)getsockname(fd, (struct sockaddr *)&own, &size);
    return own.ss_family == AF_INET6;
}

static void fit_length(struct udp_sender *sender)
{
    bool six = is_six(sender->fds[0]);
    unsigned headers = six ? 48 : 28, asked = sender->order->spec.length;
    sender->path_mtu = route_mtu(sender->fds[0], six);
    unsigned room = sender->path_mtu > headers + UDP_HEADER ? sender->path_mtu - headers : 0;
    sender->length = asked ? asked : TESTSPEC_LENGTH_DEFAULT;
    if (!asked && room && room < sender->length)
        sender->length = room;
    sender->fragmented = asked && room && asked > room;
    for (unsigned i = 0; i < sender->streams; i++) {
        if (six)
            set_int(sender->fds[i], IPPROTO_IPV6, IPV6_MTU_DISCOVER,
                sender->fragmented ? IPV6_PMTUDISC_DONT : IPV6_PMTUDISC_DO);
        else
            set_int(sender->fds[i], IPPROTO_IP, IP_MTU_DISCOVER,
                sender->fragmented ? IP_PMTUDISC_DONT : IP_PMTUDISC_DO);
        // Without it the kernel reports local queue drops as success.
        set_int(
            sender->fds[i], six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVERR : IP_RECVERR, 1);
    }
}

void udp_sender_prepare(struct udp_sender *sender)
{
    const struct probe_order *order = sender->order;
    uint64_t asked = order->spec.bitrate_max ? 0 : order->spec.bitrate_bps;
    sender->rate_bps = least(asked, least(order->limit_bps, order->cap_bps));
    fit_length(sender);
}

// ------------------------------------------------------------------------------ one datagram

static void fill(struct loop *loop, unsigned slot, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    uint8_t *header = loop->headers[slot];
    // By when it was due, so that a late wake-up moves nothing across the window's edge.
    bool omit = pacer_due_ahead(&loop->pacer, slot) < loop->window_begin_ns;
    int64_t since = now - loop->window_begin_ns;
    uint64_t number = htobe64(omit ? loop->omitted : loop->number);
    uint64_t offset = htobe64(since > 0 ? (uint64_t)since : 0);
    header[0] = UDP_LOAD;
    header[1] = (uint8_t)loop->stream;
    header[2] = omit ? UDP_FLAG_OMIT : 0;
    header[3] = 0;
    memcpy(header + 4, sender->order->keys.load_tag[sender->direction], 12);
    memcpy(header + 16, &number, sizeof number);
    memcpy(header + 24, &offset, sizeof offset);
    *(omit ? &loop->omitted : &loop->number) += 1;
}

static void wait_room(struct loop *loop, int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLOUT};
    int64_t before = clock_mono_ns();
    poll(&polled, 1, 20);
    int64_t waited = clock_mono_ns() - before;
    loop->blocked_ns += waited;
    if (before >= loop->window_begin_ns)
        loop->sender->blocked_ns += waited;
}

static bool shrink(struct loop *loop, int fd)
{
    struct udp_sender *sender = loop->sender;
    bool six = is_six(fd);
    unsigned mtu = route_mtu(fd, six), headers = six ? 48 : 28;
    if (sender->order->spec.length || mtu < headers + UDP_HEADER || mtu - headers >= sender->length)
        return false;
    sender->path_mtu = mtu;
    sender->length = mtu - headers;
    for (unsigned i = 0; i < BATCH; i++)
        loop->iov[i][1].iov_len = sender->length - UDP_HEADER;
    return true;
}

// What to do about a datagram that the kernel did not take: true = try again, false = it is lost
// here, at the sender.
static bool again(struct loop *loop, int fd, unsigned *refusals)
{
    switch (errno) {
    case EAGAIN:
        wait_room(loop, fd);
        return !atomic_load(&loop->sender->link.stop);
    case EINTR:
        return true;
    case EMSGSIZE:
        return shrink(loop, fd);
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
        // A pending ICMP error of an earlier datagram: this one has not been tried yet.
        return ++*refusals < 3;
    default:
        return false;
    }
}

// One system call a datagram: sendmmsg keeps the error of any but its first to itself, and a
// datagram that the host's own queue dropped would be sent again as if it had never been tried.
static void send_one(struct loop *loop, int fd, unsigned slot)
{
    struct udp_sender *sender = loop->sender;
    unsigned refusals = 0;
    bool omit = loop->headers[slot][2] & UDP_FLAG_OMIT, sent;
    do
        sent = sendmsg(fd, &loop->messages[slot], MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
    while (!sent && again(loop, fd, &refusals));
    if (!omit && sent)
        sender->bytes += sender->length;
    else if (!omit)
        sender->lost_sender++;
}

static void send_batch(struct loop *loop, unsigned count)
{
    int fd = loop->sender->fds[loop->stream];
    for (unsigned i = 0; i < count; i++)
        send_one(loop, fd, i);
    loop->stream = (loop->stream + 1) % loop->sender->streams;
}

// ---------------------------------------------------------------------------------- pacing

static void sleep_until(int64_t due_ns)
{
    struct timespec due = {due_ns / NS_PER_S, due_ns % NS_PER_S};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

// A flood: doubles while nothing is lost at either host, gives way when something is.
static void adapt_flood(struct loop *loop, int64_t now)
{
    struct udp_sender *sender = loop->sender;
    if (now < loop->ramp_ns)
        return;
    loop->ramp_ns = now + RAMP_NS;
    uint64_t drops = atomic_load(&sender->link.drops_receiver) + sender->lost_sender;
    bool lossy = drops > loop->drops_seen;
    bool blocked = loop->blocked_ns > loop->blocked_before_ns + RAMP_NS / 2;
    loop->drops_seen = drops;
    loop->blocked_before_ns = loop->blocked_ns;
    // A sender that is behind its own pace cannot go faster either.
    bool behind = now - pacer_due(&loop->pacer) > loop->pacer.burst_ns / 2;
    if (lossy || blocked)
        loop->ramping = false;
    if (lossy)
        loop->rate_bps *= 0.85;
    else if (!blocked && !behind)
        loop->rate_bps *= loop->ramping ? 2 : 1.03;
    if (sender->rate_bps && loop->rate_bps > (double)sender->rate_bps)
        loop->rate_bps = (double)sender->rate_bps;
    pacer_set_rate(&loop->pacer, now, sender->length, loop->rate_bps);
}

static void start_loop(struct loop *loop, struct udp_sender *sender)
{
    const struct testspec *spec = &sender->order->spec;
    static const uint8_t filling[LENGTH_MAX];
    int64_t omit = testspec_omit_max_ns(spec), now = clock_mono_ns();
    // A flood needs time to find its rate; that is no part of the window.
    if (spec->bitrate_max && omit == 0)
        omit = spec->duration_ns / 2 < NS_PER_S ? spec->duration_ns / 2 : NS_PER_S;
    memset(loop, 0, sizeof *loop);
    loop->sender = sender;
    loop->ramping = spec->bitrate_max;
    loop->rate_bps = spec->bitrate_max ? FLOOD_START_BPS * 4 : (double)sender->rate_bps;
    loop->load_begin_ns = now;
    loop->ramp_ns = now + RAMP_NS;
    loop->window_begin_ns = now + omit;
    loop->window_end_ns = loop->window_begin_ns + spec->duration_ns;
    if (loop->window_end_ns > now + sender->order->limit_ns)
        loop->window_end_ns = now + sender->order->limit_ns;
    sender->omitted_ns = omit;
    for (unsigned i = 0; i < BATCH; i++) {
        loop->iov[i][0] = (struct iovec){loop->headers[i], UDP_HEADER};
        loop->iov[i][1] = (struct iovec){(void *)filling, sender->length - UDP_HEADER};
        loop->messages[i].msg_iov = loop->iov[i];
        loop->messages[i].msg_iovlen = 2;
    }
    pacer_start(&loop->pacer, now, sender->length, loop->rate_bps);
}

static bool volume_reached(const struct loop *loop)
{
    uint64_t limit = loop->sender->order->limit_bytes;
    return limit && (loop->number + loop->omitted) * loop->sender->length >= limit;
}

// The time afterwards.
static int64_t depart(struct loop *loop, unsigned count, int64_t now)
{
    for (unsigned i = 0; i < count; i++)
        fill(loop, i, now);
    send_batch(loop, count);
    pacer_departed(&loop->pacer, count);
    return clock_mono_ns();
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
        unsigned ready = pacer_ready(&loop->pacer, loop->window_end_ns - 1, BATCH);
        if (ready == 0)
            break;
        now = depart(loop, ready, now);
    }
    sender->window_ns = loop->window_end_ns - loop->window_begin_ns;
}

void *udp_sender_main(void *arg)
{
    struct udp_sender *sender = arg;
    struct loop loop;
    prctl(PR_SET_TIMERSLACK, 1);
    atomic_store(&sender->tid, gettid());
    start_loop(&loop, sender);
    int64_t now = clock_mono_ns();
    while (now < loop.window_end_ns && !atomic_load(&sender->link.stop) && !volume_reached(&loop)) {
        if (atomic_load(&sender->link.hold)) {
            sleep_until(now + 5 * NS_PER_MS);
            now = clock_mono_ns();
            pacer_start(&loop.pacer, now, sender->length, loop.rate_bps);
            continue;
        }
        if (sender->order->spec.bitrate_max)
            adapt_flood(&loop, now);
        unsigned ready = pacer_ready(&loop.pacer, now, BATCH);
        if (ready == 0) {
            int64_t due = pacer_due(&loop.pacer);
            sleep_until(due < now + 20 * NS_PER_MS ? due : now + 20 * NS_PER_MS);
            now = clock_mono_ns();
            continue;
        }
        now = depart(&loop, ready, now);
    }
    sender->window_ns = now - loop.window_begin_ns;
    if (now >= loop.window_end_ns && !sender->order->spec.bitrate_max)
        send_owed(&loop, now);
    sender->packets = loop.number;
    cpu_use_read(&sender->use);
    atomic_store(&sender->finished, true);
    return NULL;
}

// ----------------------------------------------------- of the thread that reads the sockets

#define FINAL_AGAIN_NS (50 * NS_PER_MS)
#define FINAL_PATIENCE_NS (1500 * NS_PER_MS)
#define FINALS_LEAST 25 // however long this host slept meanwhile

static void start_thread(struct udp_test *test)
{
    struct udp_sender *sender = test->sender;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    udp_measure(test, true);
    sender->error = pthread_create(&sender->thread, &attributes, udp_sender_main, sender);
    pthread_attr_destroy(&attributes);
    if (sender->error)
        udp_fail(test, true, "no thread for the load");
    else
        sender->running = true;
}

void udp_sender_feedback(struct udp_test *test, const struct control *message, int64_t now)
{
    struct udp_sender *sender = test->sender;
    sender->feedback_ns = now;
    atomic_store(&sender->link.drops_receiver, message->drops_receiver);
    if (!sender->running && !sender->joined)
        start_thread(test);
    if (sender->hold_since_ns) {
        sender->held_ns += now - sender->hold_since_ns;
        sender->hold_since_ns = 0;
        atomic_store(&sender->link.hold, false);
    }
    if (message->final_seen)
        sender->final_seen = true;
}

static void say_final(struct udp_test *test, int64_t now)
{
    struct udp_sender *sender = test->sender;
    struct control final = {.type = CONTROL_FINAL,
        .packets = sender->packets,
        .bytes = sender->bytes,
        .end_sequence = sender->packets,
        .lost_sender = sender->lost_sender,
        .window_ns = sender->window_ns};
    udp_say(test, &final);
    sender->finals_said++;
    sender->next_final_ns = now + FINAL_AGAIN_NS;
}

void udp_sender_end(struct udp_test *test)
{
    struct udp_sender *sender = test->sender;
    if (!sender || !sender->running)
        return;
    atomic_store(&sender->link.stop, true);
    pthread_join(sender->thread, NULL);
    sender->running = false;
    sender->joined = true;
}

static void watch_consent(struct udp_test *test, int64_t now)
{
    struct udp_sender *sender = test->sender;
    int64_t silence = now - sender->feedback_ns;
    if (!sender->running && silence > PROBE_HANDSHAKE_NS) {
        udp_fail(test, true, "the receiver did not ask for load within 3 s");
    } else if (silence > CONTROL_GIVE_UP_NS + CONTROL_SILENCE_NS) {
        udp_fail(test, true, "no feedback from the receiver for over 5 s");
    } else if (sender->running && silence > CONTROL_SILENCE_NS && !sender->hold_since_ns) {
        sender->hold_since_ns = now;
        atomic_store(&sender->link.hold, true);
    }
}

void udp_sender_tick(struct udp_test *test, int64_t now)
{
    struct udp_sender *sender = test->sender;
    if (sender->running && atomic_load(&sender->finished)) {
        udp_sender_end(test);
        cpu_add(test->cpu, &sender->use);
        udp_measure(test, false);
        sender->final_since_ns = now;
    }
    if (!sender->joined)
        watch_consent(test, now);
    else if (now >= sender->next_final_ns && !sender->final_seen)
        say_final(test, now);
    // The receiver will not answer any more; what was sent was sent.
    if (sender->joined && now - sender->final_since_ns > FINAL_PATIENCE_NS &&
        sender->finals_said >= FINALS_LEAST)
        sender->final_seen = true;
}

void udp_sender_report(struct udp_test *test)
{
    const struct udp_sender *sender = test->sender;
    struct probe_send *out = &test->report->send;
    test->report->has_send = true;
    out->length = sender->length;
    out->path_mtu = sender->path_mtu;
    out->fragmented = sender->fragmented;
    if (!sender->joined)
        return;
    out->bytes = sender->bytes;
    out->duration_s = (double)sender->window_ns / 1e9;
    out->packets_sent = sender->packets - sender->lost_sender;
    out->packets_lost_sender = sender->lost_sender;
    if (sender->window_ns > 0)
        out->offered_bps = (double)sender->bytes * 8 / out->duration_s;
    if (sender->held_ns > 0)
        out->stalled_s = (double)sender->held_ns / 1e9;
    out->blocked_s = (double)sender->blocked_ns / 1e9;
    if (sender->rate_bps && sender->rate_bps != sender->order->spec.bitrate_bps)
        out->capped_bps = sender->rate_bps;
}
