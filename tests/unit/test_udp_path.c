// UDP and light probes over a path that loses, doubles, reorders and delays: what is reported is
// what was done.

#include "meshtest.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "engine_bench.h"
#include "kinds.h"
#include "light.h"
#include "udp_relay.h"

struct path {
    struct engine_bench bench;
    udp_relay_t *relay;
    struct relay_counts counts;
    struct probe_report *sender, *receiver;
};

// Released by the teardown, so that a test that fails leaves nothing behind.
static int begin(void **state)
{
    *state = calloc(1, sizeof(struct path));
    return *state ? 0 : -1;
}

static int end(void **state)
{
    struct path *path = *state;
    engine_bench_end(&path->bench);
    free(path);
    return 0;
}

// 2 Mbit/s in datagrams of 500 bytes: 500 a second, for half a second. The smallest of socket
// buffers holds them all, so that none is lost while this machine sleeps; it may let the sender
// forget some.
static void run(
    struct path *path, bool sender_connects, int64_t delay_ns, relay_rule *rule, void *ctx)
{
    engine_bench_end(&path->bench);
    engine_bench_begin(&path->bench, &probe_udp, "127.0.0.1", sender_connects);
    struct testspec *spec = &path->bench.connecting.spec;
    spec->length = 500;
    spec->bitrate_bps = 2000000;
    path->bench.listening.spec = *spec;
    path->relay = udp_relay_new(dataport_number(path->bench.port), delay_ns, rule, ctx);
    path->bench.connecting.peer_port = udp_relay_port(path->relay);
    engine_bench_run(&path->bench);
    path->counts = udp_relay_end(&path->relay);
    path->sender = engine_bench_sender(&path->bench);
    path->receiver = engine_bench_receiver(&path->bench);
}

static void expect_complete(struct path *path)
{
    assert_string_equal(path->sender->reason, "");
    assert_string_equal(path->receiver->reason, "");
    const struct probe_receive *in = &path->receiver->receive;
    assert_int_equal(in->packets_expected, path->sender->send.packets_sent);
    assert_int_equal(in->packets_received + in->packets_lost, in->packets_expected);
    assert_int_equal(in->packets_lost_receiver, 0);
}

// ------------------------------------------------------------------------------------ loss

static enum relay_action every_tenth(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    (void)ctx;
    (void)direction;
    (void)bytes;
    (void)size;
    return number >= 0 && number % 10 == 3 ? RELAY_DROP : RELAY_PASS;
}

static void what_the_path_drops_is_lost_to_the_packet(void **state)
{
    struct path *path = *state;
    for (int connects = 0; connects < 2; connects++) {
        run(path, connects, 0, every_tenth, NULL);
        expect_complete(path);
        assert_int_equal(path->counts.dropped, (path->receiver->receive.packets_expected + 6) / 10);
        assert_true(path->counts.dropped > 0);
        assert_int_equal(path->receiver->receive.packets_lost, path->counts.dropped);
        assert_int_equal(path->receiver->receive.loss_bursts, path->counts.dropped);
        assert_int_equal(path->receiver->receive.loss_burst_longest, 1);
    }
}

static enum relay_action both_edges(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    (void)ctx;
    (void)direction;
    (void)bytes;
    (void)size;
    return (number >= 0 && number < 7) || number >= 150 ? RELAY_DROP : RELAY_PASS;
}

// 250 are sent, unless the machine made the sender forget 100 of them: then there is no loss at the
// end.
static void losses_at_the_very_start_and_end_count(void **state)
{
    struct path *path = *state;
    run(path, true, 0, both_edges, NULL);
    expect_complete(path);
    uint64_t sent = path->receiver->receive.packets_expected, at_end = sent > 150 ? sent - 150 : 0;
    assert_true(sent > 7);
    assert_int_equal(path->counts.dropped, 7 + at_end);
    assert_int_equal(path->receiver->receive.packets_lost, 7 + at_end);
    assert_int_equal(path->receiver->receive.loss_bursts, at_end ? 2 : 1);
    assert_int_equal(path->receiver->receive.loss_burst_longest, at_end > 7 ? at_end : 7);
}

static enum relay_action all_load(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    (void)ctx;
    (void)direction;
    (void)bytes;
    (void)size;
    return number >= 0 ? RELAY_DROP : RELAY_PASS;
}

