// Which rule decides. Whether an agent is in a set depends on that agent alone, so that a policy
// expanded with the two agents of a pair says all there is about the pair.

#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "policy_parts.h"

static bool has_port(const struct policy_rule *rule, const struct policy_check *check)
{
    for (size_t i = 0; i < rule->port_count; i++)
        if ((unsigned)rule->ports[i].protocol == check->protocol &&
            rule->ports[i].first <= check->port && check->port <= rule->ports[i].last)
            return true;
    return false;
}

static bool set_has_end(
    const struct policy_checks *checks, const struct policy_set *set, uint32_t end)
{
    bool *members = calloc(checks->agent_count + checks->policy->target_count + 1, sizeof *members);
    if (!members)
        abort();
    set_members(checks->policy, set, checks->agents, checks->agent_count, members);
    bool is = members[end];
    free(members);
    return is;
}

static void overridden(
    const struct policy_checks *checks, const struct policy_check *check, char text[512])
{
    const policy_t *policy = checks->policy;
    size_t used = 0;
    *text = '\0';
    for (uint32_t r = 0; r < policy->rule_count && used < 512; r++) {
        const struct policy_rule *rule = &policy->rules[r];
        if (check->expected != POLICY_DENY || check->rule == POLICY_UNLISTED ||
            rule->expected != POLICY_ALLOW || !checks->overridden[r] || !has_port(rule, check) ||
            !set_has_end(checks, &rule->from, check->from) ||
            !set_has_end(checks, &rule->to, check->to))
            continue;
        used += (size_t)snprintf(text + used, 512 - used, "%s%s", used ? ", " : "", rule->name);
    }
}

int policy_explain(const policy_t *policy, const struct selector_subject *from,
    const struct selector_subject *to, const char *target, policy_explained *each, void *arg,
    struct policy_error *error)
{
    struct selector_subject agents[2] = {*from};
    size_t count = to ? 2 : 1;
    uint32_t end = 1;
    if (to)
        agents[1] = *to;
    const struct policy_target *found = to ? NULL : target_find(policy, target);
    if (!to && !found) {
        *error = (struct policy_error){.place = {1, 1}};
        snprintf(error->text, sizeof error->text, "no target '%.60s'", target);
        return MESH_E_NOT_FOUND;
    }
    if (found)
        end = (uint32_t)(1 + (found - policy->targets));
    struct policy_checks checks;
    int rc = policy_expand(policy, agents, count, &checks, error);
    for (size_t i = 0; rc == 0 && i < checks.count; i++) {
        const struct policy_check *check = &checks.checks[i];
        char overrides[512];
        if (check->from != 0 || check->to != end)
            continue;
        overridden(&checks, check, overrides);
        each(arg, &checks, check, overrides);
    }
    policy_checks_release(&checks);
    return rc;
}
