// What a plan costs: rates and batches of light probes, the time and volume of all tests.

#include "planner_parts.h"

#include <czmq.h>

#include "bound.h"
#include "ledger.h"
#include "passes.h"

// ----------------------------------------------------------------------------------- light probes

#define LIGHT_RATE 20.0
#define LIGHT_RATE_AGENT 1000.0
#define LIGHT_RATE_CORE 4000.0
#define LIGHT_PROBES_MIN 5.0

static double seconds(int64_t duration_ns)
{
    return (double)duration_ns / NS_PER_S;
}

static double light_ceiling(const struct light_load *load)
{
    double agent = load->most_of_agent ? LIGHT_RATE_AGENT / (double)load->most_of_agent : 1e9;
    double core = load->most_of_core > 0 ? LIGHT_RATE_CORE / load->most_of_core : 1e9;
    return agent < core ? agent : core;
}

double planner_probe_rate(const struct testspec *spec, const struct light_load *load)
{
    if (spec->probe_rate > 0)
        return spec->probe_rate;
    double most = light_ceiling(load), least = LIGHT_PROBES_MIN / seconds(spec->duration_ns);
    double rate = LIGHT_RATE < most ? LIGHT_RATE : most;
    return rate > least ? rate : least;
}

size_t planner_light_batches(const struct testspec *spec, const struct light_load *load)
{
    double rate = LIGHT_PROBES_MIN / seconds(spec->duration_ns);
    if (spec->probe_rate > 0)
        rate = spec->probe_rate;
    double batches = ceil(rate / light_ceiling(load) - 1e-9);
    return batches > 1 ? (size_t)batches : 1;
}

// ------------------------------------------------------------------------------- ports and paths

size_t planner_probes_a_batch(const struct testspec *spec)
{
    double most_s = seconds(spec->timeout_ns) < 1 ? seconds(spec->timeout_ns) : 1;
    double probes = spec->agent_rate * most_s;
    if (spec->kind == TEST_PATH) // each sends up to twenty a second
        probes = spec->agent_rate / 20;
    return probes >= 1 ? (size_t)probes : 1;
}

double planner_probes_spread_s(const struct testspec *spec, size_t probes)
{
    return (double)probes / spec->agent_rate;
}

// --------------------------------------------------------------------------------------- forecast

double planner_test_least_s(const struct testspec *spec)
{
    int64_t idle_ns = test_kind_is_bandwidth(spec->kind) ? testspec_idle_ns(spec) : 0;
    return seconds(spec->duration_ns + testspec_omit_max_ns(spec) + idle_ns);
}

double planner_test_expected_s(const struct testspec *spec)
{
    return planner_test_least_s(spec) + PLANNER_SETUP_S;
}

static void bound_hosts(
    const struct plan *plan, const struct phase *phase, ledger_t *ledger, bound_t *bound)
{
    uint64_t rate_bps = testspec_rate_stated(&phase->spec) ? phase->spec.bitrate_bps : 0;
    for (uint32_t h = 0; h < plan->agent_count; h++) {
        const struct agent *agent = plan->agents[h];
        bound_host_name(bound, h, agent->name);
        for (size_t i = 0; i < agent->label_count; i++)
            bound_host_label(bound, h, agent->labels[i].key, agent->labels[i].value);
        for (size_t s = 0; s < plan->options.shared_count; s++) {
            const char *value = agent_label(agent, plan->options.shared[s].key);
            if (value)
                bound_host_shared(
                    bound, h, plan->options.shared[s].key, value, plan->options.shared[s].limit);
        }
        if (plan->options.machines_ignore || !*agent->boot_id)
            continue;
        unsigned cores =
            agent->capabilities && agent->capabilities->has_cores ? agent->capabilities->cores : 1;
        uint32_t machine = ledger_machine(ledger, agent->boot_id, cores);
        bound_host_machine(bound, h, machine,
            ledger_machine_capacity(ledger, machine, phase->spec.bidir ? 2 * rate_bps : rate_bps));
    }
}

