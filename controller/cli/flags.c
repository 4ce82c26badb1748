#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "errors.h"
#include "ports.h"
#include "report.h"
#include "units.h"

// ------------------------------------------------------------------------------- parsers

static int refuse(char *error, const char *word, const char *expected)
{
    snprintf(error, OPTIONS_ERROR_SIZE, "'%.200s' is not %s", word, expected);
    return MESH_E_SYNTAX;
}

static int duration(const char *word, int64_t minimum_ns, int64_t maximum_ns, const char *expected,
    int64_t *out, char *error)
{
    int64_t value;
    if (units_duration_ns(word, &value) != 0 || value < minimum_ns || value > maximum_ns)
        return refuse(error, word, expected);
    *out = value;
    return 0;
}

static int count(const char *word, uint64_t minimum, uint64_t maximum, const char *expected,
    unsigned *out, char *error)
{
    uint64_t value;
    if (units_count(word, minimum, maximum, &value) != 0)
        return refuse(error, word, expected);
    *out = (unsigned)value;
    return 0;
}

static int size(const char *word, uint64_t minimum, uint64_t maximum, const char *expected,
    unsigned *out, char *error)
{
    uint64_t value;
    if (units_size_bytes(word, &value) != 0 || value < minimum || value > maximum)
        return refuse(error, word, expected);
    *out = (unsigned)value;
    return 0;
}

static int append(struct words *words, const char *word, char *error)
{
    if (words->count == WORDS_MAX)
        return refuse(error, word, "accepted: this option stands here too often");
    words->word[words->count++] = word;
    return 0;
}

static int text(const char **out, const char *word)
{
    *out = word;
    return 0;
}

static int yes(bool *out)
{
    *out = true;
    return 0;
}

static int bitrate(struct flags *flags, const char *word, char *error)
{
    flags->bitrate_max = strcmp(word, "max") == 0;
    flags->test.bitrate_bps = 0;
    if (flags->bitrate_max)
        return 0;
    uint64_t rate;
    if (units_rate_bps(word, &rate) != 0 || rate == 0 || rate > UINT64_C(10000000000000))
        return refuse(error, word, "a bitrate such as 100M, 2.5G or max");
    flags->test.bitrate_bps = rate;
    return 0;
}

static int congestion(struct flags *flags, const char *word, char *error)
{
    if (!*word || strlen(word) >= sizeof flags->test.congestion)
        return refuse(error, word, "the name of a congestion control");
    snprintf(flags->test.congestion, sizeof flags->test.congestion, "%s", word);
    return 0;
}

static int until(double *out, const char *word, char *error)
{
    double share;
    if (units_percent(word, &share) != 0 || share < TESTSPEC_UNTIL_MIN ||
        share > TESTSPEC_UNTIL_MAX)
        return refuse(error, word, "a percentage from 0.1% to 50%, such as 5%");
    *out = share;
    return 0;
}

static int mode(struct flags *flags, const char *word, char *error)
{
    static const char *const names[] = {"isolated", "duplex", "concurrent"};
    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(word, names[i]) == 0) {
            flags->mode = (Mp__Mode)(i + 1);
            flags->mode_given = true;
            return 0;
        }
    }
    return refuse(error, word, "a mode: isolated, duplex or concurrent");
}

static int pairs(struct flags *flags, const char *word, char *error)
{
    uint64_t k;
    if (strcmp(word, "full") != 0 && strcmp(word, "ring") != 0 &&
        !(strncmp(word, "sample=", 7) == 0 && units_count(word + 7, 1, 1000000, &k) == 0))
        return refuse(error, word, "full, ring or sample=K");
    return text(&flags->pairs, word);
}

static int shared(struct flags *flags, const char *word, char *error)
{
    const char *equal = strchr(word, '=');
    uint64_t n;
    if (!equal || equal == word || units_count(equal + 1, 1, 1000000, &n) != 0)
        return refuse(error, word, "of the form LABEL=N");
    return append(&flags->shared, word, error);
}

static int machines(struct flags *flags, const char *word, char *error)
{
    if (strcmp(word, "ignore") != 0)
        return refuse(error, word, "ignore, the only word that --machines knows");
    return yes(&flags->machines_ignore);
}

