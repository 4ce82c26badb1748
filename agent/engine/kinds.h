#ifndef MESHPERF_KINDS_H
#define MESHPERF_KINDS_H

// The kinds of bandwidth test that are built, one table a file. probe.c lists them.

#include "probe.h"

extern const struct probe_kind probe_tcp;
extern const struct probe_kind probe_udp;
extern const struct probe_kind probe_sctp;

#endif
