#include "bound.h"

#include <czmq.h>

enum group_kind { GROUP_LABEL, GROUP_MACHINE, GROUP_SHARED };

// A set of hosts that bounds the work within it (label), touching it (machine) or crossing it.
struct crowd {
    enum group_kind kind;
    char *name;
    double capacity;
    double work_s;
    uint32_t hosts;
};

struct bound_host {
    const char *name;
    double sends_s, receives_s;
    uint32_t *groups; // numbers, in no order
    size_t group_count;
    bool used;
};

struct bound {
    Mp__Mode mode;
    struct bound_host *hosts;
    size_t host_count;
    struct crowd *groups;
    size_t group_count;
    zhashx_t *by_name; // group's name -> number + 1
    double work_s, longest_s;
};

bound_t *bound_new(Mp__Mode mode, size_t host_count)
{
    bound_t *self = zmalloc(sizeof *self);
    self->mode = mode;
    self->hosts = zmalloc((host_count + 1) * sizeof *self->hosts);
    self->host_count = host_count;
    self->by_name = zhashx_new();
    return self;
}

void bound_destroy(bound_t **self_p)
{
    bound_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->host_count; i++)
        free(self->hosts[i].groups);
    for (size_t i = 0; i < self->group_count; i++)
        free(self->groups[i].name);
    free(self->hosts);
    free(self->groups);
    zhashx_destroy(&self->by_name);
    free(self);
    *self_p = NULL;
}

void bound_host_name(bound_t *self, uint32_t host, const char *name)
{
    self->hosts[host].name = name;
}

static void join(
    bound_t *self, uint32_t host, enum group_kind kind, const char *name, double capacity)
{
    size_t number = (size_t)(uintptr_t)zhashx_lookup(self->by_name, name);
    if (number == 0) {
        self->groups = realloc(self->groups, (self->group_count + 1) * sizeof *self->groups);
        if (!self->groups)
            abort();
        self->groups[self->group_count++] =
            (struct crowd){.kind = kind, .name = strdup(name), .capacity = capacity};
        number = self->group_count;
        zhashx_insert(self->by_name, name, (void *)(uintptr_t)number);
    }
    struct bound_host *member = &self->hosts[host];
    member->groups = realloc(member->groups, (member->group_count + 1) * sizeof *member->groups);
    if (!member->groups)
        abort();
    member->groups[member->group_count++] = (uint32_t)(number - 1);
    self->groups[number - 1].hosts++;
}

void bound_host_label(bound_t *self, uint32_t host, const char *key, const char *value)
{
    char name[BOUND_TEXT_SIZE];
    snprintf(name, sizeof name, "the hosts with %.64s=%.64s", key, value);
    join(self, host, GROUP_LABEL, name, 1);
}

void bound_host_machine(bound_t *self, uint32_t host, uint32_t machine, double capacity)
{
    char name[BOUND_TEXT_SIZE];
    if (machine == BOUND_NONE)
        return;
    snprintf(name, sizeof name, "machine %u (agents of one boot id)", machine + 1);
    join(self, host, GROUP_MACHINE, name, capacity);
}

void bound_host_shared(
    bound_t *self, uint32_t host, const char *key, const char *value, double capacity)
{
    char name[BOUND_TEXT_SIZE];
    snprintf(name, sizeof name, "the uplink of %.64s=%.64s", key, value);
    join(self, host, GROUP_SHARED, name, capacity);
}

static bool member_of(const struct bound_host *host, uint32_t group)
{
    for (size_t i = 0; i < host->group_count; i++)
        if (host->groups[i] == group)
            return true;
    return false;
}

// Work of the groups of `mine`, seen from one end; `first` is the end that counts what both share.
static void add_groups(bound_t *self, const struct bound_host *mine, const struct bound_host *other,
    double seconds, bool first)
{
    for (size_t i = 0; i < mine->group_count; i++) {
        struct crowd *group = &self->groups[mine->groups[i]];
        bool both = member_of(other, mine->groups[i]);
        if ((group->kind == GROUP_LABEL && both && first) ||
            (group->kind == GROUP_MACHINE && (!both || first)) ||
            (group->kind == GROUP_SHARED && !both))
            group->work_s += seconds;
    }
}

void bound_add(bound_t *self, uint32_t from, uint32_t to, double seconds, bool bidir)
{
    struct bound_host *sender = &self->hosts[from], *receiver = &self->hosts[to];
    sender->used = receiver->used = true;
    sender->sends_s += seconds;
    receiver->receives_s += seconds;
    if (bidir && self->mode == MP__MODE__DUPLEX) {
        receiver->sends_s += seconds;
        sender->receives_s += seconds;
    }
    self->work_s += seconds;
    if (seconds > self->longest_s)
        self->longest_s = seconds;
    add_groups(self, sender, receiver, seconds, true);
    add_groups(self, receiver, sender, seconds, false);
}

struct best {
    double seconds;
    char *by;
};

static void consider(struct best *best, double seconds, const char *what, const char *name)
{
    // A later resource must be clearly worse to take the blame.
    if (seconds <= best->seconds * (1 + 1e-9))
        return;
    best->seconds = seconds;
    snprintf(best->by, BOUND_TEXT_SIZE, "%s%.128s", what, name ? name : "");
}

static void consider_hosts(const bound_t *self, struct best *best)
{
    size_t used = 0;
    for (size_t i = 0; i < self->host_count; i++) {
        const struct bound_host *host = &self->hosts[i];
        used += host->used;
        if (self->mode == MP__MODE__ISOLATED) {
            consider(best, host->sends_s + host->receives_s, "the busiest host, ", host->name);
        } else if (self->mode == MP__MODE__DUPLEX) {
            consider(best, host->sends_s, "the busiest sender, ", host->name);
            consider(best, host->receives_s, "the busiest receiver, ", host->name);
        }
    }
    if (self->mode == MP__MODE__ISOLATED && used >= 2)
        consider(best, self->work_s / (double)(used / 2), "all hosts, two in each test", NULL);
}

static void consider_groups(const bound_t *self, struct best *best)
{
    for (size_t i = 0; i < self->group_count; i++) {
        const struct crowd *group = &self->groups[i];
        if (group->kind != GROUP_LABEL)
            consider(best, group->work_s / group->capacity, "", group->name);
        else if (self->mode == MP__MODE__ISOLATED && group->hosts >= 2)
            consider(best, group->work_s / (group->hosts / 2), "", group->name);
    }
}

double bound_result(const bound_t *self, char by[BOUND_TEXT_SIZE])
{
    struct best best = {.by = by};
    snprintf(by, BOUND_TEXT_SIZE, "nothing");
    consider_hosts(self, &best);
    consider_groups(self, &best);
    consider(&best, self->longest_s, "the longest test", NULL);
    return best.seconds;
}

double bound_seconds(const bound_t *self)
{
    char by[BOUND_TEXT_SIZE];
    return bound_result(self, by);
}
