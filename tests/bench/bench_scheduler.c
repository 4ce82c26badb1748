// How near the schedule comes to the bound, and what a decision costs. Simulated time: the tests'
// durations are drawn, nothing is measured but the scheduler itself. Prints a table, then JSON.
//
//     bench_scheduler [largest N]

#include <czmq.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bound.h"
#include "clock.h"
#include "scheduler.h"

struct example {
    uint32_t hosts;
    Mp__Mode mode;
    bool random_times;
    bool failures;   // 1 % of the tests fail after a fifth of their time, and are tried once more
    uint32_t zones;  // 0: no shared uplinks
    uint32_t uplink; // tests at once that cross a zone's boundary
};

struct finish {
    double time_s;
    uint32_t from, to;
    bool failed;
};

struct simulation {
    const struct example *example;
    uint64_t random;
    ledger_t *ledger;
    scheduler_t *scheduler;
    bound_t *bound;
    struct finish *running; // a heap by time
    size_t running_count;
    double now_s;
    uint64_t decisions;
    int64_t deciding_ns;
};

static double uniform(struct simulation *self)
{
    uint64_t x = self->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    self->random = x;
    return (double)(x >> 11) / (double)(UINT64_C(1) << 53);
}

static void heap_push(struct simulation *self, struct finish item)
{
    size_t i = self->running_count++;
    while (i > 0 && item.time_s < self->running[(i - 1) / 2].time_s) {
        self->running[i] = self->running[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    self->running[i] = item;
}

static struct finish heap_pop(struct simulation *self)
{
    struct finish top = self->running[0], last = self->running[--self->running_count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < self->running_count; i = child) {
        if (child + 1 < self->running_count &&
            self->running[child + 1].time_s < self->running[child].time_s)
            child++;
        if (self->running[child].time_s >= last.time_s)
            break;
        self->running[i] = self->running[child];
    }
    self->running[i] = last;
    return top;
}

static double draw_time_s(struct simulation *self, bool *failed)
{
    double time_s = self->example->random_times ? 0.5 + uniform(self) : 1;
    *failed = self->example->failures && uniform(self) < 0.01;
    return *failed ? time_s / 5 : time_s;
}

static void start_all(struct simulation *self)
{
    uint32_t from, to;
    for (;;) {
        int64_t before_ns = clock_mono_ns();
        bool found = scheduler_next(self->scheduler, &from, &to);
        self->deciding_ns += clock_mono_ns() - before_ns;
        if (!found)
            return;
        self->decisions++;
        bool failed;
        double time_s = draw_time_s(self, &failed);
        bound_add(self->bound, from, to, time_s, false);
        heap_push(self, (struct finish){self->now_s + time_s, from, to, failed});
    }
}

static void end_one(struct simulation *self)
{
    struct finish finish = heap_pop(self);
    self->now_s = finish.time_s;
    int64_t before_ns = clock_mono_ns();
    scheduler_release(self->scheduler, finish.from, finish.to);
    self->deciding_ns += clock_mono_ns() - before_ns;
    if (finish.failed)
        scheduler_add(self->scheduler, finish.from, finish.to);
}

static void open_simulation(struct simulation *self)
{
    const struct example *example = self->example;
    uint32_t n = example->hosts;
    struct schedule_host *hosts = zmalloc(n * sizeof *hosts);
    uint32_t *values = zmalloc(n * sizeof *values);
    struct schedule_shared shared = {example->uplink, values};
    self->ledger = ledger_new();
    self->bound = bound_new(example->mode, n);
    for (uint32_t h = 0; h < n; h++) {
        char zone[16];
        hosts[h] = (struct schedule_host){ledger_host(self->ledger, h + 1), LEDGER_NONE, 0};
        bound_host_name(self->bound, h, "host");
        if (!example->zones)
            continue;
        // Unequal zones: the first is the largest.
        snprintf(zone, sizeof zone, "%u", (uint32_t)(sqrt((double)h / n) * example->zones));
        values[h] = ledger_shared(self->ledger, "zone", zone);
        bound_host_shared(self->bound, h, "zone", zone, example->uplink);
        bound_host_label(self->bound, h, "zone", zone);
    }
    struct schedule_config config = {.mode = example->mode,
        .seed = 7,
        .host_count = n,
        .hosts = hosts,
        .shared = &shared,
        .shared_count = example->zones ? 1 : 0};
    self->scheduler = scheduler_new(self->ledger, &config);
    for (uint32_t from = 0; from < n; from++)
        for (uint32_t to = 0; to < n; to++)
            if (from != to)
                scheduler_add(self->scheduler, from, to);
    self->running = zmalloc(n * sizeof *self->running);
    free(hosts);
    free(values);
}

static void run_example(const struct example *example, FILE *json, bool first)
{
    struct simulation self = {.example = example, .random = UINT64_C(88172645463325252)};
    open_simulation(&self);
    start_all(&self);
    while (self.running_count > 0) {
        // What ends together is decided together.
        do
            end_one(&self);
        while (self.running_count > 0 && self.running[0].time_s <= self.now_s);
        start_all(&self);
    }
    double ratio = self.now_s / bound_seconds(self.bound);
    double decision_us = (double)self.deciding_ns / 1000 / (double)self.decisions;
    const char *mode = example->mode == MP__MODE__DUPLEX ? "duplex" : "isolated";
    const char *times = example->random_times ? "random" : "constant";
    printf("%6u  %-8s  %-8s  %-8s  %-6s  %12.1f  %8.4f  %10.2f%s\n", example->hosts, mode, times,
        example->failures ? "1 %" : "none", example->zones ? "shared" : "free", self.now_s, ratio,
        decision_us, scheduler_remaining(self.scheduler) ? "  INCOMPLETE" : "");
    fprintf(json,
        "%s{\"hosts\":%u,\"mode\":\"%s\",\"times\":\"%s\",\"failures\":%s,\"shared\":%s,"
        "\"makespan_s\":%.6f,\"over_bound\":%.6f,\"decision_us\":%.4f,\"decisions\":%llu}",
        first ? "" : ",\n ", example->hosts, mode, times, example->failures ? "true" : "false",
        example->zones ? "true" : "false", self.now_s, ratio, decision_us,
        (unsigned long long)self.decisions);
    free(self.running);
    scheduler_destroy(&self.scheduler);
    bound_destroy(&self.bound);
    ledger_destroy(&self.ledger);
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = {8, 9, 50, 51, 200, 1000};
    static const struct example kinds[] = {{0, MP__MODE__ISOLATED, false, false, 0, 0},
        {0, MP__MODE__ISOLATED, true, false, 0, 0}, {0, MP__MODE__ISOLATED, true, true, 0, 0},
        {0, MP__MODE__ISOLATED, false, false, 4, 2}, {0, MP__MODE__ISOLATED, true, true, 4, 2},
        {0, MP__MODE__DUPLEX, false, false, 0, 0}, {0, MP__MODE__DUPLEX, true, true, 0, 0}};
    unsigned long largest = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
    char *text = NULL;
    size_t size = 0;
    FILE *json = open_memstream(&text, &size);
    if (!json)
        return 70;
    printf(" hosts  mode      times     failures  uplink      makespan  / bound  us/decision\n");
    bool first = true;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes && sizes[s] <= largest; s++) {
            struct example example = kinds[k];
            example.hosts = sizes[s];
            run_example(&example, json, first);
            first = false;
        }
    }
    fclose(json);
    printf("{\"schema\":\"meshperf.bench.scheduler/1\",\"results\":[%s]}\n", text);
    free(text);
    return 0;
}