static void forecast_volume(const struct phase *phase, struct forecast *forecast)
{
    const struct testspec *spec = &phase->spec;
    double bytes = 0;
    if (spec->kind == TEST_PORT)
        bytes = 2 * PLANNER_LIGHT_PROBE_BYTES * spec->attempts;
    else if (spec->kind == TEST_PATH)
        bytes = 2 * PLANNER_PATH_BYTES;
    else if (phase->light)
        bytes = 2 * PLANNER_LIGHT_PROBE_BYTES * PLANNER_LIGHT_A_TRIP * seconds(spec->duration_ns) *
                (spec->probe_rate > 0 ? spec->probe_rate : LIGHT_RATE);
    else if (testspec_rate_stated(spec))
        bytes = (double)spec->bitrate_bps / 8 *
                seconds(spec->duration_ns + testspec_omit_max_ns(spec)) * (spec->bidir ? 2 : 1);
    else
        forecast->unbounded_bytes = true;
    forecast->bytes_max += (uint64_t)(bytes + 0.5);
}

struct phase_load {
    size_t tests, cells;
    size_t *probed; // by agent
};

// At best every port answers at once; 19 of 20 runs are over although all of them stay silent.
static void forecast_probes(
    const struct plan *plan, size_t p, const struct phase_load *load, struct forecast *forecast)
{
    const struct testspec *spec = &plan->options.phases[p].spec;
    size_t most = 0, a_batch = planner_probes_a_batch(spec);
    for (size_t h = 0; h < plan->agent_count; h++)
        most = load->probed[h] > most ? load->probed[h] : most;
    double batches = (double)((most + a_batch - 1) / a_batch);
    double least = planner_probes_spread_s(spec, most);
    double setup = batches * PLANNER_LIGHT_SETUP_S, silence = seconds(spec->timeout_ns);
    forecast->lower_bound_s += least;
    forecast->phase_expected_s[p] = least + setup;
    forecast->expected_s += least + setup;
    forecast->expected_p95_s += least + setup + batches * spec->attempts * silence;
}

static void forecast_light(
    const struct plan *plan, size_t p, const struct phase_load *load, struct forecast *forecast)
{
    const struct testspec *spec = &plan->options.phases[p].spec;
    struct light_load all = {.pairs = load->cells};
    if (spec->kind == TEST_PORT || spec->kind == TEST_PATH) {
        forecast_probes(plan, p, load, forecast);
        return;
    }
    ledger_t *ledger = ledger_new();
    double *core_load = zmalloc((plan->agent_count + 1) * sizeof *core_load);
    for (size_t h = 0; h < plan->agent_count; h++) {
        const struct agent *agent = plan->agents[h];
        if (load->probed[h] > all.most_of_agent)
            all.most_of_agent = load->probed[h];
        unsigned cores =
            agent->capabilities && agent->capabilities->has_cores ? agent->capabilities->cores : 1;
        double *of = &core_load[ledger_machine(ledger, agent->boot_id, cores)];
        *of += (double)load->probed[h] / (cores ? cores : 1);
        all.most_of_core = *of > all.most_of_core ? *of : all.most_of_core;
    }
    free(core_load);
    ledger_destroy(&ledger);
    double batches = load->cells ? (double)planner_light_batches(spec, &all) : 0;
    double least = batches * seconds(spec->duration_ns);
    forecast->lower_bound_s += least;
    forecast->phase_expected_s[p] = least + batches * PLANNER_LIGHT_SETUP_S;
    forecast->expected_s += forecast->phase_expected_s[p];
    // Stragglers of a lossy pair hold a batch for up to a second.
    forecast->expected_p95_s += forecast->phase_expected_s[p] + batches;
}

// One edge is one test: with --bidir a pair's two cells share it.
static bool counts_once(const struct phase *phase, const struct cell_place *place)
{
    return !phase->spec.bidir || place->from < place->to;
}

