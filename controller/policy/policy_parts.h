#ifndef MESHPERF_POLICY_PARTS_H
#define MESHPERF_POLICY_PARTS_H

// How the parts of the policy fit together. Private to this folder.

#include "policy.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

// ------------------------------------------------------------------------------------- tree.c

// Memory that is given back at once.
typedef struct pool pool_t;
pool_t *pool_new(void);
void pool_destroy(pool_t **self_p);
void *pool_get(pool_t *self, size_t size); // zeroed
char *pool_text(pool_t *self, const char *text, size_t size);

// A YAML document as plain strings, lists and mappings, with the place of everything.
enum node_type { NODE_TEXT, NODE_LIST, NODE_MAP };

struct node {
    enum node_type type;
    bool plain; // a place within the text can be told
    struct policy_place place;
    const char *text;     // NODE_TEXT, without control characters
    const char *key;      // below a NODE_MAP: its key, unique there
    struct policy_place key_place;
    struct node *first, *next;
    size_t count; // of children
};

// The document's mapping, in the pool; NULL with `error` filled in. An empty document is a mapping
// without children.
struct node *tree_parse(pool_t *pool, const char *text, size_t size, struct policy_error *error);

// ----------------------------------------------------------------------------------- reader.c

// What the readers hand on. They return false after `fail`.
struct reader {
    pool_t *pool;
    policy_t *policy;
    struct policy_error *error;
};

bool fail(struct reader *reader, struct policy_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
struct policy_place place_within(const struct node *node, size_t offset);
// "", or ", did you mean 'web'?".
const char *did_you_mean(
    const char *word, const char *const *words, size_t count, size_t stride, char text[96]);

// A key of a mapping and who reads its value.
struct key {
    const char *name;
    bool (*read)(struct reader *reader, const struct node *node, void *target);
};
// Every child by its key; an unknown one is an error that names `what` and the keys.
bool read_map(struct reader *reader, const struct node *node, const char *what,
    const struct key *keys, size_t count, void *target);
bool need_text(struct reader *reader, const struct node *node, const char *what);
// A text or a list of texts, one at a time.
bool read_texts(struct reader *reader, const struct node *node, const char *what, size_t most,
    bool (*read)(struct reader *reader, const struct node *node, void *target), void *target);
// One of `words`, whose index is stored.
bool read_word(struct reader *reader, const struct node *node, const char *what,
    const char *const *words, size_t count, unsigned *index);
bool read_duration(struct reader *reader, const struct node *node, const char *what,
    int64_t least_ns, int64_t most_ns, int64_t *duration_ns);
char *without_blanks(const char *text, char *copy, size_t size); // NULL: too long

// words.c: the small languages within a text
bool read_ports(struct reader *reader, const struct node *node, bool any, struct policy_ports **ports,
    size_t *count, const char **text);
// Sorted, and each port once; how many are left of `count`, which is at least 1.
size_t ports_merge(struct policy_ports *ports, size_t count);
bool read_set(struct reader *reader, const struct node *node, struct policy_set *set);
// expect.c
bool read_expect(struct reader *reader, const struct node *node, struct policy_rule *rule);
// rules.c
bool read_rules(struct reader *reader, const struct node *node);

const struct policy_group *group_find(const policy_t *policy, const char *name);
const struct policy_target *target_find(const policy_t *policy, const char *name);

// ---------------------------------------------------------------------------------- expand.c

int policy_cell_order(const struct policy_cell *a, const struct policy_cell *b);
struct policy_cell policy_cell_of(const struct policy_check *check);

// ---------------------------------------------------------------------------------- expect.c

// By the limits of a rule on one kind of test; `values` as struct policy_sight has them.
enum policy_verdict expect_judge(
    const struct policy_rule *rule, enum test_kind kind, const double *values, const char **words);
void expect_observed(
    const struct policy_rule *rule, enum test_kind kind, const double *values, char text[128]);

// ------------------------------------------------------------------------------------- sets.c

bool group_has(const struct policy_group *group, const struct selector_subject *agent);
// Marks of agents, then targets. False for those that are not in the set.
void set_members(const policy_t *policy, const struct policy_set *set,
    const struct selector_subject *agents, size_t count, bool *members);

#endif
