#include <sodium.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "server_parts.h"

struct reply *reply_new(struct server *self, struct peer *peer, const struct operator_ *operator_,
    const Mp__Envelope *question)
{
    struct reply *reply = zmalloc(sizeof *reply);
    reply->server = self;
    reply->peer = peer->ref;
    reply->has_request = question->has_request;
    reply->request = question->request;
    snprintf(reply->who, sizeof reply->who, "%s", operator_->name);
    reply->role = operator_->role;
    reply->place = zlistx_add_end(self->replies, reply);
    return reply;
}

void reply_free(struct reply **reply_p)
{
    struct reply *reply = *reply_p;
    if (!reply)
        return;
    *reply_p = NULL;
    if (reply->place)
        zlistx_detach(reply->server->replies, reply->place);
    if (reply->server->starting == reply)
        reply->server->starting = NULL;
    if (reply->secret) {
        sodium_memzero(reply->secret, strlen(reply->secret));
        free(reply->secret);
    }
    free(reply);
}

void reply_send(struct reply **reply_p, Mp__Envelope *envelope)
{
    struct reply *reply = *reply_p;
    struct peer *peer = gateway_find(reply->server->gateway, &reply->peer);
    envelope->has_request = reply->has_request;
    envelope->request = reply->request;
    if (peer && server_send(reply->server, peer, envelope) == MESH_E_TOO_LARGE) {
        reply_refuse(reply_p, MP__REFUSED__CODE__BUSY, "the answer is too large to send");
        return;
    }
    reply_free(reply_p);
}

void reply_done(struct reply **reply_p, const char *text)
{
    Mp__Done done = MP__DONE__INIT;
    char copy[256];
    snprintf(copy, sizeof copy, "%s", text);
    done.text = copy[0] ? copy : NULL;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_DONE;
    envelope.done = &done;
    reply_send(reply_p, &envelope);
}

void reply_refuse(struct reply **reply_p, Mp__Refused__Code code, const char *format, ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    Mp__Refused refused = MP__REFUSED__INIT;
    refused.code = code;
    refused.text = text;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_REFUSED;
    envelope.refused = &refused;
    reply_send(reply_p, &envelope);
}

void reply_refuse_storage(struct reply **reply_p, int error)
{
    const char *trouble = store_trouble((*reply_p)->server->store);
    reply_refuse(reply_p, MP__REFUSED__CODE__STORAGE, "the controller cannot store this: %s",
        trouble ? trouble : mesh_strerror(error));
}

// What was changed holds in memory; if it could not be stored, it holds until the next start only.
void reply_committed(void *arg, int error)
{
    struct reply *reply = arg;
    if (error == 0) {
        reply_done(&reply, reply->text);
        return;
    }
    const char *trouble = store_trouble(reply->server->store);
    reply_refuse(&reply, MP__REFUSED__CODE__STORAGE,
        "this holds until the controller is started again, for it cannot be stored: %s",
        trouble ? trouble : mesh_strerror(error));
}

void reply_audit(struct reply *reply, const char *what, const char *object, const char *detail)
{
    Mp__AuditEntry entry = MP__AUDIT_ENTRY__INIT;
    entry.wall_ns = clock_wall(reply->server->clock);
    entry.who = reply->who;
    entry.what = (char *)what;
    entry.object = (char *)object;
    entry.detail = (char *)detail;
    store_audit(reply->server->store, &entry);
}

bool page_takes(struct page *page, const ProtobufCMessage *message)
{
    page->bytes += wire_packed_size(message) + 8;
    if (page->count > 0 && (page->count >= PAGE_ENTRIES_MAX || page->bytes > WIRE_PART_BYTES))
        return false;
    page->count++;
    return true;
}

const char *labels_text(Mp__Label *const *labels, size_t count, char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < count && used < size; i++)
        used += (size_t)snprintf(
            text + used, size - used, "%s%s=%s", i ? " " : "", labels[i]->key, labels[i]->value);
    return text;
}
