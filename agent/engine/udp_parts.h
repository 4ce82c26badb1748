#ifndef MESHPERF_UDP_PARTS_H
#define MESHPERF_UDP_PARTS_H

// One end of one UDP test. P streams, each a connected socket; both directions of --bidir share
// them. Two threads: this one reads all sockets (load, feedback, final counts) and keeps the test's
// state; a sender thread, if this end sends, does nothing but pace load. They share `struct
// udp_link`.
//
// Load datagram: type, stream, flags, zero (a byte each), tag 12, number 8, offset 8, filling. Big
// endian. Numbers count the window's datagrams of the whole test from 0; those before the window
// have UDP_FLAG_OMIT and count apart. Offset: sending time in ns since the window began.

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "control.h"
#include "cpu.h"
#include "jitter.h"
#include "probe.h"
#include "probe_setup.h"
#include "seqtrack.h"

#define UDP_HEADER 32
#define UDP_LOAD 0x4c
#define UDP_FLAG_OMIT 1
#define UDP_STREAMS_MAX TESTSPEC_PARALLEL_MAX

// What the reading thread tells the sending one.
struct udp_link {
    atomic_bool hold, stop;
    atomic_uint_least64_t drops_receiver;
};

struct udp_sender {
    const struct probe_order *order;
    const int *fds;
    unsigned streams;
    unsigned direction;
    struct udp_link link;
    pthread_t thread;
    bool running, joined;
    atomic_bool finished;
    atomic_int tid;
    int error; // errno that ended it
    struct cpu_use use;
    // results, valid when finished
    uint64_t packets, lost_sender, bytes;
    int64_t window_ns, blocked_ns, omitted_ns;
    uint64_t rate_bps;
    unsigned length, path_mtu;
    bool fragmented;
    // of the reading thread
    int64_t asked_ns, feedback_ns, hold_since_ns, held_ns, final_since_ns, next_final_ns;
    unsigned finals_said;
    bool final_seen;
};

struct udp_slice {
    uint64_t first_number, received, bytes, jitter_count;
    double jitter_sum_s;
    bool any;
};

struct udp_receiver {
    seqtrack_t *track;
    jitter_t *jitter;
    struct udp_slice *slices;
    size_t slice_count;
    int64_t interval_ns;
    int64_t waiting_since_ns, first_feedback_ns, first_load_ns, last_load_ns, next_feedback_ns;
    int64_t first_arrival_ns, last_arrival_ns, last_sent_ns, last_jitter_arrival_ns, final_ns,
        last_offset_ns;
    uint64_t first_number, last_number, arrivals, bytes, all_bytes, strangers;
    uint64_t drops_begin, drops_now; // of all sockets since they exist
    uint32_t
        drops_omit[UDP_STREAMS_MAX]; // each socket's when its last datagram before the window came
    bool window_open, final_seen, finished, kernel_stamps;
    struct control final;
    enum control_phase phase;
    unsigned receive_buffer;
    int64_t rate_check_ns;
    uint64_t rate_check_bytes;
};

struct udp_test {
    const struct probe_order *order;
    const struct probe_hooks *hooks;
    struct probe_report *report;
    struct probe_streams open;
    int fds[UDP_STREAMS_MAX];
    unsigned streams;
    unsigned direction;
    uint32_t sequence_out, sequence_in;
    bool failed;
    struct udp_sender *sender;
    struct udp_receiver *receiver;
    cpu_t *cpu;
    bool measuring;
};

void udp_say(struct udp_test *test, const struct control *message);
void udp_fail(struct udp_test *test, bool retry, const char *words);
void udp_measure(struct udp_test *test, bool begin);

void udp_sender_prepare(struct udp_sender *sender);
void udp_sender_feedback(struct udp_test *test, const struct control *message, int64_t now);
void udp_sender_tick(struct udp_test *test, int64_t now);
void udp_sender_end(struct udp_test *test);
void udp_sender_report(struct udp_test *test);
void *udp_sender_main(void *arg);

void udp_receiver_start(struct udp_test *test, int64_t now);
// The socket's drops (SO_RXQ_OVFL) when this load datagram of stream's socket `at` was queued.
void udp_receiver_drops(struct udp_test *test, unsigned at, const uint8_t *header, uint32_t drops);
void udp_receiver_load(struct udp_test *test, const uint8_t *header, size_t size,
    int64_t arrived_wall_ns, bool kernel, int64_t now);
void udp_receiver_final(struct udp_test *test, const struct control *message, int64_t now);
void udp_receiver_tick(struct udp_test *test, int64_t now);
void udp_receiver_report(struct udp_test *test);
void udp_receiver_release(struct udp_receiver *receiver);

#endif
