#ifndef MESHPERF_CPU_H
#define MESHPERF_CPU_H

// What a test cost this host over its window: the CPU time of its own threads and their wait in
// the run queue (schedstat's second field), of the one that needed most of a core; the core that
// did most for tests (its threads, interrupts with what they left to do, and what a hypervisor
// stole); packets that the kernel dropped before any socket (softnet_stat); time that the control
// group's quota took away. Other programs count only as far as they made the test wait.
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
