#ifndef MESHPERF_TCP_CREW_H
#define MESHPERF_TCP_CREW_H

// The threads that move a flow's load, apart from the one that holds its conversation (tcp_send,
// tcp_receive): a sample or a message never waits for load. Each thread has a share of the streams,
// neighbours first: as many threads as there are streams and cores for.
//
// The conversation's thread makes the crew, tells it to go, to pause or to end, and closes the
// sockets after tcp_crew_end. What a member has to tell it raises `news_fd`.

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cpu.h"
#include "tcp_parts.h"
#include "tcp_trial.h"

#define TCP_CREW_MAX 8

enum tcp_crew_order { TCP_CREW_PAUSE, TCP_CREW_GO, TCP_CREW_END };

struct tcp_crew;

struct tcp_member {
    struct tcp_crew *crew;
    unsigned first, streams; // its share of flow->fds
    int wake_fd;             // readable when the order may have changed
    pthread_t thread;
    atomic_int tid;
};

struct tcp_crew {
    const struct tcp_flow *flow;
    unsigned size;
    struct tcp_member members[TCP_CREW_MAX];
    atomic_int order; // enum tcp_crew_order
    int news_fd;
    // What the members tell.
    atomic_uint_least64_t bytes;        // that they moved, all together
    atomic_int_least64_t first_mono_ns; // when the first of them came; 0: not yet
    atomic_uint closed;                 // streams that the peer closed or broke
    // Of associations that receive: a bit for each stream number on which a message came.
    atomic_uint_least64_t numbers_seen[TESTSPEC_STREAMS_MAX / 64];
    atomic_uint message_seen; // and the longest message
    // Of a sending crew: time that no stream had room, of all members together.
    atomic_int_least64_t blocked_ns;
    // Set before the start: rate and volume of the whole flow, 0: none.
    uint64_t rate_bps, limit_bytes;
    atomic_int_least64_t until_mono_ns;
    // Of associations: the length of their messages, and over how many stream numbers they go.
    unsigned message_bytes, stream_numbers;
    // How its members move load, which the first of them finds out unless it is settled already.
    atomic_int way; // enum tcp_way
    atomic_bool settled, tried;
};

// How many threads for so many streams on this host.
unsigned tcp_crew_size(unsigned streams);
// Starts `size` threads in `work`, which gets its member; they begin paused. False: no thread could
// be had, and nothing is left.
bool tcp_crew_start(
    struct tcp_crew *self, const struct tcp_flow *flow, unsigned size, void *(*work)(void *member));
// All members count as the test's threads.
void tcp_crew_watch(const struct tcp_crew *self, cpu_t *cpu);
void tcp_crew_order(struct tcp_crew *self, enum tcp_crew_order order);
// Ends and joins them. Safe on a crew that never started.
void tcp_crew_end(struct tcp_crew *self);

// For the members: what they are to do; sleeping until that is not TCP_CREW_PAUSE.
enum tcp_crew_order tcp_crew_await(struct tcp_member *member);
void tcp_crew_news(struct tcp_crew *self);
// How many stream numbers messages came on.
unsigned tcp_crew_numbers_seen(struct tcp_crew *self);

// Thread bodies: tcp_load.c, tcp_drain.c.
void *tcp_load(void *member);
void *tcp_drain(void *member);
// The window begins: what is found out by now holds.
void tcp_load_settle(struct tcp_crew *self);
// What a paced sender writes at a time: a packet, or a few milliseconds of the rate, up to `most`.
size_t tcp_quantum(uint64_t rate_bps, size_t most);
// How they do it, for the report.
const char *tcp_load_technique(const struct tcp_crew *self);

#endif
