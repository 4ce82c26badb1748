// A policy's text: what is taken makes checks, cells, verdicts and advice without a fault.

#include "fuzz.h"
#include "policy.h"

#define AGENTS 4

static const char *const keys[] = {"tier"}, *const web[] = {"web"};
static const char *const here[] = {"10.20.0.1"}, *const there[] = {"fd00:20::2"};
static const struct selector_subject agents[AGENTS] = {{"web-1", keys, web, 1, here, 1},
    {"web-2", keys, web, 1, there, 1}, {"db-1", NULL, NULL, 0, here, 1},
    {"office-1", NULL, NULL, 0, there, 1}};

// Sees something at the first cells; the others were not tested.
static struct policy_sight *sights_of(const struct policy_cell *cells, size_t count, uint8_t seed)
{
    struct policy_sight *sights = calloc(count + 1, sizeof *sights);
    HOLDS(sights);
    for (size_t i = 0; i < count; i++, seed = (uint8_t)(seed * 5 + 1)) {
        sights[i] = (struct policy_sight){.cell = cells[i],
            .measured = true,
            .final = true,
            .observed = seed % (POLICY_ERROR + 1),
            .arrived = seed / 16 % 3,
            .listener = seed / 64 % 3,
            .alive = seed & 1,
            .at_wall_ns = 1};
        if (cells[i].kind != TEST_PORT)
            sights[i].values = calloc(POLICY_VALUES_MAX, sizeof(double));
    }
    return sights;
}

static void judge(const struct policy_checks *checks, uint8_t seed)
{
    size_t count;
    struct policy_counts counts;
    char text[1024];
    struct policy_cell *cells = policy_cells(checks, &count);
    struct policy_sight *sights = sights_of(cells, count, seed);
    struct policy_judged *judged = policy_judge(checks, sights, count, &counts);
    HOLDS(counts.held + counts.violated + counts.not_tested + counts.tolerated == checks->count);
    for (size_t i = 0; i < checks->count; i++) {
        const struct policy_check *check = &checks->checks[i];
        const struct policy_sight *sight = judged[i].sight;
        policy_evidence(checks, check, &judged[i], text);
        HOLDS(*text);
        policy_check_port(checks, check, text);
        policy_check_expected(checks, check, text);
        policy_observed_text(checks, check, &judged[i], text);
        // Whatever arrived is no denial that holds.
        if (check->expected == POLICY_DENY && sight && sight->arrived == POLICY_ARRIVED_YES)
            HOLDS(judged[i].verdict != POLICY_HELD);
    }
    free(judged);
    free(cells);
    policy_sights_release(sights, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct policy_error error = {0};
    struct policy_checks checks;
    policy_t *policy = policy_parse((const char *)data, size, &error);
    HOLDS(policy || (*error.text && error.place.line && error.place.column));
    if (!policy)
        return 0;
    FILE *nowhere = fopen("/dev/null", "w");
    HOLDS(nowhere);
    (void)policy_lint(policy, "f", NULL, NULL, 0, nowhere);
    (void)policy_lint(policy, "f", agents, NULL, AGENTS, nowhere);
    fclose(nowhere);
    if (policy_expand(policy, agents, AGENTS, &checks, &error) == 0 && checks.count < 20000)
        judge(&checks, size ? data[size - 1] : 0);
    policy_checks_release(&checks);
    policy_destroy(&policy);
    return 0;
}
