// Deadlines under a clock that the test owns.

#include "meshtest.h"

#include "timers.h"

struct world {
    int64_t now;
    timers_t *timers;
    int fired[8], order[8], count;
    uint64_t victim;
};

static int64_t now_of(void *ctx)
{
    return ((struct world *)ctx)->now;
}

struct job {
    struct world *world;
    int number;
};

static void fire(void *arg, int64_t now)
{
    struct job *job = arg;
    (void)now;
    job->world->fired[job->number]++;
    if (job->world->count < 8)
        job->world->order[job->world->count++] = job->number;
}

static void again(void *arg, int64_t now)
{
    struct job *job = arg;
    (void)now;
    job->world->fired[job->number]++;
    timers_after(job->world->timers, 0, again, job); // always due
}

static void cancel_other(void *arg, int64_t now)
{
    struct job *job = arg;
    (void)now;
    timers_cancel(job->world->timers, &job->world->victim);
}

static struct clock clock_of(struct world *world)
{
    return (struct clock){now_of, now_of, world};
}

static void due_timers_fire_once_in_order(void **state)
{
    (void)state;
    struct world world = {.now = 1000};
    struct clock clock = clock_of(&world);
    struct job jobs[4] = {{&world, 0}, {&world, 1}, {&world, 2}, {&world, 3}};
    timers_t *timers = timers_new(&clock);
    assert_int_equal(timers_wait_ms(timers), -1);
    timers_at(timers, 5 * NS_PER_MS, fire, &jobs[2]);
    timers_at(timers, 3 * NS_PER_MS, fire, &jobs[1]);
    timers_after(timers, 0, fire, &jobs[0]);
    timers_at(timers, 9 * NS_PER_MS, fire, &jobs[3]);
    assert_int_equal(timers_wait_ms(timers), 0);
    world.now = 6 * NS_PER_MS;
    timers_run(timers);
    timers_run(timers);
    assert_int_equal(world.count, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(world.order[i], i);
    assert_int_equal(timers_wait_ms(timers), 3);
    timers_destroy(&timers);
}

static void cancelled_timers_do_not_fire(void **state)
{
    (void)state;
    struct world world = {0};
    struct clock clock = clock_of(&world);
    struct job jobs[2] = {{&world, 0}, {&world, 1}};
    timers_t *timers = world.timers = timers_new(&clock);
    uint64_t id = timers_at(timers, 1, fire, &jobs[0]);
    assert_true(id > 0);
    timers_cancel(timers, &id);
    assert_int_equal(id, 0);
    timers_cancel(timers, &id);
    timers_at(timers, 1, cancel_other, &jobs[0]);
    world.victim = timers_at(timers, 2, fire, &jobs[1]);
    world.now = 10;
    timers_run(timers);
    assert_int_equal(world.fired[0] + world.fired[1], 0);
    assert_int_equal(timers_wait_ms(timers), -1);
    timers_destroy(&timers);
}

static void a_timer_that_is_always_due_does_not_starve_the_caller(void **state)
{
    (void)state;
    struct world world = {0};
    struct clock clock = clock_of(&world);
    struct job job = {&world, 0};
    timers_t *timers = world.timers = timers_new(&clock);
    timers_after(timers, 0, again, &job);
    timers_run(timers);
    assert_true(world.fired[0] >= 1);
    assert_int_equal(timers_wait_ms(timers), 0);
    timers_destroy(&timers);
}

static void a_thousand_random_deadlines_keep_their_order(void **state)
{
    (void)state;
    struct world world = {0};
    struct clock clock = clock_of(&world);
    struct job job = {&world, 0};
    timers_t *timers = timers_new(&clock);
    for (int i = 0; i < 1000; i++)
        timers_at(timers, timers_jitter(500 * NS_PER_MS, 500 * NS_PER_MS), fire, &job);
    int before = 0;
    for (world.now = 0; world.now <= 1001 * NS_PER_MS; world.now += 10 * NS_PER_MS) {
        timers_run(timers);
        assert_true(world.fired[0] >= before);
        before = world.fired[0];
        // Nothing that is due stays behind.
        assert_true(timers_wait_ms(timers) != 0);
    }
    assert_int_equal(world.fired[0], 1000);
    timers_destroy(&timers);
}

static void jitter_stays_in_its_bounds(void **state)
{
    (void)state;
    int64_t low = INT64_MAX, high = 0;
    for (int i = 0; i < 2000; i++) {
        int64_t value = timers_jitter(1000, 200);
        low = value < low ? value : low;
        high = value > high ? value : high;
    }
    assert_true(low >= 800 && low < 830 && high <= 1200 && high > 1170);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(due_timers_fire_once_in_order),
        cmocka_unit_test(cancelled_timers_do_not_fire),
        cmocka_unit_test(a_timer_that_is_always_due_does_not_starve_the_caller),
        cmocka_unit_test(a_thousand_random_deadlines_keep_their_order),
        cmocka_unit_test(jitter_stays_in_its_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
