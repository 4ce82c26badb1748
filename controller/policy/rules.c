// Rules: sentences of from, to, and one of allow, deny, expect.

#include <stdlib.h>
#include <string.h>

#include "policy_parts.h"
#include "units.h"

struct rule_room {
    struct policy_rule *rule;
    const struct node *how, *listener, *unsupported, *pairs, *verb, *from; // where they stand
};

static bool rule_name(struct reader *reader, const struct node *node, void *target)
{
    struct rule_room *room = target;
    if (!need_text(reader, node, "a rule's name"))
        return false;
    room->rule->name = node->text;
    if (strcmp(node->text, "unlisted") == 0)
        return fail(
            reader, node->place, "'unlisted' stands for what no rule mentions and names no rule");
    return strlen(node->text) <= POLICY_NAME_MAX ||
           fail(reader, node->place, "a rule's name has over %d bytes", POLICY_NAME_MAX);
}

static bool rule_from(struct reader *reader, const struct node *node, void *target)
{
    struct rule_room *room = target;
    room->from = node;
    return read_set(reader, node, &room->rule->from);
}

static bool rule_to(struct reader *reader, const struct node *node, void *target)
{
    return read_set(reader, node, &((struct rule_room *)target)->rule->to);
}

static bool verb(struct reader *reader, const struct node *node, struct rule_room *room,
    enum policy_expected expected)
{
    if (room->verb)
        return fail(reader, node->key_place,
            "a rule has one of allow, deny and expect; this one has '%s' already", room->verb->key);
    room->verb = node;
    room->rule->expected = expected;
    if (expected == POLICY_EXPECT)
        return read_expect(reader, node, room->rule);
    return read_ports(
        reader, node, true, &room->rule->ports, &room->rule->port_count, &room->rule->ports_text);
}

static bool rule_allow(struct reader *reader, const struct node *node, void *target)
{
    return verb(reader, node, target, POLICY_ALLOW);
}

static bool rule_deny(struct reader *reader, const struct node *node, void *target)
{
    return verb(reader, node, target, POLICY_DENY);
}

static bool rule_expect(struct reader *reader, const struct node *node, void *target)
{
    return verb(reader, node, target, POLICY_EXPECT);
}

static bool rule_how(struct reader *reader, const struct node *node, void *target)
{
    static const char *const words[] = {"any", "filtered", "rejected", "refused"};
    struct rule_room *room = target;
    unsigned index;
    room->how = node;
    if (!read_word(reader, node, "how a denied port is blocked", words, COUNT(words), &index))
        return false;
    room->rule->how = (enum policy_how)index;
    return true;
}

static bool rule_listener(struct reader *reader, const struct node *node, void *target)
{
    static const char *const words[] = {"agent", "service", "either"};
    struct rule_room *room = target;
    unsigned index;
    room->listener = node;
    if (!read_word(reader, node, "a listener", words, COUNT(words), &index))
        return false;
    room->rule->wish = (enum policy_wish)index;
    return true;
}

static bool rule_unsupported(struct reader *reader, const struct node *node, void *target)
{
    static const char *const words[] = {"skip", "fail"};
    struct rule_room *room = target;
    unsigned index;
    room->unsupported = node;
    if (!read_word(reader, node, "what unsupported means", words, COUNT(words), &index))
        return false;
    room->rule->unsupported_fails = index == 1;
    return true;
}

static bool rule_pairs(struct reader *reader, const struct node *node, void *target)
{
    struct rule_room *room = target;
    char word[32];
    room->pairs = node;
    if (!need_text(reader, node, "a share of the pairs"))
        return false;
    return (without_blanks(node->text, word, sizeof word) &&
               units_percent(word, &room->rule->pairs) == 0 && room->rule->pairs > 0 &&
               room->rule->pairs <= 1) ||
           fail(reader, node->place, "'%.100s' is no share of the pairs: expected such as 95 %%",
               node->text);
}

// -------------------------------------------------------------------- what belongs together

