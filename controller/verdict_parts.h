#ifndef MESHPERF_VERDICT_PARTS_H
#define MESHPERF_VERDICT_PARTS_H

// What the files of the verdict share; nobody else includes this.
//
//   verdict.c        the rules for streams, and the runner-up
//   verdict_facts.c  what the rules look at, from both ends' reports
//   verdict_udp.c    the rules for datagrams
//   verdict_flows.c  is it each flow that the network limits?

#include <stdbool.h>
#include <stdint.h>

#include "verdict.h"

// Thresholds of docs/measurement.md, "Limiter".
#define REACHED 0.99      // of the rate asked for
#define IDLE_SHARE 0.2    // of the window: the sender had nothing to send
#define LIMITED_SHARE 0.2 // of the window: receive window, send buffer
#define NETWORK_SHARE 0.8
#define NETWORK_SHOWN 0.5 // the same where the path has left a sign of its own
#define LOSS_SHARE 0.001  // of the segments, repeated: a sign
#define TORN_SHARE 0.005  // of the chunks, repeated: what fills the window waits for them
#define THREAD_BUSY 0.9
#define CORE_BUSY 0.95
#define HOST_BUSY 0.6             // of a core: enough where nothing speaks of the path
#define WAIT_SHARE 0.2            // a thread that waited so long for a core came late
#define WAIT_LONG 0.25            // so late that it is enough where nothing speaks of the path
#define QUEUE_SHARE 0.5           // of the samples with a receive queue over half its buffer
#define SMALL_BUFFER (128 * 1024) // such a receive buffer is soon full, however fast it is read
#define QUEUE_DELAY 1.5           // smoothed over smallest RTT
#define QUEUE_LEAST_S 1e-3        // a queue that stands on the path, not one of a host
#define PROBES_LEAST 5            // so many beside the load say that there is no queue
#define THROTTLED_SHARE 0.2       // of the window, by the control group's quota
#define CE_SHARE 0.01             // of the segments, marked by a queue that uses ECN

#define TEXT_SIZE 200

struct host_share {
    double thread, core, wait, throttled;
};

// Everything the rules look at, with what is absent counted as not limiting.
struct facts {
    double goodput_bps, asked_bps;
    bool tcp_shares; // busy and the limited shares are known
    bool small_window;
    double idle, window, buffer, network, blocked;
    struct host_share tx, rx;
    double queue_high;
    uint64_t softnet_dropped, interface_dropped, retransmits, segments, marked, allowance;
    double rtt_mean_s, rtt_median_s, rtt_min_s; // smoothed; the path's smallest
    double idle_s, loaded_s; // RTT of light probes, before the load and beside it; 0: unknown
    uint64_t probes;         // beside the load
    bool sctp;
    const char *capped_by;
    uint64_t capped_bps;
};

struct finding {
    const char *verdict, *subtype;
    char evidence[TEXT_SIZE];
};

// ------------------------------------------------------------------------------- verdict_facts.c

struct facts facts_gather(
    const struct testspec *spec, const Mp__EndReport *sender, const Mp__EndReport *receiver);

// Its thread did nothing but run or wait for a core, or the core had no time left.
bool host_full(const struct host_share *share);
// What the kernel saw missing may be because this side came late.
bool host_late(const struct host_share *share);
// What its busiest thread needed of a core.
double host_need(const struct host_share *share);
// "thread ran 40 %, waited for a core 50 %, core 90 %"
const char *host_words(const struct host_share *share, char words[80]);

// A queue on the path stands before its slowest link most of the time. A host that comes late makes
// single round trips long: they are in the mean, and not in the median.
bool queue_stands(const struct facts *facts);
// The probes beside the load saw a queue that was not there before it.
bool probes_queue(const struct facts *facts);
// It stands on the path indeed. Acknowledgements wait in a host that comes late, and the streams'
// round trips with them; the probes beside the load do not, as their stamps are the kernels'.
bool path_queue(const struct facts *facts);
// The path has done something to the flow that no host does.
bool path_shows(const struct facts *facts);

// ------------------------------------------------------------------------------------- verdict.c

// Fills the finding, without a subtype; true.
bool find(struct finding *finding, const char *verdict, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Rules that hold for streams and datagrams alike.
bool found_bitrate(const struct facts *facts, struct finding *finding);
bool found_quota(const struct facts *facts, struct finding *finding);

// ---------------------------------------------------------------------------------- verdict_udp.c

struct finding judge_udp(const struct testspec *spec, const struct facts *facts,
    const Mp__SendSide *send, const Mp__Packets *packets);

#endif
