#include "wire_check.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "identity.h"
#include "ports.h"
#include "testspec.h"
#include "wire.h"

#define TEXT_MAX 1024
#define LIST_MAX 4096

// ---------------------------------------------------------------- rules for fields by name

enum text_kind { TEXT_NAME, TEXT_OPTIONAL_NAME, TEXT_ADDRESS, TEXT_LONG };

static const struct {
    const char *field;
    enum text_kind kind;
} text_rules[] = {
    {"local_address", TEXT_ADDRESS},
    {"peer_address", TEXT_ADDRESS},
    {"peer_seen", TEXT_ADDRESS},
    {"seen_from", TEXT_ADDRESS},
    {"icmp_from", TEXT_ADDRESS},
    {"responder", TEXT_ADDRESS},
    {"last_hop", TEXT_ADDRESS},
    {"addresses", TEXT_ADDRESS},
    {"command", TEXT_LONG},
    {"context", TEXT_LONG},
    {"detail", TEXT_LONG},
    {"peer_name", TEXT_NAME},
};

static const struct {
    const char *field;
    size_t size; // 0: as many as fit into a part
} bytes_rules[] = {
    {"test_id", 16},
    {"batch", 16},
    {"instance", 16},
    {"session", 16},
    {"running", 16},
    {"services", 16},
    {"public_key", 32},
    {"key", 32},
    {"upload", 16},
    {"policy_text", 0},
};

static const struct {
    const ProtobufCMessageDescriptor *message; // NULL: wherever the field occurs
    const char *field;
    size_t most;
} list_rules[] = {
    {NULL, "labels", 64},
    {NULL, "addresses", 2},
    {&mp__hello__descriptor, "running", 256},
    {NULL, "intervals", TESTSPEC_INTERVALS_MAX},
    {NULL, "cells", 1024},
    {NULL, "events", 1024},
    {NULL, "tests", TEST_KIND_MAX},
    {NULL, "from", 64},
    {NULL, "to", 64},
    {NULL, "both", 64},
    {NULL, "shared", 16},
    {NULL, "notes", 64},
    {NULL, "ports", PORTS_MAX},
    {NULL, "hops", TESTSPEC_HOPS_MAX},
    {NULL, "half_open", 64},
    {NULL, "source_ports", TESTSPEC_ATTEMPTS_MAX},
    {NULL, "passes", TESTSPEC_PASSES_MAX},
    {NULL, "rechecks", TEST_KIND_MAX},
};

// Signed numbers that may be negative: differences and correlations.
static bool may_be_negative(const char *field)
{
    static const char *const names[] = {"clock_offset_s", "margin", "autocorrelation",
        "rtt_added_p50_s", "rtt_added_p99_s", "bias", "bias_loss", "bias_worst"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(field, names[i]) == 0)
            return true;
    return false;
}

static bool bad(char *text, const ProtobufCMessageDescriptor *message,
    const ProtobufCFieldDescriptor *field, const char *why)
{
    snprintf(text, 256, "%s.%s %s", message->short_name, field->name, why);
    return false;
}

// ---------------------------------------------------------------------------- single values

