// What is doubtful in a policy: nothing of this keeps it from being checked.

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "policy_parts.h"

struct lint {
    const policy_t *policy;
    const char *file;
    FILE *stream;
    size_t warnings;
    const struct policy_ability *abilities; // NULL: the agents are made up
    struct policy_checks checks;
};

static void warn(struct lint *lint, struct policy_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void warn(struct lint *lint, struct policy_place place, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(lint->stream, "%s:%u:%u: warning: ", lint->file, place.line, place.column);
    vfprintf(lint->stream, format, arguments);
    fputc('\n', lint->stream);
    va_end(arguments);
    lint->warnings++;
}

// -------------------------------------------------------------------------------- made-up agents

// Without the real agents: one or two for each group, made of what the group asks for, and one that
// only `any` means. Enough to see where rules meet; no ground to count anything.
struct figure {
    char name[80];
    char address[64];
    const char *addresses[1];
};

static void figure_make(const struct policy_group *group, unsigned number, struct figure *figure,
    struct selector_subject *agent)
{
    const char *word = group && group->agent_count ? group->agents[0] : "";
    size_t size = strlen(word);
    if (size && word[size - 1] == '*')
        snprintf(figure->name, sizeof figure->name, "%.*s%u", (int)(size - 1), word, number);
    else
        snprintf(figure->name, sizeof figure->name, "%s", size ? word : group ? group->name : "-");
    *agent = (struct selector_subject){.name = figure->name, .addresses = figure->addresses};
    if (!group)
        return;
    agent->label_keys = group->label_keys;
    agent->label_values = group->label_values;
    agent->label_count = group->label_count;
    if (group->subnet_count) {
        const struct cidr *subnet = &group->subnets[0];
        inet_ntop(subnet->family == 4 ? AF_INET : AF_INET6, subnet->address, figure->address,
            sizeof figure->address);
        figure->addresses[0] = figure->address;
        agent->address_count = 1;
    }
}

static size_t figures_make(
    const policy_t *policy, struct figure *figures, struct selector_subject *agents)
{
    size_t count = 0;
    for (size_t g = 0; g < policy->group_count; g++)
        for (unsigned n = 0; n < 2; n++, count++)
            figure_make(&policy->groups[g], n, &figures[count], &agents[count]);
    figure_make(NULL, 0, &figures[count], &agents[count]);
    return count + 1;
}

// ------------------------------------------------------------------------------------ the rules

static void lint_unused(struct lint *lint)
{
    const policy_t *policy = lint->policy;
    for (size_t g = 0; g < policy->group_count + policy->target_count; g++) {
        bool group = g < policy->group_count, used = false;
        size_t index = group ? g : g - policy->group_count;
        for (size_t r = 0; r < policy->rule_count; r++)
            for (int end = 0; end < 2; end++) {
                const struct policy_set *set = end ? &policy->rules[r].to : &policy->rules[r].from;
                for (size_t i = 0; i < set->count; i++)
                    used = used || (set->terms[i].index == index &&
                                       set->terms[i].kind ==
                                           (group ? POLICY_TERM_GROUP : POLICY_TERM_TARGET));
            }
        if (!used && group)
            warn(lint, policy->groups[index].place, "no rule speaks of the group '%s'",
                policy->groups[index].name);
        else if (!used)
            warn(lint, policy->targets[index].place, "no rule speaks of the target '%s'",
                policy->targets[index].name);
    }
}

static void lint_empty(struct lint *lint, const struct selector_subject *agents, size_t count)
{
    const policy_t *policy = lint->policy;
    for (size_t g = 0; g < policy->group_count; g++) {
        bool empty = true;
        for (size_t i = 0; i < count && empty; i++)
            empty = !group_has(&policy->groups[g], &agents[i]);
        if (empty)
            warn(lint, policy->groups[g].place, "no agent is in the group '%s'",
                policy->groups[g].name);
    }
    for (size_t i = 0; i < lint->checks.count; i++) {
        const struct policy_check *check = &lint->checks.checks[i];
        char why[256];
        if (check->kind)
            continue;
        policy_check_empty(&lint->checks, check, why);
        warn(lint, policy->rules[check->rule].place, "the rule '%s' tests nothing: %s",
            policy->rules[check->rule].name, why);
    }
}

static void lint_meetings(struct lint *lint)
{
    const policy_t *policy = lint->policy;
    for (size_t r = 0; r < policy->rule_count; r++) {
        const struct policy_rule *rule = &policy->rules[r];
        if (lint->checks.overridden[r]) {
            const struct policy_rule *by = &policy->rules[lint->checks.overridden_by[r]];
            warn(lint, rule->place,
                "contradiction: '%s' (line %u) denies what '%s' allows%s; deny wins", by->name,
                by->place.line, rule->name,
                lint->checks.made[r] ? " on some pairs and ports" : " everywhere");
        }
        if (lint->checks.overlapped[r]) {
            const struct policy_rule *with = &policy->rules[lint->checks.overlapped_with[r]];
            warn(lint, rule->place, "overlap: '%s' says what '%s' (line %u) says already%s",
                rule->name, with->name, with->place.line,
                lint->checks.overlapped[r] < lint->checks.made[r] ? " of some pairs and ports"
                                                                  : "");
        }
    }
}

static bool has_protocol(const struct policy_rule *rule, enum policy_protocol protocol)
{
    for (size_t i = 0; i < rule->port_count; i++)
        if (rule->ports[i].protocol == protocol)
            return true;
    for (size_t i = 0; i < rule->limit_count && protocol == POLICY_SCTP; i++) {
        size_t count;
        if (policy_quantities(&count)[rule->limits[i].quantity].kind == TEST_SCTP)
            return true;
    }
    return false;
}

static bool has_low_port(const struct policy_rule *rule)
{
    for (size_t i = 0; i < rule->port_count; i++)
        if (rule->ports[i].first < 1024)
            return true;
    return false;
}

// How many agents of a rule's end cannot, and why one of them cannot.
static size_t cannot(const struct lint *lint, const struct policy_set *set, bool sctp,
    size_t *members, const char **why)
{
    const struct policy_checks *checks = &lint->checks;
    size_t count = 0, all = checks->agent_count + lint->policy->target_count;
    bool *marks = calloc(all + 1, sizeof *marks);
    if (!marks)
        abort();
    set_members(lint->policy, set, checks->agents, checks->agent_count, marks);
    *members = 0;
    for (size_t i = 0; i < checks->agent_count; i++) {
        const char *reason = sctp ? lint->abilities[i].sctp : lint->abilities[i].low_ports;
        *members += marks[i];
        if (marks[i] && reason) {
            count++;
            *why = reason;
        }
    }
    free(marks);
    return count;
}

static void lint_abilities(struct lint *lint)
{
    const policy_t *policy = lint->policy;
    for (size_t r = 0; r < policy->rule_count; r++) {
        const struct policy_rule *rule = &policy->rules[r];
        size_t members, count;
        const char *why = "";
        for (int end = 0; end < 2 && has_protocol(rule, POLICY_SCTP); end++) {
            count = cannot(lint, end ? &rule->to : &rule->from, true, &members, &why);
            if (count)
                warn(lint, rule->place, "'%s': %zu of %zu agents in '%s' cannot test sctp: %s",
                    rule->name, count, members, end ? rule->to.text : rule->from.text, why);
        }
        if (!has_low_port(rule) || rule->wish == POLICY_WISH_SERVICE)
            continue;
        count = cannot(lint, &rule->to, false, &members, &why);
        if (count)
            warn(lint, rule->place,
                "'%s': %zu of %zu agents in '%s' cannot listen below port 1024: %s", rule->name,
                count, members, rule->to.text, why);
    }
}

// Where no agent is, silence proves a block for tcp only.
static void lint_targets(struct lint *lint)
{
    const policy_t *policy = lint->policy;
    for (size_t r = 0; r < policy->rule_count; r++) {
        const struct policy_rule *rule = &policy->rules[r];
        if (!has_protocol(rule, POLICY_UDP) && !has_protocol(rule, POLICY_SCTP))
            continue;
        for (size_t i = 0; i < rule->to.count; i++)
            if (rule->to.terms[i].kind == POLICY_TERM_TARGET && !rule->to.terms[i].except)
                warn(lint, rule->place,
                    "'%s': silence of udp or sctp at the target '%s' proves nothing, since no "
                    "agent is there",
                    rule->name, policy->targets[rule->to.terms[i].index].name);
    }
}

// ---------------------------------------------------------------------------------- the whole

static void counts(struct lint *lint)
{
    const policy_t *policy = lint->policy;
    size_t cells;
    free(policy_cells(&lint->checks, &cells));
    for (size_t r = 0; r <= policy->rule_count; r++) {
        if (r == policy->rule_count && policy->unlisted == POLICY_IGNORE)
            break;
        fprintf(lint->stream, "%9u checks  %s%s%s\n", lint->checks.made[r],
            policy_rule_name(policy, r < policy->rule_count ? (uint32_t)r : POLICY_UNLISTED),
            lint->checks.overridden[r] ? ", others decided by " : "",
            lint->checks.overridden[r] ? policy->rules[lint->checks.overridden_by[r]].name : "");
    }
    fprintf(lint->stream, "%9zu checks in all with %zu agents, from %zu measurements\n",
        lint->checks.count, lint->checks.agent_count, cells);
}

size_t policy_lint(const policy_t *policy, const char *file, const struct selector_subject *agents,
    const struct policy_ability *abilities, size_t count, FILE *stream)
{
    struct lint lint = {.policy = policy, .file = file, .stream = stream, .abilities = abilities};
    struct policy_error error;
    size_t room = 2 * policy->group_count + 1;
    struct figure *figures = calloc(room, sizeof *figures);
    struct selector_subject *made_up = calloc(room, sizeof *made_up);
    if (!figures || !made_up)
        abort();
    bool real = agents != NULL;
    if (!real) {
        agents = made_up;
        count = figures_make(policy, figures, made_up);
    }
    lint_unused(&lint);
    int rc = policy_expand(policy, agents, count, &lint.checks, &error);
    if (rc != 0 && real)
        warn(&lint, error.place, "%s", error.text);
    if (rc == 0) {
        if (real)
            lint_empty(&lint, agents, count);
        lint_meetings(&lint);
        lint_targets(&lint);
        if (real && abilities)
            lint_abilities(&lint);
        fprintf(stream, "policy %s: %zu rules, %zu groups, %zu targets, %zu warnings\n",
            policy->name, policy->rule_count, policy->group_count, policy->target_count,
            lint.warnings);
        if (real)
            counts(&lint);
    }
    policy_checks_release(&lint.checks);
    free(figures);
    free(made_up);
    return lint.warnings;
}
