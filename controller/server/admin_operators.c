// Operators, and what they did.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "server_parts.h"

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
    snprintf(reply->object, sizeof reply->object, "%s", operator_->name);
    reply_audit(reply, "operator add", operator_->name, role_word(operator_->role));
    log_info(
        "operator %s (%s) is added by %s", operator_->name, role_word(operator_->role), reply->who);
    struct stored_operator stored = {.name = operator_->name,
        .role = operator_->role,
        .public_key = operator_->public_key,
        .created_wall_ns = operator_->created_wall_ns};
    store_put_operator(self->store, &stored, operator_added, reply);
}

void admin_operators(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    Mp__OperatorInfo infos[PAGE_ENTRIES_MAX];
    Mp__OperatorInfo *pointers[PAGE_ENTRIES_MAX];
    char fingerprints[PAGE_ENTRIES_MAX][IDENTITY_FINGERPRINT_SIZE];
    Mp__OperatorsAnswer answer = MP__OPERATORS_ANSWER__INIT;
    answer.operators = pointers;
    answer.total = (uint32_t)credentials_operator_count(self->credentials);
    struct operator_ *item;
    size_t place = question->operators_query->offset;
    while (answer.n_operators < PAGE_ENTRIES_MAX &&
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

// -------------------------------------------------------------------------------------- audit

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
    uint32_t limit =
        query->has_limit && query->limit < PAGE_ENTRIES_MAX ? query->limit : PAGE_ENTRIES_MAX;
    store_get_audit(self->store, query->offset, limit, audit_read, reply);
}
