// Ports of SCTP in a guest kernel that has it: what probes see and what verdicts are made of it.
// The router's rules stand before single ports. An INIT leaves no trace of its port at the far end,
// so that silence proves something only where no packet of SCTP came at all.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

static const char TOPOLOGY[] = "subnet one 10.85.1.0/24 fd85:1::/64\n"
                               "subnet two 10.85.2.0/24 fd85:2::/64\n"
                               "host h1 one\n"
                               "host h2 two\n";

// 7000 passes; 7001 is dropped on its way, 7002 rejected, of 7003 the answers are dropped; 7007 is
// dropped, and refused by something that forges an ABORT. What h1 sends takes a while, so that an
// ICMP finds the socket at rest, which shows it to the kernel's SCTP in another way than one that
// comes while connect() still runs.
static const char RULES[] =
    "$LAB exec h1 tc qdisc add dev eth0 root netem delay 5ms && "
    "for family in -4 -6; do"
    " $LAB exec router ip $family rule add pref 11 ipproto 132 dport 7001 blackhole &&"
    " $LAB exec router ip $family rule add pref 12 ipproto 132 dport 7002 prohibit &&"
    " $LAB exec router ip $family rule add pref 13 ipproto 132 sport 7003 blackhole &&"
    " $LAB exec router ip $family rule add pref 14 ipproto 132 dport 7007 blackhole || exit 1; "
    "done; $LAB exec router setsid -f sh -c 'exec $BIN/abort_sctp br1 7007 >$DIR/forger'";

static int bring_up(void **state)
{
    *state = mesh_up(TOPOLOGY, "");
    struct outcome made = mesh_shell(*state, 20, "%s", RULES);
    if (made.status != 0)
        fail_msg("tc, ip rule: %s", made.err);
    outcome_release(&made);
    mesh_wait_until(*state, 20, "grep -q ready $DIR/forger");
    return 0;
}

static int take_down(void **state)
{
    mesh_t *mesh = *state;
    mesh_down(&mesh);
    return 0;
}

// Of a run's "cells" or a check's "checks".
static json_t *entry_of(json_t *document, const char *list, const char *port)
{
    size_t index;
    json_t *entry;
    json_array_foreach(json_object_get(document, list), index, entry)
    {
        if (strcmp(text_at(entry, "port"), port) == 0)
            return entry;
    }
    fail_msg("no %s in %s", port, list);
    return NULL;
}

static void expect(json_t *entry, const char *member, const char *word)
{
    if (strcmp(text_at(entry, member), word) != 0) {
        char *text = json_dumps(entry, JSON_COMPACT);
        fail_msg("%s instead of %s: %s", text_at(entry, member), word, text);
    }
}

static void expect_probe(json_t *document, const char *port, const char *observed,
    const char *arrived, const char *listener)
{
    json_t *cell = entry_of(document, "cells", port);
    expect(cell, "state", "ok");
    expect(cell, "observed", observed);
    expect(cell, "arrived", arrived);
    expect(cell, "listener", listener);
}

static void nothing_is_left(mesh_t *mesh)
{
    for (int i = 1; i <= 2; i++)
        mesh_wait_until(mesh, 20,
            "test $($LAB exec h%d cat /proc/net/sctp/assocs /proc/net/sctp/eps | wc -l) = 2", i);
}

static void an_open_port_is_proven_at_both_ends(void **state)
{
    static const char *const families[] = {"-4", "-6"};
    for (int i = 0; i < 2; i++) {
        int status;
        json_t *document = mesh_json(*state, &status, 60,
            "run port %s --port sctp/7000 --port sctp/7004-7005 --from h1 --to h2", families[i]);
        assert_int_equal(status, 0);
        expect_probe(document, "sctp/7000", "open", "yes", "agent");
        expect_probe(document, "sctp/7004", "open", "yes", "agent");
        expect_probe(document, "sctp/7005", "open", "yes", "agent");
        json_decref(document);
    }
    nothing_is_left(*state);
}

