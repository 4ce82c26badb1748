#include "meshtest.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "report_wire.h"
#include "runner.h"
#include "wire.h"

#define DEADLINE_NS (20 * NS_PER_S)

struct bench {
    struct guard guard;
    runner_t *runner;
    spin_t *spin;
    unsigned ready, reports;
    Mp__EndReport *last;
};

static bool is_supported(char *reason)
{
    (void)reason;
    return true;
}

static void wait_for_stop(const struct probe_order *order, dataport_t *port,
    const struct probe_hooks *hooks, struct probe_report *report)
{
    (void)order, (void)port;
    struct pollfd stop = {.fd = hooks->stop_fd, .events = POLLIN};
    hooks->ready(hooks->ctx);
    report->outcome = poll(&stop, 1, 60000) == 1 ? PROBE_STOPPED : PROBE_FAILED;
}

// Ends at once, and says that its peer came from another address than the ticket's.
static void be_translated(const struct probe_order *order, dataport_t *port,
    const struct probe_hooks *hooks, struct probe_report *report)
{
    (void)order, (void)port, (void)hooks;
    report->outcome = PROBE_OK;
    report->has_receive = true;
    report->receive.interval_count = 2;
    report->receive.intervals = calloc(2, sizeof *report->receive.intervals);
    report->receive.intervals[1].bandwidth_bps = 42;
    strcpy(report->peer_seen, "192.0.2.1");
}

static const struct probe_kind *find_kind(enum test_kind kind)
{
    static const struct probe_kind waiting = {TEST_TCP, "tcp", is_supported, wait_for_stop};
    static const struct probe_kind translated = {TEST_UDP, "udp", is_supported, be_translated};
    return kind == TEST_TCP ? &waiting : kind == TEST_UDP ? &translated : NULL;
}

static void on_ready(void *ctx, const uint8_t test_id[TICKET_ID_SIZE])
{
    (void)test_id;
    ((struct bench *)ctx)->ready++;
}

static void on_progress(
    void *ctx, const uint8_t test_id[TICKET_ID_SIZE], const struct probe_interval *interval)
{
    (void)ctx, (void)test_id, (void)interval;
}

static void on_report(void *ctx, const uint8_t test_id[TICKET_ID_SIZE], Mp__EndReport *report)
{
    (void)test_id;
    struct bench *bench = ctx;
    if (bench->last)
        mp__end_report__free_unpacked(bench->last, NULL);
    bench->last = report;
    bench->reports++;
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    struct runner_ops ops = {bench, on_ready, on_progress, on_report, find_kind};
    zsys_init();
    zsys_handler_set(NULL);
    guard_defaults(&bench->guard);
    bench->spin = spin_new(true);
    bench->runner = runner_new(&bench->guard, NULL, bench->spin, &ops);
    assert_non_null(bench->runner);
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    runner_destroy(&bench->runner);
    spin_destroy(&bench->spin);
    if (bench->last)
        mp__end_report__free_unpacked(bench->last, NULL);
    free(bench);
    return 0;
}

static void begin(struct bench *bench, uint8_t mark, enum test_kind kind)
{
    uint8_t id[TICKET_ID_SIZE], key[TICKET_KEY_SIZE] = {1};
    memset(id, mark, sizeof id);
    Mp__Ticket ticket = MP__TICKET__INIT;
    ticket.test_id = (ProtobufCBinaryData){sizeof id, id};
    ticket.key = (ProtobufCBinaryData){sizeof key, key};
    ticket.receives = true;
    ticket.local_address = ticket.peer_address = (char *)"127.0.0.1";
    ticket.expiry_ns = ticket.limit_ns = 60 * NS_PER_S;
    struct testspec spec;
    Mp__TestSpec wire = MP__TEST_SPEC__INIT;
    testspec_defaults(kind, &spec);
    testspec_to_wire(&spec, &wire);
    runner_start(bench->runner, &ticket, &wire);
}

static void turn_until(struct bench *bench, const unsigned *count, unsigned wanted)
{
    int64_t end = clock_mono_ns() + DEADLINE_NS;
    zmq_pollitem_t item = {
        .socket = zsock_resolve(runner_events(bench->runner)), .events = ZMQ_POLLIN};
    while (*count < wanted && clock_mono_ns() < end) {
        zmq_poll(&item, 1, 100);
        runner_turn(bench->runner);
    }
    assert_int_equal(*count, wanted);
}

static void one_test_more_than_the_guard_allows_is_skipped(void **state)
{
    struct bench *bench = *state;
    bench->guard.tests = 2;
    begin(bench, 1, TEST_TCP);
    begin(bench, 2, TEST_TCP);
    assert_int_equal(bench->reports, 0);
    begin(bench, 3, TEST_TCP);
    assert_int_equal(bench->reports, 1);
    assert_int_equal(bench->last->outcome, MP__OUTCOME__OUTCOME_SKIPPED);
    assert_non_null(strstr(bench->last->reason, "guard: tests"));
    turn_until(bench, &bench->ready, 2);
    runner_stop_all(bench->runner);
    turn_until(bench, &bench->reports, 3);
    assert_int_equal(runner_count(bench->runner), 0);
}

