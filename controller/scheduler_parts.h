#ifndef MESHPERF_SCHEDULER_PARTS_H
#define MESHPERF_SCHEDULER_PARTS_H

// What the files of the scheduler share; nobody else includes this.
//
//   scheduler.c         edges, and the rule by which the next one is chosen
//   scheduler_groups.c  machines and shared values that edges need
//   scheduler_queue.c   hosts that are worth a look
//
// A node is a slot of a host: one for both directions, or with `split` one that sends (numbered as
// the host) and one that receives (behind them).

#include "scheduler.h"

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
    bool heap_stale; // loads have grown
    bool *full; // of each shared group, while partners are chosen
    uint64_t seen_version;
    size_t remaining, startable, running_count;
};

static inline bool bit(const uint64_t *bits, size_t i)
{
    return bits[i / 64] >> (i % 64) & 1;
}

static inline void bit_put(uint64_t *bits, size_t i, bool value)
{
    uint64_t mask = UINT64_C(1) << (i % 64);
    bits[i / 64] = value ? bits[i / 64] | mask : bits[i / 64] & ~mask;
}

static inline uint64_t *row(const scheduler_t *self, uint64_t *matrix, uint32_t host)
{
    return matrix + host * self->words;
}

static inline uint32_t sender_node(uint32_t host)
{
    return host;
}

static inline uint32_t receiver_node(const scheduler_t *self, uint32_t host)
{
    return self->split ? self->hosts + host : host;
}

static inline uint32_t host_of(const scheduler_t *self, uint32_t node)
{
    return node < self->hosts ? node : node - self->hosts;
}

static inline uint64_t *free_bits(const scheduler_t *self, bool receivers)
{
    return self->free + (self->split && receivers ? self->words : 0);
}

static inline bool node_free(const scheduler_t *self, uint32_t node)
{
    return bit(free_bits(self, node >= self->hosts), host_of(self, node));
}

// ---------------------------------------------------------------------------- scheduler_queue.c

void queue_node(scheduler_t *self, uint32_t node);
// Both of a host's nodes, because `group` has room again, or NO_GROUP: for any reason.
void queue_host(scheduler_t *self, uint32_t host, uint32_t group);
uint32_t queue_pop(scheduler_t *self); // of at least one

// --------------------------------------------------------------------------- scheduler_groups.c

// Groups that a test from -> to uses: at most two machines and two values of each declared label.
#define EDGE_GROUPS_MAX 40
uint32_t edge_groups(
    const scheduler_t *self, uint32_t from, uint32_t to, uint32_t groups[EDGE_GROUPS_MAX]);
bool group_free(const scheduler_t *self, const struct crowd *group);
void edge_claim(scheduler_t *self, uint32_t from, uint32_t to, bool take);
// Loads of an edge between present hosts appear or go.
void edge_load(scheduler_t *self, uint32_t from, uint32_t to, bool add);
void groups_open(scheduler_t *self, const struct schedule_config *config);

#endif
