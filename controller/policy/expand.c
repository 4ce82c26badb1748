// Rules and agents to checks. Where rules meet on a pair and port, deny decides.

#include "policy.h"

#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "policy_parts.h"

#define NONE UINT32_MAX

// --------------------------------------------------------------------- what rules mention

// Per pair and port the first rule that allows and the first that denies.
struct mention {
    uint64_t key; // 0: free
    uint32_t allow, deny;
};

struct mentions {
    struct mention *slots;
    size_t mask;
};

static void *get(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);
    if (!memory)
        abort();
    return memory;
}

// Never 0: a port is at least 1.
static uint64_t key_of(uint32_t from, uint32_t to, unsigned protocol, unsigned port)
{
    return (uint64_t)from << 41 | (uint64_t)to << 18 | (uint64_t)protocol << 16 | port;
}

static struct mention *mention_at(const struct mentions *self, uint64_t key)
{
    size_t slot = (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 20) & self->mask;
    while (self->slots[slot].key && self->slots[slot].key != key)
        slot = (slot + 1) & self->mask;
    return &self->slots[slot];
}

static void mentions_make(struct mentions *self, size_t most)
{
    size_t size = 64;
    while (size < 2 * most)
        size *= 2;
    self->slots = get(size, sizeof *self->slots);
    self->mask = size - 1;
}

// ------------------------------------------------------------------------------------ ends

struct ends {
    uint32_t *from, *to;
    size_t from_count, to_count;
};

struct expansion {
    const policy_t *policy;
    struct policy_checks *out;
    bool *members;
    struct ends ends; // of the rule at hand
    struct mentions mentions;
    size_t room;
    struct policy_ports *every; // what is tried for the unlisted
    size_t every_count;
};

static size_t gather(const bool *members, size_t count, uint32_t *indices)
{
    size_t found = 0;
    for (uint32_t i = 0; i < count; i++)
        if (members[i])
            indices[found++] = i;
    return found;
}

static void find_ends(struct expansion *self, const struct policy_rule *rule)
{
    size_t agents = self->out->agent_count, all = agents + self->policy->target_count;
    set_members(self->policy, &rule->from, self->out->agents, agents, self->members);
    self->ends.from_count = gather(self->members, agents, self->ends.from);
    set_members(self->policy, &rule->to, self->out->agents, agents, self->members);
    self->ends.to_count = gather(self->members, all, self->ends.to);
}

// Every pair of the rule at hand.
#define EACH_PAIR(self, a, b)                                                                      \
    for (size_t f_ = 0; f_ < (self)->ends.from_count; f_++)                                        \
        for (size_t t_ = 0; t_ < (self)->ends.to_count; t_++)                                      \
            if (((a) = (self)->ends.from[f_]) != ((b) = (self)->ends.to[t_]))

#define EACH_PORT(list, count, protocol_, port_)                                                   \
    for (size_t p_ = 0; p_ < (count); p_++)                                                        \
        for (unsigned port_ = (list)[p_].first, protocol_ = (list)[p_].protocol;                   \
             port_ <= (list)[p_].last; port_++)

static size_t numbers_of(const struct policy_ports *ports, size_t count)
{
    size_t numbers = 0;
    for (size_t i = 0; i < count; i++)
        numbers += ports[i].last - ports[i].first + 1u;
    return numbers;
}

static unsigned kinds_of(const struct policy_rule *rule)
{
    size_t count;
    const struct policy_quantity *quantities = policy_quantities(&count);
    unsigned kinds = 0;
    for (size_t i = 0; i < rule->limit_count; i++)
        kinds |= 1u << quantities[rule->limits[i].quantity].kind;
    return kinds;
}

// ------------------------------------------------------------------------------------ sizes

static int too_many(struct policy_error *error, struct policy_place place)
{
    error->place = place;
    snprintf(error->text, sizeof error->text,
        "the policy makes over %d checks with these agents; narrow its groups or ports",
        POLICY_CHECKS_MAX);
    return MESH_E_RANGE;
}

