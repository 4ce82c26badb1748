#include "passes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "meshtest.h"

struct measurement {
    double bandwidth_bps, loss_ratio, rtt_p50_s; // 0 bandwidth: it failed
    const char *verdict;
};

static Mp__Cell *measured(const struct measurement *it)
{
    Mp__Cell *cell = malloc(sizeof *cell);
    mp__cell__init(cell);
    cell->kind = MP__TEST_KIND__TCP;
    cell->to = 1;
    cell->state = it->bandwidth_bps > 0 ? MP__CELL_STATE__OK : MP__CELL_STATE__FAILED;
    if (it->bandwidth_bps == 0) {
        cell->reason = strdup("it failed");
        return cell;
    }
    cell->has_bandwidth_bps = cell->has_loss_ratio = cell->has_bytes = true;
    cell->bandwidth_bps = it->bandwidth_bps;
    cell->loss_ratio = it->loss_ratio;
    cell->bytes = (uint64_t)it->bandwidth_bps;
    cell->rtt = malloc(sizeof *cell->rtt);
    mp__distribution__init(cell->rtt);
    cell->rtt->has_p50 = cell->rtt->has_max = true;
    cell->rtt->p50 = it->rtt_p50_s;
    cell->rtt->max = 2 * it->rtt_p50_s;
    cell->limiter = malloc(sizeof *cell->limiter);
    mp__limiter__init(cell->limiter);
    cell->limiter->verdict = strdup(it->verdict ? it->verdict : "network");
    return cell;
}

static Mp__Cell *all(const struct measurement *list, uint32_t count)
{
    Mp__Cell *cell = NULL;
    for (uint32_t i = 0; i < count; i++) {
        cell = passes_add(cell, measured(&list[i]), i + 1, i + 1 == count);
        if (i + 1 < count) {
            assert_int_equal(cell->state, MP__CELL_STATE__PENDING);
            assert_null(cell->reason);
        }
    }
    return cell;
}

static void values_are_medians_and_the_spread_is_theirs(void **state)
{
    (void)state;
    static const struct measurement three[] = {
        {90, 0.03, 5e-3, NULL}, {100, 0.01, 4e-3, NULL}, {110, 0.02, 6e-3, NULL}};
    Mp__Cell *cell = all(three, 3);
    assert_int_equal(cell->state, MP__CELL_STATE__OK);
    assert_int_equal(cell->n_passes, 3);
    assert_true(cell->bandwidth_bps == 100);
    assert_true(cell->loss_ratio == 0.02);
    assert_true(cell->rtt->p50 == 5e-3);
    assert_true(cell->rtt->max == 10e-3);
    assert_true(fabs(cell->spread->bandwidth - 0.2) < 1e-9);
    assert_true(fabs(cell->spread->loss - 0.02) < 1e-9);
    assert_true(fabs(cell->spread->rtt_p50 - 0.4) < 1e-9);
    assert_false(cell->spread->has_jitter);
    mp__cell__free_unpacked(cell, NULL);
}

static void of_an_even_number_it_is_the_mean_of_the_two_in_the_middle(void **state)
{
    (void)state;
    static const struct measurement four[] = {
        {90, 0, 1e-3, NULL}, {40, 0, 1e-3, NULL}, {100, 0, 1e-3, NULL}, {110, 0, 1e-3, NULL}};
    Mp__Cell *cell = all(four, 4);
    assert_true(cell->bandwidth_bps == 95);
    mp__cell__free_unpacked(cell, NULL);
}

static void what_has_no_median_is_of_a_pass_with_the_usual_verdict(void **state)
{
    (void)state;
    static const struct measurement four[] = {{95, 0, 1e-3, "network"},
        {100, 0, 1e-3, "receiver_cpu"}, {101, 0, 1e-3, "receiver_cpu"}, {140, 0, 1e-3, "network"}};
    Mp__Cell *three = all(four, 3);
    assert_string_equal(three->limiter->verdict, "receiver_cpu");
    assert_int_equal(three->pass, 3);
    assert_int_equal(three->bytes, 101);
    assert_string_equal(three->passes[0]->limiter, "network");
    mp__cell__free_unpacked(three, NULL);
}

static void a_cell_is_ok_if_most_of_its_passes_are(void **state)
{
    (void)state;
    static const struct measurement most[] = {
        {0, 0, 0, NULL}, {90, 0, 1e-3, NULL}, {80, 0, 1e-3, NULL}};
    Mp__Cell *cell = all(most, 3);
    assert_int_equal(cell->state, MP__CELL_STATE__OK);
    assert_null(cell->reason);
    assert_true(cell->bandwidth_bps == 85);
    assert_int_equal(cell->passes[0]->state, MP__CELL_STATE__FAILED);
    assert_string_equal(cell->passes[0]->reason, "it failed");
    mp__cell__free_unpacked(cell, NULL);
    static const struct measurement half[] = {{90, 0, 1e-3, NULL}, {0, 0, 0, NULL}};
    cell = all(half, 2);
    assert_int_equal(cell->state, MP__CELL_STATE__FAILED);
    assert_string_equal(cell->reason, "it failed");
    assert_true(cell->bandwidth_bps == 90);
    mp__cell__free_unpacked(cell, NULL);
}

