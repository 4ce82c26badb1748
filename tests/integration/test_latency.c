// Latency beside load, tests that end early, and rates that fall after a burst, against what the
// links really do: nft counters, a shaper's rate, burst and queue.

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cgroup.h"
#include "mesh.h"
#include "meshtest.h"

#define RATE 37e6
#define GOODPUT (RATE * 1448 / 1514) // over IPv4 with timestamps; the shaper counts link headers
#define PROBE_BYTES 138              // on the wire, IPv4

static const char TOPOLOGY[] = "subnet one 10.83.1.0/24\n"
                               "host a one\n"
                               "host b one\n"
                               "host c one rate=37mbit\n";

static int bring_up(void **state)
{
    *state = mesh_up(TOPOLOGY, "");
    return 0;
}

// Counts light probes that leave a.
static void count_probes(mesh_t *mesh)
{
    mesh_nft(mesh, "router",
        "table netdev truth {\n"
        "  counter probes { }\n"
        "  chain seen {\n"
        "    type filter hook ingress device port1 priority 0;\n"
        "    udp length 104 udp dport 5701 counter name probes\n"
        "  }\n"
        "}\n");
}

static double probes_counted(mesh_t *mesh)
{
    double count = mesh_packets(mesh, "router", "netdev truth probes");
    free(mesh_exec(mesh, "router", "nft delete table netdev truth"));
    return count;
}

static void load_on_a_shaped_link_shows_its_queue(void **state)
{
    int status;
    count_probes(*state);
    json_t *run = mesh_json(*state, &status, 60, "run tcp -t 3s --from a --to c -4");
    double asked = probes_counted(*state);
    assert_int_equal(status, 0);
    json_t *cell = cell_of(run, "tcp", "a", "c");
    // The queue holds 50 ms and TCP fills it; before the load there is none.
    assert_true(number_at(cell, "rtt_s.p50") < 0.01);
    assert_true(number_at(cell, "rtt_loaded_s.max") > 0.02);
    assert_true(number_at(cell, "rtt_loaded_s.p50") > number_at(cell, "rtt_s.p50"));
    assert_true(number_at(cell, "rtt_self_s.max") > 0.02);
    assert_true(fabs(number_at(cell, "rtt_added_s.p99") - number_at(cell, "rtt_loaded_s.p99") +
                     number_at(cell, "rtt_s.p99")) < 1e-9);
    // A fifth of a percent of the goodput at most, and not more than were seen to leave.
    double idle = number_at(cell, "rtt_s.count"), loaded = number_at(cell, "rtt_loaded_s.count");
    assert_true(idle >= 5 && loaded > 0);
    assert_true(idle + loaded <= asked);
    assert_true(loaded * PROBE_BYTES <= 0.002 * number_at(cell, "bytes"));
    // Also of those that were lost or came too late; some idle ones may be among them.
    assert_true((asked - idle) * PROBE_BYTES <= 0.003 * number_at(cell, "bytes"));
    json_decref(run);
}

static void latency_under_load_is_measured_whoever_connects(void **state)
{
    int status;
    json_t *run =
        mesh_json(*state, &status, 60, "run tcp -t 1s --from c --to a -4 --reverse-connect");
    assert_int_equal(status, 0);
    json_t *cell = cell_of(run, "tcp", "c", "a");
    assert_true(number_at(cell, "rtt_s.count") >= 5);
    assert_true(number_at(cell, "rtt_loaded_s.count") > 0);
    json_decref(run);
}

static void where_probes_do_not_pass_the_test_is_as_it_was(void **state)
{
    int status;
    free(mesh_exec(*state, "router",
        "nft 'table netdev wall { chain entry { type filter hook ingress device port1 priority 0; "
        "udp dport 5701 drop; }; }'"));
    json_t *run = mesh_json(*state, &status, 60, "run tcp -t 500ms --from a --to b");
    free(mesh_exec(*state, "router", "nft delete table netdev wall"));
    assert_int_equal(status, 0);
    json_t *cell = cell_of(run, "tcp", "a", "b");
    assert_string_equal(text_at(cell, "state"), "ok");
    assert_false(has_number(cell, "rtt_s.p50"));
    assert_false(has_number(cell, "rtt_loaded_s.p50"));
    json_decref(run);
}

