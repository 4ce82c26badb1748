// Preloaded, it steps the wall clock of one program by two hours forth and back ten times a second,
// as nobody's NTP would; the monotonic clock stays as it is.

#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STEP_S 3600
#define STEP_EVERY_NS 100000000

int clock_gettime(clockid_t id, struct timespec *now)
{
    struct timespec mono;
    int rc = (int)syscall(SYS_clock_gettime, id, now);
    if (rc != 0 || id != CLOCK_REALTIME)
        return rc;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &mono);
    now->tv_sec += mono.tv_nsec / STEP_EVERY_NS % 2 ? STEP_S : -STEP_S;
    return 0;
}
