// UDP tests on hosts and links that lack something: kernels without offloads, small buffers and
// MTUs, links slower than what is asked, hosts that stand still. What must hold on every machine
// are counts: every datagram is accounted for once, and nothing is the network's loss that the
// network did not lose. Rates are judged only against shapers.

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

static const char TOPOLOGY[] = "subnet one 10.83.1.0/24 fd83:1::/64\n"
                               "host a one\n"
                               "host b one\n"
                               "subnet two 10.83.2.0/24\n"
                               "host small two mtu=576\n"
                               "subnet three 10.83.3.0/24 fd83:3::/64\n"
                               "host six three mtu=1280\n"
                               "host jumbo one mtu=9000\n"
                               "host slow one rate=100mbit\n";

static int bring_up(void **state)
{
    *state = mesh_up(TOPOLOGY, "");
    return 0;
}

// Restarts the agent of a host under another command.
static void place(mesh_t *mesh, const char *host, const char *under)
{
    struct outcome placed = mesh_shell(
        mesh, 30, "$LAB kill %s TERM && LAB_AGENT_UNDER=\"%s\" $LAB agent %s", host, under, host);
    if (placed.status != 0)
        fail_msg("agent %s under '%s': %s%s", host, under, placed.out, placed.err);
    outcome_release(&placed);
    mesh_wait_until(mesh, 15, "$LAB meshperf agent list | grep -q '^%s .*ready'", host);
}

static double number_or_zero(json_t *cell, const char *path)
{
    return has_number(cell, path) ? number_at(cell, path) : 0;
}

static void expect_accounts(json_t *cell)
{
    if (strcmp(text_at(cell, "state"), "ok") != 0)
        fail_msg("%s", text_at(cell, "reason"));
    double sent = number_at(cell, "packets.sent"), received = number_at(cell, "packets.received");
    assert_true(sent > 0);
    assert_true(sent == received + number_at(cell, "packets.lost_network") +
                            number_at(cell, "packets.lost_receiver"));
    assert_true(number_at(cell, "bytes") == received * number_at(cell, "length"));
}

// The cell of a run whose accounts hold; the caller json_decrefs *run.
static json_t *measure(
    mesh_t *mesh, const char *arguments, const char *from, const char *to, json_t **run)
{
    int status;
    *run = mesh_json(mesh, &status, 60, "-q run udp %s --from %s --to %s", arguments, from, to);
    json_t *cell = cell_of(*run, "udp", from, to);
    expect_accounts(cell);
    return cell;
}

static void expect_words(json_t *cell, const char *words)
{
    if (!strstr(text_at(cell, "technique"), words))
        fail_msg("technique '%s' lacks '%s'", text_at(cell, "technique"), words);
}

// ---------------------------------------------------------------------- what kernels may lack

static void floods_use_offloads_where_the_kernel_has_them(void **state)
{
    json_t *run, *cell = measure(*state, "-b max -t 500ms", "a", "b", &run);
    expect_words(cell, "UDP_SEGMENT of up to");
    expect_words(cell, "UDP_GRO,");
    assert_close(number_at(cell, "omitted_s"), 0.25, 1e-6, "time to find the rate");
    // What may have been lost before any socket is told of both hosts.
    assert_true(has_number(cell, "host_receiver.interface_dropped"));
    assert_true(has_number(cell, "host_receiver.softnet_dropped"));
    assert_true(has_number(cell, "host_sender.interface_dropped"));
    json_decref(run);
}

static void a_sender_without_segmentation_sends_one_by_one(void **state)
{
    json_t *run;
    place(*state, "a", "$BIN/without segment --");
    json_t *cell = measure(*state, "-b max -t 500ms", "a", "b", &run);
    place(*state, "a", "");
    expect_words(cell, "no UDP_SEGMENT here");
    json_decref(run);
}

static void a_receiver_without_receive_offload_takes_segments_apart(void **state)
{
    json_t *run;
    place(*state, "b", "$BIN/without gro --");
    json_t *cell = measure(*state, "-b max -t 500ms", "a", "b", &run);
    place(*state, "b", "");
    expect_words(cell, "UDP_SEGMENT of up to");
    expect_words(cell, "no UDP_GRO here");
    json_decref(run);
}

static void without_privileges_buffers_are_what_the_host_allows(void **state)
{
    json_t *run;
    place(*state, "b", "setpriv --bounding-set -net_admin");
    json_t *cell = measure(*state, "-b max -t 500ms", "a", "b", &run);
    expect_words(cell, "net.core.rmem_max");
    json_decref(run);
    // So small that a single packet with receive offload does not fit: the bound says it.
    cell = measure(*state, "-b max -w 8K -t 500ms", "a", "b", &run);
    place(*state, "b", "");
    double lost =
        number_at(cell, "packets.lost_network") + number_at(cell, "packets.lost_receiver");
    double bound = number_or_zero(cell, "packets.lost_receiver_max");
    assert_true(lost == 0 || number_at(cell, "packets.lost_receiver") > 0);
    assert_true(bound == 0 || bound > number_at(cell, "packets.lost_receiver"));
    json_decref(run);
}

