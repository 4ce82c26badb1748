// Where a window begins and how it is cut, on counts that are made up.

#include "meshtest.h"

#include <math.h>

#include "clock.h"
#include "tcp_window.h"

#define TICK_NS (50 * NS_PER_MS)
#define START_NS (7 * NS_PER_S)

static void slow_start_ends_where_a_bin_stops_growing(void **state)
{
    (void)state;
    static const unsigned grown[] = {10, 20, 40, 80, 84, 84};
    struct tcp_ramp ramp;
    uint64_t bytes = 500;
    int64_t now = START_NS;
    tcp_ramp_begin(&ramp, now, bytes, INT64_MAX);
    for (unsigned i = 0; i < 6; i++) {
        bytes += grown[i];
        now += TICK_NS;
        assert_int_equal(tcp_ramp_over(&ramp, now, bytes, 0, TICK_NS, 0), i == 5);
    }
}

static void a_bin_lasts_two_round_trips(void **state)
{
    (void)state;
    struct tcp_ramp ramp;
    tcp_ramp_begin(&ramp, START_NS, 0, INT64_MAX);
    for (int i = 1; i <= 11; i++)
        assert_false(tcp_ramp_over(
            &ramp, START_NS + i * TICK_NS, (uint64_t)i * 100, 0, TICK_NS, 2 * TICK_NS));
    assert_true(tcp_ramp_over(&ramp, START_NS + 12 * TICK_NS, 1200, 0, TICK_NS, 2 * TICK_NS));
}

static void nothing_that_arrives_is_no_end_of_slow_start(void **state)
{
    (void)state;
    struct tcp_ramp ramp;
    tcp_ramp_begin(&ramp, START_NS, 0, INT64_MAX);
    for (int i = 1; i <= 20; i++)
        assert_false(tcp_ramp_over(&ramp, START_NS + i * TICK_NS, 0, 0, TICK_NS, 0));
}

static int64_t begins_after(unsigned holes, int64_t latest_ns)
{
    struct tcp_ramp ramp;
    int64_t now = START_NS;
    uint64_t bytes = 0, out_of_order = 0;
    tcp_ramp_begin(&ramp, now, 0, latest_ns);
    for (unsigned i = 0; i < 100; i++) {
        now += TICK_NS;
        bytes += 100;
        out_of_order += i < holes;
        if (tcp_ramp_over(&ramp, now, bytes, out_of_order, TICK_NS, 0))
            return now;
    }
    return 0;
}

static void a_window_waits_until_no_hole_is_left_of_slow_start(void **state)
{
    (void)state;
    int64_t over_ns = begins_after(0, INT64_MAX);
    assert_int_equal(begins_after(7, INT64_MAX), START_NS + 8 * TICK_NS);
    assert_true(over_ns < START_NS + 7 * TICK_NS);
    assert_int_equal(begins_after(100, INT64_MAX), over_ns + 500 * NS_PER_MS);
    assert_int_equal(begins_after(0, START_NS + TICK_NS), START_NS + TICK_NS);
    assert_int_equal(begins_after(100, START_NS + TICK_NS), START_NS + TICK_NS + 500 * NS_PER_MS);
}

// ------------------------------------------------------------------ intervals

struct cut {
    double start_s, duration_s;
    uint64_t bytes;
};

static void expect(const struct probe_interval *one, const struct cut *cut)
{
    assert_true(fabs(one->start_s - cut->start_s) < 1e-9);
    assert_true(fabs(one->duration_s - cut->duration_s) < 1e-9);
    assert_int_equal(one->bytes, cut->bytes);
    assert_true(fabs(one->bandwidth_bps - 8 * (double)cut->bytes / cut->duration_s) <=
                1e-6 * (1 + one->bandwidth_bps));
}

static void look(struct tcp_intervals *intervals, int64_t at_ms, uint64_t bytes,
    const struct cut *cuts, unsigned count)
{
    struct probe_interval one;
    int64_t now = START_NS + at_ms * NS_PER_MS;
    for (unsigned i = 0; i < count; i++) {
        assert_true(tcp_intervals_next(intervals, now, bytes, &one));
        expect(&one, &cuts[i]);
    }
    assert_false(tcp_intervals_next(intervals, now, bytes, &one));
}

static struct tcp_intervals of(int64_t duration_ms, int64_t step_ms)
{
    struct tcp_intervals intervals;
    tcp_intervals_begin(
        &intervals, START_NS, START_NS + duration_ms * NS_PER_MS, step_ms * NS_PER_MS, 1000);
    return intervals;
}

static void intervals_end_when_somebody_looked_and_keep_to_the_grid(void **state)
{
    (void)state;
    struct tcp_intervals intervals = of(3000, 1000);
    struct probe_interval last;
    look(&intervals, 999, 1900, NULL, 0);
    look(&intervals, 1003, 2000, &(struct cut){0, 1.003, 1000}, 1);
    look(&intervals, 1999, 2700, NULL, 0);
    look(&intervals, 2001, 3000, &(struct cut){1.003, 0.998, 1000}, 1);
    look(&intervals, 3002, 4000, NULL, 0);
    assert_true(tcp_intervals_last(&intervals, START_NS + 3002 * NS_PER_MS, 4000, &last));
    expect(&last, &(struct cut){2.001, 1.001, 1000});
    assert_false(tcp_intervals_last(&intervals, START_NS + 3002 * NS_PER_MS, 4000, &last));
}

