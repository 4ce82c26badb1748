#ifndef MESHPERF_POLICY_H
#define MESHPERF_POLICY_H

// A policy: what may reach what, from its text to verdicts. Pure: no I/O, no clock, no network, so
// that controller and command line come to the same checks and the same verdicts from the same text.
//
//     text --policy_parse--> policy --policy_expand(agents)--> checks --policy_judge(sights)--> verdicts
//
// A check is one rule, one pair and one port (or, for `expect`, one test). What a run has to measure
// for the checks are cells: two checks of the same pair and port share one. meshperf-policy(5) is the
// manual of the file.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "meshperf.pb-c.h"
#include "selector.h"
#include "testspec.h"

#define POLICY_BYTES_MAX (4u << 20)
#define POLICY_DEPTH_MAX 16      // of nested lists and mappings
#define POLICY_NODES_MAX 400000  // values in one file
#define POLICY_GROUPS_MAX 4096   // groups, and targets
#define POLICY_RULES_MAX 10000
#define POLICY_PORTS_MAX 4096    // of one rule
#define POLICY_CHECKS_MAX 2000000
#define POLICY_NAME_MAX 128

struct policy_place {
    uint32_t line, column; // from 1
};

// What is wrong with a text, and where: for "FILE:LINE:COLUMN: text".
struct policy_error {
    struct policy_place place;
    char text[512];
};

enum policy_protocol { POLICY_TCP = 1, POLICY_UDP = 2, POLICY_SCTP = 3 };
enum policy_expected { POLICY_IGNORE = 0, POLICY_ALLOW = 1, POLICY_DENY = 2, POLICY_EXPECT = 3 };
enum policy_how { POLICY_HOW_ANY, POLICY_HOW_FILTERED, POLICY_HOW_REJECTED, POLICY_HOW_REFUSED };
enum policy_wish { POLICY_WISH_AGENT, POLICY_WISH_SERVICE, POLICY_WISH_EITHER };

struct policy_ports { // tcp/9000-9003
    enum policy_protocol protocol;
    uint16_t first, last;
};

// Agents that meet every stated criterion; of a list, any one.
struct policy_group {
    const char *name;
    struct policy_place place;
    const char **label_keys, **label_values; // value NULL: any of the following until the next key
    size_t label_count;
    struct cidr *subnets;
    size_t subnet_count;
    const char **agents; // names; the last character may be *
    size_t agent_count;
};

struct policy_target { // no agent runs there
    const char *name;
    struct policy_place place;
    const char *address;
};

enum policy_term_kind { POLICY_TERM_ANY, POLICY_TERM_GROUP, POLICY_TERM_TARGET };
struct policy_term {
    enum policy_term_kind kind;
    bool except;   // taken out of this item
    uint32_t item; // of the list: items are united
    uint32_t index;
};
struct policy_set {
    struct policy_term *terms;
    size_t count;
    const char *text; // as written
};

// A threshold of `expect`. Values are in SI units: bit/s, seconds, ratios.
struct policy_quantity {
    const char *name; // "bandwidth"
    enum test_kind kind;
    enum policy_unit { POLICY_RATE, POLICY_TIME, POLICY_RATIO } unit;
};
const struct policy_quantity *policy_quantities(size_t *count);
enum policy_compare { POLICY_LESS, POLICY_AT_MOST, POLICY_MORE, POLICY_AT_LEAST };
struct policy_limit {
    uint32_t quantity; // index into policy_quantities
    enum policy_compare compare;
    double value;
};

struct policy_rule {
    const char *name;
    struct policy_place place;
    struct policy_set from, to;
    enum policy_expected expected;
    struct policy_ports *ports; // allow, deny
    size_t port_count;
    const char *ports_text;
    enum policy_how how;
    enum policy_wish wish;
    bool unsupported_fails;
    double pairs; // share that must hold; 1 = all
    // expect
    struct policy_limit *limits;
    size_t limit_count;
    uint64_t at_bps; // of the udp test
};

struct policy {
    const char *name;
    enum policy_expected unlisted;
    struct policy_place unlisted_place;
    struct policy_ports *ports; // what "any" tries
    size_t port_count;
    unsigned attempts;
    int64_t timeout_ns;
    double rate; // probes a second of one agent; 0: the default
    int64_t time_ns; // measured time of the tests of `expect`; 0: each test's own
    struct policy_group *groups; // sorted by name
    size_t group_count;
    struct policy_target *targets; // sorted by name
    size_t target_count;
    struct policy_rule *rules; // as in the file; the rule for what is unlisted is none of them
    size_t rule_count;
    uint64_t udp_at_bps; // the one rate of all udp expectations; 0: there is none
    void *memory;        // what all of this lies in
};
typedef struct policy policy_t;

