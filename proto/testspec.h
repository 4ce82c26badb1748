#ifndef MESHPERF_TESTSPEC_H
#define MESHPERF_TESTSPEC_H

// What one test is: the plain struct that the engine takes, with defaults and limits. The wire form
// is Mp__TestSpec; conversion checks every limit, so a struct that came through testspec_from_wire
// (or passed testspec_check) is within them.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "meshperf.pb-c.h"

enum test_kind {
    TEST_TCP = 1, TEST_UDP = 2, TEST_SCTP = 3, TEST_LATENCY = 4, TEST_PATH = 5, TEST_PORT = 6
};

#define TEST_KIND_MAX 6

#define TESTSPEC_DURATION_MIN_NS INT64_C(100000000)          // 100 ms
#define TESTSPEC_DURATION_MAX_NS INT64_C(86400000000000)     // 24 h
#define TESTSPEC_INTERVAL_MIN_NS INT64_C(10000000)           // 10 ms
#define TESTSPEC_INTERVALS_MAX 3600                          // a longer test widens its interval
#define TESTSPEC_PARALLEL_MAX 128
#define TESTSPEC_LENGTH_MIN 32
#define TESTSPEC_LENGTH_MAX 65000                            // udp
// An association's receive window is 104 KiB unless somebody changed it: longer messages stall it.
#define TESTSPEC_LENGTH_SCTP_MAX 65536
#define TESTSPEC_LENGTH_DEFAULT 1400
#define TESTSPEC_UDP_BITRATE_DEFAULT UINT64_C(1000000)
#define TESTSPEC_FLOWS_DEFAULT 16
#define TESTSPEC_FLOWS_MAX 256
#define TESTSPEC_PASSES_MAX 100 // of a run
#define TESTSPEC_FLOW_CHECK_STREAMS 8
#define TESTSPEC_FLOW_CHECK_NS INT64_C(3000000000)           // at most
#define TESTSPEC_UNTIL_MIN 0.001
#define TESTSPEC_UNTIL_MAX 0.5
#define TESTSPEC_STREAMS_MAX 1024
#define TESTSPEC_CONGESTION_SIZE 16
#define TESTSPEC_ATTEMPTS_DEFAULT 3
#define TESTSPEC_ATTEMPTS_MAX 16
#define TESTSPEC_TIMEOUT_DEFAULT_NS INT64_C(2000000000)
#define TESTSPEC_TIMEOUT_MIN_NS INT64_C(50000000)            // 50 ms
#define TESTSPEC_TIMEOUT_MAX_NS INT64_C(60000000000)         // 60 s
#define TESTSPEC_AGENT_RATE_DEFAULT 200.0                    // probes a second of one agent
#define TESTSPEC_AGENT_RATE_MAX 5000.0
#define TESTSPEC_LISTEN_EXTRA_NS INT64_C(2000000000)         // beside attempts * timeout
#define TESTSPEC_HOPS_MAX 32

// Zero means "not given" where a default or "unlimited" exists, except omit.
struct testspec {
    enum test_kind kind;
    int64_t duration_ns;
    int64_t omit_ns;        // -1: detect the end of slow start (tcp, sctp)
    int64_t interval_ns;
    unsigned parallel;      // at least 1
    uint64_t bitrate_bps;   // 0: unlimited (tcp) ; udp always has one unless bitrate_max
    bool bitrate_max;
    unsigned length;        // udp payload, sctp message; 0: default by path MTU or send buffer
    unsigned window;        // socket buffers in bytes, 0: the kernel's
    unsigned family;        // 4, 6 or 0
    int dscp;               // 0..63, -1: not given
    char congestion[TESTSPEC_CONGESTION_SIZE];
    unsigned mss;
    bool reverse_connect;
    bool bidir;
    unsigned flows;         // latency
    double probe_rate;      // latency, probes a second; 0: the planner's choice
    double until;           // end once the 95 % interval is within this share of the mean; 0: never
    unsigned streams;       // sctp: stream numbers in use, at least 1
    unsigned attempts;      // port, path: tries of a silent probe
    int64_t timeout_ns;     // port, path: patience of each try
    double agent_rate;      // port, path: probes a second of one agent, to all its peers together
    unsigned from_port;     // port: source port of the probes; 0: any
    unsigned via;           // path: Mp__Transport
};

const char *test_kind_name(enum test_kind kind);             // "tcp"
bool test_kind_parse(const char *word, enum test_kind *kind);
bool test_kind_is_bandwidth(enum test_kind kind);

void testspec_defaults(enum test_kind kind, struct testspec *spec);

// 0, or MESH_E_RANGE with a sentence in `error` (at least 256 bytes) that names the limit.
int testspec_check(const struct testspec *spec, char *error) __attribute__((warn_unused_result));
int testspec_from_wire(const Mp__TestSpec *wire, struct testspec *spec, char *error)
    __attribute__((warn_unused_result));
// Fills `wire`, which must be initialised; it borrows spec->congestion for as long as it is used.
void testspec_to_wire(const struct testspec *spec, Mp__TestSpec *wire);

// Longest omitted time: the stated one, or min(1 s, duration / 2) for a slow start to be detected, or
// for a flood without one to find its rate (then it is not only the longest).
int64_t testspec_omit_max_ns(const struct testspec *spec);
// Time before the load in which the idle path's RTT is taken: min(200 ms, duration / 10).
int64_t testspec_idle_ns(const struct testspec *spec);
// Port and path: a batch of probes, and a listener for it, last at most attempts * timeout + 2 s.
int64_t testspec_listen_ns(const struct testspec *spec);
// The test of a flow check: this one of one stream with several, and shorter.
void testspec_flow_check(const struct testspec *spec, struct testspec *check);
// A test that states its rate (so that it may share a machine): udp without -b max, or any -b.
bool testspec_rate_stated(const struct testspec *spec);

#endif
