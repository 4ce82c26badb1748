#include "testspec.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "errors.h"

static const char *const kind_names[TEST_KIND_MAX + 1] = {[TEST_TCP] = "tcp",
    [TEST_UDP] = "udp",
    [TEST_SCTP] = "sctp",
    [TEST_LATENCY] = "latency",
    [TEST_PATH] = "path",
    [TEST_PORT] = "port"};

const char *test_kind_name(enum test_kind kind)
{
    return kind >= TEST_TCP && kind <= TEST_KIND_MAX ? kind_names[kind] : "unknown";
}

bool test_kind_parse(const char *word, enum test_kind *kind)
{
    for (unsigned i = TEST_TCP; i <= TEST_KIND_MAX; i++) {
        if (strcmp(word, kind_names[i]) == 0) {
            *kind = (enum test_kind)i;
            return true;
        }
    }
    return false;
}

bool test_kind_is_bandwidth(enum test_kind kind)
{
    return kind == TEST_TCP || kind == TEST_UDP || kind == TEST_SCTP;
}

void testspec_defaults(enum test_kind kind, struct testspec *spec)
{
    memset(spec, 0, sizeof *spec);
    spec->kind = kind;
    spec->duration_ns = 10 * NS_PER_S;
    spec->interval_ns = NS_PER_S;
    spec->parallel = 1;
    spec->streams = 1;
    spec->dscp = -1;
    spec->omit_ns = kind == TEST_TCP || kind == TEST_SCTP ? -1 : 0;
    if (kind == TEST_UDP)
        spec->bitrate_bps = TESTSPEC_UDP_BITRATE_DEFAULT;
    if (kind == TEST_LATENCY)
        spec->flows = TESTSPEC_FLOWS_DEFAULT;
    if (kind != TEST_PORT && kind != TEST_PATH)
        return;
    spec->attempts = TESTSPEC_ATTEMPTS_DEFAULT;
    spec->timeout_ns = TESTSPEC_TIMEOUT_DEFAULT_NS;
    spec->agent_rate = TESTSPEC_AGENT_RATE_DEFAULT;
    if (kind == TEST_PATH) {
        spec->via = MP__TRANSPORT__OVER_UDP;
        spec->timeout_ns = TESTSPEC_TIMEOUT_DEFAULT_NS / 2;
    }
    spec->duration_ns = testspec_listen_ns(spec);
}

struct limit {
    bool holds;
    const char *sentence;
};

