#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

// Written once before threads start (log_setup), read from all of them afterwards.
static struct {
    char program[32];
    enum log_level level;
    enum log_format format;
} setup = {.program = "meshperf", .level = LOG_INFO};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_setup(const char *program, enum log_level level, enum log_format format)
{
    snprintf(setup.program, sizeof setup.program, "%s", program);
    setup.level = level;
    setup.format = format;
}

bool log_level_parse(const char *word, enum log_level *level)
{
    for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcmp(word, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_format_parse(const char *word, enum log_format *format)
{
    bool json = strcmp(word, "json") == 0;
    if (!json && strcmp(word, "text") != 0)
        return false;
    *format = json ? LOG_JSON : LOG_TEXT;
    return true;
}

bool log_enabled(enum log_level level)
{
    return level <= setup.level;
}

// One event is one line, and a line of text never carries a peer's control characters.
static void escape(const char *text, char *out, size_t size, bool json)
{
    size_t at = 0;
    for (const unsigned char *c = (const unsigned char *)text; *c && at + 7 < size; c++) {
        if (json && (*c == '"' || *c == '\\'))
            at += (size_t)snprintf(out + at, size - at, "\\%c", *c);
        else if (*c < 0x20 || *c == 0x7f)
            at += (size_t)snprintf(out + at, size - at, json ? "\\u%04x" : "\\x%02x", *c);
        else
            out[at++] = (char)*c;
    }
    out[at] = '\0';
}

void log_write(enum log_level level, const char *format, ...)
{
    if (!log_enabled(level))
        return;
    char message[1024], escaped[2048], line[2304], now[CLOCK_ISO_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    clock_iso8601(clock_wall_ns(), now);
    bool json = setup.format == LOG_JSON;
    escape(message, escaped, sizeof escaped, json);
    int size = snprintf(line, sizeof line,
        json ? "{\"time\":\"%s\",\"program\":\"%s\",\"level\":\"%s\",\"message\":\"%s\"}\n"
             : "%s %s %s: %s\n",
        now, setup.program, level_names[level], escaped);
    // One write, so that lines of several threads do not mix.
    if (write(STDERR_FILENO, line, (size_t)size) < 0)
        return;
}
