// Both ends of TCP tests over loopback, with the sender, the receiver or a stranger misbehaving.

#include "meshtest.h"

#include <arpa/inet.h>
#include <math.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "engine_bench.h"
#include "kinds.h"

static void expect_good(struct engine_bench *bench)
{
    assert_string_equal(bench->connected.reason, "");
    assert_string_equal(bench->listened.reason, "");
    assert_int_equal(bench->connected.outcome, PROBE_OK);
    assert_int_equal(bench->listened.outcome, PROBE_OK);
}

static void expect_intervals(const struct probe_receive *receive, double duration_s)
{
    uint64_t bytes = 0;
    double seconds = 0;
    for (size_t i = 0; i < receive->interval_count; i++) {
        assert_true(fabs(receive->intervals[i].start_s - seconds) < 1e-6);
        bytes += receive->intervals[i].bytes;
        seconds += receive->intervals[i].duration_s;
    }
    assert_int_equal(bytes, receive->bytes);
    assert_true(fabs(seconds - receive->duration_s) < 1e-6);
    // A machine that stands still for a while looks late.
    assert_true(receive->duration_s > duration_s - 0.001 && receive->duration_s < duration_s + 5);
}

static void run_plain(const char *address, bool sender_connects, unsigned parallel)
{
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, address, sender_connects);
    bench.connecting.spec.parallel = bench.listening.spec.parallel = parallel;
    engine_bench_run(&bench);
    expect_good(&bench);
    const struct probe_receive *receive = &engine_bench_receiver(&bench)->receive;
    const struct probe_send *send = &engine_bench_sender(&bench)->send;
    assert_true(engine_bench_receiver(&bench)->has_receive);
    assert_true(engine_bench_sender(&bench)->has_send);
    expect_intervals(receive, 0.5);
    assert_true(receive->bytes > 0 && receive->bytes != PROBE_ABSENT);
    assert_true(fabs((double)receive->bytes * 8 / receive->duration_s - receive->bandwidth_bps) <
                1e-3 * receive->bandwidth_bps);
    assert_true(send->rtt_loaded.count > 0 && send->min_rtt_s > 0 && send->cwnd_max > 0);
    assert_true(send->busy > 0 && send->busy <= 1);
    assert_true(engine_bench_sender(&bench)->load.busiest_thread > 0);
    engine_bench_end(&bench);
}

static void load_flows_from_the_connecting_end(void **state)
{
    (void)state;
    run_plain("127.0.0.1", true, 1);
}

static void the_receiver_may_open_the_connection(void **state)
{
    (void)state;
    run_plain("127.0.0.1", false, 1);
}

static void eight_streams_are_one_test(void **state)
{
    (void)state;
    run_plain("127.0.0.1", true, 8);
}

static void ipv6_works_the_same(void **state)
{
    (void)state;
    run_plain("::1", true, 2);
}

static void a_stated_rate_is_kept(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.connecting.spec.bitrate_bps = bench.listening.spec.bitrate_bps = 100000000;
    bench.connecting.spec.duration_ns = bench.listening.spec.duration_ns = NS_PER_S;
    engine_bench_run(&bench);
    expect_good(&bench);
    double rate = bench.listened.receive.bandwidth_bps;
    // What is more than 50 ms late is forgiven; a machine that stands still takes from the rate.
    assert_true(rate > 0.2 * 1e8 && rate < 1.1 * 1e8);
    assert_int_equal(bench.connected.send.capped_bps, PROBE_ABSENT);
    engine_bench_end(&bench);
}

static void a_cap_of_the_owner_is_kept_and_said(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.connecting.cap_bps = 50000000;
    bench.connecting.spec.parallel = bench.listening.spec.parallel = 4;
    engine_bench_run(&bench);
    expect_good(&bench);
    double rate = bench.listened.receive.bandwidth_bps;
    assert_true(rate > 0.1 * 5e7 && rate < 1.2 * 5e7);
    assert_int_equal(bench.connected.send.capped_bps, 50000000);
    engine_bench_end(&bench);
}

static void a_detected_slow_start_is_at_most_half_of_the_time(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.connecting.spec.omit_ns = bench.listening.spec.omit_ns = -1;
    engine_bench_run(&bench);
    expect_good(&bench);
    assert_true(bench.listened.receive.omitted_s > 0);
    // A quarter of a second by the rule; the window begins when somebody looks.
    assert_true(bench.listened.receive.omitted_s <= 0.25 + 5);
    expect_intervals(&bench.listened.receive, 0.5);
    engine_bench_end(&bench);
}

