#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "advertise.h"
#include "errors.h"
#include "log.h"
#include "server_parts.h"

#define HELLO_STORED_MAX (64 * 1024)
// A token whose last use was lost on the way back may still ask again for so long.
#define TOKEN_GRACE_NS (600 * NS_PER_S)

// ------------------------------------------------------------------------------ labels and HELLO

void member_set_labels(struct member *member, int strength, Mp__Label *const *labels, size_t count)
{
    free(member->labels[strength]);
    member->labels[strength] = count > 0 ? zmalloc(count * sizeof(struct label)) : NULL;
    member->label_count[strength] = count;
    for (size_t i = 0; i < count; i++) {
        struct label *label = member->labels[strength] + i;
        snprintf(label->key, sizeof label->key, "%s", labels[i]->key);
        snprintf(label->value, sizeof label->value, "%s", labels[i]->value);
    }
}

static bool has_label(const struct label *labels, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(labels[i].key, key) == 0)
            return true;
    return false;
}

static int label_compare(const void *a, const void *b)
{
    return strcmp(((const struct label *)a)->key, ((const struct label *)b)->key);
}

void member_apply_labels(struct server *self, struct member *member, struct agent *agent)
{
    (void)self;
    size_t room = 0;
    for (int i = 0; i < LABELS_STRENGTHS; i++)
        room += member->label_count[i];
    struct label *merged = zmalloc((room + 1) * sizeof *merged);
    size_t count = 0;
    for (int i = LABELS_STRENGTHS - 1; i >= 0; i--)
        for (size_t k = 0; k < member->label_count[i]; k++)
            if (!has_label(merged, count, member->labels[i][k].key))
                merged[count++] = member->labels[i][k];
    // Those with an empty value have done their work: they hid a weaker one.
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (merged[i].value[0])
            merged[kept++] = merged[i];
    if (kept > REGISTRY_LABELS_MAX)
        kept = REGISTRY_LABELS_MAX;
    qsort(merged, kept, sizeof *merged, label_compare);
    free(agent->labels);
    agent->labels = merged;
    agent->label_count = kept;
}

void agent_apply_hello(struct agent *agent, const Mp__Hello *hello)
{
    agent->address_count = hello->n_addresses < 2 ? hello->n_addresses : 2;
    for (size_t i = 0; i < agent->address_count; i++)
        snprintf(agent->addresses[i], sizeof agent->addresses[i], "%s", hello->addresses[i]);
    agent->data_port = (uint16_t)hello->data_port;
    snprintf(agent->boot_id, sizeof agent->boot_id, "%s", hello->boot_id);
    snprintf(agent->software, sizeof agent->software, "%s", hello->software);
    Mp__Capabilities known = *hello->capabilities;
    known.base.n_unknown_fields = 0;
    known.base.unknown_fields = NULL;
    if (agent->capabilities)
        mp__capabilities__free_unpacked(agent->capabilities, NULL);
    agent->capabilities = (Mp__Capabilities *)wire_copy(&known.base);
}

// A stored HELLO is bytes from outside too: it goes through the border like a fresh one.
static void hello_restore(struct member *member, struct agent *agent)
{
    Mp__Hello *hello = member->hello_size <= HELLO_STORED_MAX
                           ? mp__hello__unpack(NULL, member->hello_size, member->hello)
                           : NULL;
    if (!hello)
        return;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_HELLO;
    envelope.hello = hello;
    size_t size;
    uint8_t *bytes = wire_pack(&envelope, &size);
    mp__hello__free_unpacked(hello, NULL);
    int error;
    char text[256];
    Mp__Envelope *checked =
        bytes ? wire_unpack(bytes, size, WIRE_AGENT, false, &error, text) : NULL;
    free(bytes);
    if (!checked) {
        log_warn("%s: its stored registration cannot be read; it will register anew", agent->name);
        return;
    }
    agent_apply_hello(agent, checked->hello);
    wire_free(&checked);
}

void member_persist(struct server *self, struct member *member, store_done *done, void *ctx)
{
    const struct agent *agent = registry_by_id(self->registry, member->agent_id);
    struct stored_agent stored = {.id = agent->id,
        .name = agent->name,
        .key = agent->key,
        .token = agent->token,
        .enrolled_wall_ns = agent->enrolled_wall_ns,
        .draining = agent->draining,
        .hello = member->hello,
        .hello_size = member->hello_size};
    for (int i = 0; i < LABELS_STRENGTHS; i++) {
        stored.labels[i] = member->labels[i];
        stored.label_count[i] = member->label_count[i];
    }
    store_put_agent(self->store, &stored, done, ctx);
}

