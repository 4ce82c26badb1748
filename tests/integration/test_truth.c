// What meshperf reports against what the link really did: exact drop counters, shaper rates, and
// iperf3 on the same link.

#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

static const char TOPOLOGY[] = "subnet one 10.82.1.0/24 fd82:1::/64\n"
                               "host a one\n"
                               "host b one\n"
                               "host c one rate=37mbit\n"
                               "host six one ipv4=no\n";

static int bring_up(void **state)
{
    *state = mesh_up(TOPOLOGY, "");
    return 0;
}

// Drops datagrams of b's link that have the load's UDP length, before b or after its sender: the
// bridge port's ingress is invisible to the sender, its egress to the receiver.
static void drop_at(mesh_t *mesh, const char *port, const char *hook, const char *match)
{
    mesh_nft(mesh, "router",
        "table netdev truth {\n"
        "  counter dropped { }\n"
        "  chain drops {\n"
        "    type filter hook %s device %s priority 0;\n"
        "    %s counter name dropped drop\n"
        "  }\n"
        "}\n",
        hook, port, match);
}

static double dropped(mesh_t *mesh)
{
    return mesh_packets(mesh, "router", "netdev truth dropped");
}

static void stop_dropping(mesh_t *mesh)
{
    free(mesh_exec(mesh, "router", "nft delete table netdev truth"));
}

static void every_tenth_datagram_lost_is_counted_to_the_packet(void **state)
{
    drop_at(*state, "port1", "ingress", "udp length 1008 numgen inc mod 10 == 0");
    int status;
    json_t *run =
        mesh_json(*state, &status, 60, "run udp -b 20M --length 1000 -t 2s --from a --to b -4");
    double truth = dropped(*state);
    stop_dropping(*state);
    assert_int_equal(status, 0);
    json_t *cell = cell_of(run, "udp", "a", "b");
    assert_true(truth > 0);
    assert_true(number_at(cell, "packets.lost_network") == truth);
    assert_close(number_at(cell, "loss_ratio"), 0.1, 0.005, "loss ratio");
    assert_true(number_at(cell, "packets.sent") == number_at(cell, "packets.received") +
                                                       number_at(cell, "packets.lost_network") +
                                                       number_at(cell, "packets.lost_receiver"));
    json_decref(run);
}

static void random_loss_equals_the_counter_and_the_way_back_is_clean(void **state)
{
    drop_at(*state, "port2", "egress", "udp length 1408 numgen random mod 1000 < 13");
    int status;
    json_t *run =
        mesh_json(*state, &status, 60, "run udp -b 30M -t 2s --from a --to b --from b --to a");
    double truth = dropped(*state);
    stop_dropping(*state);
    assert_int_equal(status, 0);
    assert_true(number_at(cell_of(run, "udp", "a", "b"), "packets.lost_network") == truth);
    assert_true(number_at(cell_of(run, "udp", "b", "a"), "packets.lost_network") == 0);
    json_decref(run);
}

static void drops_at_the_senders_own_egress_are_not_the_networks(void **state)
{
    mesh_nft(*state, "a",
        "table netdev truth {\n"
        "  counter dropped { }\n"
        "  chain drops {\n"
        "    type filter hook egress device eth0 priority 0;\n"
        "    udp length 1408 numgen inc mod 20 == 0 counter name dropped drop\n"
        "  }\n"
        "}\n");
    int status;
    json_t *run = mesh_json(*state, &status, 60, "run udp -b 100M -t 1s --from a --to b");
    double truth = mesh_packets(*state, "a", "netdev truth dropped");
    free(mesh_exec(*state, "a", "nft delete table netdev truth"));
    json_t *cell = cell_of(run, "udp", "a", "b");
    assert_true(number_at(cell, "packets.lost_sender") == truth);
    assert_true(number_at(cell, "packets.lost_network") == 0);
    json_decref(run);
}

// Payload in what the shaper counts: 1448 bytes of 1514, and 1400 of 1442 (its bucket adds a little
// at the start).
#define GOODPUT (37e6 * 1448 / 1514)
#define OVERLOAD (37e6 * 1400 / 1442)

static bool reads_goodput(json_t *cell)
{
    return is_close(number_at(cell, "bandwidth_bps"), GOODPUT, 0.01);
}

static bool reads_overload(json_t *cell)
{
    return is_close(number_at(cell, "bandwidth_bps"), OVERLOAD, 0.02);
}

