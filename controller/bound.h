#ifndef MESHPERF_BOUND_H
#define MESHPERF_BOUND_H

// The least time that a set of directed tests can take when hosts, machines and declared uplinks
// are used as the mode allows: the largest load of any resource over its capacity. Before a run it
// is fed with planned times, afterwards with the times really occupied. Pure arithmetic.
//
// isolated: the busiest host; W(S) / floor(|S| / 2) for S = all hosts and the hosts of each label
// value (a test occupies two hosts of S). duplex: the busiest sender and the busiest receiver.
// All modes: each machine and each shared value over its capacity, and the longest test.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "meshperf.pb-c.h"

#define BOUND_NONE UINT32_MAX
#define BOUND_TEXT_SIZE 160

typedef struct bound bound_t;

bound_t *bound_new(Mp__Mode mode, size_t host_count);
void bound_destroy(bound_t **self_p);

// A host's name is borrowed until bound_destroy.
void bound_host_name(bound_t *self, uint32_t host, const char *name);
// A label value that the host has ("zone=x").
void bound_host_label(bound_t *self, uint32_t host, const char *key, const char *value);
// Machines by number (from 0), with how many such tests they take at once.
void bound_host_machine(bound_t *self, uint32_t host, uint32_t machine, double capacity);
// A shared value: tests with exactly one end inside it count; `capacity` at once.
void bound_host_shared(
    bound_t *self, uint32_t host, const char *key, const char *value, double capacity);

// One test (bidir: both directions at once) that occupies its resources for so long.
void bound_add(bound_t *self, uint32_t from, uint32_t to, double seconds, bool bidir);

double bound_seconds(const bound_t *self);
// Which resource sets it, in words.
double bound_result(const bound_t *self, char by[BOUND_TEXT_SIZE]);

#endif
