// Light probes: the answer at the border, a run over loopback with many peers, and the arithmetic.

#include "meshtest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    make_keys(&keys);
    make_keys(&other);
    struct light_datagram datagram = {.type = LIGHT_ASK, .number = 7};
    light_pack(&datagram, &keys, question);
    assert_int_equal(light_answer(&keys, question, LIGHT_SIZE, 5, true, answer), LIGHT_SIZE);
    assert_int_equal(light_answer(&keys, answer, LIGHT_SIZE, 5, true, question), 0);
    light_pack(&datagram, &keys, question);
    assert_int_equal(light_answer(&other, question, LIGHT_SIZE, 5, true, answer), 0);
    for (size_t size = 0; size < LIGHT_SIZE; size++)
        assert_int_equal(light_answer(&keys, question, size, 5, true, answer), 0);
    for (size_t i = 0; i < LIGHT_SIZE * 8; i++) {
        question[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_int_equal(light_answer(&keys, question, LIGHT_SIZE, 5, true, answer), 0);
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

static void many_peers_are_probed_at_once(void **state)
{
    (void)state;
    int error, stop[2];
    dataport_t *port = dataport_new(0, &error);
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
            dataport_reflect(port, &peers[i].keys, address, clock_mono_ns() + 30 * NS_PER_S), 0);
    }
    // One that nobody answers must not disturb the others.
    dataport_unreflect(port, peers[9].keys.id);
    light_run(&spec, peers, PEERS, stop[0], outcomes, &summary);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_whole_question_under_the_key_is_answered),
        cmocka_unit_test(drift_between_two_clocks_is_removed),
        cmocka_unit_test(many_peers_are_probed_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
