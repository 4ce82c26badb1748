#include "clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t clock_mono_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

static int64_t system_mono(void *ctx)
{
    (void)ctx;
    return clock_mono_ns();
}

static int64_t system_wall(void *ctx)
{
    (void)ctx;
    return clock_wall_ns();
}

const struct clock clock_system = {.mono_ns = system_mono, .wall_ns = system_wall};

void clock_iso8601(int64_t wall_ns, char text[CLOCK_ISO_SIZE])
{
    time_t seconds = (time_t)(wall_ns / NS_PER_S);
    int64_t rest = wall_ns % NS_PER_S;
    if (rest < 0) {
        rest += NS_PER_S;
        seconds--;
    }
    struct tm parts;
    char date[64];
    if (!gmtime_r(&seconds, &parts) || parts.tm_year > 9999 - 1900 || parts.tm_year < -1900) {
        seconds = 0;
        gmtime_r(&seconds, &parts);
    }
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    char whole[96];
    snprintf(whole, sizeof whole, "%s.%03dZ", date, (int)(rest / NS_PER_MS));
    snprintf(text, CLOCK_ISO_SIZE, "%.24s", whole);
}