// People who know iperf3 type -l for a length.
static int both_ends(struct flags *flags, const char *word, char *error)
{
    uint64_t length;
    if (units_size_bytes(word, &length) == 0) {
        snprintf(error, OPTIONS_ERROR_SIZE,
            "-l %.100s selects agents: did you mean --length %.100s?", word, word);
        return MESH_E_SYNTAX;
    }
    return append(&flags->both, word, error);
}

static int seed(struct flags *flags, const char *word, char *error)
{
    if (units_count(word, 0, UINT64_MAX / 16, &flags->seed) != 0)
        return refuse(error, word, "a whole number");
    return yes(&flags->seed_given);
}

static int port(struct flags *flags, const char *word, char *error)
{
    struct port_range range;
    int rc = port_range_parse(word, &range, error);
    return rc ? rc : append(&flags->ports, word, error);
}

static int via(struct flags *flags, const char *word, char *error)
{
    Mp__Transport transport;
    if (!transport_parse(word, &transport) || transport == MP__TRANSPORT__OVER_SCTP)
        return refuse(error, word, "udp, tcp or icmp");
    flags->test.via = transport;
    return 0;
}

static int probe_rate(struct flags *flags, const char *word, char *error)
{
    unsigned rate;
    int rc = count(word, 1, (uint64_t)TESTSPEC_AGENT_RATE_MAX,
        "a number of probes a second from 1 to 5000", &rate, error);
    if (rc == 0)
        flags->test.agent_rate = rate;
    return rc;
}

static int one_of(const char **out, const char *word, const char *expected, bool known, char *error)
{
    return known ? text(out, word) : refuse(error, word, expected);
}

static bool among(const char *word, const char *a, const char *b, const char *c)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0;
}

// ----------------------------------------------------------------------------- the options

// Each option's function: `flags`, `word` and `error` are what it may use.
#define SET(id, which, call)                                                                       \
    static int set_##id(                                                                           \
        void *target, const char *word, const struct option_source *source, char *error)           \
    {                                                                                              \
        struct flags *flags = target;                                                              \
        (void)word;                                                                                \
        (void)source;                                                                              \
        (void)error;                                                                               \
        flags->given[which] = true;                                                                \
        return (call);                                                                             \
    }

#define HOUR (3600 * INT64_C(1000000000))

SET(time, FLAG_TIME,
    duration(word, TESTSPEC_DURATION_MIN_NS, TESTSPEC_DURATION_MAX_NS,
        "a time between 100ms and 24h, such as 10s", &flags->test.duration_ns, error))
SET(omit, FLAG_OMIT,
    duration(word, 0, HOUR, "a time of at most 1h, such as 1s", &flags->test.omit_ns, error))
SET(interval, FLAG_INTERVAL,
    duration(word, TESTSPEC_INTERVAL_MIN_NS, TESTSPEC_DURATION_MAX_NS,
        "a time of at least 10ms, such as 1s", &flags->test.interval_ns, error))
SET(parallel, FLAG_PARALLEL,
    count(word, 1, TESTSPEC_PARALLEL_MAX, "a number of streams from 1 to 128",
        &flags->test.parallel, error))
SET(bitrate, FLAG_BITRATE, bitrate(flags, word, error))
SET(length, FLAG_LENGTH,
    size(word, TESTSPEC_LENGTH_MIN, TESTSPEC_LENGTH_SCTP_MAX,
        "a length from 32 to 65000 bytes (sctp: 65536)", &flags->test.length, error))
SET(streams, FLAG_STREAMS,
    count(word, 1, TESTSPEC_STREAMS_MAX, "a number of SCTP streams from 1 to 1024",
        &flags->test.streams, error))
SET(window, FLAG_WINDOW,
    size(word, 1024, UINT64_C(1) << 30, "a buffer size from 1K to 1G", &flags->test.window, error))
