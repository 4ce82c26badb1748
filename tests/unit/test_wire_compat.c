// An agent or controller of an earlier build speaks the same protocol: what it was able to say is
// still understood. data/wire/schema.txt has every field as it was, golden.txt one packed message
// of each kind. MESHPERF_GOLDEN=write adds what is new to both; a line that has to be changed or
// taken away is a break of the protocol.

#include "meshtest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire_sample.h"

struct text {
    char *bytes;
    size_t size;
    FILE *stream;
};

static void text_open(struct text *text)
{
    text->stream = open_memstream(&text->bytes, &text->size);
    assert_non_null(text->stream);
}

static void print_type(const ProtobufCMessageDescriptor *type, void *stream)
{
    static const char *const labels[] = {"required", "optional", "repeated", "none"};
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        fprintf(stream, "%s.%s %u %s type %d", type->short_name, field->name, field->id,
            labels[field->label], field->type);
        if (field->type == PROTOBUF_C_TYPE_MESSAGE)
            fprintf(
                stream, " %s", ((const ProtobufCMessageDescriptor *)field->descriptor)->short_name);
        fputc('\n', stream);
        if (field->type == PROTOBUF_C_TYPE_ENUM) {
            const ProtobufCEnumDescriptor *values = field->descriptor;
            for (unsigned v = 0; v < values->n_values; v++)
                fprintf(stream, "%s.%s %s=%d\n", type->short_name, field->name,
                    values->values[v].name, values->values[v].value);
        }
    }
}

static char *schema_now(void)
{
    struct text text;
    text_open(&text);
    wire_each_type(print_type, text.stream);
    fclose(text.stream);
    return text.bytes;
}

static char *golden_now(void)
{
    struct text text;
    text_open(&text);
    for (int body = 1; body <= 128; body++) {
        Mp__Envelope *sample = wire_sample((Mp__Envelope__BodyCase)body);
        if (!sample)
            continue;
        size_t size;
        uint8_t *bytes = wire_pack(sample, &size);
        fprintf(text.stream, "%s ", wire_name(sample));
        for (size_t i = 0; i < size; i++)
            fprintf(text.stream, "%02x", bytes[i]);
        fputc('\n', text.stream);
        free(bytes);
        wire_sample_free(&sample);
    }
    fclose(text.stream);
    return text.bytes;
}

static char *stored(const char *name, char *(*now)(void))
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", WIRE_DATA, name);
    const char *write = getenv("MESHPERF_GOLDEN");
    if (write && strcmp(write, "write") == 0) {
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        char *text = now();
        fputs(text, file);
        free(text);
        fclose(file);
    }
    FILE *file = fopen(path, "r");
    if (!file)
        fail_msg("%s is missing", path);
    struct text text;
    text_open(&text);
    for (int c; (c = fgetc(file)) != EOF;)
        fputc(c, text.stream);
    fclose(file);
    fclose(text.stream);
    return text.bytes;
}

static bool has_line(const char *text, const char *line)
{
    size_t size = strlen(line);
    for (const char *at = text; (at = strstr(at, line)); at++)
        if ((at == text || at[-1] == '\n') && at[size] == '\n')
            return true;
    return false;
}

static void every_field_and_value_that_ever_was_is_still_there(void **state)
{
    (void)state;
    char *before = stored("schema.txt", schema_now), *now = schema_now(), *rest = before, *line;
    unsigned lines = 0;
    while ((line = strsep(&rest, "\n"))) {
        if (*line && !has_line(now, line))
            fail_msg("gone or changed: %s", line);
        lines += *line != '\0';
    }
    assert_true(lines > 300);
    free(before);
    free(now);
}

static void nothing_unknown(const ProtobufCMessage *message)
{
    const char *base = (const char *)message;
    if (message->n_unknown_fields)
        fail_msg("%s has unknown fields", message->descriptor->name);
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        bool chosen = !(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
                      *(const uint32_t *)(base + field->quantifier_offset) == field->id;
        if (field->type != PROTOBUF_C_TYPE_MESSAGE || !chosen)
            continue;
        const void *const *at = (const void *const *)(base + field->offset);
        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
            if (*at)
                nothing_unknown(*at);
            continue;
        }
        const ProtobufCMessage *const *list = *at;
        for (size_t n = 0; n < *(const size_t *)(base + field->quantifier_offset); n++)
            nothing_unknown(list[n]);
    }
}

static void understand(const char *name, const char *hex)
{
    size_t size = strlen(hex) / 2, again_size;
    uint8_t *bytes = malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(sscanf(hex + 2 * i, "%2hhx", bytes + i), 1);
    Mp__Envelope *seen = mp__envelope__unpack(NULL, size, bytes);
    if (!seen || strcmp(wire_name(seen), name) != 0)
        fail_msg("%s is not understood any more", name);
    nothing_unknown(&seen->base);
    uint8_t *again = wire_pack(seen, &again_size);
    assert_int_equal(again_size, size);
    assert_memory_equal(again, bytes, size);
    free(again);
    free(bytes);
    mp__envelope__free_unpacked(seen, NULL);
}

static void every_message_that_was_sent_is_still_understood(void **state)
{
    (void)state;
    char *text = stored("golden.txt", golden_now), *rest = text, *line;
    unsigned messages = 0;
    while ((line = strsep(&rest, "\n"))) {
        char *hex = strchr(line, ' ');
        if (!hex)
            continue;
        *hex++ = '\0';
        understand(line, hex);
        messages++;
    }
    assert_true(messages >= 53);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_and_value_that_ever_was_is_still_there),
        cmocka_unit_test(every_message_that_was_sent_is_still_understood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
