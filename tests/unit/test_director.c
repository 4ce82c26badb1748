// Whole runs of the real director in a fake world (director_bench.h).

#include <czmq.h>

#include "clock.h"
#include "director_bench.h"
#include "errors.h"
#include "meshtest.h"
#include "testspec.h"

static const struct ask udp = {.kinds = {MP__TEST_KIND__UDP}, .count = 1};

static void a_complete_mesh_of_50_agents_is_measured_once_near_the_bound(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(50);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 300 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->cells, 2450);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 2450);
    assert_int_equal(mesh->starts, 2450);
    assert_int_equal(mesh->info->ok, 2450);
    assert_true(mesh->info->elapsed_s <= 1.05 * mesh->info->lower_bound_s + 0.2);
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void the_receivers_report_may_come_first(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->receiver_first = true;
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 12);
    mesh_free(&mesh);
}

static void bidir_fills_both_cells_with_one_test(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &(struct ask){.kinds = {MP__TEST_KIND__TCP}, .count = 1, .bidir = true}, run);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_int_equal(mesh->starts, 6);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 12);
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void light_probes_come_first_and_take_one_message_per_agent(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(6);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh,
        &(struct ask){.kinds = {MP__TEST_KIND__UDP, MP__TEST_KIND__LATENCY}, .count = 2}, run);
    mesh_pass(mesh, 500 * NS_PER_MS);
    assert_int_equal(mesh->arms, 6);
    assert_int_equal(mesh->prepares, 0);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_int_equal(mesh->arms, 6);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 60);
    assert_int_equal(mesh->places[0].kind, MP__TEST_KIND__LATENCY);
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void isolated_light_probes_run_pair_by_pair(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh,
        &(struct ask){.kinds = {MP__TEST_KIND__LATENCY}, .count = 1, .mode = MP__MODE__ISOLATED},
        run);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_int_equal(mesh->arms, 24);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 12);
    mesh_free(&mesh);
}

static void a_lost_agents_cells_are_lost_after_30_s_and_all_others_ok(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(5);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 500 * NS_PER_MS);
    mesh_lose(mesh, 3);
    mesh_pass(mesh, 29 * NS_PER_S);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 12);
    assert_string_equal(mesh->ended, "");
    mesh_pass(mesh, 2 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__LOST), 8);
    for (uint32_t i = 0; i < mesh->cells; i++)
        if (mesh->states[i] == MP__CELL_STATE__LOST)
            assert_non_null(strstr(mesh->reasons[i], "h3"));
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void an_agent_that_comes_back_in_time_costs_no_attempt(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(5);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 500 * NS_PER_MS);
    mesh_lose(mesh, 3);
    mesh_pass(mesh, 20 * NS_PER_S);
    mesh_come_back(mesh, 3, true);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 20);
    for (uint32_t i = 0; i < mesh->cells; i++)
        assert_int_equal(mesh->attempts[i], 1);
    mesh_free(&mesh);
}

static void a_lost_agent_in_a_light_phase_leaves_the_others_alone(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(5);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &(struct ask){.kinds = {MP__TEST_KIND__LATENCY}, .count = 1}, run);
    mesh_pass(mesh, 500 * NS_PER_MS);
    mesh_lose(mesh, 2);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 12);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__LOST), 8);
    mesh_free(&mesh);
}

static void probes_lost_by_a_dying_reflector_are_no_loss_of_the_path(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &(struct ask){.kinds = {MP__TEST_KIND__LATENCY}, .count = 1}, run);
    mesh_pass(mesh, 500 * NS_PER_MS);
    mesh->dead[3] = true; // nobody knows yet: its lease runs for seconds
    mesh_pass(mesh, 5 * NS_PER_S);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 9);
    mesh_lose(mesh, 3);
    mesh_pass(mesh, 40 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 9);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__LOST), 3);
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void a_removed_agents_cells_are_lost_at_once(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 500 * NS_PER_MS);
    registry_remove(mesh->registry, 2);
    director_agent_removed(mesh->director, 2);
    mesh_pass(mesh, 10 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__LOST), 6);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 6);
    mesh_free(&mesh);
}

