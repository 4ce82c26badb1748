#include <stdlib.h>
#include <sys/timex.h>

#include "clock.h"
#include "light_parts.h"

#define READINGS 3
#define GOOD_READING_NS 500
#define ERROR_AGE_NS NS_PER_S
#define OFFSET_AGE_NS (NS_PER_S / 2)
#define CHANGE_NS (20 * NS_PER_US)
// Two clocks cannot be read at the same instant.
#define SLACK_NS (50 * NS_PER_US)

// The wall clock between two readings of the other one; the closest pair of several, as the program
// may have been put off in between.
static int64_t offset_now(void)
{
    int64_t best = 0, closest = INT64_MAX;
    for (int i = 0; i < READINGS && closest > GOOD_READING_NS; i++) {
        int64_t before = clock_mono_ns(), wall = clock_wall_ns(), after = clock_mono_ns();
        if (after - before < closest) {
            closest = after - before;
            best = wall - (before + (after - before) / 2);
        }
    }
    return best;
}

void light_clock_read(struct light_clock *self)
{
    // Most often nothing has changed, and on some machines reading a clock is dear.
    int64_t now = clock_mono_ns();
    int64_t moved = clock_wall_ns() - now - self->offset_ns;
    if (moved < -CHANGE_NS || moved > CHANGE_NS || now - self->offset_mono_ns > OFFSET_AGE_NS) {
        self->offset_ns = offset_now();
        self->offset_mono_ns = now;
    }
    if (self->error_mono_ns && now - self->error_mono_ns < ERROR_AGE_NS)
        return;
    struct timex kernel = {.modes = 0};
    int state = adjtimex(&kernel);
    bool synchronised = state >= 0 && state != TIME_ERROR && !(kernel.status & STA_UNSYNC);
    self->error_ns = synchronised ? (int64_t)kernel.maxerror * NS_PER_US : -1;
    self->error_mono_ns = now;
}

// A stamp of the wall clock by the monotonic clock, if it fits between two readings of that: by
// what the clocks differed by before or after a step.
static bool to_mono(int64_t wall_ns, int64_t likely_ns, int64_t other_ns, int64_t from_ns,
    int64_t to_ns, int64_t *mono_ns)
{
    const int64_t offsets[] = {likely_ns, other_ns};
    for (int i = 0; i < 2; i++) {
        *mono_ns = wall_ns - offsets[i];
        if (*mono_ns >= from_ns - SLACK_NS && *mono_ns <= to_ns + SLACK_NS)
            return true;
    }
    return false;
}

bool light_round(const struct light_asked *asked, const struct light_datagram *answer,
    int64_t t4_wall_ns, int64_t offset_ns, int64_t now_mono_ns, struct light_sample *sample)
{
    int64_t t1, t4, stayed = answer->t3_ns - answer->t2_ns;
    if (!to_mono(asked->t1_wall_ns, asked->offset_ns, offset_ns, asked->asked_mono_ns, now_mono_ns,
            &t1) ||
        !to_mono(t4_wall_ns, offset_ns, asked->offset_ns, t1, now_mono_ns, &t4))
        return false;
    // The far end cannot have kept it for longer than the whole took.
    if (stayed < -SLACK_NS || stayed > t4 - t1 + SLACK_NS)
        return false;
    int64_t rtt = t4 - t1 - stayed;
    *sample = (struct light_sample){.rtt_ns = rtt > 0 ? rtt : 0,
        .forward_ns = answer->t2_ns - t1,
        .backward_ns = t4 - answer->t3_ns,
        .at_ns = t1,
        .clocks_ns = answer->offset_ns - offset_ns,
        .flow = (uint16_t)answer->flow};
    return true;
}
