#include "policy_bench.h"

#include "meshtest.h"

#include <string.h>

static const char *const tier[] = {"tier"}, *const web[] = {"web"};
static const char *const role[] = {"role"}, *const bastion[] = {"bastion"};
static const char *const addresses[WORLD][2] = {{"10.10.0.1"}, {"10.10.0.2"},
    {"10.20.0.1", "fd00:20::1"}, {"fd00:20::2"}, {"10.30.0.1"}, {"10.40.0.1"}};

const struct selector_subject world[WORLD] = {
    {"web-1", tier, web, 1, addresses[WEB1], 1},
    {"web-2", tier, web, 1, addresses[WEB2], 1},
    {"db-1", NULL, NULL, 0, addresses[DB1], 2},
    {"db-2", NULL, NULL, 0, addresses[DB2], 1},
    {"office-1", NULL, NULL, 0, addresses[OFFICE], 1},
    {"bastion", role, bastion, 1, addresses[BASTION], 1},
};

policy_t *policy_of(const char *text)
{
    struct policy_error error;
    policy_t *policy = policy_parse(text, strlen(text), &error);
    if (!policy)
        fail_msg("%u:%u: %s", error.place.line, error.place.column, error.text);
    return policy;
}

void expanded(policy_t **policy, struct policy_checks *checks, const char *text)
{
    struct policy_error error;
    *policy = policy_of(text);
    if (policy_expand(*policy, world, WORLD, checks, &error) != 0)
        fail_msg("%u:%u: %s", error.place.line, error.place.column, error.text);
}

void forget(policy_t **policy, struct policy_checks *checks)
{
    policy_checks_release(checks);
    policy_destroy(policy);
    assert_null(*policy);
}

const char *line_of(const struct policy_checks *checks, size_t index)
{
    static char line[512];
    const struct policy_check *check = &checks->checks[index];
    char port[128], expected[256];
    policy_check_port(checks, check, port);
    policy_check_expected(checks, check, expected);
    snprintf(line, sizeof line, "%s: %s > %s %s %s", policy_rule_name(checks->policy, check->rule),
        policy_end_name(checks, check->from), policy_end_name(checks, check->to), port, expected);
    return line;
}

void expect_lines(const struct policy_checks *checks, const char *const *lines)
{
    size_t count = 0;
    for (; lines[count] && count < checks->count; count++)
        assert_string_equal(line_of(checks, count), lines[count]);
    if (lines[count])
        fail_msg("missing: %s", lines[count]);
    if (count < checks->count)
        fail_msg("one too many: %s", line_of(checks, count));
}