static void forecast_phase(
    const struct plan *plan, size_t p, struct forecast *forecast, double *worst_bound_s)
{
    const struct phase *phase = &plan->options.phases[p];
    struct phase_load load = {.probed = zmalloc((plan->agent_count + 1) * sizeof(size_t))};
    ledger_t *ledger = ledger_new();
    bound_t *bound = bound_new(phase->mode, plan->agent_count);
    bound_hosts(plan, phase, ledger, bound);
    for (size_t i = 0; i < plan->place_count; i++) {
        const struct cell_place *place = &plan->places[i];
        char reason[512];
        if (place->phase != p || !counts_once(phase, place))
            continue;
        const struct agent *from = plan->agents[place->from], *to = plan->agents[place->to];
        if (planner_judge(phase, from, to, reason) != MP__CELL_STATE__PENDING)
            continue;
        load.tests++;
        forecast_volume(phase, forecast);
        if (!agent_connected(from) || !agent_connected(to))
            continue;
        load.cells++;
        load.probed[place->from]++;
        bound_add(
            bound, place->from, place->to, planner_test_least_s(&phase->spec), phase->spec.bidir);
    }
    forecast->tests += load.tests;
    if (phase->light && phase->mode == MP__MODE__CONCURRENT) {
        forecast_light(plan, p, &load, forecast);
    } else {
        char by[BOUND_TEXT_SIZE];
        double least = bound_result(bound, by),
               setup = phase->light ? PLANNER_LIGHT_SETUP_S : PLANNER_SETUP_S;
        double expected = least * (1 + setup / planner_test_least_s(&phase->spec));
        forecast->lower_bound_s += least;
        forecast->phase_expected_s[p] = expected;
        forecast->expected_s += expected;
        forecast->expected_p95_s += 1.1 * expected + planner_test_expected_s(&phase->spec) / 2;
        if (least > *worst_bound_s) {
            *worst_bound_s = least;
            snprintf(forecast->bound_by, sizeof forecast->bound_by, "%s", by);
        }
    }
    bound_destroy(&bound);
    ledger_destroy(&ledger);
    free(load.probed);
}

bool planner_rechecks(const struct phase *phase)
{
    return !phase->light && phase->mode != MP__MODE__ISOLATED;
}

static void forecast_rechecks(const struct plan *plan, struct forecast *forecast)
{
    for (size_t p = 0; p < plan->options.phase_count; p++) {
        const struct phase *phase = &plan->options.phases[p];
        uint32_t cells = 0;
        for (size_t i = 0; i < plan->place_count; i++)
            cells += plan->places[i].phase == p;
        if (!planner_rechecks(phase) || cells == 0)
            continue;
        uint32_t count = recheck_drawn(cells) + recheck_worst(cells);
        count = count < cells ? count : cells;
        forecast->rechecks += count;
        forecast->recheck_s += count * planner_test_expected_s(&phase->spec);
        for (uint32_t i = 0; i < count; i++)
            forecast_volume(phase, forecast);
    }
    forecast->expected_s += forecast->recheck_s;
    forecast->expected_p95_s += forecast->recheck_s;
}

// At worst the network limits every cell. The order is that of the phase, so the time shrinks as
// the single test does.
static void forecast_flow_checks(const struct plan *plan, struct forecast *forecast)
{
    for (size_t p = 0; p < plan->options.phase_count; p++) {
        const struct phase *phase = &plan->options.phases[p];
        struct testspec check;
        if (!phase->flow_check)
            continue;
        testspec_flow_check(&phase->spec, &check);
        for (size_t i = 0; i < plan->place_count; i++)
            forecast->flow_checks += plan->places[i].phase == p;
        forecast->flow_check_s += forecast->phase_expected_s[p] * planner_test_expected_s(&check) /
                                  planner_test_expected_s(&phase->spec);
    }
    forecast->expected_s += forecast->flow_check_s;
    forecast->expected_p95_s += forecast->flow_check_s;
}

void planner_forecast(const struct plan *plan, struct forecast *forecast)
{
    double worst_bound_s = 0;
    memset(forecast, 0, sizeof *forecast);
    snprintf(forecast->bound_by, sizeof forecast->bound_by, "the time of the light probes");
    for (size_t p = 0; p < plan->options.phase_count; p++)
        forecast_phase(plan, p, forecast, &worst_bound_s);
    uint32_t passes = plan->options.passes;
    forecast->tests *= passes;
    forecast->bytes_max *= passes;
    forecast->expected_s *= passes;
    forecast->expected_p95_s *= passes;
    forecast->lower_bound_s *= passes;
    forecast_rechecks(plan, forecast);
    forecast_flow_checks(plan, forecast);
}