SET(reverse, FLAG_REVERSE, yes(&flags->test.reverse_connect))
SET(bidir, FLAG_BIDIR, yes(&flags->test.bidir))
SET(v4, FLAG_FAMILY, (int)(flags->test.family = 4) - 4)
SET(v6, FLAG_FAMILY, (int)(flags->test.family = 6) - 6)
SET(dscp, FLAG_DSCP,
    count(word, 0, 63, "a DSCP from 0 to 63", (unsigned *)&flags->test.dscp, error))
SET(congestion, FLAG_CONGESTION, congestion(flags, word, error))
SET(mss, FLAG_MSS, count(word, 88, 65535, "an MSS from 88 to 65535", &flags->test.mss, error))
SET(flows, FLAG_FLOWS,
    count(
        word, 1, TESTSPEC_FLOWS_MAX, "a number of flows from 1 to 256", &flags->test.flows, error))
SET(until, FLAG_UNTIL, until(&flags->test.until, word, error))
SET(flow_check, FLAG_FLOW_CHECK, yes(&flags->flow_check))
SET(port, FLAG_PORT, port(flags, word, error))
SET(attempts, FLAG_ATTEMPTS,
    count(word, 1, TESTSPEC_ATTEMPTS_MAX, "a number of attempts from 1 to 16",
        &flags->test.attempts, error))
SET(timeout, FLAG_TIMEOUT,
    duration(word, TESTSPEC_TIMEOUT_MIN_NS, TESTSPEC_TIMEOUT_MAX_NS,
        "a time between 50ms and 60s, such as 2s", &flags->test.timeout_ns, error))
SET(rate, FLAG_RATE, probe_rate(flags, word, error))
SET(via, FLAG_VIA, via(flags, word, error))
SET(from_port, FLAG_FROM_PORT,
    count(word, 1, 65535, "a port number", &flags->test.from_port, error))
SET(from, FLAG_OTHER, append(&flags->from, word, error))
SET(to, FLAG_OTHER, append(&flags->to, word, error))
SET(both, FLAG_OTHER, both_ends(flags, word, error))
SET(pairs, FLAG_OTHER, pairs(flags, word, error))
SET(seed, FLAG_OTHER, seed(flags, word, error))
SET(mode, FLAG_OTHER, mode(flags, word, error))
SET(shared, FLAG_OTHER, shared(flags, word, error))
SET(machines, FLAG_OTHER, machines(flags, word, error))
SET(retries, FLAG_OTHER, count(word, 0, 100, "a number from 0 to 100", &flags->retries, error))
SET(passes, FLAG_OTHER,
    count(word, 1, TESTSPEC_PASSES_MAX, "a number of passes from 1 to 100", &flags->passes, error))
SET(name, FLAG_OTHER, text(&flags->name, word))
SET(plan, FLAG_OTHER, yes(&flags->plan))
SET(detach, FLAG_OTHER, yes(&flags->detach))
SET(allow, FLAG_OTHER, yes(&flags->allow_incomplete))
SET(report, FLAG_OTHER, append(&flags->reports, word, error))
SET(metric, FLAG_OTHER, one_of(&flags->metric, word, "a metric", report_metric_known(word), error))
SET(group, FLAG_OTHER, text(&flags->group_by, word))
SET(pair, FLAG_OTHER, yes(&flags->pair))
SET(worst, FLAG_OTHER, count(word, 1, 1000000, "a number of pairs", &flags->worst, error))
SET(expires, FLAG_OTHER,
    duration(word, 1000000, 365 * 24 * HOUR, "a time such as 1h", &flags->expires_ns, error))
SET(uses, FLAG_OTHER, count(word, 1, 1000000, "a number of uses from 1", &flags->uses, error))
SET(label, FLAG_OTHER, append(&flags->labels, word, error))
SET(run, FLAG_OTHER, text(&flags->run, word))
SET(role, FLAG_OTHER,
    one_of(&flags->role, word, "a role: viewer, operator or admin",
        among(word, "viewer", "operator", "admin"), error))
SET(context, FLAG_OTHER, text(&flags->context, word))
SET(format, FLAG_OTHER,
    one_of(&flags->format, word, "a format: table, wide, json, jsonl, csv or md",
        report_format_known(word), error))