// The range ends early, and still every datagram of it is counted.
static void a_udp_test_that_ends_early_counts_its_loss_to_the_packet(void **state)
{
    int status;
    mesh_nft(*state, "router",
        "table netdev truth {\n"
        "  counter probes { }\n"
        "  chain drops {\n"
        "    type filter hook ingress device port1 priority 0;\n"
        "    udp length 1008 numgen inc mod 10 == 0 counter name probes drop\n"
        "  }\n"
        "}\n");
    json_t *run = mesh_json(*state, &status, 60,
        "run udp -b 20M --length 1000 --until 20%% -t 7s -i 500ms --from a --to b -4");
    double truth = probes_counted(*state);
    assert_int_equal(status, 0);
    json_t *cell = cell_of(run, "udp", "a", "b");
    assert_true(truth > 0 && number_at(cell, "packets.lost_network") == truth);
    assert_true(number_at(cell, "packets.sent") == number_at(cell, "packets.received") + truth +
                                                       number_at(cell, "packets.lost_receiver"));
    assert_true(number_at(cell, "until.looks") >= 1);
    assert_true(number_at(cell, "rtt_s.count") >= 5 && number_at(cell, "rtt_loaded_s.count") > 0);
    assert_true(number_at(cell, "valid_for.bytes") >= number_at(cell, "bytes"));
    double received = 0;
    size_t index;
    json_t *interval;
    json_array_foreach(json_object_get(cell, "intervals"), index, interval)
    {
        received += number_at(interval, "received");
        assert_true(number_at(interval, "start_s") <= number_at(cell, "duration_s") + 0.5);
    }
    assert_true(received == number_at(cell, "packets.received"));
    json_decref(run);
}

// Whether it may end early depends on how busy this machine is; what it reports then does not.
static void a_test_that_ends_early_is_within_what_was_asked(void **state)
{
    int status;
    json_t *run = mesh_json(*state, &status, 60, "run tcp --until 5%% -t 7s --from a --to c -4");
    assert_int_equal(status, 0);
    json_t *cell = cell_of(run, "tcp", "a", "c");
    json_t *until = json_object_get(cell, "until");
    assert_true(number_at(until, "target") == 0.05);
    assert_true(number_at(until, "looks") >= 1 && number_at(until, "samples") >= 20);
    if (json_is_true(json_object_get(until, "reached"))) {
        assert_true(number_at(until, "half_width") <= 0.05);
        assert_true(number_at(cell, "duration_s") < 6.9);
        assert_close(number_at(cell, "bandwidth_bps"), GOODPUT, 0.05, "goodput of an early end");
    } else {
        assert_true(number_at(cell, "duration_s") > 6.9);
        assert_true(strlen(text_at(until, "why")) > 10);
    }
    json_decref(run);
}

// What came before the fall is the burst and, meanwhile, the rate.
static double burst_of(json_t *cell)
{
    return number_at(cell, "bucket.bytes") - number_at(cell, "bucket.at_s") * GOODPUT / 8;
}

static bool shows_the_burst(json_t *cell)
{
    return has_number(cell, "bucket.after_bps") &&
           is_close(number_at(cell, "bucket.after_bps"), GOODPUT, 0.05) &&
           is_close(burst_of(cell), 3145728.0 * 1448 / 1514, 0.15);
}