// At most so many, before anything is made of them.
static int count_all(struct expansion *self, struct policy_error *error)
{
    const policy_t *policy = self->policy;
    size_t agents = self->out->agent_count;
    for (size_t r = 0; r < policy->rule_count; r++) {
        const struct policy_rule *rule = &policy->rules[r];
        find_ends(self, rule);
        size_t each = rule->expected == POLICY_EXPECT ? (size_t)__builtin_popcount(kinds_of(rule))
                                                      : numbers_of(rule->ports, rule->port_count);
        self->room += self->ends.from_count * self->ends.to_count * each + 1;
        if (self->room > POLICY_CHECKS_MAX)
            return too_many(error, rule->place);
    }
    if (policy->unlisted != POLICY_IGNORE)
        self->room += agents * agents * numbers_of(self->every, self->every_count);
    return self->room > POLICY_CHECKS_MAX ? too_many(error, policy->unlisted_place) : 0;
}

// What is tried for pairs that no rule mentions: the ports of `any`, else those of the rules.
static void find_every(struct expansion *self)
{
    const policy_t *policy = self->policy;
    self->every = policy->ports;
    self->every_count = policy->port_count;
    if (policy->port_count || policy->unlisted == POLICY_IGNORE)
        return;
    size_t room = 0;
    for (size_t r = 0; r < policy->rule_count; r++)
        room += policy->rules[r].port_count;
    self->every = get(room, sizeof *self->every);
    for (size_t r = 0; r < policy->rule_count; r++)
        for (size_t p = 0; p < policy->rules[r].port_count; p++)
            self->every[self->every_count++] = policy->rules[r].ports[p];
    if (self->every_count)
        self->every_count = ports_merge(self->every, self->every_count);
}

// ------------------------------------------------------------------------------------- passes

static void mention_all(struct expansion *self)
{
    const policy_t *policy = self->policy;
    for (uint32_t r = 0; r < policy->rule_count; r++) {
        const struct policy_rule *rule = &policy->rules[r];
        uint32_t from, to;
        if (rule->expected == POLICY_EXPECT)
            continue;
        find_ends(self, rule);
        EACH_PAIR(self, from, to)
        {
            EACH_PORT(rule->ports, rule->port_count, protocol, port)
            {
                uint64_t key = key_of(from, to, protocol, port);
                struct mention *mention = mention_at(&self->mentions, key);
                if (!mention->key)
                    *mention = (struct mention){key, NONE, NONE};
                uint32_t *first = rule->expected == POLICY_ALLOW ? &mention->allow : &mention->deny;
                *first = *first == NONE ? r : *first;
            }
        }
    }
}

static void emit(
    struct expansion *self, uint32_t rule, uint32_t from, uint32_t to, struct policy_check check)
{
    check.rule = rule;
    check.from = from;
    check.to = to;
    self->out->checks[self->out->count++] = check;
    self->out->made[rule == POLICY_UNLISTED ? self->policy->rule_count : rule]++;
}

static void emit_ports(struct expansion *self, uint32_t r, uint32_t from, uint32_t to)
{
    const struct policy_rule *rule = &self->policy->rules[r];
    struct policy_checks *out = self->out;
    EACH_PORT(rule->ports, rule->port_count, protocol, port)
    {
        const struct mention *mention =
            mention_at(&self->mentions, key_of(from, to, protocol, port));
        uint32_t first = rule->expected == POLICY_ALLOW ? mention->allow : mention->deny;
        if (rule->expected == POLICY_ALLOW && mention->deny != NONE) {
            out->overridden[r]++;
            out->overridden_by[r] = mention->deny;
            continue;
        }
        if (first != r) {
            out->overlapped[r]++;
            out->overlapped_with[r] = first;
        }
        emit(self, r, from, to,
            (struct policy_check){.kind = TEST_PORT,
                .protocol = (uint8_t)protocol,
                .port = (uint16_t)port,
                .expected = (uint8_t)rule->expected});
    }
}

static void emit_tests(struct expansion *self, uint32_t r, uint32_t from, uint32_t to)
{
    unsigned kinds = kinds_of(&self->policy->rules[r]);
    for (unsigned kind = 1; kind <= TEST_KIND_MAX; kind++)
        if (kinds & 1u << kind)
            emit(self, r, from, to,
                (struct policy_check){.kind = (uint8_t)kind, .expected = POLICY_EXPECT});
}

static void emit_rule(struct expansion *self, uint32_t r)
{
    const struct policy_rule *rule = &self->policy->rules[r];
    uint32_t from, to;
    size_t pairs = 0;
    find_ends(self, rule);
    EACH_PAIR(self, from, to)
    {
        pairs++;
        if (rule->expected == POLICY_EXPECT)
            emit_tests(self, r, from, to);
        else
            emit_ports(self, r, from, to);
    }
    // A rule that means nobody is one line, which says so.
    if (pairs == 0)
        emit(self, r, POLICY_NOBODY, POLICY_NOBODY,
            (struct policy_check){.expected = (uint8_t)rule->expected});
}

