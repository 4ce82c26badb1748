// What a test is: defaults, limits, and its form on the wire.

#include "meshtest.h"

#include <math.h>
#include <string.h>

#include "clock.h"
#include "errors.h"
#include "testspec.h"

static void the_defaults_are_the_documented_ones(void **state)
{
    (void)state;
    struct testspec tcp, udp, latency;
    testspec_defaults(TEST_TCP, &tcp);
    testspec_defaults(TEST_UDP, &udp);
    testspec_defaults(TEST_LATENCY, &latency);
    assert_int_equal(tcp.duration_ns, 10 * NS_PER_S);
    assert_int_equal(tcp.interval_ns, NS_PER_S);
    assert_int_equal(tcp.omit_ns, -1);
    assert_int_equal(tcp.bitrate_bps, 0);
    assert_int_equal(udp.omit_ns, 0);
    assert_int_equal(udp.bitrate_bps, 1000000);
    assert_int_equal(latency.flows, 16);
    assert_int_equal(tcp.dscp, -1);
    // Slow start: at most one second and at most half of the time.
    assert_int_equal(testspec_omit_max_ns(&tcp), NS_PER_S);
    tcp.duration_ns = NS_PER_S / 2;
    assert_int_equal(testspec_omit_max_ns(&tcp), NS_PER_S / 4);
    assert_false(testspec_rate_stated(&tcp));
    assert_true(testspec_rate_stated(&udp));
    udp.bitrate_max = true;
    udp.bitrate_bps = 0;
    assert_false(testspec_rate_stated(&udp));
    // So does a flood, to find its rate.
    assert_int_equal(testspec_omit_max_ns(&udp), NS_PER_S);
    udp.omit_ns = 3 * NS_PER_S;
    assert_int_equal(testspec_omit_max_ns(&udp), 3 * NS_PER_S);
}

struct edge {
    void (*spoil)(struct testspec *spec);
    const char *words;
};

#define EDGE(name, statement)                                                                      \
    static void name(struct testspec *s)                                                           \
    {                                                                                              \
        statement;                                                                                 \
    }

EDGE(short_time, s->duration_ns = 99999999)
EDGE(long_time, s->duration_ns = TESTSPEC_DURATION_MAX_NS + 1)
EDGE(much_omitted, s->omit_ns = 3600 * NS_PER_S + 1)
EDGE(fine_interval, s->interval_ns = 9999999)
EDGE(no_stream, s->parallel = 0)
EDGE(many_streams, s->parallel = 129)
EDGE(absurd_rate, s->bitrate_bps = UINT64_C(10000000000001))
EDGE(no_rate, s->bitrate_bps = 0)
EDGE(rate_and_max, s->bitrate_max = true)
EDGE(short_datagram, s->length = 31)
EDGE(long_datagram, s->length = 65001)
EDGE(many_numbers, s->streams = 1025)
EDGE(no_number, s->streams = 0)
EDGE(huge_window, s->window = (1u << 30) + 1)
EDGE(family_five, s->family = 5)
EDGE(high_dscp, s->dscp = 64)
EDGE(shell_words, strcpy(s->congestion, "a;b"))
EDGE(small_mss, s->mss = 87)
EDGE(many_flows, s->flows = 257)
EDGE(fast_probes, s->probe_rate = 10001)
EDGE(no_probe_rate, s->probe_rate = NAN)
EDGE(no_kind, s->kind = (enum test_kind)7)

static void every_limit_is_told_in_words(void **state)
{
    (void)state;
    static const struct edge edges[] = {{short_time, "100ms"}, {long_time, "24h"},
        {much_omitted, "1h"}, {fine_interval, "10ms"}, {no_stream, "1 to 128"},
        {many_streams, "128"}, {absurd_rate, "10T"}, {no_rate, "above 0"}, {rate_and_max, "max"},
        {short_datagram, "32"}, {long_datagram, "65000"}, {many_numbers, "1024"},
        {no_number, "1 to 1024"}, {huge_window, "1G"}, {family_five, "4 or 6"}, {high_dscp, "63"},
        {shell_words, "letters"}, {small_mss, "88"}, {many_flows, "256"}, {fast_probes, "10000"},
        {no_probe_rate, "probe rate"}, {no_kind, "kind"}};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        struct testspec spec;
        char error[256] = "";
        testspec_defaults(TEST_UDP, &spec);
        assert_int_equal(testspec_check(&spec, error), 0);
        edges[i].spoil(&spec);
        if (testspec_check(&spec, error) != MESH_E_RANGE || !strstr(error, edges[i].words))
            fail_msg("row %zu (%s): '%s'", i, edges[i].words, error);
    }
}

static void an_sctp_message_may_be_longer_than_a_datagram_but_not_much(void **state)
{
    (void)state;
    struct testspec spec;
    char error[256] = "";
    testspec_defaults(TEST_SCTP, &spec);
    spec.length = 65536;
    assert_int_equal(testspec_check(&spec, error), 0);
    spec.length++;
    assert_int_equal(testspec_check(&spec, error), MESH_E_RANGE);
    assert_non_null(strstr(error, "65536"));
}

static void a_spec_comes_back_from_the_wire_as_it_was(void **state)
{
    (void)state;
    for (enum test_kind kind = TEST_TCP; kind <= TEST_KIND_MAX; kind++) {
        for (int full = 0; full < 2; full++) {
            struct testspec spec, back;
            char error[256];
            Mp__TestSpec wire = MP__TEST_SPEC__INIT;
            testspec_defaults(kind, &spec);
            if (full) {
                spec.duration_ns = 123456789;
                spec.omit_ns = 7;
                spec.parallel = 9;
                spec.bitrate_bps = 12345678;
                spec.length = 777;
                spec.window = 65536;
                spec.family = 6;
                spec.dscp = 0;
                strcpy(spec.congestion, "bbr");
                spec.mss = 1000;
                spec.reverse_connect = spec.bidir = true;
                spec.flows = 3;
                spec.probe_rate = 2.5;
                spec.attempts = 2;
                spec.timeout_ns = NS_PER_S / 2;
                spec.agent_rate = 7.5;
                spec.from_port = 53;
                spec.via = MP__TRANSPORT__OVER_ICMP;
            }
            // Of ports and paths it follows from attempts and timeout.
            if (kind == TEST_PORT || kind == TEST_PATH)
                spec.duration_ns = testspec_listen_ns(&spec);
            testspec_to_wire(&spec, &wire);
            assert_int_equal(testspec_from_wire(&wire, &back, error), 0);
            assert_memory_equal(&spec, &back, sizeof spec);
        }
    }
}

static void kinds_have_names(void **state)
{
    (void)state;
    enum test_kind kind;
    assert_true(test_kind_parse("latency", &kind) && kind == TEST_LATENCY);
    assert_false(test_kind_parse("Latency", &kind));
    assert_false(test_kind_parse("", &kind));
    assert_string_equal(test_kind_name(TEST_UDP), "udp");
    assert_string_equal(test_kind_name((enum test_kind)99), "unknown");
    assert_true(test_kind_is_bandwidth(TEST_SCTP) && !test_kind_is_bandwidth(TEST_LATENCY));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_defaults_are_the_documented_ones),
        cmocka_unit_test(every_limit_is_told_in_words),
        cmocka_unit_test(an_sctp_message_may_be_longer_than_a_datagram_but_not_much),
        cmocka_unit_test(a_spec_comes_back_from_the_wire_as_it_was),
        cmocka_unit_test(kinds_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