static bool may_spin(struct bench *bench)
{
    struct spinner one = {0};
    bool leave = spinner_turn(&one, bench->spin, true, 0);
    (void)spinner_turn(&one, bench->spin, false, 0);
    return leave;
}

static void nobody_spins_while_a_test_runs(void **state)
{
    struct bench *bench = *state;
    bool spare = may_spin(bench); // not on a single core
    begin(bench, 1, TEST_TCP);
    assert_false(may_spin(bench));
    begin(bench, 2, TEST_TCP);
    runner_stop_all(bench->runner);
    assert_false(may_spin(bench));
    turn_until(bench, &bench->reports, 2);
    assert_int_equal(may_spin(bench), spare);
}

static void a_test_that_is_over_does_not_start_again(void **state)
{
    struct bench *bench = *state;
    uint8_t id[TICKET_ID_SIZE], other[TICKET_ID_SIZE] = {0};
    memset(id, 1, sizeof id);
    begin(bench, 1, TEST_TCP);
    turn_until(bench, &bench->ready, 1);
    runner_stop(bench->runner, other);
    runner_stop(bench->runner, id);
    runner_stop(bench->runner, id);
    turn_until(bench, &bench->reports, 1);
    assert_int_equal(bench->last->outcome, MP__OUTCOME__OUTCOME_STOPPED);
    begin(bench, 1, TEST_TCP);
    assert_int_equal(runner_count(bench->runner), 0);
}

static void running_tests_do_not_keep_the_agent_from_ending(void **state)
{
    struct bench *bench = *state;
    for (uint8_t i = 1; i <= 10; i++)
        begin(bench, i, TEST_TCP);
    assert_int_equal(runner_count(bench->runner), 10);
    int64_t start = clock_mono_ns();
    runner_destroy(&bench->runner);
    assert_true(clock_mono_ns() - start < DEADLINE_NS);
}

static void the_guard_judges_the_address_that_was_seen(void **state)
{
    struct bench *bench = *state;
    begin(bench, 1, TEST_UDP);
    turn_until(bench, &bench->reports, 1);
    assert_int_equal(bench->last->outcome, MP__OUTCOME__OUTCOME_OK);
    assert_int_equal(bench->last->receive->n_intervals, 2);
    assert_true(bench->last->receive->intervals[1]->bandwidth_bps == 42);
    assert_int_equal(cidr_parse("127.0.0.0/8", &bench->guard.peers[0]), 0);
    bench->guard.peer_count = 1;
    begin(bench, 2, TEST_UDP);
    turn_until(bench, &bench->reports, 2);
    assert_int_equal(bench->last->outcome, MP__OUTCOME__OUTCOME_SKIPPED);
    assert_non_null(strstr(bench->last->reason, "192.0.2.1"));
    assert_null(bench->last->receive);
}

static void what_was_not_measured_is_not_said(void **state)
{
    (void)state;
    struct probe_report report;
    probe_report_init(&report);
    report.outcome = PROBE_OK;
    report.has_send = report.has_receive = true;
    report.send.retransmits = 0;
    Mp__EndReport *wire = report_to_wire(&report);
    assert_true(wire->send->has_retransmits);
    assert_false(wire->send->has_bytes);
    assert_false(wire->receive->has_bandwidth_bps);
    assert_null(wire->receive->packets);
    assert_null(wire->receive->pdv);
    assert_null(wire->load);
    mp__end_report__free_unpacked(wire, NULL);
    probe_report_release(&report);
}

static void intervals_are_merged_until_a_report_fits(void **state)
{
    (void)state;
    struct probe_report report;
    probe_report_init(&report);
    report.has_receive = true;
    report.receive.interval_count = 10000;
    report.receive.intervals = calloc(10000, sizeof *report.receive.intervals);
    for (size_t i = 0; i < 10000; i++)
        report.receive.intervals[i] = (struct probe_interval){
            .start_s = (double)i, .duration_s = 1, .bandwidth_bps = 8e9, .bytes = 1000000000};
    Mp__EndReport *wire = report_to_wire(&report);
    assert_true(wire_packed_size(&wire->base) < WIRE_MESSAGE_MAX);
    double duration_s = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < wire->receive->n_intervals; i++) {
        duration_s += wire->receive->intervals[i]->duration_s;
        bytes += wire->receive->intervals[i]->bytes;
        assert_true(wire->receive->intervals[i]->bandwidth_bps == 8e9);
    }
    assert_true(duration_s == 10000);
    assert_int_equal(bytes, UINT64_C(10000000000000));
    mp__end_report__free_unpacked(wire, NULL);
    probe_report_release(&report);
}

#define RUNNER_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNNER_TEST(one_test_more_than_the_guard_allows_is_skipped),
        RUNNER_TEST(nobody_spins_while_a_test_runs),
        RUNNER_TEST(a_test_that_is_over_does_not_start_again),
        RUNNER_TEST(running_tests_do_not_keep_the_agent_from_ending),
        RUNNER_TEST(the_guard_judges_the_address_that_was_seen),
        cmocka_unit_test(what_was_not_measured_is_not_said),
        cmocka_unit_test(intervals_are_merged_until_a_report_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
