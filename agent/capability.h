#ifndef MESHPERF_CAPABILITY_H
#define MESHPERF_CAPABILITY_H

// What this host is and can do, found out by trying. May block for name resolution.

#include <stdbool.h>
#include <stddef.h>

#include "guard.h"
#include "meshperf.pb-c.h"

#define CAPABILITY_TEXT_SIZE 256
#define CAPABILITY_ADDRESS_SIZE 64

struct capability {
    bool tcp, udp, sctp, ipv6;
    char sctp_reason[CAPABILITY_TEXT_SIZE]; // empty if sctp
    char kernel[CAPABILITY_TEXT_SIZE];
    char congestion[CAPABILITY_TEXT_SIZE]; // separated by blanks
    char hostname[CAPABILITY_TEXT_SIZE];
    char boot_id[40];
    char guard[GUARD_TEXT_SIZE];
    char *tests[TEST_KIND_MAX]; // static names
    size_t test_count;
    unsigned cores;
};

void capability_find(struct capability *self, const struct guard *guard);
// True if what can change while a host runs has changed: whether it has SCTP. Cheap: a socket is
// tried only where the kernel has the module in already, so that none is loaded by it.
bool capability_changed(struct capability *self);
// Borrows from both for as long as `wire` is used.
void capability_to_wire(
    const struct capability *self, const struct guard *guard, Mp__Capabilities *wire);

// Where other agents measure to: the chosen ones ([0] IPv4, [1] IPv6, "" if none was chosen), else
// the one that reaches the controller, and beside it that interface's global address of the other
// family. Returns how many, 0 to 2.
size_t capability_addresses(const char *endpoint, const char chosen[2][CAPABILITY_ADDRESS_SIZE],
    char found[2][CAPABILITY_ADDRESS_SIZE]);

#endif
