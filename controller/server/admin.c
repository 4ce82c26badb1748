#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "errors.h"
#include "log.h"
#include "server_parts.h"

#define LIST_MAX 500 // entries of one page, besides its bytes

// Grows with each entry until a page is full.
struct page {
    size_t count;
    size_t bytes;
};

static bool page_takes(struct page *page, const ProtobufCMessage *message)
{
    page->bytes += wire_packed_size(message) + 8;
    if (page->count > 0 && (page->count >= LIST_MAX || page->bytes > WIRE_PART_BYTES))
        return false;
    page->count++;
    return true;
}

static const char *labels_text(Mp__Label *const *labels, size_t count, char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < count && used < size; i++)
        used += (size_t)snprintf(
            text + used, size - used, "%s%s=%s", i ? " " : "", labels[i]->key, labels[i]->value);
    return text;
}

// ------------------------------------------------------------------------------------- agents

static void agent_info(struct server *self, const struct agent *agent, Mp__AgentInfo *info)
{
    agent_info_fill(agent, director_agent_busy(self->director, agent->id), info);
}

void admin_agents(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__AgentsQuery *query = question->agents_query;
    Mp__AgentInfo infos[LIST_MAX];
    Mp__AgentInfo *pointers[LIST_MAX];
    Mp__AgentsAnswer answer = MP__AGENTS_ANSWER__INIT;
    answer.agents = pointers;
    answer.total = (uint32_t)registry_count(self->registry);
    struct agent *agent = registry_next(self->registry, 0);
    if (query->name) {
        agent = registry_by_name(self->registry, query->name);
        answer.total = 1;
        if (!agent) {
            reply_refuse(&reply, MP__REFUSED__CODE__NOT_FOUND, "there is no agent %s", query->name);
            return;
        }
    }
    for (uint32_t i = 0; i < query->offset && agent; i++)
        agent = registry_next(self->registry, agent->id);
    struct page page = {0};
    while (agent && answer.n_agents < LIST_MAX) {
        Mp__AgentInfo *info = infos + answer.n_agents;
        agent_info(self, agent, info);
        if (!page_takes(&page, &info->base)) {
            agent_info_release(info);
            break;
        }
        pointers[answer.n_agents++] = info;
        agent = query->name ? NULL : registry_next(self->registry, agent->id);
    }
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_AGENTS_ANSWER;
    envelope.agents_answer = &answer;
    size_t count = answer.n_agents;
    reply_send(&reply, &envelope);
    for (size_t i = 0; i < count; i++)
        agent_info_release(infos + i);
}

// Sets, replaces or (empty value) removes one of the operator's labels.
static void label_change(struct member *member, const struct agent *agent, const Mp__Label *label)
{
    struct label **labels = &member->labels[LABELS_OPERATOR];
    size_t *count = &member->label_count[LABELS_OPERATOR];
    size_t place = 0;
    while (place < *count && strcmp((*labels)[place].key, label->key) != 0)
        place++;
    if (place == *count) {
        if (!label->value[0] && !agent_label(agent, label->key))
            return; // there is nothing to hide
        *labels = realloc(*labels, (*count + 1) * sizeof **labels);
        if (!*labels)
            abort();
        (*count)++;
    }
    snprintf((*labels)[place].key, sizeof(*labels)[place].key, "%s", label->key);
    snprintf((*labels)[place].value, sizeof(*labels)[place].value, "%s", label->value);
}

static void change_labels(
    struct server *self, struct reply *reply, struct agent *agent, const Mp__AgentChange *change)
{
    struct member *member = server_member(self, agent->id);
    if (change->n_labels == 0) {
        reply_refuse(&reply, MP__REFUSED__CODE__INVALID, "no labels were given");
        return;
    }
    if (member->label_count[LABELS_OPERATOR] + change->n_labels > REGISTRY_LABELS_MAX) {
        reply_refuse(&reply, MP__REFUSED__CODE__INVALID, "%s would have more than %d labels",
            agent->name, REGISTRY_LABELS_MAX);
        return;
    }
    for (size_t i = 0; i < change->n_labels; i++)
        label_change(member, agent, change->labels[i]);
    member_apply_labels(self, member, agent);
    char text[512];
    reply_audit(reply, "agent label", agent->name,
        labels_text(change->labels, change->n_labels, text, sizeof text));
    member_persist(self, member, reply_committed, reply);
}

