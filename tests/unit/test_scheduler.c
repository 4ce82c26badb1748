// Properties of the schedule, whatever the order in which tests end.

#include <czmq.h>

#include "meshtest.h"
#include "scheduler.h"

#define HOSTS_MAX 40

struct world {
    ledger_t *ledger;
    scheduler_t *scheduler;
    uint32_t hosts;
    Mp__Mode mode;
    uint32_t machine[HOSTS_MAX]; // 0: of its own
    uint32_t zone[HOSTS_MAX];    // 0: none
    uint32_t zone_limit;
    uint64_t rate_bps;
    uint64_t random;
    struct {
        uint32_t from, to;
    } running[HOSTS_MAX * HOSTS_MAX];
    size_t running_count;
    uint8_t done[HOSTS_MAX][HOSTS_MAX];
    uint64_t trace; // of all decisions
};

static uint32_t draw(struct world *world, uint32_t below)
{
    world->random = world->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(world->random >> 33) % below;
}

static void open_world(struct world *world, uint64_t seed)
{
    struct schedule_host hosts[HOSTS_MAX] = {0};
    uint32_t values[HOSTS_MAX];
    char word[16];
    world->ledger = ledger_new();
    for (uint32_t h = 0; h < world->hosts; h++) {
        hosts[h].host = ledger_host(world->ledger, h + 1);
        snprintf(word, sizeof word, "boot%u", world->machine[h]);
        hosts[h].machine = world->machine[h] ? ledger_machine(world->ledger, word, 1) : LEDGER_NONE;
        snprintf(word, sizeof word, "%u", world->zone[h]);
        values[h] = world->zone[h] ? ledger_shared(world->ledger, "zone", word) : LEDGER_NONE;
    }
    struct schedule_shared shared = {world->zone_limit, values};
    struct schedule_config config = {.mode = world->mode,
        .seed = seed,
        .rate_bps = world->rate_bps,
        .host_count = world->hosts,
        .hosts = hosts,
        .shared = &shared,
        .shared_count = world->zone_limit ? 1 : 0};
    world->scheduler = scheduler_new(world->ledger, &config);
    for (uint32_t from = 0; from < world->hosts; from++)
        for (uint32_t to = 0; to < world->hosts; to++)
            if (from != to)
                assert_true(scheduler_add(world->scheduler, from, to));
}

static void close_world(struct world *world)
{
    scheduler_destroy(&world->scheduler);
    assert_true(ledger_idle(world->ledger));
    ledger_destroy(&world->ledger);
}

static bool crosses(const struct world *world, size_t i, uint32_t zone)
{
    uint32_t a = world->zone[world->running[i].from], b = world->zone[world->running[i].to];
    return a != b && (a == zone || b == zone);
}

static bool touches(const struct world *world, size_t i, uint32_t machine)
{
    return world->machine[world->running[i].from] == machine ||
           world->machine[world->running[i].to] == machine;
}

// May from -> to start beside what runs? An independent statement of the rules.
static bool may_start(const struct world *world, uint32_t from, uint32_t to)
{
    uint32_t ends[2] = {from, to}, crossing[2] = {0, 0}, on_machine[2] = {0, 0};
    for (size_t i = 0; i < world->running_count; i++) {
        uint32_t f = world->running[i].from, t = world->running[i].to;
        bool meets = world->mode == MP__MODE__DUPLEX ? f == from || t == to
                                                     : f == from || f == to || t == from || t == to;
        if (meets)
            return false;
        for (int e = 0; e < 2; e++) {
            uint32_t zone = world->zone[ends[e]], machine = world->machine[ends[e]];
            crossing[e] += zone && crosses(world, i, zone);
            on_machine[e] += machine && touches(world, i, machine);
        }
    }
    for (int e = 0; e < 2; e++) {
        if (world->zone_limit && world->zone[from] != world->zone[to] &&
            crossing[e] >= world->zone_limit)
            return false;
        uint64_t most = world->rate_bps ? LEDGER_MACHINE_BPS_PER_CORE / world->rate_bps : 1;
        if (on_machine[e] >= most)
            return false;
    }
    return true;
}

static void start_all(struct world *world)
{
    uint32_t from, to;
    while (scheduler_next(world->scheduler, &from, &to)) {
        assert_true(may_start(world, from, to));
        assert_int_equal(world->done[from][to], 0);
        world->done[from][to] = 1;
        world->running[world->running_count].from = from;
        world->running[world->running_count++].to = to;
        world->trace = world->trace * 31 + from * 64 + to;
    }
    // Work-conserving: what is left cannot start.
    for (uint32_t f = 0; f < world->hosts; f++)
        for (uint32_t t = 0; t < world->hosts; t++)
            if (f != t && !world->done[f][t] && may_start(world, f, t))
                fail_msg("%u -> %u could start, but is not chosen", f, t);
}

// Ends a random running test; one in `fail_one_in` comes back.
static void end_one(struct world *world, uint32_t fail_one_in)
{
    size_t i = draw(world, (uint32_t)world->running_count);
    uint32_t from = world->running[i].from, to = world->running[i].to;
    world->running[i] = world->running[--world->running_count];
    scheduler_release(world->scheduler, from, to);
    if (fail_one_in && draw(world, fail_one_in) == 0) {
        world->done[from][to] = 0;
        assert_true(scheduler_add(world->scheduler, from, to));
    }
}

