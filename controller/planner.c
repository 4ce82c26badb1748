// The options of a request, and the plan of a whole run.

#include "planner_parts.h"

#include <czmq.h>

#include "units.h"

#define RETRIES_MAX 100

// ---------------------------------------------------------------------------------------- options

static int phase_add(const Mp__RunRequest *request, const Mp__TestSpec *wire,
    struct plan_options *options, struct director_refusal *refusal)
{
    char error[256];
    struct phase phase = {0};
    if (testspec_from_wire(wire, &phase.spec, error) != 0)
        return refuse(
            refusal, INVALID, "%s: %s", test_kind_name((enum test_kind)wire->kind), error);
    for (size_t i = 0; i < options->phase_count; i++)
        if (options->phases[i].spec.kind == phase.spec.kind)
            return refuse(
                refusal, INVALID, "the test %s is named twice", test_kind_name(phase.spec.kind));
    phase.light = !test_kind_is_bandwidth(phase.spec.kind);
    phase.mode = request->has_mode ? request->mode
                 : phase.light     ? MP__MODE__CONCURRENT
                                   : MP__MODE__ISOLATED;
    if (phase.light)
        phase.spec.bidir = false;
    if (phase.spec.bidir && phase.spec.until > 0)
        return refuse(refusal, INVALID,
            "--until does not go with --bidir: one direction would end before the other");
    // So few packets disturb nobody, and each host's list goes out in one message.
    if (phase.spec.kind == TEST_PORT || phase.spec.kind == TEST_PATH)
        phase.mode = MP__MODE__CONCURRENT;
    options->phases[options->phase_count++] = phase;
    return 0;
}

static int phases_fill(
    const Mp__RunRequest *request, struct plan_options *options, struct director_refusal *refusal)
{
    // Light probes first: they want the network as it is before the load.
    for (int bandwidth = 0; bandwidth <= 1; bandwidth++)
        for (size_t i = 0; i < request->n_tests; i++) {
            const Mp__TestSpec *wire = request->tests[i];
            if (test_kind_is_bandwidth((enum test_kind)wire->kind) != bandwidth)
                continue;
            if (options->phase_count == PLANNER_PHASES_MAX)
                return refuse(refusal, INVALID, "there are too many tests");
            int rc = phase_add(request, wire, options, refusal);
            if (rc != 0)
                return rc;
        }
    return options->phase_count ? 0 : refuse(refusal, INVALID, "no test is named");
}

static int shared_fill(
    const Mp__RunRequest *request, struct plan_options *options, struct director_refusal *refusal)
{
    for (size_t i = 0; i < request->n_shared; i++) {
        const char *word = request->shared[i], *equal = strrchr(word, '=');
        uint64_t limit;
        struct plan_shared *shared = &options->shared[options->shared_count];
        if (options->shared_count == PLANNER_SHARED_MAX)
            return refuse(refusal, INVALID, "at most %d labels can be shared", PLANNER_SHARED_MAX);
        if (!equal || equal == word || (size_t)(equal - word) >= sizeof shared->key ||
            units_count(equal + 1, 1, 1000000, &limit) != 0)
            return refuse(refusal, INVALID, "'%.200s' is not LABEL=N with N at least 1", word);
        memcpy(shared->key, word, (size_t)(equal - word));
        shared->key[equal - word] = '\0';
        shared->limit = (uint32_t)limit;
        options->shared_count++;
    }
    return 0;
}

// One stream, as fast as it can be, beside nothing else: only such a cell is comparable.
static int flow_check_fill(
    const Mp__RunRequest *request, struct plan_options *options, struct director_refusal *refusal)
{
    struct phase *tcp = NULL;
    if (!request->has_flow_check || !request->flow_check)
        return 0;
    for (size_t p = 0; p < options->phase_count; p++)
        if (options->phases[p].spec.kind == TEST_TCP)
            tcp = &options->phases[p];
    if (!tcp)
        return refuse(refusal, INVALID, "--flow-check is for tcp");
    if (tcp->spec.parallel != 1)
        return refuse(refusal, INVALID,
            "--flow-check compares several streams with one: it does not go with --parallel");
    if (testspec_rate_stated(&tcp->spec))
        return refuse(refusal, INVALID,
            "--flow-check does not go with --bitrate: a stated rate limits all streams together");
    if (tcp->spec.bidir)
        return refuse(refusal, INVALID,
            "--flow-check does not go with --bidir: each direction would be judged beside the "
            "other's load");
    if (tcp->mode != MP__MODE__ISOLATED)
        return refuse(refusal, INVALID,
            "--flow-check needs the mode isolated: tests beside each other take bandwidth from "
            "one another");
    tcp->flow_check = true;
    return 0;
}