int testspec_check(const struct testspec *spec, char *error)
{
    size_t congestion = strnlen(spec->congestion, sizeof spec->congestion);
    bool udp = spec->kind == TEST_UDP, sctp = spec->kind == TEST_SCTP;
    bool probes = spec->kind == TEST_PORT || spec->kind == TEST_PATH;
    unsigned length_max = sctp ? TESTSPEC_LENGTH_SCTP_MAX : TESTSPEC_LENGTH_MAX;
    const struct limit limits[] = {
        {spec->kind >= TEST_TCP && spec->kind <= TEST_KIND_MAX, "unknown kind of test"},
        {spec->duration_ns >= TESTSPEC_DURATION_MIN_NS &&
                spec->duration_ns <= TESTSPEC_DURATION_MAX_NS,
            "the time must be between 100ms and 24h"},
        {spec->omit_ns >= -1 && spec->omit_ns <= NS_PER_S * 3600, "at most 1h can be omitted"},
        {spec->interval_ns >= TESTSPEC_INTERVAL_MIN_NS &&
                spec->interval_ns <= TESTSPEC_DURATION_MAX_NS,
            "the interval must be between 10ms and 24h"},
        {spec->parallel >= 1 && spec->parallel <= TESTSPEC_PARALLEL_MAX,
            "there must be 1 to 128 parallel streams"},
        {spec->bitrate_bps <= UINT64_C(10000000000000), "the bitrate must be at most 10T"},
        {!spec->bitrate_max || (udp && spec->bitrate_bps == 0), "only udp has the bitrate max"},
        {!udp || spec->bitrate_max || spec->bitrate_bps > 0, "udp needs a bitrate above 0"},
        {spec->length == 0 || (spec->length >= TESTSPEC_LENGTH_MIN && spec->length <= length_max),
            sctp ? "the length of an sctp message must be between 32 and 65536 bytes"
                 : "the length must be between 32 and 65000 bytes"},
        {spec->window <= UINT32_C(1) << 30, "the window must be at most 1G"},
        {spec->family == 0 || spec->family == 4 || spec->family == 6, "the family must be 4 or 6"},
        {spec->dscp >= -1 && spec->dscp <= 63, "the dscp must be between 0 and 63"},
        {congestion < sizeof spec->congestion, "the name of the congestion control is too long"},
        {strspn(spec->congestion,
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == congestion,
            "the name of the congestion control has other characters than letters and digits"},
        {spec->mss == 0 || (spec->mss >= 88 && spec->mss <= 65535),
            "the MSS must be between 88 and 65535"},
        {spec->flows <= TESTSPEC_FLOWS_MAX, "there can be at most 256 flows"},
        {isfinite(spec->probe_rate) && spec->probe_rate >= 0 && spec->probe_rate <= 10000,
            "the probe rate must be at most 10000 a second"},
        {spec->until == 0 ||
                (spec->until >= TESTSPEC_UNTIL_MIN && spec->until <= TESTSPEC_UNTIL_MAX),
            "--until must be between 0.1% and 50%"},
        {spec->streams >= 1 && spec->streams <= TESTSPEC_STREAMS_MAX,
            "there must be 1 to 1024 SCTP streams"},
        {!probes || (spec->attempts >= 1 && spec->attempts <= TESTSPEC_ATTEMPTS_MAX),
            "there must be 1 to 16 attempts"},
        {!probes || (spec->timeout_ns >= TESTSPEC_TIMEOUT_MIN_NS &&
                        spec->timeout_ns <= TESTSPEC_TIMEOUT_MAX_NS),
            "the timeout must be between 50ms and 60s"},
        {!probes || (isfinite(spec->agent_rate) && spec->agent_rate >= 1 &&
                        spec->agent_rate <= TESTSPEC_AGENT_RATE_MAX),
            "the rate must be 1 to 5000 probes a second"},
        {spec->from_port <= 65535, "the source port must be at most 65535"},
        {spec->via <= MP__TRANSPORT__OVER_ICMP && spec->via != MP__TRANSPORT__OVER_SCTP,
            "a path is probed by udp, tcp or icmp"},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        if (!limits[i].holds) {
            snprintf(error, 256, "%s", limits[i].sentence);
            return MESH_E_RANGE;
        }
    }
    return 0;
}

static void probes_from_wire(const Mp__TestSpec *wire, struct testspec *made)
{
    if (wire->has_attempts)
        made->attempts = wire->attempts;
    if (wire->has_timeout_ns)
        made->timeout_ns = wire->timeout_ns;
    if (wire->has_agent_rate)
        made->agent_rate = wire->agent_rate;
    made->from_port = wire->has_from_port ? wire->from_port : 0;
    if (wire->has_via)
        made->via = wire->via;
}

int testspec_from_wire(const Mp__TestSpec *wire, struct testspec *spec, char *error)
{
    struct testspec made;
    testspec_defaults((enum test_kind)wire->kind, &made);
    made.duration_ns = wire->duration_ns;
    made.interval_ns = wire->interval_ns;
    if (wire->has_omit_ns && wire->omit_ns < 0) {
        snprintf(error, 256, "a negative time cannot be omitted");
        return MESH_E_RANGE;
    }
    if (wire->has_omit_ns)
        made.omit_ns = wire->omit_ns;
    if (wire->has_parallel)
        made.parallel = wire->parallel;
    made.bitrate_max = wire->has_bitrate_max && wire->bitrate_max;
    if (wire->has_bitrate_bps || made.bitrate_max)
        made.bitrate_bps = wire->has_bitrate_bps ? wire->bitrate_bps : 0;
    made.length = wire->has_length ? wire->length : 0;
    made.window = wire->has_window ? wire->window : 0;
    made.family = wire->has_family ? wire->family : 0;
    if (wire->has_dscp)
        made.dscp = wire->dscp <= 63 ? (int)wire->dscp : 64;
    if (wire->congestion) {
        if (strlen(wire->congestion) >= sizeof made.congestion) {
            snprintf(error, 256, "the name of the congestion control is too long");
            return MESH_E_RANGE;
        }
        snprintf(made.congestion, sizeof made.congestion, "%s", wire->congestion);
    }
    made.mss = wire->has_mss ? wire->mss : 0;
    made.reverse_connect = wire->has_reverse_connect && wire->reverse_connect;
    made.bidir = wire->has_bidir && wire->bidir;
    if (wire->has_flows)
        made.flows = wire->flows;
    made.probe_rate = wire->has_probe_rate ? wire->probe_rate : 0;
    made.until = wire->has_until ? wire->until : 0;
    if (wire->has_streams)
        made.streams = wire->streams;
    probes_from_wire(wire, &made);
    int bad = testspec_check(&made, error);
    if (bad)
        return bad;
    if (made.kind == TEST_PORT || made.kind == TEST_PATH)
        made.duration_ns = testspec_listen_ns(&made);
    *spec = made;
    return 0;
}

// An optional field is sent when it says something.
#define SET(field, value, condition)                                                               \
    do {                                                                                           \
        wire->has_##field = (condition);                                                           \
        wire->field = (value);                                                                     \
    } while (0)

void testspec_to_wire(const struct testspec *spec, Mp__TestSpec *wire)
{
    wire->kind = (Mp__TestKind)spec->kind;
    wire->duration_ns = spec->duration_ns;
    wire->interval_ns = spec->interval_ns;
    SET(omit_ns, spec->omit_ns, spec->omit_ns >= 0);
    SET(parallel, spec->parallel, spec->parallel != 1);
    SET(bitrate_bps, spec->bitrate_bps, spec->bitrate_bps > 0);
    SET(bitrate_max, true, spec->bitrate_max);
    SET(length, spec->length, spec->length > 0);
    SET(window, spec->window, spec->window > 0);
    SET(family, spec->family, spec->family > 0);
    SET(dscp, (uint32_t)spec->dscp, spec->dscp >= 0);
    SET(mss, spec->mss, spec->mss > 0);
    SET(reverse_connect, true, spec->reverse_connect);
    SET(bidir, true, spec->bidir);
    SET(flows, spec->flows, spec->flows > 0);
    SET(probe_rate, spec->probe_rate, spec->probe_rate > 0);
    SET(until, spec->until, spec->until > 0);
    SET(streams, spec->streams, spec->streams != 1);
    SET(attempts, spec->attempts, spec->attempts > 0);
    SET(timeout_ns, spec->timeout_ns, spec->timeout_ns > 0);
    SET(agent_rate, spec->agent_rate, spec->agent_rate > 0);
    SET(from_port, spec->from_port, spec->from_port > 0);
    SET(via, (Mp__Transport)spec->via, spec->via > 0);
    wire->congestion = *spec->congestion ? (char *)spec->congestion : NULL;
}

void testspec_flow_check(const struct testspec *spec, struct testspec *check)
{
    *check = *spec;
    check->parallel = TESTSPEC_FLOW_CHECK_STREAMS;
    check->until = 0;
    if (check->duration_ns > TESTSPEC_FLOW_CHECK_NS)
        check->duration_ns = TESTSPEC_FLOW_CHECK_NS;
}

int64_t testspec_omit_max_ns(const struct testspec *spec)
{
    bool flood = spec->kind == TEST_UDP && spec->bitrate_max && spec->omit_ns == 0;
    if (spec->omit_ns >= 0 && !flood)
        return spec->omit_ns;
    return spec->duration_ns / 2 < NS_PER_S ? spec->duration_ns / 2 : NS_PER_S;
}

int64_t testspec_idle_ns(const struct testspec *spec)
{
    int64_t most = NS_PER_S / 5;
    return spec->duration_ns / 10 < most ? spec->duration_ns / 10 : most;
}

int64_t testspec_listen_ns(const struct testspec *spec)
{
    return spec->attempts * spec->timeout_ns + TESTSPEC_LISTEN_EXTRA_NS;
}

bool testspec_rate_stated(const struct testspec *spec)
{
    return spec->bitrate_bps > 0 && !spec->bitrate_max;
}
