// A small mesh with links that differ: does every cell say what the link really does, and does
// every command end with the status that the contract promises?

#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

static const char TOPOLOGY[] = "subnet left 10.81.1.0/24 fd81:1::/64\n"
                               "subnet right 10.81.2.0/24 fd81:2::/64\n"
                               "host fast.one left\n"
                               "host fast-2 left\n"
                               "host slow right rate=50mbit\n";

static int bring_up(void **state)
{
    *state = mesh_up(TOPOLOGY, "");
    return 0;
}

static void a_full_mesh_of_tcp_udp_and_latency_is_ok_in_every_cell(void **state)
{
    int status;
    json_t *run = mesh_json(*state, &status, 120, "run tcp udp latency -t 500ms -O 200ms");
    assert_int_equal(status, 0);
    assert_string_equal(text_at(run, "schema"), "meshperf.run/1");
    assert_string_equal(text_at(run, "run.state"), "finished");
    assert_int_equal(count_cells(run, NULL), 3 * 6);
    assert_int_equal(count_cells(run, "ok"), 3 * 6);
    json_decref(run);
}

// 1448 or 1428 bytes of payload in 1514 bytes that the shaper counts.
#define GOODPUT4 (50e6 * 1448 / 1514)
#define GOODPUT6 (50e6 * 1428 / 1514)

static bool reads_ipv4(json_t *cell)
{
    return is_close(number_at(cell, "bandwidth_bps"), GOODPUT4, 0.02);
}

static bool reads_ipv6(json_t *cell)
{
    return is_close(number_at(cell, "bandwidth_bps"), GOODPUT6, 0.02);
}

static bool keeps_20m(json_t *cell)
{
    return is_close(number_at(cell, "bandwidth_bps"), 20e6, 0.002);
}

static void tcp_over_a_shaped_link_reads_what_its_headers_leave_of_the_rate(void **state)
{
    json_t *cell,
        *run = mesh_measured(*state, reads_ipv4, &cell, "tcp", "fast-2", "slow", "-t 3s -4");
    assert_close(number_at(cell, "bandwidth_bps"), GOODPUT4, 0.02, "goodput");
    assert_true(number_at(cell, "duration_s") > 2.9);
    assert_string_equal(text_at(cell, "limiter.verdict"), "network");
    json_decref(run);
}

static void the_reverse_direction_and_ipv6_are_shaped_too(void **state)
{
    json_t *cell,
        *run = mesh_measured(*state, reads_ipv6, &cell, "tcp", "slow", "fast.one", "-t 2s -6");
    assert_close(number_at(cell, "bandwidth_bps"), GOODPUT6, 0.02, "goodput");
    json_decref(run);
}

static void a_udp_rate_below_the_link_arrives_whole(void **state)
{
    json_t *cell,
        *run = mesh_measured(*state, keeps_20m, &cell, "udp", "fast-2", "slow", "-b 20M -t 2s");
    assert_close(number_at(cell, "bandwidth_bps"), 20e6, 0.002, "udp rate");
    assert_true(number_at(cell, "packets.lost_network") == 0);
    assert_true(number_at(cell, "loss_ratio") == 0);
    assert_true(number_at(cell, "packets.sent") == number_at(cell, "packets.received"));
    json_decref(run);
}

static void intervals_add_up_to_the_window(void **state)
{
    int status;
    json_t *run =
        mesh_json(*state, &status, 60, "run tcp udp -b 10M -t 1s -i 250ms --from fast-2 --to slow");
    assert_int_equal(status, 0);
    const char *tests[] = {"tcp", "udp"};
    for (unsigned i = 0; i < 2; i++) {
        json_t *cell = cell_of(run, tests[i], "fast-2", "slow"), *interval;
        json_t *intervals = json_object_get(cell, "intervals");
        size_t index;
        double bytes = 0;
        assert_in_range(json_array_size(intervals), 1, 4); // fewer where nobody looked for a while
        json_array_foreach(intervals, index, interval) bytes +=
            number_at(interval, "bandwidth_bps") * number_at(interval, "duration_s") / 8;
        assert_close(bytes, number_at(cell, "bytes"), 0.02, "bytes of the intervals");
    }
    json_decref(run);
}

static void bidir_measures_a_pair_at_once_and_fills_both_cells(void **state)
{
    int status;
    json_t *run =
        mesh_json(*state, &status, 60, "run tcp --bidir -b 10M -t 1s --from 'fast*' --to 'fast*'");
    assert_int_equal(status, 0);
    assert_int_equal(count_cells(run, NULL), 2);
    assert_close(number_at(cell_of(run, "tcp", "fast.one", "fast-2"), "bandwidth_bps"), 10e6, 0.05,
        "one way");
    assert_close(number_at(cell_of(run, "tcp", "fast-2", "fast.one"), "bandwidth_bps"), 10e6, 0.05,
        "other way");
    json_decref(run);
}

static void the_receiver_may_open_the_connection(void **state)
{
    int status;
    json_t *run = mesh_json(*state, &status, 60,
        "run tcp udp -b 5M -t 500ms --reverse-connect -P 3 --from fast-2 --to fast.one");
    assert_int_equal(status, 0);
    assert_int_equal(count_cells(run, "ok"), 2);
    json_decref(run);
}

