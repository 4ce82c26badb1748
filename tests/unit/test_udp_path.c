// UDP and light probes over a path that loses, doubles, reorders and delays: what is reported is
// what was done.

#include "meshtest.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
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

// 4 Mbit/s in datagrams of 500 bytes: 1,000 a second, for half a second.
static void run(
    struct path *path, bool sender_connects, int64_t delay_ns, relay_rule *rule, void *ctx)
{
    engine_bench_begin(&path->bench, &probe_udp, "127.0.0.1", sender_connects);
    struct testspec *spec = &path->bench.connecting.spec;
    spec->length = 500;
    spec->bitrate_bps = 4000000;
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
    (void)state;
    for (int connects = 0; connects < 2; connects++) {
        struct path path = {0};
        run(&path, connects, 0, every_tenth, NULL);
        expect_complete(&path);
        assert_true(path.counts.dropped > 40);
        assert_int_equal(path.receiver->receive.packets_lost, path.counts.dropped);
        assert_int_equal(path.receiver->receive.loss_bursts, path.counts.dropped);
        assert_int_equal(path.receiver->receive.loss_burst_longest, 1);
        engine_bench_end(&path.bench);
    }
}

static enum relay_action both_edges(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    (void)ctx;
    (void)direction;
    (void)bytes;
    (void)size;
    // 500 are sent (give or take the last one): the first seven and all from 480.
    return (number >= 0 && number < 7) || number >= 480 ? RELAY_DROP : RELAY_PASS;
}

static void losses_at_the_very_start_and_end_count(void **state)
{
    (void)state;
    struct path path = {0};
    run(&path, true, 0, both_edges, NULL);
    expect_complete(&path);
    assert_int_equal(path.receiver->receive.packets_lost, path.counts.dropped);
    assert_true(path.counts.dropped >= 7 + 15);
    assert_int_equal(path.receiver->receive.loss_bursts, 2);
    assert_int_equal(path.receiver->receive.loss_burst_longest, path.counts.dropped - 7);
    engine_bench_end(&path.bench);
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
    (void)state;
    struct path path = {0};
    run(&path, true, 0, all_load, NULL);
    expect_complete(&path);
    assert_int_equal(path.receiver->receive.packets_received, 0);
    assert_int_equal(path.receiver->receive.packets_lost, path.counts.dropped);
    engine_bench_end(&path.bench);
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
    (void)state;
    struct path path = {0};
    run(&path, true, 0, doubles, NULL);
    expect_complete(&path);
    const struct probe_receive *in = &path.receiver->receive;
    assert_int_equal(in->duplicate, path.counts.twice);
    assert_int_equal(in->packets_lost, 0);
    assert_int_equal(in->bytes, in->packets_received * 500);
    engine_bench_end(&path.bench);
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
    (void)state;
    struct path path = {0};
    run(&path, true, 0, swaps, NULL);
    expect_complete(&path);
    assert_int_equal(path.receiver->receive.reordered, path.counts.swapped);
    assert_int_equal(path.receiver->receive.reorder_extent, 1);
    assert_int_equal(path.receiver->receive.packets_lost, 0);
    engine_bench_end(&path.bench);
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
    (void)state;
    struct path path = {0};
    unsigned seen[2] = {0};
    run(&path, true, 0, every_second_message, seen);
    expect_complete(&path);
    assert_int_equal(path.receiver->receive.packets_lost, 0);
    engine_bench_end(&path.bench);
}

struct cut {
    int64_t from_ns, until_ns; // since the first load
    int64_t first_ns;
    atomic_uint late; // load that came over 1.3 s after the last word of consent passed
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
    int64_t at = cut->first_ns ? now - cut->first_ns : 0;
    if (direction == RELAY_FORWARD && at > cut->from_ns + 1300 * NS_PER_MS && at < cut->until_ns)
        cut->late += number >= 0;
    if (direction == RELAY_BACKWARD && cut->first_ns && at >= cut->from_ns && at < cut->until_ns)
        return RELAY_DROP;
    return RELAY_PASS;
}