static void a_path_that_passes_no_load_is_a_loss_of_all(void **state)
{
    struct path *path = *state;
    run(path, true, 0, all_load, NULL);
    expect_complete(path);
    assert_int_equal(path->receiver->receive.packets_received, 0);
    assert_int_equal(path->receiver->receive.packets_lost, path->counts.dropped);
}

// ---------------------------------------------------------------- duplicates and reordering

static enum relay_action doubles(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    (void)ctx;
    (void)direction;
    (void)bytes;
    (void)size;
    return number >= 0 && number % 20 == 0 ? RELAY_TWICE : RELAY_PASS;
}

static void duplicates_are_counted_and_are_no_goodput(void **state)
{
    struct path *path = *state;
    run(path, true, 0, doubles, NULL);
    expect_complete(path);
    const struct probe_receive *in = &path->receiver->receive;
    assert_int_equal(in->duplicate, path->counts.twice);
    assert_int_equal(in->packets_lost, 0);
    assert_int_equal(in->bytes, in->packets_received * 500);
}

static enum relay_action swaps(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    (void)ctx;
    (void)direction;
    (void)bytes;
    (void)size;
    return number >= 0 && number % 25 == 10 ? RELAY_SWAP : RELAY_PASS;
}

static void overtaken_datagrams_are_reordered_and_not_lost(void **state)
{
    struct path *path = *state;
    run(path, true, 0, swaps, NULL);
    expect_complete(path);
    assert_int_equal(path->receiver->receive.reordered, path->counts.swapped);
    assert_int_equal(path->receiver->receive.reorder_extent, 1);
    assert_int_equal(path->receiver->receive.packets_lost, 0);
}

// ---------------------------------------------------------------------------- consent and end

// Of the messages that are no load: every second one, both ways, the handshake included.
static enum relay_action every_second_message(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    unsigned *seen = ctx;
    (void)bytes;
    (void)size;
    return number < 0 && seen[direction]++ % 2 == 0 ? RELAY_DROP : RELAY_PASS;
}

static void lost_messages_of_the_test_are_said_again(void **state)
{
    struct path *path = *state;
    unsigned seen[2] = {0};
    run(path, true, 0, every_second_message, seen);
    expect_complete(path);
    assert_int_equal(path->receiver->receive.packets_lost, 0);
}

struct cut {
    int64_t from_ns, first_ns; // from: since the first load
    uint64_t load;
};

static enum relay_action consent_is_cut(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    struct cut *cut = ctx;
    int64_t now = clock_mono_ns();
    (void)bytes;
    (void)size;
    if (number >= 0 && !cut->first_ns)
        cut->first_ns = now;
    cut->load += number >= 0;
    bool cutting = cut->first_ns && now - cut->first_ns >= cut->from_ns;
    return direction == RELAY_BACKWARD && cutting ? RELAY_DROP : RELAY_PASS;
}

static void load_stops_a_second_after_the_last_word_of_consent(void **state)
{
    struct path *path = *state;
    struct cut cut = {.from_ns = 200 * NS_PER_MS};
    engine_bench_begin(&path->bench, &probe_udp, "127.0.0.1", true);
    struct testspec *spec = &path->bench.connecting.spec;
    spec->length = 500;
    spec->bitrate_bps = 2000000;
    spec->duration_ns = 20 * NS_PER_S;
    path->bench.listening.spec = *spec;
    path->relay = udp_relay_new(dataport_number(path->bench.port), 0, consent_is_cut, &cut);
    path->bench.connecting.peer_port = udp_relay_port(path->relay);
    engine_bench_run(&path->bench);
    (void)udp_relay_end(&path->relay);
    // 500 a second for 1.2 s, and for as long as a busy machine needs to notice; not for 20 s.
    assert_true(cut.load < 2500);
    assert_int_equal(path->bench.connected.outcome, PROBE_FAILED);
    assert_int_equal(path->bench.listened.outcome, PROBE_FAILED);
}

static enum relay_action mute(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    (void)ctx;
    (void)bytes;
    (void)size;
    (void)number;
    return direction == RELAY_BACKWARD ? RELAY_DROP : RELAY_PASS;
}

