// Ports against a router's rules: each observation that there is, provoked, and arrival judged by
// the destination's own packet counters.

#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

// The number of a port names its rule; tcp and udp alike. Rules are the router's, between subnets.
static const char TOPOLOGY[] =
    "subnet web 10.83.1.0/24 fd83:1::/64\n"
    "subnet db 10.83.2.0/24 fd83:2::/64\n"
    "subnet office 10.83.3.0/24 fd83:3::/64\n"
    "host web web\n"
    "host db db\n"
    "host office office\n"
    "rule web db tcp/7002 drop\n"
    "rule web db udp/7002 drop\n"
    "rule web db tcp/7003 reject with tcp reset\n"
    "rule web db tcp/7004 reject with icmpx type port-unreachable\n"
    "rule web db udp/7004 reject with icmpx type port-unreachable\n"
    "rule web db tcp/7005 reject with icmpx type host-unreachable\n"
    "rule web db udp/7005 reject with icmpx type host-unreachable\n"
    "rule web db tcp/7006 reject with icmpx type admin-prohibited\n"
    "rule web db udp/7006 reject with icmpx type admin-prohibited\n"
    "rule web db tcp/7007 reject with icmpx type no-route\n"
    "rule web db udp/7007 reject with icmpx type no-route\n"
    "rule db web tcp/:7008 drop\n"
    "rule db web udp/:7008 drop\n"
    "rule web db udp/7009 limit rate over 2/second burst 1 packets drop\n"
    "nat web db tcp/7011 redirect to :7999\n"
    "rule db web tcp/:7014 reject with tcp reset\n"
    "rule db web tcp/:7015 reject with icmpx type host-unreachable\n"
    "nat office db any masquerade\n"
    "rule office db tcp/7013 accept\n"
    "rule db office tcp/:7013 drop\n";

enum { TCP_FIRST = 7001, PORTS = 15 };

static mesh_t *mesh_of(void **state)
{
    return *state;
}

// Counts what reaches a host at each port, before any rule of its own.
static void count_arrivals(mesh_t *mesh, const char *host)
{
    struct outcome made = mesh_shell(mesh, 10,
        "{ echo 'table inet truth {'; for p in tcp udp; do for n in 80 $(seq 7001 7015); do"
        "  echo \"counter ${p}_$n { }\"; done; done;"
        "  echo 'chain arrivals { type filter hook input priority -300; policy accept;';"
        "  for p in tcp udp; do for n in 80 $(seq 7001 7015); do"
        "  echo \"$p dport $n counter name ${p}_$n\"; done; done; echo '}'; echo '}'; } "
        ">$DIR/truth.nft;"
        " $LAB exec %s nft -f $DIR/truth.nft",
        host);
    if (made.status != 0)
        fail_msg("nft: %s", made.err);
    outcome_release(&made);
}

static double arrivals(mesh_t *mesh, const char *host, const char *protocol, unsigned port)
{
    char name[64];
    snprintf(name, sizeof name, "inet truth %s_%u", protocol, port);
    return mesh_packets(mesh, host, name);
}

static void start_service(mesh_t *mesh, const char *host, unsigned port, const char *greeting)
{
    struct outcome made = mesh_shell(mesh, 10,
        "$LAB exec %s setsid -f bash -c 'exec %s/service %u %s >$DIR/service.%u 2>&1 </dev/null'",
        host, MESHPERF_BIN_DIR, port, greeting, port);
    assert_int_equal(made.status, 0);
    outcome_release(&made);
    mesh_wait_until(mesh, 10, "grep -q ready $DIR/service.%u", port);
}

static int bring_up(void **state)
{
    mesh_t *mesh = mesh_up(TOPOLOGY, "");
    *state = mesh;
    count_arrivals(mesh, "db");
    // Otherwise a router answers few of several rejected packets.
    free(mesh_exec(mesh, "router",
        "sysctl -qw net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_ratelimit=0 "
        "net.ipv4.icmp_msgs_per_sec=10000"));
    start_service(mesh, "db", 7010, "hello");
    start_service(mesh, "router", 7999, "");
    return 0;
}