static void change_draining(
    struct server *self, struct reply *reply, struct agent *agent, bool draining)
{
    reply_audit(reply, draining ? "agent drain" : "agent resume", agent->name, NULL);
    agent->draining = draining;
    director_agent_changed(self->director, agent->id);
    log_info("%s is %s by %s", agent->name, draining ? "drained" : "resumed", reply->who);
    member_persist(self, server_member(self, agent->id), reply_committed, reply);
}

// From here on its key is unknown: ZAP turns it away, its messages are dropped, and its connection
// is shut down when it next speaks.
static void remove_agent(struct server *self, struct reply *reply, struct agent *agent)
{
    uint32_t id = agent->id;
    struct member *member = server_member(self, id);
    reply_audit(reply, "agent remove", agent->name, NULL);
    log_info("%s is removed by %s", agent->name, reply->who);
    zap_drop(self->zap, agent->key);
    if (member->session) {
        struct peer *peer = gateway_find(self->gateway, &member->session->peer);
        if (peer) {
            server_refuse(self, peer, MP__REFUSED__CODE__REMOVED,
                "%s was removed from this controller", agent->name);
            gateway_cut(self->gateway, peer, "it was removed");
        }
    }
    agent->lost_mono_ns = clock_mono(self->clock);
    director_agent_removed(self->director, id);
    server_member_remove(self, id);
    registry_remove(self->registry, id);
    store_drop_agent(self->store, id, reply_committed, reply);
}

void admin_agent_change(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__AgentChange *change = question->agent_change;
    struct agent *agent = registry_by_name(self->registry, change->name);
    if (!agent) {
        reply_refuse(&reply, MP__REFUSED__CODE__NOT_FOUND, "there is no agent %s", change->name);
        return;
    }
    snprintf(reply->object, sizeof reply->object, "%s", agent->name);
    switch (change->what) {
    case MP__AGENT_CHANGE__WHAT__LABEL:
        change_labels(self, reply, agent, change);
        return;
    case MP__AGENT_CHANGE__WHAT__DRAIN:
        change_draining(self, reply, agent, true);
        return;
    case MP__AGENT_CHANGE__WHAT__RESUME:
        change_draining(self, reply, agent, false);
        return;
    case MP__AGENT_CHANGE__WHAT__REMOVE:
        if (reply->role != MP__ROLE__ADMIN)
            reply_refuse(&reply, MP__REFUSED__CODE__ROLE,
                "only an admin may remove agents, and %s is none", reply->who);
        else
            remove_agent(self, reply, agent);
        return;
    default:
        reply_refuse(&reply, MP__REFUSED__CODE__INVALID, "an unknown change of an agent");
    }
}

// ------------------------------------------------------------------------------------- tokens

static void token_created(void *arg, int error)
{
    struct reply *reply = arg;
    struct server *self = reply->server;
    struct token *token = credentials_token_by_id(self->credentials, reply->object);
    if (error != 0) {
        if (token) {
            zap_drop(self->zap, token->public_key);
            credentials_remove_token(self->credentials, token);
        }
        reply_refuse_storage(&reply, error);
        return;
    }
    if (token)
        token_zap(self, token, 0);
    Mp__TokenCreated created = MP__TOKEN_CREATED__INIT;
    created.token = reply->secret;
    created.id = reply->object;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_TOKEN_CREATED;
    envelope.token_created = &created;
    reply_send(&reply, &envelope);
}

static char *token_text(struct server *self, struct identity *key)
{
    struct join_token join;
    memset(&join, 0, sizeof join);
    snprintf(join.endpoint, sizeof join.endpoint, "%s", self->endpoint);
    memcpy(join.controller_key, self->key.public_key, sizeof join.controller_key);
    join.key = *key;
    char *text = zmalloc(JOIN_TOKEN_TEXT_SIZE);
    if (join_token_write(&join, text) != 0) {
        free(text);
        text = NULL;
    }
    identity_wipe(&join.key);
    identity_wipe(key);
    return text;
}