static void on_a_single_core_nobody_spins(void **state)
{
    json_t *run;
    place(*state, "a", "taskset -c 0");
    json_t *cell = measure(*state, "-b 400M -t 500ms", "a", "b", &run);
    expect_words(cell, "quanta");
    json_decref(run);
    cell = measure(*state, "-b max -t 500ms", "a", "b", &run);
    json_decref(run);
    place(*state, "a", "");
}

// ---------------------------------------------------------------------- sizes

// Of what is on the wire for each datagram: `packets` IP packets of `bytes` in sum.
static void expect_wire(json_t *cell, double packets, double bytes)
{
    double each = number_at(cell, "bandwidth_bps") / number_at(cell, "length");
    assert_close(number_at(cell, "wire_bps.l3"), each * bytes, 1e-6, "l3");
    assert_close(number_at(cell, "wire_bps.l2"), each * (bytes + 14 * packets), 1e-6, "l2");
    assert_close(number_at(cell, "wire_bps.line"), each * (bytes + 38 * packets), 1e-6, "line");
}

static void datagrams_are_as_long_as_the_mtu_allows(void **state)
{
    static const struct {
        const char *from, *to, *flags;
        double length, headers;
    } cases[] = {{"small", "a", "-b 5M -t 300ms", 576 - 28, 28},
        {"small", "a", "-b max -t 300ms", 576 - 28, 28},
        {"six", "a", "-6 -b 5M -t 300ms", 1280 - 48, 48},
        {"six", "a", "-6 -b max -t 300ms", 1280 - 48, 48},
        {"jumbo", "b", "-b 5M -t 300ms", 1400, 48}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *run, *cell = measure(*state, cases[i].flags, cases[i].from, cases[i].to, &run);
        assert_true(number_at(cell, "length") == cases[i].length);
        assert_true(number_at(cell, "packets.lost_network") == 0);
        assert_false(json_is_true(json_object_get(cell, "fragmented")));
        expect_wire(cell, 1, cases[i].length + cases[i].headers);
        json_decref(run);
    }
}

static void longer_datagrams_are_fragmented_and_that_is_said(void **state)
{
    json_t *run, *cell = measure(*state, "-4 -b 5M --length 4000 -t 300ms", "a", "b", &run);
    assert_true(json_is_true(json_object_get(cell, "fragmented")));
    expect_wire(cell, 3, 4000 + 8 + 3 * 20);
    json_decref(run);
    cell = measure(*state, "-6 -b max --length 4000 -t 300ms", "a", "b", &run);
    assert_true(json_is_true(json_object_get(cell, "fragmented")));
    expect_wire(cell, 3, 4000 + 8 + 3 * 48);
    json_decref(run);
}

// The far host's link takes less than any host before it knows, and a bridge tells nobody.
static void what_a_smaller_mtu_swallows_in_silence_is_the_networks_loss(void **state)
{
    free(mesh_exec(*state, "b", "ip link set eth0 mtu 1300"));
    json_t *run, *cell = measure(*state, "-4 -b 2M --length 1400 -t 300ms", "a", "b", &run);
    assert_true(number_at(cell, "packets.lost_network") == number_at(cell, "packets.sent"));
    assert_true(number_at(cell, "loss_ratio") == 1);
    json_decref(run);
    cell = measure(*state, "-4 -b 2M --length 1200 -t 300ms", "a", "b", &run);
    free(mesh_exec(*state, "b", "ip link set eth0 mtu 1500"));
    assert_true(number_at(cell, "packets.lost_network") == 0);
    json_decref(run);
}

// Here a router does tell, and before the load: nothing of the range is lost to it, and as many
// bits leave as were asked for.
static void a_router_with_a_smaller_mtu_makes_datagrams_shorter(void **state)
{
    json_t *run, *cell = measure(*state, "-4 -b 5M -t 500ms", "a", "small", &run);
    assert_true(number_at(cell, "length") == 576 - 28);
    assert_true(number_at(cell, "path_mtu") == 576);
    assert_true(number_at(cell, "packets.lost_network") == 0);
    double sent_bits = 8 * (576 - 28) * number_at(cell, "packets.sent");
    assert_close(sent_bits, 5e6 * 0.5, 0.01, "bits sent");
    json_decref(run);
}

