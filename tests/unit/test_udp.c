// Both ends of UDP tests over loopback.

#include "meshtest.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "engine_bench.h"
#include "kinds.h"

static void expect_exact(struct probe_report *sender, struct probe_report *receiver)
{
    assert_string_equal(sender->reason, "");
    assert_string_equal(receiver->reason, "");
    assert_int_equal(sender->outcome, PROBE_OK);
    assert_int_equal(receiver->outcome, PROBE_OK);
    const struct probe_receive *in = &receiver->receive;
    assert_true(sender->has_send && receiver->has_receive);
    assert_int_equal(in->packets_expected, sender->send.packets_sent);
    assert_int_equal(in->packets_received + in->packets_lost, in->packets_expected);
    assert_true(in->packets_lost_receiver <= in->packets_lost);
    uint64_t received = 0, sent = 0;
    for (size_t i = 0; i < in->interval_count; i++) {
        received += in->intervals[i].received;
        sent += in->intervals[i].sent;
    }
    assert_int_equal(received, in->packets_received);
    assert_int_equal(sent, in->packets_expected + sender->send.packets_lost_sender);
}

// False if less was sent than was due.
static bool run_once(const char *address, bool sender_connects, unsigned parallel, unsigned length,
    uint64_t rate_bps)
{
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_udp, address, sender_connects);
    struct testspec *spec = &bench.connecting.spec;
    spec->parallel = parallel;
    spec->length = length;
    spec->bitrate_bps = rate_bps;
    bench.listening.spec = *spec;
    engine_bench_run(&bench);
    struct probe_report *sender = engine_bench_sender(&bench);
    struct probe_report *receiver = engine_bench_receiver(&bench);
    expect_exact(sender, receiver);
    unsigned each = length ? length : 1400;
    assert_int_equal(sender->send.length, each);
    double due = ceil(0.5 * (double)rate_bps / 8 / each);
    bool exact = (double)sender->send.packets_sent == due;
    assert_true((double)sender->send.packets_sent <= due);
    if (receiver->receive.packets_lost == 0 && exact)
        assert_true(
            fabs(receiver->receive.bandwidth_bps - (double)rate_bps) < 0.02 * (double)rate_bps);
    assert_true(receiver->receive.jitter_s >= 0 && receiver->receive.pdv.count > 0);
    assert_string_equal(receiver->receive.stamps, "kernel");
    engine_bench_end(&bench);
    return exact;
}

// What was due leaves to the datagram, unless this host let the sender sleep for over 50 ms: that
// does not happen every time.
static void run_at(const char *address, bool sender_connects, unsigned parallel, unsigned length,
    uint64_t rate_bps)
{
    for (int attempt = 0; attempt < 4; attempt++)
        if (run_once(address, sender_connects, parallel, length, rate_bps))
            return;
    fail_msg("less left than was due");
}

static void run(const char *address, bool sender_connects, unsigned parallel, unsigned length)
{
    run_at(address, sender_connects, parallel, length, 10000000);
}

static void what_was_sent_is_counted_exactly(void **state)
{
    (void)state;
    run("127.0.0.1", true, 1, 0);
}

// 5 us apart: a thread that wakes a little late owes some at the end of the window.
static void what_is_owed_at_the_windows_end_still_leaves(void **state)
{
    (void)state;
    run_at("127.0.0.1", true, 1, 32, 50000000);
}

static void the_receiver_may_open_the_flow(void **state)
{
    (void)state;
    run("127.0.0.1", false, 1, 0);
}

static void four_streams_share_the_rate(void **state)
{
    (void)state;
    run("127.0.0.1", true, 4, 0);
}

static void *run_in_thread(void *bench)
{
    engine_bench_run(bench);
    return NULL;
}

static void the_next_test_may_open_the_port_while_sockets_of_this_one_live(void **state)
{
    (void)state;
    struct engine_bench bench;
    struct dataport_counters counters = {0};
    struct ticket_keys next;
    uint8_t id[TICKET_ID_SIZE] = {1}, key[TICKET_KEY_SIZE] = {2};
    pthread_t thread;
    int error;
    engine_bench_begin(&bench, &probe_udp, "127.0.0.1", true);
    assert_int_equal(pthread_create(&thread, NULL, run_in_thread, &bench), 0);
    for (int64_t end = clock_mono_ns() + 5 * NS_PER_S; counters.proven == 0;) {
        assert_true(clock_mono_ns() < end);
        dataport_counters(bench.port, &counters);
    }
    ticket_derive(id, key, &next);
    admission_t *admission =
        dataport_admit(bench.port, DATAPORT_UDP, &next, "127.0.0.1", 1, &error);
    pthread_join(thread, NULL);
    assert_int_equal(error, 0);
    dataport_dismiss(bench.port, &admission);
    expect_exact(engine_bench_sender(&bench), engine_bench_receiver(&bench));
    engine_bench_end(&bench);
}

static void ipv6_works_the_same(void **state)
{
    (void)state;
    run("::1", true, 1, 0);
}

static void a_load_as_long_as_a_control_message_is_no_control_message(void **state)
{
    (void)state;
    run("127.0.0.1", true, 1, 120);
    run("127.0.0.1", true, 1, 32);
}

static void both_directions_run_at_once(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_udp, "127.0.0.1", true);
    bench.connecting.receives = bench.listening.sends = true;
    engine_bench_run(&bench);
    expect_exact(&bench.connected, &bench.listened);
    expect_exact(&bench.listened, &bench.connected);
    engine_bench_end(&bench);
}

static void a_stopped_sender_stops_the_receiver(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_udp, "127.0.0.1", true);
    bench.connecting.spec.duration_ns = bench.listening.spec.duration_ns = 30 * NS_PER_S;
    assert_int_equal(write(bench.connect_stop[1], "", 1), 1);
    engine_bench_run(&bench);
    assert_int_equal(bench.connected.outcome, PROBE_STOPPED);
    assert_true(bench.listened.outcome != PROBE_OK && bench.listened.reason[0] != '\0');
    engine_bench_end(&bench);
}

static void a_sender_over_the_tickets_rate_is_cut_off(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_udp, "127.0.0.1", true);
    bench.connecting.spec.bitrate_bps = 50000000;
    bench.connecting.spec.duration_ns = bench.listening.spec.duration_ns = 10 * NS_PER_S;
    bench.listening.limit_bps = 5000000;
    int64_t before = clock_mono_ns();
    engine_bench_run(&bench);
    assert_int_equal(bench.listened.outcome, PROBE_FAILED);
    assert_non_null(strstr(bench.listened.reason, "exceed"));
    assert_int_equal(bench.connected.outcome, PROBE_FAILED);
    assert_true(clock_mono_ns() - before < 8 * NS_PER_S);
    engine_bench_end(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_sent_is_counted_exactly),
        cmocka_unit_test(what_is_owed_at_the_windows_end_still_leaves),
        cmocka_unit_test(the_receiver_may_open_the_flow),
        cmocka_unit_test(four_streams_share_the_rate),
        cmocka_unit_test(the_next_test_may_open_the_port_while_sockets_of_this_one_live),
        cmocka_unit_test(ipv6_works_the_same),
        cmocka_unit_test(a_load_as_long_as_a_control_message_is_no_control_message),
        cmocka_unit_test(both_directions_run_at_once),
        cmocka_unit_test(a_stopped_sender_stops_the_receiver),
        cmocka_unit_test(a_sender_over_the_tickets_rate_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