// Well-formed UTF-8 (RFC 3629: shortest form, no surrogates, up to U+10FFFF) without control
// characters except newline and tab.
static bool clean_text(const char *text, size_t most)
{
    const unsigned char *c = (const unsigned char *)text;
    if (strlen(text) > most)
        return false;
    while (*c) {
        if (*c < 0x80) {
            if ((*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7f)
                return false;
            c++;
            continue;
        }
        unsigned more = *c >= 0xf0 ? 3 : *c >= 0xe0 ? 2 : 1;
        if (*c < 0xc2 || *c > 0xf4)
            return false;
        if ((*c == 0xe0 && c[1] < 0xa0) || (*c == 0xed && c[1] > 0x9f) ||
            (*c == 0xf0 && c[1] < 0x90) || (*c == 0xf4 && c[1] > 0x8f))
            return false;
        for (unsigned i = 1; i <= more; i++)
            if ((c[i] & 0xc0) != 0x80)
                return false;
        c += more + 1;
    }
    return true;
}

static bool numeric_address(const char *text)
{
    unsigned char bytes[16];
    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

static bool check_string(const ProtobufCMessageDescriptor *message,
    const ProtobufCFieldDescriptor *field, const char *value, char *text)
{
    size_t most = TEXT_MAX;
    for (size_t i = 0; i < sizeof text_rules / sizeof *text_rules; i++) {
        if (strcmp(text_rules[i].field, field->name) != 0)
            continue;
        if (text_rules[i].kind == TEXT_ADDRESS && !numeric_address(value))
            return bad(text, message, field, "is no address");
        if (text_rules[i].kind == TEXT_NAME && !identity_name_valid(value))
            return bad(text, message, field, "is no name");
        if (text_rules[i].kind == TEXT_LONG)
            most = 8192;
    }
    return clean_text(value, most) || bad(text, message, field, "is too long or no clean text");
}

static bool check_bytes(const ProtobufCMessageDescriptor *message,
    const ProtobufCFieldDescriptor *field, const ProtobufCBinaryData *value, char *text)
{
    for (size_t i = 0; i < sizeof bytes_rules / sizeof *bytes_rules; i++)
        if (strcmp(bytes_rules[i].field, field->name) == 0)
            return value->len == bytes_rules[i].size ||
                   (bytes_rules[i].size == 0 && value->len <= WIRE_PART_BYTES) ||
                   bad(text, message, field, "has a wrong length");
    return bad(text, message, field, "is not expected");
}

static bool check_value(const ProtobufCMessageDescriptor *message,
    const ProtobufCFieldDescriptor *field, const void *at, char *text)
{
    double real;
    int64_t whole;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return check_string(message, field, *(char *const *)at, text);
    case PROTOBUF_C_TYPE_BYTES:
        return check_bytes(message, field, at, text);
    case PROTOBUF_C_TYPE_MESSAGE:
        return wire_check_message(*(ProtobufCMessage *const *)at, text);
    case PROTOBUF_C_TYPE_ENUM:
        return protobuf_c_enum_descriptor_get_value(field->descriptor, *(const int *)at) ||
               bad(text, message, field, "is unknown");
    case PROTOBUF_C_TYPE_DOUBLE:
        memcpy(&real, at, sizeof real);
        if (!isfinite(real) || (real < 0 && !may_be_negative(field->name)))
            return bad(text, message, field, "is no measurement");
        return true;
    case PROTOBUF_C_TYPE_INT64:
        memcpy(&whole, at, sizeof whole);
        return whole >= 0 || bad(text, message, field, "is negative");
    default:
        return true;
    }
}

// ------------------------------------------------------------------------------ all fields

static size_t element_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        return 8;
    default:
        return 4;
    }
}

static bool check_list(const ProtobufCMessageDescriptor *message,
    const ProtobufCFieldDescriptor *field, const char *base, char *text)
{
    size_t count = *(const size_t *)(base + field->quantifier_offset);
    const char *list = *(char *const *)(base + field->offset);
    size_t most = LIST_MAX;
    for (size_t i = 0; i < sizeof list_rules / sizeof *list_rules; i++)
        if (strcmp(list_rules[i].field, field->name) == 0 &&
            (!list_rules[i].message || list_rules[i].message == message))
            most = list_rules[i].most;
    if (count > most)
        return bad(text, message, field, "has too many entries");
    for (size_t i = 0; i < count; i++)
        if (!check_value(message, field, list + i * element_size(field->type), text))
            return false;
    return true;
}

bool wire_field_present(const ProtobufCFieldDescriptor *field, const char *base)
{
    if (field->label == PROTOBUF_C_LABEL_REQUIRED || field->label == PROTOBUF_C_LABEL_REPEATED)
        return true;
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return *(const uint32_t *)(base + field->quantifier_offset) == field->id;
    if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(void *const *)(base + field->offset) != NULL;
    return *(const protobuf_c_boolean *)(base + field->quantifier_offset);
}

static bool check_fields(const ProtobufCMessage *message, char *text)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    const char *base = (const char *)message;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            if (!check_list(descriptor, field, base, text))
                return false;
        } else if (wire_field_present(field, base) &&
                   !check_value(descriptor, field, base + field->offset, text)) {
            return false;
        }
    }
    return true;
}

// -------------------------------------------------------------------------- single messages

static bool say(char *text, const char *sentence)
{
    snprintf(text, 256, "%s", sentence);
    return false;
}

static bool port_valid(uint32_t port)
{
    return port >= 1 && port <= 65535;
}

static bool check_label(const ProtobufCMessage *message, char *text)
{
    const Mp__Label *label = (const Mp__Label *)message;
    // An empty value removes the label (AgentChange).
    return identity_label_valid(label->key, *label->value ? label->value : "x") ||
           say(text, "a label has a bad key or value");
}

static bool check_enrol(const ProtobufCMessage *message, char *text)
{
    const Mp__Enrol *enrol = (const Mp__Enrol *)message;
    return identity_name_valid(enrol->name) || say(text, "ENROL with a bad name");
}

static bool check_hello(const ProtobufCMessage *message, char *text)
{
    const Mp__Hello *hello = (const Mp__Hello *)message;
    if (!port_valid(hello->data_port))
        return say(text, "HELLO with a bad data port");
    if (strlen(hello->boot_id) > 39 || strlen(hello->software) > 31)
        return say(text, "HELLO with a boot id or version that is too long");
    return hello->version_min <= hello->version_max ||
           say(text, "HELLO with an empty version range");
}

static bool check_spec(const ProtobufCMessage *message, char *text)
{
    struct testspec spec;
    char error[256];
    if (testspec_from_wire((const Mp__TestSpec *)message, &spec, error) == 0)
        return true;
    return say(text, error);
}

