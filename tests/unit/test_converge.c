// The rule that ends a test early, on series whose true mean is known.

#include "meshtest.h"

#include <math.h>
#include <string.h>

#include "clock.h"
#include "converge.h"
#include "series.h"

static const struct converge_path quiet_path = {.known = true};

// Samples until the claim, or 0 when the cap of 100 samples came first. `mean`: of all of them.
static unsigned run(struct converge *self, struct series *series, double target,
    const struct converge_path *path, double *mean)
{
    double sum = 0;
    converge_begin(self, target);
    for (unsigned i = 1; i <= 100; i++) {
        double value = series_next(series);
        sum += value;
        *mean = sum / i;
        if (converge_add(self, value) && converge_look(self, path))
            return i;
    }
    return 0;
}

static void a_steady_rate_is_claimed_at_the_first_look(void **state)
{
    (void)state;
    struct series series = {.variation = 0.005};
    struct converge self;
    double mean;
    series_begin(&series, 1);
    assert_int_equal(run(&self, &series, 0.05, &quiet_path, &mean), 20);
    struct probe_convergence report;
    converge_report(&self, &report);
    assert_true(report.reached && report.looks == 1 && report.samples == 20);
    assert_true(report.half_width > 0 && report.half_width < 0.05);
    assert_null(report.why);
}

static void without_a_target_nothing_is_ever_due(void **state)
{
    (void)state;
    struct converge self;
    converge_begin(&self, 0);
    for (int i = 0; i < 100; i++)
        assert_false(converge_add(&self, 1));
    assert_int_equal(self.count, 0);
}

static void it_is_looked_at_five_times_at_most(void **state)
{
    (void)state;
    struct series series = {.variation = 1};
    struct converge self;
    unsigned due = 0;
    series_begin(&series, 2);
    converge_begin(&self, 0.001);
    for (unsigned i = 1; i <= 1000; i++)
        if (converge_add(&self, series_next(&series))) {
            assert_true(i == 20 || i == 30 || i == 40 || i == 60 || i == 90);
            assert_false(converge_look(&self, &quiet_path));
            due++;
        }
    assert_int_equal(due, 5);
    struct probe_convergence report;
    converge_report(&self, &report);
    assert_false(report.reached);
    assert_non_null(report.why);
}

// The share of all cells whose result is further from the truth than the target and that were
// claimed to be within it.
static double false_claims(
    const struct series *kind, double target, const struct converge_path *path)
{
    unsigned wrong = 0, cells = 2000;
    for (unsigned i = 0; i < cells; i++) {
        struct series series = *kind;
        struct converge self;
        double mean;
        series_begin(&series, 1000 + i);
        unsigned claimed = run(&self, &series, target, path, &mean);
        wrong += claimed && fabs(mean - 1) > target;
    }
    return (double)wrong / cells;
}

static void false_claims_are_at_most_one_in_twenty(void **state)
{
    (void)state;
    const struct converge_path teeth = {
        .known = true, .reduced = true, .retransmitted = true, .sawtooth_ns = 4 * NS_PER_S};
    assert_true(false_claims(&(struct series){.variation = 0.2}, 0.05, &quiet_path) <= 0.05);
    assert_true(
        false_claims(&(struct series){.variation = 0.2, .rho = 0.6}, 0.05, &quiet_path) <= 0.05);
    assert_true(
        false_claims(&(struct series){.variation = 0.2, .rho = 0.9}, 0.05, &quiet_path) <= 0.05);
    assert_true(false_claims(&(struct series){.variation = 0.02, .sawtooth_samples = 40}, 0.05,
                    &teeth) <= 0.05);
    assert_true(false_claims(&(struct series){.variation = 0.01, .start = 0.2, .start_samples = 10},
                    0.05, &quiet_path) <= 0.05);
}

