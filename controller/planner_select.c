// Which agents a request selects, and which directed pairs of them.

#include "planner_parts.h"

#include <czmq.h>

#include "mix.h"
#include "selector.h"
#include "units.h"

// ----------------------------------------------------------------------------------------- agents

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

bool pairs_get(const struct pairs *pairs, size_t from, size_t to)
{
    return pairs->bits[from * pairs->words + to / 64] >> (to % 64) & 1;
}

static void pairs_set(struct pairs *pairs, const uint8_t *marks, size_t from, size_t to)
{
    if (from != to && (marks[from] & SENDS) && (marks[to] & RECEIVES))
        pairs->bits[from * pairs->words + to / 64] |= UINT64_C(1) << (to % 64);
}

static void pairs_full(struct pairs *pairs, const uint8_t *marks)
{
    for (size_t from = 0; from < pairs->count; from++)
        for (size_t to = 0; to < pairs->count; to++)
            pairs_set(pairs, marks, from, to);
}

// Neighbours in the order of names, both directions.
static void pairs_ring(struct pairs *pairs, const uint8_t *marks)
{
    for (size_t i = 0; i < pairs->count; i++) {
        size_t next = (i + 1) % pairs->count;
        pairs_set(pairs, marks, i, next);
        pairs_set(pairs, marks, next, i);
    }
}

// Each sender to K receivers: on a shuffled circle the next K, so that each receiver has its share;
// a receiver that no sender reaches (unequal sets) is given one.
static void pairs_sample(struct pairs *pairs, const uint8_t *marks, uint64_t k, uint64_t seed)
{
    size_t n = pairs->count;
    uint32_t *order = mix_permutation((uint32_t)n, seed);
    uint8_t *covered = zmalloc(n + 1);
    for (size_t i = 0; i < n; i++) {
        uint64_t given = 0;
        for (size_t step = 1; step < n && given < k; step++) {
            size_t from = order[i], to = order[(i + step) % n];
            pairs_set(pairs, marks, from, to);
            if (!pairs_get(pairs, from, to))
                continue;
            given++;
            covered[from] = covered[to] = 1;
        }
    }
    for (size_t i = 0; i < n; i++)
        for (size_t step = 1; step < n && !covered[order[i]]; step++) {
            size_t to = order[i], from = order[(i + n - step) % n];
            pairs_set(pairs, marks, from, to);
            covered[to] = pairs_get(pairs, from, to);
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

size_t pairs_count(const struct pairs *pairs)
{
    size_t count = 0;
    for (size_t i = 0; i < pairs->count * pairs->words; i++)
        count += (size_t)__builtin_popcountll(pairs->bits[i]);
    return count;
}

int planner_select(registry_t *registry, const Mp__RunRequest *request, struct plan *plan,
    struct pairs *pairs, struct director_refusal *refusal)
{
    uint8_t *marks = NULL;
    int rc = plan_agents(registry, request, plan, &marks, refusal);
    if (rc == 0) {
        pairs->count = plan->agent_count;
        pairs->words = (pairs->count + 63) / 64;
        pairs->bits = zmalloc((pairs->count * pairs->words + 1) * sizeof *pairs->bits);
        rc = pairs_fill(request, &plan->options, pairs, marks, refusal);
    }
    free(marks);
    return rc;
}