static void a_drained_agents_remaining_cells_are_skipped(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 500 * NS_PER_MS);
    registry_by_id(mesh->registry, 1)->draining = true;
    director_agent_changed(mesh->director, 1);
    mesh_pass(mesh, 20 * NS_PER_S);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__SKIPPED), 5);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 7);
    mesh_free(&mesh);
}

static void a_failure_is_tried_again_once_and_then_said(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->fail_retry = true;
    mesh->fail_next[1] = 1;
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 30 * NS_PER_S);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 2);
    assert_int_equal(mesh->starts, 3);
    mesh->fail_next[1] = 100;
    memset(mesh->commits, 0, sizeof mesh->commits);
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 30 * NS_PER_S);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__FAILED), 2);
    assert_int_equal(mesh->attempts[0], 2);
    assert_non_null(strstr(mesh->reasons[0], "h1 (sender): the test says so"));
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void what_is_not_worth_a_retry_is_final(void **state)
{
    (void)state;
    static const struct {
        Mp__Outcome outcome;
        Mp__CellState state;
    } examples[] = {{MP__OUTCOME__OUTCOME_FAILED, MP__CELL_STATE__FAILED},
        {MP__OUTCOME__OUTCOME_UNSUPPORTED, MP__CELL_STATE__UNSUPPORTED},
        {MP__OUTCOME__OUTCOME_SKIPPED, MP__CELL_STATE__SKIPPED}};
    for (size_t i = 0; i < 3; i++) {
        struct mesh *mesh = mesh_new(2);
        char run[DIRECTOR_RUN_ID_SIZE];
        mesh->fail_next[2] = 100;
        mesh->fail_as = examples[i].outcome;
        mesh_start(mesh, &udp, run);
        mesh_pass(mesh, 30 * NS_PER_S);
        assert_int_equal(mesh_count(mesh, examples[i].state), 2);
        assert_int_equal(mesh->starts, 2);
        mesh_free(&mesh);
    }
}

static void silence_ends_in_words_and_frees_the_others(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->silent[2] = true;
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 200 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 2);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__FAILED), 4);
    for (uint32_t i = 0; i < mesh->cells; i++)
        if (mesh->states[i] == MP__CELL_STATE__FAILED)
            assert_non_null(strstr(mesh->reasons[i], "h2"));
    assert_true(mesh->stops > 0);
    mesh_free(&mesh);
}

static void a_dead_agents_failed_tests_become_lost_when_its_lease_ends(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    char run[DIRECTOR_RUN_ID_SIZE];
    // h2 dies: h1 sees its connection break, and thinks that no retry would help.
    mesh->dies[2] = true;
    mesh->fail_next[1] = 1;
    mesh_start(
        mesh, &(struct ask){.kinds = {MP__TEST_KIND__UDP}, .count = 1, .one_way = true}, run);
    mesh_pass(mesh, 9 * NS_PER_S);
    assert_int_equal(mesh->sent_reports[1], 1);
    assert_int_equal(mesh->saves, 0);
    mesh_lose(mesh, 2);
    mesh_pass(mesh, 31 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__LOST), 1);
    mesh_free(&mesh);
}

static void a_cancelled_run_stops_its_tests_and_ends(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 1500 * NS_PER_MS);
    assert_int_equal(director_cancel(mesh->director, run), 0);
    mesh_pass(mesh, NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->info->state, MP__RUN_STATE__CANCELLED);
    assert_true(mesh->stops >= 4);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 2);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__CELL_CANCELLED), 10);
    assert_int_equal(director_cancel(mesh->director, run), MESH_E_NOT_FOUND);
    mesh_pass(mesh, 5 * NS_PER_S);
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void a_result_that_nobody_asked_for_is_acknowledged(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    Mp__EndReport report = MP__END_REPORT__INIT;
    Mp__Result result = MP__RESULT__INIT;
    result.sequence = mesh->sequence[1] = 1;
    result.test_id = (ProtobufCBinaryData){16, (uint8_t *)"0123456789abcdef"};
    result.report = &report;
    director_result(mesh->director, 1, &result);
    assert_int_equal(mesh->done_reports[1], 1);
    mesh_free(&mesh);
}

