#ifndef MESHPERF_PROBE_SETUP_H
#define MESHPERF_PROBE_SETUP_H

// Set-up that all bandwidth tests have in common: socket options from the order, waiting for the
// streams of an admission, and what to say when it fails.

#include "probe.h"

// Buffers, DSCP; for TCP sockets also congestion control, MSS and no delay. 0 or negative;
// MESH_E_UNSUPPORTED when the congestion control is not available.
int probe_socket_options(int fd, const struct probe_order *order);

// Opens the data port, says ready, and waits for `count` streams into fds (entries start as -1).
// *complete false: report has the reason, and fds what came. Either way the admission is the caller's, to be
// dismissed once the fds are closed: the next test's listener must find the port free of them, or
// share this one. NULL if the port could not be opened.
admission_t *probe_admit(const struct probe_order *order, dataport_t *port,
    enum dataport_protocol protocol, const struct probe_hooks *hooks, unsigned count, int *fds,
    bool *complete, struct probe_report *report);

// The sentence for an error of dataport_connect.
void probe_setup_failed(struct probe_report *report, const struct probe_order *order, int error);

// Family, ports and the peer's address as seen, from a load socket.
void probe_describe_socket(
    int fd, const struct probe_order *order, bool sends, struct probe_report *report);

#endif