static bool check_ticket(const ProtobufCMessage *message, char *text)
{
    const Mp__Ticket *ticket = (const Mp__Ticket *)message;
    if (!port_valid(ticket->peer_port))
        return say(text, "a ticket with a bad port");
    if (!ticket->sends && !ticket->receives)
        return say(text, "a ticket that neither sends nor receives");
    return (ticket->limit_ns > 0 && ticket->expiry_ns > 0) || say(text, "a ticket without limits");
}

static bool check_light_peer(const ProtobufCMessage *message, char *text)
{
    const Mp__LightPeer *peer = (const Mp__LightPeer *)message;
    bool good = port_valid(peer->peer_port) && peer->has_port == peer->has_transport;
    if (peer->has_port)
        good = good && port_valid(peer->port) && peer->transport != MP__TRANSPORT__OVER_ICMP;
    return good || say(text, "a light peer with a bad port");
}

static bool check_port_range(const ProtobufCMessage *message, char *text)
{
    const Mp__PortRange *range = (const Mp__PortRange *)message;
    return (range->transport != MP__TRANSPORT__OVER_ICMP && port_valid(range->first) &&
               port_valid(range->last) && range->first <= range->last) ||
           say(text, "a bad range of ports");
}

static bool check_parts(uint32_t part, uint32_t parts, char *text)
{
    return (parts >= 1 && parts <= 4096 && part < parts) || say(text, "a part beyond its parts");
}

static bool check_light_arm(const ProtobufCMessage *message, char *text)
{
    const Mp__LightArm *arm = (const Mp__LightArm *)message;
    return check_parts(arm->part, arm->parts, text);
}

static bool check_light_result(const ProtobufCMessage *message, char *text)
{
    const Mp__LightResult *result = (const Mp__LightResult *)message;
    if (result->sequence == 0)
        return say(text, "a result without a sequence");
    return check_parts(result->part, result->parts, text);
}

static bool check_result(const ProtobufCMessage *message, char *text)
{
    return ((const Mp__Result *)message)->sequence > 0 || say(text, "a result without a sequence");
}

static bool check_run_request(const ProtobufCMessage *message, char *text)
{
    const Mp__RunRequest *request = (const Mp__RunRequest *)message;
    if (request->n_tests == 0)
        return say(text, "a run without a test");
    for (size_t i = 0; i < request->n_tests; i++)
        for (size_t j = 0; j < i; j++)
            if (request->tests[i]->kind == request->tests[j]->kind)
                return say(text, "a run that names a test twice");
    if (request->has_passes && (request->passes < 1 || request->passes > TESTSPEC_PASSES_MAX))
        return say(text, "no pass or too many of them");
    return !request->has_retries || request->retries <= 100 || say(text, "too many retries");
}

static bool check_check_part(const ProtobufCMessage *message, char *text)
{
    const Mp__CheckPart *part = (const Mp__CheckPart *)message;
    if (part->has_family && part->family != 4 && part->family != 6)
        return say(text, "a check over no known family");
    return check_parts(part->part, part->parts, text);
}

static bool check_token_create(const ProtobufCMessage *message, char *text)
{
    const Mp__TokenCreate *create = (const Mp__TokenCreate *)message;
    return (create->expires_ns > 0 && create->uses > 0) || say(text, "a token that is never valid");
}

static bool check_operator_add(const ProtobufCMessage *message, char *text)
{
    return identity_name_valid(((const Mp__OperatorAdd *)message)->name) ||
           say(text, "an operator with a bad name");
}

static const struct {
    const ProtobufCMessageDescriptor *message;
    bool (*check)(const ProtobufCMessage *message, char *text);
} message_rules[] = {
    {&mp__label__descriptor, check_label},
    {&mp__enrol__descriptor, check_enrol},
    {&mp__hello__descriptor, check_hello},
    {&mp__test_spec__descriptor, check_spec},
    {&mp__ticket__descriptor, check_ticket},
    {&mp__light_peer__descriptor, check_light_peer},
    {&mp__light_arm__descriptor, check_light_arm},
    {&mp__light_result__descriptor, check_light_result},
    {&mp__result__descriptor, check_result},
    {&mp__run_request__descriptor, check_run_request},
    {&mp__port_range__descriptor, check_port_range},
    {&mp__check_part__descriptor, check_check_part},
    {&mp__token_create__descriptor, check_token_create},
    {&mp__operator_add__descriptor, check_operator_add},
};

bool wire_check_message(const ProtobufCMessage *message, char *text)
{
    if (!check_fields(message, text))
        return false;
    for (size_t i = 0; i < sizeof message_rules / sizeof *message_rules; i++)
        if (message_rules[i].message == message->descriptor)
            return message_rules[i].check(message, text);
    return true;
}

bool wire_check_envelope(const Mp__Envelope *envelope, char *text)
{
    return wire_check_message(&envelope->base, text);
}