int planner_options(
    const Mp__RunRequest *request, struct plan_options *options, struct director_refusal *refusal)
{
    memset(options, 0, sizeof *options);
    int rc = phases_fill(request, options, refusal);
    if (rc == 0)
        rc = shared_fill(request, options, refusal);
    if (rc == 0)
        rc = flow_check_fill(request, options, refusal);
    if (rc != 0)
        return rc;
    options->seed = request->has_seed ? request->seed : 1;
    options->retries = request->has_retries ? request->retries : 1;
    options->passes = request->has_passes ? request->passes : 1;
    options->machines_ignore = (request->has_machines_ignore && request->machines_ignore) ||
                               (request->has_mode && request->mode == MP__MODE__CONCURRENT);
    if (options->passes < 1 || options->passes > TESTSPEC_PASSES_MAX)
        return refuse(refusal, INVALID, "a run has 1 to %d passes", TESTSPEC_PASSES_MAX);
    if (options->retries > RETRIES_MAX)
        return refuse(refusal, INVALID, "at most %d retries are possible", RETRIES_MAX);
    return 0;
}

// --------------------------------------------------------------------------------------- the plan

// With --bidir a test measures both directions of a pair, so that both cells are there.
static bool pair_wanted(const struct pairs *pairs, const struct phase *phase, size_t a, size_t b)
{
    return pairs_get(pairs, a, b) || (phase->spec.bidir && pairs_get(pairs, b, a));
}

static size_t ports_of(const struct plan *plan, const struct phase *phase)
{
    return phase->spec.kind == TEST_PORT ? plan->port_count : 1;
}

static void places_fill(struct plan *plan, const struct pairs *pairs)
{
    struct cell_place *place = plan->places;
    for (size_t p = 0; p < plan->options.phase_count; p++) {
        const struct phase *phase = &plan->options.phases[p];
        size_t ports = ports_of(plan, phase);
        for (uint32_t from = 0; from < pairs->count; from++)
            for (uint32_t to = 0; to < pairs->count; to++)
                for (size_t port = 0; pair_wanted(pairs, phase, from, to) && port < ports; port++)
                    *place++ = (struct cell_place){.kind = (uint8_t)phase->spec.kind,
                        .phase = (uint8_t)p,
                        .port = (uint16_t)port,
                        .from = from,
                        .to = to};
    }
    plan->place_count = (size_t)(place - plan->places);
}

// Room for all cells: with --bidir each pair may have two.
static size_t places_room(const struct plan *plan)
{
    size_t room = 0;
    for (size_t p = 0; p < plan->options.phase_count; p++)
        room += plan->pairs * ports_of(plan, &plan->options.phases[p]) *
                (plan->options.phases[p].spec.bidir ? 2 : 1);
    return room;
}

int planner_place_order(const struct cell_place *a, const struct cell_place *b)
{
    const uint32_t left[] = {a->phase, a->from, a->to, a->port},
                   right[] = {b->phase, b->from, b->to, b->port};
    for (size_t i = 0; i < 4; i++)
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    return 0;
}

int planner_plan(registry_t *registry, const Mp__RunRequest *request, struct plan *plan,
    struct director_refusal *refusal)
{
    struct pairs pairs = {0};
    memset(plan, 0, sizeof *plan);
    int rc = planner_options(request, &plan->options, refusal);
    if (rc == 0)
        rc = planner_ports(request, plan, refusal);
    if (rc == 0)
        rc = planner_select(registry, request, plan, &pairs, refusal);
    if (rc != 0)
        goto out;
    plan->pairs = pairs_count(&pairs);
    if (plan->pairs == 0)
        rc = refuse(refusal, NO_PAIRS, "the selection has no pair: %zu agent%s", plan->agent_count,
            plan->agent_count == 1 ? " matches" : "s match");
    else if (places_room(plan) > DIRECTOR_CELLS_MAX)
        rc = refuse(refusal, INVALID, "the run would have over %d cells", DIRECTOR_CELLS_MAX);
    if (rc != 0)
        goto out;
    plan->places = zmalloc((places_room(plan) + 1) * sizeof *plan->places);
    places_fill(plan, &pairs);
out:
    free(pairs.bits);
    if (rc != 0)
        planner_release(plan);
    return rc;
}

void planner_release(struct plan *plan)
{
    for (size_t i = 0; i < plan->agent_count; i++)
        if (plan->agents[i]->target)
            free(plan->agents[i]);
    free(plan->agents);
    free(plan->places);
    free(plan->ports);
    plan->agents = NULL;
    plan->places = NULL;
    plan->ports = NULL;
    plan->agent_count = plan->target_count = plan->place_count = plan->port_count = 0;
}