static uint64_t run_world(struct world *world, uint64_t seed, uint32_t fail_one_in)
{
    world->random = 12345;
    open_world(world, seed);
    for (start_all(world); world->running_count > 0; start_all(world))
        end_one(world, fail_one_in);
    assert_int_equal(scheduler_remaining(world->scheduler), 0);
    close_world(world);
    return world->trace;
}

static void each_pair_runs_once_and_no_host_is_in_two_tests(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {2, 3, 8, 9, 31, 40};
    static const Mp__Mode modes[] = {MP__MODE__ISOLATED, MP__MODE__DUPLEX};
    for (size_t m = 0; m < 2; m++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct world world = {.hosts = sizes[i], .mode = modes[m]};
            run_world(&world, i, 0);
        }
}

static void failed_pairs_come_back_and_are_done_in_the_end(void **state)
{
    (void)state;
    struct world world = {.hosts = 20, .mode = MP__MODE__ISOLATED};
    run_world(&world, 3, 10);
}

static void shared_values_are_never_over_their_limit_nor_idle(void **state)
{
    (void)state;
    static const Mp__Mode modes[] = {MP__MODE__ISOLATED, MP__MODE__DUPLEX};
    for (size_t m = 0; m < 2; m++)
        for (uint32_t limit = 1; limit <= 3; limit++) {
            struct world world = {.hosts = 24, .mode = modes[m], .zone_limit = limit};
            for (uint32_t h = 0; h < world.hosts; h++)
                world.zone[h] = h % 4; // the first of four has none
            run_world(&world, limit, 20);
        }
}

static void one_test_without_a_rate_at_a_time_on_a_machine(void **state)
{
    (void)state;
    struct world world = {.hosts = 12, .mode = MP__MODE__ISOLATED};
    for (uint32_t h = 0; h < world.hosts; h++)
        world.machine[h] = h / 4; // the first four are machines of their own
    run_world(&world, 1, 0);
}

static void stated_rates_share_a_machine_up_to_its_cores(void **state)
{
    (void)state;
    struct world world = {
        .hosts = 16, .mode = MP__MODE__ISOLATED, .rate_bps = LEDGER_MACHINE_BPS_PER_CORE / 3};
    for (uint32_t h = 0; h < world.hosts; h++)
        world.machine[h] = 1;
    run_world(&world, 1, 0);
}

static void the_same_seed_decides_the_same_and_another_does_not(void **state)
{
    (void)state;
    uint64_t traces[3];
    static const uint64_t seeds[3] = {5, 5, 6};
    for (int i = 0; i < 3; i++) {
        struct world world = {.hosts = 15, .mode = MP__MODE__ISOLATED};
        traces[i] = run_world(&world, seeds[i], 0);
    }
    assert_true(traces[0] == traces[1]);
    assert_true(traces[0] != traces[2]);
}

static void a_host_that_leaves_is_not_picked_until_it_returns(void **state)
{
    (void)state;
    struct world world = {.hosts = 6, .mode = MP__MODE__ISOLATED, .random = 1};
    open_world(&world, 1);
    uint32_t from, to;
    scheduler_leave(world.scheduler, 2);
    assert_int_equal(scheduler_startable(world.scheduler), 20);
    unsigned picked = 0;
    while (scheduler_next(world.scheduler, &from, &to)) {
        assert_true(from != 2 && to != 2);
        scheduler_release(world.scheduler, from, to);
        picked++;
    }
    assert_int_equal(picked, 20);
    assert_int_equal(scheduler_remaining(world.scheduler), 10);
    scheduler_return(world.scheduler, 2);
    for (picked = 0; scheduler_next(world.scheduler, &from, &to); picked++) {
        assert_true(from == 2 || to == 2);
        scheduler_release(world.scheduler, from, to);
    }
    assert_int_equal(picked, 10);
    close_world(&world);
}

static void two_schedulers_do_not_use_one_host_at_once(void **state)
{
    (void)state;
    ledger_t *ledger = ledger_new();
    struct schedule_host hosts[2] = {
        {ledger_host(ledger, 1), LEDGER_NONE, 0}, {ledger_host(ledger, 2), LEDGER_NONE, 0}};
    struct schedule_config config = {
        .mode = MP__MODE__ISOLATED, .seed = 1, .host_count = 2, .hosts = hosts};
    scheduler_t *first = scheduler_new(ledger, &config), *second = scheduler_new(ledger, &config);
    uint32_t from, to;
    scheduler_add(first, 0, 1);
    scheduler_add(second, 1, 0);
    assert_true(scheduler_next(first, &from, &to));
    assert_false(scheduler_next(second, &from, &to));
    scheduler_release(first, 0, 1);
    assert_true(scheduler_next(second, &from, &to));
    scheduler_destroy(&first);
    scheduler_destroy(&second);
    assert_true(ledger_idle(ledger));
    ledger_destroy(&ledger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pair_runs_once_and_no_host_is_in_two_tests),
        cmocka_unit_test(failed_pairs_come_back_and_are_done_in_the_end),
        cmocka_unit_test(shared_values_are_never_over_their_limit_nor_idle),
        cmocka_unit_test(one_test_without_a_rate_at_a_time_on_a_machine),
        cmocka_unit_test(stated_rates_share_a_machine_up_to_its_cores),
        cmocka_unit_test(the_same_seed_decides_the_same_and_another_does_not),
        cmocka_unit_test(a_host_that_leaves_is_not_picked_until_it_returns),
        cmocka_unit_test(two_schedulers_do_not_use_one_host_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