// ---------------------------------------------------------------------------------------- ZAP

void member_zap(struct server *self, const struct agent *agent)
{
    struct zap_entry entry = {.role = WIRE_AGENT};
    memcpy(entry.key, agent->key, sizeof entry.key);
    snprintf(entry.label, sizeof entry.label, "%s", agent->name);
    zap_put(self->zap, &entry);
}

// A used-up token may pass for a while after its last use: the answer may have been lost, and the
// same host asks again. To anybody else it is refused when he asks.
void token_zap(struct server *self, const struct token *token, int64_t grace_ns)
{
    struct zap_entry entry = {.role = WIRE_ENROL, .expires_wall_ns = token->expires_wall_ns};
    memcpy(entry.key, token->public_key, sizeof entry.key);
    snprintf(entry.label, sizeof entry.label, "%s", token->id);
    if (token->revoked)
        entry.standing = ZAP_REVOKED;
    else if (token->used >= token->uses && grace_ns == 0)
        entry.standing = ZAP_USED_UP;
    else if (token->used >= token->uses) {
        int64_t until_wall_ns = clock_wall(self->clock) + grace_ns;
        if (until_wall_ns < entry.expires_wall_ns)
            entry.expires_wall_ns = until_wall_ns;
    }
    zap_put(self->zap, &entry);
}

void operator_zap(struct server *self, const struct operator_ *operator_)
{
    struct zap_entry entry = {.role = role_to_wire(operator_->role)};
    memcpy(entry.key, operator_->public_key, sizeof entry.key);
    snprintf(entry.label, sizeof entry.label, "%s", operator_->name);
    zap_put(self->zap, &entry);
}

// ------------------------------------------------------------------------------------- loading

static void load_agent(void *ctx, const struct stored_agent *stored)
{
    struct server *self = ctx;
    struct agent *agent = registry_add(self->registry, stored->id, stored->name, stored->key);
    if (!agent) {
        log_warn("the stored agent %s is left out: its name or key is there twice", stored->name);
        return;
    }
    snprintf(agent->token, sizeof agent->token, "%s", stored->token ? stored->token : "");
    agent->enrolled_wall_ns = stored->enrolled_wall_ns;
    agent->draining = stored->draining;
    agent->lost_mono_ns = self->started_mono_ns;
    struct member *member = server_member_add(self, agent->id);
    for (int i = 0; i < LABELS_STRENGTHS; i++) {
        size_t bytes = stored->label_count[i] * sizeof(struct label);
        if (bytes == 0)
            continue;
        member->labels[i] = zmalloc(bytes);
        memcpy(member->labels[i], stored->labels[i], bytes);
        member->label_count[i] = stored->label_count[i];
    }
    member_apply_labels(self, member, agent);
    if (stored->hello && stored->hello_size > 0) {
        member->hello = zmalloc(stored->hello_size);
        memcpy(member->hello, stored->hello, stored->hello_size);
        member->hello_size = stored->hello_size;
        hello_restore(member, agent);
    }
}

static void load_token(void *ctx, const struct stored_token *stored)
{
    struct server *self = ctx;
    struct token token = {.created_wall_ns = stored->created_wall_ns,
        .expires_wall_ns = stored->expires_wall_ns,
        .uses = stored->uses,
        .used = stored->used,
        .revoked = stored->revoked,
        .labels = (struct label *)stored->labels,
        .label_count = stored->label_count};
    snprintf(token.id, sizeof token.id, "%s", stored->id);
    snprintf(token.by, sizeof token.by, "%s", stored->by ? stored->by : "");
    memcpy(token.public_key, stored->public_key, sizeof token.public_key);
    credentials_restore_token(self->credentials, &token);
}

static void load_operator(void *ctx, const struct stored_operator *stored)
{
    struct server *self = ctx;
    struct operator_ operator_ = {.role = stored->role, .created_wall_ns = stored->created_wall_ns};
    snprintf(operator_.name, sizeof operator_.name, "%s", stored->name);
    memcpy(operator_.public_key, stored->public_key, sizeof operator_.public_key);
    credentials_add_operator(self->credentials, &operator_);
}

// An agent is stored before its token's count is: a crash in between is made good here.
static void recount_tokens(struct server *self)
{
    zhashx_t *counts = zhashx_new();
    for (struct agent *agent = registry_next(self->registry, 0); agent;
         agent = registry_next(self->registry, agent->id)) {
        uintptr_t count = (uintptr_t)zhashx_lookup(counts, agent->token);
        zhashx_update(counts, agent->token, (void *)(count + 1));
    }
    struct token *token;
    for (size_t i = 0; (token = credentials_token_at(self->credentials, i)); i++) {
        uintptr_t count = (uintptr_t)zhashx_lookup(counts, token->id);
        if (count > token->used)
            token->used = (uint32_t)count;
    }
    zhashx_destroy(&counts);
}