static void load_stops_a_second_after_the_last_word_of_consent(void **state)
{
    (void)state;
    struct path path = {0};
    struct cut cut = {.from_ns = 200 * NS_PER_MS, .until_ns = 60 * NS_PER_S};
    engine_bench_begin(&path.bench, &probe_udp, "127.0.0.1", true);
    struct testspec *spec = &path.bench.connecting.spec;
    spec->length = 500;
    spec->bitrate_bps = 4000000;
    spec->duration_ns = 20 * NS_PER_S;
    path.bench.listening.spec = *spec;
    path.relay = udp_relay_new(dataport_number(path.bench.port), 0, consent_is_cut, &cut);
    path.bench.connecting.peer_port = udp_relay_port(path.relay);
    int64_t begin = clock_mono_ns();
    engine_bench_run(&path.bench);
    (void)udp_relay_end(&path.relay);
    assert_int_equal(cut.late, 0);
    assert_int_equal(path.bench.connected.outcome, PROBE_FAILED);
    assert_int_equal(path.bench.listened.outcome, PROBE_FAILED);
    assert_true(clock_mono_ns() - begin < 15 * NS_PER_S);
    engine_bench_end(&path.bench);
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
    (void)state;
    struct path path = {0};
    engine_bench_begin(&path.bench, &probe_udp, "127.0.0.1", true);
    path.bench.listening.expiry_mono_ns = clock_mono_ns() + 4 * NS_PER_S;
    path.relay = udp_relay_new(dataport_number(path.bench.port), 0, mute, NULL);
    path.bench.connecting.peer_port = udp_relay_port(path.relay);
    engine_bench_run(&path.bench);
    (void)udp_relay_end(&path.relay);
    assert_non_null(strstr(path.bench.connected.reason, "no answer"));
    assert_int_equal(path.bench.connected.outcome, PROBE_FAILED);
    assert_false(path.bench.connected.has_send);
    engine_bench_end(&path.bench);
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
    dataport_t *port = dataport_new(0, &error);
    assert_non_null(port);
    assert_int_equal(pipe(stop), 0);
    ticket_derive(id, key, &peer.keys);
    assert_int_equal(dataport_reflect(port, &peer.keys, "127.0.0.1", INT64_MAX), 0);
    udp_relay_t *relay = udp_relay_new(dataport_number(port), delay_ns, rule, NULL);
    peer.peer_port = udp_relay_port(relay);
    testspec_defaults(TEST_LATENCY, &spec);
    spec.duration_ns = NS_PER_S;
    spec.probe_rate = 200;
    light_run(&spec, &peer, 1, stop[0], outcome, &summary);
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
    // The relay's own waking comes on top, so the least is the sharpest.
    assert_true(outcome.rtt.min_s >= 0.020 && outcome.rtt.min_s < 0.021);
    assert_true(outcome.rtt.p50_s < 0.022);
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
    assert_true(counts.dropped > 20);
    assert_int_equal(outcome.sent - outcome.received, counts.dropped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_path_drops_is_lost_to_the_packet),
        cmocka_unit_test(losses_at_the_very_start_and_end_count),
        cmocka_unit_test(a_path_that_passes_no_load_is_a_loss_of_all),
        cmocka_unit_test(duplicates_are_counted_and_are_no_goodput),
        cmocka_unit_test(overtaken_datagrams_are_reordered_and_not_lost),
        cmocka_unit_test(lost_messages_of_the_test_are_said_again),
        cmocka_unit_test(load_stops_a_second_after_the_last_word_of_consent),
        cmocka_unit_test(without_an_answer_no_load_is_sent_at_all),
        cmocka_unit_test(a_round_trip_takes_what_the_path_takes),
        cmocka_unit_test(lost_round_trips_are_counted_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
