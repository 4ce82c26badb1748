#include "planner_parts.h"

#include <czmq.h>

#include "bound.h"
#include "ledger.h"
#include "passes.h"
#include "selector.h"
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

int planner_options(
    const Mp__RunRequest *request, struct plan_options *options, struct director_refusal *refusal)
{
    memset(options, 0, sizeof *options);
    int rc = phases_fill(request, options, refusal);
    if (rc == 0)
        rc = shared_fill(request, options, refusal);
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

// -------------------------------------------------------------------------------------- selection

static bool agent_matches(const struct agent *agent, const selector_t *selector)
{
    const char *keys[REGISTRY_LABELS_MAX], *values[REGISTRY_LABELS_MAX], *addresses[2];
    struct selector_subject subject = {
        .name = agent->name, .label_keys = keys, .label_values = values, .addresses = addresses};
    for (size_t i = 0; i < agent->label_count && i < REGISTRY_LABELS_MAX; i++) {
        keys[i] = agent->labels[i].key;
        values[i] = agent->labels[i].value;
        subject.label_count++;
    }
    for (size_t i = 0; i < agent->address_count && i < 2; i++)
        addresses[subject.address_count++] = agent->addresses[i];
    return selector_match(selector, &subject);
}

// Marks with `bits` the agents that any of the words selects; all if there is no word.
static int select_agents(struct agent *const *agents, size_t count, char *const *words,
    size_t word_count, uint8_t *marks, uint8_t bits, struct director_refusal *refusal)
{
    for (size_t i = 0; i < count && word_count == 0; i++)
        marks[i] |= bits;
    for (size_t w = 0; w < word_count; w++) {
        char error[256];
        size_t found = 0;
        selector_t *selector = selector_new(words[w], error);
        if (!selector)
            return refuse(refusal, INVALID, "%s", error);
        for (size_t i = 0; i < count; i++) {
            if (agent_matches(agents[i], selector)) {
                marks[i] |= bits;
                found++;
            }
        }
        selector_destroy(&selector);
        if (found == 0)
            return refuse(refusal, NO_PAIRS, "no agent matches '%.300s'", words[w]);
    }
    return 0;
}

int planner_by_name(const void *a, const void *b)
{
    const struct agent *const *left = a, *const *right = b;
    int order = strverscmp((*left)->name, (*right)->name);
    return order ? order : strcmp((*left)->name, (*right)->name);
}

static struct agent **all_agents(registry_t *registry, size_t *count)
{
    struct agent **agents = zmalloc((registry_count(registry) + 1) * sizeof *agents);
    *count = 0;
    for (struct agent *a = registry_next(registry, 0); a; a = registry_next(registry, a->id))
        agents[(*count)++] = a;
    qsort(agents, *count, sizeof *agents, planner_by_name);
    return agents;
}

enum { SENDS = 1, RECEIVES = 2, BOTH = 4 };

static int plan_agents(registry_t *registry, const Mp__RunRequest *request, struct plan *plan,
    uint8_t **marks_p, struct director_refusal *refusal)
{
    size_t count;
    struct agent **agents = all_agents(registry, &count);
    uint8_t *marks = zmalloc(count + 1);
    int rc = select_agents(agents, count, request->from, request->n_from, marks, SENDS, refusal);
    if (rc == 0)
        rc = select_agents(agents, count, request->to, request->n_to, marks, RECEIVES, refusal);
    if (rc == 0)
        rc = select_agents(agents, count, request->both, request->n_both, marks, BOTH, refusal);
    size_t kept = 0;
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (!(marks[i] & BOTH) || !(marks[i] & (SENDS | RECEIVES)))
            continue;
        agents[kept] = agents[i];
        marks[kept++] = marks[i];
    }
    plan->agents = agents;
    plan->agent_count = kept;
    *marks_p = marks;
    return rc;
}

// ------------------------------------------------------------------------------------------ pairs

// The selected directed pairs as a bit matrix, rows are senders.
struct pairs {
    size_t count, words; // agents
    uint64_t *bits;
};

static bool pair_get(const struct pairs *pairs, size_t from, size_t to)
{
    return pairs->bits[from * pairs->words + to / 64] >> (to % 64) & 1;
}

static void pair_set(struct pairs *pairs, const uint8_t *marks, size_t from, size_t to)
{
    if (from != to && (marks[from] & SENDS) && (marks[to] & RECEIVES))
        pairs->bits[from * pairs->words + to / 64] |= UINT64_C(1) << (to % 64);
}

