// Both ends of SCTP tests over loopback. Runs in the guest: skips where the kernel has no SCTP.
// No test may leave an association behind.

#include "meshtest.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "engine_bench.h"
#include "kinds.h"
#include "sctp.h"

#define SKIPPED 77

// ------------------------------------------------------------------ what the kernel still has

static unsigned associations(void)
{
    char line[512];
    unsigned count = 0;
    FILE *file = fopen("/proc/net/sctp/assocs", "re");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        count += !strstr(line, "ASSOC-ID");
    fclose(file);
    return count;
}

static int nothing_is_left(void **state)
{
    (void)state;
    int64_t deadline = clock_mono_ns() + 5 * NS_PER_S;
    while (associations() > 0 && clock_mono_ns() < deadline)
        poll(NULL, 0, 20);
    if (associations() > 0)
        print_error("%u associations were left behind\n", associations());
    return associations() > 0;
}

// ------------------------------------------------------------------ tests that succeed

struct plan {
    const char *address;
    bool receiver_connects, bidir;
    unsigned parallel, streams, length, window;
    uint64_t rate;
};

static void begin(struct engine_bench *bench, const struct plan *plan)
{
    engine_bench_begin(
        bench, &probe_sctp, plan->address ? plan->address : "127.0.0.1", !plan->receiver_connects);
    struct testspec *spec = &bench->connecting.spec;
    spec->parallel = plan->parallel ? plan->parallel : 1;
    spec->streams = plan->streams ? plan->streams : 1;
    spec->length = plan->length;
    spec->window = plan->window;
    spec->bitrate_bps = plan->rate;
    spec->bidir = plan->bidir;
    bench->listening.spec = *spec;
    if (plan->bidir)
        bench->connecting.sends = bench->connecting.receives = bench->listening.sends =
            bench->listening.receives = true;
}

// By default what 8 ms of the rate are, or the longest.
static unsigned message_length(const struct plan *plan)
{
    if (plan->length)
        return plan->length;
    return plan->rate ? (unsigned)(plan->rate / 1000) : TESTSPEC_LENGTH_SCTP_MAX;
}

// Messages take the stream numbers in turn: that many have seen one, whatever the machine had time
// for. Of what has arrived a receive buffer may not have been read.
static void judge_streams(const struct plan *plan, const struct probe_receive *receive)
{
    unsigned asked = plan->streams ? plan->streams : 1;
    uint64_t unread = (uint64_t)receive->receive_buffer * (plan->parallel ? plan->parallel : 1);
    uint64_t bytes = receive->whole_bytes > unread ? receive->whole_bytes - unread : 0;
    uint64_t messages = bytes / message_length(plan);
    assert_true(receive->streams <= asked);
    assert_true(receive->streams >= (messages < asked ? messages : asked));
}

static void judge_end(
    const struct plan *plan, const struct probe_report *tx, const struct probe_report *rx)
{
    assert_true(tx->has_send && rx->has_receive);
    const struct probe_receive *receive = &rx->receive;
    const struct probe_send *send = &tx->send;
    assert_true(receive->bytes > 0 && receive->bytes != PROBE_ABSENT);
    double bits = 8 * (double)receive->bytes;
    assert_true(fabs(receive->bandwidth_bps * receive->duration_s - bits) < 1e-6 * bits);
    // What was owed before the window, 50 ms or two messages, may come in it.
    if (plan->rate)
        assert_true(receive->bandwidth_bps < 1.2 * (double)plan->rate);
    assert_true(receive->interval_count >= 1);
    judge_streams(plan, receive);
    assert_true(receive->wire_l3_bps > receive->bandwidth_bps);
    assert_int_equal(send->length, message_length(plan));
    assert_true(send->cwnd_max > 0 && send->path_mtu > 0);
    assert_true(rx->load.cores >= 0 && tx->load.cores >= 0);
    assert_true(send->segments != PROBE_ABSENT && send->retransmits != PROBE_ABSENT);
    if (send->duration_s < 0.3) // this thread heard of the window when it was over
        return;
    assert_true(send->segments > 0);
    assert_true(send->busy >= 0 && send->busy <= 1);
    assert_true(send->receive_window_limited + send->send_buffer_limited <= send->busy + 1e-9);
}

