#include "udp_parts.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "kinds.h"
#include "probe_setup.h"

#define TICK_NS (20 * NS_PER_MS)
#define BATCH 64
#define TURNS_MAX 16
#define HEAD_BYTES 128 // enough for a header or a control message; the rest is not copied

void udp_say(struct udp_test *test, const struct control *message)
{
    uint8_t bytes[CONTROL_SIZE];
    struct control numbered = *message;
    numbered.sequence = ++test->sequence_out;
    control_pack(&numbered, &test->order->keys, test->direction, bytes);
    (void)!send(test->fds[0], bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void udp_fail(struct udp_test *test, bool retry, const char *words)
{
    probe_report_fail(test->report, PROBE_FAILED, retry, "%s", words);
    test->failed = true;
}

// The load of this host over the window; whichever of the two halves begins first.
void udp_measure(struct udp_test *test, bool begin)
{
    if (begin && !test->measuring) {
        cpu_watch(test->cpu, gettid());
        cpu_begin(test->cpu);
        test->measuring = true;
    } else if (!begin && test->measuring) {
        cpu_end(test->cpu, &test->report->load);
        test->measuring = false;
    }
}

// ------------------------------------------------------------------------------- datagrams

static void heard(struct udp_test *test, const uint8_t *bytes, size_t size, int64_t now)
{
    struct control message;
    if (!control_unpack(bytes, size, &test->order->keys, !test->direction, &message) ||
        message.sequence <= test->sequence_in)
        return;
    test->sequence_in = message.sequence;
    if (message.type == CONTROL_FEEDBACK && test->sender)
        udp_sender_feedback(test, &message, now);
    else if (message.type == CONTROL_FINAL && test->receiver)
        udp_receiver_final(test, &message, now);
    else if (message.type == CONTROL_ABORT)
        udp_fail(test, true, "the other end gave up");
}

// What the kernel says beside a datagram: true if it stamped its arrival. It names its drops only
// once there are any.
static bool beside(struct msghdr *header, int64_t *arrived_wall_ns, uint32_t *drops)
{
    bool stamped = false;
    *drops = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            memcpy(drops, CMSG_DATA(c), sizeof *drops);
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
            *arrived_wall_ns = stamp.tv_sec * NS_PER_S + stamp.tv_nsec;
            stamped = true;
        }
    }
    if (!stamped)
        *arrived_wall_ns = clock_wall_ns();
    return stamped;
}

static bool is_load(const struct udp_test *test, const uint8_t *bytes, size_t size)
{
    const uint8_t *tag = test->order->keys.load_tag[!test->direction];
    return size >= UDP_HEADER && bytes[0] == UDP_LOAD && memcmp(bytes + 4, tag, 12) == 0;
}

static void on_datagram(
    struct udp_test *test, unsigned at, struct mmsghdr *message, const uint8_t *bytes, int64_t now)
{
    size_t size = message->msg_len;
    if (test->receiver && is_load(test, bytes, size)) {
        int64_t arrived;
        uint32_t drops;
        bool kernel = beside(&message->msg_hdr, &arrived, &drops);
        udp_receiver_drops(test, at, bytes, drops);
        udp_receiver_load(test, bytes, size, arrived, kernel, now);
    } else {
        heard(test, bytes, size, now);
    }
}

// Errors that ICMP or the local queue left: reading them clears the socket; the sender counts by
// what its own calls return.
static void drain_errors(int fd)
{
    char data[64], control[512];
    struct iovec iov = {data, sizeof data};
    for (int i = 0; i < 64; i++) {
        struct msghdr header = {.msg_iov = &iov,
            .msg_iovlen = 1,
            .msg_control = control,
            .msg_controllen = sizeof control};
        if (recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            return;
    }
}

static void read_socket(struct udp_test *test, unsigned at)
{
    uint8_t heads[BATCH][HEAD_BYTES];
    _Alignas(struct cmsghdr) char controls[BATCH][96];
    struct iovec iov[BATCH];
    struct mmsghdr messages[BATCH];
    for (int turn = 0; turn < TURNS_MAX; turn++) {
        for (unsigned i = 0; i < BATCH; i++) {
            iov[i] = (struct iovec){heads[i], HEAD_BYTES};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i],
                .msg_iovlen = 1,
                .msg_control = controls[i],
                .msg_controllen = sizeof controls[i]};
        }
        int count = recvmmsg(test->fds[at], messages, BATCH, MSG_DONTWAIT | MSG_TRUNC, NULL);
        int64_t now = clock_mono_ns();
        for (int i = 0; i < count && !test->failed; i++)
            on_datagram(test, at, &messages[i], heads[i], now);
        if (count < BATCH)
            return;
    }
}

// ------------------------------------------------------------------------------------ loop

static bool over(const struct udp_test *test)
{
    bool sent = !test->sender || test->sender->final_seen;
    bool received = !test->receiver || test->receiver->finished;
    return test->failed || (sent && received);
}

