// A policy's top level: names, defaults, groups, targets. Rules are read last, when all else is
// known.

#include "policy.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "identity.h"
#include "policy_parts.h"
#include "units.h"

// ----------------------------------------------------------------------------------- defaults

static bool read_unlisted(struct reader *reader, const struct node *node, void *target)
{
    static const char *const words[] = {"ignore", "allow", "deny"};
    unsigned index;
    policy_t *policy = target;
    if (!read_word(reader, node, "what holds for the unlisted", words, COUNT(words), &index))
        return false;
    policy->unlisted = (enum policy_expected)index;
    policy->unlisted_place = node->key_place;
    return true;
}

static bool read_any_ports(struct reader *reader, const struct node *node, void *target)
{
    policy_t *policy = target;
    const char *text;
    return read_ports(reader, node, false, &policy->ports, &policy->port_count, &text);
}

static bool read_attempts(struct reader *reader, const struct node *node, void *target)
{
    uint64_t count;
    if (!need_text(reader, node, "a number of attempts"))
        return false;
    if (units_count(node->text, 1, TESTSPEC_ATTEMPTS_MAX, &count) != 0)
        return fail(reader, node->place, "'%.100s' is no number of attempts: expected 1 to %d",
            node->text, TESTSPEC_ATTEMPTS_MAX);
    ((policy_t *)target)->attempts = (unsigned)count;
    return true;
}

static bool read_timeout(struct reader *reader, const struct node *node, void *target)
{
    return read_duration(reader, node, "a timeout", TESTSPEC_TIMEOUT_MIN_NS,
        TESTSPEC_TIMEOUT_MAX_NS, &((policy_t *)target)->timeout_ns);
}

static bool read_rate(struct reader *reader, const struct node *node, void *target)
{
    uint64_t rate;
    if (!need_text(reader, node, "a rate of probes"))
        return false;
    if (units_count(node->text, 1, (uint64_t)TESTSPEC_AGENT_RATE_MAX, &rate) != 0)
        return fail(reader, node->place,
            "'%.100s' is no rate of probes: expected a number a second, from 1 to %.0f", node->text,
            (double)TESTSPEC_AGENT_RATE_MAX);
    ((policy_t *)target)->rate = (double)rate;
    return true;
}

static bool read_time(struct reader *reader, const struct node *node, void *target)
{
    return read_duration(reader, node, "a measured time", TESTSPEC_DURATION_MIN_NS,
        INT64_C(3600000000000), &((policy_t *)target)->time_ns);
}

static bool read_defaults(struct reader *reader, const struct node *node, void *target)
{
    static const struct key keys[] = {{"unlisted", read_unlisted}, {"ports", read_any_ports},
        {"attempts", read_attempts}, {"timeout", read_timeout}, {"rate", read_rate},
        {"time", read_time}};
    return read_map(reader, node, "defaults", keys, COUNT(keys), target);
}

// ------------------------------------------------------------------------------------- groups

// What may name a group or a target: a word that cannot be taken for the language around it.
static bool read_name(struct reader *reader, const struct node *node, const char *what)
{
    static const char *const reserved[] = {"any", "except"};
    for (size_t i = 0; i < COUNT(reserved); i++)
        if (strcmp(node->key, reserved[i]) == 0)
            return fail(reader, node->key_place, "'%s' has a meaning of its own and names no %s",
                node->key, what);
    return identity_name_valid(node->key) || fail(reader, node->key_place,
                                                 "'%.100s' is no name of a %s: expected letters, "
                                                 "digits, '.', '_' and '-', at most 63",
                                                 node->key, what);
}

struct label_room {
    struct policy_group *group;
    const char *key;
};

static bool read_label_value(struct reader *reader, const struct node *node, void *target)
{
    struct label_room *room = target;
    if (!identity_label_valid(room->key, node->text))
        return fail(reader, node->place, "'%.100s' is no value of the label '%.60s'", node->text,
            room->key);
    room->group->label_keys[room->group->label_count] = room->key;
    room->group->label_values[room->group->label_count++] = node->text;
    return true;
}

static bool read_labels(struct reader *reader, const struct node *node, void *target)
{
    struct policy_group *group = target;
    size_t room = 0;
    if (node->type != NODE_MAP || node->count == 0)
        return fail(reader, node->place, "expected labels as a mapping such as {tier: web}");
    for (const struct node *child = node->first; child; child = child->next)
        room += child->type == NODE_LIST ? child->count : 1;
    group->label_keys = pool_get(reader->pool, room * sizeof *group->label_keys);
    group->label_values = pool_get(reader->pool, room * sizeof *group->label_values);
    for (const struct node *child = node->first; child; child = child->next) {
        struct label_room label = {group, child->key};
        if (!identity_label_valid(child->key, "x"))
            return fail(reader, child->key_place, "'%.100s' is no key of a label", child->key);
        if (!read_texts(reader, child, "a label's value", 1024, read_label_value, &label))
            return false;
    }
    return true;
}