// Whether it is claimed depends on how busy this machine is; what was told and looked at does not.
static void the_receiver_looks_at_what_the_sender_tells_of_its_path(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.connecting.spec.bitrate_bps = bench.listening.spec.bitrate_bps = 50000000;
    bench.connecting.spec.duration_ns = bench.listening.spec.duration_ns = 2500 * NS_PER_MS;
    bench.connecting.spec.until = bench.listening.spec.until = 0.5;
    engine_bench_run(&bench);
    expect_good(&bench);
    const struct probe_convergence *seen = &bench.listened.receive.convergence;
    assert_true(seen->looks >= 1 && seen->samples >= 20);
    assert_true(seen->reached == !seen->why);
    assert_true(!seen->why || !strstr(seen->why, "told nothing"));
    assert_true(bench.listened.receive.duration_s >= 2);
    assert_true(!seen->reached || seen->half_width <= 0.5);
    engine_bench_end(&bench);
}

static void a_test_that_is_too_short_for_a_look_runs_its_time(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.connecting.spec.until = bench.listening.spec.until = 0.5;
    engine_bench_run(&bench);
    expect_good(&bench);
    expect_intervals(&bench.listened.receive, 0.5);
    assert_false(bench.listened.receive.convergence.reached);
    assert_non_null(bench.listened.receive.convergence.why);
    // What is known of the path ends with what was seen, the omitted part included.
    assert_true(bench.listened.receive.whole_bytes >= bench.listened.receive.bytes);
    assert_true(bench.listened.receive.whole_s >= bench.listened.receive.duration_s);
    engine_bench_end(&bench);
}

static void both_directions_run_at_once(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.connecting.receives = bench.listening.sends = true;
    engine_bench_run(&bench);
    expect_good(&bench);
    assert_true(bench.connected.has_send && bench.connected.has_receive);
    assert_true(bench.listened.has_send && bench.listened.has_receive);
    expect_intervals(&bench.connected.receive, 0.5);
    expect_intervals(&bench.listened.receive, 0.5);
    engine_bench_end(&bench);
}

static void the_ticket_s_volume_ends_the_test(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.connecting.spec.bitrate_bps = bench.listening.spec.bitrate_bps = 80000000;
    bench.connecting.limit_bytes = bench.listening.limit_bytes = 2000000;
    engine_bench_run(&bench);
    assert_int_equal(bench.listened.outcome, PROBE_OK);
    assert_non_null(strstr(bench.listened.reason, "volume"));
    assert_true(bench.listened.receive.bytes <= 2000000);
    assert_true(bench.listened.receive.duration_s < 0.4);
    engine_bench_end(&bench);
}

static void a_receiver_does_not_bear_more_than_its_ticket_allows(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.listening.limit_bps = 10000000;
    engine_bench_run(&bench);
    assert_int_equal(bench.listened.outcome, PROBE_FAILED);
    assert_non_null(strstr(bench.listened.reason, "exceeds the rate"));
    assert_int_equal(bench.connected.outcome, PROBE_FAILED);
    engine_bench_end(&bench);
}

static void stopping_one_end_ends_both_at_once(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.connecting.spec.duration_ns = bench.listening.spec.duration_ns = 30 * NS_PER_S;
    int64_t begin = clock_mono_ns();
    assert_int_equal(write(bench.listen_stop[1], "", 1), 1);
    struct probe_hooks hooks = {.stop_fd = bench.connect_stop[0]};
    engine_bench_listen(&bench);
    bench.kind->run(&bench.connecting, bench.port, &hooks, &bench.connected);
    engine_bench_join(&bench);
    assert_true(clock_mono_ns() - begin < 4 * NS_PER_S);
    assert_int_equal(bench.listened.outcome, PROBE_STOPPED);
    assert_int_equal(bench.connected.outcome, PROBE_FAILED);
    engine_bench_end(&bench);
}

static void an_unknown_congestion_control_is_unsupported(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    strcpy(bench.connecting.spec.congestion, "nonesuch");
    bench.listening.expiry_mono_ns = clock_mono_ns() + NS_PER_S;
    engine_bench_run(&bench);
    assert_int_equal(bench.connected.outcome, PROBE_UNSUPPORTED);
    assert_non_null(strstr(bench.connected.reason, "nonesuch"));
    assert_int_equal(bench.listened.outcome, PROBE_FAILED);
    engine_bench_end(&bench);
}

