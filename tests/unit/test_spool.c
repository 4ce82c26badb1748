#include "meshtest.h"

#include <string.h>

#include "errors.h"
#include "spool.h"
#include "wire.h"

static int put(spool_t *spool, uint8_t mark)
{
    uint8_t id[16];
    memset(id, mark, sizeof id);
    Mp__EndReport report = MP__END_REPORT__INIT;
    Mp__Result result = MP__RESULT__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    report.reason = (char *)"a reason";
    result.test_id.data = id;
    result.test_id.len = sizeof id;
    result.report = &report;
    envelope.body_case = MP__ENVELOPE__BODY_RESULT;
    envelope.result = &result;
    return spool_put(spool, &envelope);
}

// Sends one; 0 if there is none to send.
static uint64_t send_one(spool_t *spool)
{
    Mp__Envelope *envelope = spool_next(spool);
    if (!envelope)
        return 0;
    uint64_t sequence = envelope->result->sequence;
    assert_int_equal(envelope->result->test_id.data[0], (uint8_t)sequence);
    wire_free(&envelope);
    spool_sent(spool);
    return sequence;
}

static void results_are_numbered_from_one_and_sent_in_order(void **state)
{
    (void)state;
    spool_t *spool = spool_new();
    for (uint8_t i = 1; i <= 40; i++)
        assert_int_equal(put(spool, i), 0);
    for (uint64_t i = 1; i <= 40; i++)
        assert_int_equal(send_one(spool), i);
    assert_int_equal(send_one(spool), 0);
    assert_int_equal(spool_count(spool), 40);
    spool_destroy(&spool);
    assert_null(spool);
}

static void what_is_confirmed_is_dropped_and_the_rest_is_sent_again(void **state)
{
    (void)state;
    spool_t *spool = spool_new();
    for (uint8_t i = 1; i <= 5; i++)
        assert_int_equal(put(spool, i), 0);
    for (uint64_t i = 1; i <= 4; i++)
        assert_int_equal(send_one(spool), i);
    assert_true(spool_acknowledge(spool, 2));
    assert_false(spool_acknowledge(spool, 2));
    assert_int_equal(spool_in_flight(spool), 2);
    assert_int_equal(send_one(spool), 5);
    spool_rewind(spool);
    assert_int_equal(send_one(spool), 3);
    assert_true(spool_acknowledge(spool, 5));
    assert_int_equal(spool_count(spool), 0);
    assert_int_equal(spool_bytes(spool), 0);
    assert_int_equal(put(spool, 6), 0);
    assert_int_equal(send_one(spool), 6);
    spool_destroy(&spool);
}

static void a_number_never_given_confirms_nothing(void **state)
{
    (void)state;
    spool_t *spool = spool_new();
    assert_int_equal(put(spool, 1), 0);
    assert_false(spool_acknowledge(spool, 2));
    assert_false(spool_acknowledge(spool, UINT64_MAX));
    assert_int_equal(spool_count(spool), 1);
    spool_destroy(&spool);
}

static void no_more_than_the_window_is_in_flight(void **state)
{
    (void)state;
    spool_t *spool = spool_new();
    for (unsigned i = 1; i <= SPOOL_WINDOW + 3; i++)
        assert_int_equal(put(spool, (uint8_t)i), 0);
    for (uint64_t i = 1; i <= SPOOL_WINDOW; i++)
        assert_int_equal(send_one(spool), i);
    assert_int_equal(send_one(spool), 0);
    assert_true(spool_acknowledge(spool, 1));
    assert_int_equal(send_one(spool), SPOOL_WINDOW + 1);
    assert_int_equal(send_one(spool), 0);
    spool_destroy(&spool);
}

static void a_full_spool_takes_words_about_refusals_and_then_nothing(void **state)
{
    (void)state;
    spool_t *spool = spool_new();
    for (unsigned i = 1; i <= SPOOL_RESULTS_MAX; i++) {
        assert_true(spool_room(spool, 1));
        assert_int_equal(put(spool, (uint8_t)i), 0);
    }
    assert_false(spool_room(spool, 1));
    for (unsigned i = 1; i <= SPOOL_REFUSALS_MAX; i++)
        assert_int_equal(put(spool, (uint8_t)i), 0);
    assert_int_equal(put(spool, 0), MESH_E_FULL);
    assert_true(spool_acknowledge(spool, SPOOL_REFUSALS_MAX + 1));
    assert_true(spool_room(spool, 1));
    assert_false(spool_room(spool, 2));
    spool_destroy(&spool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_numbered_from_one_and_sent_in_order),
        cmocka_unit_test(what_is_confirmed_is_dropped_and_the_rest_is_sent_again),
        cmocka_unit_test(a_number_never_given_confirms_nothing),
        cmocka_unit_test(no_more_than_the_window_is_in_flight),
        cmocka_unit_test(a_full_spool_takes_words_about_refusals_and_then_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
