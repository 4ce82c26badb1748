// Log-linear histograms against sorted samples.

#include "meshtest.h"

#include <math.h>
#include <stdlib.h>

#include "histogram.h"

#define SAMPLES 20000

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

// Seeded; spreads over nine powers of ten.
static int64_t sample(unsigned *seed)
{
    double exponent = rand_r(seed) / (RAND_MAX + 1.0) * 9;
    return (int64_t)pow(10, exponent);
}

static void quantiles_are_within_a_per_cent_of_the_sorted_samples(void **state)
{
    (void)state;
    static int64_t values[SAMPLES];
    static const double quantiles[] = {0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    unsigned seed = 7;
    double sum = 0;
    histogram_t *histogram = histogram_new();
    for (size_t i = 0; i < SAMPLES; i++) {
        values[i] = sample(&seed);
        sum += (double)values[i];
        histogram_record(histogram, values[i]);
    }
    qsort(values, SAMPLES, sizeof *values, by_value);
    assert_int_equal(histogram_count(histogram), SAMPLES);
    assert_int_equal(histogram_min(histogram), values[0]);
    assert_int_equal(histogram_max(histogram), values[SAMPLES - 1]);
    assert_true(fabs(histogram_mean(histogram) - sum / SAMPLES) < 1e-6 * sum / SAMPLES);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
        // One rank to either side is the same quantile.
        double rank = quantiles[i] * (SAMPLES - 1);
        double low = (double)values[(size_t)fmax(rank - 1, 0)] * 0.99;
        double high = (double)values[(size_t)fmin(rank + 2, SAMPLES - 1)] * 1.01 + 1;
        double seen = histogram_quantile(histogram, quantiles[i]);
        if (seen < low || seen > high)
            fail_msg("q %g: %g is not in [%g, %g]", quantiles[i], seen, low, high);
    }
    histogram_destroy(&histogram);
}

static void extremes_and_emptiness_are_no_trap(void **state)
{
    (void)state;
    histogram_t *histogram = histogram_new();
    assert_true(histogram_quantile(histogram, 0.5) == 0 && histogram_mean(histogram) == 0);
    histogram_record(histogram, -5);
    histogram_record(histogram, INT64_MAX);
    assert_int_equal(histogram_min(histogram), 0);
    assert_int_equal(histogram_max(histogram), INT64_MAX);
    assert_int_equal(histogram_count(histogram), 2);
    histogram_destroy(&histogram);
    histogram = histogram_new();
    histogram_record(histogram, 77);
    assert_true(histogram_quantile(histogram, 0) == 77 && histogram_quantile(histogram, 1) == 77);
    histogram_destroy(&histogram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_within_a_per_cent_of_the_sorted_samples),
        cmocka_unit_test(extremes_and_emptiness_are_no_trap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
