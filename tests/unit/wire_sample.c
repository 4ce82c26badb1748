#include "wire_sample.h"

#include <stdlib.h>
#include <string.h>

#define TYPES_MAX 128

// Fields whose values the validators look into; all others take a default by their type.
static const struct {
    const char *field, *value;
} texts[] = {
    {"local_address", "10.0.0.1"},
    {"peer_address", "10.0.0.2"},
    {"peer_seen", "192.0.2.9"},
    {"seen_from", "192.0.2.9"},
    {"icmp_from", "192.0.2.9"},
    {"last_hop", "192.0.2.9"},
    {"responder", "192.0.2.9"},
    {"addresses", "fd00::1"},
    {"congestion", "cubic"},
};

static const struct {
    const char *field;
    uint64_t value;
} numbers[] = {
    {"version", PROTO_VERSION},
    {"version_min", 1},
    {"version_max", 1},
    {"family", 6},
    {"duration_ns", 1000000000},
    {"interval_ns", 100000000},
    {"omit_ns", 1000},
    {"length", 1400},
    {"mss", 1400},
    {"dscp", 46},
    {"part", 0},
    {"timeout_ns", 1000000000},
};

static const struct {
    const char *field;
    size_t size;
} sizes[] = {{"public_key", 32}, {"key", 32}};

static char *text_for(const char *field)
{
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(texts[i].field, field) == 0)
            return strdup(texts[i].value);
    return strdup("word");
}

static uint64_t number_for(const char *field)
{
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(numbers[i].field, field) == 0)
            return numbers[i].value;
    return 7;
}

static ProtobufCBinaryData bytes_for(const char *field)
{
    size_t size = 16;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(sizes[i].field, field) == 0)
            size = sizes[i].size;
    uint8_t *data = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i + 1);
    return (ProtobufCBinaryData){size, data};
}

static ProtobufCMessage *sample_of(const ProtobufCMessageDescriptor *type);

static size_t put(const ProtobufCFieldDescriptor *field, void *at)
{
    uint64_t number = number_for(field->name);
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        *(char **)at = text_for(field->name);
        return sizeof(char *);
    case PROTOBUF_C_TYPE_BYTES:
        *(ProtobufCBinaryData *)at = bytes_for(field->name);
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)at = sample_of(field->descriptor);
        return sizeof(void *);
    case PROTOBUF_C_TYPE_DOUBLE:
        *(double *)at = 1.5;
        return sizeof(double);
    case PROTOBUF_C_TYPE_ENUM:
        *(int *)at = ((const ProtobufCEnumDescriptor *)field->descriptor)->values[1].value;
        return sizeof(int);
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = 1;
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_UINT32:
        *(uint32_t *)at = (uint32_t)number;
        return sizeof(uint32_t);
    default:
        *(uint64_t *)at = number;
        return sizeof(uint64_t);
    }
}

static void fill(ProtobufCMessage *message)
{
    char *base = (char *)message;
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
            continue;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            void *list = calloc(1, sizeof(ProtobufCBinaryData));
            (void)put(field, list);
            *(void **)(base + field->offset) = list;
            *(size_t *)(base + field->quantifier_offset) = 1;
            continue;
        }
        (void)put(field, base + field->offset);
        bool flagged = field->label == PROTOBUF_C_LABEL_OPTIONAL &&
                       field->type != PROTOBUF_C_TYPE_STRING &&
                       field->type != PROTOBUF_C_TYPE_MESSAGE;
        if (flagged)
            *(protobuf_c_boolean *)(base + field->quantifier_offset) = 1;
    }
}

static ProtobufCMessage *sample_of(const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *message = calloc(1, type->sizeof_message);
    protobuf_c_message_init(type, message);
    fill(message);
    if (type == &mp__test_spec__descriptor) {
        ((Mp__TestSpec *)message)->has_bitrate_max = false; // a rate is stated or endless, not both
        ((Mp__TestSpec *)message)->until = 0.05;
    }
    return message;
}

Mp__Envelope *wire_sample(Mp__Envelope__BodyCase body)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(&mp__envelope__descriptor, (unsigned)body);
    if (!field || !(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
        return NULL;
    Mp__Envelope *envelope = (Mp__Envelope *)sample_of(&mp__envelope__descriptor);
    envelope->body_case = body;
    *(ProtobufCMessage **)((char *)envelope + field->offset) = sample_of(field->descriptor);
    return envelope;
}

void wire_sample_free(Mp__Envelope **envelope_p)
{
    if (*envelope_p)
        mp__envelope__free_unpacked(*envelope_p, NULL);
    *envelope_p = NULL;
}

struct types {
    const ProtobufCMessageDescriptor *list[TYPES_MAX];
    size_t count;
};

static void collect(struct types *types, const ProtobufCMessageDescriptor *type)
{
    for (size_t i = 0; i < types->count; i++)
        if (types->list[i] == type)
            return;
    if (types->count == TYPES_MAX)
        abort();
    types->list[types->count++] = type;
    for (unsigned i = 0; i < type->n_fields; i++)
        if (type->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            collect(types, type->fields[i].descriptor);
}

void wire_each_type(void (*visit)(const ProtobufCMessageDescriptor *type, void *ctx), void *ctx)
{
    struct types types = {.count = 0};
    collect(&types, &mp__envelope__descriptor);
    for (size_t i = 0; i < types.count; i++)
        visit(types.list[i], ctx);
}
