#include "settings.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "errors.h"
#include "units.h"

#define SETTER(name)                                                                               \
    static int name(void *target, const char *word, const struct option_source *source, char *error)
#define SETTINGS ((struct agent_settings *)target)

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
    return option_text(SETTINGS->join_file, sizeof SETTINGS->join_file, word, "--join-file", error);
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
    return option_text(SETTINGS->name, sizeof SETTINGS->name, word, "--name", error);
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
    return option_text(SETTINGS->state_dir, sizeof SETTINGS->state_dir, word, "--state-dir", error);
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
    return option_text(field, sizeof SETTINGS->addresses[0], word, "--address", error);
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

SETTER(set_rejoin)
{
    (void)word, (void)source, (void)error;
    SETTINGS->rejoin = true;
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

SETTER(set_guard_spin)
{
    (void)source;
    bool spin = strcmp(word, "true") == 0;
    int result = spin || strcmp(word, "false") == 0 ? 0 : MESH_E_SYNTAX;
    if (result == 0)
        SETTINGS->guard.spin = spin;
    return guard_value(result, false, word, "true or false", error);
}

static const struct option_section sections[] = {
    {"guard.peers", set_guard_peers},
    {"guard.rate", set_guard_rate},
    {"guard.duration", set_guard_duration},
    {"guard.bytes", set_guard_bytes},
    {"guard.tests", set_guard_tests},
    {"guard.spin", set_guard_spin},
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
    DAEMON_OPTIONS("YAML, keys are the long flags and guard (default\n" SETTINGS_FILE ")"),
};

const struct option_table agent_options = {
    .specs = specs,
    .count = sizeof specs / sizeof *specs,
    .sections = sections,
    .section_count = sizeof sections / sizeof *sections,
    .environment_prefix = "MESHPERF_AGENT_",
};

static void set_defaults(void *target)
{
    memset(SETTINGS, 0, sizeof *SETTINGS);
    SETTINGS->daemon.log_level = LOG_INFO;
    SETTINGS->daemon.log_format = LOG_TEXT;
    strcpy(SETTINGS->daemon.config, SETTINGS_FILE);
    strcpy(SETTINGS->state_dir, "/var/lib/meshperf-agent");
    SETTINGS->data_port = 5701;
    guard_defaults(&SETTINGS->guard);
}

static const struct daemon_kind kind = {
    &agent_options, sizeof(struct agent_settings), set_defaults};

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

int agent_settings_load(
    struct agent_settings *settings, int argc, char **argv, char **environment, char *error)
{
    int result = daemon_settings_load(&kind, settings, argc, argv, environment, error);
    if (result != 0 || settings->daemon.help || settings->daemon.version)
        return result;
    if (*settings->join && *settings->join_file) {
        snprintf(error, OPTIONS_ERROR_SIZE, "--join and --join-file exclude each other");
        return MESH_E_SYNTAX;
    }
    return name_from_host(settings, error);
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
