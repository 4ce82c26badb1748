// The small languages within a policy's texts: ports, and sets of groups.

#include <stdlib.h>
#include <string.h>

#include "policy_parts.h"
#include "units.h"

// -------------------------------------------------------------------------------------- ports

struct port_room {
    struct policy_ports *ports;
    size_t count, numbers;
    bool any; // is "any" a port here?
};

static bool parse_protocol(const char *word, size_t size, enum policy_protocol *protocol)
{
    for (enum policy_protocol p = POLICY_TCP; p <= POLICY_SCTP; p++) {
        const char *name = policy_protocol_word(p);
        if (strlen(name) == size && memcmp(name, word, size) == 0) {
            *protocol = p;
            return true;
        }
    }
    return false;
}

// "9000" or "9000-9003"
static bool parse_range(const char *word, struct policy_ports *ports)
{
    char first[16];
    uint64_t low, high;
    const char *dash = strchr(word, '-');
    size_t size = dash ? (size_t)(dash - word) : strlen(word);
    if (size >= sizeof first)
        return false;
    memcpy(first, word, size);
    first[size] = '\0';
    if (units_count(first, 1, 65535, &low) != 0)
        return false;
    high = low;
    if (dash && units_count(dash + 1, low, 65535, &high) != 0)
        return false;
    ports->first = (uint16_t)low;
    ports->last = (uint16_t)high;
    return true;
}

static bool read_any(struct reader *reader, const struct node *node, struct port_room *room)
{
    const policy_t *policy = reader->policy;
    if (!room->any)
        return fail(reader, node->place, "'any' stands for these ports: expected such as tcp/443");
    if (policy->port_count == 0)
        return fail(reader, node->place,
            "'any' has no ports to try: expected them in defaults, "
            "such as ports: [tcp/22, tcp/443]");
    for (size_t i = 0; i < policy->port_count; i++) {
        room->ports[room->count++] = policy->ports[i];
        room->numbers += policy->ports[i].last - policy->ports[i].first + 1u;
    }
    return true;
}

static bool read_port(struct reader *reader, const struct node *node, void *target)
{
    static const char *const protocols[] = {"tcp", "udp", "sctp"};
    struct port_room *room = target;
    char nearest[96] = "", before[16];
    if (strcmp(node->text, "any") == 0)
        return read_any(reader, node, room);
    struct policy_ports *ports = &room->ports[room->count];
    const char *slash = strchr(node->text, '/');
    if (!slash || !parse_protocol(node->text, (size_t)(slash - node->text), &ports->protocol)) {
        if (slash) {
            snprintf(before, sizeof before, "%.*s", (int)(slash - node->text), node->text);
            did_you_mean(before, protocols, COUNT(protocols), sizeof *protocols, nearest);
        }
        return fail(reader, node->place,
            "'%.100s' is no port: expected tcp/, udp/ or sctp/ and a number, such as tcp/443%s",
            node->text, nearest);
    }
    if (!parse_range(slash + 1, ports))
        return fail(reader, place_within(node, (size_t)(slash + 1 - node->text)),
            "'%.100s' is no port: expected a number from 1 to 65535, or a range such as 9000-9003",
            node->text);
    room->numbers += ports->last - ports->first + 1u;
    room->count++;
    return room->numbers <= POLICY_PORTS_MAX ||
           fail(reader, node->place, "there are over %d ports in one list", POLICY_PORTS_MAX);
}

// "tcp/22, tcp/443": the words of a list, as written.
static const char *joined(struct reader *reader, const struct node *node)
{
    if (node->type != NODE_LIST)
        return node->text;
    size_t size = 1, used = 0;
    for (const struct node *child = node->first; child; child = child->next)
        size += strlen(child->text) + 2;
    char *text = pool_get(reader->pool, size);
    for (const struct node *child = node->first; child; child = child->next)
        used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", child->text);
    return text;
}

static int by_port(const void *a, const void *b)
{
    const struct policy_ports *left = a, *right = b;
    if (left->protocol != right->protocol)
        return left->protocol < right->protocol ? -1 : 1;
    return left->first < right->first ? -1 : left->first > right->first;
}

size_t ports_merge(struct policy_ports *ports, size_t count)
{
    size_t kept = 0;
    qsort(ports, count, sizeof *ports, by_port);
    for (size_t i = 1; i < count; i++) {
        struct policy_ports *last = &ports[kept];
        if (ports[i].protocol != last->protocol || ports[i].first > last->last)
            ports[++kept] = ports[i];
        else if (ports[i].last > last->last)
            last->last = ports[i].last;
    }
    return kept + 1;
}

