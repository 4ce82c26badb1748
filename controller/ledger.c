#include "ledger.h"

#include <czmq.h>

struct host {
    uint32_t sends, receives, light;
};

struct machine {
    uint32_t unstated, stated;
    uint64_t stated_bps, cap_bps;
};

struct table {
    void *items;
    size_t count, item_size;
    zhashx_t *by_name; // -> number + 1
};

struct ledger {
    struct table hosts, machines, shared;
    uint64_t version;
    uint64_t claims; // taken and not given back, of any kind
};

static void table_open(struct table *table, size_t item_size)
{
    table->by_name = zhashx_new();
    table->item_size = item_size;
}

static void table_close(struct table *table)
{
    zhashx_destroy(&table->by_name);
    free(table->items);
}

static uint32_t table_number(struct table *table, const char *name)
{
    size_t number = (size_t)(uintptr_t)zhashx_lookup(table->by_name, name);
    if (number == 0) {
        table->items = realloc(table->items, (table->count + 1) * table->item_size);
        if (!table->items)
            abort();
        memset((char *)table->items + table->count * table->item_size, 0, table->item_size);
        number = ++table->count;
        zhashx_insert(table->by_name, name, (void *)(uintptr_t)number);
    }
    return (uint32_t)(number - 1);
}

ledger_t *ledger_new(void)
{
    ledger_t *self = zmalloc(sizeof *self);
    table_open(&self->hosts, sizeof(struct host));
    table_open(&self->machines, sizeof(struct machine));
    table_open(&self->shared, sizeof(uint32_t));
    return self;
}

void ledger_destroy(ledger_t **self_p)
{
    ledger_t *self = *self_p;
    if (!self)
        return;
    table_close(&self->hosts);
    table_close(&self->machines);
    table_close(&self->shared);
    free(self);
    *self_p = NULL;
}

static struct host *host_at(const ledger_t *self, uint32_t host)
{
    return (struct host *)self->hosts.items + host;
}

static struct machine *machine_at(const ledger_t *self, uint32_t machine)
{
    return (struct machine *)self->machines.items + machine;
}

static uint32_t *shared_at(const ledger_t *self, uint32_t shared)
{
    return (uint32_t *)self->shared.items + shared;
}

uint32_t ledger_host(ledger_t *self, uint32_t agent_id)
{
    char name[16];
    snprintf(name, sizeof name, "%u", agent_id);
    return table_number(&self->hosts, name);
}

uint32_t ledger_machine(ledger_t *self, const char *boot_id, unsigned cores)
{
    uint32_t number = table_number(&self->machines, boot_id);
    machine_at(self, number)->cap_bps = LEDGER_MACHINE_BPS_PER_CORE * (cores ? cores : 1);
    return number;
}

uint32_t ledger_shared(ledger_t *self, const char *key, const char *value)
{
    char name[160];
    snprintf(name, sizeof name, "%s=%s", key, value);
    return table_number(&self->shared, name);
}

double ledger_machine_capacity(const ledger_t *self, uint32_t machine, uint64_t rate_bps)
{
    uint64_t fit = rate_bps ? machine_at(self, machine)->cap_bps / rate_bps : 1;
    return fit ? (double)fit : 1;
}

bool ledger_hosts_free(const ledger_t *self, Mp__Mode mode, bool bidir, uint32_t from, uint32_t to)
{
    const struct host *sender = host_at(self, from), *receiver = host_at(self, to);
    if (sender->light || receiver->light)
        return false;
    if (mode == MP__MODE__CONCURRENT)
        return true;
    if (sender->sends || receiver->receives)
        return false;
    return (mode == MP__MODE__DUPLEX && !bidir) || (!sender->receives && !receiver->sends);
}

bool ledger_machine_free(const ledger_t *self, uint32_t machine, uint64_t rate_bps)
{
    const struct machine *it = machine_at(self, machine);
    if (it->unstated)
        return false;
    // A single test above the cap must be able to run, alone.
    return it->stated == 0 || (rate_bps && it->stated_bps + rate_bps <= it->cap_bps);
}

bool ledger_shared_free(const ledger_t *self, uint32_t shared, uint32_t limit)
{
    return *shared_at(self, shared) < limit;
}

bool ledger_host_idle(const ledger_t *self, uint32_t host)
{
    return host_at(self, host)->sends == 0 && host_at(self, host)->receives == 0;
}

bool ledger_idle(const ledger_t *self)
{
    return self->claims == 0;
}

static void count(ledger_t *self, uint32_t *counter, bool take)
{
    assert(take || *counter > 0);
    *counter += take ? 1 : (uint32_t)-1;
    self->claims += take ? 1 : (uint64_t)-1;
    self->version += !take;
}

void ledger_hosts_claim(
    ledger_t *self, Mp__Mode mode, bool bidir, uint32_t from, uint32_t to, bool take)
{
    count(self, &host_at(self, from)->sends, take);
    count(self, &host_at(self, to)->receives, take);
    // An isolated test, or one in both directions, takes both slots of both hosts.
    if (mode == MP__MODE__ISOLATED || bidir) {
        count(self, &host_at(self, from)->receives, take);
        count(self, &host_at(self, to)->sends, take);
    }
}

void ledger_machine_claim(ledger_t *self, uint32_t machine, uint64_t rate_bps, bool take)
{
    struct machine *it = machine_at(self, machine);
    count(self, rate_bps ? &it->stated : &it->unstated, take);
    it->stated_bps += take ? rate_bps : (uint64_t)-rate_bps;
}

void ledger_shared_claim(ledger_t *self, uint32_t shared, bool take)
{
    count(self, shared_at(self, shared), take);
}

void ledger_light_claim(ledger_t *self, uint32_t host, bool take)
{
    count(self, &host_at(self, host)->light, take);
}

uint64_t ledger_version(const ledger_t *self)
{
    return self->version;
}
