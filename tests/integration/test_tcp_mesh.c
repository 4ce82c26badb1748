// What a tcp test has to withstand: MTUs from small to large and unequal, many streams, more asked
// for than there is, a receiver that stands still, wall clocks that step, one core, small buffers,
// loss one way. Judged by states, counters and arithmetic, not by how fast this machine is today.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

static const char TOPOLOGY[] = "subnet tcp 10.83.1.0/24 fd83:1::/64\n"
                               "host plain tcp\n"
                               "host slow tcp rate=100mbit\n"
                               "host tiny tcp mtu=576 ipv6=no\n"
                               "host least6 tcp mtu=1280\n"
                               "host jumbo tcp mtu=9000\n"
                               "host jumbo2 tcp mtu=9000\n";

static int bring_up(void **state)
{
    *state = mesh_up(TOPOLOGY, "");
    return 0;
}

static void done(mesh_t *mesh, const char *command)
{
    struct outcome outcome = mesh_shell(mesh, 60, "%s", command);
    if (outcome.status != 0)
        fail_msg("%s: status %d\n%s", command, outcome.status, outcome.err);
    outcome_release(&outcome);
}

// A run of one pair that must be ok; the caller's.
static json_t *run_of(
    mesh_t *mesh, json_t **cell, const char *from, const char *to, const char *words)
{
    return mesh_measured(mesh, NULL, cell, "tcp", from, to, words);
}

static unsigned mtu_of(const char *host)
{
    return strcmp(host, "tiny") == 0        ? 576
           : strcmp(host, "least6") == 0    ? 1280
           : strncmp(host, "jumbo", 5) == 0 ? 9000
                                            : 1500;
}

// The smaller end's MTU holds: what a segment carries is that less both headers and the timestamps.
static void small_large_and_unequal_mtus_are_used_to_the_byte(void **state)
{
    int status;
    size_t index;
    json_t *cell, *run = mesh_json(*state, &status, 90, "-q run tcp -b 10M -t 300ms -O 100ms -4");
    assert_int_equal(status, 0);
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        unsigned a = mtu_of(text_at(cell, "from")), b = mtu_of(text_at(cell, "to"));
        assert_true(number_at(cell, "bytes") > 0);
        assert_int_equal((unsigned)number_at(cell, "mss"), (a < b ? a : b) - 20 - 20 - 12);
    }
    assert_int_equal(index, 30);
    json_decref(run);
}

static void ipv6_has_the_larger_header(void **state)
{
    json_t *cell, *run = run_of(*state, &cell, "jumbo", "least6", "-b 10M -t 300ms -6");
    assert_int_equal((unsigned)number_at(cell, "family"), 6);
    assert_int_equal((unsigned)number_at(cell, "mss"), 1280 - 40 - 20 - 12);
    json_decref(run);
}

static void sixty_four_streams_share_a_rate(void **state)
{
    json_t *cell, *run = run_of(*state, &cell, "plain", "jumbo", "-P 64 -b 40M -t 1s -i 200ms");
    assert_true(number_at(cell, "bandwidth_bps") < 1.05 * 40e6);
    assert_close(number_at(cell, "bandwidth_bps") * number_at(cell, "duration_s") / 8,
        number_at(cell, "bytes"), 1e-6, "bytes of the window");
    json_decref(run);
}

static bool fills_the_link(json_t *cell)
{
    return is_close(number_at(cell, "wire_bps.l2"), 100e6, 0.03);
}

// The link counts 1514 bytes a full packet, 1448 of them are payload; what is asked for matters
// not.
static void more_asked_for_than_the_link_has_reads_the_link(void **state)
{
    static const char *const asked[] = {"-b 1G -t 1s -4", "-b 20G -t 1s -4", "-t 1s -4"};
    for (unsigned i = 0; i < 3; i++) {
        json_t *cell,
            *run = mesh_measured(*state, fills_the_link, &cell, "tcp", "plain", "slow", asked[i]);
        assert_close(number_at(cell, "wire_bps.l2"), 100e6, 0.03, "rate at layer 2");
        assert_close(number_at(cell, "wire_bps.l2") / number_at(cell, "bandwidth_bps"),
            1514.0 / 1448, 0.002, "headers at layer 2");
        assert_close(number_at(cell, "wire_bps.l3") / number_at(cell, "bandwidth_bps"),
            1500.0 / 1448, 0.002, "headers at layer 3");
        assert_close(number_at(cell, "wire_bps.line") / number_at(cell, "bandwidth_bps"),
            1538.0 / 1448, 0.002, "headers on the line");
        assert_string_not_equal(text_at(cell, "limiter.verdict"), "bitrate");
        json_decref(run);
    }
}