// NULL on a mistake in the text, which needs no terminating zero. Borrows nothing of it.
policy_t *policy_parse(const char *text, size_t size, struct policy_error *error);
void policy_destroy(policy_t **self_p);

const char *policy_protocol_word(enum policy_protocol protocol);  // "tcp"
const char *policy_expected_word(enum policy_expected expected);  // "allow"
const char *policy_how_word(enum policy_how how);                 // "filtered"
// "bandwidth >= 5 Gbit/s, retransmits < 0.1 %": the limits of a rule for one kind of test.
void policy_limits_text(const struct policy_rule *rule, enum test_kind kind, char text[256]);

// ------------------------------------------------------------------------------------ checks

#define POLICY_UNLISTED UINT32_MAX // as a rule: no rule mentions it
#define POLICY_NOBODY UINT32_MAX   // as an end: the set is empty

struct policy_check {
    uint32_t rule;
    uint32_t from, to; // agents as handed in, then the policy's targets; POLICY_NOBODY
    uint16_t port;     // 0 for expect and for an empty set
    uint8_t protocol;
    uint8_t kind;      // TEST_PORT, or the test of an expectation; 0 for an empty set
    uint8_t expected;  // enum policy_expected
};

struct policy_checks {
    struct policy_check *checks; // by rule as in the file (unlisted last), from, to, port
    size_t count;
    size_t agent_count;   // borrowed, for names
    const struct selector_subject *agents;
    const policy_t *policy;
    // For lint: by rule, with the unlisted ones behind; counts of pairs and ports.
    uint32_t *made;       // checks
    uint32_t *overridden; // an allow that a deny decides
    uint32_t *overlapped; // also checked under an earlier rule of the same kind
    uint32_t *overridden_by, *overlapped_with; // one such rule; UINT32_MAX: none
};

// 0, or a negative error with the place in `error` (too many checks; a target with the name of an
// agent). `agents` must outlive the checks. Release also after a failure.
int policy_expand(const policy_t *policy, const struct selector_subject *agents, size_t count,
    struct policy_checks *checks, struct policy_error *error) __attribute__((warn_unused_result));
void policy_checks_release(struct policy_checks *checks);

const char *policy_end_name(const struct policy_checks *checks, uint32_t index);
const char *policy_rule_name(const policy_t *policy, uint32_t rule);
// "tcp/22", "latency", or the rule's ports as written where the set is empty.
void policy_check_port(const struct policy_checks *checks, const struct policy_check *check, char text[128]);
// "allow", "deny (filtered)", "bandwidth >= 5 Gbit/s".
void policy_check_expected(
    const struct policy_checks *checks, const struct policy_check *check, char text[256]);
enum policy_how policy_check_how(const struct policy_checks *checks, const struct policy_check *check);
enum policy_wish policy_check_wish(const struct policy_checks *checks, const struct policy_check *check);
// Why the set is empty, with the group's name.
void policy_check_empty(const struct policy_checks *checks, const struct policy_check *check, char text[256]);

// Agents that are in a rule's from or to: those a run has to know. `used` has one entry an agent,
// then one a target.
void policy_used(const policy_t *policy, const struct selector_subject *agents, size_t count, bool *used);

// What a run measures: one for each pair and port (or test), sorted by kind, from, to, port.
struct policy_cell {
    uint32_t from, to;
    uint16_t port;
    uint8_t protocol, kind;
    bool look_on; // no listener is to be opened: every rule that is checked here wishes so
};
// The caller frees.
struct policy_cell *policy_cells(const struct policy_checks *checks, size_t *count);

// ---------------------------------------------------------------------------------- verdicts

enum policy_observed {
    POLICY_NOTHING, // the cell says nothing: see its state
    POLICY_OPEN, POLICY_ACCEPTED, POLICY_REFUSED, POLICY_REJECTED, POLICY_FILTERED, POLICY_NO_ROUTE,
    POLICY_UNSUPPORTED, POLICY_ERROR
};
enum policy_arrived { POLICY_ARRIVED_UNKNOWN, POLICY_ARRIVED_YES, POLICY_ARRIVED_NO };
enum policy_listener { POLICY_LISTENER_NONE, POLICY_LISTENER_AGENT, POLICY_LISTENER_SERVICE };
enum policy_verdict { POLICY_NOT_TESTED, POLICY_HELD, POLICY_VIOLATED };