static void emit_unlisted(struct expansion *self)
{
    uint32_t count = (uint32_t)self->out->agent_count;
    for (uint32_t from = 0; from < count; from++)
        for (uint32_t to = 0; to < count; to++) {
            if (from == to)
                continue;
            EACH_PORT(self->every, self->every_count, protocol, port)
            {
                if (mention_at(&self->mentions, key_of(from, to, protocol, port))->key)
                    continue;
                emit(self, POLICY_UNLISTED, from, to,
                    (struct policy_check){.kind = TEST_PORT,
                        .protocol = (uint8_t)protocol,
                        .port = (uint16_t)port,
                        .expected = (uint8_t)self->policy->unlisted});
            }
        }
}

// ---------------------------------------------------------------------------------- the whole

static int names_differ(const policy_t *policy, const struct selector_subject *agents, size_t count,
    struct policy_error *error)
{
    for (size_t i = 0; i < count; i++) {
        const struct policy_target *target = target_find(policy, agents[i].name);
        if (!target)
            continue;
        error->place = target->place;
        snprintf(error->text, sizeof error->text,
            "an agent has the name of the target '%.63s': expected a name of its own",
            target->name);
        return MESH_E_EXISTS;
    }
    return 0;
}

int policy_expand(const policy_t *policy, const struct selector_subject *agents, size_t count,
    struct policy_checks *checks, struct policy_error *error)
{
    size_t all = count + policy->target_count, rules = policy->rule_count + 1;
    struct expansion self = {.policy = policy, .out = checks};
    *checks = (struct policy_checks){.agents = agents, .agent_count = count, .policy = policy};
    checks->made = get(rules, sizeof(uint32_t));
    checks->overridden = get(rules, sizeof(uint32_t));
    checks->overlapped = get(rules, sizeof(uint32_t));
    checks->overridden_by = get(rules, sizeof(uint32_t));
    checks->overlapped_with = get(rules, sizeof(uint32_t));
    self.members = get(all, sizeof *self.members);
    self.ends.from = get(all, sizeof(uint32_t));
    self.ends.to = get(all, sizeof(uint32_t));
    find_every(&self);
    int rc = names_differ(policy, agents, count, error);
    if (rc == 0)
        rc = count_all(&self, error);
    if (rc == 0) {
        mentions_make(&self.mentions, self.room);
        checks->checks = get(self.room, sizeof *checks->checks);
        mention_all(&self);
        for (uint32_t r = 0; r < policy->rule_count; r++)
            emit_rule(&self, r);
        if (policy->unlisted != POLICY_IGNORE)
            emit_unlisted(&self);
    }
    if (self.every != policy->ports)
        free(self.every);
    free(self.mentions.slots);
    free(self.members);
    free(self.ends.from);
    free(self.ends.to);
    return rc;
}

void policy_checks_release(struct policy_checks *checks)
{
    free(checks->checks);
    free(checks->made);
    free(checks->overridden);
    free(checks->overlapped);
    free(checks->overridden_by);
    free(checks->overlapped_with);
    memset(checks, 0, sizeof *checks);
}

void policy_used(
    const policy_t *policy, const struct selector_subject *agents, size_t count, bool *used)
{
    size_t all = count + policy->target_count;
    bool *members = get(all, sizeof *members);
    memset(used, policy->unlisted != POLICY_IGNORE, count);
    memset(used + count, 0, policy->target_count);
    for (size_t r = 0; r < policy->rule_count; r++)
        for (int end = 0; end < 2; end++) {
            set_members(policy, end ? &policy->rules[r].to : &policy->rules[r].from, agents, count,
                members);
            for (size_t i = 0; i < all; i++)
                used[i] = used[i] || members[i];
        }
    free(members);
}

// -------------------------------------------------------------------------------------- cells

static int by_place(const void *a, const void *b)
{
    return policy_cell_order(a, b);
}

int policy_cell_order(const struct policy_cell *a, const struct policy_cell *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->from != b->from)
        return a->from < b->from ? -1 : 1;
    if (a->to != b->to)
        return a->to < b->to ? -1 : 1;
    if (a->protocol != b->protocol)
        return a->protocol < b->protocol ? -1 : 1;
    return a->port < b->port ? -1 : a->port > b->port;
}