static double iperf3_bps(mesh_t *mesh, const char *address, const char *flags)
{
    task_t *server = mesh_start(mesh, "$LAB exec c iperf3 -s -1 -p 5999 >/dev/null");
    mesh_wait_until(mesh, 10, "$LAB exec c ss -ltn | grep -q ':5999'");
    struct outcome client =
        mesh_shell(mesh, 60, "$LAB exec a iperf3 -J -c %s -p 5999 -t 4 -O 1 %s", address, flags);
    assert_int_equal(client.status, 0);
    struct outcome served = task_wait(&server, 10);
    json_t *document = json_loads(client.out, 0, NULL);
    assert_non_null(document);
    double bps = number_at(document, "end.sum_received.bits_per_second");
    json_decref(document);
    outcome_release(&client);
    outcome_release(&served);
    return bps;
}

static void tcp_goodput_equals_iperf3s_on_the_same_link(void **state)
{
    double truth = 0;
    for (int i = 0; i < MESH_TRIES && !is_close(truth, GOODPUT, 0.01); i++)
        truth = iperf3_bps(*state, "10.82.1.3", "");
    json_t *cell,
        *run = mesh_measured(*state, reads_goodput, &cell, "tcp", "a", "c", "-t 4s -O 1s -4");
    double ours = number_at(cell, "bandwidth_bps");
    assert_close(ours, GOODPUT, 0.01, "goodput against the shaper");
    assert_close(ours, truth, 0.02, "goodput against iperf3");
    json_decref(run);
}

static void a_udp_overload_reads_the_shapers_rate(void **state)
{
    json_t *cell,
        *run = mesh_measured(*state, reads_overload, &cell, "udp", "a", "c", "-b 60M -t 3s -4");
    assert_close(number_at(cell, "bandwidth_bps"), OVERLOAD, 0.02, "received rate");
    assert_true(number_at(cell, "packets.lost_network") > 0);
    json_decref(run);
}

static void hosts_with_only_ipv6_and_pairs_without_a_common_family_are_told_apart(void **state)
{
    int status;
    json_t *run = mesh_json(*state, &status, 60, "run tcp udp latency -t 300ms --from six --to a");
    assert_int_equal(status, 0);
    assert_int_equal(count_cells(run, "ok"), 3);
    json_decref(run);
    run = mesh_json(*state, &status, 60, "run udp -t 300ms -4 --from six --to a");
    assert_int_equal(status, 4);
    assert_string_equal(text_at(cell_of(run, "udp", "six", "a"), "state"), "unsupported");
    assert_true(strlen(text_at(cell_of(run, "udp", "six", "a"), "reason")) > 0);
    json_decref(run);
}

static void latency_loss_is_that_of_round_trips(void **state)
{
    drop_at(*state, "port2", "egress", "udp length 104 numgen inc mod 5 == 0");
    int status;
    json_t *run = mesh_json(*state, &status, 60, "run latency -t 2s --from a --to b");
    double truth = dropped(*state);
    stop_dropping(*state);
    json_t *cell = cell_of(run, "latency", "a", "b");
    assert_true(truth > 0);
    assert_true(number_at(cell, "packets.sent") - number_at(cell, "packets.received") == truth);
    assert_true(number_at(cell, "rtt_s.p50") > 0 && number_at(cell, "rtt_s.p50") < 0.01);
    json_decref(run);
}

static void a_pair_whose_data_port_is_dropped_fails_with_words(void **state)
{
    drop_at(*state, "port2", "egress", "udp dport 5701");
    int status;
    json_t *run = mesh_json(*state, &status, 60, "run udp -t 300ms --from a --to b");
    stop_dropping(*state);
    assert_int_equal(status, 4);
    json_t *cell = cell_of(run, "udp", "a", "b");
    assert_string_equal(text_at(cell, "state"), "failed");
    assert_true(strlen(text_at(cell, "reason")) > 10);
    assert_true(number_at(cell, "attempts") == 1); // a silent handshake is not retried
    json_decref(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tenth_datagram_lost_is_counted_to_the_packet),
        cmocka_unit_test(random_loss_equals_the_counter_and_the_way_back_is_clean),
        cmocka_unit_test(drops_at_the_senders_own_egress_are_not_the_networks),
        cmocka_unit_test(tcp_goodput_equals_iperf3s_on_the_same_link),
        cmocka_unit_test(a_udp_overload_reads_the_shapers_rate),
        cmocka_unit_test(hosts_with_only_ipv6_and_pairs_without_a_common_family_are_told_apart),
        cmocka_unit_test(latency_loss_is_that_of_round_trips),
        cmocka_unit_test(a_pair_whose_data_port_is_dropped_fails_with_words),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