static void a_store_that_fails_delays_the_end_but_measures_nothing_twice(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, run);
    mesh->store_error = -ENOSPC;
    director_storage(mesh->director, "the disk is full");
    mesh_pass(mesh, 30 * NS_PER_S);
    assert_string_equal(mesh->ended, "");
    assert_int_equal(mesh->starts, 6);
    assert_int_equal(mesh->done_reports[1], 0);
    struct director_refusal refusal;
    Mp__RunRequest request = MP__RUN_REQUEST__INIT;
    assert_int_equal(
        director_start(mesh->director, &request, "tester", run, &refusal), MESH_E_REFUSED);
    assert_int_equal(refusal.code, MP__REFUSED__CODE__STORAGE);
    mesh->store_error = 0;
    director_storage(mesh->director, NULL);
    mesh_pass(mesh, 10 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->starts, 6);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 6);
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void a_killed_controllers_run_goes_on_without_measuring_twice(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 2500 * NS_PER_MS);
    uint32_t before = mesh_count(mesh, MP__CELL_STATE__OK);
    assert_int_equal(before, 4);
    bool done[12];
    Mp__RunAgent *agents[4], copies[4];
    for (uint32_t i = 0; i < 12; i++)
        done[i] = mesh->commits[i] == 1;
    for (uint32_t i = 0; i < 4; i++) {
        mp__run_agent__init(&copies[i]);
        copies[i].name = registry_by_id(mesh->registry, mesh->ids[i])->name;
        agents[i] = &copies[i];
        registry_by_id(mesh->registry, i + 1)->seen_mono_ns = 0;
        registry_by_id(mesh->registry, i + 1)->lost_mono_ns = mesh->now_ns;
    }
    director_destroy(&mesh->director);
    mesh->saving_count = 0;
    mesh_open_director(mesh);
    assert_int_equal(
        director_resume(mesh->director, mesh->info, agents, mesh->ids, mesh->places, done), 0);
    mesh_pass(mesh, 5 * NS_PER_S);
    for (uint32_t i = 1; i <= 3; i++)
        mesh_come_back(mesh, i, false);
    mesh_pass(mesh, 50 * NS_PER_S);
    assert_string_equal(mesh->ended, "");
    mesh_pass(mesh, 10 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(mesh->commits[i], 1);
        bool with_4 = mesh->places[i].from == 3 || mesh->places[i].to == 3;
        if (!done[i])
            assert_int_equal(mesh->states[i], with_4 ? MP__CELL_STATE__LOST : MP__CELL_STATE__OK);
    }
    mesh_free(&mesh);
}

static void two_runs_share_hosts_in_order_of_their_start(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(2);
    char first[DIRECTOR_RUN_ID_SIZE], second[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, first);
    mesh_start(mesh, &udp, second);
    mesh_pass(mesh, 500 * NS_PER_MS);
    assert_int_equal(director_info(mesh->director, first)->state, MP__RUN_STATE__RUNNING);
    assert_int_equal(director_info(mesh->director, second)->state, MP__RUN_STATE__QUEUED);
    assert_int_equal(mesh->starts, 1);
    mesh_pass(mesh, 20 * NS_PER_S);
    assert_string_equal(mesh->ended, second);
    assert_int_equal(mesh->starts, 4);
    mesh_free(&mesh);
}

