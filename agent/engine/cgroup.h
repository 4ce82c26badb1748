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
// On how many cores the calling thread may run at all; 1 if that is not known.
unsigned cgroup_affinity(void);
// How many cores it may use: these, and no more than the quota.
double cgroup_cores(void);

#endif
