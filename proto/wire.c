#include "wire.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "errors.h"
#include "wire_check.h"

#define OPERATORS (WIRE_OPERATOR | WIRE_ADMIN)
#define ANYBODY (WIRE_VIEWER | WIRE_OPERATOR | WIRE_ADMIN)
#define BOTH (WIRE_OUTSIDE | WIRE_INSIDE)

#define RULE(body, name, roles, states, mutates)                                                   \
    {                                                                                              \
        MP__ENVELOPE__BODY_##body, name, roles, states, mutates                                    \
    }

// Who may send what, in which state. What is not here is refused.
static const struct wire_rule rules[] = {
    RULE(ENROL, "ENROL", WIRE_ENROL, WIRE_OUTSIDE, false),
    RULE(ENROLLED, "ENROLLED", WIRE_CONTROLLER, BOTH, false),
    RULE(REFUSED, "REFUSED", WIRE_CONTROLLER, BOTH, false),
    RULE(HELLO, "HELLO", WIRE_AGENT, BOTH, false),
    RULE(WELCOME, "WELCOME", WIRE_CONTROLLER, BOTH, false),
    RULE(RETRY_AFTER, "RETRY_AFTER", WIRE_CONTROLLER, BOTH, false),
    RULE(NO_SESSION, "NO_SESSION", WIRE_CONTROLLER, BOTH, false),
    RULE(HEARTBEAT, "HEARTBEAT", WIRE_AGENT, WIRE_INSIDE, false),
    RULE(HEARTBEAT_ACK, "HEARTBEAT_ACK", WIRE_CONTROLLER, BOTH, false),
    RULE(PING, "PING", WIRE_CONTROLLER, BOTH, false),
    RULE(PONG, "PONG", WIRE_AGENT, WIRE_INSIDE, false),
    RULE(GOODBYE, "GOODBYE", WIRE_AGENT, WIRE_INSIDE, false),
    RULE(PREPARE, "PREPARE", WIRE_CONTROLLER, BOTH, false),
    RULE(READY, "READY", WIRE_AGENT, WIRE_INSIDE, false),
    RULE(START, "START", WIRE_CONTROLLER, BOTH, false),
    RULE(STOP, "STOP", WIRE_CONTROLLER, BOTH, false),
    RULE(PROGRESS, "PROGRESS", WIRE_AGENT, WIRE_INSIDE, false),
    RULE(RESULT, "RESULT", WIRE_AGENT, WIRE_INSIDE, false),
    RULE(RESULT_ACK, "RESULT_ACK", WIRE_CONTROLLER, BOTH, false),
    RULE(LIGHT_ARM, "LIGHT_ARM", WIRE_CONTROLLER, BOTH, false),
    RULE(LIGHT_ARMED, "LIGHT_ARMED", WIRE_AGENT, WIRE_INSIDE, false),
    RULE(LIGHT_GO, "LIGHT_GO", WIRE_CONTROLLER, BOTH, false),
    RULE(LIGHT_RESULT, "LIGHT_RESULT", WIRE_AGENT, WIRE_INSIDE, false),
    RULE(LIGHT_OPENED, "LIGHT_OPENED", WIRE_AGENT, WIRE_INSIDE, false),
    RULE(LIGHT_CLOSE, "LIGHT_CLOSE", WIRE_CONTROLLER, BOTH, false),
    RULE(RUN_REQUEST, "RUN_REQUEST", ANYBODY, BOTH, true), // viewers: plan_only
    RULE(RUN_ACCEPTED, "RUN_ACCEPTED", WIRE_CONTROLLER, BOTH, false),
    RULE(PLAN_ANSWER, "PLAN_ANSWER", WIRE_CONTROLLER, BOTH, false),
    RULE(RUN_CANCEL, "RUN_CANCEL", OPERATORS, BOTH, true),
    RULE(DONE, "DONE", WIRE_CONTROLLER, BOTH, false),
    RULE(RUNS_QUERY, "RUNS_QUERY", ANYBODY, BOTH, false),
    RULE(RUNS_ANSWER, "RUNS_ANSWER", WIRE_CONTROLLER, BOTH, false),
    RULE(RUN_QUERY, "RUN_QUERY", ANYBODY, BOTH, false),
    RULE(RUN_ANSWER, "RUN_ANSWER", WIRE_CONTROLLER, BOTH, false),
    RULE(CELLS_QUERY, "CELLS_QUERY", ANYBODY, BOTH, false),
    RULE(CELLS_ANSWER, "CELLS_ANSWER", WIRE_CONTROLLER, BOTH, false),
    RULE(EVENTS_QUERY, "EVENTS_QUERY", ANYBODY, BOTH, false),
    RULE(EVENTS_ANSWER, "EVENTS_ANSWER", WIRE_CONTROLLER, BOTH, false),
    RULE(AGENTS_QUERY, "AGENTS_QUERY", ANYBODY, BOTH, false),
    RULE(AGENTS_ANSWER, "AGENTS_ANSWER", WIRE_CONTROLLER, BOTH, false),
    RULE(AGENT_CHANGE, "AGENT_CHANGE", OPERATORS, BOTH, true), // remove: admin
    RULE(TOKEN_CREATE, "TOKEN_CREATE", WIRE_ADMIN, BOTH, true),
    RULE(TOKEN_CREATED, "TOKEN_CREATED", WIRE_CONTROLLER, BOTH, false),
    RULE(TOKENS_QUERY, "TOKENS_QUERY", OPERATORS, BOTH, false),
    RULE(TOKENS_ANSWER, "TOKENS_ANSWER", WIRE_CONTROLLER, BOTH, false),
    RULE(TOKEN_REVOKE, "TOKEN_REVOKE", WIRE_ADMIN, BOTH, true),
    RULE(OPERATOR_ADD, "OPERATOR_ADD", WIRE_ADMIN, BOTH, true),
    RULE(OPERATOR_ADDED, "OPERATOR_ADDED", WIRE_CONTROLLER, BOTH, false),
    RULE(OPERATORS_QUERY, "OPERATORS_QUERY", OPERATORS, BOTH, false),
    RULE(OPERATORS_ANSWER, "OPERATORS_ANSWER", WIRE_CONTROLLER, BOTH, false),
    RULE(OPERATOR_REMOVE, "OPERATOR_REMOVE", WIRE_ADMIN, BOTH, true),
    RULE(AUDIT_QUERY, "AUDIT_QUERY", ANYBODY, BOTH, false),
    RULE(AUDIT_ANSWER, "AUDIT_ANSWER", WIRE_CONTROLLER, BOTH, false),
    RULE(STATUS_QUERY, "STATUS_QUERY", ANYBODY, BOTH, false),
    RULE(STATUS_ANSWER, "STATUS_ANSWER", WIRE_CONTROLLER, BOTH, false),
    RULE(CHECK_PART, "CHECK_PART", OPERATORS, BOTH, true),
    RULE(POLICY_QUERY, "POLICY_QUERY", ANYBODY, BOTH, false),
    RULE(POLICY_ANSWER, "POLICY_ANSWER", WIRE_CONTROLLER, BOTH, false),
};

