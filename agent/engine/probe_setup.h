#ifndef MESHPERF_PROBE_SETUP_H
#define MESHPERF_PROBE_SETUP_H

// Set-up that all bandwidth tests have in common: opening the streams at either end, options from
// the order, and what to say when it fails.

#include "probe.h"

struct probe_streams {
    const struct probe_order *order;
    const struct probe_hooks *hooks;
    dataport_t *port;
    struct probe_report *report; // has the reason when something fails
    enum dataport_protocol protocol;
    unsigned count;
    int *fds; // count of them, -1 at first; the caller's to close
    // Options for a stream: before connect, or when it was taken. 0 or negative.
    int (*prepare)(int fd, unsigned stream, const struct probe_order *order);
    // The listening end's, to be dismissed once the fds are closed: until then the next test shares
    // its listener. NULL at the connecting end.
    admission_t *admission;
};

// Opens all streams, as the order says by connecting or by admitting; says ready when it listens.
bool probe_streams_open(struct probe_streams *self);
void probe_streams_close(struct probe_streams *self);

// Buffers, DSCP; for TCP sockets also MSS and congestion control. 0 or negative;
// MESH_E_UNSUPPORTED when the congestion control is not available.
int probe_socket_options(int fd, const struct probe_order *order);

// Family, ports, the peer's address as seen, and this host's record, from a load socket before the
// load. `forward`: this end is the source of the ports that are told.
void probe_describe_socket(
    int fd, const struct probe_order *order, bool forward, struct probe_report *report);

#endif