static json_t *port_cell(json_t *run, const char *from, const char *to, const char *port)
{
    size_t index;
    json_t *cell;
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        if (strcmp(text_at(cell, "from"), from) == 0 && strcmp(text_at(cell, "to"), to) == 0 &&
            strcmp(text_at(cell, "port"), port) == 0)
            return cell;
    }
    fail_msg("no cell %s > %s %s", from, to, port);
    return NULL;
}

struct row {
    const char *port, *observed, *arrived, *listener;
    int code4, code6; // of the ICMP message; -1: none
};

static const struct row rows[] = {
    {"tcp/7001", "open", "yes", "agent", -1, -1},
    {"udp/7001", "open", "yes", "agent", -1, -1},
    {"tcp/7002", "filtered", "no", "agent", -1, -1},
    {"udp/7002", "filtered", "no", "agent", -1, -1},
    {"tcp/7003", "refused", "no", "agent", -1, -1},
    {"tcp/7004", "rejected", "no", "agent", 3, 4},
    {"udp/7004", "rejected", "no", "agent", 3, 4},
    {"tcp/7005", "rejected", "no", "agent", 1, 3},
    {"udp/7005", "rejected", "no", "agent", 1, 3},
    {"tcp/7006", "rejected", "no", "agent", 13, 1},
    {"udp/7006", "rejected", "no", "agent", 13, 1},
    {"tcp/7007", "rejected", "no", "agent", 0, 0},
    {"udp/7007", "rejected", "no", "agent", 0, 0},
    {"tcp/7008", "filtered", "yes", "agent", -1, -1},
    {"udp/7008", "filtered", "yes", "agent", -1, -1},
    {"udp/7009", "open", "yes", "agent", -1, -1},
    {"tcp/7010", "accepted", "unknown", "service", -1, -1},
    {"udp/7010", "filtered", "unknown", "service", -1, -1},
    {"tcp/7011", "accepted", "no", "agent", -1, -1},
};

static void check_word(json_t *cell, const char *key, const char *expected)
{
    if (strcmp(text_at(cell, key), expected) == 0)
        return;
    char *text = json_dumps(cell, JSON_COMPACT);
    fail_msg("%s is not %s: %s", key, expected, text);
}

static void check_row(json_t *run, const struct row *row, const char *family)
{
    json_t *cell = port_cell(run, "web", "db", row->port);
    int code = *family == '4' ? row->code4 : row->code6;
    check_word(cell, "state", "ok");
    check_word(cell, "observed", row->observed);
    check_word(cell, "arrived", row->arrived);
    check_word(cell, "listener", row->listener);
    assert_true(*text_at(cell, "evidence"));
    assert_true(json_is_true(json_object_get(cell, "alive")));
    if (strcmp(row->observed, "filtered") == 0 && strcmp(row->arrived, "no") == 0) {
        check_word(cell, "last_hop", *family == '4' ? "10.83.1.254" : "fd83:1::fe");
        assert_non_null(strstr(text_at(cell, "evidence"), "the last hop that answers"));
    }
    if (code < 0) {
        assert_false(has_number(cell, "icmp.code"));
        return;
    }
    assert_true(number_at(cell, "icmp.code") == code);
    check_word(cell, "icmp.from", *family == '4' ? "10.83.1.254" : "fd83:1::fe");
}

// Whether a port stayed silent and nobody is sure that nothing came, or where it went: the
// listeners closed by themselves, or no time was left, since the machine stood still in between.
static bool was_late(json_t *run)
{
    size_t index;
    json_t *cell;
    bool late = false;
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        bool nowhere = strcmp(text_at(cell, "arrived"), "no") == 0 &&
                       strcmp(text_at(cell, "observed"), "filtered") == 0 &&
                       !*text_at(cell, "last_hop");
        late = late || nowhere || strcmp(text_at(cell, "state"), "ok") != 0 ||
               strstr(text_at(cell, "evidence"), "before the probes ended");
    }
    return late;
}

static void check_truth(mesh_t *mesh, json_t *run, double before[2][PORTS + 1]);

