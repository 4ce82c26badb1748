#ifndef MESHPERF_SCTP_H
#define MESHPERF_SCTP_H

// One-to-one SCTP sockets of the kernel (RFC 6458): their options, their messages, and what the
// kernel knows about an association. SCTP_GET_ASSOC_STATS is Linux's own.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sctp_limits.h"
#include "tcpinfo.h"

// Can this host do it? Tries socket, bind and listen on loopback. False with a sentence in
// `reason`.
bool sctp_supported(char *reason, size_t size);
// Why socket() or listen() gave this errno; `modules` is the running kernel's directory of modules.
const char *sctp_why_not(int error, const char *modules);

// ------------------------------------------------------------------ options

// So many stream numbers are asked for in each direction when an association begins: to be set on a
// connecting or a listening socket before. 0 or -errno.
int sctp_ask_streams(int fd, unsigned streams);
// How many this end may send on; 0 if fd is no association.
unsigned sctp_streams_granted(int fd);
// Whatever closes the socket, be it the kernel after a kill, aborts the association (RFC
// 9260, 9.1). Otherwise the kernel goes on delivering what is queued, and then repeats SHUTDOWN for
// minutes to a peer that is gone.
void sctp_abort_on_close(int fd);
// Until it has measured the round trip, the association repeats what is not answered after one
// second, as TCP does (RFC 6298), instead of after three (RFC 9260, 16): to be set on a connecting
// or a listening socket before. Otherwise one packet lost from its handshake takes as long as the
// other end's patience lasts.
void sctp_hurry(int fd);
// Lets sctp_take tell the stream number.
void sctp_tell_streams(int fd);

// ------------------------------------------------------------------ messages

// The kernel takes a message whole or not at all, and none longer than the send buffer. Both never
// block. As send() and recv().
ssize_t sctp_put(int fd, const void *bytes, size_t size, unsigned stream);
// A message, or what of it there is and fits. *stream is untouched if the kernel did not tell.
ssize_t sctp_take(int fd, void *bytes, size_t size, unsigned *stream);
// The length used when none is asked for: the longest, less if the send buffer holds fewer than
// two; at a stated rate (0: none) no more than its tcp_quantum, so that it is even.
unsigned sctp_message_default(int fd, uint64_t rate_bps);
unsigned sctp_send_buffer(int fd);

// ------------------------------------------------------------------ counters

// In the shape of a TCP connection's: segments are DATA chunks, cwnd is in packets of the path MTU,
// mss is the largest piece of a message. The kernel smooths the RTT of the primary path in whole
// ticks with a gain of an eighth, so it is right to eight ticks (HZ 250: 32 ms) and means nothing
// below that: rtt_us is 0 then. Other fields read 0. False, and nothing written, if fd is no
// association.
bool sctpinfo_read(int fd, struct tcp_counters *counters);
// A tick of the kernel's clock.
int64_t sctp_tick_ns(void);

// Where an association stands now; `message` is the length of its messages.
bool sctp_standing_read(int fd, unsigned message, struct sctp_standing *standing);

#endif