static void read_sockets(struct udp_test *test, const struct pollfd *polled)
{
    for (unsigned i = 0; i < test->streams; i++) {
        if (polled[i].revents & POLLERR)
            drain_errors(test->fds[i]);
        if (polled[i].revents)
            read_socket(test, i);
    }
}

static void tick(struct udp_test *test, int64_t now)
{
    if (test->receiver && !test->failed)
        udp_receiver_tick(test, now);
    if (test->sender && !test->failed)
        udp_sender_tick(test, now);
}

static void loop(struct udp_test *test)
{
    struct pollfd polled[UDP_STREAMS_MAX + 1];
    int64_t next_tick = clock_mono_ns() + TICK_NS;
    for (unsigned i = 0; i < test->streams; i++)
        polled[i] = (struct pollfd){.fd = test->fds[i], .events = POLLIN};
    polled[test->streams] = (struct pollfd){.fd = test->hooks->stop_fd, .events = POLLIN};
    while (!over(test)) {
        int64_t left = next_tick - clock_mono_ns();
        struct timespec wait = {0, left > 0 ? left : 0};
        int ready = ppoll(polled, test->streams + 1, &wait, NULL);
        if (ready > 0 && polled[test->streams].revents) {
            probe_report_fail(test->report, PROBE_STOPPED, false, "stopped");
            test->failed = true;
            return;
        }
        if (ready > 0)
            read_sockets(test, polled);
        int64_t now = clock_mono_ns();
        if (now >= next_tick) {
            next_tick = now + TICK_NS;
            tick(test, now);
        }
    }
}

// ---------------------------------------------------------------------------------- set-up

// Best effort: a buffer that is not granted shows in the result.
static int set_options(int fd, unsigned stream, const struct probe_order *order)
{
    (void)stream;
    (void)probe_socket_options(fd, order);
    return 0;
}

static bool open_streams(struct udp_test *test, dataport_t *port)
{
    test->direction = test->order->connects ? 0 : 1;
    test->open = (struct probe_streams){.order = test->order,
        .hooks = test->hooks,
        .port = port,
        .report = test->report,
        .protocol = DATAPORT_UDP,
        .count = test->streams,
        .fds = test->fds,
        .prepare = set_options};
    return probe_streams_open(&test->open);
}

static void begin(struct udp_test *test, int64_t now)
{
    if (test->order->sends) {
        struct udp_sender *sender = calloc(1, sizeof *sender);
        if (!sender)
            abort();
        sender->order = test->order;
        sender->fds = test->fds;
        sender->streams = test->streams;
        sender->direction = test->direction;
        sender->asked_ns = sender->feedback_ns = now;
        test->sender = sender;
        udp_sender_prepare(sender);
    }
    if (test->order->receives) {
        test->receiver = calloc(1, sizeof *test->receiver);
        if (!test->receiver)
            abort();
        udp_receiver_start(test, now);
    }
}

static void report(struct udp_test *test)
{
    bool sends = test->sender != NULL;
    udp_measure(test, false);
    probe_describe_socket(test->fds[0], test->order, sends, test->report);
    if (sends)
        udp_sender_report(test);
    if (test->receiver)
        udp_receiver_report(test);
    snprintf(test->report->technique, sizeof test->report->technique, "%s%s%s",
        sends ? "sendmmsg, one datagram per skb, paced" : "", sends && test->receiver ? "; " : "",
        test->receiver ? "recvmmsg" : "");
}

static void release(struct udp_test *test)
{
    probe_streams_close(&test->open);
    if (test->receiver)
        udp_receiver_release(test->receiver);
    free(test->receiver);
    free(test->sender);
    cpu_destroy(&test->cpu);
    free(test);
}

static void run(const struct probe_order *order, dataport_t *port, const struct probe_hooks *hooks,
    struct probe_report *out)
{
    struct udp_test *test = calloc(1, sizeof *test);
    if (!test)
        abort();
    *test = (struct udp_test){.order = order,
        .hooks = hooks,
        .report = out,
        .streams = order->spec.parallel,
        .cpu = cpu_new()};
    for (unsigned i = 0; i < UDP_STREAMS_MAX; i++)
        test->fds[i] = -1;
    if (open_streams(test, port)) {
        begin(test, clock_mono_ns());
        loop(test);
        udp_sender_end(test);
        if (test->failed && out->outcome != PROBE_STOPPED) {
            struct control gone = {.type = CONTROL_ABORT};
            udp_say(test, &gone);
        }
        report(test);
        if (!test->failed)
            out->outcome = PROBE_OK;
    }
    release(test);
}

static bool supported(char *reason)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        snprintf(reason, PROBE_TEXT_SIZE, "no UDP socket: %s", strerror(errno));
        return false;
    }
    close(fd);
    return true;
}

const struct probe_kind probe_udp = {
    .kind = TEST_UDP, .name = "udp", .supported = supported, .run = run};
