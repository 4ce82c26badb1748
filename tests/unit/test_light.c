// Light probes: the answer at the border, a run over loopback with many peers, and the arithmetic.

#include "meshtest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "light.h"
#include "light_parts.h"

#define PEERS 50

static void make_keys(struct ticket_keys *keys)
{
    uint8_t id[TICKET_ID_SIZE], key[TICKET_KEY_SIZE];
    ticket_random(id, sizeof id);
    ticket_random(key, sizeof key);
    ticket_derive(id, key, keys);
}

static void only_a_whole_question_under_the_key_is_answered(void **state)
{
    (void)state;
    struct ticket_keys keys, other;
    uint8_t question[LIGHT_SIZE], answer[LIGHT_SIZE];
    struct light_clock own = {.offset_ns = 3};
    make_keys(&keys);
    make_keys(&other);
    struct light_datagram datagram = {.type = LIGHT_ASK, .number = 7};
    light_pack(&datagram, &keys, question);
    assert_int_equal(
        light_answer(&keys, question, LIGHT_SIZE, 5, LIGHT_FLAG_KERNEL_T2, &own, answer),
        LIGHT_SIZE);
    assert_int_equal(
        light_answer(&keys, answer, LIGHT_SIZE, 5, LIGHT_FLAG_KERNEL_T2, &own, question), 0);
    light_pack(&datagram, &keys, question);
    assert_int_equal(
        light_answer(&other, question, LIGHT_SIZE, 5, LIGHT_FLAG_KERNEL_T2, &own, answer), 0);
    for (size_t size = 0; size < LIGHT_SIZE; size++)
        assert_int_equal(
            light_answer(&keys, question, size, 5, LIGHT_FLAG_KERNEL_T2, &own, answer), 0);
    for (size_t i = 0; i < LIGHT_SIZE * 8; i++) {
        question[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_int_equal(
            light_answer(&keys, question, LIGHT_SIZE, 5, LIGHT_FLAG_KERNEL_T2, &own, answer), 0);
        question[i / 8] ^= (uint8_t)(1u << i % 8);
    }
}

static void drift_between_two_clocks_is_removed(void **state)
{
    (void)state;
    int64_t at[1000], delay[1000];
    for (int i = 0; i < 1000; i++) {
        at[i] = i * NS_PER_MS;
        delay[i] = -5 * NS_PER_S + i * 50 + (i % 4 == 1 ? 200000 : 0); // 50 ppm
    }
    struct probe_distribution pdv;
    light_pdv(at, delay, 1000, &pdv);
    assert_true(pdv.p50_s < 1e-8);
    assert_true(fabs(pdv.p90_s - 200e-6) < 1e-8 && fabs(pdv.max_s - 200e-6) < 1e-8);
}

// ------------------------------------------------------------------ clocks that step

#define NEAR_OFFSET (1700 * NS_PER_S) // wall less monotonic, at either end
#define FAR_OFFSET (1900 * NS_PER_S)
#define FAR_BOOT (40 * NS_PER_S) // what the far monotonic clock is ahead of the near one

// A round trip of 100 us each way and 20 us at the far end, by true stamps.
struct trip {
    struct light_asked asked;
    struct light_datagram answer;
    int64_t t4_wall_ns, offset_ns, now_ns;
};

static struct trip true_trip(void)
{
    int64_t t1 = 5 * NS_PER_S, t2 = t1 + 100000 + FAR_BOOT;
    return (struct trip){.asked = {.t1_wall_ns = t1 + NEAR_OFFSET,
                             .offset_ns = NEAR_OFFSET,
                             .asked_mono_ns = t1 - 4000},
        .answer = {.t2_ns = t2, .t3_ns = t2 + 20000, .offset_ns = FAR_OFFSET, .flow = 3},
        .t4_wall_ns = t1 + 220000 + NEAR_OFFSET,
        .offset_ns = NEAR_OFFSET,
        .now_ns = t1 + 270000};
}

static bool round_of(const struct trip *trip, struct light_sample *sample)
{
    return light_round(
        &trip->asked, &trip->answer, trip->t4_wall_ns, trip->offset_ns, trip->now_ns, sample);
}

static void a_round_trip_is_without_the_time_at_the_far_end(void **state)
{
    (void)state;
    struct trip trip = true_trip();
    struct light_sample sample;
    assert_true(round_of(&trip, &sample));
    assert_int_equal(sample.rtt_ns, 200000);
    assert_int_equal(sample.forward_ns, 100000 + FAR_BOOT);
    assert_int_equal(sample.backward_ns, 100000 - FAR_BOOT);
    assert_int_equal(sample.at_ns, 5 * NS_PER_S);
    assert_int_equal(sample.clocks_ns, FAR_OFFSET - NEAR_OFFSET);
    assert_int_equal(sample.flow, 3);
}

// Wherever in a round trip the near wall clock steps, and by whatever: right or discarded.
static void a_step_of_the_near_clock_never_spoils_a_round_trip(void **state)
{
    (void)state;
    const int64_t steps[] = {
        -3600 * NS_PER_S, -NS_PER_S, -NS_PER_MS, NS_PER_MS, NS_PER_S, 86400 * 365 * NS_PER_S};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct light_sample sample;
        // On the way: t4 and the later reading of the clocks are by the new time.
        struct trip trip = true_trip();
        trip.t4_wall_ns += steps[i];
        trip.offset_ns += steps[i];
        assert_true(round_of(&trip, &sample));
        assert_int_equal(sample.rtt_ns, 200000);
        assert_int_equal(sample.forward_ns, 100000 + FAR_BOOT);
        // Between the reading before and the first stamp.
        trip.asked.t1_wall_ns += steps[i];
        assert_true(!round_of(&trip, &sample) || sample.rtt_ns == 200000);
        // Between the last stamp and the reading after it.
        trip = true_trip();
        trip.offset_ns += steps[i];
        assert_true(!round_of(&trip, &sample) || sample.rtt_ns == 200000);
    }
}