// As the rows say, of up to three runs the first that was not late.
static void each_observation(mesh_t *mesh, const char *family)
{
    double before[2][PORTS + 1];
    static const char *const protocols[] = {"tcp", "udp"};
    for (int tries = 1;; tries++) {
        for (int p = 0; p < 2; p++)
            for (unsigned n = 0; n < PORTS; n++)
                before[p][n] = arrivals(mesh, "db", protocols[p], TCP_FIRST + n);
        int status;
        json_t *run = mesh_json(mesh, &status, 60,
            "run port -%s --from web --to db --port tcp/7001-7011 --port tcp/7014-7015 --port "
            "udp/7001-7002 "
            "--port udp/7004-7010 --attempts 3 --timeout 700ms",
            family);
        check_truth(mesh, run, before);
        bool last = tries == 3 || !was_late(run);
        for (size_t i = 0; last && i < sizeof rows / sizeof *rows; i++)
            check_row(run, &rows[i], family);
        json_decref(run);
        if (last)
            return;
    }
}

// What is said to have arrived did, and what is said not to have did not.
static void check_truth(mesh_t *mesh, json_t *run, double before[2][PORTS + 1])
{
    size_t index;
    json_t *cell;
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        const char *port = text_at(cell, "port"), *arrived = text_at(cell, "arrived");
        unsigned number = (unsigned)atoi(port + 4);
        double came = arrivals(mesh, "db", port[0] == 't' ? "tcp" : "udp", number) -
                      before[port[0] == 'u'][number - TCP_FIRST];
        if ((strcmp(arrived, "yes") == 0 && came == 0) || (strcmp(arrived, "no") == 0 && came > 0))
            fail_msg("%s arrived: %s, but %g packets came", port, arrived, came);
    }
}

static void each_observation_is_told_apart_over_ipv4(void **state)
{
    each_observation(mesh_of(state), "4");
}

static void each_observation_is_told_apart_over_ipv6(void **state)
{
    each_observation(mesh_of(state), "6");
}

static void a_service_keeps_its_port_and_hears_no_nonce(void **state)
{
    mesh_t *mesh = mesh_of(state);
    int status;
    json_t *run = mesh_json(mesh, &status, 30,
        "run port --from office --to db --port tcp/7010 --attempts 3 --timeout 700ms");
    check_word(port_cell(run, "office", "db", "tcp/7010"), "observed", "accepted");
    json_decref(run);
    struct outcome log = mesh_shell(mesh, 5, "grep 7010 $DIR/agents/db/log; cat $DIR/service.7010");
    assert_null(strstr(log.out, "tcp/7010 at"));
    assert_string_equal(log.out, "ready\n"); // it runs on
    outcome_release(&log);
}

static void address_translation_shows_in_where_a_probe_is_seen_from(void **state)
{
    int status;
    json_t *run = mesh_json(mesh_of(state), &status, 30,
        "run port -4 --from office --to db --port tcp/7001 --port udp/7001 --port tcp/7013 "
        "--attempts 3 --timeout 700ms");
    assert_int_equal(status, 0);
    check_word(port_cell(run, "office", "db", "tcp/7001"), "seen_from", "10.83.2.254");
    check_word(port_cell(run, "office", "db", "udp/7001"), "seen_from", "10.83.2.254");
    json_decref(run);
}

// Rules that go by the source port: the router lets only one of them through, of either protocol.
static void from_port_is_the_source_port_of_every_probe(void **state)
{
    mesh_t *mesh = mesh_of(state);
    free(mesh_exec(mesh, "router",
        "nft -f - <<< 'table inet source { counter other { }; chain c { type filter hook forward "
        "priority -1; meta l4proto {tcp, udp} th dport 7012 th sport != 7777 counter name other "
        "drop; }; }'"));
    static const char *const ports[] = {"tcp/7012", "udp/7012"};
    for (int right = 0; right < 2; right++) {
        int status;
        json_t *run = mesh_json(mesh, &status, 30,
            "run port -4 --from web --to db --port tcp/7012 --port udp/7012 --from-port %d "
            "--attempts 2 --timeout 700ms",
            right ? 7777 : 7776);
        for (size_t i = 0; i < 2; i++) {
            json_t *cell = port_cell(run, "web", "db", ports[i]);
            check_word(cell, "observed", right ? "open" : "filtered");
            assert_true(number_at(cell, "source_port") == (right ? 7777 : 7776));
        }
        json_decref(run);
    }
    free(mesh_exec(mesh, "router", "nft delete table inet source"));
}

