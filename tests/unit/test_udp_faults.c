// UDP tests when something goes wrong: forged and repeated datagrams, a path that stands still or
// dies, final counts that do not arrive, a receiver that cannot keep up.

#include "meshtest.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "control.h"
#include "engine_bench.h"
#include "kinds.h"
#include "udp_relay.h"

struct path {
    struct engine_bench bench;
    struct relay_counts counts;
    struct probe_report *sender, *receiver;
    int64_t took_ns;
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

// Datagrams of 500 bytes. No more of them than the smallest of socket buffers holds, so that none
// is lost while this machine sleeps.
static void run(
    struct path *path, uint64_t rate_bps, int64_t duration_ns, relay_rule *rule, void *ctx)
{
    engine_bench_begin(&path->bench, &probe_udp, "127.0.0.1", true);
    struct testspec *spec = &path->bench.connecting.spec;
    spec->length = 500;
    spec->bitrate_bps = rate_bps;
    spec->duration_ns = duration_ns;
    path->bench.listening.spec = *spec;
    udp_relay_t *relay = udp_relay_new(dataport_number(path->bench.port), 0, rule, ctx);
    path->bench.connecting.peer_port = udp_relay_port(relay);
    int64_t begin = clock_mono_ns();
    engine_bench_run(&path->bench);
    path->took_ns = clock_mono_ns() - begin;
    path->counts = udp_relay_end(&relay);
    path->sender = engine_bench_sender(&path->bench);
    path->receiver = engine_bench_receiver(&path->bench);
}

static void expect_nothing_lost(struct path *path)
{
    const struct probe_receive *in = &path->receiver->receive;
    assert_string_equal(path->sender->reason, "");
    assert_string_equal(path->receiver->reason, "");
    assert_true(in->packets_expected > 0);
    assert_int_equal(in->packets_expected, path->sender->send.packets_sent);
    assert_int_equal(in->packets_received, in->packets_expected);
    assert_int_equal(in->packets_lost, 0);
}

static bool is_control(const uint8_t *bytes, size_t size, enum control_type type)
{
    return size == CONTROL_SIZE && memcmp(bytes, "MPD1", 4) == 0 && bytes[4] == type;
}

// ---------------------------------------------------------------------------------- forgeries

static enum relay_action forge_load_and_repeat_messages(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    atomic_uint *answers = ctx;
    *answers += direction == RELAY_BACKWARD;
    if (number >= 0)
        return RELAY_FORGE;
    return is_control(bytes, size, CONTROL_FEEDBACK) || is_control(bytes, size, CONTROL_FINAL)
               ? RELAY_TWICE
               : RELAY_PASS;
}

static void forged_and_repeated_datagrams_are_neither_counted_nor_answered(void **state)
{
    struct path *path = *state;
    atomic_uint answers = 0;
    run(path, 400000, 800 * NS_PER_MS, forge_load_and_repeat_messages, &answers);
    expect_nothing_lost(path);
    assert_int_equal(path->counts.forged, 3 * path->sender->send.packets_sent);
    assert_true(path->counts.twice >= 3); // the first consent, the final count, its answer
    assert_int_equal(path->receiver->receive.duplicate, 0);
    assert_int_equal(path->receiver->receive.bytes, path->receiver->receive.packets_received * 500);
    // The handshake, consent each 50 ms, and what answers the final count.
    assert_true(answers < 20 + 2 * path->took_ns / (50 * NS_PER_MS));
}

// ------------------------------------------------------------------------------- time and silence

static enum relay_action stand_still(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    struct timespec long_enough = {.tv_sec = 2, .tv_nsec = 500 * NS_PER_MS};
    bool *stood = ctx;
    (void)direction;
    (void)bytes;
    (void)size;
    if (number == 50 && !*stood) {
        *stood = true;
        (void)nanosleep(&long_enough, NULL); // the path's thread: nothing moves either way
    }
    return RELAY_PASS;
}

static void a_path_that_stands_still_only_stalls_the_load(void **state)
{
    struct path *path = *state;
    bool stood = false;
    run(path, 400000, 3 * NS_PER_S, stand_still, &stood);
    expect_nothing_lost(path);
    assert_true(stood);
    // Load goes on for the first second of silence, and nothing leaves in the rest of it but what a
    // late thread had in hand: 100 a second, and 50 ms of debt.
    double stalled_s = path->sender->send.stalled_s;
    assert_true(stalled_s > 0 && stalled_s < (double)path->took_ns / 1e9 - 1);
    assert_true((double)path->sender->send.packets_sent < 300 - 100 * stalled_s + 15);
}

static enum relay_action die(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    bool *dead = ctx;
    (void)direction;
    (void)bytes;
    (void)size;
    *dead = *dead || number == 50;
    return *dead ? RELAY_DROP : RELAY_PASS;
}

static void both_ends_give_up_on_a_path_that_died(void **state)
{
    struct path *path = *state;
    bool dead = false;
    run(path, 400000, 20 * NS_PER_S, die, &dead);
    assert_int_equal(path->sender->outcome, PROBE_FAILED);
    assert_int_equal(path->receiver->outcome, PROBE_FAILED);
    assert_non_null(strstr(path->sender->reason, "no feedback"));
    assert_non_null(strstr(path->receiver->reason, "fell silent"));
    assert_true(path->took_ns < 20 * NS_PER_S); // before its time was over
}

static enum relay_action lose_one_consent(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    unsigned *seen = ctx;
    (void)direction;
    (void)number;
    return is_control(bytes, size, CONTROL_FEEDBACK) && ++*seen == 5 ? RELAY_DROP : RELAY_PASS;
}

static void one_lost_word_of_consent_holds_nothing(void **state)
{
    struct path *path = *state;
    unsigned seen = 0;
    run(path, 800000, 700 * NS_PER_MS, lose_one_consent, &seen);
    expect_nothing_lost(path);
    assert_int_equal(path->counts.dropped, 1);
    // Silence begins after a second of it.
    assert_true(path->took_ns > NS_PER_S || !(path->sender->send.stalled_s > 0));
}

static enum relay_action lose_ten_finals(
    void *ctx, enum relay_direction direction, const uint8_t *bytes, size_t size, int64_t number)
{
    unsigned *seen = ctx;
    (void)direction;
    (void)number;
    return is_control(bytes, size, CONTROL_FINAL) && ++*seen <= 10 ? RELAY_DROP : RELAY_PASS;
}

static void the_final_count_is_said_until_it_is_heard(void **state)
{
    struct path *path = *state;
    unsigned seen = 0;
    run(path, 2000000, 300 * NS_PER_MS, lose_ten_finals, &seen);
    expect_nothing_lost(path);
    assert_int_equal(path->counts.dropped, 10);
}

// ------------------------------------------------------------------------------------- receiver

static void what_the_receivers_socket_drops_is_not_the_networks_loss(void **state)
{
    struct path *path = *state;
    struct engine_bench *bench = &path->bench;
    engine_bench_begin(bench, &probe_udp, "127.0.0.1", true);
    struct testspec *spec = &bench->connecting.spec;
    spec->bitrate_bps = 400000000;
    spec->omit_ns = 100 * NS_PER_MS;
    bench->listening.spec = *spec;
    bench->listening.spec.window = 4096; // hardly two datagrams
    engine_bench_run(bench);
    const struct probe_receive *in = &bench->listened.receive;
    assert_string_equal(bench->connected.reason, "");
    assert_string_equal(bench->listened.reason, "");
    assert_true(in->packets_lost > 0);
    assert_int_equal(in->packets_lost_receiver, in->packets_lost);
    assert_int_equal(in->packets_received + in->packets_lost, in->packets_expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            forged_and_repeated_datagrams_are_neither_counted_nor_answered, begin, end),
        cmocka_unit_test_setup_teardown(a_path_that_stands_still_only_stalls_the_load, begin, end),
        cmocka_unit_test_setup_teardown(both_ends_give_up_on_a_path_that_died, begin, end),
        cmocka_unit_test_setup_teardown(one_lost_word_of_consent_holds_nothing, begin, end),
        cmocka_unit_test_setup_teardown(the_final_count_is_said_until_it_is_heard, begin, end),
        cmocka_unit_test_setup_teardown(
            what_the_receivers_socket_drops_is_not_the_networks_loss, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