bool read_ports(struct reader *reader, const struct node *node, bool any,
    struct policy_ports **ports, size_t *count, const char **text)
{
    size_t most = (node->type == NODE_LIST ? node->count : 1), anys = 0;
    for (const struct node *child = node->first; child && any; child = child->next)
        anys += child->type == NODE_TEXT && strcmp(child->text, "any") == 0;
    if (anys > 1)
        return fail(reader, node->place, "'any' stands here twice");
    struct port_room room = {.any = any};
    room.ports =
        pool_get(reader->pool, (most + reader->policy->port_count + 1) * sizeof *room.ports);
    if (!read_texts(reader, node, "a port such as tcp/443", 4096, read_port, &room))
        return false;
    *ports = room.ports;
    *count = ports_merge(room.ports, room.count);
    *text = joined(reader, node);
    return true;
}

// --------------------------------------------------------------------------------------- sets

// The known words of a set, for suggestions.
static const char *nearest_set(struct reader *reader, const char *word, char text[96])
{
    const policy_t *policy = reader->policy;
    static const char *const own[] = {"any", "except"};
    if (*did_you_mean(word, policy->group_count ? &policy->groups[0].name : NULL,
            policy->group_count, sizeof *policy->groups, text))
        return text;
    if (*did_you_mean(word, policy->target_count ? &policy->targets[0].name : NULL,
            policy->target_count, sizeof *policy->targets, text))
        return text;
    return did_you_mean(word, own, COUNT(own), sizeof *own, text);
}

static bool find_term(struct reader *reader, const struct node *node, const char *word,
    size_t offset, struct policy_term *term)
{
    const policy_t *policy = reader->policy;
    const struct policy_group *group = group_find(policy, word);
    const struct policy_target *target = target_find(policy, word);
    char nearest[96];
    if (strcmp(word, "any") == 0) {
        term->kind = POLICY_TERM_ANY;
    } else if (group) {
        term->kind = POLICY_TERM_GROUP;
        term->index = (uint32_t)(group - policy->groups);
    } else if (target) {
        term->kind = POLICY_TERM_TARGET;
        term->index = (uint32_t)(target - policy->targets);
    } else {
        return fail(reader, place_within(node, offset),
            "unknown group '%.60s' in '%.100s'%s (expected any, a group or a target)", word,
            node->text, nearest_set(reader, word, nearest));
    }
    return true;
}

struct set_room {
    struct policy_set *set;
    uint32_t item;
};

// "any except admin", "web, app": names before `except` are united, those behind are taken out.
static bool read_item(struct reader *reader, const struct node *node, void *target)
{
    struct set_room *room = target;
    size_t names = 0, taken = 0;
    bool except = false;
    for (const char *c = node->text; *c;) {
        size_t skip = strspn(c, " ,");
        c += skip;
        size_t size = strcspn(c, " ,"), offset = (size_t)(c - node->text);
        if (size == 0)
            break;
        char word[128];
        snprintf(word, sizeof word, "%.*s", (int)size, c);
        c += size;
        if (strcmp(word, "except") == 0) {
            if (except || names == 0)
                return fail(reader, place_within(node, offset),
                    "'%.100s' is no set: expected such as 'any except admin'", node->text);
            except = true;
            continue;
        }
        // Names without a comma between them are a sentence that is not understood.
        if ((except ? taken : names) > 0 && !memchr(c - size - skip, ',', skip))
            return fail(reader, place_within(node, offset),
                "'%.60s' is not expected here: '%.100s' is no set (expected such as 'web', 'web, "
                "app' "
                "or 'any except admin')",
                word, node->text);
        struct policy_term term = {.except = except, .item = room->item};
        if (!find_term(reader, node, word, offset, &term))
            return false;
        room->set->terms[room->set->count++] = term;
        *(except ? &taken : &names) += 1;
    }
    room->item++;
    return (names > 0 && (!except || taken > 0)) ||
           fail(reader, node->place, "'%.100s' is no set: expected such as 'any except admin'",
               node->text);
}

static size_t words_of(const struct node *node)
{
    size_t most = 1;
    for (const char *c = node->text; c && *c; c++)
        most += *c == ' ' || *c == ',';
    return most;
}

bool read_set(struct reader *reader, const struct node *node, struct policy_set *set)
{
    size_t most = words_of(node);
    for (const struct node *child = node->first; child; child = child->next)
        most += words_of(child);
    struct set_room room = {.set = set};
    set->terms = pool_get(reader->pool, (most + 1) * sizeof *set->terms);
    if (!read_texts(reader, node, "any, a group or a target", 4096, read_item, &room))
        return false;
    set->text = joined(reader, node);
    return true;
}