static void replies_lost_behind_a_translation_are_no_passing_silence(void **state)
{
    mesh_t *mesh = mesh_of(state);
    int status;
    // The reply is dropped where it still bears the translated address.
    free(mesh_exec(mesh, "db",
        "nft -f - <<< 'table inet mute { chain out { type filter hook output priority 0; "
        "tcp sport 7012 drop; }; }'"));
    json_t *run = mesh_json(mesh, &status, 30,
        "run port -4 --from office --to db --port tcp/7012 --attempts 3 --timeout 700ms");
    json_t *cell = port_cell(run, "office", "db", "tcp/7012");
    check_word(cell, "observed", "filtered");
    assert_true(arrivals(mesh, "db", "tcp", 7012) > 0);
    if (strcmp(text_at(cell, "arrived"), "no") == 0)
        fail_msg("it arrived: %s", text_at(cell, "evidence"));
    json_decref(run);
}

// More connections than can be told apart have begun when the probe's comes: its first two packets
// are lost, and no answer to any of them leaves.
static void a_crowd_of_other_connections_hides_no_arrival(void **state)
{
    mesh_t *mesh = mesh_of(state);
    int status;
    double before = arrivals(mesh, "db", "tcp", 7012);
    free(mesh_exec(mesh, "db",
        "nft -f - <<< 'table inet mute { }; delete table inet mute; table inet mute { chain out { "
        "type filter hook output priority 0; tcp sport 7012 drop; }; }'"));
    free(mesh_exec(mesh, "router",
        "nft -f - <<< 'table inet late { chain c { type filter hook forward priority -1; "
        "tcp sport 7777 quota until 150 bytes drop; }; }'"));
    task_t *crowd = mesh_start(mesh,
        "$LAB exec web bash -c 'for i in $(seq 80); do : <>/dev/tcp/10.83.2.1/7012 & done; jobs -p "
        ">$DIR/crowd.new; mv $DIR/crowd.new $DIR/crowd; wait' 2>/dev/null");
    mesh_wait_until(mesh, 30,
        "test -s $DIR/crowd && test $($LAB exec db nft list counter inet truth tcp_7012 | sed -n "
        "'s/.*packets \\([0-9]*\\).*/\\1/p') -ge %.0f",
        before + 80);
    json_t *run = mesh_json(mesh, &status, 30,
        "run port -4 --from web --to db --port tcp/7012 --from-port 7777 --attempts 3 --timeout "
        "2s");
    json_t *cell = port_cell(run, "web", "db", "tcp/7012");
    check_word(cell, "observed", "filtered");
    if (strcmp(text_at(cell, "arrived"), "no") == 0)
        fail_msg("it arrived: %s", text_at(cell, "evidence"));
    json_decref(run);
    free(mesh_exec(mesh, "web", "kill $(cat $DIR/crowd)"));
    struct outcome ended = task_wait(&crowd, 30);
    outcome_release(&ended);
    free(mesh_exec(mesh, "db", "nft delete table inet mute"));
    free(mesh_exec(mesh, "router", "nft delete table inet late"));
}