static void a_wrong_key_gets_no_test(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.connecting.keys.handshake[0] ^= 1;
    bench.listening.expiry_mono_ns = clock_mono_ns() + NS_PER_S / 2;
    engine_bench_run(&bench);
    assert_int_equal(bench.connected.outcome, PROBE_FAILED);
    assert_int_equal(bench.listened.outcome, PROBE_FAILED);
    assert_false(bench.listened.has_receive);
    engine_bench_end(&bench);
}

// Opens the test's two streams by hand, as a sender that is then up to no good.
static void open_streams(struct engine_bench *bench, int fds[2])
{
    for (unsigned i = 0; i < 2; i++) {
        struct dataport_target target = {.protocol = DATAPORT_TCP,
            .peer_address = "127.0.0.1",
            .peer_port = dataport_number(bench->port),
            .deadline_mono_ns = clock_mono_ns() + 3 * NS_PER_S,
            .stop_fd = -1};
        fds[i] = dataport_connect(&target, &bench->connecting.keys, (uint8_t)i);
        assert_true(fds[i] >= 0);
    }
}

static void a_sender_that_vanishes_is_noticed(void **state)
{
    (void)state;
    struct engine_bench bench;
    int fds[2];
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    engine_bench_listen(&bench);
    open_streams(&bench, fds);
    assert_int_equal(send(fds[1], "load", 4, MSG_NOSIGNAL), 4);
    close(fds[0]);
    close(fds[1]);
    engine_bench_join(&bench);
    assert_int_equal(bench.listened.outcome, PROBE_FAILED);
    assert_true(bench.listened.retry);
    assert_non_null(strstr(bench.listened.reason, "closed"));
    engine_bench_end(&bench);
}

static void forged_control_bytes_end_the_test(void **state)
{
    (void)state;
    struct engine_bench bench;
    uint8_t bytes[CONTROL_SIZE] = "MPD1";
    int fds[2];
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    engine_bench_listen(&bench);
    open_streams(&bench, fds);
    assert_int_equal(send(fds[0], bytes, sizeof bytes, MSG_NOSIGNAL), (int)sizeof bytes);
    engine_bench_join(&bench);
    assert_int_equal(bench.listened.outcome, PROBE_FAILED);
    assert_non_null(strstr(bench.listened.reason, "not the sender's"));
    close(fds[0]);
    close(fds[1]);
    engine_bench_end(&bench);
}

static void a_pause_in_the_load_leaves_the_intervals_in_time(void **state)
{
    (void)state;
    struct engine_bench bench;
    int fds[2];
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    engine_bench_listen(&bench);
    open_streams(&bench, fds);
    assert_int_equal(send(fds[1], "load", 4, MSG_NOSIGNAL), 4);
    // Feedback until DONE; not one more byte of load is sent.
    struct control message = {.phase = CONTROL_WAITING};
    uint8_t bytes[CONTROL_SIZE];
    struct timeval patience = {.tv_sec = 3};
    setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int flags = 0;
    (void)flags;
    while (message.phase != CONTROL_DONE) {
        struct timespec now_wait = {0, 1000000};
        ssize_t got = recv(fds[0], bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0) {
            nanosleep(&now_wait, NULL);
            continue;
        }
        assert_int_equal(got, sizeof bytes);
        assert_true(control_unpack(bytes, sizeof bytes, &bench.connecting.keys, 1, &message));
    }
    struct control final = {.type = CONTROL_FINAL, .sequence = 1};
    control_pack(&final, &bench.connecting.keys, 0, bytes);
    assert_int_equal(send(fds[0], bytes, sizeof bytes, MSG_NOSIGNAL), (int)sizeof bytes);
    engine_bench_join(&bench);
    assert_int_equal(bench.listened.outcome, PROBE_OK);
    assert_int_equal(bench.listened.receive.interval_count, 5);
    for (int i = 0; i < 5; i++)
        // One that is looked at by more than half a step late ends on the grid.
        assert_true(fabs(bench.listened.receive.intervals[i].start_s - 0.1 * i) < 0.0501);
    close(fds[0]);
    close(fds[1]);
    engine_bench_end(&bench);
}

static void say(struct engine_bench *bench, int fd, struct control *message)
{
    uint8_t bytes[CONTROL_SIZE];
    message->sequence++;
    control_pack(message, &bench->connecting.keys, 0, bytes);
    assert_int_equal(send(fd, bytes, sizeof bytes, MSG_NOSIGNAL), (int)sizeof bytes);
}

