// Batches of port probes: listeners first, then probes, then what both ends found; and agents that
// go away in between.

#include <czmq.h>

#include "director_bench.h"
#include "meshtest.h"
#include "planner.h"

static void start_ports(
    struct mesh *mesh, uint32_t first, uint32_t last, double rate, char run[DIRECTOR_RUN_ID_SIZE])
{
    Mp__RunRequest request = MP__RUN_REQUEST__INIT;
    Mp__TestSpec spec = MP__TEST_SPEC__INIT, *specs[1] = {&spec};
    Mp__PortRange range = MP__PORT_RANGE__INIT, *ranges[1] = {&range};
    struct director_refusal refusal;
    spec.kind = MP__TEST_KIND__PORT;
    spec.duration_ns = spec.interval_ns = NS_PER_S;
    spec.has_attempts = spec.has_timeout_ns = spec.has_agent_rate = true;
    spec.attempts = 1;
    spec.timeout_ns = NS_PER_S;
    spec.agent_rate = rate;
    range.transport = MP__TRANSPORT__OVER_TCP;
    range.first = first;
    range.last = last;
    request.tests = specs;
    request.n_tests = 1;
    request.ports = ranges;
    request.n_ports = 1;
    if (director_start(mesh->director, &request, "tester", run, &refusal) != 0)
        fail_msg("refused: %s", refusal.text);
}

static void listeners_open_before_probes_go_and_close_after_them(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->observed = MP__OBSERVED__OBSERVED_FILTERED;
    start_ports(mesh, 22, 24, 200, run);
    mesh_pass(mesh, 30 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 4 * 3 * 3);
    assert_int_equal(mesh->opens, 4); // one message an agent for each step
    assert_int_equal(mesh->goes, 4);
    assert_int_equal(mesh->closes, 4);
    assert_string_equal(mesh->kept[0]->observed, "filtered");
    assert_string_equal(mesh->kept[0]->arrived, "no");
    assert_string_equal(mesh->kept[0]->port, "tcp/22");
    assert_string_equal(mesh->kept[2]->port, "tcp/24");
    assert_true(mesh->kept[0]->alive);
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void an_agent_probes_no_more_in_a_batch_than_its_rate_allows(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->observed = MP__OBSERVED__OBSERVED_OPEN;
    start_ports(mesh, 1000, 1199, 50, run);
    mesh_pass(mesh, 300 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 3 * 2 * 200);
    assert_int_equal(mesh->most_probes, 50);
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void who_probes_a_service_is_told_to_say_nothing(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->service = true;
    mesh->observed = MP__OBSERVED__OBSERVED_ACCEPTED;
    start_ports(mesh, 22, 23, 200, run);
    mesh_pass(mesh, 30 * NS_PER_S);
    assert_int_equal(mesh->told_services, 4);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 4);
    mesh_free(&mesh);
}

// The one that must never pass for a block: silence, and nobody there to say that nothing arrived.
static void a_destination_that_dies_with_open_listeners_proves_nothing(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->observed = MP__OBSERVED__OBSERVED_FILTERED;
    mesh->dies[2] = true;
    start_ports(mesh, 22, 22, 200, run);
    mesh_pass(mesh, 6 * NS_PER_S);
    mesh_lose(mesh, 2); // its lease is over
    mesh_pass(mesh, 120 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    for (uint32_t i = 0; i < mesh->cells; i++) {
        assert_int_equal(mesh->states[i], MP__CELL_STATE__LOST);
        assert_null(mesh->kept[i]->arrived);
    }
    mesh_free(&mesh);
}

static void an_agent_that_is_removed_meanwhile_costs_its_own_cells_only(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->observed = MP__OBSERVED__OBSERVED_FILTERED;
    mesh->dies[2] = true;
    start_ports(mesh, 22, 22, 200, run);
    mesh_pass(mesh, NS_PER_S / 2);
    director_agent_removed(mesh->director, 2);
    mesh_pass(mesh, 120 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__LOST), 4);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 2);
    mesh_free(&mesh);
}

static void a_destination_that_lives_but_does_not_report_leaves_it_unknown(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->observed = MP__OBSERVED__OBSERVED_FILTERED;
    start_ports(mesh, 22, 22, 200, run);
    // Its results are kept back each time, until no retry is left.
    for (int i = 0; i < 60000 && !*mesh->ended; i++) {
        for (size_t k = 0; k < mesh->happening_count; k++)
            if (mesh->happenings[k].agent == 2 &&
                mesh->happenings[k].answer->body_case == MP__ENVELOPE__BODY_LIGHT_RESULT)
                mesh->happenings[k].due_ns = INT64_MAX / 2;
        mesh_pass(mesh, NS_PER_MS);
    }
    assert_string_equal(mesh->ended, run);
    bool seen = false;
    for (uint32_t i = 0; i < mesh->cells; i++) {
        if (mesh->places[i].to != 1 || mesh->states[i] != MP__CELL_STATE__OK)
            continue;
        seen = true;
        assert_string_equal(mesh->kept[i]->arrived, "unknown");
        assert_false(mesh->kept[i]->alive);
    }
    assert_true(seen);
    mesh_free(&mesh);
}

static void a_target_is_probed_without_an_agent(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(1);
    static const char *const names[] = {"h1"};
    static const struct plan_target printer = {
        .name = "printer", .addresses = {"10.9.0.7"}, .address_count = 1};
    static const struct port port = {MP__TRANSPORT__OVER_TCP, 631};
    static const struct plan_cell cell = {MP__TEST_KIND__PORT, 0, 1, 0, PORT_LISTENER_AGENT};
    struct plan_cells cells = {names, 1, &printer, 1, &port, 1, &cell, 1, false};
    Mp__RunRequest request = MP__RUN_REQUEST__INIT;
    Mp__TestSpec spec = MP__TEST_SPEC__INIT, *specs[1] = {&spec};
    struct director_refusal refusal;
    char run[DIRECTOR_RUN_ID_SIZE];
    spec.kind = MP__TEST_KIND__PORT;
    spec.duration_ns = spec.interval_ns = NS_PER_S;
    request.tests = specs;
    request.n_tests = 1;
    mesh->observed = MP__OBSERVED__OBSERVED_REFUSED;
    assert_int_equal(
        director_start_cells(mesh->director, &request, &cells, "tester", run, &refusal), 0);
    mesh_pass(mesh, 30 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 1);
    assert_int_equal(mesh->opens, 0);
    assert_int_equal(mesh->closes, 0);
    assert_string_equal(mesh->kept[0]->observed, "refused");
    assert_string_equal(mesh->kept[0]->arrived, "unknown");
    assert_true(mesh->port_arms[1]->light_arm->peers[0]->target);
    mesh_free(&mesh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listeners_open_before_probes_go_and_close_after_them),
        cmocka_unit_test(an_agent_probes_no_more_in_a_batch_than_its_rate_allows),
        cmocka_unit_test(who_probes_a_service_is_told_to_say_nothing),
        cmocka_unit_test(a_destination_that_dies_with_open_listeners_proves_nothing),
        cmocka_unit_test(an_agent_that_is_removed_meanwhile_costs_its_own_cells_only),
        cmocka_unit_test(a_destination_that_lives_but_does_not_report_leaves_it_unknown),
        cmocka_unit_test(a_target_is_probed_without_an_agent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
