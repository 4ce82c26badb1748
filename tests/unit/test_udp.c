// Both ends of UDP tests over loopback.

#include "meshtest.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "engine_bench.h"
#include "kinds.h"

static atomic_long clock_cost_ns;
// By how much the wall clock is set, once so many packets have come: half a millisecond later, when
// the reader waits for others to come.
static atomic_long step_s, packets_to_step;
static atomic_llong step_at_mono_ns; // 0: not yet

static int64_t real_ns(clockid_t id)
{
    struct timespec now;
    syscall(SYS_clock_gettime, id, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static time_t stepped_s(int64_t mono_ns)
{
    int64_t at = atomic_load(&step_at_mono_ns);
    return at && mono_ns >= at ? atomic_load(&step_s) : 0;
}

// This program's clocks; each reading takes as long as a test says.
int clock_gettime(clockid_t id, struct timespec *now)
{
    int64_t begun = real_ns(CLOCK_MONOTONIC), mono;
    do
        mono = real_ns(CLOCK_MONOTONIC);
    while (mono - begun < atomic_load(&clock_cost_ns));
    int rc = (int)syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME)
        now->tv_sec += stepped_s(mono);
    return rc;
}

// The kernel's stamps are of a wall clock that was not set; here they are what they would be.
int recvmmsg(int fd, struct mmsghdr *messages, unsigned most, int flags, struct timespec *timeout)
{
    int count = (int)syscall(SYS_recvmmsg, fd, messages, most, flags, timeout);
    int64_t mono = real_ns(CLOCK_MONOTONIC), ahead = real_ns(CLOCK_REALTIME) - mono;
    for (int i = 0; i < count; i++) {
        struct msghdr *header = &messages[i].msg_hdr;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
            struct timespec stamp;
            if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS)
                continue;
            memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
            stamp.tv_sec += stepped_s(stamp.tv_sec * NS_PER_S + stamp.tv_nsec - ahead);
            memcpy(CMSG_DATA(c), &stamp, sizeof stamp);
        }
    }
    if (count > 0 && atomic_load(&step_s) && atomic_load(&step_at_mono_ns) == 0 &&
        atomic_fetch_sub(&packets_to_step, count) <= 0)
        atomic_store(&step_at_mono_ns, mono + NS_PER_MS / 2);
    return count;
}

// Released by the teardown, so that a test that fails leaves nothing behind.
static int begin(void **state)
{
    *state = calloc(1, sizeof(struct engine_bench));
    return *state ? 0 : -1;
}

static int end(void **state)
{
    atomic_store(&clock_cost_ns, 0);
    atomic_store(&step_s, 0);
    engine_bench_end(*state);
    free(*state);
    return 0;
}

// What holds however long this machine sleeps between two steps.
static void expect_exact(struct probe_report *sender, struct probe_report *receiver)
{
    assert_string_equal(sender->reason, "");
    assert_string_equal(receiver->reason, "");
    assert_int_equal(sender->outcome, PROBE_OK);
    assert_int_equal(receiver->outcome, PROBE_OK);
    const struct probe_receive *in = &receiver->receive;
    assert_true(sender->has_send && receiver->has_receive);
    assert_true(in->packets_received > 0);
    assert_int_equal(in->packets_expected, sender->send.packets_sent);
    assert_int_equal(in->packets_received + in->packets_lost, in->packets_expected);
    assert_true(in->packets_lost_receiver <= in->packets_lost);
    assert_int_equal(in->bytes, in->packets_received * sender->send.length);
    assert_true(in->duration_s > 0);
    double bits = (double)in->bytes * 8;
    assert_true(fabs(in->bandwidth_bps * in->duration_s - bits) < 1e-6 * bits);
    uint64_t received = 0, sent = 0;
    for (size_t i = 0; i < in->interval_count; i++) {
        received += in->intervals[i].received;
        sent += in->intervals[i].sent;
    }
    assert_int_equal(received, in->packets_received);
    assert_int_equal(sent, in->packets_expected + sender->send.packets_lost_sender);
}

// Never more than is due. That nothing less leaves, test_pacer says: here the machine may sleep.
static void run_at(struct engine_bench *bench, const char *address, bool sender_connects,
    unsigned parallel, unsigned length, uint64_t rate_bps)
{
    engine_bench_end(bench);
    engine_bench_begin(bench, &probe_udp, address, sender_connects);
    struct testspec *spec = &bench->connecting.spec;
    spec->parallel = parallel;
    spec->length = length;
    spec->bitrate_bps = rate_bps;
    bench->listening.spec = *spec;
    engine_bench_run(bench);
    struct probe_report *sender = engine_bench_sender(bench);
    struct probe_report *receiver = engine_bench_receiver(bench);
    expect_exact(sender, receiver);
    unsigned each = length ? length : 1400;
    assert_int_equal(sender->send.length, each);
    assert_true((double)sender->send.packets_sent <= ceil(0.5 * (double)rate_bps / 8 / each));
    assert_true(receiver->receive.jitter_s >= 0);
    assert_int_equal(receiver->receive.pdv.count, receiver->receive.packets_received);
    assert_string_equal(receiver->receive.stamps, "kernel");
}