static void a_concurrent_run_has_the_mesh_to_itself(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char first[DIRECTOR_RUN_ID_SIZE], second[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, first);
    struct ask all = {.kinds = {MP__TEST_KIND__UDP}, .count = 1, .mode = MP__MODE__CONCURRENT};
    mesh_start(mesh, &all, second);
    mesh_pass(mesh, 5900 * NS_PER_MS);
    assert_int_equal(director_info(mesh->director, second)->state, MP__RUN_STATE__QUEUED);
    mesh_pass(mesh, 6 * NS_PER_S);
    assert_string_equal(mesh->ended, second);
    // And two again alone.
    assert_int_equal(mesh->starts, 26);
    mesh_free(&mesh);
}

static void the_whole_mesh_is_measured_as_often_as_passes_are_asked_for(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    struct ask ask = {
        .kinds = {MP__TEST_KIND__TCP, MP__TEST_KIND__LATENCY}, .count = 2, .passes = 3};
    char run[DIRECTOR_RUN_ID_SIZE];
    for (size_t i = 0; i < 36; i++)
        mesh->bps[i] = i < 12 ? 3e6 : i < 24 ? 1e6 : 2e6;
    mesh->bps_count = 36;
    mesh_start(mesh, &ask, run);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->starts, 36);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 24);
    assert_int_equal(mesh->info->ok, 24);
    assert_int_equal(mesh->info->done, 24);
    assert_int_equal(mesh->info->results, 72);
    for (uint32_t i = 0; i < mesh->cells; i++) {
        const Mp__Cell *cell = mesh->kept[i];
        assert_int_equal(mesh->commits[i], 1);
        assert_int_equal(mesh->partial[i], 2);
        assert_int_equal(cell->n_passes, 3);
        if (cell->kind != MP__TEST_KIND__TCP)
            continue;
        // No cell was measured a second time before all had been once.
        assert_true(cell->passes[0]->bandwidth_bps == 3e6);
        assert_true(cell->passes[2]->bandwidth_bps == 2e6);
        assert_true(cell->bandwidth_bps == 2e6);
        assert_true(cell->spread->bandwidth == 1);
    }
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

// What the controller's next life finds in its store.
static void open_again(struct mesh *mesh, uint32_t agents)
{
    bool done[CELLS_MAX];
    Mp__RunAgent *list[AGENTS_MAX], copies[AGENTS_MAX];
    for (uint32_t i = 0; i < mesh->cells; i++)
        done[i] = mesh->commits[i] > 0;
    for (uint32_t i = 0; i < agents; i++) {
        mp__run_agent__init(&copies[i]);
        copies[i].name = registry_by_id(mesh->registry, mesh->ids[i])->name;
        list[i] = &copies[i];
    }
    mesh->info->ok = mesh_count(mesh, MP__CELL_STATE__OK); // the store counts them again
    director_destroy(&mesh->director);
    mesh->saving_count = 0;
    mesh_open_director(mesh);
    assert_true(director_wants_cells(mesh->info));
    assert_int_equal(
        director_resume(mesh->director, mesh->info, list, mesh->ids, mesh->places, done), 0);
    for (uint32_t i = 0; i < mesh->cells; i++)
        if (mesh->commits[i] + mesh->partial[i] > 0)
            director_resume_cell(mesh->director, mesh->info->id, mesh->kept[i]);
    // As from dead sessions, new ones.
    for (uint32_t i = 1; i <= agents; i++)
        mesh_come_back(mesh, i, true);
}

