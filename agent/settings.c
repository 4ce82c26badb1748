#include "settings.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "errors.h"
#include "units.h"

#define SETTER(name)                                                                               \
    static int name(void *target, const char *word, const struct option_source *source, char *error)
#define SETTINGS ((struct agent_settings *)target)

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

// ------------------------------------------------------------------------------------- options

SETTER(set_join)
{
    (void)source;
    struct join_token token;
    // The word is a secret: it is the one that is not quoted.
    if (strlen(word) >= sizeof SETTINGS->join || join_token_read(word, &token) != 0) {
        snprintf(error, OPTIONS_ERROR_SIZE,
            "--join: that is no join token (\"meshperf token create\" prints one)");
        return MESH_E_SYNTAX;
    }
    sodium_memzero(&token, sizeof token);
    strcpy(SETTINGS->join, word);
    return 0;
}

SETTER(set_join_file)
{
    (void)source;
    return take(SETTINGS->join_file, sizeof SETTINGS->join_file, word, "--join-file", error);
}

SETTER(set_name)
{
    (void)source;
    if (!identity_name_valid(word)) {
        snprintf(error, OPTIONS_ERROR_SIZE,
            "--name \"%.100s\" is no name: 1 to 63 letters, digits, dots, dashes and underscores, "
            "a letter or digit first",
            word);
        return MESH_E_SYNTAX;
    }
    SETTINGS->name_given = true;
    return take(SETTINGS->name, sizeof SETTINGS->name, word, "--name", error);
}

SETTER(set_label)
{
    struct agent_settings *settings = SETTINGS;
    const char *equal = strchr(word, '=');
    struct label_setting label = {0};
    if (source->first)
        settings->label_count = 0;
    size_t size = equal ? (size_t)(equal - word) : 0;
    if (equal && size < sizeof label.key && strlen(equal + 1) < sizeof label.value) {
        memcpy(label.key, word, size);
        strcpy(label.value, equal + 1);
    }
    if (!identity_label_valid(label.key, label.value)) {
        snprintf(error, OPTIONS_ERROR_SIZE, "--label \"%.150s\" is not KEY=VALUE", word);
        return MESH_E_SYNTAX;
    }
    for (size_t i = 0; i < settings->label_count; i++) {
        if (strcmp(settings->labels[i].key, label.key) == 0) {
            settings->labels[i] = label;
            return 0;
        }
    }
    if (settings->label_count == SETTINGS_LABELS_MAX) {
        snprintf(error, OPTIONS_ERROR_SIZE, "--label \"%.150s\": there are %d labels already", word,
            SETTINGS_LABELS_MAX);
        return MESH_E_RANGE;
    }
    settings->labels[settings->label_count++] = label;
    return 0;
}

SETTER(set_state_dir)
{
    (void)source;
    return take(SETTINGS->state_dir, sizeof SETTINGS->state_dir, word, "--state-dir", error);
}

SETTER(set_address)
{
    unsigned char bytes[16];
    bool ipv4 = inet_pton(AF_INET, word, bytes) == 1;
    if (source->first)
        memset(SETTINGS->addresses, 0, sizeof SETTINGS->addresses);
    if (!ipv4 && inet_pton(AF_INET6, word, bytes) != 1) {
        snprintf(
            error, OPTIONS_ERROR_SIZE, "--address \"%.100s\" is no IPv4 or IPv6 address", word);
        return MESH_E_SYNTAX;
    }
    char *field = SETTINGS->addresses[ipv4 ? 0 : 1];
    if (*field) {
        snprintf(error, OPTIONS_ERROR_SIZE,
            "--address \"%.100s\": there is an %s address already, "
            "%s",
            word, ipv4 ? "IPv4" : "IPv6", field);
        return MESH_E_RANGE;
    }
    return take(field, sizeof SETTINGS->addresses[0], word, "--address", error);
}

