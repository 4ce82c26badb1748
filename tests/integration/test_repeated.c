// A mesh measured several times, a controller killed in the second pass, and cells measured again
// alone after tests that went on beside each other.

#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

static int bring_up(void **state)
{
    char *topology = mesh_topology_plain(4);
    *state = mesh_up(topology, "");
    free(topology);
    return 0;
}

static json_t *pass_of(json_t *cell, size_t index)
{
    return json_array_get(json_object_get(cell, "passes"), index);
}

static void values_are_medians_of_the_passes(void **state)
{
    int status;
    size_t index;
    json_t *cell;
    json_t *plan =
        mesh_json(*state, &status, 20, "run udp latency -b 1M -t 200ms --passes 3 --plan");
    assert_true(number_at(plan, "tests") == 3 * 2 * 12);
    json_decref(plan);
    json_t *run = mesh_json(*state, &status, 90, "-q run udp latency -b 1M -t 200ms --passes 3");
    assert_int_equal(status, 0);
    assert_int_equal(count_cells(run, "ok"), 24);
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        const char *path =
            strcmp(text_at(cell, "test"), "udp") == 0 ? "bandwidth_bps" : "rtt_s.p50";
        double values[3], middle;
        assert_int_equal(json_array_size(json_object_get(cell, "passes")), 3);
        for (size_t i = 0; i < 3; i++) {
            assert_string_equal(text_at(pass_of(cell, i), "state"), "ok");
            assert_true(i == 0 || strcmp(text_at(pass_of(cell, i - 1), "started"),
                                      text_at(pass_of(cell, i), "started")) < 0);
            values[i] = number_at(pass_of(cell, i), path);
        }
        middle = number_at(cell, path);
        unsigned below = 0, above = 0;
        for (size_t i = 0; i < 3; i++) {
            below += values[i] <= middle;
            above += values[i] >= middle;
        }
        assert_true(below >= 2 && above >= 2);
        assert_true(has_number(cell, "spread.loss"));
    }
    json_decref(run);
    struct outcome wide = mesh_meshperf(*state, 20, "-o wide show");
    assert_non_null(strstr(wide.out, "SPREAD"));
    outcome_release(&wide);
    struct outcome pair = mesh_meshperf(*state, 20, "show --pair h1 h2");
    assert_non_null(strstr(pair.out, "passes:"));
    outcome_release(&pair);
}

// The first pass is over when a cell begins its second measurement; what was measured by then has
// to be there afterwards as it was.
static void a_controller_killed_in_the_second_pass_repeats_none_of_the_first(void **state)
{
    struct outcome detached =
        mesh_meshperf(*state, 20, "run udp -b 1M -t 500ms --passes 2 --detach");
    assert_int_equal(detached.status, 0);
    outcome_release(&detached);
    mesh_wait_until(*state, 60,
        "test $($LAB meshperf -o json show last | grep -o '\"results\":[0-9]*' | cut -d: -f2) -ge "
        "14");
    struct outcome killed = mesh_shell(*state, 30,
        "$LAB kill ctl && date -u +%%Y-%%m-%%dT%%H:%%M:%%S.%%3NZ && $LAB controller >/dev/null");
    assert_int_equal(killed.status, 0);
    killed.out[strcspn(killed.out, "\n")] = '\0';
    int status;
    size_t index;
    json_t *cell, *run = mesh_json(*state, &status, 90, "-q watch last");
    assert_int_equal(status, 0);
    assert_int_equal(count_cells(run, "ok"), 12);
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        assert_int_equal(json_array_size(json_object_get(cell, "passes")), 2);
        assert_true(strcmp(text_at(pass_of(cell, 0), "started"), killed.out) < 0);
    }
    json_decref(run);
    outcome_release(&killed);
}

static void after_tests_beside_each_other_the_bias_is_told(void **state)
{
    int status;
    size_t index, sampled = 0, worst = 0;
    json_t *cell;
    json_t *run =
        mesh_json(*state, &status, 60, "-q run udp -b 5M -t 200ms --mode concurrent --seed 7");
    assert_int_equal(status, 0);
    json_array_foreach(json_object_get(run, "cells"), index, cell)
    {
        json_t *recheck = json_object_get(cell, "recheck");
        if (!recheck)
            continue;
        sampled += json_is_true(json_object_get(recheck, "sampled"));
        worst += json_is_false(json_object_get(recheck, "sampled"));
        assert_string_equal(text_at(recheck, "state"), "ok");
        double bias = number_at(cell, "bandwidth_bps") / number_at(recheck, "bandwidth_bps") - 1;
        double told = number_at(recheck, "bias");
        assert_true(bias - told < 1e-6 && told - bias < 1e-6);
    }
    assert_int_equal(sampled, 1);
    assert_int_equal(worst, 1);
    json_t *summary = json_array_get(json_object_get(json_object_get(run, "run"), "recheck"), 0);
    assert_true(number_at(summary, "cells") == 2);
    assert_true(has_number(summary, "bias"));
    json_decref(run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_medians_of_the_passes),
        cmocka_unit_test(a_controller_killed_in_the_second_pass_repeats_none_of_the_first),
        cmocka_unit_test(after_tests_beside_each_other_the_bias_is_told),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