static void a_killed_controllers_passes_that_are_over_are_not_measured_again(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    struct ask ask = {.kinds = {MP__TEST_KIND__UDP}, .count = 1, .passes = 2};
    mesh_start(mesh, &ask, run);
    // Six rounds of two tests make a pass; the second one is under way.
    mesh_pass(mesh, 8700 * NS_PER_MS);
    uint32_t over = 0;
    for (uint32_t i = 0; i < mesh->cells; i++)
        over += mesh->partial[i] + mesh->commits[i];
    assert_true(over > 12 && over < 24);
    uint32_t starts = mesh->starts;
    open_again(mesh, 4);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->starts - starts, 24 - over);
    for (uint32_t i = 0; i < mesh->cells; i++) {
        assert_int_equal(mesh->commits[i], 1);
        assert_int_equal(mesh->partial[i], 1);
        assert_int_equal(mesh->kept[i]->n_passes, 2);
    }
    mesh_free(&mesh);
}

static void a_cancelled_run_keeps_the_passes_that_it_has(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    struct ask ask = {.kinds = {MP__TEST_KIND__UDP}, .count = 1, .passes = 3};
    mesh_start(mesh, &ask, run);
    mesh_pass(mesh, 8700 * NS_PER_MS);
    assert_int_equal(director_cancel(mesh->director, run), 0);
    mesh_pass(mesh, 10 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    for (uint32_t i = 0; i < mesh->cells; i++) {
        assert_int_equal(mesh->commits[i], 1);
        assert_int_equal(mesh->states[i], MP__CELL_STATE__CELL_CANCELLED);
        assert_true(mesh->kept[i]->bandwidth_bps == 1e6);
        assert_true(mesh->kept[i]->n_passes >= 2);
    }
    mesh_free(&mesh);
}

static uint32_t rechecked(const struct mesh *mesh, bool sampled)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < mesh->cells; i++)
        count += mesh->kept[i]->recheck && mesh->kept[i]->recheck->sampled == sampled;
    return count;
}

static void after_tests_beside_each_other_some_cells_are_measured_again_alone(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(10);
    char run[DIRECTOR_RUN_ID_SIZE];
    struct ask ask = {.kinds = {MP__TEST_KIND__TCP}, .count = 1, .mode = MP__MODE__DUPLEX};
    mesh_start(mesh, &ask, run);
    // In the run all read 1 Mbit/s, alone 2.
    while (mesh->starts < 90)
        mesh_pass(mesh, 100 * NS_PER_MS);
    mesh_pass(mesh, 900 * NS_PER_MS);
    mesh->bps[0] = 2e6;
    mesh->bps_count = 1;
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(rechecked(mesh, true), 2);
    assert_int_equal(rechecked(mesh, false), 1);
    assert_int_equal(mesh->starts, 93);
    assert_int_equal(mesh->info->ok, 90);
    assert_int_equal(mesh->info->n_rechecks, 1);
    assert_true(mesh->info->rechecks[0]->bias == -0.5);
    assert_true(mesh->info->rechecks[0]->bias_worst == -0.5);
    assert_non_null(strstr(mesh->info->notes[mesh->info->n_notes - 1], "50.0 % less"));
    for (uint32_t i = 0; i < mesh->cells; i++) {
        assert_int_equal(mesh->commits[i], 1);
        assert_true(mesh->kept[i]->bandwidth_bps == 1e6);
    }
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void what_is_measured_alone_goes_on_after_a_restart_and_loses_no_cell(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    struct ask ask = {.kinds = {MP__TEST_KIND__TCP}, .count = 1, .mode = MP__MODE__DUPLEX};
    mesh_start(mesh, &ask, run);
    while (mesh->starts < 13)
        mesh_pass(mesh, 100 * NS_PER_MS);
    open_again(mesh, 4);
    mesh_pass(mesh, 300 * NS_PER_MS);
    // A pair that is not there any more keeps what it read.
    const struct cell_place *place = NULL;
    for (uint32_t i = 0; i < mesh->cells; i++)
        if (!mesh->kept[i]->recheck)
            place = &mesh->places[i];
    mesh_lose(mesh, place->from + 1);
    mesh_pass(mesh, 120 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 12);
    assert_int_equal(rechecked(mesh, true), 1);
    assert_int_equal(rechecked(mesh, false), 1);
    assert_int_equal(mesh->info->ok, 12);
    mesh_free(&mesh);
}

static const struct ask flows = {.kinds = {MP__TEST_KIND__TCP}, .count = 1, .flow_check = true};

static void assert_flows(const struct mesh *mesh, uint32_t cells, double gain)
{
    uint32_t checked = 0;
    for (uint32_t i = 0; i < mesh->cells; i++) {
        const Mp__Cell *cell = mesh->kept[i];
        assert_int_equal(mesh->commits[i], 1);
        if (!cell->flow_check)
            continue;
        checked++;
        assert_true(cell->bandwidth_bps == 1e6);
        assert_int_equal(cell->flow_check->streams, 8);
        assert_true(cell->flow_check->gain == gain);
        assert_int_equal(
            cell->limiter->subtype && strcmp(cell->limiter->subtype, "flow_cap") == 0, gain > 1.5);
    }
    assert_int_equal(checked, cells);
}

static void cells_that_the_network_limits_are_measured_once_more_with_eight_streams(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(6);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->network = true;
    mesh->gain = 4;
    mesh_start(mesh, &flows, run);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->starts, 60);
    assert_int_equal(mesh->many, 30);
    assert_int_equal(mesh->info->ok, 30);
    assert_int_equal(mesh->info->done, 30);
    assert_flows(mesh, 30, 4);
    assert_non_null(strstr(mesh->info->notes[mesh->info->n_notes - 1], "limited in 30"));
    // In the mode of the run: no host in two tests, and three of them at once.
    assert_true(mesh->info->elapsed_s >= 2 * 10 && mesh->info->elapsed_s < 2 * 10 * 1.1);
    mesh_assert_reports_done(mesh);
    mesh_free(&mesh);
}