const struct wire_rule *wire_rule(Mp__Envelope__BodyCase body)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].body == body)
            return &rules[i];
    return NULL;
}

const char *wire_name(const Mp__Envelope *envelope)
{
    const struct wire_rule *rule = wire_rule(envelope->body_case);
    return rule ? rule->name : "NOTHING";
}

// ------------------------------------------------------------------- budgeted unpacking

// What an unpacked message may cost. Freed memory is not given back to the budget: a message is
// unpacked once.
struct budget {
    size_t left;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *budget = data;
    // What malloc itself adds counts too: many tiny objects are how a message explodes.
    size_t cost = size + 32;
    if (cost > budget->left)
        return NULL;
    budget->left -= cost;
    return malloc(size);
}

static void budget_free(void *data, void *pointer)
{
    (void)data;
    free(pointer);
}

// Fields of later versions are dropped here: kept, they would be packed again with every copy, and
// the decoder takes some (number 0) that it would not take back.
static void forget_unknown(ProtobufCMessage *message)
{
    const char *base = (const char *)message;
    for (size_t i = 0; i < message->n_unknown_fields; i++)
        free(message->unknown_fields[i].data);
    free(message->unknown_fields);
    message->unknown_fields = NULL;
    message->n_unknown_fields = 0;
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (field->type != PROTOBUF_C_TYPE_MESSAGE || !wire_field_present(field, base))
            continue;
        void *const *at = (void *const *)(base + field->offset);
        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
            forget_unknown(*at);
            continue;
        }
        ProtobufCMessage *const *list = *at;
        for (size_t n = 0; n < *(const size_t *)(base + field->quantifier_offset); n++)
            forget_unknown(list[n]);
    }
}

