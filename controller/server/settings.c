#include "settings.h"

#include <errno.h>
#include <string.h>

#include "advertise.h"
#include "errors.h"

// A value must fit whole: a cut one would name something else.
static int take(char *field, size_t room, const char *word, const char *what, char *error)
{
    if (strlen(word) >= room || !*word) {
        snprintf(error, OPTIONS_ERROR_SIZE, "%s \"%.100s\" is %s", what, word,
            *word ? "too long" : "empty");
        return MESH_E_RANGE;
    }
    strcpy(field, word);
    return 0;
}

#define SETTER(name)                                                                               \
    static int name(void *target, const char *word, const struct option_source *source, char *error)
#define SETTINGS ((struct controller_settings *)target)

SETTER(set_listen)
{
    (void)source;
    const char *colon = strrchr(word, ':');
    if (strncmp(word, "tcp://", 6) != 0 || !colon || colon < word + 7) {
        snprintf(error, OPTIONS_ERROR_SIZE, "--listen \"%.200s\" is not tcp://ADDRESS:PORT", word);
        return MESH_E_SYNTAX;
    }
    return take(SETTINGS->listen, sizeof SETTINGS->listen, word, "--listen", error);
}

SETTER(set_advertise)
{
    (void)source;
    if (!advertise_valid(word)) {
        snprintf(error, OPTIONS_ERROR_SIZE,
            "--advertise \"%.200s\" is not tcp://HOST:PORT that others can connect to", word);
        return MESH_E_SYNTAX;
    }
    return take(SETTINGS->advertise, sizeof SETTINGS->advertise, word, "--advertise", error);
}

SETTER(set_operator_listen)
{
    (void)source;
    if (strncmp(word, "tcp://", 6) != 0 && strncmp(word, "ipc://", 6) != 0) {
        snprintf(error, OPTIONS_ERROR_SIZE,
            "--operator-listen \"%.200s\" is neither tcp://ADDRESS:PORT nor ipc://PATH", word);
        return MESH_E_SYNTAX;
    }
    return take(SETTINGS->operator_listen, sizeof SETTINGS->operator_listen, word,
        "--operator-listen", error);
}

SETTER(set_state_dir)
{
    (void)source;
    return take(SETTINGS->state_dir, sizeof SETTINGS->state_dir, word, "--state-dir", error);
}

SETTER(set_config)
{
    (void)source;
    SETTINGS->config_given = true;
    return take(SETTINGS->config, sizeof SETTINGS->config, word, "--config", error);
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

static const struct option_spec specs[] = {
    {.name = "listen",
        .argument = "ENDPOINT",
        .set = set_listen,
        .help = "where agents connect (default tcp://*:5700, IPv4 and IPv6);\n"
                "port * picks a free one"},
    {.name = "advertise",
        .argument = "ENDPOINT",
        .set = set_advertise,
        .help = "what agents are told to connect to (default: the bound address,\n"
                "for a wildcard that of the default route)"},
    {.name = "operator-listen",
        .argument = "ENDPOINT",
        .set = set_operator_listen,
        .help = "where the command line connects\n"
                "(default: ipc://STATE-DIR/operator.sock)"},
    {.name = "state-dir",
        .argument = "DIR",
        .set = set_state_dir,
        .help = "keys, database and the operator's context (default /var/lib/meshperf)"},
    {.name = "config",
        .argument = "FILE",
        .set = set_config,
        .no_file = true,
        .help = "YAML, keys are the long flags (default " SETTINGS_FILE ")"},
    {.name = "log-level",
        .argument = "LEVEL",
        .set = set_log_level,
        .help = "error, warn, info (default) or debug"},
    {.name = "log-format",
        .argument = "FORMAT",
        .set = set_log_format,
        .help = "text (default) or json"},
    {.name = "help", .set = set_help, .no_file = true, .help = "show this and exit"},
    {.name = "version", .set = set_version, .no_file = true, .help = "show the version and exit"},
};

const struct option_table controller_options = {
    .specs = specs,
    .count = sizeof specs / sizeof specs[0],
    .environment_prefix = "MESHPERF_CONTROLLER_",
};

static void settings_defaults(struct controller_settings *settings)
{
    *settings = (struct controller_settings){.listen = "tcp://*:5700",
        .state_dir = "/var/lib/meshperf",
        .config = SETTINGS_FILE,
        .log_level = LOG_INFO,
        .log_format = LOG_TEXT};
}

// The command line and the environment are read twice: once for --config, which says what comes
// below them, and once on top of it.
int controller_settings_load(
    struct controller_settings *settings, int argc, char **argv, char **environment, char *error)
{
    const char *words[64];
    size_t word_count = 0;
    if (argc > 64) {
        snprintf(error, OPTIONS_ERROR_SIZE, "too many arguments");
        return MESH_E_RANGE;
    }
    struct controller_settings first;
    settings_defaults(&first);
    int rc = options_parse_environment(&controller_options, environment, &first, error);
    if (rc == 0)
        rc = options_parse_argv(&controller_options, argc, argv, &first, words, &word_count, error);
    if (rc != 0)
        return rc;
    if (first.help || first.version) {
        *settings = first;
        return 0;
    }
    if (word_count > 0) {
        snprintf(error, OPTIONS_ERROR_SIZE, "unexpected argument \"%.200s\"", words[0]);
        return MESH_E_SYNTAX;
    }
    settings_defaults(settings);
    rc = options_parse_file(&controller_options, first.config, settings, error);
    if (rc == -ENOENT && !first.config_given)
        rc = 0;
    else if (rc == -ENOENT)
        snprintf(error, OPTIONS_ERROR_SIZE, "--config \"%.200s\": no such file", first.config);
    if (rc == 0)
        rc = options_parse_environment(&controller_options, environment, settings, error);
    word_count = 0;
    if (rc == 0)
        rc = options_parse_argv(
            &controller_options, argc, argv, settings, words, &word_count, error);
    return rc;
}

void controller_settings_help(FILE *stream)
{
    fputs("usage: meshperf-controller [OPTION]...\n\n"
          "The one daemon of a mesh: knows all agents, orchestrates runs, keeps the results.\n\n",
        stream);
    options_print_help(&controller_options, ~0u, stream);
    fputs("\nFlags beat the environment (MESHPERF_CONTROLLER_<FLAG>), which beats the file.\n"
          "Exit status: 0 asked to stop, 2 configuration, 70 a bug.\n",
        stream);
}
