#include "settings.h"

#include <string.h>

#include "advertise.h"
#include "errors.h"

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
    return option_text(SETTINGS->listen, sizeof SETTINGS->listen, word, "--listen", error);
}

SETTER(set_advertise)
{
    (void)source;
    if (!advertise_valid(word)) {
        snprintf(error, OPTIONS_ERROR_SIZE,
            "--advertise \"%.200s\" is not tcp://HOST:PORT that others can connect to", word);
        return MESH_E_SYNTAX;
    }
    return option_text(SETTINGS->advertise, sizeof SETTINGS->advertise, word, "--advertise", error);
}

SETTER(set_operator_listen)
{
    (void)source;
    if (strncmp(word, "tcp://", 6) != 0 && strncmp(word, "ipc://", 6) != 0) {
        snprintf(error, OPTIONS_ERROR_SIZE,
            "--operator-listen \"%.200s\" is neither tcp://ADDRESS:PORT nor ipc://PATH", word);
        return MESH_E_SYNTAX;
    }
    return option_text(SETTINGS->operator_listen, sizeof SETTINGS->operator_listen, word,
        "--operator-listen", error);
}

SETTER(set_state_dir)
{
    (void)source;
    return option_text(SETTINGS->state_dir, sizeof SETTINGS->state_dir, word, "--state-dir", error);
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
    DAEMON_OPTIONS("YAML, keys are the long flags (default " SETTINGS_FILE ")"),
};

const struct option_table controller_options = {
    .specs = specs,
    .count = sizeof specs / sizeof specs[0],
    .environment_prefix = "MESHPERF_CONTROLLER_",
};

static void set_defaults(void *target)
{
    *SETTINGS = (struct controller_settings){
        .daemon = {.config = SETTINGS_FILE, .log_level = LOG_INFO, .log_format = LOG_TEXT},
        .listen = "tcp://*:5700",
        .state_dir = "/var/lib/meshperf"};
}

static const struct daemon_kind kind = {
    &controller_options, sizeof(struct controller_settings), set_defaults};

int controller_settings_load(
    struct controller_settings *settings, int argc, char **argv, char **environment, char *error)
{
    return daemon_settings_load(&kind, settings, argc, argv, environment, error);
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
