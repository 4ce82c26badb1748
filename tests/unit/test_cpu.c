#include "meshtest.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "clock.h"
#include "cpu.h"

// On one core: a thread that others push around fills none.
static void stay(void)
{
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    assert_int_equal(sched_setaffinity(0, sizeof here, &here), 0);
}

static struct probe_load measure(bool busy)
{
    struct probe_report report;
    stay();
    probe_report_init(&report);
    cpu_t *cpu = cpu_new();
    cpu_watch(cpu, gettid());
    cpu_begin(cpu);
    int64_t end = clock_mono_ns() + 200 * NS_PER_MS;
    volatile unsigned turns = 0;
    while (clock_mono_ns() < end)
        if (busy)
            turns++;
        else
            usleep(10000);
    cpu_end(cpu, &report.load);
    cpu_destroy(&cpu);
    assert_null(cpu);
    return report.load;
}

static void a_spinning_thread_fills_its_core_or_waits_for_it(void **state)
{
    (void)state;
    struct probe_load load = measure(true);
    assert_true(load.busiest_thread <= 1.01);
    assert_true(load.busiest_thread + load.run_queue_wait > 0.8);
    assert_true(fabs(load.cores - load.busiest_thread) < 1e-9);
    // Its core did that much for it, whatever others had of it; /proc/stat counts in 10 ms.
    assert_true(load.busiest_core >= load.busiest_thread - 0.15 && load.busiest_core <= 1);
}

static void a_sleeping_thread_costs_next_to_nothing(void **state)
{
    (void)state;
    struct probe_load load = measure(false);
    assert_true(load.busiest_thread >= 0 && load.busiest_thread < 0.2);
}

static void *say_who(void *arg)
{
    *(pid_t *)arg = gettid();
    return NULL;
}

static void a_thread_that_has_ended_stays_absent(void **state)
{
    (void)state;
    struct probe_report report;
    probe_report_init(&report);
    cpu_t *cpu = cpu_new();
    pid_t ended = 0;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, say_who, &ended), 0);
    pthread_join(thread, NULL);
    cpu_watch(cpu, ended);
    cpu_begin(cpu);
    cpu_end(cpu, &report.load);
    assert_true(isnan(report.load.busiest_thread));
    assert_true(isnan(report.load.run_queue_wait));
    cpu_destroy(&cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_spinning_thread_fills_its_core_or_waits_for_it),
        cmocka_unit_test(a_sleeping_thread_costs_next_to_nothing),
        cmocka_unit_test(a_thread_that_has_ended_stays_absent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