static bool token_within_limits(struct reply **reply, const Mp__TokenCreate *wanted)
{
    if (wanted->uses < 1 || wanted->uses > CREDENTIALS_USES_MAX) {
        reply_refuse(reply, MP__REFUSED__CODE__INVALID, "a token may have 1 to %d uses, not %u",
            CREDENTIALS_USES_MAX, wanted->uses);
        return false;
    }
    if (wanted->expires_ns < CREDENTIALS_EXPIRES_MIN_NS ||
        wanted->expires_ns > CREDENTIALS_EXPIRES_MAX_NS) {
        reply_refuse(
            reply, MP__REFUSED__CODE__INVALID, "a token may be valid for one second to ten years");
        return false;
    }
    return true;
}

void admin_token_create(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__TokenCreate *wanted = question->token_create;
    if (!token_within_limits(&reply, wanted))
        return;
    struct token template = {.created_wall_ns = clock_wall(self->clock),
        .uses = wanted->uses,
        .label_count = wanted->n_labels};
    template.expires_wall_ns = template.created_wall_ns + wanted->expires_ns;
    snprintf(template.by, sizeof template.by, "%s", reply->who);
    template.labels = zmalloc((wanted->n_labels + 1) * sizeof *template.labels);
    for (size_t i = 0; i < wanted->n_labels; i++) {
        snprintf(
            template.labels[i].key, sizeof template.labels[i].key, "%s", wanted->labels[i]->key);
        snprintf(template.labels[i].value, sizeof template.labels[i].value, "%s",
            wanted->labels[i]->value);
    }
    struct identity key;
    memset(&key, 0, sizeof key);
    struct token *token = credentials_create_token(self->credentials, &template, &key);
    free(template.labels);
    reply->secret = token ? token_text(self, &key) : NULL;
    identity_wipe(&key);
    if (!token || !reply->secret) {
        if (token)
            credentials_remove_token(self->credentials, token);
        reply_refuse(&reply, MP__REFUSED__CODE__BUSY,
            token ? "the token cannot be written" : "there are too many live tokens");
        return;
    }
    snprintf(reply->object, sizeof reply->object, "%s", token->id);
    char text[512];
    int used =
        snprintf(text, sizeof text, "uses=%u%s", wanted->uses, wanted->n_labels > 0 ? " " : "");
    labels_text(wanted->labels, wanted->n_labels, text + used, sizeof text - (size_t)used);
    reply_audit(reply, "token create", token->id, text);
    log_info("token %s was made by %s", token->id, reply->who);
    token_persist(self, token, token_created, reply);
}

static void token_info(const struct token *token, Mp__TokenInfo *info)
{
    mp__token_info__init(info);
    info->id = (char *)token->id;
    info->created_wall_ns = token->created_wall_ns;
    info->expires_wall_ns = token->expires_wall_ns;
    info->uses = token->uses;
    info->used = token->used;
    info->by = (char *)token->by;
    info->has_revoked = true;
    info->revoked = token->revoked;
    if (token->label_count == 0)
        return;
    info->labels = zmalloc(token->label_count * sizeof *info->labels);
    Mp__Label *labels = zmalloc(token->label_count * sizeof *labels);
    for (size_t i = 0; i < token->label_count; i++) {
        mp__label__init(labels + i);
        labels[i].key = token->labels[i].key;
        labels[i].value = token->labels[i].value;
        info->labels[i] = labels + i;
    }
    info->n_labels = token->label_count;
}

static void token_info_release(Mp__TokenInfo *info)
{
    if (info->n_labels > 0)
        free(info->labels[0]);
    free(info->labels);
}

void admin_tokens(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    Mp__TokenInfo infos[LIST_MAX];
    Mp__TokenInfo *pointers[LIST_MAX];
    Mp__TokensAnswer answer = MP__TOKENS_ANSWER__INIT;
    answer.tokens = pointers;
    answer.total = (uint32_t)credentials_token_count(self->credentials);
    struct page page = {0};
    struct token *token;
    size_t place = question->tokens_query->offset;
    while (
        answer.n_tokens < LIST_MAX && (token = credentials_token_at(self->credentials, place++))) {
        Mp__TokenInfo *info = infos + answer.n_tokens;
        token_info(token, info);
        if (!page_takes(&page, &info->base)) {
            token_info_release(info);
            break;
        }
        pointers[answer.n_tokens++] = info;
    }
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_TOKENS_ANSWER;
    envelope.tokens_answer = &answer;
    size_t count = answer.n_tokens;
    reply_send(&reply, &envelope);
    for (size_t i = 0; i < count; i++)
        token_info_release(infos + i);
}

