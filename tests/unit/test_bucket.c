// Rates that fall after a burst, and rates that only look like it.

#include "meshtest.h"

#include <math.h>

#include "bucket.h"
#include "clock.h"
#include "series.h"

#define MS NS_PER_MS

// Bytes after so long under a bucket of `burst` bytes over a link of `line` and a rate of `rate`.
static uint64_t bytes_at(double seconds, double line_bps, double rate_bps, double burst)
{
    double steep = seconds * line_bps / 8, flat = burst + seconds * rate_bps / 8;
    return (uint64_t)(steep < flat ? steep : flat);
}

// Points as a receiver takes them: close together at first.
static void expect(double line_bps, double rate_bps, double burst, double duration_s, bool found)
{
    struct bucket self;
    struct probe_bucket out;
    bucket_begin(&self);
    for (double t = 0.01; t <= duration_s; t += t < 0.5 ? 0.01 : 0.05)
        bucket_add(&self, (int64_t)(t * 1e9), bytes_at(t, line_bps, rate_bps, burst));
    bucket_find(&self, INT64_MAX, &out);
    assert_int_equal(out.found, found);
    if (!found)
        return;
    double knee_s = burst / (line_bps - rate_bps) * 8;
    assert_true(fabs(out.at_s - knee_s) <= 0.06);
    assert_true(fabs(out.after_bps - rate_bps) < 0.03 * rate_bps);
    double moved = (double)bytes_at(out.at_s, line_bps, rate_bps, burst);
    assert_true(fabs((double)out.bytes - moved) <= 1);
    if (knee_s > 0.1)
        assert_true(fabs(out.before_bps - line_bps) < 0.1 * line_bps);
    else
        assert_true(out.before_bps > 1.4 * rate_bps && out.before_bps <= 1.01 * line_bps);
}

static void bursts_of_megabytes_at_odd_rates_are_found(void **state)
{
    (void)state;
    expect(10e9, 37e6, 4e6, 5, true);
    expect(1e9, 173e6, 8e6, 4, true);
    expect(2.5e9, 613e6, 50e6, 3, true);
    expect(200e6, 50e6, 40e6, 10, true);
    expect(5e9, 1e9, 1e9, 10, true);
    expect(10e9, 7e6, 1e6, 3, true);
}

static void a_link_without_a_burst_has_no_bucket(void **state)
{
    (void)state;
    expect(37e6, 37e6, 0, 10, false);
    expect(10e9, 100e6, 32768, 10, false);   // a shaper's ordinary burst
    expect(110e6, 100e6, 4e6, 10, false);    // a fall of a tenth
    expect(1e9, 100e6, 100e6, 1.5, false);   // the later rate was hardly seen
}

static void noise_and_sawteeth_are_no_buckets(void **state)
{
    (void)state;
    const struct series kinds[] = {{.variation = 0.2}, {.variation = 0.2, .rho = 0.6},
        {.variation = 0.2, .rho = 0.9}, {.variation = 0.02, .sawtooth_samples = 80},
        {.variation = 0.05, .start = 0.1, .start_samples = 10}};
    unsigned found = 0, cells = 400;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (unsigned i = 0; i < cells; i++) {
            struct series series = kinds[k];
            struct bucket self;
            struct probe_bucket out;
            double bytes = 0;
            series_begin(&series, i);
            bucket_begin(&self);
            for (int64_t at = 50 * MS; at <= 10 * NS_PER_S; at += 50 * MS) {
                bytes += 5e6 * series_next(&series);
                bucket_add(&self, at, (uint64_t)bytes);
            }
            bucket_find(&self, INT64_MAX, &out);
            found += out.found;
        }
    assert_true(found <= 5 * cells / 100);
}

static void a_noisy_rate_after_the_burst_is_still_low(void **state)
{
    (void)state;
    unsigned found = 0;
    for (unsigned i = 0; i < 100; i++) {
        struct series series = {.variation = 0.2};
        struct bucket self;
        struct probe_bucket out;
        double bytes = 0;
        series_begin(&series, i);
        bucket_begin(&self);
        for (int64_t at = 50 * MS; at <= 10 * NS_PER_S; at += 50 * MS) {
            bytes += (at <= 2 * NS_PER_S ? 5 : 1) * 1e6 * series_next(&series);
            bucket_add(&self, at, (uint64_t)bytes);
        }
        bucket_find(&self, INT64_MAX, &out);
        found += out.found && fabs(out.at_s - 2) < 0.3 && fabs(out.after_bps - 160e6) < 16e6;
    }
    assert_true(found >= 97);
}

static void what_comes_after_the_end_is_not_looked_at(void **state)
{
    (void)state;
    struct bucket self;
    struct probe_bucket out;
    bucket_begin(&self);
    for (int64_t at = 50 * MS; at <= 6 * NS_PER_S; at += 50 * MS)
        bucket_add(&self, at, (uint64_t)(at < 3 * NS_PER_S ? at : 3 * NS_PER_S));
    bucket_find(&self, 3 * NS_PER_S, &out); // the sender stopped there
    assert_false(out.found);
    bucket_find(&self, INT64_MAX, &out);
    assert_false(out.found && out.after_bps > 1);
}

static void a_long_test_fits(void **state)
{
    (void)state;
    struct bucket self;
    struct probe_bucket out;
    bucket_begin(&self);
    for (int64_t at = 50 * MS; at <= 3600 * NS_PER_S; at += 50 * MS)
        bucket_add(&self, at, bytes_at((double)at * 1e-9, 100e6, 20e6, 9e9));
    assert_true(self.count <= BUCKET_POINTS);
    bucket_find(&self, INT64_MAX, &out);
    assert_true(out.found && fabs(out.at_s - 900) < 30);
}

static void no_points_are_no_bucket(void **state)
{
    (void)state;
    struct bucket self;
    struct probe_bucket out;
    bucket_begin(&self);
    bucket_find(&self, INT64_MAX, &out);
    assert_false(out.found);
    bucket_add(&self, 0, 5);
    bucket_add(&self, -7, 5);
    bucket_find(&self, INT64_MAX, &out);
    assert_false(out.found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bursts_of_megabytes_at_odd_rates_are_found),
        cmocka_unit_test(a_link_without_a_burst_has_no_bucket),
        cmocka_unit_test(noise_and_sawteeth_are_no_buckets),
        cmocka_unit_test(a_noisy_rate_after_the_burst_is_still_low),
        cmocka_unit_test(what_comes_after_the_end_is_not_looked_at),
        cmocka_unit_test(a_long_test_fits),
        cmocka_unit_test(no_points_are_no_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
