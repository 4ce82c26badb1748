#include "cpu.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"
#include "record.h"

#define CORES_MAX 1024
#define KERNEL_INVOLVED 0.1 // a core with more interrupts than this works for some test

struct core_time {
    uint64_t busy, kernel, steal, all; // jiffies; kernel: interrupts and what they left to do
};

struct sample {
    int64_t at_mono_ns;
    int64_t cpu_ns[CPU_THREADS_MAX], wait_ns[CPU_THREADS_MAX]; // -1: unknown
    int core[CPU_THREADS_MAX];                                 // where it ran last, -1: unknown
    struct core_time cores[CORES_MAX];
    size_t core_count;
    uint64_t softnet_dropped, interface_dropped, throttled_ns, allowance_exceeded;
};

struct cpu {
    pid_t tids[CPU_THREADS_MAX];
    size_t thread_count;
    char interface[32];
    struct sample begin, end;
};

cpu_t *cpu_new(void)
{
    cpu_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    return self;
}

void cpu_destroy(cpu_t **self_p)
{
    free(*self_p);
    *self_p = NULL;
}

void cpu_watch(cpu_t *self, pid_t tid)
{
    if (self->thread_count < CPU_THREADS_MAX)
        self->tids[self->thread_count++] = tid;
}

// A thread's CPU clock, as the kernel encodes it: the complement of its id over three type bits.
static int64_t thread_cpu_ns(pid_t tid)
{
    struct timespec used;
    clockid_t id = (clockid_t)((~(unsigned)tid << 3) | 6u);
    if (clock_gettime(id, &used) < 0)
        return -1;
    return used.tv_sec * NS_PER_S + used.tv_nsec;
}

static int64_t thread_wait_ns(pid_t tid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", (int)tid);
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    long long ran, waited;
    int fields = fscanf(file, "%lld %lld", &ran, &waited);
    fclose(file);
    return fields == 2 ? waited : -1;
}

// Field 39 of stat; the command in field 2 may contain anything, so fields count from its last ')'.
static int thread_core(pid_t tid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    bool read = fgets(line, sizeof line, file);
    fclose(file);
    char *at = read ? strrchr(line, ')') : NULL;
    for (int field = 2; at && field < 39; field++)
        at = strchr(at + 1, ' ');
    return at ? atoi(at + 1) : -1;
}

static void read_cores(struct sample *sample)
{
    FILE *file = fopen("/proc/stat", "re");
    char line[512];
    sample->core_count = 0;
    while (file && fgets(line, sizeof line, file)) {
        unsigned number;
        unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;
        if (sscanf(line, "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &number, &user, &nice,
                &system, &idle, &iowait, &irq, &softirq, &steal) != 9 ||
            number >= CORES_MAX || line[3] == ' ')
            continue;
        struct core_time *core = &sample->cores[number];
        core->busy = user + nice + system + irq + softirq + steal;
        core->kernel = irq + softirq + steal;
        core->steal = steal;
        core->all = core->busy + idle + iowait;
        if (number >= sample->core_count)
            sample->core_count = number + 1;
    }
    if (file)
        fclose(file);
}

static uint64_t read_softnet(void)
{
    FILE *file = fopen("/proc/net/softnet_stat", "re");
    if (!file)
        return PROBE_ABSENT;
    char line[512];
    uint64_t dropped = 0;
    unsigned processed, drops;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "%x %x", &processed, &drops) == 2)
            dropped += drops;
    fclose(file);
    return dropped;
}

static void take(const cpu_t *self, struct sample *sample)
{
    sample->at_mono_ns = clock_mono_ns();
    for (size_t i = 0; i < self->thread_count; i++) {
        sample->cpu_ns[i] = thread_cpu_ns(self->tids[i]);
        sample->wait_ns[i] = thread_wait_ns(self->tids[i]);
        sample->core[i] = thread_core(self->tids[i]);
    }
    read_cores(sample);
    sample->softnet_dropped = read_softnet();
    struct cgroup_cpu quota;
    cgroup_cpu_read(&quota);
    sample->throttled_ns = quota.throttled_ns;
    sample->interface_dropped = record_interface_dropped(self->interface);
    sample->allowance_exceeded = record_allowance_exceeded(self->interface);
}

