// A peer that holds the ticket and lies: load with any numbers and times, a final count of its own
// making. Whatever it says, the counts that are reported agree with each other.

#include <math.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "fuzz.h"
#include "udp_parts.h"

struct tape {
    const uint8_t *at;
    size_t left;
};

static uint64_t take(struct tape *tape, size_t bytes)
{
    uint64_t value = 0;
    for (; bytes > 0 && tape->left > 0; bytes--, tape->left--)
        value = value << 8 | *tape->at++;
    return value;
}

static void say_something(struct udp_test *test, struct tape *tape, int64_t *now)
{
    struct udp_run run = {.count = 1, .size = 100, .arrived_mono_ns = *now, .kernel_stamp = true};
    struct control final = {.type = CONTROL_FINAL};
    unsigned what = (unsigned)take(tape, 1);
    *now += (int64_t)take(tape, 2) * NS_PER_US;
    switch (what % 4) {
    case 0: // load with small numbers
        run.number = take(tape, 1);
        run.offset = take(tape, 1);
        run.count = 1 + what / 64 * 20;
        udp_receiver_run(test, &run, *now);
        break;
    case 1: // with any
        run.omit = take(tape, 1) & UDP_FLAG_OMIT;
        run.number = take(tape, 8);
        run.offset = take(tape, 8);
        run.count = 1 + (unsigned)take(tape, 1);
        run.size = take(tape, 2);
        run.arrived_mono_ns = (int64_t)take(tape, 8);
        udp_receiver_packet(test, 0, run.omit, (uint32_t)take(tape, 4));
        udp_receiver_run(test, &run, *now);
        break;
    case 2:
        final.end_sequence = take(tape, 1 + what / 32);
        final.lost_sender = take(tape, 1 + what / 32);
        final.window_ns = (int64_t)(take(tape, 8) >> 1);
        udp_receiver_final(test, &final, *now);
        break;
    default:
        udp_receiver_tick(test, *now);
    }
}

static void check(const struct probe_receive *out)
{
    HOLDS(out->packets_received + out->packets_lost >= out->packets_expected);
    HOLDS(out->packets_lost_receiver <= out->packets_lost);
    HOLDS(isfinite(out->bandwidth_bps) && out->bandwidth_bps >= 0);
    HOLDS(isfinite(out->duration_s) && out->duration_s >= 0);
    HOLDS(isnan(out->jitter_s) || out->jitter_s >= 0); // NaN: not measured
    for (size_t i = 0; i < out->interval_count; i++)
        HOLDS(isfinite(out->intervals[i].bandwidth_bps));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tape tape = {data, size};
    struct probe_order order = {.receives = true};
    struct probe_report report;
    struct probe_hooks hooks = {.stop_fd = -1};
    int pair[2];
    int64_t now = NS_PER_S;
    testspec_defaults(TEST_UDP, &order.spec);
    probe_report_init(&report);
    HOLDS(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) == 0);
    struct udp_test test = {
        .order = &order, .hooks = &hooks, .report = &report, .streams = 1, .cpu = cpu_new()};
    test.fds[0] = pair[0];
    test.receiver = calloc(1, sizeof *test.receiver);
    udp_receiver_start(&test, now);
    for (unsigned i = 0; i < 64 && tape.left > 0 && !test.failed; i++)
        say_something(&test, &tape, &now);
    udp_receiver_report(&test);
    if (!test.failed && test.receiver->final_seen)
        check(&report.receive);
    udp_receiver_release(test.receiver);
    free(test.receiver);
    cpu_destroy(&test.cpu);
    probe_report_release(&report);
    close(pair[0]);
    close(pair[1]);
    return 0;
}