static void run_plan(struct plan plan)
{
    struct engine_bench bench;
    begin(&bench, &plan);
    engine_bench_run(&bench);
    assert_string_equal(bench.connected.reason, "");
    assert_string_equal(bench.listened.reason, "");
    assert_int_equal(bench.connected.outcome, PROBE_OK);
    assert_int_equal(bench.listened.outcome, PROBE_OK);
    judge_end(&plan, engine_bench_sender(&bench), engine_bench_receiver(&bench));
    if (plan.bidir)
        judge_end(&plan, &bench.listened, &bench.connected);
    engine_bench_end(&bench);
}

#define PLAN(name, ...)                                                                            \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        run_plan((struct plan){__VA_ARGS__});                                                      \
    }

PLAN(load_flows_from_the_connecting_end, .parallel = 1)
PLAN(the_receiver_may_open_the_association, .receiver_connects = true)
PLAN(eight_associations_are_one_test, .parallel = 8)
PLAN(ipv6_works_the_same, .address = "::1", .streams = 3)
PLAN(a_rate_is_kept, .rate = 20000000)
PLAN(messages_are_spread_over_sixty_four_streams, .streams = 64, .rate = 40000000, .length = 4000)
PLAN(the_listening_end_spreads_its_messages_too, .streams = 64, .receiver_connects = true,
    .rate = 40000000, .length = 4000)
PLAN(both_directions_run_at_once, .bidir = true, .streams = 5, .rate = 6000000)
PLAN(the_longest_message_passes, .length = TESTSPEC_LENGTH_SCTP_MAX)

static void a_thousand_streams_can_be_asked_for(void **state)
{
    (void)state;
    run_plan((struct plan){.streams = TESTSPEC_STREAMS_MAX, .rate = 8000000, .length = 200});
}

static void the_ticks_in_which_the_kernel_tells_rtt_are_known(void **state)
{
    (void)state;
    assert_true(sctp_tick_ns() >= NS_PER_MS && sctp_tick_ns() <= 10 * NS_PER_MS);
}

// ------------------------------------------------------------------ tests that must fail, with
// words

static void a_message_longer_than_the_send_buffer_is_refused(void **state)
{
    (void)state;
    struct plan plan = {.window = 16384, .length = 60000};
    struct engine_bench bench;
    begin(&bench, &plan);
    engine_bench_run(&bench);
    const struct probe_report *tx = engine_bench_sender(&bench);
    assert_int_equal(tx->outcome, PROBE_FAILED);
    assert_false(tx->retry);
    assert_non_null(strstr(tx->reason, "32768 bytes cannot take messages of 60000"));
    assert_int_not_equal(engine_bench_receiver(&bench)->outcome, PROBE_OK);
    engine_bench_end(&bench);
}

static void a_sender_that_is_stopped_ends_the_receivers_wait(void **state)
{
    (void)state;
    struct engine_bench bench;
    begin(&bench, &(struct plan){0});
    assert_int_equal(write(bench.connect_stop[1], "x", 1), 1);
    assert_int_equal(write(bench.listen_stop[1], "x", 1), 1);
    engine_bench_run(&bench);
    assert_int_not_equal(bench.listened.outcome, PROBE_OK);
    assert_int_not_equal(bench.connected.outcome, PROBE_OK);
    engine_bench_end(&bench);
}

// Everything is lost until something was: the INIT of the first association.
static void *mend_the_wire(void *arg)
{
    static const char script[] =
        "i=0; until tc -s qdisc show dev lo | grep -q 'dropped [1-9]'; do"
        " sleep 0.02; i=$((i + 1)); test $i -lt 500 || exit 1; done; tc qdisc del dev lo root";
    return system(script) == 0 ? arg : NULL;
}

