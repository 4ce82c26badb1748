#include "meshtest.h"

#include <stdlib.h>
#include <string.h>

#include "capability.h"

static void what_cannot_be_done_has_a_reason(void **state)
{
    (void)state;
    struct guard guard;
    struct capability found;
    guard_defaults(&guard);
    capability_find(&found, &guard);
    assert_true(found.tcp);
    assert_true(found.udp);
    assert_int_equal(found.sctp, *found.sctp_reason == '\0');
    assert_true(found.cores >= 1);
    assert_int_equal(strlen(found.boot_id), 36);
    assert_non_null(strstr(found.kernel, "Linux "));
    assert_true(*found.hostname);
}

// Kernels differ: tests/kernel runs this in some of which it knows what is there ("yes", or a part
// of the reason). Elsewhere the reason is one that an owner can act on.
static void missing_sctp_is_explained_by_its_cause(void **state)
{
    (void)state;
    const char *expected = getenv("MESHPERF_EXPECT_SCTP");
    struct guard guard;
    struct capability found;
    guard_defaults(&guard);
    capability_find(&found, &guard);
    if (expected && strcmp(expected, "yes") == 0)
        assert_true(found.sctp);
    else if (expected)
        assert_non_null(strstr(found.sctp_reason, expected));
    else if (!found.sctp)
        assert_non_null(strstr(found.sctp_reason, "SCTP"));
}

static void sctp_that_came_or_went_is_noticed(void **state)
{
    (void)state;
    struct guard guard;
    struct capability found, before;
    guard_defaults(&guard);
    capability_find(&found, &guard);
    before = found;
    assert_false(capability_changed(&found));
    if (strstr(found.sctp_reason, "half"))
        return; // a module that is there and does not work looks like one that does
    found.sctp = !before.sctp; // as if it had been otherwise until now
    strcpy(found.sctp_reason, before.sctp ? "it was missing" : "");
    found.test_count = 0;
    assert_true(capability_changed(&found));
    assert_int_equal(found.sctp, before.sctp);
    assert_string_equal(found.sctp_reason, before.sctp_reason);
    assert_int_equal(found.test_count, before.test_count);
    assert_false(capability_changed(&found));
}

static void only_tests_that_are_built_are_claimed(void **state)
{
    (void)state;
    struct guard guard;
    struct capability found;
    guard_defaults(&guard);
    capability_find(&found, &guard);
    bool latency = false;
    for (size_t i = 0; i < found.test_count; i++) {
        enum test_kind kind;
        assert_true(test_kind_parse(found.tests[i], &kind));
        latency = latency || kind == TEST_LATENCY;
        assert_true(kind == TEST_LATENCY || kind == TEST_PORT || kind == TEST_PATH || probe_find(kind));
    }
    assert_true(latency);
}

static void the_guards_limits_are_announced(void **state)
{
    (void)state;
    struct guard guard;
    struct capability found;
    Mp__Capabilities wire;
    guard_defaults(&guard);
    guard.rate_bps = 1000000000;
    capability_find(&found, &guard);
    capability_to_wire(&found, &guard, &wire);
    assert_true(wire.has_guard_rate_bps);
    assert_int_equal(wire.guard_rate_bps, 1000000000);
    assert_false(wire.has_guard_bytes);
    assert_non_null(strstr(wire.guard, "1G"));
}

static void the_address_that_reaches_the_controller_is_taken(void **state)
{
    (void)state;
    static const char none[2][CAPABILITY_ADDRESS_SIZE] = {"", ""};
    char found[2][CAPABILITY_ADDRESS_SIZE];
    // Loopback has no global address beside it.
    assert_int_equal(capability_addresses("tcp://127.0.0.1:5700", none, found), 1);
    assert_string_equal(found[0], "127.0.0.1");
    assert_int_equal(capability_addresses("no endpoint", none, found), 0);
}

static void a_chosen_address_wins_in_its_family(void **state)
{
    (void)state;
    static const char both[2][CAPABILITY_ADDRESS_SIZE] = {"10.9.8.7", "fd00::9"};
    static const char one[2][CAPABILITY_ADDRESS_SIZE] = {"", "fd00::9"};
    char found[2][CAPABILITY_ADDRESS_SIZE];
    assert_int_equal(capability_addresses("tcp://127.0.0.1:5700", both, found), 2);
    assert_string_equal(found[0], "10.9.8.7");
    assert_string_equal(found[1], "fd00::9");
    assert_int_equal(capability_addresses("tcp://127.0.0.1:5700", one, found), 2);
    assert_string_equal(found[0], "127.0.0.1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_done_has_a_reason),
        cmocka_unit_test(missing_sctp_is_explained_by_its_cause),
        cmocka_unit_test(sctp_that_came_or_went_is_noticed),
        cmocka_unit_test(only_tests_that_are_built_are_claimed),
        cmocka_unit_test(the_guards_limits_are_announced),
        cmocka_unit_test(the_address_that_reaches_the_controller_is_taken),
        cmocka_unit_test(a_chosen_address_wins_in_its_family),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
