#ifndef MESHPERF_UDP_PARTS_H
#define MESHPERF_UDP_PARTS_H

// One end of one UDP test. P streams, each a connected socket; both directions of --bidir share
// them. The test's own thread reads the sockets (udp_read.c), or of a flood its share of them
// beside others, and keeps the state of both directions (udp_receive.c, udp_send.c); further
// threads, if this end sends, do nothing but send load (udp_load.c). They share `struct udp_link`.
//
// Load datagram: type, stream, flags, zero (a byte each), tag 12, number 8, offset 8, filling. Big
// endian. Numbers count the window's datagrams of the whole test from 0; those before the window
// have UDP_FLAG_OMIT and count apart. Offset: sending time in ns since the window began.
//
// How load moves depends on what is asked (docs/measurement.md, "udp"):
// - a stated bitrate: one datagram a packet, so that each has its own fate and arrival stamp;
// - max, or more than a core can send that way: segmentation offload (UDP_SEGMENT) at the sender,
//   receive offload (UDP_GRO) at the receiver, where the kernels have them.

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "beside.h"
#include "bucket.h"
#include "control.h"
#include "converge.h"
#include "cpu.h"
#include "jitter.h"
#include "probe.h"
#include "probe_setup.h"
#include "seqtrack.h"

#define UDP_HEADER 32
#define UDP_LOAD 0x4c
#define UDP_FLAG_OMIT 1
#define UDP_STREAMS_MAX TESTSPEC_PARALLEL_MAX
#define UDP_PAYLOAD_MAX 65507 // of a datagram over IPv4, and of a packet to be segmented

// ------------------------------------------------------------------------------------- sending

// How departures are timed.
enum udp_pace {
    UDP_SLEEP,  // one datagram a packet; the thread sleeps to the time that each is due (waker.h)
    UDP_SPIN,   // the same, looking at the clock instead: closer than a thread wakes
    UDP_QUANTA, // several at a time, segmented by the kernel or the card where that can be had
};

// What the reading thread tells the sending one.
struct udp_link {
    atomic_bool hold, stop;
    atomic_bool full;    // the receiving sockets hold much that is not read yet: a flood waits
    atomic_bool enough;  // the result is known well enough: the window ends now
    atomic_bool arrived; // something did, at the receiver
    atomic_uint_least64_t drops_receiver;
};

struct udp_loader;

struct udp_sender {
    const struct probe_order *order;
    const int *fds;
    unsigned streams;
    unsigned direction;
    struct udp_link link;
    bool running, joined;
    sem_t started, leave; // the first thread runs; may end, as their CPU time has been read
    atomic_bool in_window, finished;
    // of the sending threads
    struct udp_loader *loaders; // the first starts the others
    unsigned loader_count;
    atomic_uint loading; // that have not finished
    sem_t go;
    int64_t begin_ns;
    atomic_uint_least64_t numbers, omitted; // that were given out: in the window, before it
    // results, valid when finished
    uint64_t packets, lost_sender, bytes;
    int64_t window_ns, blocked_ns;
    uint64_t rate_bps;
    unsigned length, path_mtu;
    bool fragmented, flood;
    enum udp_pace pace, pace_first; // at the end, and at first
    bool urgent;                    // the one thread has real-time priority
    unsigned segments;              // most datagrams a packet in quanta; 1: no UDP_SEGMENT
    // of the reading thread
    int64_t asked_ns, feedback_ns, hold_since_ns, held_ns, final_since_ns, next_final_ns;
    unsigned finals_said;
    bool final_seen, window_heard;
    uint64_t window_base_bytes; // that had arrived when the receiver first spoke of its window
};

// Would such a test be sent in quanta from the start? Both ends ask.
bool udp_in_quanta(const struct testspec *spec);

// udp_send.c: consent, final count, report. Of the test's thread.
struct udp_test;
void udp_sender_prepare(struct udp_sender *sender);
void udp_set_fragments(int fd, bool allowed);
void udp_sender_feedback(struct udp_test *test, const struct control *message, int64_t now);
void udp_sender_tick(struct udp_test *test, int64_t now);
void udp_sender_end(struct udp_test *test);
void udp_sender_report(struct udp_test *test);
void udp_sender_technique(const struct udp_sender *sender, char *text, size_t size);

