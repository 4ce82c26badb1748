#ifndef MESHPERF_CONTROL_H
#define MESHPERF_CONTROL_H

// What the two ends of a running bandwidth test tell each other: fixed-size messages with a MAC and
// a rising sequence number. TCP: a connection of its own (stream 0; load flows in streams 1..P).
// UDP: datagrams among the load on stream 0's socket. The receiving end of load sends FEEDBACK at
// least every 100 ms (CONTROL_FEEDBACK_NS): it is the consent to go on. The first one says that the
// receiver is there; before it no load flows. A sender without valid feedback for 1 s holds its
// load, resumes when it returns within 5 s, and fails otherwise.
//
// FINAL carries the sender's count of the window and is repeated (UDP) until a FEEDBACK says that
// it was seen. PATH is what the receiver needs to judge whether the test may end early
// (converge.h): the sender repeats it every 100 ms of the window of a test with `until`; the
// receiver ends the window by the phase DONE, as it always does. Pure packing and checking; no
// sockets.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ticket.h"

#define CONTROL_SIZE 120
#define CONTROL_FEEDBACK_NS (100 * INT64_C(1000000))
#define CONTROL_SILENCE_NS (1000 * INT64_C(1000000))
#define CONTROL_GIVE_UP_NS (5000 * INT64_C(1000000))

enum control_type {
    CONTROL_FEEDBACK = 16,
    CONTROL_FINAL = 17,
    CONTROL_ABORT = 18,
    CONTROL_PATH = 19
};
enum control_phase {     // the receiver's view of the test
    CONTROL_WAITING = 0, // streams are still missing
    CONTROL_OMIT = 1,
    CONTROL_WINDOW = 2,
    CONTROL_DONE = 3, // the window's end was sampled: stop sending
};

struct control {
    enum control_type type;
    enum control_phase phase;
    bool final_seen;         // FEEDBACK: the sender's FINAL has arrived
    bool full;               // FEEDBACK (udp, flood): wait until the receiver has read what it has
    uint32_t sequence;       // rises by one; an older one is ignored by the receiver of it
    uint64_t bytes;          // FEEDBACK: payload received in all; FINAL: payload sent in the window
    uint64_t packets;        // FEEDBACK: datagrams received in all; FINAL: sent in the window
    uint64_t first_sequence; // FINAL: the window's sequence range [first, end)
    uint64_t end_sequence;
    uint64_t lost_sender;    // FINAL: of that range never left the host
    uint64_t drops_receiver; // FEEDBACK: socket overflows so far
    int64_t window_ns;       // FINAL: time from the window's first to its end at the sender
    uint64_t missing;        // FEEDBACK (udp, after FINAL): numbers still absent
    uint64_t path_mtu;       // FINAL (udp): as the sender knows it; 0: unknown
    // PATH: of all streams together, or of the worst of them; in the window
    uint64_t retransmits; // segments
    uint64_t falls;       // of a congestion window
    int64_t sawtooth_ns;  // the longest whole one; 0: none yet
    int64_t rtt_ns;       // smoothed
};

// `direction`: 0 when the connecting end speaks, 1 when the listening end does, so that a message
// cannot be reflected.
void control_pack(const struct control *message, const struct ticket_keys *keys, unsigned direction,
    uint8_t out[CONTROL_SIZE]);
// False for anything that is not exactly such a message under this key and direction.
bool control_unpack(const uint8_t *bytes, size_t size, const struct ticket_keys *keys,
    unsigned direction, struct control *message);

#endif