struct policy_cell policy_cell_of(const struct policy_check *check)
{
    return (struct policy_cell){.from = check->from,
        .to = check->to,
        .port = check->port,
        .protocol = check->protocol,
        .kind = check->kind};
}

struct policy_cell *policy_cells(const struct policy_checks *checks, size_t *count)
{
    struct policy_cell *cells = get(checks->count, sizeof *cells);
    size_t made = 0, kept = 0;
    for (size_t i = 0; i < checks->count; i++) {
        const struct policy_check *check = &checks->checks[i];
        if (!check->kind)
            continue;
        cells[made] = policy_cell_of(check);
        cells[made++].look_on = policy_check_wish(checks, check) == POLICY_WISH_SERVICE;
    }
    qsort(cells, made, sizeof *cells, by_place);
    for (size_t i = 0; i < made; i++) {
        bool again = kept > 0 && policy_cell_order(&cells[kept - 1], &cells[i]) == 0;
        if (again)
            cells[kept - 1].look_on &= cells[i].look_on;
        else
            cells[kept++] = cells[i];
    }
    *count = kept;
    return cells;
}

// -------------------------------------------------------------------------------------- words

const char *policy_end_name(const struct policy_checks *checks, uint32_t index)
{
    if (index < checks->agent_count)
        return checks->agents[index].name;
    index -= (uint32_t)checks->agent_count;
    return index < checks->policy->target_count ? checks->policy->targets[index].name : "-";
}

const char *policy_rule_name(const policy_t *policy, uint32_t rule)
{
    return rule < policy->rule_count ? policy->rules[rule].name : "unlisted";
}

static const struct policy_rule *rule_of(
    const struct policy_checks *checks, const struct policy_check *check)
{
    return check->rule < checks->policy->rule_count ? &checks->policy->rules[check->rule] : NULL;
}

void policy_check_port(
    const struct policy_checks *checks, const struct policy_check *check, char text[128])
{
    const struct policy_rule *rule = rule_of(checks, check);
    if (check->kind == TEST_PORT)
        snprintf(text, 128, "%s/%u", policy_protocol_word(check->protocol), check->port);
    else if (check->kind)
        snprintf(text, 128, "%s", test_kind_name((enum test_kind)check->kind));
    else
        snprintf(text, 128, "%.120s", rule && rule->ports_text ? rule->ports_text : "-");
}

void policy_check_expected(
    const struct policy_checks *checks, const struct policy_check *check, char text[256])
{
    const struct policy_rule *rule = rule_of(checks, check);
    enum policy_how how = policy_check_how(checks, check);
    if (check->expected == POLICY_EXPECT && rule && check->kind)
        policy_limits_text(rule, (enum test_kind)check->kind, text);
    else if (how != POLICY_HOW_ANY)
        snprintf(text, 256, "%s (%s)", policy_expected_word(check->expected), policy_how_word(how));
    else
        snprintf(text, 256, "%s", policy_expected_word(check->expected));
}

enum policy_how policy_check_how(
    const struct policy_checks *checks, const struct policy_check *check)
{
    const struct policy_rule *rule = rule_of(checks, check);
    return rule ? rule->how : POLICY_HOW_ANY;
}

enum policy_wish policy_check_wish(
    const struct policy_checks *checks, const struct policy_check *check)
{
    const struct policy_rule *rule = rule_of(checks, check);
    return rule ? rule->wish : POLICY_WISH_AGENT;
}

void policy_check_empty(
    const struct policy_checks *checks, const struct policy_check *check, char text[256])
{
    const policy_t *policy = checks->policy;
    const struct policy_rule *rule = rule_of(checks, check);
    size_t all = checks->agent_count + policy->target_count, members[2] = {0, 0};
    bool *marks = get(all, sizeof *marks);
    for (int end = 0; rule && end < 2; end++) {
        set_members(
            policy, end ? &rule->to : &rule->from, checks->agents, checks->agent_count, marks);
        for (size_t i = 0; i < (end ? all : checks->agent_count); i++)
            members[end] += marks[i];
    }
    free(marks);
    if (rule && (members[0] == 0 || members[1] == 0))
        snprintf(
            text, 256, "no agent is in '%.120s'", members[0] ? rule->to.text : rule->from.text);
    else
        snprintf(text, 256, "the rule has no pair: its only agent is at both ends");
}
