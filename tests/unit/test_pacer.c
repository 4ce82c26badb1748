// When datagrams are due, by a clock that stands still or jumps as the test says.

#include "meshtest.h"

#include "clock.h"
#include "pacer.h"

#define START (INT64_C(12345) * NS_PER_S)

// Sends what is due at each of `steps` wake-ups, `step_ns` apart; how many departed.
static uint64_t wake(struct pacer *pacer, int64_t begin_ns, int64_t step_ns, unsigned steps)
{
    uint64_t before = pacer->departed;
    for (unsigned i = 0; i < steps; i++) {
        unsigned ready;
        while ((ready = pacer_ready(pacer, begin_ns + i * step_ns, 32)) > 0)
            pacer_departed(pacer, ready);
    }
    return pacer->departed - before;
}

static void the_rate_is_exact_over_any_time(void **state)
{
    (void)state;
    struct pacer pacer;
    pacer_start(&pacer, START, 1400, 99999999); // no whole number of nanoseconds apart
    uint64_t departed = wake(&pacer, START, 777777, 100000);
    double due = 99999 * 777777e-9 * 99999999 / 8 / 1400;
    assert_true((double)departed > due && (double)departed <= due + 1);
}

static void a_late_wake_up_owes_nothing_at_the_windows_end(void **state)
{
    (void)state;
    struct pacer pacer;
    pacer_start(&pacer, START, 32, 50e6); // 5.12 us apart
    (void)wake(&pacer, START, 49 * NS_PER_MS, 10);
    assert_true(pacer_due(&pacer) > START + 9 * 49 * NS_PER_MS);
}

static void more_than_the_burst_is_forgiven(void **state)
{
    (void)state;
    struct pacer pacer;
    pacer_start(&pacer, START, 1000, 8e6); // one a millisecond
    assert_int_equal(wake(&pacer, START + NS_PER_S, 1, 1), 51);
    assert_int_equal(wake(&pacer, START + NS_PER_S + 10 * NS_PER_MS, 1, 1), 10);
}

static void slow_rates_forgive_no_single_datagram(void **state)
{
    (void)state;
    struct pacer pacer;
    pacer_start(&pacer, START, 1000, 8000); // one a second
    assert_int_equal(wake(&pacer, START, 1, 1), 1);
    assert_int_equal(wake(&pacer, START + 3 * NS_PER_S, 1, 1), 3);
}

static void nothing_is_due_before_its_time(void **state)
{
    (void)state;
    struct pacer pacer;
    pacer_start(&pacer, START, 1000, 8e6);
    assert_int_equal(pacer_ready(&pacer, START - 1, 32), 0);
    pacer_departed(&pacer, 1);
    assert_int_equal(pacer_ready(&pacer, START + NS_PER_MS - 1, 32), 0);
    assert_int_equal(pacer_ready(&pacer, START + NS_PER_MS, 32), 1);
    assert_int_equal(pacer_due_ahead(&pacer, 9), START + 10 * NS_PER_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rate_is_exact_over_any_time),
        cmocka_unit_test(a_late_wake_up_owes_nothing_at_the_windows_end),
        cmocka_unit_test(more_than_the_burst_is_forgiven),
        cmocka_unit_test(slow_rates_forgive_no_single_datagram),
        cmocka_unit_test(nothing_is_due_before_its_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
