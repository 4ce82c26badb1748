#include "options.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

// Which options this level has given already: a list's first value at a level drops weaker ones.
struct level {
    const struct option_table *table;
    void *target;
    char *error;
    bool *seen;
};

static bool level_open(
    struct level *level, const struct option_table *table, void *target, char *error)
{
    *level = (struct level){.table = table, .target = target, .error = error};
    level->seen = calloc(table->count + table->section_count + 1, sizeof *level->seen);
    if (!level->seen)
        abort();
    *error = '\0';
    return true;
}

static int level_close(struct level *level, int result)
{
    free(level->seen);
    return result;
}

static const struct option_spec *by_name(
    const struct option_table *table, const char *name, size_t size)
{
    for (size_t i = 0; i < table->count; i++)
        if (strlen(table->specs[i].name) == size && memcmp(table->specs[i].name, name, size) == 0)
            return &table->specs[i];
    return NULL;
}

static const struct option_spec *by_letter(const struct option_table *table, char letter)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->specs[i].letter && table->specs[i].letter == letter)
            return &table->specs[i];
    return NULL;
}

static int apply(struct level *level, const struct option_spec *spec, const char *word)
{
    size_t index = (size_t)(spec - level->table->specs);
    struct option_source source = {.first = !level->seen[index]};
    level->seen[index] = true;
    return spec->set(level->target, word, &source, level->error);
}

int option_text(char *field, size_t room, const char *word, const char *what,
    char error[OPTIONS_ERROR_SIZE])
{
    if (strlen(word) >= room || !*word) {
        snprintf(error, OPTIONS_ERROR_SIZE, "%s \"%.100s\" is %s", what, word,
            *word ? "too long" : "empty");
        return MESH_E_RANGE;
    }
    strcpy(field, word);
    return 0;
}

// ---------------------------------------------------------------------------- suggestions

// Edit distance with an early end: more than 2 edits are of no interest.
static unsigned distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned row[65];
    if (n > 64 || m > 64)
        return 99;
    for (size_t j = 0; j <= m; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            unsigned best = row[j] + 1 < row[j - 1] + 1 ? row[j] + 1 : row[j - 1] + 1;
            row[j] = best < change ? best : change;
        }
    }
    return row[m];
}

const char *options_nearest(const char *word, const char *const *words, size_t count, size_t stride)
{
    const char *nearest = NULL;
    unsigned least = 3;
    for (size_t i = 0; i < count; i++) {
        const char *candidate = *(const char *const *)((const char *)words + i * stride);
        unsigned edits = candidate ? distance(word, candidate) : 99;
        if (edits < least && edits < strlen(word)) {
            least = edits;
            nearest = candidate;
        }
    }
    return nearest;
}

static const char *nearest_option(const struct option_table *table, const char *word)
{
    if (table->count == 0)
        return NULL;
    return options_nearest(word, &table->specs[0].name, table->count, sizeof *table->specs);
}

// --------------------------------------------------------------------------- command line

struct arguments {
    int count;
    char **words;
    int at;
};

static int unknown_option(struct level *level, const char *word, const char *name)
{
    const char *nearest = nearest_option(level->table, name);
    if (nearest)
        snprintf(level->error, OPTIONS_ERROR_SIZE, "unknown option '%.200s', did you mean --%s?",
            word, nearest);
    else
        snprintf(level->error, OPTIONS_ERROR_SIZE, "unknown option '%.200s'", word);
    return MESH_E_SYNTAX;
}

// The value of an option that takes one: `attached`, or the next word.
static int apply_with_value(struct level *level, struct arguments *arguments,
    const struct option_spec *spec, const char *attached, const char *word)
{
    const char *value = attached;
    if (!value && arguments->at + 1 < arguments->count)
        value = arguments->words[++arguments->at];
    if (!value) {
        snprintf(
            level->error, OPTIONS_ERROR_SIZE, "option '%.200s' needs %s", word, spec->argument);
        return MESH_E_SYNTAX;
    }
    return apply(level, spec, value);
}

static int parse_long(struct level *level, struct arguments *arguments, const char *word)
{
    const char *name = word + 2, *equal = strchr(name, '=');
    size_t size = equal ? (size_t)(equal - name) : strlen(name);
    const struct option_spec *spec = by_name(level->table, name, size);
    if (!spec) {
        char plain[64];
        snprintf(plain, sizeof plain, "%.*s", (int)(size > 60 ? 60 : size), name);
        return unknown_option(level, word, plain);
    }
    if (spec->argument)
        return apply_with_value(level, arguments, spec, equal ? equal + 1 : NULL, word);
    if (equal) {
        snprintf(
            level->error, OPTIONS_ERROR_SIZE, "'%.200s': --%s takes no value", word, spec->name);
        return MESH_E_SYNTAX;
    }
    return apply(level, spec, NULL);
}

