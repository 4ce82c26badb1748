#include "scheduler.h"

#include <czmq.h>

#include "mix.h"

#define NO_GROUP UINT32_MAX

// A machine or a shared value as this run sees it.
struct crowd {
    uint32_t resource; // the ledger's number
    uint32_t limit;    // shared: tests at once; 0 for a machine
    double capacity;
    uint32_t load;     // remaining edges that touch (machine) or cross (shared) it
    uint32_t *members; // hosts
    uint32_t member_count;
    uint64_t *bits; // shared: the members as a set
};

struct entry {
    uint32_t load, node;
};

struct scheduler {
    ledger_t *ledger;
    Mp__Mode mode;
    bool bidir, split; // split: sending and receiving slots are nodes of their own
    uint64_t rate_bps;
    uint32_t hosts, nodes;
    size_t words;
    struct schedule_host *host;
    uint32_t *position; // place on the circle, a seeded permutation
    uint64_t *out, *in; // remaining edges by sender and by receiver
    uint64_t *running;  // by sender
    uint64_t *free;     // nodes' free slots, receivers behind senders when split
    uint32_t *load;     // of each node: remaining edges between present hosts
    uint32_t *in_use;   // of each node: its running edges
    bool *away, *pending, *blocked;
    uint32_t *woken_by;     // of a pending node: the only group that may have changed, or NO_GROUP
    uint32_t *machine;      // of each host: group or NO_GROUP
    uint32_t **shared;      // of each declared label and host: group or NO_GROUP
    uint32_t *shared_first; // of each declared label: its first group; one more behind the last
    size_t shared_count;
    struct crowd *groups;
    uint32_t group_count;
    struct entry *heap; // free nodes that may have become able to start, largest load first
    uint32_t heap_count;
    bool heap_stale;
    bool *full; // of each shared group, while partners are chosen
    uint64_t seen_version;
    size_t remaining, startable, running_count;
};

// ------------------------------------------------------------------------------------------- bits

static bool bit(const uint64_t *bits, size_t i)
{
    return bits[i / 64] >> (i % 64) & 1;
}

static void bit_put(uint64_t *bits, size_t i, bool value)
{
    uint64_t mask = UINT64_C(1) << (i % 64);
    bits[i / 64] = value ? bits[i / 64] | mask : bits[i / 64] & ~mask;
}

static uint64_t *row(const scheduler_t *self, uint64_t *matrix, uint32_t host)
{
    return matrix + host * self->words;
}

static uint32_t sender_node(uint32_t host)
{
    return host;
}

static uint32_t receiver_node(const scheduler_t *self, uint32_t host)
{
    return self->split ? self->hosts + host : host;
}

static uint32_t host_of(const scheduler_t *self, uint32_t node)
{
    return node < self->hosts ? node : node - self->hosts;
}

static uint64_t *free_bits(const scheduler_t *self, bool receivers)
{
    return self->free + (self->split && receivers ? self->words : 0);
}

// ------------------------------------------------------------------- nodes that are worth a look

static bool before(const scheduler_t *self, struct entry a, struct entry b)
{
    if (a.load != b.load)
        return a.load > b.load;
    uint32_t pa = self->position[host_of(self, a.node)], pb = self->position[host_of(self, b.node)];
    return pa != pb ? pa < pb : a.node < b.node;
}

static void sift_down(scheduler_t *self, uint32_t i)
{
    struct entry moving = self->heap[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= self->heap_count)
            break;
        if (child + 1 < self->heap_count && before(self, self->heap[child + 1], self->heap[child]))
            child++;
        if (!before(self, self->heap[child], moving))
            break;
        self->heap[i] = self->heap[child];
        i = child;
    }
    self->heap[i] = moving;
}

static void heap_rebuild(scheduler_t *self)
{
    for (uint32_t i = 0; i < self->heap_count; i++)
        self->heap[i].load = self->load[self->heap[i].node];
    for (uint32_t i = self->heap_count / 2; i-- > 0;)
        sift_down(self, i);
    self->heap_stale = false;
}

