#include <czmq.h>

#include "clock.h"
#include "director.h"
#include "meshtest.h"
#include "planner.h"

struct setting {
    registry_t *registry;
    Mp__RunRequest request;
    Mp__TestSpec specs[3], *list[3];
    struct plan plan;
    struct director_refusal refusal;
};

static struct agent *add_agent(registry_t *registry, const char *name, const char *address)
{
    static const char *const kinds[] = {"tcp", "udp", "latency"};
    uint8_t key[IDENTITY_KEY_SIZE] = {0};
    snprintf((char *)key, sizeof key, "%s", name);
    struct agent *agent = registry_add(registry, 0, name, key);
    agent->capabilities = zmalloc(sizeof *agent->capabilities);
    mp__capabilities__init(agent->capabilities);
    agent->capabilities->tcp = agent->capabilities->udp = true;
    agent->capabilities->n_tests = 3;
    agent->capabilities->tests = zmalloc(3 * sizeof(char *));
    for (int i = 0; i < 3; i++)
        agent->capabilities->tests[i] = strdup(kinds[i]);
    snprintf(agent->addresses[0], sizeof agent->addresses[0], "%s", address);
    agent->address_count = 1;
    agent->seen_mono_ns = 1;
    snprintf(agent->boot_id, sizeof agent->boot_id, "boot-%s", name);
    return agent;
}

static void open_setting(struct setting *it, unsigned agents)
{
    memset(it, 0, sizeof *it);
    it->registry = registry_new();
    mp__run_request__init(&it->request);
    for (unsigned i = 1; i <= agents; i++) {
        char name[16], address[32];
        snprintf(name, sizeof name, "h%u", i);
        snprintf(address, sizeof address, "10.0.%u.%u", i % 2, i);
        add_agent(it->registry, name, address);
    }
    it->request.tests = it->list;
}

static Mp__TestSpec *ask(struct setting *it, Mp__TestKind kind)
{
    Mp__TestSpec *spec = &it->specs[it->request.n_tests];
    mp__test_spec__init(spec);
    spec->kind = kind;
    spec->duration_ns = spec->interval_ns = NS_PER_S;
    it->list[it->request.n_tests++] = spec;
    return spec;
}

static int plan(struct setting *it)
{
    return planner_plan(it->registry, &it->request, &it->plan, &it->refusal);
}

static void close_setting(struct setting *it)
{
    planner_release(&it->plan);
    registry_destroy(&it->registry);
}

static void the_default_is_everyone_to_everyone_and_light_probes_first(void **state)
{
    (void)state;
    struct setting it;
    open_setting(&it, 11);
    ask(&it, MP__TEST_KIND__UDP);
    ask(&it, MP__TEST_KIND__LATENCY);
    assert_int_equal(plan(&it), 0);
    assert_int_equal(it.plan.pairs, 110);
    assert_int_equal(it.plan.place_count, 220);
    assert_int_equal(it.plan.places[0].kind, MP__TEST_KIND__LATENCY);
    assert_int_equal(it.plan.places[219].kind, MP__TEST_KIND__UDP);
    assert_string_equal(it.plan.agents[1]->name, "h2");
    assert_string_equal(it.plan.agents[10]->name, "h11");
    close_setting(&it);
}

static void selectors_of_both_sides_are_combined(void **state)
{
    (void)state;
    struct setting it;
    char *from[] = {(char *)"h1", (char *)"h2"}, *to[] = {(char *)"10.0.1.0/24"};
    open_setting(&it, 6);
    ask(&it, MP__TEST_KIND__UDP);
    it.request.from = from;
    it.request.n_from = 2;
    it.request.to = to;
    it.request.n_to = 1;
    assert_int_equal(plan(&it), 0);
    assert_int_equal(it.plan.pairs, 5); // h1 -> 3, 5; h2 -> 1, 3, 5
    close_setting(&it);
}

