#ifndef MESHPERF_DAEMON_SETTINGS_H
#define MESHPERF_DAEMON_SETTINGS_H

// What both daemons can be told, and how either is: command line over environment over file. A
// daemon's settings are plain data that begin with these; its table of options takes in
// DAEMON_OPTIONS beside its own.

#include <stdbool.h>
#include <stddef.h>

#include "log.h"
#include "options.h"

struct daemon_settings {
    char config[512];
    bool config_given; // else a missing file is none
    enum log_level log_level;
    enum log_format log_format;
    bool help, version;
};

int daemon_set_config(
    void *target, const char *word, const struct option_source *source, char *error);
int daemon_set_log_level(
    void *target, const char *word, const struct option_source *source, char *error);
int daemon_set_log_format(
    void *target, const char *word, const struct option_source *source, char *error);
int daemon_set_help(
    void *target, const char *word, const struct option_source *source, char *error);
int daemon_set_version(
    void *target, const char *word, const struct option_source *source, char *error);

// Rows of a table of options; `config_help` is that of --config.
#define DAEMON_OPTIONS(config_help)                                                                \
    {.name = "config",                                                                             \
        .argument = "FILE",                                                                        \
        .set = daemon_set_config,                                                                  \
        .no_file = true,                                                                           \
        .help = (config_help)},                                                                    \
        {.name = "log-level",                                                                      \
            .argument = "LEVEL",                                                                   \
            .set = daemon_set_log_level,                                                           \
            .help = "error, warn, info (default) or debug"},                                       \
        {.name = "log-format",                                                                     \
            .argument = "FORMAT",                                                                  \
            .set = daemon_set_log_format,                                                          \
            .help = "text (default) or json"},                                                     \
        {.name = "help", .set = daemon_set_help, .no_file = true, .help = "show this and exit"},   \
    {                                                                                              \
        .name = "version", .set = daemon_set_version, .no_file = true,                             \
        .help = "show the version and exit"                                                        \
    }

struct daemon_kind {
    const struct option_table *table;
    size_t size;                      // of its settings
    void (*defaults)(void *settings); // writes all of them
};

// Fills `settings` (kind->size bytes that begin with a struct daemon_settings). 0, or a negative
// error with a sentence in `error` (OPTIONS_ERROR_SIZE) that quotes the word, and for files begins
// with FILE:LINE:COLUMN. With help or version set nothing else was judged.
int daemon_settings_load(const struct daemon_kind *kind, void *settings, int argc, char **argv,
    char **environment, char *error) __attribute__((warn_unused_result));

#endif
