// Delay variation by arithmetic.

#include "meshtest.h"

#include <math.h>
#include <stdlib.h>

#include "clock.h"
#include "jitter.h"

#define PACKETS 100000
#define GAP_NS (10 * NS_PER_MS) // over six times the delays' spread: nothing is reordered

static double uniform(unsigned *seed)
{
    return (rand_r(seed) + 0.5) / (RAND_MAX + 1.0);
}

// Box and Muller.
static double normal(unsigned *seed)
{
    return sqrt(-2 * log(uniform(seed))) * cos(2 * M_PI * uniform(seed));
}

// A foreign clock: nothing may depend on the zero.
static jitter_t *stream(double (*delay_s)(unsigned *seed, int i), unsigned seed)
{
    jitter_t *jitter = jitter_new(1);
    for (int i = 0; i < PACKETS; i++) {
        int64_t sent = i * GAP_NS;
        jitter_arrive(jitter, 0, (uint64_t)i, 1, sent,
            sent - 77 * NS_PER_S + (int64_t)(delay_s(&seed, i) * 1e9));
    }
    return jitter;
}

static double normal_delay(unsigned *seed, int i)
{
    (void)i;
    return 0.010 + 0.001 * normal(seed);
}

static double uniform_delay(unsigned *seed, int i)
{
    (void)i;
    return 0.010 + 0.002 * (2 * uniform(seed) - 1);
}

static double constant_delay(unsigned *seed, int i)
{
    (void)seed;
    (void)i;
    return 0.010;
}

static double two_delays(unsigned *seed, int i)
{
    (void)seed;
    return i % 2 ? 0.010 : 0.013;
}

static void independent_delays_read_as_theory_says(void **state)
{
    (void)state;
    jitter_t *jitter = stream(normal_delay, 5);
    // E|X - X'| = 2 sigma / sqrt(pi) for normal, 2a/3 for uniform delays of half width a.
    assert_true(fabs(jitter_mean_s(jitter) / 0.001 - 2 / sqrt(M_PI)) < 0.01);
    // The filtered one scatters: within four of its relative deviations of 17 %.
    assert_true(fabs(jitter_rfc3550_s(jitter) / 0.001128 - 1) < 0.7);
    jitter_destroy(&jitter);
    jitter = stream(uniform_delay, 6);
    assert_true(fabs(jitter_mean_s(jitter) / 0.002 - 2.0 / 3) < 0.007);
    struct probe_distribution pdv;
    jitter_pdv(jitter, &pdv);
    assert_true(fabs(pdv.p50_s - 0.002) < 0.0001 && fabs(pdv.max_s - 0.004) < 0.0001);
    jitter_destroy(&jitter);
}

static void steady_and_alternating_delays_are_exact(void **state)
{
    (void)state;
    struct probe_distribution pdv, ipdv;
    jitter_t *jitter = stream(constant_delay, 1);
    jitter_pdv(jitter, &pdv);
    assert_true(jitter_mean_s(jitter) == 0 && jitter_rfc3550_s(jitter) == 0 && pdv.max_s == 0);
    jitter_destroy(&jitter);
    jitter = stream(two_delays, 1);
    jitter_pdv(jitter, &pdv);
    jitter_ipdv(jitter, &ipdv);
    assert_true(fabs(jitter_mean_s(jitter) - 0.003) < 1e-9);
    assert_true(fabs(jitter_rfc3550_s(jitter) - 0.003) < 1e-6);
    assert_true(fabs(pdv.max_s - 0.003) < 3e-5);
    assert_int_equal(ipdv.count, PACKETS - 1);
    jitter_destroy(&jitter);
}

static void one_arrival_has_no_jitter(void **state)
{
    (void)state;
    jitter_t *jitter = jitter_new(1);
    assert_true(isnan(jitter_mean_s(jitter)));
    jitter_arrive(jitter, 0, 0, 1, 0, 5);
    assert_true(isnan(jitter_mean_s(jitter)) && isnan(jitter_rfc3550_s(jitter)));
    jitter_destroy(&jitter);
}

static void gaps_in_the_numbers_are_in_no_ipdv(void **state)
{
    (void)state;
    jitter_t *jitter = jitter_new(1);
    static const uint64_t numbers[] = {0, 1, 3, 4, 2, 5};
    for (int i = 0; i < 6; i++)
        jitter_arrive(jitter, 0, numbers[i], 1, (int64_t)numbers[i] * GAP_NS,
            (i + 1) * GAP_NS + i * NS_PER_MS);
    struct probe_distribution ipdv;
    jitter_ipdv(jitter, &ipdv);
    assert_int_equal(ipdv.count, 2); // 0-1 and 3-4
    jitter_destroy(&jitter);
}

static void streams_that_take_turns_are_each_judged_alone(void **state)
{
    (void)state;
    jitter_t *jitter = jitter_new(2);
    struct probe_distribution ipdv;
    // The second one's path takes 5 ms longer, and its socket is read first.
    for (uint64_t turn = 0; turn < 10; turn++) {
        int64_t sent = (int64_t)(2 * turn) * GAP_NS;
        double second =
            jitter_arrive(jitter, 1, 2 * turn + 1, 1, sent + GAP_NS, sent + GAP_NS + 5 * NS_PER_MS);
        double first = jitter_arrive(jitter, 0, 2 * turn, 1, sent, sent);
        assert_true(turn == 0 ? isnan(first) && isnan(second) : first == 0 && second == 0);
    }
    jitter_ipdv(jitter, &ipdv);
    assert_int_equal(ipdv.count, 18);
    assert_true(jitter_mean_s(jitter) == 0);
    jitter_destroy(&jitter);
}

static void what_comes_together_has_no_jitter_in_itself(void **state)
{
    (void)state;
    jitter_t *jitter = jitter_new(1);
    struct probe_distribution pdv, ipdv;
    for (uint64_t packet = 0; packet < 10; packet++)
        jitter_arrive(jitter, 0, 46 * packet, 46, (int64_t)packet * GAP_NS,
            (int64_t)packet * GAP_NS + (int64_t)(packet % 2) * NS_PER_MS);
    jitter_pdv(jitter, &pdv);
    jitter_ipdv(jitter, &ipdv);
    assert_int_equal(pdv.count, 10);
    assert_int_equal(ipdv.count, 9);
    assert_true(fabs(jitter_mean_s(jitter) - 0.001) < 1e-9);
    jitter_destroy(&jitter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(independent_delays_read_as_theory_says),
        cmocka_unit_test(steady_and_alternating_delays_are_exact),
        cmocka_unit_test(one_arrival_has_no_jitter),
        cmocka_unit_test(gaps_in_the_numbers_are_in_no_ipdv),
        cmocka_unit_test(streams_that_take_turns_are_each_judged_alone),
        cmocka_unit_test(what_comes_together_has_no_jitter_in_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