static ProtobufCMessage *unpack(
    const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t size)
{
    struct budget budget = {.left = WIRE_MEMORY_MAX};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, size, bytes);
    if (message)
        forget_unknown(message);
    return message;
}

static Mp__Envelope *refuse(Mp__Envelope *envelope, int code, int *error)
{
    wire_free(&envelope);
    *error = code;
    return NULL;
}

// Those whose version is judged by their reader, so that it can answer in words.
static bool any_version(Mp__Envelope__BodyCase body)
{
    return body == MP__ENVELOPE__BODY_HELLO || body == MP__ENVELOPE__BODY_ENROL ||
           body == MP__ENVELOPE__BODY_REFUSED;
}

Mp__Envelope *wire_unpack(
    const void *bytes, size_t size, enum wire_role sender, bool in_session, int *error, char *text)
{
    char unused[256];
    if (!text)
        text = unused;
    *error = 0;
    snprintf(text, 256, "%zu bytes that are no message", size);
    if (size > WIRE_MESSAGE_MAX)
        return refuse(NULL, MESH_E_TOO_LARGE, error);
    Mp__Envelope *envelope = (Mp__Envelope *)unpack(&mp__envelope__descriptor, bytes, size);
    const struct wire_rule *rule = envelope ? wire_rule(envelope->body_case) : NULL;
    if (!rule)
        return refuse(envelope, MESH_E_DECODE, error);
    if (!any_version(envelope->body_case) &&
        (envelope->version < PROTO_VERSION_MIN || envelope->version > PROTO_VERSION)) {
        snprintf(text, 256, "%s of protocol version %u", rule->name, envelope->version);
        return refuse(envelope, MESH_E_VERSION, error);
    }
    unsigned state = in_session ? WIRE_INSIDE : WIRE_OUTSIDE;
    if (!(rule->roles & sender) || !(rule->states & state)) {
        snprintf(text, 256, "%s is not permitted here", rule->name);
        return refuse(envelope, MESH_E_FORBIDDEN, error);
    }
    if (!wire_check_envelope(envelope, text))
        return refuse(envelope, MESH_E_INVALID, error);
    return envelope;
}

void wire_free(Mp__Envelope **envelope_p)
{
    if (*envelope_p)
        mp__envelope__free_unpacked(*envelope_p, NULL);
    *envelope_p = NULL;
}

uint8_t *wire_pack(Mp__Envelope *envelope, size_t *size)
{
    if (envelope->version == 0)
        envelope->version = PROTO_VERSION;
    size_t packed = mp__envelope__get_packed_size(envelope);
    if (packed > WIRE_MESSAGE_MAX)
        return NULL;
    uint8_t *bytes = malloc(packed ? packed : 1);
    if (!bytes)
        abort();
    *size = mp__envelope__pack(envelope, bytes);
    return bytes;
}

size_t wire_packed_size(const ProtobufCMessage *message)
{
    return protobuf_c_message_get_packed_size(message);
}

Mp__Cell *wire_cell_unpack(const void *bytes, size_t size)
{
    if (size > WIRE_MESSAGE_MAX)
        return NULL;
    Mp__Cell *cell = (Mp__Cell *)unpack(&mp__cell__descriptor, bytes, size);
    char text[256];
    if (cell && !wire_check_message(&cell->base, text)) {
        mp__cell__free_unpacked(cell, NULL);
        return NULL;
    }
    return cell;
}

Mp__RunRequest *wire_run_request_unpack(const void *bytes, size_t size)
{
    if (size > WIRE_MESSAGE_MAX)
        return NULL;
    Mp__RunRequest *request = (Mp__RunRequest *)unpack(&mp__run_request__descriptor, bytes, size);
    char text[256];
    if (request && !wire_check_message(&request->base, text)) {
        mp__run_request__free_unpacked(request, NULL);
        return NULL;
    }
    return request;
}

ProtobufCMessage *wire_copy(const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        abort();
    protobuf_c_message_pack(message, bytes);
    ProtobufCMessage *copy = protobuf_c_message_unpack(message->descriptor, NULL, size, bytes);
    free(bytes);
    if (!copy)
        abort();
    return copy;
}
