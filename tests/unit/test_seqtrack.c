// The sequence tracker against a naive model, with random loss, duplicates and reordering.

#include "meshtest.h"

#include <stdlib.h>

#include "seqtrack.h"

#define COUNT 5000

struct model {
    bool seen[COUNT];
    struct seqtrack_summary sum;
    uint64_t next;
};

static void model_arrive(struct model *model, uint64_t number)
{
    if (model->seen[number]) {
        model->sum.duplicate++;
        return;
    }
    model->seen[number] = true;
    model->sum.distinct++;
    if (number >= model->next) {
        model->next = number + 1;
        return;
    }
    model->sum.reordered++;
    if (model->next - 1 - number > model->sum.reorder_extent)
        model->sum.reorder_extent = model->next - 1 - number;
}

static void model_finish(struct model *model)
{
    uint64_t burst = 0;
    for (size_t i = 0; i <= COUNT; i++) {
        if (i < COUNT && !model->seen[i]) {
            model->sum.missing++;
            burst++;
            continue;
        }
        model->sum.bursts += burst > 0;
        if (burst > model->sum.burst_longest)
            model->sum.burst_longest = burst;
        burst = 0;
    }
}

static void one_round(unsigned seed)
{
    struct model *model = calloc(1, sizeof *model);
    seqtrack_t *track = seqtrack_new();
    struct seqtrack_summary summary;
    uint64_t order[COUNT];
    srand(seed);
    for (size_t i = 0; i < COUNT; i++)
        order[i] = i;
    for (size_t i = 0; i + 20 < COUNT; i++) {
        size_t other = rand() % 10 ? i : i + (size_t)rand() % 20;
        uint64_t keep = order[i];
        order[i] = order[other];
        order[other] = keep;
    }
    for (size_t i = 0; i < COUNT; i++)
        for (int copies = rand() % 8 == 0 ? 0 : rand() % 8 == 1 ? 2 : 1; copies > 0; copies--) {
            model_arrive(model, order[i]);
            seqtrack_arrive(track, 0, order[i], 1);
        }
    model_finish(model);
    seqtrack_finish(track, COUNT, &summary);
    assert_memory_equal(&summary, &model->sum, sizeof summary);
    seqtrack_destroy(&track);
    free(model);
}

static void random_arrivals_are_judged_like_a_naive_model_does(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 50; seed++)
        one_round(seed);
}

// Runs of up to 100 numbers, some lost, some again, some late.
static void runs_are_judged_like_their_numbers_one_by_one(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 50; seed++) {
        struct model *model = calloc(1, sizeof *model);
        seqtrack_t *track = seqtrack_new();
        struct seqtrack_summary summary;
        uint64_t at = 0;
        srand(seed);
        while (at < COUNT - 300) {
            unsigned count = 1 + (unsigned)rand() % 100,
                     back = rand() % 5 ? 0 : (unsigned)rand() % 90;
            uint64_t first = at > back ? at - back : 0, fresh = model->sum.distinct;
            for (unsigned i = 0; i < count; i++)
                model_arrive(model, first + i);
            fresh = model->sum.distinct - fresh;
            assert_int_equal(seqtrack_arrive(track, 7, first, count), fresh);
            at = first + count + (rand() % 4 ? 0 : (unsigned)rand() % 100);
        }
        model_finish(model);
        seqtrack_finish(track, COUNT, &summary);
        assert_memory_equal(&summary, &model->sum, sizeof summary);
        seqtrack_destroy(&track);
        free(model);
    }
}

static void a_run_longer_than_what_is_left_of_the_window_moves_it(void **state)
{
    (void)state;
    seqtrack_t *track = seqtrack_new();
    struct seqtrack_summary summary;
    for (uint64_t first = 0; first < 5000000; first += 100)
        assert_int_equal(seqtrack_arrive(track, 0, first, 90), 90);
    seqtrack_finish(track, 5000000, &summary);
    assert_int_equal(summary.distinct, 4500000);
    assert_int_equal(summary.missing, 500000);
    assert_int_equal(summary.bursts, 50000);
    assert_int_equal(summary.burst_longest, 10);
    seqtrack_destroy(&track);
}

static void a_stream_whose_socket_is_read_later_is_not_reordered(void **state)
{
    (void)state;
    seqtrack_t *track = seqtrack_new();
    struct seqtrack_summary summary;
    for (uint64_t number = 1; number < 100; number += 2)
        (void)seqtrack_arrive(track, 1, number, 1);
    for (uint64_t number = 0; number < 100; number += 2)
        (void)seqtrack_arrive(track, 0, number, 1);
    seqtrack_finish(track, 100, &summary);
    assert_int_equal(summary.distinct, 100);
    assert_int_equal(summary.reordered, 0);
    seqtrack_destroy(&track);
}

static void what_left_the_window_is_late(void **state)
{
    (void)state;
    seqtrack_t *track = seqtrack_new();
    struct seqtrack_summary summary;
    assert_int_equal(seqtrack_arrive(track, 0, 0, 1), 1);
    assert_int_equal(seqtrack_arrive(track, 0, 10000000, 1), 1);
    assert_int_equal(seqtrack_arrive(track, 0, 1, 1), 0);
    seqtrack_finish(track, 10000001, &summary);
    assert_int_equal(summary.distinct, 2);
    assert_int_equal(summary.missing, 9999999);
    assert_int_equal(summary.bursts, 1);
    assert_int_equal(summary.burst_longest, 9999999);
    seqtrack_destroy(&track);
}

static void numbers_that_jump_are_settled_exactly(void **state)
{
    (void)state;
    seqtrack_t *track = seqtrack_new();
    struct seqtrack_summary summary;
    uint64_t number = 0, arrived = 0;
    for (uint64_t step = 1; step < UINT64_C(1) << 24; step = step * 2 + 1, arrived++)
        assert_int_equal(seqtrack_arrive(track, 0, number += step, 1), 1);
    seqtrack_finish(track, number + 1, &summary);
    assert_int_equal(summary.distinct, arrived);
    assert_int_equal(summary.missing, number + 1 - arrived);
    assert_int_equal(summary.bursts, arrived); // before the first too
    assert_int_equal(summary.burst_longest, (UINT64_C(1) << 24) - 2);
    seqtrack_destroy(&track);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_arrivals_are_judged_like_a_naive_model_does),
        cmocka_unit_test(runs_are_judged_like_their_numbers_one_by_one),
        cmocka_unit_test(a_run_longer_than_what_is_left_of_the_window_moves_it),
        cmocka_unit_test(a_stream_whose_socket_is_read_later_is_not_reordered),
        cmocka_unit_test(what_left_the_window_is_late),
        cmocka_unit_test(numbers_that_jump_are_settled_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
