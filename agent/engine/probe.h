#ifndef MESHPERF_PROBE_H
#define MESHPERF_PROBE_H

// The engine's contract: one end of one bandwidth test, from an order to a report. Each kind of
// test is one file that fills one `struct probe_kind`; probe.c lists them. The engine knows sockets
// and clocks, and nothing of ZeroMQ, protobuf or the controller.
//
// A test runs in a thread of its own, inside probe_kind.run(), which blocks until the test is over,
// stopped, or past its deadline, and has released everything when it returns. It may start helper
// threads that it joins itself.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dataport.h"
#include "histogram.h"
#include "testspec.h"
#include "ticket.h"

#define PROBE_TEXT_SIZE 256
#define PROBE_ADDRESS_SIZE 64
#define PROBE_HANDSHAKE_NS (3 * INT64_C(1000000000)) // a silent data handshake ends here

// What this end is to do. Plain data; borrowed for the call.
struct probe_order {
    struct testspec spec;
    struct ticket_keys keys;
    bool connects; // opens the connection(s); the other end listens on its data port
    bool sends;    // this end sends load
    bool receives; // this end receives load (bidir: both)
    char local_address[PROBE_ADDRESS_SIZE];
    char peer_address[PROBE_ADDRESS_SIZE];
    uint16_t peer_port;
    unsigned local_index;   // a small number for this end, for diagnostics only
    int64_t expiry_mono_ns; // a listening end waits for its peer until then
    int64_t limit_ns;       // load flows at most this long, whatever happens
    uint64_t limit_bps;     // 0: none. The receiver enforces it too
    uint64_t limit_bytes;   // 0: none
    bool alone;             // no light probes beside the load (to measure what they cost)
    uint64_t cap_bps;       // an unlimited rate is capped at this by the owner's guard; 0: none
};

enum probe_outcome { PROBE_OK, PROBE_FAILED, PROBE_UNSUPPORTED, PROBE_STOPPED, PROBE_SKIPPED };

// A value that was not measured is NAN (double) or PROBE_ABSENT (uint64_t).
#define PROBE_ABSENT UINT64_MAX

struct probe_distribution {
    uint64_t count; // 0: absent
    double min_s, mean_s, p50_s, p90_s, p99_s, p999_s, max_s;
};

// When a test with `until` came to an end; the rule is in converge.h.
struct probe_convergence {
    double target;     // 0: not asked for; everything else is absent then
    double half_width; // share of the mean, NAN: none yet
    bool reached;
    unsigned samples, looks;
    double autocorrelation;
    const char *why; // no claim, because; static, NULL: claimed
};

// A rate that fell and stayed low; the rule is in bucket.h.
struct probe_bucket {
    bool found;
    double at_s, before_bps, after_bps;
    uint64_t bytes;
};

struct probe_interval {
    double start_s, duration_s; // since the window's start
    double bandwidth_bps;
    uint64_t bytes, retransmits, sent, received, lost;
    double jitter_s;
};

struct probe_send {
    uint64_t bytes; // payload in the window
    double duration_s;
    uint64_t retransmits, segments;
    struct probe_distribution rtt_loaded;
    double min_rtt_s;
    double busy, receive_window_limited, send_buffer_limited; // shares of the streams' window
    uint64_t cwnd_max;                                        // packets
    uint64_t delivered_ce;                                    // segments that met congestion (ECN)
    uint64_t packets_sent, packets_lost_sender;               // udp, window
    double offered_bps;
    uint64_t capped_bps; // rate that a guard or ticket imposed, or PROBE_ABSENT
    char congestion[TESTSPEC_CONGESTION_SIZE];
    unsigned mss, path_mtu, length; // 0: absent
    bool fragmented;
    double stalled_s; // load held because feedback was silent
    double blocked_s; // no room for more: udp's local queue, tcp's send buffers
};

struct probe_receive {
    uint64_t bytes;
    double duration_s, omitted_s, bandwidth_bps;
    uint64_t packets_expected; // udp: the sender's final count for the window
    uint64_t packets_received, packets_lost, packets_lost_receiver; // lost: all that is absent
    uint64_t packets_lost_receiver_max; // bound, if it is above packets_lost_receiver
    uint64_t reordered, duplicate, reorder_extent;
    uint64_t loss_bursts, loss_burst_longest;
    double jitter_s, jitter_rfc3550_s;
    struct probe_distribution pdv, ipdv;
    const char *stamps; // "kernel" or "user", static; NULL: none
    uint64_t drained_bytes, segments;
    unsigned streams; // sctp: stream numbers that messages came on; 0: absent
    unsigned receive_buffer;
    double receive_queue_high;
    double wire_l3_bps, wire_l2_bps, wire_line_bps; // of the window (wire_rate.h)
    uint64_t whole_bytes; // since the load began, the omitted part included
    double whole_s;
    struct probe_convergence convergence;
    struct probe_bucket bucket;
    struct probe_interval *intervals; // owned by the report
    size_t interval_count;
};

struct probe_load {
    double cores, busiest_thread, busiest_core, run_queue_wait;
    uint64_t softnet_dropped;
    uint64_t interface_dropped;  // packets that the interface received and lost, for any program
    uint64_t allowance_exceeded; // packets that the provider's allowances held back
    double throttled, steal;     // shares: of the window, of the busiest core
};

// What this host is (record.h). Empty text, 0 and NAN are absent.
struct probe_record {
    char kernel[64], interface[32], driver[32], offloads[64], qdisc[32], congestion[16],
        virtualization[32], boot_id[40];
    uint64_t link_bps, rmem_max, wmem_max, moved_bytes;
    unsigned mtu, cores;
    double quota_cores;
};

struct probe_report {
    enum probe_outcome outcome;
    char reason[PROBE_TEXT_SIZE];
    bool retry; // worth another attempt
    bool has_send, has_receive;
    struct probe_send send;
    struct probe_receive receive;
    struct probe_load load;
    struct probe_record record;
    struct probe_distribution rtt_idle, rtt_foreign; // by the connecting end, with light probes
    char technique[PROBE_TEXT_SIZE];
    char peer_seen[PROBE_ADDRESS_SIZE]; // only if it differs from the order's peer address
    unsigned family;
    uint16_t source_port, destination_port; // of the first load stream, sender to receiver
};

// Everything absent, outcome PROBE_FAILED with an empty reason.
void probe_report_init(struct probe_report *report);
void probe_report_release(struct probe_report *report); // frees the intervals
// Sets outcome and reason (printf) unless a failure is there already: the first cause is kept.
void probe_report_fail(struct probe_report *report, enum probe_outcome outcome, bool retry,
    const char *format, ...) __attribute__((format(printf, 4, 5)));

// `histogram` is of nanoseconds.
void probe_distribution_of(const histogram_t *histogram, struct probe_distribution *out);

// How a running test speaks to its surroundings. Called in the test's thread.
struct probe_hooks {
    void *ctx;
    void (*ready)(void *ctx); // a listening end can be connected to from now on
    void (*interval)(void *ctx, const struct probe_interval *interval); // may be lost
    int stop_fd; // becomes readable when the test must end now
};

struct probe_kind {
    enum test_kind kind;
    const char *name;
    // Can this host do it at all? False with a sentence in `reason` (PROBE_TEXT_SIZE).
    bool (*supported)(char *reason);
    void (*run)(const struct probe_order *order, dataport_t *port, const struct probe_hooks *hooks,
        struct probe_report *report);
};

const struct probe_kind *probe_find(enum test_kind kind); // NULL: not built
size_t probe_kinds(const struct probe_kind *const **kinds);

#endif
