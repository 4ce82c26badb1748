#ifndef MESHPERF_CREDENTIALS_H
#define MESHPERF_CREDENTIALS_H

// Join tokens and operators, in memory: who may still enrol, who may ask what. Pure: the server
// persists changes and tells the ZAP handler. Secrets pass through once, when they are made, and
// are not kept. Borrowed pointers stay valid until the object is removed.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "identity.h"
#include "meshperf.pb-c.h"
#include "registry.h"
#include "wire.h"

#define CREDENTIALS_TOKENS_MAX 10000
#define CREDENTIALS_OPERATORS_MAX 1000
#define CREDENTIALS_USES_MAX 100000
#define CREDENTIALS_EXPIRES_MIN_NS (INT64_C(1) * 1000000000)
#define CREDENTIALS_EXPIRES_MAX_NS (INT64_C(3660) * 24 * 3600 * 1000000000) // ten years
#define CREDENTIALS_TOKEN_ID_SIZE 9

struct token {
    char id[CREDENTIALS_TOKEN_ID_SIZE]; // 8 hex digits
    uint8_t public_key[IDENTITY_KEY_SIZE];
    int64_t created_wall_ns;
    int64_t expires_wall_ns;
    uint32_t uses, used;
    bool revoked;
    char by[IDENTITY_NAME_SIZE];
    struct label *labels; // owned
    size_t label_count;
};

struct operator_ {
    char name[IDENTITY_NAME_SIZE];
    Mp__Role role;
    uint8_t public_key[IDENTITY_KEY_SIZE];
    int64_t created_wall_ns;
};

typedef struct credentials credentials_t;

credentials_t *credentials_new(void);
void credentials_destroy(credentials_t **self_p);

// A new token of `template`'s times, uses, labels (copied) and maker; id and key are made here, the
// whole pair goes to `key`. NULL: the table is full of live tokens.
struct token *credentials_create_token(
    credentials_t *self, const struct token *template, struct identity *key);
// One from the store, as it was. NULL if its key or id is taken.
struct token *credentials_restore_token(credentials_t *self, const struct token *token);
struct token *credentials_token_by_id(credentials_t *self, const char *id);
struct token *credentials_token_by_key(credentials_t *self, const uint8_t key[IDENTITY_KEY_SIZE]);
void credentials_remove_token(credentials_t *self, struct token *token);
size_t credentials_token_count(const credentials_t *self);
// In the order of their making; NULL beyond the end.
struct token *credentials_token_at(credentials_t *self, size_t place);
// NULL if it may enrol one more host at this moment, else why not ("has expired").
const char *token_fault(const struct token *token, int64_t now_wall_ns);

// NULL if name or key is taken or the table is full.
struct operator_ *credentials_add_operator(credentials_t *self, const struct operator_ *operator_);
struct operator_ *credentials_operator_by_name(credentials_t *self, const char *name);
struct operator_ *credentials_operator_by_key(
    credentials_t *self, const uint8_t key[IDENTITY_KEY_SIZE]);
void credentials_remove_operator(credentials_t *self, struct operator_ *operator_);
size_t credentials_operator_count(const credentials_t *self);
struct operator_ *credentials_operator_at(credentials_t *self, size_t place);

enum wire_role role_to_wire(Mp__Role role);

#endif
