#ifndef MESHPERF_ENGINE_BENCH_H
#define MESHPERF_ENGINE_BENCH_H

// Both ends of one bandwidth test in this process, over loopback: the listening end with a data
// port of its own, the connecting end in a second thread.

#include <pthread.h>
#include <stdbool.h>

#include "probe.h"

struct engine_bench {
    dataport_t *port; // the listening end's
    const struct probe_kind *kind;
    struct probe_order listening, connecting;
    struct probe_report listened, connected;
    int listen_stop[2], connect_stop[2]; // pipes; write one byte to [1] to stop that end
    int ready[2];                        // one byte when the listening end is ready
    pthread_t listener;
};

// `sender_connects`: the usual way; otherwise the receiver opens the connection.
void engine_bench_begin(struct engine_bench *bench, const struct probe_kind *kind,
    const char *address, bool sender_connects);
void engine_bench_listen(struct engine_bench *bench); // returns when it is ready
void engine_bench_run(struct engine_bench *bench);    // both ends to their end
void engine_bench_join(struct engine_bench *bench);
void engine_bench_end(struct engine_bench *bench); // also twice, or on one that is all zero

struct probe_report *engine_bench_sender(struct engine_bench *bench);
struct probe_report *engine_bench_receiver(struct engine_bench *bench);

#endif