static bool read_subnet(struct reader *reader, const struct node *node, void *target)
{
    struct policy_group *group = target;
    if (cidr_parse(node->text, &group->subnets[group->subnet_count]) != 0)
        return fail(reader, node->place,
            "'%.100s' is no subnet: expected an address or a prefix such as '10.1.0.0/16'",
            node->text);
    group->subnet_count++;
    return true;
}

static bool read_subnets(struct reader *reader, const struct node *node, void *target)
{
    struct policy_group *group = target;
    group->subnets = pool_get(reader->pool, (node->count + 1) * sizeof *group->subnets);
    return read_texts(reader, node, "a subnet", 4096, read_subnet, group);
}

static bool read_agent_name(struct reader *reader, const struct node *node, void *target)
{
    struct policy_group *group = target;
    size_t size = strlen(node->text);
    char name[IDENTITY_NAME_SIZE];
    bool star = node->text[size - 1] == '*';
    snprintf(name, sizeof name, "%.*s", (int)(size - star), node->text);
    if (size >= sizeof name || !(identity_name_valid(name) || (star && size == 1)))
        return fail(reader, node->place,
            "'%.100s' is no agent: expected a name, or the beginning of one and '*'", node->text);
    group->agents[group->agent_count++] = node->text;
    return true;
}

static bool read_agents(struct reader *reader, const struct node *node, void *target)
{
    struct policy_group *group = target;
    group->agents = pool_get(reader->pool, (node->count + 1) * sizeof *group->agents);
    return read_texts(reader, node, "an agent's name", 20000, read_agent_name, group);
}

static bool read_group(struct reader *reader, const struct node *node, struct policy_group *group)
{
    static const struct key keys[] = {
        {"labels", read_labels}, {"subnets", read_subnets}, {"agents", read_agents}};
    group->name = node->key;
    group->place = node->key_place;
    if (!read_name(reader, node, "group"))
        return false;
    if (node->type == NODE_MAP && node->count == 0)
        return fail(reader, node->place,
            "the group '%s' says nothing: expected labels, subnets or agents", group->name);
    return read_map(reader, node, "a group", keys, COUNT(keys), group);
}