static void what_the_network_does_not_limit_gets_no_second_test(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &flows, run);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->many, 0);
    assert_flows(mesh, 0, 0);
    mesh_free(&mesh);
}

static void flows_are_checked_once_after_the_last_pass(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    char run[DIRECTOR_RUN_ID_SIZE];
    struct ask ask = flows;
    ask.passes = 3;
    mesh->network = true;
    mesh->gain = 1.25;
    mesh_start(mesh, &ask, run);
    mesh_pass(mesh, 120 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->starts, 24);
    assert_int_equal(mesh->many, 6);
    assert_flows(mesh, 6, 1.25);
    for (uint32_t i = 0; i < mesh->cells; i++)
        assert_int_equal(mesh->kept[i]->n_passes, 3);
    mesh_free(&mesh);
}

static void a_restart_in_mid_check_checks_the_rest_and_repeats_nothing(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(6);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->network = true;
    mesh->gain = 2;
    mesh_start(mesh, &flows, run);
    while (mesh->starts < 30 + 12)
        mesh_pass(mesh, 100 * NS_PER_MS);
    uint32_t over = 0;
    for (uint32_t i = 0; i < mesh->cells; i++)
        over += mesh->kept[i]->flow_check != NULL;
    assert_true(over > 0 && over < 30);
    uint32_t starts = mesh->starts;
    open_again(mesh, 6);
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh->starts - starts, 30 - over);
    assert_int_equal(mesh->info->ok, 30);
    assert_flows(mesh, 30, 2);
    assert_non_null(strstr(mesh->info->notes[mesh->info->n_notes - 1], "limited in 30"));
    mesh_free(&mesh);
}

static void a_check_that_cannot_be_made_costs_no_cell(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(4);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh->network = true;
    mesh->gain = 2;
    mesh_start(mesh, &flows, run);
    while (mesh->many < 1)
        mesh_pass(mesh, 100 * NS_PER_MS);
    mesh_lose(mesh, 1);
    mesh_pass(mesh, 120 * NS_PER_S);
    assert_string_equal(mesh->ended, run);
    assert_int_equal(mesh_count(mesh, MP__CELL_STATE__OK), 12);
    assert_int_equal(mesh->info->ok, 12);
    uint32_t lost = 0;
    for (uint32_t i = 0; i < mesh->cells; i++) {
        assert_non_null(mesh->kept[i]->flow_check);
        lost += mesh->kept[i]->flow_check->state == MP__CELL_STATE__LOST;
        assert_true(mesh->kept[i]->bandwidth_bps == 1e6);
    }
    assert_true(lost >= 5 && lost <= 6);
    mesh_free(&mesh);
}