static void words_that_select_nobody_are_quoted(void **state)
{
    (void)state;
    struct setting it;
    char *words[] = {(char *)"nobody"}, *bad[] = {(char *)"zone==x"}, *one[] = {(char *)"h1"};
    open_setting(&it, 3);
    ask(&it, MP__TEST_KIND__UDP);
    it.request.from = words;
    it.request.n_from = 1;
    assert_int_not_equal(plan(&it), 0);
    assert_int_equal(it.refusal.code, MP__REFUSED__CODE__NO_PAIRS);
    assert_non_null(strstr(it.refusal.text, "nobody"));
    it.request.from = bad;
    assert_int_not_equal(plan(&it), 0);
    assert_int_equal(it.refusal.code, MP__REFUSED__CODE__INVALID);
    assert_non_null(strstr(it.refusal.text, "zone==x"));
    it.request.n_from = 0;
    it.request.both = one;
    it.request.n_both = 1;
    assert_int_not_equal(plan(&it), 0);
    assert_int_equal(it.refusal.code, MP__REFUSED__CODE__NO_PAIRS);
    close_setting(&it);
}

static void a_sample_covers_every_agent_and_depends_on_its_seed(void **state)
{
    (void)state;
    struct setting it;
    uint64_t sums[3] = {0};
    static const uint64_t seeds[3] = {4, 4, 5};
    for (int round = 0; round < 3; round++) {
        bool seen[20] = {false};
        open_setting(&it, 20);
        ask(&it, MP__TEST_KIND__UDP);
        it.request.pairs = (char *)"sample=2";
        it.request.has_seed = true;
        it.request.seed = seeds[round];
        assert_int_equal(plan(&it), 0);
        assert_int_equal(it.plan.pairs, 40);
        for (size_t i = 0; i < it.plan.place_count; i++) {
            seen[it.plan.places[i].from] = seen[it.plan.places[i].to] = true;
            sums[round] = sums[round] * 31 + it.plan.places[i].to;
        }
        for (int i = 0; i < 20; i++)
            assert_true(seen[i]);
        close_setting(&it);
    }
    assert_true(sums[0] == sums[1] && sums[0] != sums[2]);
}

static void a_ring_has_each_neighbour_in_both_directions(void **state)
{
    (void)state;
    struct setting it;
    open_setting(&it, 7);
    ask(&it, MP__TEST_KIND__UDP);
    it.request.pairs = (char *)"ring";
    assert_int_equal(plan(&it), 0);
    assert_int_equal(it.plan.pairs, 14);
    it.request.pairs = (char *)"some";
    planner_release(&it.plan);
    assert_int_not_equal(plan(&it), 0);
    assert_non_null(strstr(it.refusal.text, "some"));
    close_setting(&it);
}

static void a_pair_is_judged_with_words_that_name_the_side(void **state)
{
    (void)state;
    registry_t *registry = registry_new();
    struct agent *four = add_agent(registry, "four", "10.0.0.1");
    struct agent *six = add_agent(registry, "six", "fd00::6");
    struct phase phase = {0};
    char reason[512];
    testspec_defaults(TEST_UDP, &phase.spec);
    assert_int_equal(planner_judge(&phase, four, six, reason), MP__CELL_STATE__UNSUPPORTED);
    assert_non_null(strstr(reason, "four and six"));
    phase.spec.family = 4;
    assert_int_equal(planner_judge(&phase, four, six, reason), MP__CELL_STATE__UNSUPPORTED);
    assert_non_null(strstr(reason, "six has no IPv4"));
    phase.spec.family = 0;
    snprintf(six->addresses[1], sizeof six->addresses[1], "10.0.0.6");
    six->address_count = 2;
    assert_int_equal(planner_judge(&phase, four, six, reason), MP__CELL_STATE__PENDING);
    four->capabilities->has_guard_rate_bps = true;
    four->capabilities->guard_rate_bps = 500000;
    assert_int_equal(planner_judge(&phase, four, six, reason), MP__CELL_STATE__SKIPPED);
    assert_non_null(strstr(reason, "four's guard"));
    phase.spec.kind = TEST_SCTP;
    assert_int_equal(planner_judge(&phase, six, four, reason), MP__CELL_STATE__UNSUPPORTED);
    six->draining = true;
    assert_int_equal(planner_judge(&phase, six, four, reason), MP__CELL_STATE__SKIPPED);
    assert_non_null(strstr(reason, "six is drained"));
    registry_destroy(&registry);
}