static bool node_free(const scheduler_t *self, uint32_t node)
{
    return bit(free_bits(self, node >= self->hosts), host_of(self, node));
}

static void look_because(scheduler_t *self, uint32_t node, uint32_t group)
{
    if (self->pending[node]) {
        if (self->woken_by[node] != group)
            self->woken_by[node] = NO_GROUP;
        return;
    }
    if (self->load[node] == 0 || !node_free(self, node))
        return;
    self->pending[node] = true;
    self->woken_by[node] = group;
    struct entry moving = {self->load[node], node};
    uint32_t i = self->heap_count++;
    while (i > 0 && before(self, moving, self->heap[(i - 1) / 2])) {
        self->heap[i] = self->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    self->heap[i] = moving;
}

static void look_at(scheduler_t *self, uint32_t node)
{
    look_because(self, node, NO_GROUP);
}

static void look_at_host(scheduler_t *self, uint32_t host, uint32_t group)
{
    look_because(self, sender_node(host), group);
    look_because(self, receiver_node(self, host), group);
}

static uint32_t heap_pop(scheduler_t *self)
{
    uint32_t node = self->heap[0].node;
    self->heap[0] = self->heap[--self->heap_count];
    if (self->heap_count > 0)
        sift_down(self, 0);
    self->pending[node] = false;
    return node;
}

// ----------------------------------------------------------------------------------------- groups

// Groups that a test from -> to uses: at most two machines and two values of each declared label.
#define EDGE_GROUPS_MAX 40

static uint32_t edge_groups(
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

static bool group_free(const scheduler_t *self, const struct crowd *group)
{
    return group->limit ? ledger_shared_free(self->ledger, group->resource, group->limit)
                        : ledger_machine_free(self->ledger, group->resource, self->rate_bps);
}

static void edge_claim(scheduler_t *self, uint32_t from, uint32_t to, bool take)
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

// Loads of an edge between present hosts appear or go.
static void edge_load(scheduler_t *self, uint32_t from, uint32_t to, bool add)
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

static void groups_open(scheduler_t *self, const struct schedule_config *config)
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

// ------------------------------------------------------------------------------------------- life

scheduler_t *scheduler_new(ledger_t *ledger, const struct schedule_config *config)
{
    assert(config->shared_count <= 16);
    scheduler_t *self = zmalloc(sizeof *self);
    self->ledger = ledger;
    self->mode = config->mode;
    self->bidir = config->bidir;
    self->split = config->mode == MP__MODE__DUPLEX && !config->bidir;
    self->rate_bps = config->bidir ? 2 * config->rate_bps : config->rate_bps;
    self->hosts = (uint32_t)config->host_count;
    self->nodes = self->split ? 2 * self->hosts : self->hosts;
    self->words = (self->hosts + 63) / 64;
    self->host = zmalloc((self->hosts + 1) * sizeof *self->host);
    memcpy(self->host, config->hosts, self->hosts * sizeof *self->host);
    size_t matrix = (self->hosts * self->words + 1) * sizeof(uint64_t);
    self->out = zmalloc(matrix);
    self->in = zmalloc(matrix);
    self->running = zmalloc(matrix);
    self->free = zmalloc((2 * self->words + 1) * sizeof *self->free);
    self->load = zmalloc((self->nodes + 1) * sizeof *self->load);
    self->in_use = zmalloc((self->nodes + 1) * sizeof *self->in_use);
    self->away = zmalloc(self->hosts + 1);
    self->pending = zmalloc(self->nodes + 1);
    self->blocked = zmalloc(self->nodes + 1);
    self->woken_by = zmalloc((self->nodes + 1) * sizeof *self->woken_by);
    self->heap = zmalloc((self->nodes + 1) * sizeof *self->heap);
    self->seen_version = ledger_version(ledger);
    for (uint32_t h = 0; h < self->hosts; h++) {
        bit_put(free_bits(self, false), h, true);
        bit_put(free_bits(self, true), h, true);
    }
    self->position = mix_permutation(self->hosts, config->seed);
    groups_open(self, config);
    self->full = zmalloc(self->group_count + 1);
    return self;
}

static void release_all(scheduler_t *self)
{
    for (uint32_t from = 0; from < self->hosts && self->running_count > 0; from++)
        for (uint32_t to = 0; to < self->hosts; to++)
            if (bit(row(self, self->running, from), to))
                scheduler_release(self, from, to);
}

void scheduler_destroy(scheduler_t **self_p)
{
    scheduler_t *self = *self_p;
    if (!self)
        return;
    release_all(self);
    for (uint32_t i = 0; i < self->group_count; i++) {
        free(self->groups[i].members);
        free(self->groups[i].bits);
    }
    for (size_t s = 0; s < self->shared_count; s++)
        free(self->shared[s]);
    void *parts[] = {self->host, self->position, self->out, self->in, self->running, self->free,
        self->load, self->in_use, self->away, self->pending, self->blocked, self->woken_by,
        self->full, self->shared_first, self->machine, self->shared, self->groups, self->heap};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        free(parts[i]);
    free(self);
    *self_p = NULL;
}

// ------------------------------------------------------------------------------------------ edges

static bool both_present(const scheduler_t *self, uint32_t from, uint32_t to)
{
    return !self->away[from] && !self->away[to];
}

bool scheduler_add(scheduler_t *self, uint32_t from, uint32_t to)
{
    assert(from != to && from < self->hosts && to < self->hosts);
    if (bit(row(self, self->out, from), to) || bit(row(self, self->running, from), to))
        return false;
    bit_put(row(self, self->out, from), to, true);
    bit_put(row(self, self->in, to), from, true);
    self->remaining++;
    if (both_present(self, from, to)) {
        edge_load(self, from, to, true);
        look_at(self, sender_node(from));
        look_at(self, receiver_node(self, to));
    }
    return true;
}

static void edge_clear(scheduler_t *self, uint32_t from, uint32_t to)
{
    bit_put(row(self, self->out, from), to, false);
    bit_put(row(self, self->in, to), from, false);
    self->remaining--;
    if (both_present(self, from, to))
        edge_load(self, from, to, false);
}

void scheduler_remove(scheduler_t *self, uint32_t from, uint32_t to)
{
    if (bit(row(self, self->out, from), to))
        edge_clear(self, from, to);
}

static void presence(scheduler_t *self, uint32_t host, bool present)
{
    if (self->away[host] == !present)
        return;
    self->away[host] = false;
    for (uint32_t other = 0; other < self->hosts; other++) {
        if (self->away[other])
            continue;
        if (bit(row(self, self->out, host), other))
            edge_load(self, host, other, present);
        if (bit(row(self, self->in, host), other))
            edge_load(self, other, host, present);
    }
    self->away[host] = !present;
    uint32_t nodes[2] = {sender_node(host), receiver_node(self, host)};
    for (int i = 0; i < 2; i++) {
        uint32_t most = self->mode == MP__MODE__CONCURRENT ? self->host[host].at_once : 1;
        bool free_now = present && (most == 0 || self->in_use[nodes[i]] < most);
        bit_put(free_bits(self, i == 1), host, free_now);
    }
    if (present)
        look_at_host(self, host, NO_GROUP);
}

void scheduler_leave(scheduler_t *self, uint32_t host)
{
    presence(self, host, false);
}

void scheduler_return(scheduler_t *self, uint32_t host)
{
    presence(self, host, true);
}

// --------------------------------------------------------------------------------------- the rule

// Round of the circle method in which the pair meets, both directions one after the other; with
// split slots the shift, which is a matching of senders and receivers too.
static uint32_t round_of(const scheduler_t *self, uint32_t from, uint32_t to)
{
    uint32_t i = self->position[from], j = self->position[to], n = self->hosts;
    if (self->split)
        return j > i ? j - i : j + n - i;
    uint32_t rounds = n % 2 ? n : n - 1, sum = i + j;
    if (i == rounds)
        sum = 2 * j;
    else if (j == rounds)
        sum = 2 * i;
    uint32_t round = sum >= rounds ? sum - rounds : sum;
    return 2 * round + (i > j);
}

struct choice {
    double largest;
    uint32_t load, round, from, to;
    bool found, held_back;
};

static bool better(const struct choice *a, const struct choice *b)
{
    if (!b->found || a->largest != b->largest)
        return !b->found || a->largest > b->largest;
    return a->load != b->load ? a->load > b->load : a->round < b->round;
}

// Considers from -> to for `choice`; `partner` is the node that is being judged.
static void judge(scheduler_t *self, uint32_t from, uint32_t to, uint32_t own, uint32_t partner,
    struct choice *choice)
{
    if (!ledger_hosts_free(
            self->ledger, self->mode, self->bidir, self->host[from].host, self->host[to].host))
        return;
    struct choice made = {.load = self->load[partner], .from = from, .to = to, .found = true};
    made.largest = made.load > self->load[own] ? made.load : self->load[own];
    if (self->group_count > 0) {
        uint32_t groups[EDGE_GROUPS_MAX], count = edge_groups(self, from, to, groups);
        for (uint32_t i = 0; i < count; i++) {
            const struct crowd *group = &self->groups[groups[i]];
            if (!group_free(self, group)) {
                choice->held_back = true;
                return;
            }
            double weight = group->load / group->capacity;
            made.largest = weight > made.largest ? weight : made.largest;
        }
    }
    made.round = round_of(self, from, to);
    if (better(&made, choice)) {
        made.held_back = choice->held_back;
        *choice = made;
    }
}

// Partners of a host that no full shared value forbids, 64 at a time: a cheap sieve before each is
// judged.
static uint64_t allowed_word(const scheduler_t *self, uint32_t host, size_t word)
{
    uint64_t allowed = ~UINT64_C(0);
    for (size_t s = 0; s < self->shared_count; s++) {
        uint32_t own = self->shared[s][host];
        if (own != NO_GROUP && self->full[own]) {
            allowed &= self->groups[own].bits[word];
            continue;
        }
        for (uint32_t g = self->shared_first[s]; g < self->shared_first[s + 1]; g++)
            if (self->full[g] && g != own)
                allowed &= ~self->groups[g].bits[word];
    }
    return allowed;
}

static void sieve_update(scheduler_t *self)
{
    if (self->shared_count == 0)
        return;
    for (uint32_t g = self->shared_first[0]; g < self->group_count; g++)
        self->full[g] = !group_free(self, &self->groups[g]);
}

static struct choice choose_partner(scheduler_t *self, uint32_t node)
{
    struct choice choice = {0};
    uint32_t host = host_of(self, node);
    if (self->machine[host] != NO_GROUP && !group_free(self, &self->groups[self->machine[host]])) {
        choice.held_back = true;
        return choice;
    }
    bool as_sender = node < self->hosts, as_receiver = !self->split || !as_sender;
    const uint64_t *out = row(self, self->out, host), *in = row(self, self->in, host);
    const uint64_t *receivers = free_bits(self, true), *senders = free_bits(self, false);
    for (size_t w = 0; w < self->words; w++) {
        uint64_t sends = as_sender ? out[w] & receivers[w] : 0;
        uint64_t receives = as_receiver ? in[w] & senders[w] : 0;
        if (self->shared_count > 0 && (sends | receives)) {
            uint64_t allowed = allowed_word(self, host, w);
            choice.held_back = choice.held_back || ((sends | receives) & ~allowed);
            sends &= allowed;
            receives &= allowed;
        }
        for (uint64_t both = sends | receives; both; both &= both - 1) {
            uint32_t other = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(both);
            if (bit(&sends, other % 64))
                judge(self, host, other, node, receiver_node(self, other), &choice);
            if (bit(&receives, other % 64))
                judge(self, other, host, node, sender_node(other), &choice);
        }
    }
    return choice;
}

static void slot_take(scheduler_t *self, uint32_t node)
{
    uint32_t host = host_of(self, node);
    self->in_use[node]++;
    self->blocked[node] = false;
    if (self->mode != MP__MODE__CONCURRENT ||
        (self->host[host].at_once && self->in_use[node] >= self->host[host].at_once))
        bit_put(free_bits(self, node >= self->hosts), host, false);
    else
        look_at(self, node);
}

static void slot_give(scheduler_t *self, uint32_t node)
{
    uint32_t host = host_of(self, node);
    self->in_use[node]--;
    if (self->away[host])
        return;
    bit_put(free_bits(self, node >= self->hosts), host, true);
    look_at(self, node);
}

static void take(scheduler_t *self, uint32_t from, uint32_t to)
{
    edge_clear(self, from, to);
    bit_put(row(self, self->running, from), to, true);
    self->running_count++;
    edge_claim(self, from, to, true);
    slot_take(self, sender_node(from));
    slot_take(self, receiver_node(self, to));
}

bool scheduler_next(scheduler_t *self, uint32_t *from, uint32_t *to)
{
    if (self->seen_version != ledger_version(self->ledger)) {
        // Another run gave something back.
        for (uint32_t node = 0; node < self->nodes; node++)
            look_at(self, node);
        self->seen_version = ledger_version(self->ledger);
    }
    if (self->heap_stale)
        heap_rebuild(self);
    sieve_update(self);
    while (self->heap_count > 0) {
        uint32_t node = heap_pop(self), group = self->woken_by[node];
        if (self->load[node] == 0 || !node_free(self, node))
            continue;
        if (group != NO_GROUP && !group_free(self, &self->groups[group])) {
            self->blocked[node] = true;
            continue;
        }
        struct choice choice = choose_partner(self, node);
        if (choice.found) {
            take(self, choice.from, choice.to);
            *from = choice.from;
            *to = choice.to;
            return true;
        }
        self->blocked[node] = choice.held_back;
    }
    return false;
}

void scheduler_release(scheduler_t *self, uint32_t from, uint32_t to)
{
    if (!bit(row(self, self->running, from), to))
        return;
    bit_put(row(self, self->running, from), to, false);
    self->running_count--;
    uint32_t groups[EDGE_GROUPS_MAX], count = edge_groups(self, from, to, groups);
    bool full[EDGE_GROUPS_MAX];
    for (uint32_t i = 0; i < count; i++)
        full[i] = !group_free(self, &self->groups[groups[i]]);
    bool seen = self->seen_version == ledger_version(self->ledger);
    edge_claim(self, from, to, false);
    if (seen)
        self->seen_version = ledger_version(self->ledger);
    slot_give(self, sender_node(from));
    slot_give(self, receiver_node(self, to));
    for (uint32_t i = 0; i < count; i++) {
        const struct crowd *group = &self->groups[groups[i]];
        for (uint32_t m = 0; full[i] && m < group->member_count; m++)
            look_at_host(self, group->members[m], groups[i]);
    }
}

size_t scheduler_remaining(const scheduler_t *self)
{
    return self->remaining;
}

size_t scheduler_startable(const scheduler_t *self)
{
    return self->startable;
}

size_t scheduler_running(const scheduler_t *self)
{
    return self->running_count;
}

bool scheduler_blocked(const scheduler_t *self, uint32_t host)
{
    return self->blocked[sender_node(host)] || self->blocked[receiver_node(self, host)];
}