static void an_asked_length_above_a_routers_mtu_is_fragmented_on_the_way(void **state)
{
    json_t *run, *cell = measure(*state, "-4 -b 5M --length 1400 -t 300ms", "a", "small", &run);
    assert_true(json_is_true(json_object_get(cell, "fragmented")));
    assert_true(number_at(cell, "path_mtu") == 576);
    assert_true(number_at(cell, "packets.lost_network") == 0);
    json_decref(run);
}

static void streams_that_share_a_test_are_not_reordered_by_being_read(void **state)
{
    json_t *run, *cell = measure(*state, "-6 -P 64 -b 20M -t 500ms", "a", "b", &run);
    assert_true(number_at(cell, "packets.reordered") == 0);
    assert_true(number_at(cell, "packets.lost_network") == 0);
    json_decref(run);
    cell = measure(*state, "-P 64 -b max -t 500ms", "a", "b", &run);
    assert_true(number_at(cell, "packets.reordered") == 0);
    json_decref(run);
}

// ---------------------------------------------------------------------- rates

// A local shaper blocks its sender, so nothing is lost; what is asked in vain is seen from what was
// offered.
static void more_than_the_own_link_takes_is_not_offered(void **state)
{
    static const char *const rates[] = {"-4 -b 1G -t 1s", "-4 -b 20G -t 1s", "-4 -b max -t 1s"};
    for (size_t i = 0; i < 3; i++) {
        json_t *run, *cell = measure(*state, rates[i], "slow", "a", &run);
        double offered = number_at(cell, "offered_bps");
        assert_true(offered < 200e6);
        assert_true(number_at(cell, "wire_bps.l2") < 103e6);
        assert_true(number_at(cell, "blocked_s") > 0);
        assert_true(number_at(cell, "packets.lost_network") == 0);
        json_decref(run);
    }
}

static void more_than_a_link_on_the_way_takes_is_the_networks_loss(void **state)
{
    static const char *const rates[] = {"-4 -b 1G -t 1s", "-4 -b 20G -t 1s", "-4 -b max -t 1s"};
    for (size_t i = 0; i < 3; i++) {
        json_t *run, *cell = measure(*state, rates[i], "a", "slow", &run);
        assert_true(number_at(cell, "wire_bps.l2") < 108e6); // with what the bucket had saved up
        assert_true(number_at(cell, "packets.lost_network") > 0);
        assert_true(number_at(cell, "packets.lost_receiver") == 0);
        json_decref(run);
    }
}

// ---------------------------------------------------------------------- hosts that stand still

#define ARRIVED "$($LAB exec b ip -s link show eth0 | awk '/RX/{getline; print $1}')"

// They keep to the grid that was asked for, and the time in which nothing was sent is not spread
// over its neighbours.
static void expect_a_pause_in(json_t *cell, double interval_s)
{
    json_t *intervals = json_object_get(cell, "intervals"), *interval;
    size_t index, empty = 0;
    double bytes = 0;
    json_array_foreach(intervals, index, interval)
    {
        assert_close(number_at(interval, "start_s"), (double)index * interval_s, 1e-6, "start");
        assert_true(number_at(interval, "duration_s") <= interval_s + 1e-6);
        bytes += number_at(interval, "bytes");
        empty += number_at(interval, "bytes") == 0;
    }
    assert_true(bytes == number_at(cell, "bytes"));
    assert_true(empty > 0);
}

// b stands still for so long, once so much of the load has come.
static json_t *stand_still(mesh_t *mesh, const char *words, unsigned bytes, const char *seconds)
{
    struct outcome before = mesh_shell(mesh, 10, "echo $((" ARRIVED ")) >$DIR/before");
    assert_int_equal(before.status, 0);
    outcome_release(&before);
    task_t *task = mesh_start(mesh, "$LAB meshperf -q -o json run udp %s --from a --to b", words);
    mesh_wait_until(mesh, 60, "test " ARRIVED " -gt $(($(cat $DIR/before) + %u))", bytes);
    struct outcome stopped =
        mesh_shell(mesh, 20, "$LAB kill b STOP; sleep %s; $LAB kill b CONT", seconds);
    assert_int_equal(stopped.status, 0);
    outcome_release(&stopped);
    struct outcome ended = task_wait(&task, 60);
    json_t *run = json_loads(ended.out, 0, NULL);
    assert_non_null(run);
    outcome_release(&ended);
    return run;
}

static void a_receiver_that_stands_still_for_two_seconds_holds_the_load(void **state)
{
    json_t *run = stand_still(*state, "-b 5M -t 8s -i 100ms", 300000, "2");
    json_t *cell = cell_of(run, "udp", "a", "b");
    expect_accounts(cell);
    assert_true(number_at(cell, "packets.lost_network") == 0);
    assert_true(number_at(cell, "stalled_s") > 0);
    expect_a_pause_in(cell, 0.1);
    json_decref(run);
}