static void ipv6_is_preferred_unless_a_family_is_asked_for(void **state)
{
    (void)state;
    registry_t *registry = registry_new();
    struct agent *ends[2] = {
        add_agent(registry, "a", "10.0.0.1"), add_agent(registry, "b", "10.0.0.2")};
    struct testspec spec;
    const char *from, *to;
    testspec_defaults(TEST_TCP, &spec);
    for (int i = 0; i < 2; i++) {
        snprintf(ends[i]->addresses[1], sizeof ends[i]->addresses[1], "fd00::%d", i + 1);
        ends[i]->address_count = 2;
    }
    assert_int_equal(planner_addresses(&spec, ends[0], ends[1], &from, &to), 6);
    assert_string_equal(to, "fd00::2");
    spec.family = 4;
    assert_int_equal(planner_addresses(&spec, ends[0], ends[1], &from, &to), 4);
    assert_string_equal(from, "10.0.0.1");
    registry_destroy(&registry);
}

static double bound_of(unsigned agents, Mp__Mode mode)
{
    struct setting it;
    struct forecast forecast;
    open_setting(&it, agents);
    Mp__TestSpec *spec = ask(&it, MP__TEST_KIND__UDP);
    spec->has_bitrate_bps = true;
    spec->bitrate_bps = 8000000;
    it.request.has_mode = true;
    it.request.mode = mode;
    assert_int_equal(plan(&it), 0);
    planner_forecast(&it.plan, &forecast);
    // What is measured again alone comes on top.
    assert_int_equal(forecast.bytes_max, (agents * (agents - 1) + forecast.rechecks) * 1000000);
    assert_int_equal(forecast.rechecks > 0, mode != MP__MODE__ISOLATED);
    assert_true(forecast.expected_s >= forecast.lower_bound_s);
    assert_true(forecast.expected_p95_s >= forecast.expected_s);
    close_setting(&it);
    return forecast.lower_bound_s;
}

static void flows_are_checked_of_one_stream_beside_nothing_else(void **state)
{
    (void)state;
    struct setting it;
    struct forecast plain, forecast;
    open_setting(&it, 4);
    Mp__TestSpec *spec = ask(&it, MP__TEST_KIND__TCP);
    spec->duration_ns = 30 * NS_PER_S;
    assert_int_equal(plan(&it), 0);
    planner_forecast(&it.plan, &plain);
    planner_release(&it.plan);
    it.request.has_flow_check = it.request.flow_check = true;
    assert_int_equal(plan(&it), 0);
    // At worst all twelve, of at most 3 s; the bound knows nothing of it.
    planner_forecast(&it.plan, &forecast);
    planner_release(&it.plan);
    assert_int_equal(forecast.flow_checks, 12);
    assert_true(forecast.flow_check_s > 6 * 3 && forecast.flow_check_s < 6 * 5.5);
    assert_true(fabs(forecast.expected_s - plain.expected_s - forecast.flow_check_s) < 1e-9);
    assert_true(forecast.lower_bound_s == plain.lower_bound_s);
    struct {
        protobuf_c_boolean *has, *flag;
        const char *word;
    } refused[] = {{&spec->has_parallel, NULL, "--parallel"},
        {&spec->has_bitrate_bps, NULL, "--bitrate"}, {&spec->has_bidir, &spec->bidir, "--bidir"},
        {&it.request.has_mode, NULL, "isolated"}};
    spec->parallel = 2;
    spec->bitrate_bps = 1000000;
    it.request.mode = MP__MODE__DUPLEX;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        *refused[i].has = true;
        if (refused[i].flag)
            *refused[i].flag = true;
        assert_int_not_equal(plan(&it), 0);
        assert_int_equal(it.refusal.code, MP__REFUSED__CODE__INVALID);
        assert_non_null(strstr(it.refusal.text, "--flow-check"));
        assert_non_null(strstr(it.refusal.text, refused[i].word));
        *refused[i].has = false;
        if (refused[i].flag)
            *refused[i].flag = false;
    }
    spec->kind = MP__TEST_KIND__UDP;
    assert_int_not_equal(plan(&it), 0);
    assert_non_null(strstr(it.refusal.text, "tcp"));
    close_setting(&it);
}