// Such half-open connections end before anybody looks.
static void replies_rejected_by_the_router_are_no_passing_silence(void **state)
{
    static const char *const ports[] = {"tcp/7014", "tcp/7015"};
    for (int six = 0; six < 2; six++) {
        int status;
        json_t *run = mesh_json(mesh_of(state), &status, 30,
            "run port -%d --from web --to db --port tcp/7014-7015 --attempts 1 --timeout 700ms",
            six ? 6 : 4);
        for (size_t i = 0; i < 2; i++) {
            json_t *cell = port_cell(run, "web", "db", ports[i]);
            check_word(cell, "observed", "filtered");
            if (strcmp(text_at(cell, "arrived"), "no") == 0)
                fail_msg("it arrived: %s", text_at(cell, "evidence"));
        }
        json_decref(run);
    }
    assert_true(arrivals(mesh_of(state), "db", "tcp", 7014) > 0);
    assert_true(arrivals(mesh_of(state), "db", "tcp", 7015) > 0);
}

static void without_the_capability_a_low_port_stays_closed_and_says_so(void **state)
{
    mesh_t *mesh = mesh_of(state);
    struct outcome again = mesh_shell(mesh, 30,
        "$LAB kill db TERM; LAB_AGENT_UNDER='setpriv --bounding-set=-net_bind_service' $LAB agent "
        "db");
    if (again.status != 0)
        fail_msg("agent: %s", again.err);
    outcome_release(&again);
    mesh_wait_until(
        mesh, 20, "$LAB meshperf agent list -o csv | grep '^db,' | grep -Eq 'ready|busy'");
    int status;
    json_t *run = mesh_json(mesh, &status, 30,
        "run port -4 --from web --to db --port tcp/80 --port udp/80 --port tcp/7001 --attempts 3 "
        "--timeout 700ms");
    assert_int_equal(status, 0);
    static const char *const ports[] = {"tcp/80", "udp/80"};
    for (int i = 0; i < 2; i++) {
        json_t *cell = port_cell(run, "web", "db", ports[i]);
        check_word(cell, "observed", "refused");
        check_word(cell, "arrived", "unknown");
        check_word(cell, "listener", "none");
        assert_non_null(strstr(text_at(cell, "evidence"), "CAP_NET_BIND_SERVICE"));
    }
    check_word(port_cell(run, "web", "db", "tcp/7001"), "observed", "open");
    json_decref(run);
}

static void five_hundred_ports_of_a_pair_are_probed(void **state)
{
    int status;
    json_t *run = mesh_json(mesh_of(state), &status, 60,
        "run port --from web --to db --port tcp/20000-20249 --port udp/20000-20249 --rate 500");
    assert_int_equal(status, 0);
    assert_int_equal(count_cells(run, "ok"), 500);
    size_t index;
    json_t *cell;
    json_array_foreach(json_object_get(run, "cells"), index, cell)
        check_word(cell, "observed", "open");
    json_decref(run);
    struct outcome log = mesh_shell(mesh_of(state), 5,
        "grep -c 'listener is open: udp/20.*at' $DIR/agents/db/log; "
        "$LAB exec db ss -Hlntu | grep -c ':20[0-9][0-9][0-9] '");
    assert_string_equal(log.out, "250\n0\n");
    outcome_release(&log);
}

static json_t *walk(mesh_t *mesh, const char *flags)
{
    int status;
    json_t *run = mesh_json(mesh, &status, 60, "run path --from web --to office %s", flags);
    assert_int_equal(status, 0);
    return run;
}

static void check_hops(json_t *run, const char *router, const char *destination)
{
    json_t *cell = cell_of(run, "path", "web", "office"), *hops = json_object_get(cell, "hops");
    assert_true(json_is_true(json_object_get(cell, "reached")));
    assert_int_equal(json_array_size(hops), 2);
    assert_string_equal(text_at(json_array_get(hops, 0), "address"), router);
    assert_string_equal(text_at(json_array_get(hops, 1), "address"), destination);
    assert_true(number_at(json_array_get(hops, 0), "received") > 0);
    assert_true(json_is_true(json_object_get(json_array_get(hops, 1), "final")));
    assert_true(number_at(cell, "path_mtu") == 1500);
    assert_string_equal(text_at(cell, "black_hole"), "");
}