static int by_group(const void *a, const void *b)
{
    const struct policy_group *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static bool read_groups(struct reader *reader, const struct node *node, void *target)
{
    policy_t *policy = target;
    if (node->type != NODE_MAP)
        return fail(reader, node->place,
            "expected groups as a mapping of names, such as web: {labels: {tier: web}}");
    if (node->count > POLICY_GROUPS_MAX)
        return fail(reader, node->place, "there are over %d groups", POLICY_GROUPS_MAX);
    policy->groups = pool_get(reader->pool, (node->count + 1) * sizeof *policy->groups);
    for (const struct node *child = node->first; child; child = child->next)
        if (!read_group(reader, child, &policy->groups[policy->group_count++]))
            return false;
    qsort(policy->groups, policy->group_count, sizeof *policy->groups, by_group);
    return true;
}

const struct policy_group *group_find(const policy_t *policy, const char *name)
{
    struct policy_group key = {.name = name};
    return policy->group_count
               ? bsearch(&key, policy->groups, policy->group_count, sizeof key, by_group)
               : NULL;
}

// ------------------------------------------------------------------------------------ targets

static bool read_address(struct reader *reader, const struct node *node, void *target)
{
    unsigned char bytes[16];
    if (!need_text(reader, node, "an address"))
        return false;
    if (inet_pton(AF_INET, node->text, bytes) != 1 && inet_pton(AF_INET6, node->text, bytes) != 1)
        return fail(reader, node->place,
            "'%.100s' is no address: expected a numeric one such as 10.9.0.7", node->text);
    ((struct policy_target *)target)->address = node->text;
    return true;
}

static int by_target(const void *a, const void *b)
{
    const struct policy_target *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static bool read_target(
    struct reader *reader, const struct node *node, struct policy_target *target)
{
    static const struct key keys[] = {{"address", read_address}};
    target->name = node->key;
    target->place = node->key_place;
    if (!read_name(reader, node, "target") || !read_map(reader, node, "a target", keys, 1, target))
        return false;
    if (!target->address)
        return fail(reader, node->place, "the target '%s' has no address", target->name);
    return !group_find(reader->policy, target->name) ||
           fail(reader, node->key_place, "'%s' is a group already", target->name);
}

static bool read_targets(struct reader *reader, const struct node *node, void *target)
{
    policy_t *policy = target;
    if (node->type != NODE_MAP)
        return fail(reader, node->place,
            "expected targets as a mapping of names, such as printer: {address: 10.9.0.7}");
    if (node->count > POLICY_GROUPS_MAX)
        return fail(reader, node->place, "there are over %d targets", POLICY_GROUPS_MAX);
    policy->targets = pool_get(reader->pool, (node->count + 1) * sizeof *policy->targets);
    for (const struct node *child = node->first; child; child = child->next)
        if (!read_target(reader, child, &policy->targets[policy->target_count++]))
            return false;
    qsort(policy->targets, policy->target_count, sizeof *policy->targets, by_target);
    return true;
}

const struct policy_target *target_find(const policy_t *policy, const char *name)
{
    struct policy_target key = {.name = name};
    return policy->target_count
               ? bsearch(&key, policy->targets, policy->target_count, sizeof key, by_target)
               : NULL;
}

// ---------------------------------------------------------------------------------- the whole

static bool read_policy_name(struct reader *reader, const struct node *node, void *target)
{
    if (!need_text(reader, node, "the policy's name"))
        return false;
    if (strlen(node->text) > POLICY_NAME_MAX)
        return fail(reader, node->place, "the policy's name has over %d bytes", POLICY_NAME_MAX);
    ((policy_t *)target)->name = node->text;
    return true;
}

static bool read_version(struct reader *reader, const struct node *node, void *target)
{
    (void)target;
    if (!need_text(reader, node, "a version"))
        return false;
    return strcmp(node->text, "1") == 0 ||
           fail(reader, node->place, "version '%.60s' is not known here: expected 1", node->text);
}

static bool read_later(struct reader *reader, const struct node *node, void *target)
{
    (void)reader;
    (void)node;
    (void)target;
    return true;
}

static const struct node *child_of(const struct node *node, const char *key)
{
    for (const struct node *child = node->first; child; child = child->next)
        if (strcmp(child->key, key) == 0)
            return child;
    return NULL;
}

// Each part where the parts that it speaks of are known, in whatever order they stand.
static bool read_parts(struct reader *reader, const struct node *root)
{
    static const struct key keys[] = {{"policy", read_policy_name}, {"version", read_version},
        {"groups", read_groups}, {"targets", read_later}, {"defaults", read_defaults},
        {"rules", read_later}};
    policy_t *policy = reader->policy;
    if (!read_map(reader, root, "a policy", keys, COUNT(keys), policy))
        return false;
    if (!policy->name)
        return fail(reader, root->place, "expected the policy's name, 'policy: NAME'");
    const struct node *targets = child_of(root, "targets"), *rules = child_of(root, "rules");
    if (targets && !read_targets(reader, targets, policy))
        return false;
    if (rules && !read_rules(reader, rules))
        return false;
    return policy->rule_count > 0 || policy->unlisted != POLICY_IGNORE ||
           fail(reader, rules ? rules->place : root->place,
               "the policy says nothing: expected rules, or defaults with unlisted: deny");
}

policy_t *policy_parse(const char *text, size_t size, struct policy_error *error)
{
    pool_t *pool = pool_new();
    policy_t *policy = pool_get(pool, sizeof *policy);
    struct reader reader = {.pool = pool, .policy = policy, .error = error};
    policy->memory = pool;
    policy->attempts = TESTSPEC_ATTEMPTS_DEFAULT;
    policy->timeout_ns = TESTSPEC_TIMEOUT_DEFAULT_NS;
    const struct node *root = tree_parse(pool, text, size, error);
    if (root && read_parts(&reader, root))
        return policy;
    policy_destroy(&policy);
    return NULL;
}

void policy_destroy(policy_t **self_p)
{
    if (!*self_p)
        return;
    pool_t *pool = (*self_p)->memory;
    *self_p = NULL;
    pool_destroy(&pool);
}

static const char *word_at(const char *const *words, size_t count, unsigned index)
{
    return index < count && words[index] ? words[index] : "?";
}

const char *policy_protocol_word(enum policy_protocol protocol)
{
    static const char *const words[] = {NULL, "tcp", "udp", "sctp"};
    return word_at(words, COUNT(words), protocol);
}

const char *policy_expected_word(enum policy_expected expected)
{
    static const char *const words[] = {"ignore", "allow", "deny", "expect"};
    return word_at(words, COUNT(words), expected);
}

const char *policy_how_word(enum policy_how how)
{
    static const char *const words[] = {"any", "filtered", "rejected", "refused"};
    return word_at(words, COUNT(words), how);
}
