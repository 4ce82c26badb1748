// Waking at a row of times: never before any of them, whatever was said of the next. How close
// after it is the machine's business.

#include "meshtest.h"

#include <sys/resource.h>

#include "clock.h"
#include "waker.h"

#define GAP_NS (200 * NS_PER_US)
#define LEAD_MOST_NS (50 * NS_PER_US)

// Waits for `count` times, the next of which is said to be `said_ns` after each.
static void wait_in_a_row(struct waker *waker, unsigned count, int64_t gap_ns, int64_t said_ns)
{
    int64_t then = clock_mono_ns() + gap_ns;
    for (unsigned i = 0; i < count; i++, then += gap_ns) {
        int64_t now = waker_wait(waker, then, then + said_ns);
        assert_true(now >= then);
        assert_true(clock_mono_ns() >= now);
        assert_true(waker->lead_ns >= 0 && waker->lead_ns <= LEAD_MOST_NS);
    }
}

static void nothing_wakes_before_its_time(void **state)
{
    (void)state;
    struct waker waker;
    waker_open(&waker, 5 * NS_PER_US);
    wait_in_a_row(&waker, 200, GAP_NS, GAP_NS);
    wait_in_a_row(&waker, 200, 500, 500); // closer than any thread wakes
    waker_close(&waker);
}

static void the_next_time_may_be_another_than_was_said(void **state)
{
    (void)state;
    struct waker waker;
    waker_open(&waker, 0);
    wait_in_a_row(&waker, 100, GAP_NS, GAP_NS / 2);
    wait_in_a_row(&waker, 100, GAP_NS, 3 * GAP_NS);
    wait_in_a_row(&waker, 100, GAP_NS, 0);
    wait_in_a_row(&waker, 100, 1500, 700); // so close that a timer may be left as it is
    waker_close(&waker);
}

static void one_that_may_not_look_at_the_clock_is_woken_no_earlier(void **state)
{
    (void)state;
    struct waker waker;
    waker_open(&waker, 0);
    wait_in_a_row(&waker, 100, GAP_NS, GAP_NS);
    assert_int_equal(waker.lead_ns, 0);
    waker_close(&waker);
}

static void what_is_past_is_not_waited_for(void **state)
{
    (void)state;
    struct waker waker;
    waker_open(&waker, 0);
    for (unsigned i = 0; i < 10; i++) {
        int64_t past = clock_mono_ns() - NS_PER_S;
        assert_true(waker_wait(&waker, past, past + GAP_NS) > past);
    }
    waker_close(&waker);
}

static void without_descriptors_it_sleeps(void **state)
{
    (void)state;
    struct rlimit limit, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct waker waker;
    waker_open(&waker, 5 * NS_PER_US);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(waker.fds[0] < 0 && waker.fds[1] < 0);
    wait_in_a_row(&waker, 100, GAP_NS, GAP_NS);
    waker_close(&waker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_wakes_before_its_time),
        cmocka_unit_test(the_next_time_may_be_another_than_was_said),
        cmocka_unit_test(one_that_may_not_look_at_the_clock_is_woken_no_earlier),
        cmocka_unit_test(what_is_past_is_not_waited_for),
        cmocka_unit_test(without_descriptors_it_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
