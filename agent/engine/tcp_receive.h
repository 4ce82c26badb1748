#ifndef MESHPERF_TCP_RECEIVE_H
#define MESHPERF_TCP_RECEIVE_H

// The receiving end of one direction: what its files share. Of its own thread.
//
//   tcp_receive.c  the conversation: consent, deadlines, limits, the end
//   tcp_gauge.c    what the kernel has counted, and the window between two looks at it

#include "bucket.h"
#include "converge.h"
#include "tcp_crew.h"
#include "tcp_window.h"

struct tcp_receiver {
    struct tcp_flow *flow;
    struct probe_report *report;
    cpu_t *cpu;
    int epoll_fd;
    struct tcp_crew crew;
    enum control_phase phase;
    bool final_seen, over;
    int64_t created_ns, start_ns, t0_ns, t1_ns, done_ns, final_ns;
    int64_t next_tick_ns, next_feedback_ns, interval_ns, last_growth_ns;
    // Sums over the streams at the last sample.
    uint64_t base_bytes, base_segments, bytes, segments, packets, duplicates, out_of_order;
    uint64_t t0_bytes, t0_segments, t0_packets, t0_duplicates, t1_bytes, tick_bytes;
    int64_t sampled_ns, tick_ns, rtt_ns;
    unsigned queue_samples, queue_high;
    struct tcp_ramp ramp;
    struct tcp_intervals intervals;
    size_t interval_room;
    unsigned lowat;
    bool timestamps;
    unsigned payload_max; // of a segment
    unsigned piece;       // the largest chunk of an association
    struct bucket bucket; // since the load began
    int64_t next_glance_ns;
    struct converge converge; // since the window began
    struct converge_path path;
};

// tcp_receive.c: says the phase and what has come; without it the sender holds its load.
void tcp_receiver_feedback(struct tcp_receiver *self);

// tcp_gauge.c. Reads the kernel's counts of all streams; their time is the middle of the reading.
void tcp_receiver_sample(struct tcp_receiver *self);
// The window begins with a sample of now, and ends with the last one; then the report is filled.
void tcp_receiver_open(struct tcp_receiver *self);
void tcp_receiver_close(struct tcp_receiver *self);
// Passes on the intervals that are over by the last sample.
void tcp_receiver_intervals(struct tcp_receiver *self);

#endif
