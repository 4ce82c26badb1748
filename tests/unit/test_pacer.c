// When datagrams are due, by a clock that stands still or jumps as the test says.

#include "meshtest.h"

#include <stdlib.h>

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
            pacer_departed(pacer, ready, begin_ns + i * step_ns);
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
    pacer_departed(&pacer, 1, START);
    assert_int_equal(pacer_ready(&pacer, START + NS_PER_MS - 1, 32), 0);
    assert_int_equal(pacer_ready(&pacer, START + NS_PER_MS, 32), 1);
    assert_int_equal(pacer_due_ahead(&pacer, 9), START + 10 * NS_PER_MS);
}

// Sends one by one until `end_ns`: each thread wakes 30 us late, and that of departure `held` by
// 3 ms. The shortest gap after the first few.
static int64_t one_by_one(struct pacer *pacer, int64_t end_ns, uint64_t held, int64_t *longest_ns)
{
    int64_t shortest_ns = INT64_MAX, before_ns = 0;
    *longest_ns = 0;
    for (;;) {
        int64_t now_ns = pacer_next(pacer) + 30 * NS_PER_US;
        if (pacer->departed == held)
            now_ns += 3 * NS_PER_MS;
        if (now_ns >= end_ns)
            return shortest_ns;
        assert_int_equal(pacer_ready(pacer, now_ns, 1), 1);
        int64_t gap_ns = now_ns - before_ns;
        if (pacer->departed > 100 && gap_ns < shortest_ns)
            shortest_ns = gap_ns;
        if (pacer->departed > 100 && gap_ns > *longest_ns)
            *longest_ns = gap_ns;
        before_ns = now_ns;
        pacer_departed(pacer, 1, now_ns);
    }
}

static void what_a_late_wake_up_owes_leaves_in_no_burst(void **state)
{
    (void)state;
    struct pacer pacer;
    int64_t longest_ns;
    pacer_start(&pacer, START, 1000, 80e6); // 100 us apart
    int64_t shortest_ns = one_by_one(&pacer, START + NS_PER_S, 2000, &longest_ns);
    assert_true(longest_ns > 3 * NS_PER_MS);
    assert_true(shortest_ns > 79 * NS_PER_US);
    assert_true(pacer.departed >= 9999 && pacer.departed <= 10000); // and yet all have left
}

static void being_always_a_little_late_moves_no_gap(void **state)
{
    (void)state;
    struct pacer pacer;
    int64_t longest_ns;
    pacer_start(&pacer, START, 1000, 80e6);
    int64_t shortest_ns = one_by_one(&pacer, START + NS_PER_S, UINT64_MAX, &longest_ns);
    assert_int_equal(shortest_ns, 100 * NS_PER_US);
    assert_int_equal(longest_ns, 100 * NS_PER_US);
}

static void one_who_owes_much_is_in_a_hurry(void **state)
{
    (void)state;
    struct pacer pacer;
    pacer_start(&pacer, START, 1000, 80e6);
    pacer_departed(&pacer, 1, START + 20 * NS_PER_MS);
    assert_int_equal(pacer_next(&pacer), START + 20 * NS_PER_MS);
}

static void what_comes_after_the_next_is_foreseen(void **state)
{
    (void)state;
    struct pacer pacer;
    pacer_start(&pacer, START, 1000, 80e6);
    pacer_departed(&pacer, 1, START + 3 * NS_PER_MS / 10); // two are owed besides
    for (unsigned i = 0; i < 50; i++) {
        int64_t foreseen = pacer_after_next(&pacer);
        pacer_departed(&pacer, 1, pacer_next(&pacer));
        assert_true(llabs(pacer_next(&pacer) - foreseen) <= NS_PER_US / 2); // what is usual varies
    }
    assert_int_equal(pacer_next(&pacer), pacer_due(&pacer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rate_is_exact_over_any_time),
        cmocka_unit_test(a_late_wake_up_owes_nothing_at_the_windows_end),
        cmocka_unit_test(more_than_the_burst_is_forgiven),
        cmocka_unit_test(slow_rates_forgive_no_single_datagram),
        cmocka_unit_test(nothing_is_due_before_its_time),
        cmocka_unit_test(what_a_late_wake_up_owes_leaves_in_no_burst),
        cmocka_unit_test(being_always_a_little_late_moves_no_gap),
        cmocka_unit_test(one_who_owes_much_is_in_a_hurry),
        cmocka_unit_test(what_comes_after_the_next_is_foreseen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
