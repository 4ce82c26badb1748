// Who is in a group, and who is meant by a set.

#include <stdlib.h>
#include <string.h>

#include "policy_parts.h"

static const char *label_of(const struct selector_subject *agent, const char *key)
{
    for (size_t i = 0; i < agent->label_count; i++)
        if (strcmp(agent->label_keys[i], key) == 0)
            return agent->label_values[i];
    return NULL;
}

// Each key with one of its values.
static bool labels_match(const struct policy_group *group, const struct selector_subject *agent)
{
    for (size_t i = 0; i < group->label_count;) {
        const char *key = group->label_keys[i], *value = label_of(agent, key);
        bool match = false;
        for (; i < group->label_count && group->label_keys[i] == key; i++)
            match = match || (value && strcmp(value, group->label_values[i]) == 0);
        if (!match)
            return false;
    }
    return true;
}

static bool subnets_match(const struct policy_group *group, const struct selector_subject *agent)
{
    for (size_t i = 0; i < group->subnet_count; i++)
        for (size_t k = 0; k < agent->address_count; k++)
            if (cidr_contains(&group->subnets[i], agent->addresses[k]))
                return true;
    return group->subnet_count == 0;
}

static bool names_match(const struct policy_group *group, const struct selector_subject *agent)
{
    for (size_t i = 0; i < group->agent_count; i++) {
        const char *word = group->agents[i];
        size_t size = strlen(word);
        bool star = word[size - 1] == '*';
        if (star ? strncmp(word, agent->name, size - 1) == 0 : strcmp(word, agent->name) == 0)
            return true;
    }
    return group->agent_count == 0;
}

bool group_has(const struct policy_group *group, const struct selector_subject *agent)
{
    return labels_match(group, agent) && names_match(group, agent) && subnets_match(group, agent);
}

static bool term_has_agent(
    const policy_t *policy, const struct policy_term *term, const struct selector_subject *agent)
{
    if (term->kind == POLICY_TERM_GROUP)
        return group_has(&policy->groups[term->index], agent);
    return term->kind == POLICY_TERM_ANY;
}

// An item's names before `except` are united, those behind are taken out; items are united.
static bool set_has(const policy_t *policy, const struct policy_set *set,
    const struct selector_subject *agent, uint32_t target)
{
    for (size_t i = 0; i < set->count;) {
        uint32_t item = set->terms[i].item;
        bool in = false, out = false;
        for (; i < set->count && set->terms[i].item == item; i++) {
            const struct policy_term *term = &set->terms[i];
            bool *side = term->except ? &out : &in;
            if (*side)
                continue;
            *side = agent ? term_has_agent(policy, term, agent)
                          : term->kind == POLICY_TERM_TARGET && term->index == target;
        }
        if (in && !out)
            return true;
    }
    return false;
}

void set_members(const policy_t *policy, const struct policy_set *set,
    const struct selector_subject *agents, size_t count, bool *members)
{
    for (size_t i = 0; i < count; i++)
        members[i] = set_has(policy, set, &agents[i], 0);
    for (uint32_t t = 0; t < policy->target_count; t++)
        members[count + t] = set_has(policy, set, NULL, t);
}