SET(quiet, FLAG_OTHER, yes(&flags->quiet))
SET(verbose, FLAG_OTHER, yes(&flags->verbose))
SET(color, FLAG_OTHER,
    one_of(&flags->color, word, "auto, always or never", among(word, "auto", "always", "never"),
        error))
SET(connect, FLAG_OTHER,
    duration(word, 1000000, 24 * HOUR, "a time such as 5s", &flags->connect_timeout_ns, error))
SET(help, FLAG_OTHER, yes(&flags->help))
SET(version, FLAG_OTHER, yes(&flags->version))

// Selections are named --from and --to; export has its own --to.
static const struct option_spec specs[] = {
    {"time", 't', "10s", "measured time of each test", set_time, SCOPE_RUN, false},
    {"omit", 'O', "1s", "left out before it (tcp: slow start, found by itself)", set_omit,
        SCOPE_RUN, false},
    {"interval", 'i', "1s", "slices of a test", set_interval, SCOPE_RUN, false},
    {"parallel", 'P', "N", "streams", set_parallel, SCOPE_RUN, false},
    {"bitrate", 'b', "RATE",
        "of the whole test; max = as fast as is lossless at\nthe ends (udp: 1M)", set_bitrate,
        SCOPE_RUN, false},
    {"length", 0, "BYTES", "payload of one udp datagram or sctp message", set_length, SCOPE_RUN,
        false},
    {"streams", 0, "N", "stream numbers that sctp messages are spread over (1)", set_streams,
        SCOPE_RUN, false},
    {"window", 'w', "SIZE", "socket buffers", set_window, SCOPE_RUN, false},
    {"reverse-connect", 0, NULL, "the receiver opens the connection", set_reverse, SCOPE_RUN,
        false},
    {"bidir", 0, NULL, "both directions of a pair at once", set_bidir, SCOPE_RUN, false},
    {"ipv4", '4', NULL, "IPv4 only", set_v4, SCOPE_RUN | SCOPE_CHECK, false},
    {"ipv6", '6', NULL, "IPv6 only", set_v6, SCOPE_RUN | SCOPE_CHECK, false},
    {"dscp", 0, "N", "DSCP of the load", set_dscp, SCOPE_RUN, false},
    {"congestion", 'C', "ALGO", "TCP congestion control", set_congestion, SCOPE_RUN, false},
    {"mss", 'M', "N", "TCP maximum segment size", set_mss, SCOPE_RUN, false},
    {"flows", 0, "K", "source ports that a latency test walks over (16)", set_flows, SCOPE_RUN,
        false},
    {"until", 0, "PERCENT",
        "end a test early, once its result is known so well;\n-t is then the longest time",
        set_until, SCOPE_RUN, false},
    {"flow-check", 0, NULL,
        "tcp that the network limits once more with 8\nstreams: is each flow limited?",
        set_flow_check, SCOPE_RUN, false},
    {"port", 0, "PROTO/PORT[-PORT]", "what a port test probes: tcp/443, udp/53, sctp/9000-9003", set_port,
        SCOPE_RUN, false},
    {"attempts", 0, "3", "tries of a probe that stays silent", set_attempts, SCOPE_RUN, false},
    {"timeout", 0, "2s", "patience of each try (path: 1s)", set_timeout, SCOPE_RUN, false},
    {"rate", 0, "200", "port and path probes a second of one agent", set_rate, SCOPE_RUN, false},
    {"via", 0, "udp", "what a path is probed with: udp, tcp or icmp", set_via, SCOPE_RUN, false},
    {"from-port", 0, "N", "source port of port probes", set_from_port, SCOPE_RUN, false},
    {"from", 0, "SEL",
        "senders: name, name*, key=value, key!=value, CIDR;\ncomma = and, repeated = or", set_from,
        SCOPE_RUN | SCOPE_EXPLAIN, false},
    {"to", 0, "SEL", "receivers (export: the file to write)", set_to,
        SCOPE_RUN | SCOPE_EXPORT | SCOPE_EXPLAIN, false},
    {"select", 'l', "SEL", "both ends", set_both, SCOPE_RUN, false},
    {"pairs", 0, "full|ring|sample=K", "thin the mesh", set_pairs, SCOPE_RUN, false},
    {"seed", 0, "N", "of the sample and the order", set_seed, SCOPE_RUN, false},
    {"mode", 0, "MODE", "isolated, duplex or concurrent", set_mode, SCOPE_RUN, false},
    {"shared", 0, "LABEL=N", "at most N tests at once over one value's uplink", set_shared,
        SCOPE_RUN, false},
    {"machines", 0, "ignore", "agents of one machine count as separate hosts", set_machines,
        SCOPE_RUN, false},
    {"passes", 0, "K", "the whole mesh K times; medians, and the spread", set_passes, SCOPE_RUN,
        false},
    {"retries", 0, "1", "of a failed test", set_retries, SCOPE_RUN, false},
    {"name", 0, "TEXT", "kept with the run", set_name, SCOPE_RUN | SCOPE_CHECK, false},
    {"plan", 0, NULL, "print pairs, bytes and time, and start nothing", set_plan, SCOPE_RUN, false},
    {"detach", 0, NULL, "print the run's id and leave it running", set_detach,
        SCOPE_RUN | SCOPE_CHECK, false},
    {"allow-incomplete", 0, NULL, "exit 0 although pairs are missing", set_allow,
        SCOPE_RUN | SCOPE_WATCH | SCOPE_CHECK, false},
    {"report", 0, "KIND=FILE", "also write md, csv or json (check: junit) to a file", set_report,
        SCOPE_RUN | SCOPE_WATCH | SCOPE_CHECK, false},
    {"run", 0, "RUN", "an earlier run's results instead of a new one", set_run,
        SCOPE_CHECK | SCOPE_LEARN, false},
    {"metric", 0, "M", "the matrix of one metric", set_metric, SCOPE_SHOW, false},
    {"group-by", 0, "LABEL", "medians between label values", set_group, SCOPE_SHOW, false},
    {"pair", 0, NULL, "everything about one pair: --pair FROM TO", set_pair, SCOPE_SHOW, false},
    {"worst", 0, "N", "the N worst pairs", set_worst, SCOPE_SHOW, false},
    {"expires", 0, "1h", "how long the token is good", set_expires, SCOPE_TOKEN, false},
    {"uses", 0, "1", "how many agents may join with it", set_uses, SCOPE_TOKEN, false},
    {"label", 0, "KEY=VALUE", "given to agents that join with it", set_label, SCOPE_TOKEN, false},
    {"role", 0, "ROLE", "viewer, operator or admin", set_role, SCOPE_OPERATOR, false},
    {"context", 0, "FILE", "the operator's context", set_context, 0, false},
    {"output", 'o', "FORMAT", "table, wide, json, jsonl, csv or md", set_format, 0, false},
    {"quiet", 'q', NULL, "no progress", set_quiet, 0, false},
    {"verbose", 'v', NULL, "more words", set_verbose, 0, false},
    {"color", 0, "WHEN", "auto, always or never", set_color, 0, false},
    {"connect-timeout", 0, "5s", "patience with the controller", set_connect, 0, false},
    {"help", 'h', NULL, "this help", set_help, 0, false},
    {"version", 0, NULL, "print the version", set_version, 0, false},
};

