// Machines and shared values: what a test takes of them, and the work that is left in them.

#include "scheduler_parts.h"

#include <czmq.h>

uint32_t edge_groups(
    const scheduler_t *self, uint32_t from, uint32_t to, uint32_t groups[EDGE_GROUPS_MAX])
{
    uint32_t count = 0;
    if (self->machine[from] != NO_GROUP)
        groups[count++] = self->machine[from];
    if (self->machine[to] != NO_GROUP && self->machine[to] != self->machine[from])
        groups[count++] = self->machine[to];
    for (size_t s = 0; s < self->shared_count; s++) {
        uint32_t a = self->shared[s][from], b = self->shared[s][to];
        if (a == b)
            continue;
        if (a != NO_GROUP)
            groups[count++] = a;
        if (b != NO_GROUP)
            groups[count++] = b;
    }
    return count;
}

bool group_free(const scheduler_t *self, const struct crowd *group)
{
    return group->limit ? ledger_shared_free(self->ledger, group->resource, group->limit)
                        : ledger_machine_free(self->ledger, group->resource, self->rate_bps);
}

void edge_claim(scheduler_t *self, uint32_t from, uint32_t to, bool take)
{
    uint32_t groups[EDGE_GROUPS_MAX], count = edge_groups(self, from, to, groups);
    ledger_hosts_claim(
        self->ledger, self->mode, self->bidir, self->host[from].host, self->host[to].host, take);
    for (uint32_t i = 0; i < count; i++) {
        const struct crowd *group = &self->groups[groups[i]];
        if (group->limit)
            ledger_shared_claim(self->ledger, group->resource, take);
        else
            ledger_machine_claim(self->ledger, group->resource, self->rate_bps, take);
    }
}

void edge_load(scheduler_t *self, uint32_t from, uint32_t to, bool add)
{
    uint32_t groups[EDGE_GROUPS_MAX], count = edge_groups(self, from, to, groups);
    uint32_t step = add ? 1 : (uint32_t)-1;
    uint32_t ends[2] = {sender_node(from), receiver_node(self, to)};
    for (int i = 0; i < 2; i++) {
        self->load[ends[i]] += step;
        if (add && self->pending[ends[i]])
            self->heap_stale = true;
    }
    for (uint32_t i = 0; i < count; i++)
        self->groups[groups[i]].load += step;
    self->startable += add ? 1 : (size_t)-1;
}

static uint32_t group_number(
    scheduler_t *self, uint32_t first, uint32_t resource, uint32_t limit, double capacity)
{
    for (uint32_t i = first; i < self->group_count; i++)
        if (self->groups[i].resource == resource && self->groups[i].limit == limit)
            return i;
    self->groups = realloc(self->groups, (self->group_count + 1) * sizeof *self->groups);
    if (!self->groups)
        abort();
    self->groups[self->group_count] =
        (struct crowd){.resource = resource, .limit = limit, .capacity = capacity};
    return self->group_count++;
}

static void group_join(scheduler_t *self, uint32_t number, uint32_t host)
{
    struct crowd *group = &self->groups[number];
    group->members = realloc(group->members, (group->member_count + 1) * sizeof *group->members);
    if (!group->members)
        abort();
    group->members[group->member_count++] = host;
    if (group->limit && !group->bits)
        group->bits = zmalloc((self->words + 1) * sizeof *group->bits);
    if (group->bits)
        bit_put(group->bits, host, true);
}

void groups_open(scheduler_t *self, const struct schedule_config *config)
{
    self->machine = zmalloc((self->hosts + 1) * sizeof *self->machine);
    for (uint32_t h = 0; h < self->hosts; h++) {
        uint32_t machine = self->host[h].machine;
        self->machine[h] = NO_GROUP;
        if (machine == LEDGER_NONE || self->mode == MP__MODE__CONCURRENT)
            continue;
        double capacity = ledger_machine_capacity(self->ledger, machine, self->rate_bps);
        self->machine[h] = group_number(self, 0, machine, 0, capacity);
        group_join(self, self->machine[h], h);
    }
    self->shared_count = config->shared_count;
    self->shared = zmalloc((self->shared_count + 1) * sizeof *self->shared);
    self->shared_first = zmalloc((self->shared_count + 1) * sizeof *self->shared_first);
    self->shared_first[0] = self->group_count;
    for (size_t s = 0; s < self->shared_count; s++) {
        uint32_t first = self->group_count, limit = config->shared[s].limit;
        self->shared[s] = zmalloc((self->hosts + 1) * sizeof **self->shared);
        for (uint32_t h = 0; h < self->hosts; h++) {
            uint32_t value = config->shared[s].values[h];
            self->shared[s][h] = NO_GROUP;
            if (value == LEDGER_NONE)
                continue;
            self->shared[s][h] = group_number(self, first, value, limit, limit);
            group_join(self, self->shared[s][h], h);
        }
        self->shared_first[s + 1] = self->group_count;
    }
}