void admin_token_revoke(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    struct token *token = credentials_token_by_id(self->credentials, question->token_revoke->id);
    if (!token) {
        reply_refuse(&reply, MP__REFUSED__CODE__NOT_FOUND, "there is no token %s",
            question->token_revoke->id);
        return;
    }
    token->revoked = true;
    token_zap(self, token, 0);
    reply_audit(reply, "token revoke", token->id, NULL);
    log_info("token %s is revoked by %s", token->id, reply->who);
    token_persist(self, token, reply_committed, reply);
}

// ---------------------------------------------------------------------------------- operators

static void operator_added(void *arg, int error)
{
    struct reply *reply = arg;
    struct server *self = reply->server;
    struct operator_ *operator_ = credentials_operator_by_name(self->credentials, reply->object);
    if (error != 0) {
        if (operator_)
            credentials_remove_operator(self->credentials, operator_);
        reply_refuse_storage(&reply, error);
        return;
    }
    if (operator_)
        operator_zap(self, operator_);
    Mp__OperatorAdded added = MP__OPERATOR_ADDED__INIT;
    added.context = reply->secret;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_OPERATOR_ADDED;
    envelope.operator_added = &added;
    reply_send(&reply, &envelope);
}

// Makes the key; the whole context goes to the asker, and only the public half stays here.
static struct operator_ *operator_make(
    struct server *self, struct reply *reply, const Mp__OperatorAdd *wanted)
{
    struct operator_context context;
    memset(&context, 0, sizeof context);
    if (identity_generate(&context.key) != 0)
        return NULL;
    snprintf(context.endpoint, sizeof context.endpoint, "%s", self->operator_endpoint);
    snprintf(context.name, sizeof context.name, "%s", wanted->name);
    memcpy(context.controller_key, self->key.public_key, sizeof context.controller_key);
    struct operator_ fresh = {.role = wanted->role, .created_wall_ns = clock_wall(self->clock)};
    snprintf(fresh.name, sizeof fresh.name, "%s", wanted->name);
    memcpy(fresh.public_key, context.key.public_key, sizeof fresh.public_key);
    reply->secret = zmalloc(OPERATOR_CONTEXT_TEXT_SIZE);
    struct operator_ *operator_ = NULL;
    if (operator_context_write(&context, reply->secret) == 0)
        operator_ = credentials_add_operator(self->credentials, &fresh);
    identity_wipe(&context.key);
    return operator_;
}

void admin_operator_add(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__OperatorAdd *wanted = question->operator_add;
    if (credentials_operator_by_name(self->credentials, wanted->name)) {
        reply_refuse(&reply, MP__REFUSED__CODE__NAME_IN_USE, "there is an operator %s already",
            wanted->name);
        return;
    }
    struct operator_ *operator_ = operator_make(self, reply, wanted);
    if (!operator_) {
        reply_refuse(&reply, MP__REFUSED__CODE__BUSY, "there are too many operators");
        return;
    }
    static const char *const words[] = {"", "viewer", "operator", "admin"};
    snprintf(reply->object, sizeof reply->object, "%s", operator_->name);
    reply_audit(reply, "operator add", operator_->name, words[operator_->role & 3]);
    log_info(
        "operator %s (%s) is added by %s", operator_->name, words[operator_->role & 3], reply->who);
    struct stored_operator stored = {.name = operator_->name,
        .role = operator_->role,
        .public_key = operator_->public_key,
        .created_wall_ns = operator_->created_wall_ns};
    store_put_operator(self->store, &stored, operator_added, reply);
}