static void a_recheck_tells_the_runs_bias(void **state)
{
    (void)state;
    Mp__Cell *cell = measured(&(struct measurement){50, 0.02, 1e-3, NULL});
    Mp__Cell *alone = measured(&(struct measurement){100, 0, 1e-3, NULL});
    passes_recheck(cell, alone, true);
    assert_true(cell->bandwidth_bps == 50);
    assert_true(cell->recheck->bandwidth_bps == 100);
    assert_true(cell->recheck->bias == -0.5);
    assert_true(fabs(cell->recheck->bias_loss - 0.02) < 1e-12);
    assert_true(cell->recheck->sampled);
    mp__cell__free_unpacked(alone, NULL);
    alone = measured(&(struct measurement){0, 0, 0, NULL});
    passes_recheck(cell, alone, false);
    assert_int_equal(cell->recheck->state, MP__CELL_STATE__FAILED);
    assert_false(cell->recheck->has_bias);
    mp__cell__free_unpacked(alone, NULL);
    mp__cell__free_unpacked(cell, NULL);
}

static void a_flow_check_stands_beside_the_values_of_the_one_stream(void **state)
{
    (void)state;
    Mp__Cell *cell = measured(&(struct measurement){50, 0, 1e-3, "network"});
    Mp__Cell *many = measured(&(struct measurement){100, 0, 1e-3, "sender_cpu"});
    passes_flow_check(cell, many, 8);
    assert_true(cell->bandwidth_bps == 50);
    assert_int_equal(cell->flow_check->streams, 8);
    assert_true(cell->flow_check->gain == 2);
    assert_string_equal(cell->flow_check->limiter, "sender_cpu");
    assert_string_equal(cell->limiter->subtype, "flow_cap");
    mp__cell__free_unpacked(many, NULL);
    mp__cell__free_unpacked(cell, NULL);
    cell = measured(&(struct measurement){50, 0, 1e-3, "network"});
    many = measured(&(struct measurement){0, 0, 0, NULL});
    passes_flow_check(cell, many, 8);
    assert_int_equal(cell->state, MP__CELL_STATE__OK);
    assert_int_equal(cell->flow_check->state, MP__CELL_STATE__FAILED);
    assert_false(cell->flow_check->has_gain);
    assert_null(cell->limiter->subtype);
    mp__cell__free_unpacked(many, NULL);
    mp__cell__free_unpacked(cell, NULL);
}

static void two_percent_are_drawn_each_once_and_alike_for_a_seed(void **state)
{
    (void)state;
    assert_int_equal(recheck_drawn(2), 1);
    assert_int_equal(recheck_drawn(90), 2);
    assert_int_equal(recheck_drawn(1000), 20);
    assert_int_equal(recheck_drawn(1000000), RECHECK_DRAWN_MAX);
    assert_int_equal(recheck_worst(1000000), RECHECK_WORST_MAX);
    assert_int_equal(recheck_worst(1), 1);
    uint32_t hits[20] = {0};
    for (uint64_t seed = 0; seed < 2000; seed++) {
        uint32_t drawn[5], again[5];
        recheck_draw(seed, 20, 5, drawn);
        recheck_draw(seed, 20, 5, again);
        assert_memory_equal(drawn, again, sizeof drawn);
        for (int i = 0; i < 5; i++) {
            assert_true(drawn[i] < 20);
            hits[drawn[i]]++;
            for (int k = 0; k < i; k++)
                assert_int_not_equal(drawn[i], drawn[k]);
        }
    }
    // 500 on average, sigma 19; the seeds are fixed.
    for (int i = 0; i < 20; i++)
        assert_true(hits[i] > 400 && hits[i] < 600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_medians_and_the_spread_is_theirs),
        cmocka_unit_test(of_an_even_number_it_is_the_mean_of_the_two_in_the_middle),
        cmocka_unit_test(what_has_no_median_is_of_a_pass_with_the_usual_verdict),
        cmocka_unit_test(a_cell_is_ok_if_most_of_its_passes_are),
        cmocka_unit_test(a_recheck_tells_the_runs_bias),
        cmocka_unit_test(a_flow_check_stands_beside_the_values_of_the_one_stream),
        cmocka_unit_test(two_percent_are_drawn_each_once_and_alike_for_a_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
