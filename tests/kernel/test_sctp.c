// Both ends of SCTP tests over loopback. Runs in the guest: skips where the kernel has no SCTP.

#include "meshtest.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine_bench.h"
#include "kinds.h"

#define SKIPPED 77

static void run_plain(const char *address, bool sender_connects, unsigned parallel, uint64_t rate)
{
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_sctp, address, sender_connects);
    bench.connecting.spec.parallel = bench.listening.spec.parallel = parallel;
    bench.connecting.spec.bitrate_bps = bench.listening.spec.bitrate_bps = rate;
    engine_bench_run(&bench);
    assert_string_equal(bench.connected.reason, "");
    assert_string_equal(bench.listened.reason, "");
    assert_int_equal(bench.connected.outcome, PROBE_OK);
    assert_int_equal(bench.listened.outcome, PROBE_OK);
    const struct probe_receive *receive = &engine_bench_receiver(&bench)->receive;
    const struct probe_send *send = &engine_bench_sender(&bench)->send;
    assert_true(engine_bench_receiver(&bench)->has_receive);
    assert_true(engine_bench_sender(&bench)->has_send);
    assert_true(receive->bytes > 0 && receive->bytes != PROBE_ABSENT);
    if (rate)
        assert_true(fabs(receive->bandwidth_bps - (double)rate) < 0.1 * (double)rate);
    assert_true(send->segments > 0 && send->segments != PROBE_ABSENT);
    assert_int_equal(send->retransmits, 0);
    assert_true(send->cwnd_max > 0 && send->path_mtu > 0);
    assert_true(isnan(send->busy));
    engine_bench_end(&bench);
}

static void load_flows_from_the_connecting_end(void **state)
{
    (void)state;
    run_plain("127.0.0.1", true, 1, 0);
}

static void the_receiver_may_open_the_association(void **state)
{
    (void)state;
    run_plain("127.0.0.1", false, 1, 0);
}

static void eight_associations_are_one_test(void **state)
{
    (void)state;
    run_plain("127.0.0.1", true, 8, 0);
}

static void ipv6_works_the_same(void **state)
{
    (void)state;
    run_plain("::1", true, 1, 0);
}

static void a_rate_is_kept(void **state)
{
    (void)state;
    run_plain("127.0.0.1", true, 1, 20000000);
}

static void a_sender_that_is_stopped_ends_the_receivers_wait(void **state)
{
    (void)state;
    struct engine_bench bench;
    engine_bench_begin(&bench, &probe_sctp, "127.0.0.1", true);
    assert_int_equal(write(bench.connect_stop[1], "x", 1), 1);
    assert_int_equal(write(bench.listen_stop[1], "x", 1), 1);
    engine_bench_run(&bench);
    assert_int_not_equal(bench.listened.outcome, PROBE_OK);
    assert_int_not_equal(bench.connected.outcome, PROBE_OK);
    engine_bench_end(&bench);
}

int main(void)
{
    char reason[PROBE_TEXT_SIZE];
    if (!probe_sctp.supported(reason)) {
        fprintf(stderr, "SKIPPED: NO SCTP TEST RAN HERE: %s\n", reason);
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_flows_from_the_connecting_end),
        cmocka_unit_test(the_receiver_may_open_the_association),
        cmocka_unit_test(eight_associations_are_one_test),
        cmocka_unit_test(ipv6_works_the_same),
        cmocka_unit_test(a_rate_is_kept),
        cmocka_unit_test(a_sender_that_is_stopped_ends_the_receivers_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