static void the_bound_of_a_whole_mesh_is_the_known_one(void **state)
{
    (void)state;
    const double p = 1.1; // a second, and the idle path's tenth of it
    assert_true(fabs(bound_of(8, MP__MODE__ISOLATED) - 14 * p) < 1e-6);
    assert_true(fabs(bound_of(9, MP__MODE__ISOLATED) - 18 * p) < 1e-6);
    assert_true(fabs(bound_of(9, MP__MODE__DUPLEX) - 8 * p) < 1e-6);
    assert_true(fabs(bound_of(9, MP__MODE__CONCURRENT) - p) < 1e-6);
}

static void a_machine_serialises_what_states_no_rate(void **state)
{
    (void)state;
    struct setting it;
    struct forecast forecast;
    open_setting(&it, 4);
    Mp__TestSpec *spec = ask(&it, MP__TEST_KIND__TCP);
    spec->has_omit_ns = true;
    for (struct agent *a = registry_next(it.registry, 0); a; a = registry_next(it.registry, a->id))
        strcpy(a->boot_id, "one");
    assert_int_equal(plan(&it), 0);
    planner_forecast(&it.plan, &forecast);
    assert_true(fabs(forecast.lower_bound_s - 12 * 1.1) < 1e-6);
    assert_true(forecast.unbounded_bytes);
    assert_non_null(strstr(forecast.bound_by, "machine"));
    close_setting(&it);
}

static void ending_early_does_not_go_with_both_directions_at_once(void **state)
{
    (void)state;
    struct setting it;
    open_setting(&it, 2);
    Mp__TestSpec *spec = ask(&it, MP__TEST_KIND__TCP);
    spec->has_until = spec->has_bidir = spec->bidir = true;
    spec->until = 0.05;
    assert_true(plan(&it) < 0);
    assert_int_equal(it.refusal.code, MP__REFUSED__CODE__INVALID);
    assert_non_null(strstr(it.refusal.text, "--bidir"));
    spec->bidir = false;
    assert_int_equal(plan(&it), 0);
    close_setting(&it);
}

static void light_probes_stay_under_their_ceilings(void **state)
{
    (void)state;
    struct testspec spec;
    testspec_defaults(TEST_LATENCY, &spec);
    spec.duration_ns = NS_PER_S;
    struct light_load few = {.pairs = 2, .most_of_agent = 1, .most_of_core = 1};
    assert_true(planner_probe_rate(&spec, &few) == 20);
    assert_int_equal(planner_light_batches(&spec, &few), 1);
    // 50 agents on two cores: 2,450 pairs at 5 a second are over 8,000 a second.
    struct light_load lab = {.pairs = 2450, .most_of_agent = 49, .most_of_core = 1225};
    assert_int_equal(planner_light_batches(&spec, &lab), 2);
    assert_true(planner_probe_rate(&spec, &lab) == 5);
    struct light_load large = {.pairs = 999000, .most_of_agent = 999, .most_of_core = 100};
    assert_int_equal(planner_light_batches(&spec, &large), 5);
    spec.duration_ns = 10 * NS_PER_S;
    assert_int_equal(planner_light_batches(&spec, &large), 1);
    assert_true(planner_probe_rate(&spec, &large) * 999 <= 1000.001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_is_everyone_to_everyone_and_light_probes_first),
        cmocka_unit_test(selectors_of_both_sides_are_combined),
        cmocka_unit_test(words_that_select_nobody_are_quoted),
        cmocka_unit_test(a_sample_covers_every_agent_and_depends_on_its_seed),
        cmocka_unit_test(a_ring_has_each_neighbour_in_both_directions),
        cmocka_unit_test(a_pair_is_judged_with_words_that_name_the_side),
        cmocka_unit_test(ipv6_is_preferred_unless_a_family_is_asked_for),
        cmocka_unit_test(flows_are_checked_of_one_stream_beside_nothing_else),
        cmocka_unit_test(the_bound_of_a_whole_mesh_is_the_known_one),
        cmocka_unit_test(a_machine_serialises_what_states_no_rate),
        cmocka_unit_test(ending_early_does_not_go_with_both_directions_at_once),
        cmocka_unit_test(light_probes_stay_under_their_ceilings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
