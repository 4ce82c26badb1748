#include "credentials.h"

#include <czmq.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

// Both tables are short or walked rarely; keys are looked up at every message, so by hash.
struct table {
    void **items; // in the order of making
    size_t count, room;
    zhashx_t *by_name; // token id or operator's name -> item
    zhashx_t *by_key;  // Z85 -> item
};

struct credentials {
    struct table tokens;
    struct table operators;
};

static void table_init(struct table *table)
{
    table->by_name = zhashx_new();
    table->by_key = zhashx_new();
}

static void *table_by_key(struct table *table, const uint8_t key[IDENTITY_KEY_SIZE])
{
    char text[IDENTITY_Z85_SIZE];
    identity_z85(key, text);
    return zhashx_lookup(table->by_key, text);
}

static void table_add(
    struct table *table, void *item, const char *name, const uint8_t key[IDENTITY_KEY_SIZE])
{
    if (table->count == table->room) {
        table->room = table->room ? 2 * table->room : 16;
        table->items = realloc(table->items, table->room * sizeof *table->items);
        if (!table->items)
            abort();
    }
    table->items[table->count++] = item;
    char text[IDENTITY_Z85_SIZE];
    identity_z85(key, text);
    zhashx_insert(table->by_name, name, item);
    zhashx_insert(table->by_key, text, item);
}

static void table_remove(
    struct table *table, void *item, const char *name, const uint8_t key[IDENTITY_KEY_SIZE])
{
    char text[IDENTITY_Z85_SIZE];
    identity_z85(key, text);
    zhashx_delete(table->by_name, name);
    zhashx_delete(table->by_key, text);
    for (size_t i = 0; i < table->count; i++)
        if (table->items[i] == item) {
            table->count--;
            memmove(
                table->items + i, table->items + i + 1, (table->count - i) * sizeof *table->items);
            return;
        }
}

static void token_free(struct token *token)
{
    free(token->labels);
    free(token);
}

credentials_t *credentials_new(void)
{
    credentials_t *self = zmalloc(sizeof *self);
    table_init(&self->tokens);
    table_init(&self->operators);
    return self;
}

void credentials_destroy(credentials_t **self_p)
{
    if (!self_p || !*self_p)
        return;
    credentials_t *self = *self_p;
    for (size_t i = 0; i < self->tokens.count; i++)
        token_free(self->tokens.items[i]);
    for (size_t i = 0; i < self->operators.count; i++)
        free(self->operators.items[i]);
    struct table *tables[2] = {&self->tokens, &self->operators};
    for (int i = 0; i < 2; i++) {
        zhashx_destroy(&tables[i]->by_name);
        zhashx_destroy(&tables[i]->by_key);
        free(tables[i]->items);
    }
    free(self);
    *self_p = NULL;
}

// ------------------------------------------------------------------------------------- tokens

const char *token_fault(const struct token *token, int64_t now_wall_ns)
{
    if (token->revoked)
        return "was revoked";
    if (now_wall_ns >= token->expires_wall_ns)
        return "has expired";
    if (token->used >= token->uses)
        return "is used up";
    return NULL;
}

// Room for one more: the oldest token that can enrol nobody any more gives way.
static bool tokens_make_room(credentials_t *self, int64_t now_wall_ns)
{
    if (self->tokens.count < CREDENTIALS_TOKENS_MAX)
        return true;
    for (size_t i = 0; i < self->tokens.count; i++)
        if (token_fault(self->tokens.items[i], now_wall_ns)) {
            credentials_remove_token(self, self->tokens.items[i]);
            return true;
        }
    return false;
}

struct token *credentials_restore_token(credentials_t *self, const struct token *token)
{
    if (zhashx_lookup(self->tokens.by_name, token->id) ||
        table_by_key(&self->tokens, token->public_key) ||
        !tokens_make_room(self, token->created_wall_ns))
        return NULL;
    struct token *copy = zmalloc(sizeof *copy);
    *copy = *token;
    copy->labels = NULL;
    if (token->label_count > 0) {
        copy->labels = zmalloc(token->label_count * sizeof *copy->labels);
        memcpy(copy->labels, token->labels, token->label_count * sizeof *copy->labels);
    }
    table_add(&self->tokens, copy, copy->id, copy->public_key);
    return copy;
}

struct token *credentials_create_token(
    credentials_t *self, const struct token *template, struct identity *key)
{
    struct token token = *template;
    if (identity_generate(key) != 0)
        return NULL;
    memcpy(token.public_key, key->public_key, sizeof token.public_key);
    token.used = 0;
    token.revoked = false;
    do {
        snprintf(token.id, sizeof token.id, "%08x", randombytes_random());
    } while (zhashx_lookup(self->tokens.by_name, token.id));
    return credentials_restore_token(self, &token);
}

struct token *credentials_token_by_id(credentials_t *self, const char *id)
{
    return zhashx_lookup(self->tokens.by_name, id);
}

struct token *credentials_token_by_key(credentials_t *self, const uint8_t key[IDENTITY_KEY_SIZE])
{
    return table_by_key(&self->tokens, key);
}

void credentials_remove_token(credentials_t *self, struct token *token)
{
    table_remove(&self->tokens, token, token->id, token->public_key);
    token_free(token);
}

size_t credentials_token_count(const credentials_t *self)
{
    return self->tokens.count;
}

struct token *credentials_token_at(credentials_t *self, size_t place)
{
    return place < self->tokens.count ? self->tokens.items[place] : NULL;
}

// ---------------------------------------------------------------------------------- operators

struct operator_ *credentials_add_operator(credentials_t *self, const struct operator_ *operator_)
{
    if (self->operators.count >= CREDENTIALS_OPERATORS_MAX ||
        zhashx_lookup(self->operators.by_name, operator_->name) ||
        table_by_key(&self->operators, operator_->public_key))
        return NULL;
    struct operator_ *copy = zmalloc(sizeof *copy);
    *copy = *operator_;
    table_add(&self->operators, copy, copy->name, copy->public_key);
    return copy;
}

struct operator_ *credentials_operator_by_name(credentials_t *self, const char *name)
{
    return zhashx_lookup(self->operators.by_name, name);
}

struct operator_ *credentials_operator_by_key(
    credentials_t *self, const uint8_t key[IDENTITY_KEY_SIZE])
{
    return table_by_key(&self->operators, key);
}

void credentials_remove_operator(credentials_t *self, struct operator_ *operator_)
{
    table_remove(&self->operators, operator_, operator_->name, operator_->public_key);
    free(operator_);
}

size_t credentials_operator_count(const credentials_t *self)
{
    return self->operators.count;
}

struct operator_ *credentials_operator_at(credentials_t *self, size_t place)
{
    return place < self->operators.count ? self->operators.items[place] : NULL;
}

enum wire_role role_to_wire(Mp__Role role)
{
    switch (role) {
    case MP__ROLE__ADMIN:
        return WIRE_ADMIN;
    case MP__ROLE__OPERATOR:
        return WIRE_OPERATOR;
    default:
        return WIRE_VIEWER;
    }
}