static void a_burst_of_megabytes_is_told_from_the_rate_behind_it(void **state)
{
    free(mesh_exec(*state, "router",
        "tc qdisc replace dev port3 root tbf rate 37mbit burst 3mb latency 50ms"));
    json_t *cell, *run = mesh_measured(*state, shows_the_burst, &cell, "tcp", "a", "c", "-t 3s -4");
    free(mesh_exec(*state, "router",
        "tc qdisc replace dev port3 root tbf rate 37mbit burst 32k latency 50ms"));
    assert_close(number_at(cell, "bucket.after_bps"), GOODPUT, 0.05, "rate after the burst");
    assert_true(number_at(cell, "bucket.before_bps") > 1.4 * GOODPUT);
    assert_close(burst_of(cell), 3145728.0 * 1448 / 1514, 0.15, "burst");
    assert_true(number_at(cell, "valid_for.bytes") >= number_at(cell, "bytes"));
    assert_true(number_at(cell, "valid_for.duration_s") >= number_at(cell, "duration_s"));
    json_decref(run);
}

static bool has_no_bucket(json_t *cell)
{
    return !has_number(cell, "bucket.at_s");
}

static void a_link_that_keeps_its_rate_has_no_bucket(void **state)
{
    json_t *cell, *run = mesh_measured(*state, has_no_bucket, &cell, "tcp", "a", "c", "-t 2s -4");
    assert_false(has_number(cell, "bucket.at_s"));
    assert_true(number_at(cell, "valid_for.bytes") > 0);
    json_decref(run);
}

static void allow(mesh_t *mesh, const char *preloaded)
{
    struct outcome placed = mesh_shell(mesh, 30,
        "$LAB kill a && ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 LD_PRELOAD=%s "
        "$LAB agent a",
        preloaded);
    if (placed.status != 0)
        fail_msg("agent: %s", placed.err);
    outcome_release(&placed);
    mesh_wait_until(mesh, 15, "$LAB meshperf agent list | grep -q '^a .*ready'");
}

static bool held_by_the_provider(json_t *cell)
{
    return strcmp(text_at(cell, "limiter.verdict"), "network") == 0;
}

static void a_providers_allowance_that_moves_is_the_limit(void **state)
{
    json_t *cell;
    allow(*state, ALLOWANCE);
    json_t *run =
        mesh_measured(*state, held_by_the_provider, &cell, "tcp", "a", "c", "-t 500ms -4");
    assert_string_equal(text_at(cell, "host_sender.driver"), "ena");
    assert_string_equal(text_at(cell, "limiter.verdict"), "network");
    assert_string_equal(text_at(cell, "limiter.subtype"), "provider_cap");
    assert_non_null(strstr(text_at(cell, "limiter.evidence"), "held back 11 packets"));
    json_decref(run);
    allow(*state, "");
}

// The ports that the probes of a came from.
static void collect_ports(mesh_t *mesh)
{
    mesh_nft(mesh, "router",
        "table netdev truth {\n"
        "  set ports { type inet_service; flags dynamic; size 64; }\n"
        "  chain seen {\n"
        "    type filter hook ingress device port1 priority 0;\n"
        "    udp length 104 udp dport 5701 add @ports { udp sport }\n"
        "  }\n"
        "}\n");
}

static unsigned ports_collected(mesh_t *mesh)
{
    char *text = mesh_exec(
        mesh, "router", "nft list set netdev truth ports | tr -d '\n' | sed 's/.*elements = //'");
    unsigned count = 1;
    for (const char *at = text; *at; at++)
        count += *at == ',';
    free(text);
    free(mesh_exec(mesh, "router", "nft delete table netdev truth"));
    return count;
}

