#ifndef MESHPERF_CPU_H
#define MESHPERF_CPU_H

// What a test cost this host over its window: the CPU time of the test's own threads, their wait in
// the run queue (schedstat's second field), the busiest core that took part (softirq and steal
// count as busy), and packets that the kernel dropped before any socket (softnet_stat),
// time that the control group's quota took away, and that the hypervisor did.
// One object per test; begin and end may be called from any one thread of the process.

#include <sys/types.h>

#include "probe.h"

#define CPU_THREADS_MAX 20

typedef struct cpu cpu_t;

cpu_t *cpu_new(void);
void cpu_destroy(cpu_t **self_p);
// Before cpu_begin. `tid` is a thread of this process that lives until cpu_end (see gettid).
void cpu_watch(cpu_t *self, pid_t tid);
// Before cpu_begin: the interface whose provider's allowances are looked at, if it has any.
void cpu_watch_interface(cpu_t *self, const char *name);
void cpu_begin(cpu_t *self);
// Fills what could be read; the rest stays absent (NAN, PROBE_ABSENT).
void cpu_end(cpu_t *self, struct probe_load *load);

#endif