// -4, -t 10s, -t10s, -qv: switches may be joined, a value ends the word.
static int parse_short(struct level *level, struct arguments *arguments, const char *word)
{
    for (const char *c = word + 1; *c; c++) {
        const struct option_spec *spec = by_letter(level->table, *c);
        if (!spec)
            return unknown_option(level, word, word + 1);
        if (spec->argument)
            return apply_with_value(level, arguments, spec, c[1] ? c + 1 : NULL, word);
        int error = apply(level, spec, NULL);
        if (error)
            return error;
    }
    return 0;
}

int options_parse_argv(const struct option_table *table, int argc, char **argv, void *target,
    const char **words, size_t *word_count, char error[OPTIONS_ERROR_SIZE])
{
    struct level level;
    struct arguments arguments = {argc, argv, 1};
    bool only_words = false;
    int result = 0;
    level_open(&level, table, target, error);
    *word_count = 0;
    for (; arguments.at < argc && !result; arguments.at++) {
        const char *word = argv[arguments.at];
        if (only_words || word[0] != '-' || !word[1])
            words[(*word_count)++] = word;
        else if (strcmp(word, "--") == 0)
            only_words = true;
        else
            result = word[1] == '-' ? parse_long(&level, &arguments, word)
                                    : parse_short(&level, &arguments, word);
    }
    return level_close(&level, result);
}

// ---------------------------------------------------------------------------- environment

static int apply_variable(struct level *level, const char *name, size_t size, const char *value)
{
    char option[64];
    if (size < sizeof option) {
        for (size_t i = 0; i < size; i++)
            option[i] = name[i] == '_' ? '-' : (char)tolower((unsigned char)name[i]);
        const struct option_spec *spec = by_name(level->table, option, size);
        if (spec && !spec->argument) {
            if (strcmp(value, "true") == 0)
                return apply(level, spec, NULL);
            if (strcmp(value, "false") == 0)
                return 0;
            snprintf(level->error, OPTIONS_ERROR_SIZE, "'%.100s' is neither true nor false", value);
            return MESH_E_SYNTAX;
        }
        if (spec)
            return apply(level, spec, value);
    }
    snprintf(level->error, OPTIONS_ERROR_SIZE, "there is no option of that name");
    return MESH_E_SYNTAX;
}

int options_parse_environment(const struct option_table *table, char **environment, void *target,
    char error[OPTIONS_ERROR_SIZE])
{
    struct level level;
    size_t prefix = strlen(table->environment_prefix);
    int result = 0;
    level_open(&level, table, target, error);
    for (char **variable = environment; *variable && !result; variable++) {
        const char *equal = strchr(*variable, '=');
        if (!equal || strncmp(*variable, table->environment_prefix, prefix) != 0)
            continue;
        const char *name = *variable + prefix;
        result = apply_variable(&level, name, (size_t)(equal - name), equal + 1);
        if (result) {
            char why[OPTIONS_ERROR_SIZE / 2];
            snprintf(why, sizeof why, "%s", error);
            snprintf(error, OPTIONS_ERROR_SIZE, "environment variable %.*s: %s",
                (int)(equal - *variable > 100 ? 100 : equal - *variable), *variable, why);
        }
    }
    return level_close(&level, result);
}

// ------------------------------------------------------------------------------- the help

void options_print_help(const struct option_table *table, unsigned mask, FILE *stream)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct option_spec *spec = &table->specs[i];
        if (!spec->help || (spec->scope && !(spec->scope & mask)))
            continue;
        char left[64];
        snprintf(left, sizeof left, "%c%c%s --%s%s%s", spec->letter ? '-' : ' ',
            spec->letter ? spec->letter : ' ', spec->letter ? "," : " ", spec->name,
            spec->argument ? " " : "", spec->argument ? spec->argument : "");
        fprintf(stream, "  %-30s", left);
        if (strlen(left) >= 30)
            fprintf(stream, "\n  %30s", "");
        for (const char *c = spec->help; *c; c++) {
            fputc(*c, stream);
            if (*c == '\n')
                fprintf(stream, "%32s", "");
        }
        fputc('\n', stream);
    }
}