static void every_result_is_an_event_and_followers_may_come_late(void **state)
{
    (void)state;
    struct mesh *mesh = mesh_new(3);
    char run[DIRECTOR_RUN_ID_SIZE];
    mesh_start(mesh, &udp, run);
    mesh_pass(mesh, 10 * NS_PER_S);
    Mp__EventsAnswer answer;
    size_t results = 0;
    for (uint64_t since = 0;; since = answer.next) {
        assert_true(director_events(mesh->director, run, since, 2, &answer));
        assert_false(answer.gap);
        if (answer.n_events == 0)
            break;
        for (size_t i = 0; i < answer.n_events; i++)
            results += answer.events[i]->kind == MP__EVENT__KIND__RESULT;
    }
    assert_int_equal(results, 6);
    assert_int_equal(answer.info->state, MP__RUN_STATE__FINISHED);
    assert_null(director_info(mesh->director, run));
    mesh_pass(mesh, 60 * NS_PER_S);
    assert_false(director_events(mesh->director, run, 0, 2, &answer));
    mesh_free(&mesh);
}

static uint32_t draw(uint64_t *random, uint32_t below)
{
    *random = *random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(*random >> 33) % below;
}

static void something_happens(struct mesh *mesh, uint64_t *random, uint32_t agents)
{
    uint32_t agent = 1 + draw(random, agents);
    bool there = agent_connected(registry_by_id(mesh->registry, agent));
    switch (draw(random, 7)) {
    case 0:
        if (there)
            mesh_lose(mesh, agent);
        break;
    case 1:
        mesh_come_back(mesh, agent, draw(random, 2));
        break;
    case 2:
        mesh->fail_next[agent] = draw(random, 4);
        mesh->fail_as = (Mp__Outcome)(1 + draw(random, 4));
        mesh->fail_retry = draw(random, 2);
        break;
    case 3:
        mesh->silent[agent] = !mesh->silent[agent];
        break;
    case 4:
        mesh->receiver_first = !mesh->receiver_first;
        break;
    case 5:
        // Its loss is not known yet: sending fails first.
        registry_by_id(mesh->registry, agent)->lost_mono_ns = mesh->now_ns;
        mesh_pass(mesh, NS_PER_S);
        director_agent_lost(mesh->director, agent);
        break;
    default:
        mesh->store_error = mesh->store_error ? 0 : -ENOSPC;
        director_storage(mesh->director, mesh->store_error ? "full" : NULL);
    }
}