static void pairs_full(struct pairs *pairs, const uint8_t *marks)
{
    for (size_t from = 0; from < pairs->count; from++)
        for (size_t to = 0; to < pairs->count; to++)
            pair_set(pairs, marks, from, to);
}

// Neighbours in the order of names, both directions.
static void pairs_ring(struct pairs *pairs, const uint8_t *marks)
{
    for (size_t i = 0; i < pairs->count; i++) {
        size_t next = (i + 1) % pairs->count;
        pair_set(pairs, marks, i, next);
        pair_set(pairs, marks, next, i);
    }
}

static uint64_t mix(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

// Each sender to K receivers: on a shuffled circle the next K, so that each receiver has its share;
// a receiver that no sender reaches (unequal sets) is given one.
static void pairs_sample(struct pairs *pairs, const uint8_t *marks, uint64_t k, uint64_t seed)
{
    size_t n = pairs->count, *order = zmalloc((n + 1) * sizeof *order);
    uint8_t *covered = zmalloc(n + 1);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n; i > 1; i--) {
        size_t j = mix(&seed) % i, kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t given = 0;
        for (size_t step = 1; step < n && given < k; step++) {
            size_t from = order[i], to = order[(i + step) % n];
            pair_set(pairs, marks, from, to);
            if (!pair_get(pairs, from, to))
                continue;
            given++;
            covered[from] = covered[to] = 1;
        }
    }
    for (size_t i = 0; i < n; i++)
        for (size_t step = 1; step < n && !covered[order[i]]; step++) {
            size_t to = order[i], from = order[(i + n - step) % n];
            pair_set(pairs, marks, from, to);
            covered[to] = pair_get(pairs, from, to);
        }
    free(order);
    free(covered);
}

static int pairs_fill(const Mp__RunRequest *request, const struct plan_options *options,
    struct pairs *pairs, const uint8_t *marks, struct director_refusal *refusal)
{
    const char *word = request->pairs ? request->pairs : "full";
    uint64_t k;
    if (strcmp(word, "full") == 0)
        pairs_full(pairs, marks);
    else if (strcmp(word, "ring") == 0)
        pairs_ring(pairs, marks);
    else if (strncmp(word, "sample=", 7) == 0 && units_count(word + 7, 1, 1000000, &k) == 0)
        pairs_sample(pairs, marks, k, options->seed);
    else
        return refuse(refusal, INVALID, "'%.200s' is not full, ring or sample=K", word);
    return 0;
}

static size_t pairs_count(const struct pairs *pairs)
{
    size_t count = 0;
    for (size_t i = 0; i < pairs->count * pairs->words; i++)
        count += (size_t)__builtin_popcountll(pairs->bits[i]);
    return count;
}

