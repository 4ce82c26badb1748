// Ports of a selection, and runs that are an explicit list of cells.

#include <czmq.h>

#include "clock.h"
#include "director.h"
#include "meshtest.h"
#include "planner.h"

struct setting {
    registry_t *registry;
    Mp__RunRequest request;
    Mp__TestSpec specs[2], *list[2];
    struct plan plan;
    struct director_refusal refusal;
};

static void add_agent(registry_t *registry, unsigned number)
{
    static const char *const kinds[] = {"tcp", "port", "path"};
    uint8_t key[IDENTITY_KEY_SIZE] = {(uint8_t)number};
    char name[16];
    snprintf(name, sizeof name, "h%u", number);
    struct agent *agent = registry_add(registry, 0, name, key);
    agent->capabilities = zmalloc(sizeof *agent->capabilities);
    mp__capabilities__init(agent->capabilities);
    agent->capabilities->tcp = agent->capabilities->udp = true;
    agent->capabilities->tests = zmalloc(sizeof kinds);
    for (; agent->capabilities->n_tests < 3; agent->capabilities->n_tests++)
        agent->capabilities->tests[agent->capabilities->n_tests] =
            strdup(kinds[agent->capabilities->n_tests]);
    snprintf(agent->addresses[0], sizeof agent->addresses[0], "10.0.0.%u", number);
    agent->address_count = 1;
    agent->seen_mono_ns = 1;
}

static void open_setting(struct setting *it, unsigned agents)
{
    memset(it, 0, sizeof *it);
    it->registry = registry_new();
    mp__run_request__init(&it->request);
    for (unsigned i = 1; i <= agents; i++)
        add_agent(it->registry, i);
    it->request.tests = it->list;
}

static void ask(struct setting *it, Mp__TestKind kind)
{
    Mp__TestSpec *spec = &it->specs[it->request.n_tests];
    mp__test_spec__init(spec);
    spec->kind = kind;
    spec->duration_ns = spec->interval_ns = NS_PER_S;
    it->list[it->request.n_tests++] = spec;
}

static void close_setting(struct setting *it)
{
    planner_release(&it->plan);
    registry_destroy(&it->registry);
}

static void each_selected_pair_is_probed_at_each_port_once(void **state)
{
    (void)state;
    struct setting it;
    Mp__PortRange ranges[2] = {MP__PORT_RANGE__INIT, MP__PORT_RANGE__INIT};
    Mp__PortRange *list[2] = {&ranges[0], &ranges[1]};
    open_setting(&it, 3);
    ask(&it, MP__TEST_KIND__PORT);
    ask(&it, MP__TEST_KIND__TCP);
    ranges[0].transport = ranges[1].transport = MP__TRANSPORT__OVER_TCP;
    ranges[0].first = 22;
    ranges[0].last = 24;
    ranges[1].first = ranges[1].last = 23;
    it.request.ports = list;
    it.request.n_ports = 2;
    assert_int_equal(planner_plan(it.registry, &it.request, &it.plan, &it.refusal), 0);
    assert_int_equal(it.plan.port_count, 3);
    assert_int_equal(it.plan.ports[2].number, 24);
    assert_int_equal(it.plan.pairs, 6);
    assert_int_equal(it.plan.place_count, 6 * 3 + 6);
    for (size_t i = 0; i < 18; i++) {
        assert_int_equal(it.plan.places[i].kind, MP__TEST_KIND__PORT);
        assert_int_equal(it.plan.places[i].port, i % 3);
    }
    assert_int_equal(it.plan.places[18].kind, MP__TEST_KIND__TCP);
    close_setting(&it);
}

static void a_port_test_without_a_port_or_with_too_many_is_refused(void **state)
{
    (void)state;
    struct setting it;
    Mp__PortRange range = MP__PORT_RANGE__INIT, *list[1] = {&range};
    open_setting(&it, 2);
    ask(&it, MP__TEST_KIND__PORT);
    assert_int_not_equal(planner_plan(it.registry, &it.request, &it.plan, &it.refusal), 0);
    assert_non_null(strstr(it.refusal.text, "--port"));
    range.transport = MP__TRANSPORT__OVER_UDP;
    range.first = 1;
    range.last = PORTS_MAX + 1;
    it.request.ports = list;
    it.request.n_ports = 1;
    assert_int_not_equal(planner_plan(it.registry, &it.request, &it.plan, &it.refusal), 0);
    assert_non_null(strstr(it.refusal.text, "4096"));
    close_setting(&it);
}

static const char *const names[] = {"h3", "h1", "h2"};
static const struct plan_target printer = {
    .name = "printer", .addresses = {"10.9.0.7"}, .address_count = 1};
static const struct port ports[] = {
    {MP__TRANSPORT__OVER_TCP, 22}, {MP__TRANSPORT__OVER_SCTP, 9000}};

static int plan_cells(struct setting *it, const struct plan_cell *cells, size_t count)
{
    struct plan_cells list = {.agents = names,
        .agent_count = 3,
        .targets = &printer,
        .target_count = 1,
        .ports = ports,
        .port_count = 2,
        .cells = cells,
        .count = count};
    planner_release(&it->plan);
    return planner_plan_cells(it->registry, &it->request, &list, &it->plan, &it->refusal);
}

