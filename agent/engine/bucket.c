#include "bucket.h"

#include <math.h>
#include <string.h>

#include "clock.h"

#define RATIO_LEAST 1.4
#define EXCESS_BYTES_LEAST (128.0 * 1024)
#define EXCESS_S_LEAST 0.025
#define AFTER_S_LEAST 1.0
#define POINTS_AFTER_LEAST 10
// How far the later points may lie from their line, as a share of the knee's height.
#define ASTRAY_MOST 0.3
#define ASTRAY_MEAN_MOST 0.1
#define STEP_NS (5 * NS_PER_MS)

void bucket_begin(struct bucket *self)
{
    memset(self, 0, sizeof *self);
    self->step_ns = STEP_NS;
    self->count = 1; // nothing at the beginning
}

static void thin(struct bucket *self)
{
    for (unsigned i = 0; i < BUCKET_POINTS / 2; i++)
        self->points[i] = self->points[2 * i];
    self->count = BUCKET_POINTS / 2;
    self->step_ns *= 2;
}

void bucket_add(struct bucket *self, int64_t at_ns, uint64_t bytes)
{
    if (self->count == 0 || at_ns < self->points[self->count - 1].at_ns + self->step_ns)
        return;
    if (self->count == BUCKET_POINTS)
        thin(self);
    self->points[self->count].at_ns = at_ns;
    self->points[self->count++].bytes = bytes;
}

// Bytes a second between two points.
static double slope(const struct bucket *self, unsigned from, unsigned to)
{
    double bytes = (double)self->points[to].bytes - (double)self->points[from].bytes;
    return bytes / ((double)(self->points[to].at_ns - self->points[from].at_ns) * 1e-9);
}

// How far a point lies above the line through `from` with that slope.
static double above(const struct bucket *self, unsigned from, double rate, unsigned at)
{
    double seconds = (double)(self->points[at].at_ns - self->points[from].at_ns) * 1e-9;
    return (double)self->points[at].bytes - (double)self->points[from].bytes - rate * seconds;
}

static unsigned knee_of(const struct bucket *self, unsigned last, double *highest)
{
    double chord = slope(self, 0, last);
    unsigned knee = 0;
    *highest = 0;
    for (unsigned i = 1; i < last; i++) {
        double height = above(self, 0, chord, i);
        if (height > *highest) {
            *highest = height;
            knee = i;
        }
    }
    return knee;
}

// The later points keep to their line.
static bool stays(const struct bucket *self, unsigned knee, unsigned last, double height)
{
    double rate = slope(self, knee, last), squares = 0;
    for (unsigned i = knee; i <= last; i++) {
        double astray = above(self, knee, rate, i);
        if (fabs(astray) > ASTRAY_MOST * height)
            return false;
        squares += astray * astray;
    }
    return sqrt(squares / (last - knee + 1)) <= ASTRAY_MEAN_MOST * height;
}

// Without the slow start: of the second half of the time before the fall, if there are points.
static double rate_before(const struct bucket *self, unsigned knee)
{
    unsigned from = 0;
    while (self->points[from].at_ns < self->points[knee].at_ns / 2)
        from++;
    double late = from < knee ? slope(self, from, knee) : 0, whole = slope(self, 0, knee);
    return late > whole ? late : whole;
}

void bucket_find(const struct bucket *self, int64_t end_ns, struct probe_bucket *out)
{
    unsigned last = self->count ? self->count - 1 : 0;
    *out = (struct probe_bucket){0};
    while (last > 0 && self->points[last].at_ns > end_ns)
        last--;
    double height;
    unsigned knee = last > 1 ? knee_of(self, last, &height) : 0;
    if (knee == 0 || last - knee < POINTS_AFTER_LEAST)
        return;
    double after = slope(self, knee, last), before = rate_before(self, knee);
    double excess = above(self, 0, after, knee);
    double after_s = (double)(self->points[last].at_ns - self->points[knee].at_ns) * 1e-9;
    if (after_s < AFTER_S_LEAST || before < RATIO_LEAST * after || excess < EXCESS_BYTES_LEAST ||
        excess < EXCESS_S_LEAST * after || !stays(self, knee, last, height))
        return;
    *out = (struct probe_bucket){.found = true,
        .at_s = (double)self->points[knee].at_ns * 1e-9,
        .before_bps = 8 * before,
        .after_bps = 8 * after,
        .bytes = self->points[knee].bytes};
}