SETTER(set_data_port)
{
    (void)source;
    uint64_t port;
    if (units_count(word, 1, 65535, &port) != 0) {
        snprintf(
            error, OPTIONS_ERROR_SIZE, "--data-port \"%.100s\" is no port from 1 to 65535", word);
        return MESH_E_SYNTAX;
    }
    SETTINGS->data_port = (unsigned)port;
    return 0;
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

SETTER(set_rejoin)
{
    (void)word, (void)source, (void)error;
    SETTINGS->rejoin = true;
    return 0;
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

// --------------------------------------------------------------------------- the guard's section

SETTER(set_guard_peers)
{
    struct guard *guard = &SETTINGS->guard;
    if (source->first)
        guard->peer_count = 0;
    if (guard->peer_count == GUARD_PEERS_MAX) {
        snprintf(error, OPTIONS_ERROR_SIZE, "\"%.100s\" is one more than %d networks", word,
            GUARD_PEERS_MAX);
        return MESH_E_RANGE;
    }
    int result = cidr_parse(word, &guard->peers[guard->peer_count]);
    if (result)
        snprintf(error, OPTIONS_ERROR_SIZE, "\"%.100s\" is no network such as 10.1.0.0/16", word);
    else
        guard->peer_count++;
    return result;
}

// Zero would mean "any" further on, which is the opposite of what its writer wants.
static int guard_value(int result, bool zero, const char *word, const char *form, char *error)
{
    if (result == 0 && !zero)
        return 0;
    snprintf(error, OPTIONS_ERROR_SIZE, "\"%.100s\" is no %s", word, form);
    return result ? result : MESH_E_RANGE;
}

SETTER(set_guard_rate)
{
    (void)source;
    uint64_t *rate_bps = &SETTINGS->guard.rate_bps;
    int result = units_rate_bps(word, rate_bps);
    return guard_value(result, *rate_bps == 0, word, "rate such as 1G", error);
}

SETTER(set_guard_duration)
{
    (void)source;
    int64_t *duration_ns = &SETTINGS->guard.duration_ns;
    int result = units_duration_ns(word, duration_ns);
    return guard_value(result, *duration_ns == 0, word, "duration such as 60s", error);
}

SETTER(set_guard_bytes)
{
    (void)source;
    uint64_t *bytes = &SETTINGS->guard.bytes;
    int result = units_size_bytes(word, bytes);
    return guard_value(result, *bytes == 0, word, "size such as 10G", error);
}

SETTER(set_guard_tests)
{
    (void)source;
    uint64_t tests = 1;
    int result = units_count(word, 1, GUARD_TESTS_MAX, &tests);
    if (result == 0)
        SETTINGS->guard.tests = (unsigned)tests;
    return guard_value(result, false, word, "number of tests from 1 to 256", error);
}

static const struct option_section sections[] = {
    {"guard.peers", set_guard_peers},
    {"guard.rate", set_guard_rate},
    {"guard.duration", set_guard_duration},
    {"guard.bytes", set_guard_bytes},
    {"guard.tests", set_guard_tests},
};

// ------------------------------------------------------------------------------------ the tables

static const struct option_spec specs[] = {
    {.name = "join",
        .argument = "TOKEN",
        .set = set_join,
        .help = "first start: the token from \"meshperf token create\""},
    {.name = "join-file",
        .argument = "FILE",
        .set = set_join_file,
        .help = "the same from a file, - for standard input"},
    {.name = "name",
        .argument = "NAME",
        .set = set_name,
        .help = "this host's name in the mesh (default: the hostname)"},
    {.name = "label",
        .argument = "KEY=VALUE",
        .set = set_label,
        .help = "a label of this host; may be repeated"},
    {.name = "state-dir",
        .argument = "DIR",
        .set = set_state_dir,
        .help = "key and enrolment (default /var/lib/meshperf-agent)"},
    {.name = "address",
        .argument = "IP",
        .set = set_address,
        .help = "where other agents measure to, once per family\n"
                "(default: the address that reaches the controller)"},
    {.name = "rejoin",
        .set = set_rejoin,
        .help = "make a new key and enrol again, instead of using the stored one"},
    {.name = "data-port",
        .argument = "PORT",
        .set = set_data_port,
        .help = "one port number for TCP, UDP and SCTP (default 5701)"},
    {.name = "config",
        .argument = "FILE",
        .set = set_config,
        .no_file = true,
        .help = "YAML, keys are the long flags and guard (default\n" SETTINGS_FILE ")"},
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

const struct option_table agent_options = {
    .specs = specs,
    .count = sizeof specs / sizeof *specs,
    .sections = sections,
    .section_count = sizeof sections / sizeof *sections,
    .environment_prefix = "MESHPERF_AGENT_",
};

static void settings_defaults(struct agent_settings *settings)
{
    memset(settings, 0, sizeof *settings);
    strcpy(settings->state_dir, "/var/lib/meshperf-agent");
    strcpy(settings->config, SETTINGS_FILE);
    settings->data_port = 5701;
    settings->log_level = LOG_INFO;
    settings->log_format = LOG_TEXT;
    guard_defaults(&settings->guard);
}

static int name_from_host(struct agent_settings *settings, char *error)
{
    char host[256] = "";
    if (*settings->name)
        return 0;
    if (gethostname(host, sizeof host - 1) == 0 && identity_name_valid(host)) {
        strcpy(settings->name, host);
        return 0;
    }
    snprintf(error, OPTIONS_ERROR_SIZE,
        "the hostname \"%.100s\" cannot be a name in the mesh: give one with --name", host);
    return MESH_E_SYNTAX;
}

static int load_file(
    struct agent_settings *settings, const struct agent_settings *first, char *error)
{
    int result = options_parse_file(&agent_options, first->config, settings, error);
    if (result == -ENOENT && !first->config_given)
        return 0;
    if (result == -ENOENT)
        snprintf(error, OPTIONS_ERROR_SIZE, "--config \"%.200s\": no such file", first->config);
    return result;
}

// Environment, then command line on top of it.
static int load_words(
    struct agent_settings *settings, int argc, char **argv, char **environment, char *error)
{
    size_t count = 0;
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    if (!words)
        abort();
    int result = options_parse_environment(&agent_options, environment, settings, error);
    if (result == 0)
        result = options_parse_argv(&agent_options, argc, argv, settings, words, &count, error);
    if (result == 0 && count > 0 && !settings->help && !settings->version) {
        snprintf(error, OPTIONS_ERROR_SIZE, "unexpected argument \"%.200s\"", words[0]);
        result = MESH_E_SYNTAX;
    }
    free(words);
    return result;
}

// Read twice: once for --config, which says what comes below, and once on top of that.
int agent_settings_load(
    struct agent_settings *settings, int argc, char **argv, char **environment, char *error)
{
    struct agent_settings first;
    settings_defaults(&first);
    int result = load_words(&first, argc, argv, environment, error);
    if (result == 0 && (first.help || first.version)) {
        *settings = first;
        return 0;
    }
    settings_defaults(settings);
    if (result == 0)
        result = load_file(settings, &first, error);
    if (result == 0)
        result = load_words(settings, argc, argv, environment, error);
    if (result == 0)
        result = name_from_host(settings, error);
    if (result == 0 && *settings->join && *settings->join_file) {
        snprintf(error, OPTIONS_ERROR_SIZE, "--join and --join-file exclude each other");
        result = MESH_E_SYNTAX;
    }
    sodium_memzero(&first, sizeof first);
    return result;
}

int agent_settings_token(
    const struct agent_settings *settings, char text[JOIN_TOKEN_TEXT_SIZE], char *error)
{
    const char *path = settings->join_file;
    char *data;
    size_t size;
    if (*settings->join) {
        strcpy(text, settings->join);
        return 1;
    }
    if (!*path)
        return 0;
    int result = file_read(strcmp(path, "-") == 0 ? "/dev/stdin" : path, 4096, &data, &size);
    if (result) {
        snprintf(
            error, OPTIONS_ERROR_SIZE, "--join-file \"%.200s\": %s", path, mesh_strerror(result));
        return result;
    }
    size_t begin = strspn(data, " \t\r\n"), length = strcspn(data + begin, " \t\r\n");
    struct join_token token;
    result = 1;
    data[begin + length] = '\0';
    if (length >= JOIN_TOKEN_TEXT_SIZE || join_token_read(data + begin, &token) != 0) {
        snprintf(error, OPTIONS_ERROR_SIZE, "--join-file \"%.200s\" holds no join token", path);
        result = MESH_E_SYNTAX;
    } else {
        strcpy(text, data + begin);
    }
    sodium_memzero(&token, sizeof token);
    sodium_memzero(data, size);
    free(data);
    return result;
}

void agent_settings_help(FILE *stream)
{
    fputs("usage: meshperf-agent [OPTION]...\n\n"
          "The light daemon on every host that is measured.\n\n",
        stream);
    options_print_help(&agent_options, ~0u, stream);
    fputs("\nFlags beat the environment (MESHPERF_AGENT_<FLAG>), which beats the file.\n"
          "Exit status: 0 asked to stop, 2 configuration, 3 refused by the controller before\n"
          "there is an identity, 70 a bug.\n",
        stream);
}