static void listed_cells_are_sorted_and_measured_once(void **state)
{
    (void)state;
    struct setting it;
    const struct plan_cell cells[] = {
        {MP__TEST_KIND__TCP, 0, 1, 0, 0},                      // h3 > h1
        {MP__TEST_KIND__PORT, 0, 3, 0, 0},                     // h3 > printer
        {MP__TEST_KIND__PORT, 0, 1, 1, PORT_LISTENER_SERVICE}, // h3 > h1 sctp/9000
        {MP__TEST_KIND__PORT, 0, 1, 0, PORT_LISTENER_SERVICE}, // h3 > h1 tcp/22
        {MP__TEST_KIND__PORT, 0, 1, 0, PORT_LISTENER_EITHER},  // again
    };
    open_setting(&it, 3);
    ask(&it, MP__TEST_KIND__TCP);
    ask(&it, MP__TEST_KIND__PORT);
    assert_int_equal(plan_cells(&it, cells, 5), 0);
    assert_int_equal(it.plan.agent_count, 3); // h2 has no cell
    assert_int_equal(it.plan.target_count, 1);
    assert_string_equal(it.plan.agents[0]->name, "h1");
    assert_string_equal(it.plan.agents[1]->name, "h3");
    assert_string_equal(it.plan.agents[2]->name, "printer");
    assert_true(it.plan.agents[2]->target);
    assert_int_equal(it.plan.place_count, 4);
    assert_int_equal(it.plan.pairs, 3);
    assert_int_equal(it.plan.places[0].to, 0);
    assert_int_equal(it.plan.places[0].port, 0);
    assert_int_equal(it.plan.places[0].listener, PORT_LISTENER_EITHER);
    assert_int_equal(it.plan.places[1].port, 1);
    assert_int_equal(it.plan.places[1].listener, PORT_LISTENER_SERVICE);
    assert_int_equal(it.plan.places[2].to, 2);
    assert_int_equal(it.plan.places[3].kind, MP__TEST_KIND__TCP);
    close_setting(&it);
}

static void lists_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct plan_cell cell;
        const char *words;
    } cases[] = {
        {{MP__TEST_KIND__UDP, 0, 1, 0, 0}, "does not name"},
        {{MP__TEST_KIND__TCP, 0, 3, 0, 0}, "no agent runs at printer"},
        {{MP__TEST_KIND__PORT, 3, 0, 0, 0}, "wrong end"},
        {{MP__TEST_KIND__PORT, 0, 0, 0, 0}, "wrong end"},
        {{MP__TEST_KIND__PORT, 0, 4, 0, 0}, "wrong end"},
        {{MP__TEST_KIND__PORT, 0, 1, 2, 0}, "wrong port"},
        {{MP__TEST_KIND__PORT, 0, 2, 0, 0}, "there is no agent h3"},
    };
    struct setting it;
    open_setting(&it, 2);
    ask(&it, MP__TEST_KIND__TCP);
    ask(&it, MP__TEST_KIND__PORT);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_not_equal(plan_cells(&it, &cases[i].cell, 1), 0);
        if (!strstr(it.refusal.text, cases[i].words))
            fail_msg("%s, not %s", it.refusal.text, cases[i].words);
    }
    assert_int_not_equal(plan_cells(&it, NULL, 0), 0);
    close_setting(&it);
}

static void what_an_end_cannot_do_is_said(void **state)
{
    (void)state;
    struct setting it;
    char reason[512];
    open_setting(&it, 2);
    struct agent *h1 = registry_by_id(it.registry, 1), *h2 = registry_by_id(it.registry, 2);
    char *address = (char *)"fd00::7";
    struct agent *target = planner_target("printer", &address, 1);
    struct phase phase = {.light = true};
    testspec_defaults(TEST_PORT, &phase.spec);
    assert_int_equal(planner_judge(&phase, h1, h2, reason), MP__CELL_STATE__PENDING);
    assert_int_equal(planner_judge_port(&ports[0], h1, h2, reason), MP__CELL_STATE__PENDING);
    assert_int_equal(planner_judge_port(&ports[1], h1, h2, reason), MP__CELL_STATE__UNSUPPORTED);
    assert_non_null(strstr(reason, "h1"));
    // No family in common with the target.
    assert_int_equal(planner_judge(&phase, h1, target, reason), MP__CELL_STATE__UNSUPPORTED);
    snprintf(target->addresses[0], sizeof target->addresses[0], "10.9.0.7");
    assert_int_equal(planner_judge(&phase, h1, target, reason), MP__CELL_STATE__PENDING);
    free(target);
    close_setting(&it);
}

static void a_batch_of_probes_begins_within_a_second_and_the_timeout(void **state)
{
    (void)state;
    struct testspec spec;
    testspec_defaults(TEST_PORT, &spec);
    assert_int_equal(spec.attempts, 3);
    assert_int_equal(testspec_listen_ns(&spec), 8 * NS_PER_S);
    assert_int_equal(planner_probes_a_batch(&spec), 200);
    spec.timeout_ns = NS_PER_S / 4;
    assert_int_equal(planner_probes_a_batch(&spec), 50);
    spec.agent_rate = 1;
    assert_int_equal(planner_probes_a_batch(&spec), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_selected_pair_is_probed_at_each_port_once),
        cmocka_unit_test(a_port_test_without_a_port_or_with_too_many_is_refused),
        cmocka_unit_test(listed_cells_are_sorted_and_measured_once),
        cmocka_unit_test(lists_that_make_no_sense_are_refused),
        cmocka_unit_test(what_an_end_cannot_do_is_said),
        cmocka_unit_test(a_batch_of_probes_begins_within_a_second_and_the_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