#define ARRIVED "$($LAB exec jumbo ip -s link show eth0 | awk '/RX/{getline; print $1}')"

// The program stops; the kernel's buffers take some more, then nothing moves.
static void a_receiver_that_stands_still_for_two_seconds_is_no_failure(void **state)
{
    done(*state, "echo $(( " ARRIVED " )) >$DIR/before");
    task_t *task = mesh_start(
        *state, "$LAB meshperf -q -o json run tcp -b 20M -t 8s -i 500ms --from plain --to jumbo");
    mesh_wait_until(*state, 20, "test " ARRIVED " -gt $(($(cat $DIR/before) + 2000000))");
    done(*state,
        "p=$(cat $DIR/agents/jumbo/pid); $LAB exec jumbo kill -STOP $p; sleep 2; $LAB exec "
        "jumbo kill -CONT $p");
    struct outcome ended = task_wait(&task, 60);
    json_t *run = json_loads(ended.out, 0, NULL), *interval;
    assert_non_null(run);
    if (ended.status != 0)
        fail_msg("%s", ended.out);
    json_t *cell = cell_of(run, "tcp", "plain", "jumbo");
    size_t index;
    double bytes = 0, longest_s = 0, slowest_bps = 1e12;
    json_array_foreach(json_object_get(cell, "intervals"), index, interval)
    {
        double span_s = number_at(interval, "duration_s"),
               bps = number_at(interval, "bandwidth_bps");
        bytes += bps * span_s / 8;
        longest_s = span_s > longest_s ? span_s : longest_s;
        slowest_bps = bps < slowest_bps ? bps : slowest_bps;
    }
    assert_true(number_at(cell, "stalled_s") > 0.3);
    // Nobody looked meanwhile; the intervals keep to their grid all the same, and what the sender
    // did not send is missing in them.
    assert_true(longest_s < 1.5 * 0.5 + 0.001);
    assert_true(slowest_bps < 0.9 * 20e6);
    assert_close(bytes, number_at(cell, "bytes"), 1e-6, "bytes of the intervals");
    json_decref(run);
    outcome_release(&ended);
}

static void wall_clocks_that_step_do_not_reach_the_numbers(void **state)
{
    done(*state,
        "for h in plain jumbo2; do $LAB kill $h && "
        "ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 LD_PRELOAD=$CLOCK_STEPS $LAB "
        "agent $h || exit 1; done");
    json_t *cell, *run = run_of(*state, &cell, "plain", "jumbo2", "-b 20M -t 1s -i 100ms");
    // Clocks are hours off.
    assert_true(number_at(cell, "duration_s") > 0.5 && number_at(cell, "duration_s") < 30);
    assert_close(number_at(cell, "bandwidth_bps") * number_at(cell, "duration_s") / 8,
        number_at(cell, "bytes"), 1e-6, "bytes of the window");
    json_decref(run);
    run = run_of(*state, &cell, "jumbo2", "plain", "-t 500ms");
    assert_true(number_at(cell, "duration_s") > 0.2 && number_at(cell, "duration_s") < 30);
    json_decref(run);
    done(*state, "for h in plain jumbo2; do $LAB kill $h && $LAB agent $h || exit 1; done");
}

static void pin(mesh_t *mesh, const char *cores)
{
    char command[256];
    snprintf(command, sizeof command,
        "for p in $(cat $DIR/agents/*/pid $DIR/controller/pid); do $LAB exec ctl taskset -a -cp %s "
        "$p "
        ">/dev/null || exit 1; done",
        cores);
    done(mesh, command);
}

