#ifndef MESHPERF_CLOCK_H
#define MESHPERF_CLOCK_H

// Two clocks that are never mixed: _mono_ns for intervals and deadlines (CLOCK_MONOTONIC), _wall_ns
// for dates that people read (CLOCK_REALTIME, since the Unix epoch).

#include <stdint.h>

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

int64_t clock_mono_ns(void);
int64_t clock_wall_ns(void);

// A source of time that tests can own. `ctx` is handed to both functions.
struct clock {
    int64_t (*mono_ns)(void *ctx);
    int64_t (*wall_ns)(void *ctx);
    void *ctx;
};

extern const struct clock clock_system;

static inline int64_t clock_mono(const struct clock *clock)
{
    return clock->mono_ns(clock->ctx);
}

static inline int64_t clock_wall(const struct clock *clock)
{
    return clock->wall_ns(clock->ctx);
}

// "2026-11-23T10:00:00.000Z" into `text` (at least 25 bytes).
#define CLOCK_ISO_SIZE 25
void clock_iso8601(int64_t wall_ns, char text[CLOCK_ISO_SIZE]);

#endif