static void several_flows_are_walked_over_and_compared(void **state)
{
    int status;
    collect_ports(*state);
    json_t *run = mesh_json(*state, &status, 60, "run latency --flows 4 -t 1s --from a --to b");
    assert_int_equal(ports_collected(*state), 4);
    assert_int_equal(status, 0);
    json_t *cell = cell_of(run, "latency", "a", "b");
    assert_true(number_at(cell, "flows") == 4);
    assert_string_equal(text_at(cell, "technique"),
        "UDP from 4 source ports a family, prober sleeps, reflector sleeps");
    assert_true(number_at(cell, "best_flow_p50_s") <= number_at(cell, "worst_flow_p50_s"));
    assert_true(number_at(cell, "pdv_s.p50") >= 0 && number_at(cell, "pdv_backward_s.p50") >= 0);
    assert_non_null(strstr(text_at(cell, "stamps"), "kernel"));
    json_decref(run);
}

// ------------------------------------------------------------------------------ spinning

static void let_spin(mesh_t *mesh, const char *host, bool spin)
{
    struct outcome placed = mesh_shell(mesh, 30,
        "printf 'guard: {spin: %s}\n' >$DIR/%s.yaml && $LAB kill %s && "
        "$LAB agent %s --config $DIR/%s.yaml",
        spin ? "true" : "false", host, host, host, host);
    if (placed.status != 0)
        fail_msg("agent: %s", placed.err);
    outcome_release(&placed);
    mesh_wait_until(mesh, 15, "$LAB meshperf agent list | grep -q '^%s .*ready'", host);
}

static bool technique_is(mesh_t *mesh, const char *from, const char *to, const char *words)
{
    json_t *cell, *run = mesh_measured(mesh, NULL, &cell, "latency", from, to, "-t 500ms");
    bool same = strstr(text_at(cell, "technique"), words) != NULL;
    if (!same)
        print_message("%s > %s: %s\n", from, to, text_at(cell, "technique"));
    json_decref(run);
    return same;
}

static bool both_spin(json_t *cell)
{
    return strstr(text_at(cell, "technique"), ", prober spins, reflector spins") != NULL;
}

static void a_latency_test_spins_where_the_owner_allows_it_and_says_so(void **state)
{
    const char *spins = cgroup_cores() >= 2 ? "spins" : "sleeps"; // a core must be free
    char words[64];
    let_spin(*state, "a", true);
    snprintf(words, sizeof words, ", prober %s, reflector sleeps", spins);
    assert_true(technique_is(*state, "a", "b", words));
    assert_true(technique_is(*state, "b", "a", ", prober sleeps, reflector s"));
    let_spin(*state, "b", true);
    if (cgroup_cores() >= 2) {
        count_probes(*state);
        json_t *cell,
            *run = mesh_measured(*state, both_spin, &cell, "latency", "a", "b", "-t 500ms -4");
        double asked = probes_counted(*state), sent = number_at(cell, "packets.sent");
        assert_true(both_spin(cell));
        assert_non_null(strstr(text_at(cell, "stamps"), "t1 kernel"));
        // What warms up is no round trip that could be lost.
        assert_true(number_at(cell, "packets.received") == sent);
        assert_true(asked >= sent);
        json_decref(run);
    }
    let_spin(*state, "a", false);
    let_spin(*state, "b", false);
    assert_true(technique_is(*state, "a", "b", ", prober sleeps, reflector sleeps"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_on_a_shaped_link_shows_its_queue),
        cmocka_unit_test(latency_under_load_is_measured_whoever_connects),
        cmocka_unit_test(where_probes_do_not_pass_the_test_is_as_it_was),
        cmocka_unit_test(a_udp_test_that_ends_early_counts_its_loss_to_the_packet),
        cmocka_unit_test(a_test_that_ends_early_is_within_what_was_asked),
        cmocka_unit_test(a_burst_of_megabytes_is_told_from_the_rate_behind_it),
        cmocka_unit_test(a_link_that_keeps_its_rate_has_no_bucket),
        cmocka_unit_test(a_providers_allowance_that_moves_is_the_limit),
        cmocka_unit_test(several_flows_are_walked_over_and_compared),
        cmocka_unit_test(a_latency_test_spins_where_the_owner_allows_it_and_says_so),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