static void a_kept_run_prints_again_in_every_format(void **state)
{
    int status;
    json_t *run = mesh_json(*state, &status, 60, "run udp -t 200ms");
    assert_int_equal(status, 0);
    const char *id = text_at(run, "run.id");
    static const char *const formats[] = {"table", "wide", "json", "jsonl", "csv", "md"};
    for (unsigned i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct outcome shown = mesh_meshperf(*state, 20, "show %s -o %s", id, formats[i]);
        assert_int_equal(shown.status, 0);
        assert_non_null(strstr(shown.out, "fast.one"));
        outcome_release(&shown);
    }
    json_t *again = mesh_json(*state, &status, 20, "show last");
    assert_true(json_equal(json_object_get(run, "cells"), json_object_get(again, "cells")));
    json_decref(again);
    json_decref(run);
}

static void an_export_is_the_same_document(void **state)
{
    struct outcome made = mesh_shell(*state, 60,
        "$LAB meshperf run latency -t 300ms -q >/dev/null && cd $DIR && "
        "for e in json jsonl csv md; do $LAB meshperf export --to x.$e || exit 9; done && "
        "$LAB meshperf show -o json | cmp - x.json && $LAB meshperf show -o csv | cmp - x.csv");
    if (made.status != 0)
        fail_msg("status %d\n%s\n%s", made.status, made.out, made.err);
    outcome_release(&made);
}

static void a_plan_counts_pairs_and_time_and_starts_nothing(void **state)
{
    int status;
    json_t *before = mesh_json(*state, &status, 10, "runs");
    json_t *plan = mesh_json(*state, &status, 10, "run udp -b 1M -t 2s --plan");
    assert_int_equal(status, 0);
    assert_string_equal(text_at(plan, "schema"), "meshperf.plan/1");
    assert_true(number_at(plan, "pairs") == 6);
    assert_true(number_at(plan, "lower_bound_s") >= 12); // three hosts: one pair at a time
    assert_true(number_at(plan, "expected_s") >= number_at(plan, "lower_bound_s"));
    assert_close(number_at(plan, "bytes_max"), 6 * 2 * 1e6 / 8, 0.05, "bytes");
    json_t *after = mesh_json(*state, &status, 10, "runs");
    assert_int_equal(json_array_size(json_object_get(before, "runs")),
        json_array_size(json_object_get(after, "runs")));
    json_decref(after);
    json_decref(plan);
    json_decref(before);
}

static void a_detached_run_is_watched_to_its_end(void **state)
{
    struct outcome detached = mesh_meshperf(*state, 20, "run udp -t 1s --detach");
    assert_int_equal(detached.status, 0);
    detached.out[strcspn(detached.out, "\n")] = '\0';
    struct outcome watched = mesh_meshperf(*state, 60, "watch %s", detached.out);
    assert_int_equal(watched.status, 0);
    outcome_release(&watched);
    outcome_release(&detached);
}

static void a_cancelled_run_keeps_what_it_has_and_exits_5(void **state)
{
    task_t *task = mesh_start(*state, "$LAB meshperf -o json run udp -t 3s");
    mesh_wait_until(*state, 20, "$LAB meshperf -o json show | grep -q '\"state\":\"running\"'");
    struct outcome cancelled = mesh_meshperf(*state, 10, "cancel last");
    assert_int_equal(cancelled.status, 0);
    struct outcome ended = task_wait(&task, 20);
    assert_int_equal(ended.status, 5);
    json_t *run = json_loads(ended.out, 0, NULL);
    assert_non_null(run);
    assert_string_equal(text_at(run, "run.state"), "cancelled");
    assert_int_equal(count_cells(run, "pending") + count_cells(run, "running"), 0);
    json_decref(run);
    outcome_release(&ended);
    outcome_release(&cancelled);
}

static void jsonl_is_a_stream_closed_by_end(void **state)
{
    struct outcome stream = mesh_meshperf(*state, 60, "-o jsonl run udp -t 500ms -i 100ms");
    assert_int_equal(stream.status, 0);
    unsigned results = 0;
    char *rest = stream.out, *line;
    json_t *last = NULL;
    while ((line = strsep(&rest, "\n")) && *line) {
        json_decref(last);
        last = json_loads(line, 0, NULL);
        assert_non_null(last);
        results += strcmp(text_at(last, "event"), "result") == 0;
    }
    assert_int_equal(results, 6);
    assert_string_equal(text_at(last, "event"), "end");
    json_decref(last);
    outcome_release(&stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_mesh_of_tcp_udp_and_latency_is_ok_in_every_cell),
        cmocka_unit_test(tcp_over_a_shaped_link_reads_what_its_headers_leave_of_the_rate),
        cmocka_unit_test(the_reverse_direction_and_ipv6_are_shaped_too),
        cmocka_unit_test(a_udp_rate_below_the_link_arrives_whole),
        cmocka_unit_test(intervals_add_up_to_the_window),
        cmocka_unit_test(bidir_measures_a_pair_at_once_and_fills_both_cells),
        cmocka_unit_test(the_receiver_may_open_the_connection),
        cmocka_unit_test(a_kept_run_prints_again_in_every_format),
        cmocka_unit_test(an_export_is_the_same_document),
        cmocka_unit_test(a_plan_counts_pairs_and_time_and_starts_nothing),
        cmocka_unit_test(a_detached_run_is_watched_to_its_end),
        cmocka_unit_test(a_cancelled_run_keeps_what_it_has_and_exits_5),
        cmocka_unit_test(jsonl_is_a_stream_closed_by_end),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