static void run(struct engine_bench *bench, const char *address, bool sender_connects,
    unsigned parallel, unsigned length)
{
    run_at(bench, address, sender_connects, parallel, length, 10000000);
}

static void what_was_sent_is_counted_exactly(void **state)
{
    run(*state, "127.0.0.1", true, 1, 0);
}

// 5 us apart: faster than a thread wakes.
static void datagrams_that_are_due_together_are_counted_exactly(void **state)
{
    run_at(*state, "127.0.0.1", true, 1, 32, 50000000);
}

static void the_receiver_may_open_the_flow(void **state)
{
    run(*state, "127.0.0.1", false, 1, 0);
}

static void four_streams_share_the_rate(void **state)
{
    run(*state, "127.0.0.1", true, 4, 0);
}

// As where the kernel has no vDSO for its clock source: on some hypervisors.
static void clocks_that_are_slow_to_read_hold_nothing_up(void **state)
{
    atomic_store(&clock_cost_ns, 30 * NS_PER_US);
    run_at(*state, "127.0.0.1", true, 1, 0, 2000000);
}

// Datagrams 25 us apart: some wait to be read when it is set.
static void a_wall_clock_that_is_set_moves_no_arrival(void **state)
{
    static const long steps_s[] = {3600, -3600};
    for (size_t i = 0; i < 2; i++) {
        struct engine_bench *bench = *state;
        atomic_store(&step_at_mono_ns, 0);
        atomic_store(&packets_to_step, 4000);
        atomic_store(&step_s, steps_s[i]);
        run_at(bench, "127.0.0.1", true, 1, 32, 10000000);
        const struct probe_receive *in = &engine_bench_receiver(bench)->receive;
        assert_true(in->duration_s < 60 && in->pdv.max_s < 60 && in->ipdv.max_s < 60);
        atomic_store(&step_s, 0);
    }
}

static void a_flood_is_counted_as_exactly_as_a_stated_rate(void **state)
{
    static const unsigned lengths[] = {0, 64, 9000};
    for (int i = 0; i < 3; i++) {
        struct engine_bench *bench = *state;
        engine_bench_end(bench);
        engine_bench_begin(bench, &probe_udp, "127.0.0.1", true);
        struct testspec *spec = &bench->connecting.spec;
        spec->bitrate_max = true;
        spec->length = lengths[i];
        spec->parallel = 1 + 2 * (unsigned)i;
        spec->duration_ns = 200 * NS_PER_MS;
        bench->listening.spec = *spec;
        engine_bench_run(bench);
        expect_exact(&bench->connected, &bench->listened);
        assert_non_null(strstr(bench->connected.technique, "flood"));
    }
}

// Each stream may have a thread of its own, but the cap is one.
static void streams_of_a_flood_keep_a_cap_together(void **state)
{
    struct engine_bench *bench = *state;
    engine_bench_begin(bench, &probe_udp, "127.0.0.1", true);
    struct testspec *spec = &bench->connecting.spec;
    spec->bitrate_max = true;
    spec->parallel = 4;
    spec->duration_ns = 500 * NS_PER_MS;
    bench->listening.spec = *spec;
    bench->connecting.cap_bps = 40000000;
    engine_bench_run(bench);
    expect_exact(&bench->connected, &bench->listened);
    // However long this machine stands still: what is due in the window, 50 ms of debt, and a
    // packet of 64 KB a thread.
    const struct probe_send *out = &bench->connected.send;
    assert_true((double)out->bytes * 8 < 40e6 * (out->duration_s + 0.05) + 4 * 8 * 65536);
    assert_true(bench->connected.send.capped_bps == 40000000);
}

// The socket holds a packet or two of 46 datagrams, and counts each that it drops as one.
static void what_a_socket_drops_of_a_flood_is_bounded(void **state)
{
    struct engine_bench *bench = *state;
    engine_bench_begin(bench, &probe_udp, "127.0.0.1", true);
    bench->connecting.spec.bitrate_max = true;
    bench->listening.spec = bench->connecting.spec;
    bench->listening.spec.window = 4096;
    engine_bench_run(bench);
    expect_exact(&bench->connected, &bench->listened);
    const struct probe_receive *in = &bench->listened.receive;
    uint64_t bound = in->packets_lost_receiver_max == PROBE_ABSENT ? in->packets_lost_receiver
                                                                   : in->packets_lost_receiver_max;
    assert_int_equal(bound, in->packets_lost); // over loopback nobody else loses any
}

static void *run_in_thread(void *bench)
{
    engine_bench_run(bench);
    return NULL;
}