const struct option_table cli_options = {.specs = specs, .count = sizeof specs / sizeof *specs};

void flags_init(struct flags *flags)
{
    *flags = (struct flags){.format = "table",
        .color = "auto",
        .retries = 1,
        .passes = 1,
        .uses = 1,
        .connect_timeout_ns = 5 * INT64_C(1000000000),
        .expires_ns = HOUR};
}

// ------------------------------------------------------------------- options and kinds of test

#define KIND(kind) (1u << (kind))
#define LOAD (KIND(TEST_TCP) | KIND(TEST_UDP) | KIND(TEST_SCTP))

// Which kinds of test know which option.
static const struct {
    enum flag flag;
    const char *name;
    unsigned kinds;
} known_by[] = {
    {FLAG_INTERVAL, "--interval", LOAD},
    {FLAG_PARALLEL, "--parallel", LOAD},
    {FLAG_BITRATE, "--bitrate", LOAD},
    {FLAG_LENGTH, "--length", KIND(TEST_UDP) | KIND(TEST_SCTP)},
    {FLAG_STREAMS, "--streams", KIND(TEST_SCTP)},
    {FLAG_WINDOW, "--window", LOAD},
    {FLAG_REVERSE, "--reverse-connect", LOAD},
    {FLAG_BIDIR, "--bidir", LOAD},
    {FLAG_DSCP, "--dscp", LOAD},
    {FLAG_CONGESTION, "--congestion", KIND(TEST_TCP)},
    {FLAG_MSS, "--mss", KIND(TEST_TCP)},
    {FLAG_FLOWS, "--flows", KIND(TEST_LATENCY)},
    {FLAG_UNTIL, "--until", LOAD | KIND(TEST_LATENCY)},
    {FLAG_FLOW_CHECK, "--flow-check", KIND(TEST_TCP)},
    {FLAG_TIME, "--time", LOAD | KIND(TEST_LATENCY)},
    {FLAG_OMIT, "--omit", LOAD | KIND(TEST_LATENCY)},
    {FLAG_PORT, "--port", KIND(TEST_PORT)},
    {FLAG_ATTEMPTS, "--attempts", KIND(TEST_PORT) | KIND(TEST_PATH)},
    {FLAG_TIMEOUT, "--timeout", KIND(TEST_PORT) | KIND(TEST_PATH)},
    {FLAG_RATE, "--rate", KIND(TEST_PORT) | KIND(TEST_PATH)},
    {FLAG_VIA, "--via", KIND(TEST_PATH)},
    {FLAG_FROM_PORT, "--from-port", KIND(TEST_PORT)},
};

