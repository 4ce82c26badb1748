#include "scheduler_parts.h"

#include <czmq.h>

#include "mix.h"

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
        queue_node(self, sender_node(from));
        queue_node(self, receiver_node(self, to));
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
        queue_host(self, host, NO_GROUP);
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
        queue_node(self, node);
}

static void slot_give(scheduler_t *self, uint32_t node)
{
    uint32_t host = host_of(self, node);
    self->in_use[node]--;
    if (self->away[host])
        return;
    bit_put(free_bits(self, node >= self->hosts), host, true);
    queue_node(self, node);
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
            queue_node(self, node);
        self->seen_version = ledger_version(self->ledger);
    }
    sieve_update(self);
    while (self->heap_count > 0) {
        uint32_t node = queue_pop(self), group = self->woken_by[node];
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
            queue_host(self, group->members[m], groups[i]);
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

bool scheduler_blocked(const scheduler_t *self, uint32_t host)
{
    return self->blocked[sender_node(host)] || self->blocked[receiver_node(self, host)];
}