static void one_core_for_all_of_it_is_enough(void **state)
{
    pin(*state, "0");
    json_t *cell, *run = run_of(*state, &cell, "plain", "jumbo", "-P 4 -t 500ms");
    assert_true(number_at(cell, "bytes") > 0);
    assert_int_equal((int)number_at(cell, "host_sender.cores"), 1);
    assert_true(strlen(text_at(cell, "limiter.verdict")) > 0);
    json_decref(run);
    pin(*state, "0-$(($(nproc --all) - 1))");
}

// Without any capability, at either end and with all that wants one: buffers, priorities, another
// congestion control.
static void without_any_privilege_all_is_measured(void **state)
{
    done(*state,
        "for h in plain jumbo; do $LAB kill $h && LAB_AGENT_UNDER='setpriv --bounding-set=-all "
        "--inh-caps=-all --no-new-privs' $LAB agent $h || exit 1; "
        "grep -q '^CapEff:.*[1-9a-f]' /proc/$(cat $DIR/agents/$h/pid)/status && exit 1; done; "
        "true");
    json_t *cell, *run = run_of(*state, &cell, "plain", "jumbo", "-w 4M -P 2 -t 500ms -C reno");
    assert_true(number_at(cell, "bytes") > 0);
    assert_int_equal((unsigned)number_at(cell, "mss"), 1500 - 40 - 20 - 12);
    assert_true(has_number(cell, "cpu.sender") && has_number(cell, "cpu.receiver"));
    assert_true(has_number(cell, "wire_bps.l2"));
    assert_true(strlen(text_at(cell, "limiter.verdict")) > 0);
    json_decref(run);
    run = run_of(*state, &cell, "slow", "plain", "-b 20M -t 500ms --bidir");
    assert_true(number_at(cell, "bytes") > 0);
    json_decref(run);
    done(*state, "for h in plain jumbo; do $LAB kill $h && $LAB agent $h || exit 1; done");
}

static void a_window_of_two_segments_is_named_as_the_limit(void **state)
{
    done(*state, "$LAB exec jumbo sysctl -qw net.ipv4.tcp_rmem='4096 4096 4096'");
    json_t *cell, *run = run_of(*state, &cell, "plain", "jumbo", "-P 2 -t 500ms");
    assert_string_equal(text_at(cell, "limiter.verdict"), "receive_window");
    json_decref(run);
    done(*state, "$LAB exec jumbo sysctl -qw net.ipv4.tcp_rmem='4096 131072 6291456'");
}

static void loss_one_way_is_seen_by_the_sender_of_that_way(void **state)
{
    mesh_nft(*state, "router",
        "table netdev loss {\n"
        "  counter dropped { }\n"
        "  chain drops {\n"
        "    type filter hook egress device port1 priority 0;\n"
        "    tcp sport 5701 meta length > 500 numgen inc mod 50 == 0 counter name dropped drop\n"
        "    tcp dport 5701 meta length > 500 numgen inc mod 50 == 0 counter name dropped drop\n"
        "  }\n"
        "}\n");
    json_t *cell, *run = run_of(*state, &cell, "jumbo", "plain", "-b 20M -t 1s -O 0s");
    assert_true(number_at(cell, "retransmits") > 0);
    json_decref(run);
    run = run_of(*state, &cell, "plain", "jumbo", "-b 20M -t 1s -O 0s");
    assert_true(number_at(cell, "retransmits") == 0);
    json_decref(run);
    assert_true(mesh_packets(*state, "router", "netdev loss dropped") > 0);
    done(*state, "$LAB exec router nft delete table netdev loss");
}

int main(void)
{
    setenv("CLOCK_STEPS", CLOCK_STEPS, 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_large_and_unequal_mtus_are_used_to_the_byte),
        cmocka_unit_test(ipv6_has_the_larger_header),
        cmocka_unit_test(sixty_four_streams_share_a_rate),
        cmocka_unit_test(more_asked_for_than_the_link_has_reads_the_link),
        cmocka_unit_test(a_receiver_that_stands_still_for_two_seconds_is_no_failure),
        cmocka_unit_test(wall_clocks_that_step_do_not_reach_the_numbers),
        cmocka_unit_test(one_core_for_all_of_it_is_enough),
        cmocka_unit_test(without_any_privilege_all_is_measured),
        cmocka_unit_test(a_window_of_two_segments_is_named_as_the_limit),
        cmocka_unit_test(loss_one_way_is_seen_by_the_sender_of_that_way),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
