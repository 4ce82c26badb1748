#ifndef MESHPERF_TCP_PARTS_H
#define MESHPERF_TCP_PARTS_H

// One direction of a TCP test: its control connection and its load streams. tcp.c opens flows, and
// runs tcp_send or tcp_receive on each: a bidirectional test has two flows, each with its own
// control connection and, at either end, its own thread, so nothing is shared between them.

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "beside.h"
#include "control.h"
#include "cpu.h"
#include "probe.h"
#include "tcpinfo.h"

#define TCP_TICK_NS (50 * INT64_C(1000000))    // TCP_INFO is sampled this often
#define TCP_START_NS (5 * INT64_C(1000000000)) // from connected streams to the first bytes
#define TCP_FINAL_NS (3 * INT64_C(1000000000)) // from the window's end to the sender's count

// Runs a test over TCP connections or SCTP associations; the body of probe_kind.run for both.
void tcp_run(const struct probe_order *order, dataport_t *port, const struct probe_hooks *hooks,
    struct probe_report *report, enum dataport_protocol protocol);

struct tcp_flow {
    const struct probe_order *order;
    const struct probe_hooks *hooks;
    int control_fd;
    int *fds; // load streams
    unsigned streams;
    beside_t *beside; // the same for both directions
    bool sctp;        // its sockets are SCTP associations
    uint32_t sequence_out, sequence_in;
    uint8_t in[CONTROL_SIZE]; // a message that has not come whole yet
    size_t have;
};

// Both block until their part is over, and fill their half of the report and its load.
void tcp_send(struct tcp_flow *flow, struct probe_report *report);
void tcp_receive(struct tcp_flow *flow, struct probe_report *report);

// tcp_link.c: messages on the control connection. Sending never blocks; 0 or -errno.
int tcp_link_send(struct tcp_flow *flow, struct control *message);
// 1 a message, 0 none yet, -ECONNRESET closed, MESH_E_AUTH not from the peer of this test.
int tcp_link_read(struct tcp_flow *flow, struct control *message);

// An epoll set with the stop signal, the control connection and the crew's news in it.
// event.data.u32 is one of these.
enum tcp_event { TCP_EVENT_CONTROL, TCP_EVENT_STOP, TCP_EVENT_NEWS };
int tcp_watch(const struct tcp_flow *flow, int news_fd);
// Waits until `until_mono_ns` (0: does not wait).
int tcp_wait(int epoll_fd, struct epoll_event *events, int room, int64_t until_mono_ns);

// The kernel's counters of a load stream. Of an association: no bytes, and no busy times.
bool tcp_flow_counters(const struct tcp_flow *flow, unsigned stream, struct tcp_counters *counters);

// The rate to keep: the least of what was asked and what ticket and guard allow; 0: none.
uint64_t tcp_rate(const struct probe_order *order, bool *capped);

#endif
