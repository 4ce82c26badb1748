#include "meshtest.h"

#include <string.h>

#include "clock.h"
#include "guard.h"

static struct guard guard_of(const char *network)
{
    struct guard guard;
    guard_defaults(&guard);
    if (network) {
        assert_int_equal(cidr_parse(network, &guard.peers[0]), 0);
        guard.peer_count = 1;
    }
    return guard;
}

static struct probe_order order_of(enum test_kind kind)
{
    struct probe_order order;
    memset(&order, 0, sizeof order);
    testspec_defaults(kind, &order.spec);
    strcpy(order.peer_address, "10.1.2.3");
    order.limit_ns = 100 * NS_PER_S;
    return order;
}

static void without_a_guard_everything_goes_for_an_hour(void **state)
{
    (void)state;
    struct guard guard = guard_of(NULL);
    struct probe_order order = order_of(TEST_TCP);
    char reason[GUARD_TEXT_SIZE];
    assert_true(guard_admit(&guard, &order, 63, reason));
    assert_int_equal(order.limit_ns, 100 * NS_PER_S);
    assert_int_equal(order.cap_bps, 0);
    assert_int_equal(order.limit_bps, 0);
    assert_int_equal(order.limit_bytes, 0);
    order.spec.duration_ns = 3601 * NS_PER_S;
    assert_false(guard_admit(&guard, &order, 0, reason));
    assert_non_null(strstr(reason, "guard: duration"));
}

static void a_rate_above_the_guard_is_skipped_and_one_without_end_is_capped(void **state)
{
    (void)state;
    struct guard guard = guard_of(NULL);
    char reason[GUARD_TEXT_SIZE];
    guard.rate_bps = 100000000;
    struct probe_order order = order_of(TEST_TCP);
    assert_true(guard_admit(&guard, &order, 0, reason));
    assert_int_equal(order.cap_bps, 100000000);
    assert_true(order.limit_bps >= 100000000 && order.limit_bps < 130000000);
    order = order_of(TEST_UDP);
    order.spec.bitrate_bps = 100000000;
    assert_true(guard_admit(&guard, &order, 0, reason));
    assert_int_equal(order.cap_bps, 0);
    order.spec.bitrate_bps = 100000001;
    assert_false(guard_admit(&guard, &order, 0, reason));
    assert_non_null(strstr(reason, "guard: rate"));
    order.spec.bitrate_max = true;
    assert_true(guard_admit(&guard, &order, 0, reason));
    assert_int_equal(order.cap_bps, 100000000);
}

static void a_ticket_is_narrowed_and_never_widened(void **state)
{
    (void)state;
    struct guard guard = guard_of(NULL);
    char reason[GUARD_TEXT_SIZE];
    guard.rate_bps = 100000000;
    guard.bytes = 1000000000;
    guard.duration_ns = 10 * NS_PER_S;
    struct probe_order order = order_of(TEST_TCP);
    order.limit_bps = 5;
    order.limit_bytes = 6;
    order.limit_ns = 7;
    assert_true(guard_admit(&guard, &order, 0, reason));
    assert_int_equal(order.limit_bps, 5);
    assert_int_equal(order.limit_bytes, 6);
    assert_int_equal(order.limit_ns, 7);
    order = order_of(TEST_TCP);
    assert_true(guard_admit(&guard, &order, 0, reason));
    assert_int_equal(order.limit_bytes, 1000000000);
    assert_true(order.limit_ns >= 10 * NS_PER_S && order.limit_ns < 20 * NS_PER_S);
}

static void a_volume_that_is_stated_is_judged_before_the_test(void **state)
{
    (void)state;
    struct guard guard = guard_of(NULL);
    char reason[GUARD_TEXT_SIZE];
    guard.bytes = 1000000;
    struct probe_order order = order_of(TEST_UDP);
    order.spec.duration_ns = 8 * NS_PER_S;
    order.spec.bitrate_bps = 1000000;
    assert_true(guard_admit(&guard, &order, 0, reason));
    order.spec.bidir = true;
    assert_false(guard_admit(&guard, &order, 0, reason));
    assert_non_null(strstr(reason, "guard: bytes"));
}

static void only_the_owners_networks_are_peers(void **state)
{
    (void)state;
    struct guard guard = guard_of("10.1.0.0/16");
    char reason[GUARD_TEXT_SIZE];
    struct probe_order order = order_of(TEST_TCP);
    assert_true(guard_admit(&guard, &order, 0, reason));
    assert_true(guard_peer_allowed(&guard, "::ffff:10.1.255.255"));
    static const char *const others[] = {
        "10.2.0.0", "::a01:0203", "fd00::1", "", "10.1.2", "localhost", "10.1.2.3%lo"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        strcpy(order.peer_address, others[i]);
        if (guard_admit(&guard, &order, 0, reason))
            fail_msg("%s is let in", others[i]);
        assert_non_null(strstr(reason, "guard: peers"));
    }
    guard = guard_of(NULL);
    assert_false(guard_peer_allowed(&guard, "no address"));
}

static void one_test_more_than_allowed_is_skipped(void **state)
{
    (void)state;
    struct guard guard = guard_of(NULL);
    char reason[GUARD_TEXT_SIZE];
    struct probe_order order = order_of(TEST_TCP);
    guard.tests = 4;
    assert_true(guard_admit(&guard, &order, 3, reason));
    assert_false(guard_admit(&guard, &order, 4, reason));
    assert_non_null(strstr(reason, "guard: tests"));
}

static void light_probes_keep_to_duration_and_rate(void **state)
{
    (void)state;
    struct guard guard = guard_of(NULL);
    char reason[GUARD_TEXT_SIZE];
    struct testspec spec;
    testspec_defaults(TEST_LATENCY, &spec);
    spec.probe_rate = 10;
    assert_true(guard_admit_light(&guard, &spec, 1000, reason));
    guard.rate_bps = 1000000;
    assert_false(guard_admit_light(&guard, &spec, 1000, reason));
    assert_non_null(strstr(reason, "guard: rate"));
    assert_true(guard_admit_light(&guard, &spec, 10, reason));
    // Those that only warm up are load, too.
    assert_true(guard_admit_light(&guard, &spec, 100, reason));
    guard.spin = true;
    assert_false(guard_admit_light(&guard, &spec, 100, reason));
    assert_true(guard_admit_light(&guard, &spec, 10, reason));
    guard.duration_ns = spec.duration_ns - 1;
    assert_false(guard_admit_light(&guard, &spec, 1, reason));
    assert_non_null(strstr(reason, "guard: duration"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_guard_everything_goes_for_an_hour),
        cmocka_unit_test(a_rate_above_the_guard_is_skipped_and_one_without_end_is_capped),
        cmocka_unit_test(a_ticket_is_narrowed_and_never_widened),
        cmocka_unit_test(a_volume_that_is_stated_is_judged_before_the_test),
        cmocka_unit_test(only_the_owners_networks_are_peers),
        cmocka_unit_test(one_test_more_than_allowed_is_skipped),
        cmocka_unit_test(light_probes_keep_to_duration_and_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
