#ifndef MESHPERF_POLICY_BENCH_H
#define MESHPERF_POLICY_BENCH_H

// A small world for policies: web-1 and web-2 (tier=web, 10.10.0.x), db-1 and db-2 (10.20.0.x and
// fd00:20::x), office-1 (10.30.0.1) and bastion (role=bastion, 10.40.0.1), in this order.

#include "policy.h"

enum { WEB1, WEB2, DB1, DB2, OFFICE, BASTION, WORLD };
extern const struct selector_subject world[WORLD];

// The groups web, db, office, admin, nobody and the target printer, as they stand before rules.
#define GROUPS                                                                                     \
    "policy: test\n"                                                                               \
    "groups:\n"                                                                                    \
    "  web: {labels: {tier: web}}\n"                                                               \
    "  db: {subnets: [10.20.0.0/16, \"fd00:20::/48\"]}\n"                                          \
    "  office: {agents: [\"office-*\"]}\n"                                                         \
    "  admin: {labels: {role: bastion}}\n"                                                         \
    "  nobody: {agents: gone}\n"                                                                   \
    "targets: {printer: {address: 10.9.0.7}}\n"

// Fails the test with the parser's words.
policy_t *policy_of(const char *text);
void expanded(policy_t **policy, struct policy_checks *checks, const char *text);
void forget(policy_t **policy, struct policy_checks *checks);
// "web may reach db: web-1 > db-1 tcp/5432 allow" of a check.
const char *line_of(const struct policy_checks *checks, size_t index);
// The checks as lines, each of which must be there, in order; count NULL-terminated.
void expect_lines(const struct policy_checks *checks, const char *const *lines);

#endif
