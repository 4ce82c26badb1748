// The choice between two ways of moving load, on hosts and paths that are made up.

#include "meshtest.h"

#include "tcp_trial.h"

// One way on one host: what the path lets pass, what a busy thread moves, and what that costs.
struct host {
    double path_bps, thread_bps[2]; // by enum tcp_way; a busy thread's rate
    double growth;                  // of the path's rate, from slice to slice
};

static enum tcp_way choose(const struct host *host, unsigned slices)
{
    struct tcp_trial trial;
    int64_t now = 1000;
    double bytes = 5e6, cpu = 7e6, path = host->path_bps;
    tcp_trial_begin(&trial, now, (uint64_t)bytes, (int64_t)cpu);
    assert_false(tcp_trial_due(&trial, now + TCP_TRIAL_SLICE_NS - 1));
    bool more = true;
    for (unsigned i = 0; i < slices; i++) {
        double able = host->thread_bps[tcp_trial_way(&trial)];
        double rate = able < path ? able : path;
        assert_true(more);
        now += TCP_TRIAL_SLICE_NS;
        assert_true(tcp_trial_due(&trial, now));
        bytes += rate / 8 * (double)TCP_TRIAL_SLICE_NS / 1e9;
        cpu += rate / able * (double)TCP_TRIAL_SLICE_NS;
        more = tcp_trial_next(&trial, now, (uint64_t)bytes, (int64_t)cpu);
        path *= host->growth;
    }
    assert_int_equal(more, slices < TCP_TRIAL_SLICES);
    return tcp_trial_better(&trial);
}

static void the_faster_way_wins_where_the_thread_is_the_limit(void **state)
{
    (void)state;
    struct host host = {1e12, {[TCP_COPY] = 40e9, [TCP_SPLICE] = 33e9}, 1};
    assert_int_equal(choose(&host, TCP_TRIAL_SLICES), TCP_COPY);
    host.thread_bps[TCP_SPLICE] = 60e9;
    assert_int_equal(choose(&host, TCP_TRIAL_SLICES), TCP_SPLICE);
}

static void the_cheaper_way_wins_where_the_path_is_the_limit(void **state)
{
    (void)state;
    struct host host = {1e9, {[TCP_COPY] = 20e9, [TCP_SPLICE] = 50e9}, 1};
    assert_int_equal(choose(&host, TCP_TRIAL_SLICES), TCP_SPLICE);
    host.thread_bps[TCP_COPY] = 60e9;
    assert_int_equal(choose(&host, TCP_TRIAL_SLICES), TCP_COPY);
}

static void a_rate_that_grows_favours_neither(void **state)
{
    (void)state;
    struct host host = {1e9, {[TCP_COPY] = 20e9, [TCP_SPLICE] = 19e9}, 1.3};
    assert_int_equal(choose(&host, TCP_TRIAL_SLICES), TCP_COPY);
    host.thread_bps[TCP_SPLICE] = 21e9;
    assert_int_equal(choose(&host, TCP_TRIAL_SLICES), TCP_SPLICE);
}

static void without_both_tried_enough_it_copies(void **state)
{
    (void)state;
    struct host host = {1e12, {[TCP_COPY] = 10e9, [TCP_SPLICE] = 90e9}, 1};
    for (unsigned slices = 0; slices < 4; slices++)
        assert_int_equal(choose(&host, slices), TCP_COPY);
    assert_int_equal(choose(&host, 4), TCP_SPLICE);
}

static void nothing_moved_is_no_reason(void **state)
{
    (void)state;
    struct host host = {0, {[TCP_COPY] = 10e9, [TCP_SPLICE] = 90e9}, 1};
    assert_int_equal(choose(&host, TCP_TRIAL_SLICES), TCP_COPY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_faster_way_wins_where_the_thread_is_the_limit),
        cmocka_unit_test(the_cheaper_way_wins_where_the_path_is_the_limit),
        cmocka_unit_test(a_rate_that_grows_favours_neither),
        cmocka_unit_test(without_both_tried_enough_it_copies),
        cmocka_unit_test(nothing_moved_is_no_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
