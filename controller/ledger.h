#ifndef MESHPERF_LEDGER_H
#define MESHPERF_LEDGER_H

// What is in use now, by all runs together: hosts, machines (agents of one boot id), shared values
// (uplinks). Counters only; who may take what, and in which order, is the schedulers' business.
// Numbers are given once for a word and stay valid for the ledger's life. No I/O, no threads.

#include <stdbool.h>
#include <stdint.h>

#include "meshperf.pb-c.h"

#define LEDGER_NONE UINT32_MAX
#define LEDGER_MACHINE_BPS_PER_CORE UINT64_C(250000000) // stated rates that share a machine

typedef struct ledger ledger_t;

ledger_t *ledger_new(void);
void ledger_destroy(ledger_t **self_p);

uint32_t ledger_host(ledger_t *self, uint32_t agent_id);
uint32_t ledger_machine(ledger_t *self, const char *boot_id, unsigned cores);
uint32_t ledger_shared(ledger_t *self, const char *key, const char *value);

// How many tests of a rate (0: not stated) a machine takes at once; at least 1.
double ledger_machine_capacity(const ledger_t *self, uint32_t machine, uint64_t rate_bps);

// May these start now? Light probes keep a host from bandwidth tests, not from each other.
bool ledger_hosts_free(const ledger_t *self, Mp__Mode mode, bool bidir, uint32_t from, uint32_t to);
bool ledger_machine_free(const ledger_t *self, uint32_t machine, uint64_t rate_bps);
bool ledger_shared_free(const ledger_t *self, uint32_t shared, uint32_t limit);
bool ledger_host_idle(const ledger_t *self, uint32_t host); // no bandwidth test
bool ledger_idle(const ledger_t *self);                     // nobody uses anything

// Take (true) or give back.
void ledger_hosts_claim(
    ledger_t *self, Mp__Mode mode, bool bidir, uint32_t from, uint32_t to, bool take);
void ledger_machine_claim(ledger_t *self, uint32_t machine, uint64_t rate_bps, bool take);
void ledger_shared_claim(ledger_t *self, uint32_t shared, bool take);
void ledger_light_claim(ledger_t *self, uint32_t host, bool take);

// Grows whenever something was given back: what could not start may be able to now.
uint64_t ledger_version(const ledger_t *self);

#endif