static void silence_says_nothing_of_what_arrived(void **state)
{
    static const char *const families[] = {"-4", "-6"};
    for (int i = 0; i < 2; i++) {
        int status;
        json_t *document = mesh_json(*state, &status, 60,
            "run port %s --timeout 500ms --attempts 2 --port sctp/7001-7003 --from h1 --to h2",
            families[i]);
        assert_int_equal(status, 0);
        expect_probe(document, "sctp/7001", "filtered", "unknown", "agent");
        expect_probe(document, "sctp/7002", "filtered", "unknown", "agent"); // no word of the ICMP
        expect_probe(document, "sctp/7003", "filtered", "unknown", "agent");
        assert_true(
            json_is_true(json_object_get(entry_of(document, "cells", "sctp/7001"), "alive")));
        json_decref(document);
    }
    nothing_is_left(*state);
}

// Alone: another port's packets would leave a doubt.
static void where_no_sctp_came_silence_and_a_forged_refusal_are_proven(void **state)
{
    static const struct {
        const char *port, *timeout, *observed, *arrived;
    } rows[] = {{"sctp/7001", "500ms", "filtered", "no"},
        {"sctp/7003", "500ms", "filtered", "unknown"}, {"sctp/7007", "2s", "refused", "no"}};
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        int status;
        json_t *document = mesh_json(*state, &status, 60,
            "run port -%d --timeout %s --attempts 2 --port %s --from h1 --to h2", i % 2 ? 6 : 4,
            rows[i / 2].timeout, rows[i / 2].port);
        assert_int_equal(status, 0);
        expect_probe(
            document, rows[i / 2].port, rows[i / 2].observed, rows[i / 2].arrived, "agent");
        json_decref(document);
    }
    nothing_is_left(*state);
}

static void a_service_is_looked_on_and_keeps_its_port(void **state)
{
    task_t *service = mesh_start(
        *state, "exec $LAB exec h2 sh -c 'echo $$ >$DIR/service.pid; exec $BIN/service 7006'");
    mesh_wait_until(*state, 20, "$LAB exec h2 grep -q ' 7006 ' /proc/net/sctp/eps");
    int status;
    json_t *document =
        mesh_json(*state, &status, 60, "run port -4 --port sctp/7006 --from h1 --to h2");
    assert_int_equal(status, 0);
    expect_probe(document, "sctp/7006", "accepted", "unknown", "service");
    json_decref(document);
    struct outcome ended =
        mesh_shell(*state, 20, "$LAB exec h2 sh -c 'kill $(cat $DIR/service.pid)'");
    assert_int_equal(ended.status, 0);
    outcome_release(&ended);
    ended = task_wait(&service, 20);
    assert_int_equal(ended.status, 0);
    assert_non_null(strstr(ended.out, "0 datagrams"));
    outcome_release(&ended);
    nothing_is_left(*state);
}

// ------------------------------------------------------------------ verdicts

static json_t *check(mesh_t *mesh, const char *what, int expected)
{
    int status;
    struct outcome written = mesh_shell(mesh, 10,
        "cat >$DIR/policy.yaml <<'END'\n"
        "policy: sctp\n"
        "version: 1\n"
        "targets: {box: {address: 10.85.2.1}}\n"
        "defaults: {unlisted: ignore, attempts: 2, timeout: 1s}\n"
        "groups: {near: {agents: h1}, far: {agents: h2}}\n"
        "rules:\n"
        "  - {name: one, from: near, to: far, %s: sctp/7000-7003}\n"
        "  - {name: two, from: near, to: box, %s: sctp/7009}\n"
        "END\n",
        what, what);
    assert_int_equal(written.status, 0);
    outcome_release(&written);
    char path[128];
    snprintf(path, sizeof path, "check %s/policy.yaml", mesh_dir(mesh));
    json_t *document = mesh_json(mesh, &status, 90, "%s", path);
    assert_int_equal(status, expected);
    for (unsigned port = 7001; port <= 7003; port++) {
        char name[16];
        snprintf(name, sizeof name, "sctp/%u", port);
        expect(entry_of(document, "checks", name), "verdict", "not_tested");
    }
    // A closed port or a device's refusal: no agent is there.
    json_t *closed = entry_of(document, "checks", "sctp/7009");
    expect(closed, "observed", "refused");
    expect(closed, "verdict", "not_tested");
    return document;
}

