// SCTP in a mesh of the real programs, in a guest kernel that begins without it. The tests build on
// each other: the module comes in halves, then hosts differ, then things go wrong in mid-test.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

#define MESSAGE 65536         // the default
#define RECEIVE_BUFFER 212992 // net.core.rmem_default: so much may have come and not be read

static const char TOPOLOGY[] = "subnet plain 10.83.1.0/24 fd83:1::/64\n"
                               "host h1 plain delay=7ms\n"
                               "host h2 plain\n"
                               "host h3 plain\n";

static int bring_up(void **state)
{
    *state = mesh_up(TOPOLOGY, "");
    return 0;
}

static json_t *run(mesh_t *mesh, int expected, const char *arguments)
{
    int status;
    json_t *document = mesh_json(mesh, &status, 90, "run %s", arguments);
    if (status != expected) {
        char *text = json_dumps(document, JSON_COMPACT);
        fail_msg("run %s: status %d instead of %d\n%s", arguments, status, expected, text);
    }
    return document;
}

// Modules of the guest's kernel, with what they depend on.
static void load(mesh_t *mesh, const char *module)
{
    struct outcome loaded = mesh_shell(mesh, 10,
        "for file in $(" TESTBED "/modules %s); do"
        " grep -q \"^$(basename $file .ko | tr - _) \" /proc/modules || busybox insmod $file; done",
        module);
    if (loaded.status != 0)
        fail_msg("insmod %s: %s", module, loaded.err);
    outcome_release(&loaded);
}

static void await_capability(mesh_t *mesh, const char *words, unsigned agents)
{
    mesh_wait_until(mesh, 30,
        "test $($LAB meshperf -o json agent list | grep -o '%s' | wc -l) = %u", words, agents);
}

static void nothing_is_left(mesh_t *mesh)
{
    for (int i = 1; i <= 3; i++)
        mesh_wait_until(mesh, 10, "test $($LAB exec h%d cat /proc/net/sctp/assocs | wc -l) = 1", i);
}

static void assert_words(const char *text, const char *words)
{
    if (!strstr(text, words))
        fail_msg("no \"%s\" in: %s", words, text);
}

// ------------------------------------------------------------------ the module comes in halves

static void a_kernel_without_sctp_makes_cells_unsupported_and_hinders_no_other_test(void **state)
{
    json_t *document = run(*state, 4, "sctp tcp -t 200ms -b 5M --from h1");
    assert_int_equal(count_cells(document, "unsupported"), 2);
    assert_int_equal(count_cells(document, "ok"), 2);
    json_t *cell = cell_of(document, "sctp", "h1", "h2");
    assert_words(text_at(cell, "reason"), "h1 cannot run sctp");
    assert_words(text_at(cell, "reason"), "module sctp is missing");
    json_decref(document);
    struct outcome doctor = mesh_meshperf(*state, 20, "doctor");
    assert_words(doctor.out, "h2: no sctp: the kernel has no SCTP: module sctp is missing");
    outcome_release(&doctor);
    assert_int_equal(mesh_meshperf(*state, 20, "run sctp -t 200ms --allow-incomplete").status, 0);
}

static void half_an_sctp_is_told_from_none_without_a_restart(void **state)
{
    load(*state, "sctp");
    await_capability(*state, "needs\\|need (module hmac)", 3);
    json_t *document = run(*state, 4, "sctp -t 200ms");
    assert_int_equal(count_cells(document, "unsupported"), 6);
    assert_words(text_at(cell_of(document, "sctp", "h3", "h1"), "reason"), "module hmac");
    json_decref(document);
}

static void the_rest_of_the_module_makes_the_mesh_whole(void **state)
{
    load(*state, "hmac");
    await_capability(*state, "\"sctp\":true", 3);
    json_t *document =
        run(*state, 0, "sctp -t 400ms -b 12M --streams 64 --length 1000 -P 2 --from h3");
    assert_int_equal(count_cells(document, "ok"), 2);
    json_t *cell = cell_of(document, "sctp", "h3", "h2");
    // Each of two associations takes the numbers in turn; the machine may have had no time for all.
    assert_true(number_at(cell, "streams") >= 1 && number_at(cell, "streams") <= 64);
    if (number_at(cell, "bytes") > 2 * (64 * 1000 + RECEIVE_BUFFER))
        assert_true(number_at(cell, "streams") == 64);
    assert_true(number_at(cell, "length") == 1000);
    assert_true(number_at(cell, "segments") >= 0);
    assert_true(number_at(cell, "cwnd_max") > 0);
    assert_true(number_at(cell, "retransmits") >= 0);
    assert_true(number_at(cell, "cpu.sender") >= 0 && number_at(cell, "cpu.receiver") >= 0);
    if (number_at(cell, "bandwidth_bps") >= 0.99 * 12e6)
        assert_string_equal(text_at(cell, "limiter.verdict"), "bitrate");
    json_decref(document);
    nothing_is_left(*state);
}

