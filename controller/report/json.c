#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "report.h"

// -------------------------------------------------------------------------------------- values

// Length of the well-formed UTF-8 sequence at `c` (RFC 3629), 0 if there is none.
static size_t utf8_length(const unsigned char *c)
{
    static const struct {
        unsigned char first, last, low, high;
        size_t length;
    } forms[] = {{0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (*c < forms[i].first || *c > forms[i].last)
            continue;
        if (c[1] < forms[i].low || c[1] > forms[i].high)
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if ((c[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].length;
    }
    return 0;
}

void report_json_string(FILE *stream, const char *text)
{
    fputc('"', stream);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        size_t length;
        if (*c == '"' || *c == '\\') {
            fprintf(stream, "\\%c", *c);
        } else if (*c == '\n') {
            fputs("\\n", stream);
        } else if (*c == '\t') {
            fputs("\\t", stream);
        } else if (*c < 0x20 || *c == 0x7f) {
            fprintf(stream, "\\u%04x", *c);
        } else if (*c < 0x80) {
            fputc(*c, stream);
        } else if ((length = utf8_length(c)) > 0) {
            fwrite(c, 1, length, stream);
            c += length - 1;
        } else {
            fputs("\\ufffd", stream);
        }
    }
    fputc('"', stream);
}

void report_json_real(FILE *stream, double value)
{
    char text[40];
    if (!isfinite(value)) {
        fputs("null", stream);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fputs(text, stream);
}

void report_json_text(FILE *stream, const char *text)
{
    if (text)
        report_json_string(stream, text);
    else
        fputs("null", stream);
}

void report_json_time(FILE *stream, bool has, int64_t wall_ns)
{
    char text[CLOCK_ISO_SIZE];
    clock_iso8601(wall_ns, text);
    report_json_text(stream, has ? text : NULL);
}

void report_json_value(FILE *stream, const struct value *value)
{
    switch (value->type) {
    case VALUE_ABSENT:
        fputs("null", stream);
        break;
    case VALUE_REAL:
        report_json_real(stream, value->real);
        break;
    case VALUE_WHOLE:
        fprintf(stream, "%" PRIu64, value->whole);
        break;
    case VALUE_BOOL:
        fputs(value->whole ? "true" : "false", stream);
        break;
    case VALUE_TEXT:
        report_json_string(stream, value->text);
        break;
    case VALUE_TIME:
        report_json_time(stream, true, value->wall_ns);
        break;
    }
}

// ------------------------------------------------------------------------------------- members

void report_member_real(FILE *stream, const char *name, bool has, double value)
{
    if (!has || !isfinite(value))
        return;
    fprintf(stream, ",\"%s\":", name);
    report_json_real(stream, value);
}

void report_member_whole(FILE *stream, const char *name, bool has, uint64_t value)
{
    if (has)
        fprintf(stream, ",\"%s\":%" PRIu64, name, value);
}

void report_member_text(FILE *stream, const char *name, const char *text)
{
    if (!text)
        return;
    fprintf(stream, ",\"%s\":", name);
    report_json_string(stream, text);
}

void report_member_true(FILE *stream, const char *name, bool has, bool value)
{
    if (has)
        fprintf(stream, ",\"%s\":%s", name, value ? "true" : "false");
}

void report_member_list(FILE *stream, const char *name, char *const *texts, size_t count)
{
    if (count == 0)
        return;
    fprintf(stream, ",\"%s\":[", name);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? "," : "", stream);
        report_json_string(stream, texts[i]);
    }
    fputc(']', stream);
}

void report_member_labels(FILE *stream, Mp__Label *const *labels, size_t count)
{
    fputs(",\"labels\":{", stream);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? "," : "", stream);
        report_json_string(stream, labels[i]->key);
        fputc(':', stream);
        report_json_string(stream, labels[i]->value);
    }
    fputc('}', stream);
}
