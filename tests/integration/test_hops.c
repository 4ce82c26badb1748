// Several routers in a row: the hops of a path with their loss, a link in the middle that takes
// less than the others, with and without a word of it, and where the probes of silent ports end.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

// web - router - mid - low - db; the link from mid to low is narrow.
static const char TOPOLOGY[] = "subnet web 10.86.1.0/24 fd86:1::/64\n"
                               "subnet one 10.86.2.0/24 fd86:2::/64\n"
                               "host web web\n"
                               "host mid one\n"
                               "subnet two 10.86.3.0/24 fd86:3::/64 gateway=mid\n"
                               "host low two mtu=1400\n"
                               "subnet deep 10.86.4.0/24 fd86:4::/64 gateway=low\n"
                               "host db deep\n";

enum { HOPS = 4, NARROW = 1400 };
static const char *const hops4[HOPS] = {"10.86.1.254", "10.86.2.1", "10.86.3.1", "10.86.4.1"};
static const char *const hops6[HOPS] = {"fd86:1::fe", "fd86:2::1", "fd86:3::1", "fd86:4::1"};

static mesh_t *mesh_of(void **state)
{
    return *state;
}

static int bring_up(void **state)
{
    static const char *const routers[] = {"router", "mid", "low"};
    mesh_t *mesh = mesh_up(TOPOLOGY, "");
    *state = mesh;
    // Otherwise a router answers few of several probes.
    for (size_t i = 0; i < sizeof routers / sizeof *routers; i++)
        free(mesh_exec(mesh, routers[i],
            "sysctl -qw net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_ratelimit=0 "
            "net.ipv4.icmp_msgs_per_sec=10000 net.ipv4.icmp_msgs_burst=1000"));
    free(mesh_exec(mesh, "web", "sysctl -qw 'net.ipv4.ping_group_range=0 0'"));
    return 0;
}

static json_t *walk(mesh_t *mesh, const char *flags)
{
    int status;
    json_t *run = mesh_json(mesh, &status, 60, "run path --from web --to db %s", flags);
    assert_int_equal(status, 0);
    return run;
}

static json_t *path_of(json_t *run)
{
    return cell_of(run, "path", "web", "db");
}

static void forget_rules(mesh_t *mesh, const char *host)
{
    free(mesh_exec(mesh, host, "nft delete table inet test"));
}

// A rule in a chain of its own.
static void rule(mesh_t *mesh, const char *host, const char *hook, const char *text)
{
    free(mesh_exec(mesh, host,
        "nft -f - <<< 'table inet test { }; delete table inet test; table inet test { counter hits "
        "{ }; chain c { type filter hook %s priority "
        "0; %s; }; }'",
        hook, text));
}

static void check_order(json_t *cell, const char *const *addresses)
{
    json_t *hops = json_object_get(cell, "hops");
    assert_true(json_is_true(json_object_get(cell, "reached")));
    assert_int_equal(json_array_size(hops), HOPS);
    for (size_t i = 0; i < HOPS; i++) {
        json_t *hop = json_array_get(hops, i);
        assert_string_equal(text_at(hop, "address"), addresses[i]);
        assert_true(number_at(hop, "received") > 0);
        assert_true(number_at(hop, "received") <= number_at(hop, "sent"));
        assert_true(number_at(hop, "rtt_s.min") > 0);
        assert_true(number_at(hop, "rtt_s.min") <= number_at(hop, "rtt_s.mean"));
        assert_true(number_at(hop, "rtt_s.mean") <= number_at(hop, "rtt_s.max"));
        assert_int_equal(json_is_true(json_object_get(hop, "final")), i == HOPS - 1);
    }
    assert_true(number_at(cell, "path_mtu") == NARROW);
    assert_string_equal(text_at(cell, "black_hole"), "");
}

static void each_hop_is_named_in_order_by_udp_tcp_and_icmp(void **state)
{
    static const char *const ways[] = {"udp", "tcp", "icmp"};
    for (size_t i = 0; i < 3; i++)
        for (int six = 0; six < 2; six++) {
            char flags[32];
            snprintf(flags, sizeof flags, "-%d --via %s", six ? 6 : 4, ways[i]);
            json_t *run = walk(mesh_of(state), flags);
            check_order(path_of(run), six ? hops6 : hops4);
            json_decref(run);
        }
}