static bool knows(enum test_kind kind, enum flag flag)
{
    for (size_t i = 0; i < sizeof known_by / sizeof *known_by; i++)
        if (known_by[i].flag == flag)
            return known_by[i].kinds & KIND(kind);
    return true;
}

const char *flag_refused_by_tests(const struct flags *flags, const enum test_kind *kinds, size_t n)
{
    for (size_t i = 0; i < sizeof known_by / sizeof *known_by; i++) {
        bool known = !flags->given[known_by[i].flag];
        for (size_t k = 0; k < n; k++)
            known = known || (known_by[i].kinds & KIND(kinds[k]));
        if (!known)
            return known_by[i].name;
    }
    return NULL;
}

void flags_to_spec(const struct flags *flags, struct testspec *spec)
{
    const struct testspec *from = &flags->test;
#define TAKE(flag, field)                                                                          \
    if (flags->given[flag] && knows(spec->kind, flag))                                             \
    spec->field = from->field
    TAKE(FLAG_TIME, duration_ns);
    TAKE(FLAG_OMIT, omit_ns);
    TAKE(FLAG_INTERVAL, interval_ns);
    TAKE(FLAG_PARALLEL, parallel);
    TAKE(FLAG_BITRATE, bitrate_bps);
    TAKE(FLAG_LENGTH, length);
    TAKE(FLAG_STREAMS, streams);
    TAKE(FLAG_WINDOW, window);
    TAKE(FLAG_REVERSE, reverse_connect);
    TAKE(FLAG_BIDIR, bidir);
    TAKE(FLAG_FAMILY, family);
    TAKE(FLAG_DSCP, dscp);
    TAKE(FLAG_MSS, mss);
    TAKE(FLAG_FLOWS, flows);
    TAKE(FLAG_UNTIL, until);
    TAKE(FLAG_ATTEMPTS, attempts);
    TAKE(FLAG_TIMEOUT, timeout_ns);
    TAKE(FLAG_RATE, agent_rate);
    TAKE(FLAG_FROM_PORT, from_port);
    TAKE(FLAG_VIA, via);
#undef TAKE
    if (flags->given[FLAG_CONGESTION] && knows(spec->kind, FLAG_CONGESTION))
        memcpy(spec->congestion, from->congestion, sizeof spec->congestion);
    // tcp without -b is as fast as it can be already.
    spec->bitrate_max = flags->given[FLAG_BITRATE] && flags->bitrate_max && spec->kind == TEST_UDP;
}