static bool load_key(struct server *self, char *error)
{
    char path[300], database[300];
    snprintf(path, sizeof path, "%s/controller.key", self->state_dir);
    snprintf(database, sizeof database, "%s/meshperf.db", self->state_dir);
    int rc = identity_load(&self->key, path);
    if (rc == -ENOENT && access(database, F_OK) == 0) {
        snprintf(error, SERVER_ERROR_SIZE,
            "%.200s is missing, but the database beside it is not: agents would not know this "
            "controller; put the key back, or start with an empty --state-dir",
            path);
        return false;
    }
    if (rc == -ENOENT) {
        rc = identity_generate(&self->key);
        if (rc == 0)
            rc = identity_save(&self->key, path);
    }
    if (rc != 0)
        snprintf(error, SERVER_ERROR_SIZE, "the controller's key %s: %s", path, mesh_strerror(rc));
    return rc == 0;
}

static void load_trouble(struct server *self, int rc)
{
    snprintf(self->trouble, sizeof self->trouble,
        "the database cannot be written (%s); no runs until the controller is started with a "
        "writable one",
        mesh_strerror(rc));
    self->read_only = true;
    log_error("%s", self->trouble);
}

// The context names the operators' socket by its path, and is read in other working directories.
static bool state_dir_absolute(struct server *self, char *error)
{
    char *path = realpath(self->state_dir, NULL);
    bool fits = path && strlen(path) < sizeof self->state_dir;
    if (fits)
        strcpy(self->state_dir, path);
    else
        snprintf(error, SERVER_ERROR_SIZE, "the state directory %s: %s", self->state_dir,
            path ? "its absolute path is too long" : mesh_strerror(-errno));
    free(path);
    return fits;
}

bool startup_load(struct server *self, char *error)
{
    int rc = state_dir_lock(self->state_dir);
    if (rc < 0) {
        snprintf(error, SERVER_ERROR_SIZE, "the state directory %s: %s", self->state_dir,
            rc == MESH_E_LOCKED ? "another controller is running in it" : mesh_strerror(rc));
        return false;
    }
    self->lock_fd = rc;
    if (!state_dir_absolute(self, error))
        return false;
    // The operators' socket and context live there, whatever the database can do.
    if (access(self->state_dir, W_OK) != 0) {
        snprintf(error, SERVER_ERROR_SIZE, "the state directory %s cannot be written: %s",
            self->state_dir, mesh_strerror(-errno));
        return false;
    }
    if (!load_key(self, error))
        return false;
    char path[300];
    snprintf(path, sizeof path, "%s/meshperf.db", self->state_dir);
    self->store = store_new(path, error);
    if (!self->store)
        return false;
    if ((rc = store_load_operators(self->store, load_operator, self)) != 0 ||
        (rc = store_load_tokens(self->store, load_token, self)) != 0 ||
        (rc = store_load_agents(self->store, load_agent, self)) != 0) {
        snprintf(error, SERVER_ERROR_SIZE, "%s cannot be read: %s", path, mesh_strerror(rc));
        return false;
    }
    recount_tokens(self);
    // Without a new epoch agents ignore orders of this life, and nothing could be stored anyway.
    rc = store_next_epoch(self->store, &self->epoch);
    if (rc != 0)
        load_trouble(self, rc);
    director_set_epoch(self->director, self->epoch);
    return true;
}

// ------------------------------------------------------------------------------- opening, resuming

// Before any socket is bound: an agent that returns early must not be told that it is unknown.
void startup_admit(struct server *self)
{
    struct token *token;
    for (size_t i = 0; (token = credentials_token_at(self->credentials, i)); i++)
        token_zap(self, token, TOKEN_GRACE_NS);
    struct operator_ *operator_;
    for (size_t i = 0; (operator_ = credentials_operator_at(self->credentials, i)); i++)
        operator_zap(self, operator_);
    for (struct agent *agent = registry_next(self->registry, 0); agent;
         agent = registry_next(self->registry, agent->id))
        member_zap(self, agent);
}