void cpu_watch_interface(cpu_t *self, const char *name)
{
    snprintf(self->interface, sizeof self->interface, "%s", name);
}

void cpu_begin(cpu_t *self)
{
    take(self, &self->begin);
}

// What the test's threads used of a core, as a share: each by where it was at the begin and the
// end.
static double own_share(const cpu_t *self, size_t core, double span_ns)
{
    double used_ns = 0;
    for (size_t i = 0; i < self->thread_count; i++) {
        int64_t from = self->begin.cpu_ns[i], to = self->end.cpu_ns[i];
        int times = (self->begin.core[i] == (int)core) + (self->end.core[i] == (int)core);
        if (from >= 0 && to > from)
            used_ns += (double)(to - from) * times / 2;
    }
    return used_ns / span_ns;
}

// Only what the test may have caused counts: another program that fills a core limits the test when
// its threads wait, which they tell themselves; interrupts take the core away from anybody.
static double busiest_core(const cpu_t *self, double span_ns, double *steal)
{
    double most = NAN;
    for (size_t i = 0; i < self->end.core_count && i < self->begin.core_count; i++) {
        const struct core_time *from = &self->begin.cores[i], *to = &self->end.cores[i];
        if (to->all <= from->all || to->busy < from->busy)
            continue;
        double all = (double)(to->all - from->all);
        double busy = (double)(to->busy - from->busy) / all;
        double kernel = (double)(to->kernel - from->kernel) / all;
        double own = own_share(self, i, span_ns);
        double share = fmin(busy, kernel + own);
        if (!(own > 0 || kernel > KERNEL_INVOLVED) || most >= share)
            continue;
        most = share;
        *steal = (double)(to->steal - from->steal) / all;
    }
    return most;
}

// The thread that needed most of a core, the time that it waited for one included.
static void busiest_thread(const cpu_t *self, double span_ns, struct probe_load *load)
{
    const struct sample *from = &self->begin, *to = &self->end;
    double most = -1, cores = 0;
    for (size_t i = 0; i < self->thread_count; i++) {
        if (from->cpu_ns[i] < 0 || to->cpu_ns[i] < from->cpu_ns[i])
            continue;
        double ran = (double)(to->cpu_ns[i] - from->cpu_ns[i]) / span_ns, waited = NAN;
        if (from->wait_ns[i] >= 0 && to->wait_ns[i] >= from->wait_ns[i])
            waited = (double)(to->wait_ns[i] - from->wait_ns[i]) / span_ns;
        cores += ran;
        load->cores = cores;
        double needed = ran + (isnan(waited) ? 0 : waited);
        if (needed <= most)
            continue;
        most = needed;
        load->busiest_thread = ran;
        load->run_queue_wait = waited;
    }
}

// What a counter grew by; absent if it was, or began anew.
static uint64_t grown(uint64_t from, uint64_t to)
{
    bool known = from != PROBE_ABSENT && to != PROBE_ABSENT && to >= from;
    return known ? to - from : PROBE_ABSENT;
}

void cpu_end(cpu_t *self, struct probe_load *load)
{
    take(self, &self->end);
    const struct sample *from = &self->begin, *to = &self->end;
    double span = (double)(to->at_mono_ns - from->at_mono_ns);
    if (span <= 0)
        return;
    busiest_thread(self, span, load);
    load->busiest_core = busiest_core(self, span, &load->steal);
    // Each of several threads may be held: the sum can exceed the time.
    if (to->throttled_ns >= from->throttled_ns)
        load->throttled = fmin((double)(to->throttled_ns - from->throttled_ns) / span, 1);
    load->allowance_exceeded = grown(from->allowance_exceeded, to->allowance_exceeded);
    load->softnet_dropped = grown(from->softnet_dropped, to->softnet_dropped);
    load->interface_dropped = grown(from->interface_dropped, to->interface_dropped);
}