static void a_rate_that_creeps_is_not_taken_for_a_steady_one(void **state)
{
    (void)state;
    static const struct series kinds[] = {{.variation = 0.05, .rho = 0.97},
        {.variation = 0.1, .rho = 0.97}, {.variation = 0.1, .rho = 0.99}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        assert_true(false_claims(&kinds[i], 0.05, &quiet_path) <= 0.05);
    // One whose steps are too small to lead anywhere is claimed at once.
    struct series small = {.variation = 0.01, .rho = 0.9};
    struct converge self;
    double mean;
    series_begin(&small, 1);
    assert_int_equal(run(&self, &small, 0.05, &quiet_path, &mean), 20);
}

static void a_slow_start_that_spoils_the_mean_is_not_claimed_away(void **state)
{
    (void)state;
    struct series series = {.variation = 0.003, .start = 0.1, .start_samples = 4};
    struct converge self;
    double mean;
    series_begin(&series, 3);
    unsigned at = run(&self, &series, 0.05, &quiet_path, &mean);
    // At 20 samples the rest is steady, but what is reported would be 15 % low.
    assert_true(at == 0 || at > 20);
    assert_true(at == 0 || fabs(mean - 1) <= 0.05);
}

static void a_batch_spans_twenty_round_trips(void **state)
{
    (void)state;
    struct series series = {.variation = 0.04};
    struct converge_path path = {.known = true, .rtt_ns = 40 * NS_PER_MS};
    struct converge self;
    double mean;
    series_begin(&series, 4);
    unsigned at = run(&self, &series, 0.2, &path, &mean);
    assert_int_equal(at, 90); // 0.8 s a batch, ten of them
}

static void a_path_that_varies_little_needs_no_round_trips(void **state)
{
    (void)state;
    struct series series = {.variation = 0.01};
    struct converge_path path = {.known = true, .rtt_ns = 500 * NS_PER_MS};
    struct converge self;
    double mean;
    series_begin(&series, 5);
    assert_int_equal(run(&self, &series, 0.05, &path, &mean), 20);
    // Unless something was retransmitted.
    path.retransmitted = true;
    series_begin(&series, 5);
    assert_int_equal(run(&self, &series, 0.05, &path, &mean), 0);
}

static void a_window_that_fell_must_show_two_whole_sawteeth_a_batch(void **state)
{
    (void)state;
    struct series series = {.variation = 0.03};
    struct converge_path path = {.known = true, .reduced = true, .retransmitted = true};
    struct converge self;
    double mean;
    series_begin(&series, 6);
    assert_int_equal(run(&self, &series, 0.1, &path, &mean), 0);
    assert_non_null(strstr(self.why, "sawtooth"));
    path.sawtooth_ns = 150 * NS_PER_MS;
    series_begin(&series, 6);
    unsigned at = run(&self, &series, 0.1, &path, &mean);
    assert_true(at >= 30);
    path.sawtooth_ns = NS_PER_S;
    series_begin(&series, 6);
    assert_int_equal(run(&self, &series, 0.1, &path, &mean), 0);
}

static void a_sawtooth_that_leaves_no_mark_on_the_rate_is_no_matter(void **state)
{
    (void)state;
    struct series series = {.variation = 0.004};
    struct converge_path path = {.known = true, .reduced = true, .retransmitted = true};
    struct converge self;
    double mean;
    series_begin(&series, 8);
    assert_int_equal(run(&self, &series, 0.05, &path, &mean), 0); // none is whole yet
    path.sawtooth_ns = NS_PER_S;
    series_begin(&series, 8);
    assert_int_equal(run(&self, &series, 0.05, &path, &mean), 20);
}

static void a_path_of_which_nothing_is_known_is_not_claimed(void **state)
{
    (void)state;
    struct series series = {.variation = 0.001};
    struct converge self;
    double mean;
    series_begin(&series, 7);
    assert_int_equal(run(&self, &series, 0.05, &(struct converge_path){0}, &mean), 0);
    assert_non_null(strstr(self.why, "nothing of its path"));
}

static void nothing_and_not_a_number_are_never_claimed(void **state)
{
    (void)state;
    struct converge self;
    converge_begin(&self, 0.5);
    for (int i = 0; i < 90; i++)
        if (converge_add(&self, 0))
            assert_false(converge_look(&self, &quiet_path));
    converge_begin(&self, 0.5);
    for (int i = 0; i < 90; i++)
        if (converge_add(&self, NAN))
            assert_false(converge_look(&self, &quiet_path));
}

static void counts_at_any_times_become_equal_samples(void **state)
{
    (void)state;
    struct converge self;
    const int64_t times_ms[] = {30, 99, 130, 470, 471, 1000, 2600, 3050};
    unsigned looks = 0;
    converge_begin(&self, 0.05);
    for (size_t i = 0; i < sizeof times_ms / sizeof *times_ms; i++)
        looks += converge_progress(&self, times_ms[i] * NS_PER_MS, (uint64_t)times_ms[i] * 1000);
    assert_int_equal(self.count, 30);
    assert_int_equal(looks, 2);
    for (unsigned i = 0; i < self.count; i++)
        assert_true(fabs(self.samples[i] - 100000) < 1e-6);
}

// A hundred years are a billion samples, of which none is needed.
static void a_jump_in_time_takes_no_time(void **state)
{
    (void)state;
    struct converge self;
    for (int wanted = 0; wanted < 2; wanted++) {
        converge_begin(&self, wanted ? 0.05 : 0);
        (void)converge_progress(&self, INT64_MAX / 2, 1000);
        assert_int_equal(self.count, wanted ? CONVERGE_SAMPLES_MAX : 0);
    }
}

static void a_sawtooth_is_measured_from_fall_to_fall(void **state)
{
    (void)state;
    struct sawtooth self;
    sawtooth_begin(&self, 70);
    for (unsigned i = 0; i <= 300; i++) // 100 down to 70, once a second, in steps of 50 ms
        sawtooth_add(&self, i * 50 * NS_PER_MS, 70 + (i % 20) * 30 / 19);
    assert_int_equal(self.falls, 15);
    assert_int_equal(self.longest_ns, NS_PER_S);
}

static void a_fall_in_several_steps_is_one(void **state)
{
    (void)state;
    struct sawtooth self;
    const uint32_t windows[] = {100, 80, 60, 50, 40, 41, 40, 42, 50};
    sawtooth_begin(&self, 90);
    for (unsigned i = 0; i < 9; i++)
        sawtooth_add(&self, i * 50 * NS_PER_MS, windows[i]);
    assert_int_equal(self.falls, 1);
    assert_int_equal(self.longest_ns, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_steady_rate_is_claimed_at_the_first_look),
        cmocka_unit_test(without_a_target_nothing_is_ever_due),
        cmocka_unit_test(it_is_looked_at_five_times_at_most),
        cmocka_unit_test(false_claims_are_at_most_one_in_twenty),
        cmocka_unit_test(a_rate_that_creeps_is_not_taken_for_a_steady_one),
        cmocka_unit_test(a_slow_start_that_spoils_the_mean_is_not_claimed_away),
        cmocka_unit_test(a_batch_spans_twenty_round_trips),
        cmocka_unit_test(a_path_that_varies_little_needs_no_round_trips),
        cmocka_unit_test(a_window_that_fell_must_show_two_whole_sawteeth_a_batch),
        cmocka_unit_test(a_sawtooth_that_leaves_no_mark_on_the_rate_is_no_matter),
        cmocka_unit_test(a_path_of_which_nothing_is_known_is_not_claimed),
        cmocka_unit_test(nothing_and_not_a_number_are_never_claimed),
        cmocka_unit_test(counts_at_any_times_become_equal_samples),
        cmocka_unit_test(a_jump_in_time_takes_no_time),
        cmocka_unit_test(a_sawtooth_is_measured_from_fall_to_fall),
        cmocka_unit_test(a_fall_in_several_steps_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