// With --bidir a test measures both directions of a pair, so that both cells are there.
static bool pair_wanted(const struct pairs *pairs, const struct phase *phase, size_t a, size_t b)
{
    return pair_get(pairs, a, b) || (phase->spec.bidir && pair_get(pairs, b, a));
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

int planner_plan(registry_t *registry, const Mp__RunRequest *request, struct plan *plan,
    struct director_refusal *refusal)
{
    uint8_t *marks = NULL;
    struct pairs pairs = {0};
    memset(plan, 0, sizeof *plan);
    int rc = planner_options(request, &plan->options, refusal);
    if (rc == 0)
        rc = planner_ports(request, plan, refusal);
    if (rc == 0)
        rc = plan_agents(registry, request, plan, &marks, refusal);
    if (rc != 0)
        goto out;
    pairs.count = plan->agent_count;
    pairs.words = (pairs.count + 63) / 64;
    pairs.bits = zmalloc((pairs.count * pairs.words + 1) * sizeof *pairs.bits);
    rc = pairs_fill(request, &plan->options, &pairs, marks, refusal);
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
    free(marks);
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

// --------------------------------------------------------------------------------------- one pair

static const char *address_of(const struct agent *agent, unsigned family)
{
    for (size_t i = 0; i < agent->address_count && i < 2; i++)
        if (*agent->addresses[i] && (strchr(agent->addresses[i], ':') ? 6 : 4) == (int)family)
            return agent->addresses[i];
    return NULL;
}

unsigned planner_addresses(const struct testspec *spec, const struct agent *from,
    const struct agent *to, const char **from_address, const char **to_address)
{
    static const unsigned preferred[] = {6, 4};
    for (size_t i = 0; i < 2; i++) {
        unsigned family = preferred[i];
        const char *a = address_of(from, family), *b = address_of(to, family);
        if ((spec->family && spec->family != family) || !a || !b)
            continue;
        *from_address = a;
        *to_address = b;
        return family;
    }
    return 0;
}

// A stated value above an owner's limit; the agent judges alike. 0: the owner sets no limit.
static bool over_guard(const struct testspec *spec, const struct agent *agent, char *reason)
{
    const Mp__Capabilities *can = agent->capabilities;
    char asked[UNITS_TEXT_SIZE], most[UNITS_TEXT_SIZE];
    bool stated = testspec_rate_stated(spec);
    if (can->guard_rate_bps && stated && spec->bitrate_bps > can->guard_rate_bps) {
        snprintf(reason, 512, "%s's guard allows a rate of %s, %s is asked for", agent->name,
            units_word_rate(can->guard_rate_bps, most), units_word_rate(spec->bitrate_bps, asked));
        return true;
    }
    if (can->guard_duration_ns > 0 && spec->duration_ns > can->guard_duration_ns) {
        snprintf(reason, 512, "%s's guard allows a duration of %s, %s is asked for", agent->name,
            units_word_duration(can->guard_duration_ns, most),
            units_word_duration(spec->duration_ns, asked));
        return true;
    }
    double bytes = (double)spec->bitrate_bps / 8 * (double)spec->duration_ns / NS_PER_S;
    bytes *= spec->bidir ? 2 : 1;
    if (can->guard_bytes && stated && bytes > (double)can->guard_bytes) {
        snprintf(reason, 512, "%s's guard allows %s a test, this one moves %s", agent->name,
            units_format_bytes((double)can->guard_bytes, most), units_format_bytes(bytes, asked));
        return true;
    }
    return false;
}

static const char *family_word(unsigned family)
{
    return family == 4 ? "an IPv4" : family == 6 ? "an IPv6" : "any";
}

static int ends_with_agents(const struct agent *to)
{
    return to->target ? 1 : 2;
}

Mp__CellState planner_judge(
    const struct phase *phase, const struct agent *from, const struct agent *to, char reason[512])
{
    const struct agent *ends[2] = {from, to};
    const char *addresses[2];
    char why[256];
    for (int i = 0; i < 2; i++) {
        if (ends[i]->draining) {
            snprintf(reason, 512, "%s is drained", ends[i]->name);
            return MP__CELL_STATE__SKIPPED;
        }
    }
    if (!from->capabilities || (!to->capabilities && !to->target))
        return MP__CELL_STATE__PENDING;
    for (int i = 0; i < ends_with_agents(to); i++) {
        const char *cannot = agent_cannot(ends[i], (Mp__TestKind)phase->spec.kind, why);
        if (cannot) {
            snprintf(reason, 512, "%s", cannot);
            return MP__CELL_STATE__UNSUPPORTED;
        }
    }
    if (!planner_addresses(&phase->spec, from, to, &addresses[0], &addresses[1])) {
        unsigned asked = phase->spec.family;
        if (asked && !address_of(from, asked) != !address_of(to, asked))
            snprintf(reason, 512, "%s has no IPv%u address",
                address_of(from, asked) ? to->name : from->name, asked);
        else
            snprintf(reason, 512,
                "%s and %s have no address family in common (%s address is "
                "asked for)",
                from->name, to->name, family_word(asked));
        return MP__CELL_STATE__UNSUPPORTED;
    }
    for (int i = 0; i < ends_with_agents(to); i++)
        if (over_guard(&phase->spec, ends[i], reason))
            return MP__CELL_STATE__SKIPPED;
    return MP__CELL_STATE__PENDING;
}

Mp__CellState planner_judge_port(
    const struct port *port, const struct agent *from, const struct agent *to, char reason[512])
{
    const struct agent *ends[2] = {from, to};
    if (port->transport != MP__TRANSPORT__OVER_SCTP)
        return MP__CELL_STATE__PENDING;
    for (int i = 0; i < ends_with_agents(to); i++) {
        const Mp__Capabilities *can = ends[i]->capabilities;
        if (!can || can->sctp)
            continue;
        snprintf(reason, 512, "%s cannot probe sctp: %.150s", ends[i]->name,
            can->sctp_reason && *can->sctp_reason ? can->sctp_reason : "no SCTP in its kernel");
        return MP__CELL_STATE__UNSUPPORTED;
    }
    return MP__CELL_STATE__PENDING;
}

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
        bytes = 2 * PLANNER_LIGHT_PROBE_BYTES * seconds(spec->duration_ns) *
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
}