static void a_step_of_the_far_clock_discards_what_it_met(void **state)
{
    (void)state;
    const int64_t steps[] = {-3600 * NS_PER_S, -NS_PER_MS, NS_PER_MS, 3600 * NS_PER_S};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct light_sample sample;
        // Its receive stamp is of the time before, the difference of its clocks of the time after.
        struct trip trip = true_trip();
        trip.answer.t2_ns -= steps[i];
        trip.answer.offset_ns += steps[i];
        assert_false(round_of(&trip, &sample));
        // After the step all fits again, and the one-way values go on as if nothing had been.
        trip = true_trip();
        trip.answer.offset_ns += steps[i];
        assert_true(round_of(&trip, &sample));
        assert_int_equal(sample.rtt_ns, 200000);
        assert_int_equal(sample.forward_ns, 100000 + FAR_BOOT);
    }
}

static void answers_from_before_the_question_are_discarded(void **state)
{
    (void)state;
    struct light_sample sample;
    struct trip trip = true_trip();
    trip.t4_wall_ns = trip.asked.t1_wall_ns - NS_PER_MS;
    assert_false(round_of(&trip, &sample));
    trip = true_trip();
    trip.t4_wall_ns += NS_PER_MS; // later than it was read
    assert_false(round_of(&trip, &sample));
}

static void one_way_delay_needs_two_good_clocks(void **state)
{
    (void)state;
    struct light_sample samples[5];
    struct light_outcome out;
    for (int i = 0; i < 5; i++) {
        struct trip trip = true_trip();
        assert_true(round_of(&trip, &samples[i]));
        // The far wall clock is ahead of the near one by what its monotonic clock is.
        samples[i].clocks_ns = -FAR_BOOT;
        samples[i].forward_ns += i * 1000;
        samples[i].rtt_ns += i * 1000;
    }
    light_one_way(samples, 5, 30000, 19000, &out);
    assert_true(fabs(out.one_way_forward_s - 102e-6) < 1e-9);
    assert_true(fabs(out.one_way_backward_s - 100e-6) < 1e-9);
    assert_true(fabs(out.one_way_bound_s - 49e-6) < 1e-12);
    const int64_t bad[][2] = {{-1, 10}, {10, -1}, {50000, 10}, {10, 50000}};
    for (int i = 0; i < 4; i++) {
        light_one_way(samples, 5, bad[i][0], bad[i][1], &out);
        assert_true(isnan(out.one_way_bound_s) && isnan(out.one_way_forward_s));
    }
    light_one_way(samples, 0, 1, 1, &out);
    assert_true(isnan(out.one_way_backward_s));
}

static void times_that_no_host_has_are_refused(void **state)
{
    (void)state;
    struct ticket_keys keys;
    struct light_datagram back;
    uint8_t bytes[LIGHT_SIZE];
    make_keys(&keys);
    const struct light_datagram wrong[] = {{.t2_ns = INT64_MIN}, {.t3_ns = INT64_MAX},
        {.t3_ns = -1}, {.offset_ns = INT64_MAX}, {.error_ns = -2}, {.error_ns = INT64_MAX}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct light_datagram datagram = wrong[i];
        datagram.type = LIGHT_REPLY;
        light_pack(&datagram, &keys, bytes);
        assert_false(light_unpack(bytes, sizeof bytes, &keys, &back));
    }
}