static bool is_complete(
    struct reader *reader, const struct node *node, const struct rule_room *room)
{
    const struct policy_rule *rule = room->rule;
    if (!rule->name)
        return fail(
            reader, node->place, "a rule has no name: expected such as name: web may reach db");
    if (rule->from.count == 0 || rule->to.count == 0)
        return fail(reader, node->place, "the rule '%.100s' has no '%s'", rule->name,
            rule->from.count == 0 ? "from" : "to");
    return room->verb || fail(reader, node->place,
                             "the rule '%.100s' has none of allow, deny and expect", rule->name);
}

static bool is_consistent(struct reader *reader, const struct rule_room *room)
{
    const struct policy_rule *rule = room->rule;
    if (room->how && rule->expected != POLICY_DENY)
        return fail(reader, room->how->key_place,
            "'how' says how a port is denied; this rule has '%s'", room->verb->key);
    if (room->listener && rule->expected == POLICY_EXPECT)
        return fail(reader, room->listener->key_place,
            "'listener' belongs to allow and deny; this rule has 'expect'");
    if (room->pairs && rule->expected == POLICY_DENY)
        return fail(reader, room->pairs->key_place,
            "a deny holds for all pairs; 'pairs' belongs to allow and expect");
    for (size_t i = 0; i < rule->from.count; i++)
        if (rule->from.terms[i].kind == POLICY_TERM_TARGET)
            return fail(reader, room->from->place,
                "no agent runs on the target '%s', so that nothing can be sent from it",
                reader->policy->targets[rule->from.terms[i].index].name);
    for (size_t i = 0; i < rule->to.count && rule->expected == POLICY_EXPECT; i++)
        if (rule->to.terms[i].kind == POLICY_TERM_TARGET && !rule->to.terms[i].except)
            return fail(reader, room->verb->key_place,
                "no agent runs on the target '%s', so that nothing can be measured to it",
                reader->policy->targets[rule->to.terms[i].index].name);
    return true;
}

static bool read_rule(struct reader *reader, const struct node *node, struct policy_rule *rule)
{
    static const struct key keys[] = {{"name", rule_name}, {"from", rule_from}, {"to", rule_to},
        {"allow", rule_allow}, {"deny", rule_deny}, {"expect", rule_expect}, {"how", rule_how},
        {"listener", rule_listener}, {"unsupported", rule_unsupported}, {"pairs", rule_pairs}};
    struct rule_room room = {.rule = rule};
    rule->place = node->place;
    rule->pairs = 1;
    return read_map(reader, node, "a rule", keys, COUNT(keys), &room) &&
           is_complete(reader, node, &room) && is_consistent(reader, &room);
}

static int by_name(const void *a, const void *b)
{
    const struct policy_rule *const *left = a, *const *right = b;
    int order = strcmp((*left)->name, (*right)->name);
    if (order == 0)
        order = (int)(*left)->place.line - (int)(*right)->place.line;
    return order ? order : (int)(*left)->place.column - (int)(*right)->place.column;
}

// Reports go by the names of rules.
static bool names_differ(struct reader *reader)
{
    const policy_t *policy = reader->policy;
    const struct policy_rule **rules =
        malloc((policy->rule_count + 1) * sizeof(struct policy_rule *));
    const struct policy_rule *twice = NULL;
    if (!rules)
        abort();
    for (size_t i = 0; i < policy->rule_count; i++)
        rules[i] = &policy->rules[i];
    qsort(rules, policy->rule_count, sizeof(struct policy_rule *), by_name);
    for (size_t i = 1; i < policy->rule_count && !twice; i++)
        if (strcmp(rules[i - 1]->name, rules[i]->name) == 0)
            twice = rules[i];
    free(rules);
    return !twice || fail(reader, twice->place, "two rules have the name '%.100s'", twice->name);
}

bool read_rules(struct reader *reader, const struct node *node)
{
    policy_t *policy = reader->policy;
    if (node->type != NODE_LIST)
        return fail(reader, node->place,
            "expected rules as a list, such as - {name: web may reach db, from: web, to: db, "
            "allow: tcp/5432}");
    if (node->count > POLICY_RULES_MAX)
        return fail(reader, node->place, "there are over %d rules", POLICY_RULES_MAX);
    policy->rules = pool_get(reader->pool, (node->count + 1) * sizeof *policy->rules);
    for (const struct node *child = node->first; child; child = child->next)
        if (!read_rule(reader, child, &policy->rules[policy->rule_count++]))
            return false;
    return names_differ(reader);
}