static void the_next_test_may_open_the_port_while_sockets_of_this_one_live(void **state)
{
    struct engine_bench *bench = *state;
    struct dataport_counters counters = {0};
    struct ticket_keys next;
    uint8_t id[TICKET_ID_SIZE] = {1}, key[TICKET_KEY_SIZE] = {2};
    pthread_t thread;
    int error;
    engine_bench_begin(bench, &probe_udp, "127.0.0.1", true);
    assert_int_equal(pthread_create(&thread, NULL, run_in_thread, bench), 0);
    for (int64_t until = clock_mono_ns() + 5 * NS_PER_S;
         counters.proven == 0 && clock_mono_ns() < until;)
        dataport_counters(bench->port, &counters);
    ticket_derive(id, key, &next);
    admission_t *admission =
        dataport_admit(bench->port, DATAPORT_UDP, &next, "127.0.0.1", 1, &error);
    pthread_join(thread, NULL);
    if (admission)
        dataport_dismiss(bench->port, &admission);
    assert_int_equal(error, 0);
    expect_exact(engine_bench_sender(bench), engine_bench_receiver(bench));
}

static void ipv6_works_the_same(void **state)
{
    run(*state, "::1", true, 1, 0);
}

static void a_load_as_long_as_a_control_message_is_no_control_message(void **state)
{
    run(*state, "127.0.0.1", true, 1, 120);
    run(*state, "127.0.0.1", true, 1, 32);
}

static void both_directions_run_at_once(void **state)
{
    struct engine_bench *bench = *state;
    engine_bench_begin(bench, &probe_udp, "127.0.0.1", true);
    bench->connecting.receives = bench->listening.sends = true;
    engine_bench_run(bench);
    expect_exact(&bench->connected, &bench->listened);
    expect_exact(&bench->listened, &bench->connected);
}

static void two_floods_meet_without_a_miscount(void **state)
{
    struct engine_bench *bench = *state;
    engine_bench_begin(bench, &probe_udp, "127.0.0.1", true);
    bench->connecting.receives = bench->listening.sends = true;
    bench->connecting.spec.bitrate_max = bench->listening.spec.bitrate_max = true;
    bench->connecting.spec.parallel = bench->listening.spec.parallel = 2;
    engine_bench_run(bench);
    expect_exact(&bench->connected, &bench->listened);
    expect_exact(&bench->listened, &bench->connected);
}

static void a_stopped_sender_stops_the_receiver(void **state)
{
    struct engine_bench *bench = *state;
    engine_bench_begin(bench, &probe_udp, "127.0.0.1", true);
    bench->connecting.spec.duration_ns = bench->listening.spec.duration_ns = 30 * NS_PER_S;
    assert_int_equal(write(bench->connect_stop[1], "", 1), 1);
    engine_bench_run(bench);
    assert_int_equal(bench->connected.outcome, PROBE_STOPPED);
    assert_true(bench->listened.outcome != PROBE_OK && bench->listened.reason[0] != '\0');
}

static void a_sender_over_the_tickets_rate_is_cut_off(void **state)
{
    struct engine_bench *bench = *state;
    engine_bench_begin(bench, &probe_udp, "127.0.0.1", true);
    bench->connecting.spec.bitrate_bps = 50000000;
    bench->connecting.spec.duration_ns = bench->listening.spec.duration_ns = 30 * NS_PER_S;
    bench->listening.limit_bps = 5000000;
    int64_t before = clock_mono_ns();
    engine_bench_run(bench);
    assert_int_equal(bench->listened.outcome, PROBE_FAILED);
    assert_non_null(strstr(bench->listened.reason, "exceed"));
    assert_int_equal(bench->connected.outcome, PROBE_FAILED);
    assert_true(clock_mono_ns() - before < 30 * NS_PER_S); // before its time was over
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_sent_is_counted_exactly, begin, end),
        cmocka_unit_test_setup_teardown(
            datagrams_that_are_due_together_are_counted_exactly, begin, end),
        cmocka_unit_test_setup_teardown(the_receiver_may_open_the_flow, begin, end),
        cmocka_unit_test_setup_teardown(a_flood_is_counted_as_exactly_as_a_stated_rate, begin, end),
        cmocka_unit_test_setup_teardown(streams_of_a_flood_keep_a_cap_together, begin, end),
        cmocka_unit_test_setup_teardown(what_a_socket_drops_of_a_flood_is_bounded, begin, end),
        cmocka_unit_test_setup_teardown(four_streams_share_the_rate, begin, end),
        cmocka_unit_test_setup_teardown(
            the_next_test_may_open_the_port_while_sockets_of_this_one_live, begin, end),
        cmocka_unit_test_setup_teardown(ipv6_works_the_same, begin, end),
        cmocka_unit_test_setup_teardown(
            a_load_as_long_as_a_control_message_is_no_control_message, begin, end),
        cmocka_unit_test_setup_teardown(clocks_that_are_slow_to_read_hold_nothing_up, begin, end),
        cmocka_unit_test_setup_teardown(a_wall_clock_that_is_set_moves_no_arrival, begin, end),
        cmocka_unit_test_setup_teardown(both_directions_run_at_once, begin, end),
        cmocka_unit_test_setup_teardown(two_floods_meet_without_a_miscount, begin, end),
        cmocka_unit_test_setup_teardown(a_stopped_sender_stops_the_receiver, begin, end),
        cmocka_unit_test_setup_teardown(a_sender_over_the_tickets_rate_is_cut_off, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
