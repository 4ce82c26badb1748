#ifndef MESHPERF_OPTIONS_H
#define MESHPERF_OPTIONS_H

// One table of options per program or command. Out of it come the parser of the command line, the
// environment, the YAML configuration file, and the help. Values reach the program through one
// `set` function per option, which checks the word and reports what is wrong with it.
//
// Precedence: command line over environment over file. The caller applies them in the order file,
// environment, command line; a repeatable option given at a stronger level replaces the weaker
// level's values (options_* tell `set` when a level begins its first value of that option).

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define OPTIONS_ERROR_SIZE 512

struct option_source {
    const char *file;  // configuration file's name, or NULL
    size_t line;       // 1-based, when from a file
    size_t column;
    bool first;        // first value of this option at this level: drop weaker values of a list
};

struct option_spec {
    const char *name;      // long form without the dashes
    char letter;           // short form or 0
    const char *argument;  // placeholder in the help, NULL for a switch
    const char *help;      // one sentence; "\n" continues on an indented line
    // Called for each value (switches: word is NULL). Returns 0 or a negative error and then a
    // sentence for people in `error`. `target` is what the caller of options_* handed in.
    int (*set)(void *target, const char *word, const struct option_source *source, char *error);
    unsigned scope;        // caller's bits: which commands or tests know this option
    bool no_file;          // not a key of the configuration file (--help, --config)
};

// A key of the configuration file that is no flag and is nested (such as `guard`): called once per
// scalar below it, with the path "guard.peers" and the word.
struct option_section {
    const char *path;
    int (*set)(void *target, const char *word, const struct option_source *source, char *error);
};

struct option_table {
    const struct option_spec *specs;
    size_t count;
    const struct option_section *sections;  // may be NULL
    size_t section_count;
    const char *environment_prefix;         // "MESHPERF_AGENT_", or NULL
};

// Parses argv[1..]: --x v, --x=v, -x v, -xv, "--" ends options; no abbreviations. Words that are no
// options are collected in `words` (caller's array with room for argc pointers). Options may stand
// anywhere. On failure a complete sentence that quotes the word as typed is in `error`.
int options_parse_argv(const struct option_table *table, int argc, char **argv, void *target,
    const char **words, size_t *word_count, char error[OPTIONS_ERROR_SIZE])
    __attribute__((warn_unused_result));

// MESHPERF_AGENT_STATE_DIR=... for --state-dir. An unknown name under the prefix is an error.
int options_parse_environment(const struct option_table *table, char **environment, void *target,
    char error[OPTIONS_ERROR_SIZE]) __attribute__((warn_unused_result));

// A YAML mapping whose keys are the long flags; sequences for repeatable options. At most 1 MiB,
// depth 8; anchors, tags, duplicate and unknown keys are refused. Errors read
// "FILE:LINE:COLUMN: what is wrong" and suggest the nearest known key. A missing file is -ENOENT.
int options_parse_file(const struct option_table *table, const char *path, void *target,
    char error[OPTIONS_ERROR_SIZE]) __attribute__((warn_unused_result));

// For `set`: copies a word whole into a field of `room` bytes, or says why it does not fit (a cut one
// would name something else). `what` is the option, "--name".
int option_text(char *field, size_t room, const char *word, const char *what,
    char error[OPTIONS_ERROR_SIZE]) __attribute__((warn_unused_result));

// The aligned list of options for --help, those with (scope & mask) or scope 0.
void options_print_help(const struct option_table *table, unsigned mask, FILE *stream);

// The known word nearest to `word` by edit distance (at most 2 edits), or NULL. `words` holds
// `count` strings, `stride` bytes apart, so that a field of an array of structs will do.
const char *options_nearest(const char *word, const char *const *words, size_t count, size_t stride);

#endif