bool startup_open(struct server *self, const struct server_options *options, char *error)
{
    const char *bound = gateway_endpoint(self->gateway, GATEWAY_AGENTS);
    if (options->advertise) {
        if (!advertise_valid(options->advertise)) {
            snprintf(error, SERVER_ERROR_SIZE,
                "--advertise \"%.200s\" is not tcp://HOST:PORT that others can connect to",
                options->advertise);
            return false;
        }
        snprintf(self->endpoint, sizeof self->endpoint, "%s", options->advertise);
    } else {
        advertise_endpoint(bound, self->endpoint);
    }
    advertise_endpoint(gateway_endpoint(self->gateway, GATEWAY_OPERATORS), self->operator_endpoint);

    return true;
}

struct resumed_run {
    struct server *server;
    const char *id;
};

static void resume_cell(void *ctx, const Mp__Cell *cell)
{
    const struct resumed_run *run = ctx;
    director_resume_cell(run->server->director, run->id, cell);
}

static void resume_run(void *ctx, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
    const uint32_t *agent_ids, const struct cell_place *places, const bool *done)
{
    struct server *self = ctx;
    uint32_t *ids = zmalloc((info->agents + 1) * sizeof *ids);
    for (size_t i = 0; i < info->agents; i++) {
        const struct agent *agent = registry_by_id(self->registry, agent_ids[i]);
        ids[i] = agent && strcmp(agent->name, agents[i]->name) == 0 ? agent_ids[i] : 0;
    }
    struct resumed_run run = {self, info->id};
    int rc = director_resume(self->director, info, agents, ids, places, done);
    if (rc == 0 && director_wants_cells(info))
        rc = store_load_cells(self->store, info->id, resume_cell, &run);
    if (rc == 0)
        log_info("run %s goes on: %u of %u cells are done", info->id, info->done, info->cells);
    else
        log_error("run %s cannot go on: %s", info->id, mesh_strerror(rc));
    free(ids);
}

bool startup_resume(struct server *self, char *error)
{
    director_set_next_run(self->director, store_next_run_number(self->store));
    if (self->read_only) {
        director_storage(self->director, self->trouble);
        return true;
    }
    int rc = store_load_unfinished(self->store, resume_run, self);
    if (rc != 0)
        snprintf(error, SERVER_ERROR_SIZE, "unfinished runs cannot be read: %s", mesh_strerror(rc));
    return rc == 0;
}

// --------------------------------------------------------------------------- the operator's
// context

static bool admin_register(struct server *self, const uint8_t key[IDENTITY_KEY_SIZE])
{
    struct operator_ *known = credentials_operator_by_name(self->credentials, SERVER_ADMIN);
    if (known && memcmp(known->public_key, key, IDENTITY_KEY_SIZE) == 0)
        return true;
    if (known) {
        zap_drop(self->zap, known->public_key);
        credentials_remove_operator(self->credentials, known);
    }
    struct operator_ fresh = {
        .name = SERVER_ADMIN, .role = MP__ROLE__ADMIN, .created_wall_ns = clock_wall(self->clock)};
    memcpy(fresh.public_key, key, IDENTITY_KEY_SIZE);
    if (!credentials_add_operator(self->credentials, &fresh))
        return false;
    struct stored_operator stored = {.name = fresh.name,
        .role = fresh.role,
        .public_key = fresh.public_key,
        .created_wall_ns = fresh.created_wall_ns};
    store_put_operator(self->store, &stored, NULL, NULL);
    operator_zap(self, &fresh);
    return true;
}

// The file is the only place of the admin's secret: if it is gone, a new key takes its place.
bool startup_context(struct server *self, char *error)
{
    snprintf(self->context_path, sizeof self->context_path, "%s/operator.context", self->state_dir);
    struct operator_context context;
    memset(&context, 0, sizeof context);
    int rc = operator_context_load(self->context_path, &context);
    if (rc != 0 && rc != -ENOENT)
        log_warn("%s: %s; a new one is made", self->context_path, mesh_strerror(rc));
    if (rc != 0)
        rc = identity_generate(&context.key);
    snprintf(context.name, sizeof context.name, "%s", SERVER_ADMIN);
    snprintf(context.endpoint, sizeof context.endpoint, "%s", self->operator_endpoint);
    memcpy(context.controller_key, self->key.public_key, sizeof context.controller_key);
    char text[OPERATOR_CONTEXT_TEXT_SIZE];
    if (rc == 0)
        rc = operator_context_write(&context, text);
    if (rc == 0 && !admin_register(self, context.key.public_key))
        rc = MESH_E_EXISTS;
    if (rc == 0)
        rc = file_write_atomic(self->context_path, text, strlen(text), 0600);
    identity_wipe(&context.key);
    sodium_memzero(text, sizeof text);
    if (rc != 0)
        snprintf(error, SERVER_ERROR_SIZE, "the operator's context %s: %s", self->context_path,
            mesh_strerror(rc));
    return rc == 0;
}