#define POLICY_VALUES_MAX 8 // quantities of one kind of test

// What a cell says, compactly: a check of a million cells keeps these, not the cells.
struct policy_sight {
    struct policy_cell cell;
    bool measured;  // the cell's state is ok
    bool final;     // it will not change any more
    bool unsupported;
    uint8_t observed, arrived, listener;
    bool alive;     // the destination's agent answered in the same minute
    bool unreachable; // rejected with host or net unreachable: what a router says of a dead host
    int64_t at_wall_ns; // when
    double time_s;      // that the probe took, or that was measured
    double *values; // expect: by policy_quantities of this kind, NAN = not measured; owned
    char *text;     // evidence, or why there is none; owned, may be NULL
};
// Of a cell of a run, whose numbers of agents it keeps. False for what no policy speaks of (path).
bool policy_sight_of(const Mp__Cell *cell, struct policy_sight *sight);
void policy_sights_release(struct policy_sight *sights, size_t count);

struct policy_judged {
    uint8_t verdict;
    bool tolerated; // violated, but the rule's `pairs` permits it
    const char *words; // why, a static sentence
    const struct policy_sight *sight; // NULL: the run has no such cell
};

struct policy_counts {
    size_t held, violated, not_tested, tolerated; // violated does not include tolerated
};

// The verdict of one probe by the table of meshperf-policy(5), without liveness.
enum policy_verdict policy_table(enum policy_expected expected, const struct policy_sight *sight,
    bool target, const char **words);

// One entry a check; `sights` gets sorted by cell. The caller frees the array.
struct policy_judged *policy_judge(const struct policy_checks *checks, struct policy_sight *sights,
    size_t sight_count, struct policy_counts *counts);
// Facts and reason, a sentence: never empty.
void policy_evidence(const struct policy_checks *checks, const struct policy_check *check,
    const struct policy_judged *judged, char text[1024]);
// "open", "4.1 Gbit/s": what was seen, in a word; "-" if nothing.
void policy_observed_text(const struct policy_checks *checks, const struct policy_check *check,
    const struct policy_judged *judged, char text[128]);
const char *policy_observed_word(enum policy_observed observed);
const char *policy_arrived_word(enum policy_arrived arrived);
const char *policy_listener_word(enum policy_listener listener);
const char *policy_verdict_word(enum policy_verdict verdict);
bool policy_observed_parse(const char *word, uint8_t *observed);
bool policy_arrived_parse(const char *word, uint8_t *arrived);
bool policy_listener_parse(const char *word, uint8_t *listener);
// 0 held, 1 violated, 4 something (or everything) was not tested.
int policy_exit_status(const struct policy_counts *counts, bool allow_incomplete);

// ------------------------------------------------------------------------ lint, explain, learn

// What an agent cannot do, in words; NULL: it can.
struct policy_ability {
    const char *sctp, *low_ports;
};

// Prints warnings ("FILE:LINE:COLUMN: warning: ...") and counts. `agents` NULL: the groups are not
// compared with agents. The number of warnings.
size_t policy_lint(const policy_t *policy, const char *file, const struct selector_subject *agents,
    const struct policy_ability *abilities, size_t count, FILE *stream);

// Which rule decides each port of a pair. `to` is an agent, or NULL and the name of a target. Called
// for each port (or test of an expectation) in the order of rules; `overrides` names rules that give
// way there, "" if there are none.
typedef void policy_explained(void *arg, const struct policy_checks *checks,
    const struct policy_check *check, const char *overrides);
// 0 or a negative error: no such target, or policy_expand's.
int policy_explain(const policy_t *policy, const struct selector_subject *from,
    const struct selector_subject *to, const char *target, policy_explained *each, void *arg,
    struct policy_error *error) __attribute__((warn_unused_result));

// A policy that says what a run found open, marked as observed and not approved.
struct policy_open {
    const char *run;
    const char *when; // "2026-11-23T10:00:00Z"
    const struct selector_subject *agents; // those of the run
    const bool *target;                    // which of them are targets
    size_t agent_count;
    const struct policy_sight *sights; // cells count into `agents`
    size_t sight_count;
};
// False if the run has no port, or is too large to learn from.
bool policy_learn(const struct policy_open *open, FILE *stream);

#endif
