#ifndef MESHPERF_CGROUP_H
#define MESHPERF_CGROUP_H

// The CPU quota of this process's control group and of those above it, versions 1 and 2 (Linux
// Documentation/admin-guide/cgroup-v2.rst, "cpu.max", "cpu.stat"; scheduler/sched-bwc.rst).

#include <stdint.h>

struct cgroup_cpu {
    double quota_cores;      // the tightest; NAN: none
    uint64_t throttled_ns;   // so far, in that group, or in our own if there is no quota
};

// Never fails: what cannot be read is absent (NAN, 0).
void cgroup_cpu_read(struct cgroup_cpu *cpu);

#endif