static enum control_phase hear(struct engine_bench *bench, int fd, enum control_phase phase)
{
    uint8_t bytes[CONTROL_SIZE];
    struct control message = {.phase = phase};
    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) == (ssize_t)sizeof bytes)
        assert_true(control_unpack(bytes, sizeof bytes, &bench->connecting.keys, 1, &message));
    return message.phase;
}

// A sender by hand: an even load over a path that it calls quiet.
static void a_test_ends_once_its_rate_is_known_well_enough(void **state)
{
    (void)state;
    struct engine_bench bench;
    static const uint8_t load[20000];
    int fds[2];
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    bench.listening.spec.duration_ns = 30 * NS_PER_S;
    bench.listening.spec.interval_ns = NS_PER_S;
    bench.listening.spec.until = 0.5;
    engine_bench_listen(&bench);
    open_streams(&bench, fds);
    struct control path = {.type = CONTROL_PATH, .rtt_ns = NS_PER_MS};
    int64_t begin = clock_mono_ns();
    enum control_phase phase = CONTROL_WAITING;
    for (int64_t due = begin; phase != CONTROL_DONE; due += 20 * NS_PER_MS) {
        struct timespec at = {due / NS_PER_S, due % NS_PER_S};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        assert_int_equal(send(fds[1], load, sizeof load, MSG_NOSIGNAL), (int)sizeof load);
        say(&bench, fds[0], &path);
        phase = hear(&bench, fds[0], phase);
    }
    path.type = CONTROL_FINAL;
    say(&bench, fds[0], &path);
    engine_bench_join(&bench);
    const struct probe_receive *receive = &bench.listened.receive;
    assert_int_equal(bench.listened.outcome, PROBE_OK);
    assert_true(receive->convergence.reached && receive->convergence.half_width <= 0.5);
    assert_true(receive->duration_s >= 2 && receive->duration_s < 20);
    assert_true(fabs(receive->bandwidth_bps - 8e6) < 4e6);
    assert_true(receive->whole_bytes >= receive->bytes && receive->whole_s >= receive->duration_s);
    close(fds[0]);
    close(fds[1]);
    engine_bench_end(&bench);
}

static void a_silent_data_port_is_said_so_and_not_retried(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_tcp, "127.0.0.1", true);
    // Accepts in the kernel, never answers.
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int mute = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(mute, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(mute, 8), 0);
    getsockname(mute, (struct sockaddr *)&address, &size);
    bench.connecting.peer_port = ntohs(address.sin_port);
    struct probe_hooks hooks = {.stop_fd = bench.connect_stop[0]};
    bench.kind->run(&bench.connecting, bench.port, &hooks, &bench.connected);
    assert_non_null(strstr(bench.connected.reason, "no answer within 3 s"));
    assert_false(bench.connected.retry);
    close(mute);
    engine_bench_end(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_flows_from_the_connecting_end),
        cmocka_unit_test(the_receiver_may_open_the_connection),
        cmocka_unit_test(eight_streams_are_one_test),
        cmocka_unit_test(ipv6_works_the_same),
        cmocka_unit_test(a_stated_rate_is_kept),
        cmocka_unit_test(a_cap_of_the_owner_is_kept_and_said),
        cmocka_unit_test(a_detected_slow_start_is_at_most_half_of_the_time),
        cmocka_unit_test(the_receiver_looks_at_what_the_sender_tells_of_its_path),
        cmocka_unit_test(a_test_that_is_too_short_for_a_look_runs_its_time),
        cmocka_unit_test(both_directions_run_at_once),
        cmocka_unit_test(the_ticket_s_volume_ends_the_test),
        cmocka_unit_test(a_receiver_does_not_bear_more_than_its_ticket_allows),
        cmocka_unit_test(stopping_one_end_ends_both_at_once),
        cmocka_unit_test(an_unknown_congestion_control_is_unsupported),
        cmocka_unit_test(a_wrong_key_gets_no_test),
        cmocka_unit_test(a_sender_that_vanishes_is_noticed),
        cmocka_unit_test(forged_control_bytes_end_the_test),
        cmocka_unit_test(a_pause_in_the_load_leaves_the_intervals_in_time),
        cmocka_unit_test(a_test_ends_once_its_rate_is_known_well_enough),
        cmocka_unit_test(a_silent_data_port_is_said_so_and_not_retried),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
