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
    if (begin && !test->measuring && !test->measured) {
        udp_readers_watch(test);
        if (test->sender && test->sender->running)
            udp_load_watch(test->sender, test->cpu);
        cpu_begin(test->cpu);
        test->measuring = true;
    } else if (!begin && test->measuring) {
        cpu_end(test->cpu, &test->report->load);
        test->measuring = false;
        test->measured = true;
    }
}

void udp_heard(struct udp_test *test, const uint8_t *bytes, size_t size, int64_t now)
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

// ------------------------------------------------------------------------------------ loop

bool udp_over(const struct udp_test *test)
{
    bool sent = !test->sender || test->sender->final_seen;
    bool received = !test->receiver || test->receiver->finished;
    return test->failed || (sent && received);
}

// False when the test is over.
static bool tick(struct udp_test *test, int64_t now)
{
    pthread_mutex_lock(&test->lock);
    if (test->receiver && !test->failed)
        udp_receiver_tick(test, now);
    if (test->sender && !test->failed)
        udp_sender_tick(test, now);
    bool over = udp_over(test);
    pthread_mutex_unlock(&test->lock);
    return !over;
}

static void stop(struct udp_test *test)
{
    pthread_mutex_lock(&test->lock);
    probe_report_fail(test->report, PROBE_STOPPED, false, "stopped");
    test->failed = true;
    pthread_mutex_unlock(&test->lock);
}

static void loop(struct udp_test *test)
{
    int64_t now = clock_mono_ns();
    do {
        for (int64_t until = now + TICK_NS; now < until; now = clock_mono_ns())
            if (!udp_read(test, until)) {
                stop(test);
                return;
            }
    } while (tick(test, now));
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
    probe_describe_socket(test->fds[0], test->order, test->order->sends, test->report);
    cpu_watch_interface(test->cpu, test->report->record.interface);
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
    if (sends)
        udp_sender_report(test);
    if (test->receiver)
        udp_receiver_report(test);
    char out[128] = "", in[124] = "";
    if (sends)
        udp_sender_technique(test->sender, out, sizeof out);
    if (test->receiver)
        udp_receiver_technique(test, in, sizeof in);
    snprintf(test->report->technique, sizeof test->report->technique, "%s%s%s", out,
        sends && test->receiver ? "; " : "", in);
}

static void release(struct udp_test *test)
{
    beside_end(&test->beside, test->report);
    probe_streams_close(&test->open);
    if (test->receiver)
        udp_receiver_release(test->receiver);
    free(test->receiver);
    free(test->sender);
    pthread_mutex_destroy(&test->lock);
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
    pthread_mutex_init(&test->lock, NULL);
    for (unsigned i = 0; i < UDP_STREAMS_MAX; i++)
        test->fds[i] = -1;
    test->beside = beside_new(order, port);
    if (open_streams(test, port)) {
        beside_idle(test->beside, hooks->stop_fd);
        begin(test, clock_mono_ns());
        if (udp_readers_start(test))
            loop(test);
        else
            udp_fail(test, true, "no thread to receive with");
        udp_sender_end(test);
        udp_readers_end(test);
        beside_end(&test->beside, out);
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