static void without_an_answer_no_load_is_sent_at_all(void **state)
{
    struct path *path = *state;
    engine_bench_begin(&path->bench, &probe_udp, "127.0.0.1", true);
    path->bench.listening.expiry_mono_ns = clock_mono_ns() + 4 * NS_PER_S;
    path->relay = udp_relay_new(dataport_number(path->bench.port), 0, mute, NULL);
    path->bench.connecting.peer_port = udp_relay_port(path->relay);
    engine_bench_run(&path->bench);
    (void)udp_relay_end(&path->relay);
    assert_non_null(strstr(path->bench.connected.reason, "no answer"));
    assert_int_equal(path->bench.connected.outcome, PROBE_FAILED);
    assert_false(path->bench.connected.has_send);
}

// ------------------------------------------------------------------------------- light probes

static void light(
    relay_rule *rule, int64_t delay_ns, struct light_outcome *outcome, struct relay_counts *counts)
{
    int error, stop[2];
    struct testspec spec;
    struct light_peer peer = {.local_address = "127.0.0.1", .peer_address = "127.0.0.1"};
    struct light_summary summary = {0};
    uint8_t id[TICKET_ID_SIZE] = {7}, key[TICKET_KEY_SIZE] = {8};
    dataport_t *port = dataport_new(0, NULL, &error);
    assert_non_null(port);
    assert_int_equal(pipe(stop), 0);
    ticket_derive(id, key, &peer.keys);
    assert_int_equal(dataport_reflect(port, &peer.keys, "127.0.0.1", INT64_MAX, 0), 0);
    udp_relay_t *relay = udp_relay_new(dataport_number(port), delay_ns, rule, NULL);
    peer.peer_port = udp_relay_port(relay);
    testspec_defaults(TEST_LATENCY, &spec);
    spec.duration_ns = NS_PER_S;
    spec.probe_rate = 200;
    light_run(&spec, &peer, 1, NULL, stop[0], outcome, &summary);
    *counts = udp_relay_end(&relay);
    dataport_unreflect(port, id);
    dataport_destroy(&port);
    close(stop[0]);
    close(stop[1]);
}

static void a_round_trip_takes_what_the_path_takes(void **state)
{
    (void)state;
    struct light_outcome outcome = {0};
    struct relay_counts counts;
    light(NULL, 10 * NS_PER_MS, &outcome, &counts);
    assert_int_equal(outcome.outcome, PROBE_OK);
    assert_int_equal(outcome.received, outcome.sent);
    // The relay's own waking comes on top, however long that takes on this machine. Wall clocks are
    // slewed by 500 ppm at most.
    assert_true(outcome.rtt.min_s >= 0.0199);
}

static atomic_uint questions;

static enum relay_action every_fifth_answer(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    (void)ctx;
    (void)bytes;
    (void)size;
    (void)number;
    return direction == RELAY_BACKWARD && questions++ % 5 == 0 ? RELAY_DROP : RELAY_PASS;
}

static void lost_round_trips_are_counted_exactly(void **state)
{
    (void)state;
    struct light_outcome outcome = {0};
    struct relay_counts counts;
    light(every_fifth_answer, 0, &outcome, &counts);
    assert_int_equal(outcome.outcome, PROBE_OK);
    assert_true(counts.dropped > 0);
    assert_int_equal(outcome.sent - outcome.received, counts.dropped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_the_path_drops_is_lost_to_the_packet, begin, end),
        cmocka_unit_test_setup_teardown(losses_at_the_very_start_and_end_count, begin, end),
        cmocka_unit_test_setup_teardown(a_path_that_passes_no_load_is_a_loss_of_all, begin, end),
        cmocka_unit_test_setup_teardown(duplicates_are_counted_and_are_no_goodput, begin, end),
        cmocka_unit_test_setup_teardown(overtaken_datagrams_are_reordered_and_not_lost, begin, end),
        cmocka_unit_test_setup_teardown(lost_messages_of_the_test_are_said_again, begin, end),
        cmocka_unit_test_setup_teardown(
            load_stops_a_second_after_the_last_word_of_consent, begin, end),
        cmocka_unit_test_setup_teardown(without_an_answer_no_load_is_sent_at_all, begin, end),
        cmocka_unit_test(a_round_trip_takes_what_the_path_takes),
        cmocka_unit_test(lost_round_trips_are_counted_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