// Of the second router every answer but one is lost, of the third all.
static void what_a_hop_does_not_answer_is_its_loss_and_nobody_elses(void **state)
{
    mesh_t *mesh = mesh_of(state);
    rule(mesh, "mid", "output",
        "icmp type time-exceeded limit rate over 1/minute burst 1 packets drop");
    rule(mesh, "low", "output", "icmp type time-exceeded drop");
    json_t *run = walk(mesh, "-4 --attempts 4");
    json_t *hops = json_object_get(path_of(run), "hops");
    static const double answers[HOPS] = {4, 1, 0, 4};
    assert_int_equal(json_array_size(hops), HOPS);
    for (size_t i = 0; i < HOPS; i++) {
        assert_true(number_at(json_array_get(hops, i), "sent") == 4);
        assert_true(number_at(json_array_get(hops, i), "received") == answers[i]);
    }
    assert_true(json_is_true(json_object_get(path_of(run), "reached")));
    json_decref(run);
    forget_rules(mesh, "mid");
    forget_rules(mesh, "low");
}

static void the_router_before_a_narrow_link_is_named(void **state)
{
    for (int six = 0; six < 2; six++) {
        json_t *run = walk(mesh_of(state), six ? "-6" : "-4");
        json_t *hop = json_array_get(json_object_get(path_of(run), "hops"), 1);
        assert_string_equal(text_at(hop, "address"), (six ? hops6 : hops4)[1]);
        assert_true(number_at(hop, "mtu") == NARROW);
        json_decref(run);
    }
}

static void a_narrow_link_without_a_word_of_it_is_a_black_hole(void **state)
{
    static const char *const mute[] = {"icmp type destination-unreachable counter name hits drop",
        "icmpv6 type packet-too-big counter name hits drop"};
    mesh_t *mesh = mesh_of(state);
    for (int six = 0; six < 2; six++) {
        rule(mesh, "mid", "output", mute[six]);
        json_t *run = walk(mesh, six ? "-6" : "-4");
        json_t *cell = path_of(run);
        assert_true(number_at(cell, "path_mtu") == NARROW);
        if (!strstr(text_at(cell, "black_hole"), "1500 bytes vanish on the way there"))
            fail_msg("%s", text_at(cell, "black_hole"));
        json_decref(run);
        assert_true(mesh_packets(mesh, "mid", "inet test hits") > 0);
        forget_rules(mesh, "mid");
    }
}

// What is looked for once a port was silent must be found within a second; where the machine stands
// still for as long, once more.
static json_t *silent_ports(mesh_t *mesh, int family)
{
    for (int tries = 1;; tries++) {
        int status;
        size_t index, known = 0;
        json_t *cell;
        json_t *run = mesh_json(mesh, &status, 60,
            "run port -%d --from web --to db --port tcp/7001-7003 --port udp/7001-7003 "
            "--attempts 2 --timeout 700ms",
            family);
        assert_int_equal(count_cells(run, "ok"), 6);
        json_array_foreach(json_object_get(run, "cells"), index, cell) known +=
            *text_at(cell, "last_hop") != '\0';
        if (known == 6 || tries == 3)
            return run;
        json_decref(run);
    }
}

static void check_end(json_t *cell, const char *const *addresses)
{
    unsigned hop = (unsigned)atoi(text_at(cell, "port") + 4) - 7001;
    char at[64];
    snprintf(at, sizeof at, "is %s, at %u", addresses[hop], hop + 1);
    assert_string_equal(text_at(cell, "observed"), "filtered");
    assert_string_equal(text_at(cell, "last_hop"), addresses[hop]);
    assert_non_null(strstr(text_at(cell, "evidence"), at));
}

// Each router swallows one port: the last to answer on the way there is that router.
static void the_probes_of_a_silent_port_end_at_the_router_that_drops_them(void **state)
{
    static const char *const routers[] = {"router", "mid", "low"};
    mesh_t *mesh = mesh_of(state);
    for (unsigned i = 0; i < 3; i++) {
        char text[96];
        snprintf(text, sizeof text, "meta l4proto {tcp, udp} th dport %u drop", 7001 + i);
        rule(mesh, routers[i], "forward", text);
    }
    for (int six = 0; six < 2; six++) {
        json_t *run = silent_ports(mesh, six ? 6 : 4);
        size_t index;
        json_t *cell;
        json_array_foreach(json_object_get(run, "cells"), index, cell)
            check_end(cell, six ? hops6 : hops4);
        json_decref(run);
    }
    for (unsigned i = 0; i < 3; i++)
        forget_rules(mesh, routers[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_hop_is_named_in_order_by_udp_tcp_and_icmp),
        cmocka_unit_test(what_a_hop_does_not_answer_is_its_loss_and_nobody_elses),
        cmocka_unit_test(the_router_before_a_narrow_link_is_named),
        cmocka_unit_test(a_narrow_link_without_a_word_of_it_is_a_black_hole),
        cmocka_unit_test(the_probes_of_a_silent_port_end_at_the_router_that_drops_them),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