// ------------------------------------------------------------------ beside iperf3

static double iperf3_bps(mesh_t *mesh, const char *from, const char *to, const char *address)
{
    task_t *server = mesh_start(mesh, "$LAB exec %s iperf3 -s -1 >/dev/null", to);
    mesh_wait_until(mesh, 10, "$LAB exec %s ss -Hltn | grep -q ':5201'", to);
    struct outcome client =
        mesh_shell(mesh, 60, "$LAB exec %s iperf3 --sctp -J -c %s -t 2 -O 1", from, address);
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

static bool near(double value, double truth)
{
    print_message("meshperf %.3f, iperf3 %.3f Mbit/s\n", value / 1e6, truth / 1e6);
    return value > 0.97 * truth && value < 1.03 * truth;
}

// A slow link, so that the guest has time, whose queue holds more than a receive window: nothing is
// lost, and two runs can be compared. The machine may still hold the guest up during one of them,
// so one round of six in which both agree is enough; a difference of method would be in all.
static void goodput_is_what_iperf3_measures_on_the_same_link(void **state)
{
    free(mesh_exec(
        *state, "router", "tc qdisc add dev port2 root tbf rate 9mbit burst 16k latency 300ms"));
    bool agree = false;
    for (int round = 0; round < 6 && !agree; round++) {
        json_t *document = run(*state, 0, "sctp -t 2s -O 1s --from h1 --to h2 -4");
        json_t *cell = cell_of(document, "sctp", "h1", "h2");
        double rate = number_at(cell, "bandwidth_bps");
        // A message is 46 packets of one chunk each: 16 + 12 + 20 + 14 bytes apiece are no payload.
        assert_close(
            number_at(cell, "wire_bps.l2"), rate * (MESSAGE + 46 * 62) / MESSAGE, 0.02, "layer 2");
        assert_true(strlen(text_at(cell, "limiter.verdict")) > 0);
        agree = near(rate, iperf3_bps(*state, "h1", "h2", "10.83.1.2"));
        json_decref(document);
    }
    assert_true(agree);
    free(mesh_exec(*state, "router", "tc qdisc del dev port2 root"));
}

// ------------------------------------------------------------------ hosts that differ

static void one_host_that_may_not_use_sctp_spoils_its_own_pairs_only(void **state)
{
    struct outcome again = mesh_shell(
        *state, 30, "$LAB kill h3 TERM; LAB_AGENT_UNDER='%s EACCES' $LAB agent h3", WITHOUT_SCTP);
    assert_int_equal(again.status, 0);
    outcome_release(&again);
    json_t *document = run(*state, 4, "sctp -t 300ms -b 3M");
    assert_int_equal(count_cells(document, "ok"), 2);
    assert_int_equal(count_cells(document, "unsupported"), 4);
    assert_string_equal(text_at(cell_of(document, "sctp", "h1", "h2"), "state"), "ok");
    assert_words(text_at(cell_of(document, "sctp", "h1", "h3"), "reason"), "h3 cannot run sctp");
    assert_words(text_at(cell_of(document, "sctp", "h3", "h1"), "reason"), "forbidden");
    json_decref(document);
    struct outcome back = mesh_shell(*state, 30, "$LAB kill h3 TERM; $LAB agent h3");
    assert_int_equal(back.status, 0);
    outcome_release(&back);
}

// What the agent found when it registered holds no longer: it looks again at each test. (The module
// itself cannot be unloaded: each network namespace holds it.)
static void an_agent_that_loses_sctp_while_it_runs_says_so_and_takes_it_up_again(void **state)
{
    free(mesh_exec(*state, "h3", "ip addr del 127.0.0.1/8 dev lo"));
    json_t *document = run(*state, 4, "sctp tcp -t 200ms -b 3M --from h1");
    assert_int_equal(count_cells(document, "ok"), 3);
    json_t *cell = cell_of(document, "sctp", "h1", "h3");
    assert_string_equal(text_at(cell, "state"), "unsupported");
    assert_words(text_at(cell, "reason"), "h3");
    assert_words(text_at(cell, "reason"), "no 127.0.0.1");
    json_decref(document);
    await_capability(*state, "\"sctp\":true", 2);
    free(mesh_exec(*state, "h3", "ip addr add 127.0.0.1/8 dev lo"));
    await_capability(*state, "\"sctp\":true", 3);
    document = run(*state, 0, "sctp -t 200ms -b 3M --from h1");
    assert_int_equal(count_cells(document, "ok"), 2);
    json_decref(document);
}

static void a_message_that_is_too_long_is_refused_with_its_limit(void **state)
{
    struct outcome long_one = mesh_meshperf(*state, 20, "run sctp --length 65537");
    assert_int_equal(long_one.status, 2);
    assert_words(long_one.err, "65537");
    assert_words(long_one.err, "65536");
    outcome_release(&long_one);
    json_t *document =
        run(*state, 4, "sctp -t 300ms --length 64K -w 16K --from h1 --to h2 --retries 0");
    json_t *cell = cell_of(document, "sctp", "h1", "h2");
    assert_string_equal(text_at(cell, "state"), "failed");
    assert_words(text_at(cell, "reason"), "h1 (sender)");
    assert_words(text_at(cell, "reason"), "cannot take messages of 65536 bytes");
    json_decref(document);
}

// ------------------------------------------------------------------ when something dies

static void await_load(mesh_t *mesh, const char *host)
{
    // Two associations and the heading: the test's control and its load.
    mesh_wait_until(mesh, 20, "test $($LAB exec %s cat /proc/net/sctp/assocs | wc -l) -ge 3", host);
}

static void an_agent_killed_in_mid_test_costs_that_attempt_only(void **state)
{
    task_t *running =
        mesh_start(*state, "$LAB meshperf -o json run sctp -t 2s -b 3M --from h2 --to h3");
    await_load(*state, "h3");
    struct outcome killed = mesh_shell(*state, 30, "$LAB kill h3 KILL && $LAB agent h3");
    assert_int_equal(killed.status, 0);
    outcome_release(&killed);
    struct outcome ended = task_wait(&running, 90);
    assert_int_equal(ended.status, 0);
    json_t *document = json_loads(ended.out, 0, NULL);
    assert_non_null(document);
    json_t *cell = cell_of(document, "sctp", "h2", "h3");
    assert_string_equal(text_at(cell, "state"), "ok");
    json_decref(document);
    outcome_release(&ended);
    nothing_is_left(*state);
}

static void a_peer_that_becomes_unreachable_is_a_failure_and_no_hang(void **state)
{
    task_t *running = mesh_start(
        *state, "$LAB meshperf -o json run sctp -t 30s -b 3M -4 --from h2 --to h3 --retries 0");
    await_load(*state, "h3");
    free(mesh_exec(*state, "h2", "ip route add blackhole 10.83.1.3/32"));
    free(mesh_exec(*state, "h3", "ip route add blackhole 10.83.1.2/32"));
    struct outcome ended = task_wait(&running, 40);
    free(mesh_exec(*state, "h2", "ip route del blackhole 10.83.1.3/32"));
    free(mesh_exec(*state, "h3", "ip route del blackhole 10.83.1.2/32"));
    assert_int_equal(ended.status, 4);
    json_t *document = json_loads(ended.out, 0, NULL);
    assert_non_null(document);
    json_t *cell = cell_of(document, "sctp", "h2", "h3");
    assert_string_equal(text_at(cell, "state"), "failed");
    assert_words(text_at(cell, "reason"), "silent");
    json_decref(document);
    outcome_release(&ended);
    nothing_is_left(*state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_without_sctp_makes_cells_unsupported_and_hinders_no_other_test),
        cmocka_unit_test(half_an_sctp_is_told_from_none_without_a_restart),
        cmocka_unit_test(the_rest_of_the_module_makes_the_mesh_whole),
        cmocka_unit_test(goodput_is_what_iperf3_measures_on_the_same_link),
        cmocka_unit_test(one_host_that_may_not_use_sctp_spoils_its_own_pairs_only),
        cmocka_unit_test(an_agent_that_loses_sctp_while_it_runs_says_so_and_takes_it_up_again),
        cmocka_unit_test(a_message_that_is_too_long_is_refused_with_its_limit),
        cmocka_unit_test(an_agent_killed_in_mid_test_costs_that_attempt_only),
        cmocka_unit_test(a_peer_that_becomes_unreachable_is_a_failure_and_no_hang),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