// udp_load.c: the sending threads, from the test's thread.
bool udp_load_start(struct udp_sender *sender); // false: no thread could be had
void udp_load_watch(const struct udp_sender *sender, cpu_t *cpu);
// Stops and joins them, and adds up what they have counted. Once, after a start that went well.
void udp_load_end(struct udp_sender *sender);
// udp_path.c: makes the datagrams as long as the path takes them.
void udp_find_path_mtu(struct udp_sender *sender);
// udp_outlet.c
// Largest packet on the way that the kernel knows of; 0: unknown.
unsigned udp_route_mtu(int fd);
bool udp_is_six(int fd);

// ----------------------------------------------------------------------------------- receiving

// Load datagrams of one size with consecutive numbers that came in one packet.
struct udp_run {
    unsigned stream;
    bool omit;
    uint64_t number;
    unsigned count;
    size_t size;     // of each
    uint64_t offset; // since the window began at the sender, of all of them
    int64_t arrived_mono_ns;
    bool kernel_stamp;
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
    int64_t first_arrival_ns, last_arrival_ns, final_ns;
    uint64_t first_number, last_number, arrivals, bytes, all_bytes, strangers;
    uint64_t drops_begin, drops_now; // of all sockets since they exist
    uint32_t
        drops_omit[UDP_STREAMS_MAX]; // each socket's when its last packet before the window came
    uint64_t packets;                // that the sockets gave in the window: fewer, with UDP_GRO
    unsigned length, most_in_packet;
    bool window_open, final_seen, finished, kernel_stamps;
    bool gro, forced_buffer, full_said;
    bool full[UDP_STREAMS_MAX]; // each socket
    unsigned full_count;
    struct control final;
    enum control_phase phase;
    unsigned receive_buffer;
    // What the sender may still send at its ticket's rate: a bucket that fills with it.
    int64_t allowed_ns; // when it was looked at
    uint64_t allowed_seen_bytes;
    double allowed_bytes;
    struct bucket bucket;     // since the load began
    struct converge converge; // since the window began
};

void udp_receiver_start(struct udp_test *test, int64_t now);
// One packet of stream's socket `at`: the socket's drops (SO_RXQ_OVFL) when it was queued, and
// whether it is of before the window.
void udp_receiver_packet(struct udp_test *test, unsigned at, bool omit, uint32_t drops);
void udp_receiver_run(struct udp_test *test, const struct udp_run *run, int64_t now);
// After a batch from the socket: tells the sender when one holds too much, and when none any
// longer.
void udp_receiver_pressure(struct udp_test *test, unsigned at, int64_t now);
void udp_receiver_final(struct udp_test *test, const struct control *message, int64_t now);
void udp_receiver_tick(struct udp_test *test, int64_t now);
void udp_receiver_release(struct udp_receiver *receiver);
void udp_receiver_technique(const struct udp_test *test, char *text, size_t size);
// udp_report.c
void udp_receiver_report(struct udp_test *test);

// ------------------------------------------------------------------------------------- the test

struct udp_readers; // udp_read.c

struct udp_test {
    const struct probe_order *order;
    const struct probe_hooks *hooks;
    struct probe_report *report;
    struct probe_streams open;
    int fds[UDP_STREAMS_MAX];
    unsigned streams;
    unsigned direction;
    struct udp_readers *readers;
    unsigned reader_count;
    pthread_mutex_t lock; // of what follows, while there are readers; functions below are under it
    uint32_t sequence_out, sequence_in;
    bool failed;
    struct udp_sender *sender;
    struct udp_receiver *receiver;
    beside_t *beside;
    cpu_t *cpu;
    bool measuring, measured;
};

void udp_say(struct udp_test *test, const struct control *message);
void udp_fail(struct udp_test *test, bool retry, const char *words);
void udp_measure(struct udp_test *test, bool begin);
bool udp_over(const struct udp_test *test);
// A message of the other end, if it is one.
void udp_heard(struct udp_test *test, const uint8_t *bytes, size_t size, int64_t now);

// udp_read.c, without the lock. Buffers are as the test's socket options want them: call when those
// are set. False: threads are missing. End them in either case, when their CPU time has been read.
bool udp_readers_start(struct udp_test *test);
void udp_readers_end(struct udp_test *test);
// Waits for datagrams until `until_mono_ns` and takes what is there. False: told to stop.
bool udp_read(struct udp_test *test, int64_t until_mono_ns);
// All readers, if there are any, count as the test's threads. With the lock.
void udp_readers_watch(const struct udp_test *test);

#endif
