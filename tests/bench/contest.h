#ifndef MESHPERF_CONTEST_H
#define MESHPERF_CONTEST_H

// One turn of one contestant of bench_engine: ours by the command line, iperf3 by its JSON. Two
// hosts "h1" and "h2" with a veth between them, and "far" and "slow" behind a bridge whose port to
// the latter is shaped to 100 Mbit/s. What fails ends the program with words.

#include <stdbool.h>

#include "mesh.h"

#define CONTEST_SHAPED_BPS 100e6
#define CONTEST_LOSS_MAX 0.001 // of a round of one that is held

enum maker { OURS, THEIRS };

struct contestant {
    const char *group, *name;
    enum maker maker;
    const char *arguments; // of `meshperf run`, of `iperf3 -c`
    const char *needs;     // an option that this iperf3 must know
    bool behind_bridge;    // from "far" to "slow" instead of from h1 to h2
    const char *under;     // a command that runs h1's agent
    unsigned sniffed;      // UDP payload to look for on the link; 0: none
    bool held;             // to the highest -b at which it loses less than CONTEST_LOSS_MAX
};

// What one of them did in one round; NAN: not measured.
struct figures {
    double bandwidth_bps, packets_per_s, loss_ratio;
    double cores, sender_cores; // both ends together; the sender
    double gap_error_s;         // p99, sniffed
    double rtt_s;               // p50
    double error;               // against the truth that is known
};

// The mesh with its links and agents; end it with mesh_down.
mesh_t *contest_up(void);
// Has this iperf3 what it takes? Older versions lack some flags.
bool contest_able(const struct contestant *who, const char *iperf3);
// Where one is held: *asked_bps is what was asked of it in the last round and in this one, 0 at
// first.
struct figures contest_measure(
    mesh_t *mesh, const struct contestant *who, const char *iperf3, double *asked_bps);

// `bench_engine sniff INTERFACE PAYLOAD`, which a turn runs in h2's namespace; an exit status.
int contest_sniff(const char *interface, const char *payload);

#endif