static void a_rest_under_a_tenth_belongs_to_the_interval_before(void **state)
{
    (void)state;
    struct tcp_intervals intervals = of(2050, 1000);
    look(&intervals, 1000, 2000, &(struct cut){0, 1, 1000}, 1);
    assert_int_equal(intervals.due_ns, START_NS + 2050 * NS_PER_MS);
    intervals = of(300, 1000);
    assert_int_equal(intervals.due_ns, START_NS + 300 * NS_PER_MS);
}

// 1000 bytes a second; stopped from 1.3 s to 4.2 s, while 700 bytes fitted into the buffers.
static void time_that_nobody_looked_reads_0_once_the_buffers_were_full(void **state)
{
    (void)state;
    struct tcp_intervals intervals = of(10000, 1000);
    look(&intervals, 1000, 2000, &(struct cut){0, 1, 1000}, 1);
    look(&intervals, 1300, 2300, NULL, 0);
    static const struct cut missed[] = {{1, 1, 1000}, {2, 1, 0}, {3, 1.2, 0}};
    look(&intervals, 4200, 3000, missed, 3);
    look(&intervals, 5000, 3900, &(struct cut){4.2, 0.8, 900}, 1);
}

// The kernel took all of it: nothing stood still.
static void time_that_nobody_looked_is_filled_at_the_rate_before(void **state)
{
    (void)state;
    struct tcp_intervals intervals = of(10000, 1000);
    look(&intervals, 1000, 2000, &(struct cut){0, 1, 1000}, 1);
    static const struct cut missed[] = {{1, 1, 1000}, {2, 1, 1000}, {3, 1, 1000}};
    look(&intervals, 4600, 5600, missed, 3);
    look(&intervals, 5000, 6000, &(struct cut){4, 1, 1000}, 1);
}

static void a_stop_in_the_first_interval_leaves_only_the_mean(void **state)
{
    (void)state;
    struct tcp_intervals intervals = of(10000, 1000);
    static const struct cut missed[] = {{0, 1, 100}, {1, 1, 100}};
    look(&intervals, 2800, 1280, missed, 2);
}

static void what_lay_behind_a_hole_did_not_arrive_in_the_window(void **state)
{
    (void)state;
    const unsigned payload = 1448;
    // 60 segments lay behind a hole at first, 10 at the end.
    struct tcp_count from = {940 * 1448, 1000}, to = {1990 * 1448, 2000};
    assert_int_equal(tcp_arrived(&from, &to, payload), 1000 * 1448);
    // The other way round what is counted is no more than what arrived.
    from.bytes = 990 * 1448;
    to.bytes = 1940 * 1448;
    assert_int_equal(tcp_arrived(&from, &to, payload), 950 * 1448);
    // Segments that are smaller than they may be prove nothing.
    to.bytes = from.bytes + 1000 * 500;
    assert_int_equal(tcp_arrived(&from, &to, payload), 1000 * 500);
    // Large packets that were counted as one segment each.
    from = (struct tcp_count){1000 * 65536, 1000};
    to = (struct tcp_count){2000 * 65536, 2000};
    assert_int_equal(tcp_arrived(&from, &to, payload), 1000 * 65536);
}

static void what_is_taken_away_is_of_the_first_intervals(void **state)
{
    (void)state;
    struct probe_interval intervals[] = {
        {.duration_s = 1, .bytes = 100, .bandwidth_bps = 800},
        {.duration_s = 0.5, .bytes = 100, .bandwidth_bps = 1600},
        {.duration_s = 1, .bytes = 100, .bandwidth_bps = 800},
    };
    tcp_intervals_correct(intervals, 3, 150);
    assert_int_equal(intervals[0].bytes, 0);
    assert_int_equal(intervals[1].bytes, 50);
    assert_int_equal(intervals[2].bytes, 100);
    assert_true(intervals[0].bandwidth_bps == 0 && intervals[1].bandwidth_bps == 800);
    tcp_intervals_correct(intervals, 0, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slow_start_ends_where_a_bin_stops_growing),
        cmocka_unit_test(a_bin_lasts_two_round_trips),
        cmocka_unit_test(nothing_that_arrives_is_no_end_of_slow_start),
        cmocka_unit_test(a_window_waits_until_no_hole_is_left_of_slow_start),
        cmocka_unit_test(intervals_end_when_somebody_looked_and_keep_to_the_grid),
        cmocka_unit_test(a_rest_under_a_tenth_belongs_to_the_interval_before),
        cmocka_unit_test(time_that_nobody_looked_reads_0_once_the_buffers_were_full),
        cmocka_unit_test(time_that_nobody_looked_is_filled_at_the_rate_before),
        cmocka_unit_test(a_stop_in_the_first_interval_leaves_only_the_mean),
        cmocka_unit_test(what_lay_behind_a_hole_did_not_arrive_in_the_window),
        cmocka_unit_test(what_is_taken_away_is_of_the_first_intervals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