static void many_peers_are_probed_at_once(void **state)
{
    (void)state;
    int error, stop[2];
    dataport_t *port = dataport_new(0, NULL, &error);
    struct light_peer *peers = calloc(PEERS, sizeof *peers);
    struct light_outcome *outcomes = calloc(PEERS, sizeof *outcomes);
    struct light_summary summary;
    struct testspec spec;
    assert_true(port && peers && outcomes && pipe(stop) == 0);
    testspec_defaults(TEST_LATENCY, &spec);
    spec.duration_ns = NS_PER_S;
    spec.probe_rate = 20;
    for (size_t i = 0; i < PEERS; i++) {
        const char *address = i % 2 ? "::1" : "127.0.0.1";
        make_keys(&peers[i].keys);
        snprintf(peers[i].peer_address, sizeof peers[i].peer_address, "%s", address);
        snprintf(peers[i].local_address, sizeof peers[i].local_address, "%s", address);
        peers[i].peer_port = dataport_number(port);
        assert_int_equal(
            dataport_reflect(port, &peers[i].keys, address, clock_mono_ns() + 30 * NS_PER_S, 0), 0);
    }
    // One that nobody answers must not disturb the others.
    dataport_unreflect(port, peers[9].keys.id);
    light_run(&spec, peers, PEERS, NULL, stop[0], outcomes, &summary);
    for (size_t i = 0; i < PEERS; i++) {
        assert_true(outcomes[i].sent >= 10 && outcomes[i].sent <= 40);
        if (i == 9) {
            assert_int_equal(outcomes[i].received, 0);
            continue;
        }
        assert_int_equal(outcomes[i].outcome, PROBE_OK);
        assert_int_equal(outcomes[i].received, outcomes[i].sent);
        assert_int_equal(outcomes[i].duplicate, 0);
        assert_int_equal(outcomes[i].family, i % 2 ? 6 : 4);
        assert_true(outcomes[i].rtt.p50_s > 0 && outcomes[i].rtt.p50_s < 0.05);
        dataport_unreflect(port, peers[i].keys.id);
    }
    dataport_destroy(&port);
    close(stop[0]);
    close(stop[1]);
    free(peers);
    free(outcomes);
}

static void a_peer_is_looked_at_and_left_alone_once_it_is_known_well_enough(void **state)
{
    (void)state;
    int error, stop[2];
    dataport_t *port = dataport_new(0, NULL, &error);
    struct light_peer peer = {.peer_address = "127.0.0.1", .local_address = "127.0.0.1"};
    struct light_outcome outcome;
    struct light_summary summary;
    struct testspec spec;
    assert_true(port && pipe(stop) == 0);
    testspec_defaults(TEST_LATENCY, &spec);
    spec.duration_ns = 2500 * NS_PER_MS;
    spec.probe_rate = 200;
    spec.until = 0.5;
    make_keys(&peer.keys);
    peer.peer_port = dataport_number(port);
    assert_int_equal(
        dataport_reflect(port, &peer.keys, "127.0.0.1", clock_mono_ns() + 30 * NS_PER_S, 0), 0);
    light_run(&spec, &peer, 1, NULL, stop[0], &outcome, &summary);
    assert_int_equal(outcome.outcome, PROBE_OK);
    assert_true(outcome.convergence.looks >= 1);
    // On a very busy machine they are not alike; then it took its time, and says why.
    assert_true(outcome.convergence.reached == !outcome.convergence.why);
    assert_true(!outcome.convergence.reached || outcome.duration_s >= 1.9);
    assert_true(outcome.convergence.reached || outcome.duration_s > 2.4);
    dataport_destroy(&port);
    close(stop[0]);
    close(stop[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_whole_question_under_the_key_is_answered),
        cmocka_unit_test(drift_between_two_clocks_is_removed),
        cmocka_unit_test(a_round_trip_is_without_the_time_at_the_far_end),
        cmocka_unit_test(a_step_of_the_near_clock_never_spoils_a_round_trip),
        cmocka_unit_test(a_step_of_the_far_clock_discards_what_it_met),
        cmocka_unit_test(answers_from_before_the_question_are_discarded),
        cmocka_unit_test(one_way_delay_needs_two_good_clocks),
        cmocka_unit_test(times_that_no_host_has_are_refused),
        cmocka_unit_test(many_peers_are_probed_at_once),
        cmocka_unit_test(a_peer_is_looked_at_and_left_alone_once_it_is_known_well_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
