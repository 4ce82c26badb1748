#ifndef MESHPERF_LOG_H
#define MESHPERF_LOG_H

// Log lines on standard error, one event a line, as text or JSON. Process-wide by nature: set up
// once in main() before threads start; the log_* calls are safe from any thread afterwards.
// Levels by what the operator should do: error = act, warn = look, info = know, debug = for us.
// Secrets and tokens are never logged.

#include <stdbool.h>

// CZMQ includes this too, and its macros would replace our levels.
#include <syslog.h>
#undef LOG_INFO
#undef LOG_DEBUG

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

void log_setup(const char *program, enum log_level level, enum log_format format);

// From the words of --log-level and --log-format; false if the word is none of them.
bool log_level_parse(const char *word, enum log_level *level);
bool log_format_parse(const char *word, enum log_format *format);
bool log_enabled(enum log_level level);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
    do {                                                                                           \
        if (log_enabled(LOG_DEBUG))                                                                \
            log_write(LOG_DEBUG, __VA_ARGS__);                                                     \
    } while (0)

#endif
