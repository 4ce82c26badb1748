// Tokens by which hosts join: made, listed, revoked.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "server_parts.h"

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
    info->labels = labels_fill(token->labels, token->label_count);
    info->n_labels = token->label_count;
}

void admin_tokens(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    Mp__TokenInfo infos[PAGE_ENTRIES_MAX];
    Mp__TokenInfo *pointers[PAGE_ENTRIES_MAX];
    Mp__TokensAnswer answer = MP__TOKENS_ANSWER__INIT;
    answer.tokens = pointers;
    answer.total = (uint32_t)credentials_token_count(self->credentials);
    struct page page = {0};
    struct token *token;
    size_t place = question->tokens_query->offset;
    while (answer.n_tokens < PAGE_ENTRIES_MAX &&
           (token = credentials_token_at(self->credentials, place++))) {
        Mp__TokenInfo *info = infos + answer.n_tokens;
        token_info(token, info);
        if (!page_takes(&page, &info->base)) {
            labels_release(info->labels);
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
        labels_release(infos[i].labels);
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