// What it then reads at once is more than the rate, but not more than was allowed.
static void a_receiver_that_catches_up_does_not_take_it_for_a_breach(void **state)
{
    json_t *run = stand_still(*state, "-b 60M -t 4s", 3000000, "1.05");
    json_t *cell = cell_of(run, "udp", "a", "b");
    expect_accounts(cell);
    assert_true(number_at(cell, "packets.lost_network") == 0);
    json_decref(run);
}

// ---------------------------------------------------------------------- drops at the edges

// The first and the last 100 datagrams of the load, as the router counts bytes.
static void drops_at_the_very_start_and_end_are_counted_to_the_packet(void **state)
{
    mesh_nft(*state, "router",
        "table netdev edge {\n"
        "  counter dropped { }\n"
        "  chain drops {\n"
        "    type filter hook ingress device port1 priority 0;\n"
        "    udp length 1008 quota until 100000 bytes counter name dropped drop\n"
        "    udp length 1008 quota over 800000 bytes counter name dropped drop\n"
        "  }\n"
        "}\n");
    json_t *run, *cell = measure(*state, "-4 -b 10M --length 1000 -t 1s", "a", "b", &run);
    double truth = mesh_packets(*state, "router", "netdev edge dropped");
    free(mesh_exec(*state, "router", "nft delete table netdev edge"));
    assert_true(truth >= 90);
    assert_true(number_at(cell, "packets.lost_network") == truth);
    assert_true(number_at(cell, "packets.loss_bursts") <= 2);
    json_decref(run);
}

// Of floods a counter sees packets of many datagrams; how many is told by their bytes, as each
// packet has one header. Only load of the window, of which the third byte is 0, is dropped.
static double dropped_of_the_flood(mesh_t *mesh, double length)
{
    double packets = 0, bytes = 0;
    char *text = mesh_exec(mesh, "router", "nft list counter netdev flood dropped");
    const char *at = strstr(text, "packets ");
    if (!at || sscanf(at, "packets %lf bytes %lf", &packets, &bytes) != 2)
        fail_msg("no counter in %s", text);
    free(text);
    return (bytes - 28 * packets) / length;
}

static void a_flood_of_several_threads_is_counted_to_the_packet(void **state)
{
    mesh_nft(*state, "router",
        "table netdev flood {\n"
        "  counter dropped { }\n"
        "  chain drops {\n"
        "    type filter hook ingress device port1 priority 0;\n"
        "    udp length >= 1008 @th,64,8 0x4c @th,80,8 0 numgen inc mod 7 == 0 "
        "counter name dropped drop\n"
        "  }\n"
        "}\n");
    json_t *run, *cell = measure(*state, "-4 -b max -P 4 --length 1000 -t 1s", "a", "b", &run);
    double truth = dropped_of_the_flood(*state, 1000);
    free(mesh_exec(*state, "router", "nft delete table netdev flood"));
    double receiver = number_at(cell, "packets.lost_receiver");
    double bound = number_or_zero(cell, "packets.lost_receiver_max");
    double lost = number_at(cell, "packets.lost_network") + receiver;
    assert_true(truth > 0);
    assert_true(lost - truth >= 0 && lost - truth <= (bound > 0 ? bound : receiver));
    assert_true(number_at(cell, "packets.reordered") == 0);
    if (number_at(cell, "host_receiver.cores") > 1)
        expect_words(cell, " threads");
    json_decref(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floods_use_offloads_where_the_kernel_has_them),
        cmocka_unit_test(a_sender_without_segmentation_sends_one_by_one),
        cmocka_unit_test(a_receiver_without_receive_offload_takes_segments_apart),
        cmocka_unit_test(without_privileges_buffers_are_what_the_host_allows),
        cmocka_unit_test(on_a_single_core_nobody_spins),
        cmocka_unit_test(datagrams_are_as_long_as_the_mtu_allows),
        cmocka_unit_test(longer_datagrams_are_fragmented_and_that_is_said),
        cmocka_unit_test(what_a_smaller_mtu_swallows_in_silence_is_the_networks_loss),
        cmocka_unit_test(a_router_with_a_smaller_mtu_makes_datagrams_shorter),
        cmocka_unit_test(an_asked_length_above_a_routers_mtu_is_fragmented_on_the_way),
        cmocka_unit_test(streams_that_share_a_test_are_not_reordered_by_being_read),
        cmocka_unit_test(more_than_the_own_link_takes_is_not_offered),
        cmocka_unit_test(more_than_a_link_on_the_way_takes_is_the_networks_loss),
        cmocka_unit_test(a_receiver_that_stands_still_for_two_seconds_holds_the_load),
        cmocka_unit_test(a_receiver_that_catches_up_does_not_take_it_for_a_breach),
        cmocka_unit_test(drops_at_the_very_start_and_end_are_counted_to_the_packet),
        cmocka_unit_test(a_flood_of_several_threads_is_counted_to_the_packet),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
