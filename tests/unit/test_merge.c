#include <stdlib.h>

#include "merge.h"
#include "meshtest.h"

static void init_reports(Mp__EndReport ends[2], Mp__SendSide *send, Mp__ReceiveSide *receive)
{
    mp__end_report__init(&ends[0]);
    mp__end_report__init(&ends[1]);
    mp__send_side__init(send);
    mp__receive_side__init(receive);
    ends[0].send = send;
    ends[1].receive = receive;
    receive->has_bandwidth_bps = true;
    receive->bandwidth_bps = 8e6;
}

static Mp__Cell *new_cell(void)
{
    Mp__Cell *cell = calloc(1, sizeof *cell);
    mp__cell__init(cell);
    return cell;
}

static Mp__Cell *merge_counts(uint64_t sent, uint64_t received, uint64_t lost_receiver)
{
    Mp__EndReport ends[2];
    Mp__SendSide send;
    Mp__ReceiveSide receive;
    Mp__Packets packets = MP__PACKETS__INIT;
    struct testspec spec;
    testspec_defaults(TEST_UDP, &spec);
    init_reports(ends, &send, &receive);
    receive.packets = &packets;
    packets.has_sent = packets.has_received = packets.has_lost_receiver = true;
    packets.sent = sent;
    packets.received = received;
    packets.lost_receiver = lost_receiver;
    send.has_packets_lost_sender = true;
    send.packets_lost_sender = 3;
    Mp__Cell *cell = new_cell();
    assert_true(merge_ends(&spec, &ends[0], &ends[1], cell));
    return cell;
}

static void packets_always_add_up(void **state)
{
    (void)state;
    static const struct {
        uint64_t sent, received, own, network, receiver;
    } examples[] = {{1000, 1000, 0, 0, 0}, {1000, 900, 0, 100, 0}, {1000, 900, 30, 70, 30},
        {1000, 990, 64, 0, 10}, {1000, 1001, 5, 0, 0}, {0, 0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        Mp__Cell *cell = merge_counts(examples[i].sent, examples[i].received, examples[i].own);
        assert_int_equal(cell->packets->lost_network, examples[i].network);
        assert_int_equal(cell->packets->lost_receiver, examples[i].receiver);
        assert_int_equal(cell->packets->lost_sender, 3);
        assert_int_equal(cell->packets->sent,
            cell->packets->received + cell->packets->lost_network + cell->packets->lost_receiver);
        assert_int_equal(cell->has_loss_ratio, examples[i].sent > 0);
        mp__cell__free_unpacked(cell, NULL);
    }
}

static void the_network_alone_makes_the_loss_ratio(void **state)
{
    (void)state;
    Mp__Cell *cell = merge_counts(1000, 900, 30);
    assert_true(cell->loss_ratio == 0.07);
    mp__cell__free_unpacked(cell, NULL);
}

static void success_without_a_bandwidth_is_no_result(void **state)
{
    (void)state;
    Mp__EndReport ends[2];
    Mp__SendSide send;
    Mp__ReceiveSide receive;
    struct testspec spec;
    testspec_defaults(TEST_TCP, &spec);
    init_reports(ends, &send, &receive);
    receive.has_bandwidth_bps = false;
    Mp__Cell *cell = new_cell();
    assert_false(merge_ends(&spec, &ends[0], &ends[1], cell));
    ends[1].receive = NULL;
    assert_false(merge_ends(&spec, &ends[0], &ends[1], cell));
    assert_null(cell->limiter);
    mp__cell__free_unpacked(cell, NULL);
}

static void what_was_not_measured_stays_absent(void **state)
{
    (void)state;
    Mp__EndReport ends[2];
    Mp__SendSide send;
    Mp__ReceiveSide receive;
    struct testspec spec;
    testspec_defaults(TEST_TCP, &spec);
    init_reports(ends, &send, &receive);
    send.has_retransmits = true;
    Mp__Cell *cell = new_cell();
    assert_true(merge_ends(&spec, &ends[0], &ends[1], cell));
    assert_int_equal(cell->state, MP__CELL_STATE__OK);
    assert_true(cell->has_bandwidth_bps && cell->has_retransmits);
    assert_false(cell->has_jitter_s || cell->has_loss_ratio || cell->has_bytes);
    assert_null(cell->packets);
    assert_null(cell->rtt_loaded);
    assert_non_null(cell->limiter);
    mp__cell__free_unpacked(cell, NULL);
}

static void a_light_outcome_counts_round_trips(void **state)
{
    (void)state;
    Mp__LightOutcome outcome = MP__LIGHT_OUTCOME__INIT;
    Mp__Distribution rtt = MP__DISTRIBUTION__INIT;
    outcome.outcome = MP__OUTCOME__OUTCOME_OK;
    outcome.has_sent = outcome.has_received = true;
    outcome.sent = 20;
    outcome.received = 15;
    rtt.count = 15;
    rtt.has_p50 = true;
    rtt.p50 = 0.001;
    outcome.rtt = &rtt;
    Mp__Cell *cell = new_cell();
    Mp__LightResult result = MP__LIGHT_RESULT__INIT;
    result.stamps = (char *)"tx kernel";
    result.technique = (char *)"prober sleeps";
    merge_light(&outcome, &result, cell);
    assert_int_equal(cell->state, MP__CELL_STATE__OK);
    assert_true(cell->loss_ratio == 0.25 && cell->rtt->p50 == 0.001);
    assert_int_equal(cell->packets->lost_network, 5);
    assert_string_equal(cell->stamps, "tx kernel");
    assert_string_equal(cell->technique, "prober sleeps");
    mp__cell__free_unpacked(cell, NULL);
    // The first question finds a reflector asleep that spins.
    static const struct {
        uint64_t far_spun;
        const char *words;
    } spun[] = {{0, "prober sleeps, reflector sleeps"},
        {1, "prober sleeps, reflector spins in part"}, {14, "prober sleeps, reflector spins"},
        {15, "prober sleeps, reflector spins"}};
    for (size_t i = 0; i < sizeof spun / sizeof *spun; i++) {
        outcome.has_far_spun = true;
        outcome.far_spun = spun[i].far_spun;
        cell = new_cell();
        merge_light(&outcome, &result, cell);
        assert_string_equal(cell->technique, spun[i].words);
        mp__cell__free_unpacked(cell, NULL);
    }
    cell = new_cell();
    outcome.outcome = MP__OUTCOME__OUTCOME_FAILED;
    merge_light(&outcome, &result, cell);
    assert_int_equal(cell->state, MP__CELL_STATE__FAILED);
    assert_non_null(cell->reason);
    mp__cell__free_unpacked(cell, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_always_add_up),
        cmocka_unit_test(the_network_alone_makes_the_loss_ratio),
        cmocka_unit_test(success_without_a_bandwidth_is_no_result),
        cmocka_unit_test(what_was_not_measured_stays_absent),
        cmocka_unit_test(a_light_outcome_counts_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