// The kernel's own timer would repeat it after three seconds, when both ends have given up. Three
// rounds, as this machine may sleep while the wire is mended.
static void a_lost_packet_of_the_handshake_costs_a_second_and_not_the_test(void **state)
{
    (void)state;
    bool passed = false;
    for (int round = 0; round < 3 && !passed; round++) {
        struct engine_bench bench;
        pthread_t mender;
        void *mended;
        begin(&bench, &(struct plan){.rate = 10000000});
        assert_int_equal(system("tc qdisc add dev lo root netem loss 100%"), 0);
        assert_int_equal(pthread_create(&mender, NULL, mend_the_wire, &bench), 0);
        engine_bench_run(&bench);
        pthread_join(mender, &mended);
        assert_non_null(mended);
        passed = bench.connected.outcome == PROBE_OK && bench.listened.outcome == PROBE_OK;
        engine_bench_end(&bench);
    }
    assert_true(passed);
}

// ------------------------------------------------------------------ strangers

static int stranger(const struct engine_bench *bench, const char *words)
{
    struct sockaddr_in there = {.sin_family = AF_INET,
        .sin_port = htons(bench->connecting.peer_port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP);
    assert_true(fd >= 0);
    sctp_abort_on_close(fd);
    assert_int_equal(connect(fd, (struct sockaddr *)&there, sizeof there), 0);
    if (*words)
        assert_int_equal(send(fd, words, strlen(words), MSG_NOSIGNAL), strlen(words));
    return fd;
}

static void strangers_associations_get_nothing_and_do_not_disturb(void **state)
{
    (void)state;
    struct engine_bench bench;
    struct dataport_counters counters;
    begin(&bench, &(struct plan){.rate = 10000000});
    engine_bench_listen(&bench);
    int silent = stranger(&bench, "");
    int talker =
        stranger(&bench, "GET / HTTP/1.1\r\nHost: this is longer than any greeting of ours\r\n"
                         "Accept: everything, please, and more than that, and then some\r\n\r\n");
    struct pollfd answer = {.fd = talker, .events = POLLIN};
    char byte;
    assert_int_equal(poll(&answer, 1, 5000), 1); // closed at once, without an answer
    assert_true(recv(talker, &byte, 1, MSG_DONTWAIT) <= 0);
    struct probe_hooks hooks = {.stop_fd = bench.connect_stop[0]};
    bench.kind->run(&bench.connecting, bench.port, &hooks, &bench.connected);
    engine_bench_join(&bench);
    assert_int_equal(bench.connected.outcome, PROBE_OK);
    assert_int_equal(bench.listened.outcome, PROBE_OK);
    answer.fd = silent;
    assert_int_equal(poll(&answer, 1, 5000), 1); // after 3 s
    assert_true(recv(silent, &byte, 1, MSG_DONTWAIT) <= 0);
    dataport_counters(bench.port, &counters);
    assert_true(counters.strangers >= 2);
    assert_int_equal(counters.forged, 0);
    close(silent);
    close(talker);
    engine_bench_end(&bench);
}

#define LEAVES_NOTHING(test) cmocka_unit_test_setup_teardown(test, NULL, nothing_is_left)

int main(void)
{
    char reason[PROBE_TEXT_SIZE];
    if (!probe_sctp.supported(reason)) {
        fprintf(stderr, "SKIPPED: NO SCTP TEST RAN HERE: %s\n", reason);
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        LEAVES_NOTHING(load_flows_from_the_connecting_end),
        LEAVES_NOTHING(the_receiver_may_open_the_association),
        LEAVES_NOTHING(eight_associations_are_one_test),
        LEAVES_NOTHING(ipv6_works_the_same),
        LEAVES_NOTHING(a_rate_is_kept),
        LEAVES_NOTHING(messages_are_spread_over_sixty_four_streams),
        LEAVES_NOTHING(the_listening_end_spreads_its_messages_too),
        LEAVES_NOTHING(both_directions_run_at_once),
        LEAVES_NOTHING(the_longest_message_passes),
        LEAVES_NOTHING(a_thousand_streams_can_be_asked_for),
        LEAVES_NOTHING(the_ticks_in_which_the_kernel_tells_rtt_are_known),
        LEAVES_NOTHING(a_message_longer_than_the_send_buffer_is_refused),
        LEAVES_NOTHING(a_sender_that_is_stopped_ends_the_receivers_wait),
        LEAVES_NOTHING(a_lost_packet_of_the_handshake_costs_a_second_and_not_the_test),
        LEAVES_NOTHING(strangers_associations_get_nothing_and_do_not_disturb),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