static void verdicts_claim_no_more_than_was_seen(void **state)
{
    json_t *document = check(*state, "allow", 4);
    expect(entry_of(document, "checks", "sctp/7000"), "verdict", "held");
    json_decref(document);
    document = check(*state, "deny", 1);
    expect(entry_of(document, "checks", "sctp/7000"), "verdict", "violated");
    json_decref(document);
    nothing_is_left(*state);
}

static void blocked_ports_are_held_and_broken(void **state)
{
    static const char *const verbs[] = {"deny", "allow"};
    for (int allow = 0; allow < 2; allow++) {
        int status;
        struct outcome written = mesh_shell(*state, 10,
            "echo '{policy: blocked, groups: {near: {agents: h1}, far: {agents: h2}}, defaults: "
            "{attempts: 2, timeout: 1s}, rules: [{name: one, from: near, to: far, %s: [sctp/7001, "
            "sctp/7007]}]}' >$DIR/blocked.yaml",
            verbs[allow]);
        assert_int_equal(written.status, 0);
        outcome_release(&written);
        json_t *document = mesh_json(*state, &status, 90, "check $DIR/blocked.yaml");
        assert_int_equal(status, allow);
        expect(entry_of(document, "checks", "sctp/7001"), "verdict", allow ? "violated" : "held");
        expect(entry_of(document, "checks", "sctp/7007"), "verdict", allow ? "violated" : "held");
        json_decref(document);
    }
    nothing_is_left(*state);
}

// ------------------------------------------------------------------ marks

// Of the load and its acknowledgements; handshakes of the listener's own are not marked.
static void what_a_test_sends_bears_its_dscp(void **state)
{
    static const char *const families[] = {"-4", "-6"};
    mesh_nft(*state, "router",
        "table bridge look {\n chain pre {\n type filter hook prerouting priority 0;\n"
        " ether type ip ip protocol sctp counter\n"
        " ether type ip ip protocol sctp ip dscp 46 counter\n"
        " ether type ip6 ip6 nexthdr sctp counter\n"
        " ether type ip6 ip6 nexthdr sctp ip6 dscp 46 counter\n"
        "}\n}\n");
    for (int i = 0; i < 2; i++) {
        struct outcome ran = mesh_meshperf(
            *state, 60, "-q run sctp %s -t 500ms -b 3M --dscp 46 --from h1 --to h2", families[i]);
        assert_int_equal(ran.status, 0);
        outcome_release(&ran);
    }
    struct outcome seen =
        mesh_shell(*state, 10, "$LAB exec router nft list ruleset | sed -n 's/.* bytes //p'");
    double bytes[4];
    assert_int_equal(
        sscanf(seen.out, "%lf %lf %lf %lf", &bytes[0], &bytes[1], &bytes[2], &bytes[3]), 4);
    outcome_release(&seen);
    assert_true(bytes[1] > 10000 && bytes[1] > bytes[0] / 2);
    assert_true(bytes[3] > 10000 && bytes[3] > bytes[2] / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_open_port_is_proven_at_both_ends),
        cmocka_unit_test(silence_says_nothing_of_what_arrived),
        cmocka_unit_test(where_no_sctp_came_silence_and_a_forged_refusal_are_proven),
        cmocka_unit_test(a_service_is_looked_on_and_keeps_its_port),
        cmocka_unit_test(verdicts_claim_no_more_than_was_seen),
        cmocka_unit_test(blocked_ports_are_held_and_broken),
        cmocka_unit_test(what_a_test_sends_bears_its_dscp),
    };
    return cmocka_run_group_tests(tests, bring_up, take_down);
}
