#ifndef MESHPERF_SCTP_LIMITS_H
#define MESHPERF_SCTP_LIMITS_H

// What can be concluded from what the kernel tells of an association, where of a connection it
// would tell more. Pure arithmetic.

#include <stdint.h>

// Payload that has arrived. The kernel counts an association's DATA chunks, each once, but no
// bytes; the program gets whole messages. `read` bytes were read, `chunks` came, in messages of
// `message` bytes (0: none was read whole yet) cut into pieces of `piece` at most. What would make
// more than `most` unread bytes is no count of ours (the sender cuts otherwise): then only `read`
// counts.
uint64_t sctp_arrived(
    uint64_t read, uint64_t chunks, unsigned message, unsigned piece, uint64_t most);

// What holds an association's sender back at a moment, from what SCTP_STATUS and SO_MEMINFO tell.
// TCP's kernel keeps times of the same kind (tcpi_busy_time, tcpi_rwnd_limited,
// tcpi_sndbuf_limited); here there are only samples.

struct sctp_standing {
    uint32_t peer_window; // bytes that the peer has room for, less what is on its way
    uint32_t unacked;     // DATA chunks on their way
    uint32_t cwnd_bytes, fragment_bytes, mtu_bytes;
    uint32_t message_bytes;
    uint32_t queued_bytes, buffer_bytes; // memory of the send buffer
};

enum sctp_limit {
    SCTP_LIMIT_IDLE,    // nothing to send
    SCTP_LIMIT_NETWORK, // the congestion window is full
    SCTP_LIMIT_WINDOW,  // the peer has no room
    SCTP_LIMIT_BUFFER,  // the send buffer holds no more, and all that it holds is on its way
    SCTP_LIMIT_NONE     // none of them: being sent at this moment
};
#define SCTP_LIMIT_COUNT 5

enum sctp_limit sctp_limit_of(const struct sctp_standing *standing);

// Samples counted by what they showed.
struct sctp_shares {
    uint64_t samples, of[SCTP_LIMIT_COUNT];
};

void sctp_shares_add(struct sctp_shares *self, const struct sctp_standing *standing);
// 0 to 1; NAN without samples.
double sctp_share(const struct sctp_shares *self, enum sctp_limit limit);

#endif