void admin_operators(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    Mp__OperatorInfo infos[LIST_MAX];
    Mp__OperatorInfo *pointers[LIST_MAX];
    char fingerprints[LIST_MAX][IDENTITY_FINGERPRINT_SIZE];
    Mp__OperatorsAnswer answer = MP__OPERATORS_ANSWER__INIT;
    answer.operators = pointers;
    answer.total = (uint32_t)credentials_operator_count(self->credentials);
    struct operator_ *item;
    size_t place = question->operators_query->offset;
    while (answer.n_operators < LIST_MAX &&
           (item = credentials_operator_at(self->credentials, place++))) {
        Mp__OperatorInfo *info = infos + answer.n_operators;
        mp__operator_info__init(info);
        info->name = item->name;
        info->role = item->role;
        info->created_wall_ns = item->created_wall_ns;
        info->fingerprint = fingerprints[answer.n_operators];
        identity_fingerprint(item->public_key, info->fingerprint);
        pointers[answer.n_operators++] = info;
    }
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_OPERATORS_ANSWER;
    envelope.operators_answer = &answer;
    reply_send(&reply, &envelope);
}

void admin_operator_remove(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const char *name = question->operator_remove->name;
    struct operator_ *operator_ = credentials_operator_by_name(self->credentials, name);
    if (!operator_) {
        reply_refuse(&reply, MP__REFUSED__CODE__NOT_FOUND, "there is no operator %s", name);
        return;
    }
    if (strcmp(name, SERVER_ADMIN) == 0) {
        reply_refuse(&reply, MP__REFUSED__CODE__INVALID,
            "%s is the operator of the controller's own context and cannot be removed; removing "
            "%s and starting the controller again gives it a new key",
            name, self->context_path);
        return;
    }
    reply_audit(reply, "operator remove", name, NULL);
    log_info("operator %s is removed by %s", name, reply->who);
    zap_drop(self->zap, operator_->public_key);
    credentials_remove_operator(self->credentials, operator_);
    store_drop_operator(self->store, name, reply_committed, reply);
}

// -------------------------------------------------------------------------------- audit, status

static void audit_read(
    void *arg, int error, Mp__AuditEntry *const *entries, size_t count, uint32_t total)
{
    struct reply *reply = arg;
    if (error != 0) {
        reply_refuse_storage(&reply, error);
        return;
    }
    struct page page = {0};
    Mp__AuditAnswer answer = MP__AUDIT_ANSWER__INIT;
    while (answer.n_entries < count && page_takes(&page, &entries[answer.n_entries]->base))
        answer.n_entries++;
    answer.entries = (Mp__AuditEntry **)entries;
    answer.total = total;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_AUDIT_ANSWER;
    envelope.audit_answer = &answer;
    reply_send(&reply, &envelope);
}

void admin_audit(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__AuditQuery *query = question->audit_query;
    uint32_t limit = query->has_limit && query->limit < LIST_MAX ? query->limit : LIST_MAX;
    store_get_audit(self->store, query->offset, limit, audit_read, reply);
}

static uint64_t resident_bytes(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double seconds(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

// The director keeps ended runs a while for those who follow them; they do not count.
static uint32_t runs_active(struct server *self)
{
    const Mp__RunInfo *infos[DIRECTOR_RUNS_MAX];
    size_t count = director_active(self->director, infos, DIRECTOR_RUNS_MAX);
    uint32_t active = 0;
    for (size_t i = 0; i < count && i < DIRECTOR_RUNS_MAX; i++)
        active +=
            infos[i]->state == MP__RUN_STATE__QUEUED || infos[i]->state == MP__RUN_STATE__RUNNING;
    return active;
}

void admin_status(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    (void)question;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    Mp__StatusAnswer answer = MP__STATUS_ANSWER__INIT;
    answer.software = (char *)MESHPERF_VERSION;
    answer.version = PROTO_VERSION;
    answer.epoch = self->epoch;
    answer.endpoint = self->endpoint;
    answer.agents = (uint32_t)registry_count(self->registry);
    for (struct agent *agent = registry_next(self->registry, 0); agent;
         agent = registry_next(self->registry, agent->id))
        answer.connected += agent_connected(agent);
    answer.runs_active = runs_active(self);
    answer.resident_bytes = resident_bytes();
    answer.cpu_s = seconds(&usage.ru_utime) + seconds(&usage.ru_stime);
    answer.storage = self->trouble[0] ? self->trouble : (char *)"ok";
    answer.wall_ns = clock_wall(self->clock);
    answer.uptime_ns = clock_mono(self->clock) - self->started_mono_ns;
    answer.has_tests_done = true;
    answer.tests_done = director_tests_done(self->director);
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_STATUS_ANSWER;
    envelope.status_answer = &answer;
    reply_send(&reply, &envelope);
}