static void the_hops_of_a_path_are_named_in_both_families_by_udp_and_tcp(void **state)
{
    static const struct {
        const char *flags, *router, *destination;
    } walks[] = {{"-4", "10.83.1.254", "10.83.3.1"}, {"-6", "fd83:1::fe", "fd83:3::1"},
        {"-4 --via tcp", "10.83.1.254", "10.83.3.1"}};
    for (size_t i = 0; i < sizeof walks / sizeof *walks; i++) {
        json_t *run = walk(mesh_of(state), walks[i].flags);
        check_hops(run, walks[i].router, walks[i].destination);
        json_decref(run);
    }
}

// Ping sockets, where the kernel permits them to the agent's group.
static void icmp_walks_a_path_where_it_is_permitted_and_says_so_where_not(void **state)
{
    static const struct {
        const char *flags, *router, *destination;
    } walks[] = {{"-4 --via icmp", "10.83.1.254", "10.83.3.1"},
        {"-6 --via icmp", "fd83:1::fe", "fd83:3::1"}};
    int status;
    free(mesh_exec(mesh_of(state), "web", "sysctl -qw 'net.ipv4.ping_group_range=1 0'"));
    json_t *refused =
        mesh_json(mesh_of(state), &status, 60, "run path --from web --to office -4 --via icmp");
    json_t *cell = cell_of(refused, "path", "web", "office");
    check_word(cell, "state", "unsupported");
    assert_non_null(strstr(text_at(cell, "reason"), "icmp"));
    json_decref(refused);
    free(mesh_exec(mesh_of(state), "web", "sysctl -qw 'net.ipv4.ping_group_range=0 0'"));
    for (size_t i = 0; i < sizeof walks / sizeof *walks; i++) {
        json_t *run = walk(mesh_of(state), walks[i].flags);
        check_hops(run, walks[i].router, walks[i].destination);
        json_decref(run);
    }
}

// Large packets vanish in one direction without a word to anybody.
static void a_black_hole_is_found_with_its_direction(void **state)
{
    static const struct {
        const char *match, *direction;
    } holes[] = {{"ip saddr 10.83.1.1 ip daddr 10.83.3.1", "on the way there"},
        {"ip saddr 10.83.3.1 ip daddr 10.83.1.1", "on the way back"}};
    mesh_t *mesh = mesh_of(state);
    for (size_t i = 0; i < sizeof holes / sizeof *holes; i++) {
        free(mesh_exec(mesh, "router",
            "nft -f - <<< 'table inet hole { counter dropped { }; chain c { type filter hook "
            "forward "
            "priority 1; %s meta length 1281-1600 counter name dropped drop; }; }'",
            holes[i].match));
        json_t *run = walk(mesh, "-4");
        json_t *cell = cell_of(run, "path", "web", "office");
        if (!strstr(text_at(cell, "black_hole"), holes[i].direction))
            fail_msg("%s is not %s", text_at(cell, "black_hole"), holes[i].direction);
        assert_true(number_at(cell, "path_mtu") == 1280);
        json_decref(run);
        assert_true(mesh_packets(mesh, "router", "inet hole dropped") > 0);
        free(mesh_exec(mesh, "router", "nft delete table inet hole"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_observation_is_told_apart_over_ipv4),
        cmocka_unit_test(each_observation_is_told_apart_over_ipv6),
        cmocka_unit_test(a_service_keeps_its_port_and_hears_no_nonce),
        cmocka_unit_test(address_translation_shows_in_where_a_probe_is_seen_from),
        cmocka_unit_test(from_port_is_the_source_port_of_every_probe),
        cmocka_unit_test(replies_lost_behind_a_translation_are_no_passing_silence),
        cmocka_unit_test(a_crowd_of_other_connections_hides_no_arrival),
        cmocka_unit_test(replies_rejected_by_the_router_are_no_passing_silence),
        cmocka_unit_test(five_hundred_ports_of_a_pair_are_probed),
        cmocka_unit_test(the_hops_of_a_path_are_named_in_both_families_by_udp_and_tcp),
        cmocka_unit_test(icmp_walks_a_path_where_it_is_permitted_and_says_so_where_not),
        cmocka_unit_test(a_black_hole_is_found_with_its_direction),
        cmocka_unit_test(without_the_capability_a_low_port_stays_closed_and_says_so),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
