#include "daemon_settings.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

// ------------------------------------------------------------------------------------- options

#define SETTER(name)                                                                               \
    int daemon_##name(                                                                             \
        void *target, const char *word, const struct option_source *source, char *error)
#define SETTINGS ((struct daemon_settings *)target)

SETTER(set_config)
{
    (void)source;
    SETTINGS->config_given = true;
    return option_text(SETTINGS->config, sizeof SETTINGS->config, word, "--config", error);
}

SETTER(set_log_level)
{
    (void)source;
    if (log_level_parse(word, &SETTINGS->log_level))
        return 0;
    snprintf(error, OPTIONS_ERROR_SIZE,
        "--log-level \"%.100s\" is none of error, warn, info, debug", word);
    return MESH_E_SYNTAX;
}

SETTER(set_log_format)
{
    (void)source;
    if (log_format_parse(word, &SETTINGS->log_format))
        return 0;
    snprintf(error, OPTIONS_ERROR_SIZE, "--log-format \"%.100s\" is neither text nor json", word);
    return MESH_E_SYNTAX;
}

SETTER(set_help)
{
    (void)word, (void)source, (void)error;
    SETTINGS->help = true;
    return 0;
}

SETTER(set_version)
{
    (void)word, (void)source, (void)error;
    SETTINGS->version = true;
    return 0;
}

// ------------------------------------------------------------------------------------- sources

static int load_file(const struct daemon_kind *kind, struct daemon_settings *settings,
    const struct daemon_settings *first, char *error)
{
    int result = options_parse_file(kind->table, first->config, settings, error);
    if (result == -ENOENT && !first->config_given)
        return 0;
    if (result == -ENOENT)
        snprintf(error, OPTIONS_ERROR_SIZE, "--config \"%.200s\": no such file", first->config);
    return result;
}

// Environment, then command line on top of it.
static int load_words(const struct daemon_kind *kind, struct daemon_settings *settings, int argc,
    char **argv, char **environment, char *error)
{
    size_t count = 0;
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    if (!words)
        abort();
    int result = options_parse_environment(kind->table, environment, settings, error);
    if (result == 0)
        result = options_parse_argv(kind->table, argc, argv, settings, words, &count, error);
    if (result == 0 && count > 0 && !settings->help && !settings->version) {
        snprintf(error, OPTIONS_ERROR_SIZE, "unexpected argument \"%.200s\"", words[0]);
        result = MESH_E_SYNTAX;
    }
    free(words);
    return result;
}

// Read twice: once for --config, which says what comes below, and once on top of that.
int daemon_settings_load(const struct daemon_kind *kind, void *settings, int argc, char **argv,
    char **environment, char *error)
{
    struct daemon_settings *first = malloc(kind->size);
    if (!first)
        abort();
    kind->defaults(first);
    int result = load_words(kind, first, argc, argv, environment, error);
    if (result == 0 && (first->help || first->version)) {
        memcpy(settings, first, kind->size);
    } else {
        kind->defaults(settings);
        if (result == 0)
            result = load_file(kind, settings, first, error);
        if (result == 0)
            result = load_words(kind, settings, argc, argv, environment, error);
    }
    sodium_memzero(first, kind->size); // a token may be among them
    free(first);
    return result;
}