// Whatever agents and the store do, each cell ends once and nobody waits for ever.
static void chaos_ends(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        uint64_t random = seed;
        uint32_t agents = 2 + draw(&random, 6);
        struct mesh *mesh = mesh_new(agents);
        struct ask ask = {.kinds = {MP__TEST_KIND__UDP, MP__TEST_KIND__LATENCY}};
        char run[DIRECTOR_RUN_ID_SIZE];
        ask.count = 1 + draw(&random, 2);
        ask.bidir = ask.count == 1 && draw(&random, 2);
        ask.mode = (Mp__Mode)draw(&random, 4);
        ask.passes = draw(&random, 4);
        if (ask.mode <= MP__MODE__ISOLATED && !ask.bidir && draw(&random, 2)) {
            ask.kinds[0] = MP__TEST_KIND__TCP;
            ask.flow_check = mesh->network = true;
            mesh->gain = 1 + draw(&random, 3);
        }
        mesh_start(mesh, &ask, run);
        for (int i = 0; i < 30; i++) {
            mesh_pass(mesh, draw(&random, 3000) * NS_PER_MS);
            something_happens(mesh, &random, agents);
        }
        if (draw(&random, 4) == 0)
            (void)!director_cancel(mesh->director, run);
        mesh->store_error = 0;
        director_storage(mesh->director, NULL);
        mesh_pass(mesh, 3600 * NS_PER_S);
        if (strcmp(mesh->ended, run) != 0)
            fail_msg("seed %llu: the run does not end", (unsigned long long)seed);
        for (uint32_t i = 0; i < mesh->cells; i++)
            if (mesh->commits[i] != 1)
                fail_msg("seed %llu: cell %u has %u commits", (unsigned long long)seed, i,
                    mesh->commits[i]);
        mesh_assert_reports_done(mesh);
        for (uint32_t i = 1; i <= agents; i++)
            assert_false(director_agent_busy(mesh->director, i));
        mesh_free(&mesh);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_complete_mesh_of_50_agents_is_measured_once_near_the_bound),
        cmocka_unit_test(the_receivers_report_may_come_first),
        cmocka_unit_test(bidir_fills_both_cells_with_one_test),
        cmocka_unit_test(light_probes_come_first_and_take_one_message_per_agent),
        cmocka_unit_test(isolated_light_probes_run_pair_by_pair),
        cmocka_unit_test(a_lost_agents_cells_are_lost_after_30_s_and_all_others_ok),
        cmocka_unit_test(an_agent_that_comes_back_in_time_costs_no_attempt),
        cmocka_unit_test(a_lost_agent_in_a_light_phase_leaves_the_others_alone),
        cmocka_unit_test(probes_lost_by_a_dying_reflector_are_no_loss_of_the_path),
        cmocka_unit_test(a_removed_agents_cells_are_lost_at_once),
        cmocka_unit_test(a_drained_agents_remaining_cells_are_skipped),
        cmocka_unit_test(a_failure_is_tried_again_once_and_then_said),
        cmocka_unit_test(what_is_not_worth_a_retry_is_final),
        cmocka_unit_test(silence_ends_in_words_and_frees_the_others),
        cmocka_unit_test(a_dead_agents_failed_tests_become_lost_when_its_lease_ends),
        cmocka_unit_test(a_cancelled_run_stops_its_tests_and_ends),
        cmocka_unit_test(a_result_that_nobody_asked_for_is_acknowledged),
        cmocka_unit_test(a_store_that_fails_delays_the_end_but_measures_nothing_twice),
        cmocka_unit_test(a_killed_controllers_run_goes_on_without_measuring_twice),
        cmocka_unit_test(two_runs_share_hosts_in_order_of_their_start),
        cmocka_unit_test(a_concurrent_run_has_the_mesh_to_itself),
        cmocka_unit_test(the_whole_mesh_is_measured_as_often_as_passes_are_asked_for),
        cmocka_unit_test(a_killed_controllers_passes_that_are_over_are_not_measured_again),
        cmocka_unit_test(a_cancelled_run_keeps_the_passes_that_it_has),
        cmocka_unit_test(after_tests_beside_each_other_some_cells_are_measured_again_alone),
        cmocka_unit_test(what_is_measured_alone_goes_on_after_a_restart_and_loses_no_cell),
        cmocka_unit_test(cells_that_the_network_limits_are_measured_once_more_with_eight_streams),
        cmocka_unit_test(what_the_network_does_not_limit_gets_no_second_test),
        cmocka_unit_test(flows_are_checked_once_after_the_last_pass),
        cmocka_unit_test(a_restart_in_mid_check_checks_the_rest_and_repeats_nothing),
        cmocka_unit_test(a_check_that_cannot_be_made_costs_no_cell),
        cmocka_unit_test(every_result_is_an_event_and_followers_may_come_late),
        cmocka_unit_test(chaos_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
