// --flow-check: a router that caps each connection by itself against a link that caps all of them.

#include <string.h>

#include "mesh.h"
#include "meshtest.h"

static int bring_up(void **state)
{
    *state = mesh_up("subnet flows 10.87.1.0/24\nhost s flows\nhost r flows\n", "");
    return 0;
}

static bool capped(json_t *cell)
{
    const char *subtype =
        json_string_value(json_object_get(json_object_get(cell, "limiter"), "subtype"));
    return subtype && strcmp(subtype, "flow_cap") == 0;
}

// What a cell says must follow from its own numbers, whatever the machine did to them.
static void assert_consistent(json_t *cell)
{
    if (!json_object_get(cell, "flow_check"))
        return;
    assert_true(number_at(cell, "flow_check.streams") == 8);
    if (!has_number(cell, "flow_check.gain"))
        return;
    assert_int_equal(capped(cell), number_at(cell, "flow_check.gain") > 1.5);
}

static bool is_capped(json_t *cell)
{
    assert_consistent(cell);
    return capped(cell);
}

static bool is_checked_and_not_capped(json_t *cell)
{
    assert_consistent(cell);
    return has_number(cell, "flow_check.gain") && !capped(cell);
}

#define CAP_BPS 8e6

static void eight_streams_get_eight_times_the_cap_of_each(void **state)
{
    json_t *cell;
    mesh_nft(*state, "router",
        "table netdev cap {\n"
        "set flows { typeof ip saddr . tcp sport; flags dynamic; timeout 30s; size 4096; }\n"
        "chain out { type filter hook egress device port2 priority 0;\n"
        "tcp dport 5701 update @flows { ip saddr . tcp sport limit rate over 1000 kbytes/second"
        " burst 32 kbytes } drop\n"
        "}\n}\n");
    json_t *run = mesh_measured(*state, is_capped, &cell, "tcp", "s", "r", "-4 -t 1s --flow-check");
    assert_true(capped(cell));
    assert_string_equal(text_at(cell, "limiter.verdict"), "network");
    // The cell's rate is that of the one stream; what a policer tears holes into is not exact in 1 s.
    assert_true(number_at(cell, "bandwidth_bps") < 2 * CAP_BPS);
    assert_true(number_at(cell, "flow_check.bandwidth_bps") < 2 * 8 * CAP_BPS);
    assert_true(
        number_at(cell, "flow_check.bandwidth_bps") > 1.5 * number_at(cell, "bandwidth_bps"));
    json_decref(run);
    free(mesh_exec(*state, "router", "nft delete table netdev cap"));
}

static void eight_streams_share_a_links_rate(void **state)
{
    json_t *cell;
    free(mesh_exec(
        *state, "router", "tc qdisc add dev port2 root tbf rate 20mbit burst 32k latency 50ms"));
    json_t *run = mesh_measured(
        *state, is_checked_and_not_capped, &cell, "tcp", "s", "r", "-4 -t 1s --flow-check");
    assert_true(is_checked_and_not_capped(cell));
    assert_true(number_at(cell, "flow_check.bandwidth_bps") < 1.2 * 20e6);
    json_decref(run);
    free(mesh_exec(*state, "router", "tc qdisc del dev port2 root"));
}

static void it_is_asked_for_where_it_makes_sense_and_planned_at_worst(void **state)
{
    static const char *const refused[] = {
        "tcp -P 2", "tcp -b 10M", "tcp --bidir", "tcp --mode duplex", "udp"};
    int status;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct outcome outcome = mesh_meshperf(*state, 20, "run %s --flow-check", refused[i]);
        assert_int_equal(outcome.status, 2);
        assert_string_equal(outcome.out, "");
        assert_non_null(strstr(outcome.err, "--flow-check"));
        outcome_release(&outcome);
    }
    json_t *usual = mesh_json(*state, &status, 20, "run tcp -t 2s --plan");
    json_t *plan = mesh_json(*state, &status, 20, "run tcp -t 2s --flow-check --plan");
    assert_true(number_at(plan, "tests") == number_at(usual, "tests"));
    assert_true(number_at(plan, "expected_s") >= number_at(usual, "expected_s") + 2 * 2);
    json_decref(usual);
    json_decref(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_streams_get_eight_times_the_cap_of_each),
        cmocka_unit_test(eight_streams_share_a_links_rate),
        cmocka_unit_test(it_is_asked_for_where_it_makes_sense_and_planned_at_worst),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
