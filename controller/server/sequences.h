#ifndef MESHPERF_SEQUENCES_H
#define MESHPERF_SEQUENCES_H

// Which results of one agent process have arrived, and which need no more keeping there. Results
// are numbered from 1 for each process; the acknowledgement is cumulative, so it stops below the
// first result that is not safe yet. Pure.
//
// A controller that was restarted does not know what its former life acknowledged; agents resend
// in order, so the first number it sees becomes the base.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEQUENCES_WINDOW 1024 // agents keep at most 64 on the way

struct sequences {
    bool based;                       // `acknowledged` means something
    uint64_t acknowledged;            // this and all below are safe
    uint8_t states[SEQUENCES_WINDOW]; // of acknowledged + 1 + i, as a ring by number
};

enum sequence_verdict {
    SEQUENCE_FRESH,     // hand it on; sequences_done comes later
    SEQUENCE_DUPLICATE, // it is being worked on
    SEQUENCE_SAFE,      // acknowledge again
    SEQUENCE_BEYOND,    // outside the window: not taken, the agent keeps it
};

void sequences_reset(struct sequences *self);
enum sequence_verdict sequences_arrive(struct sequences *self, uint64_t sequence);
// This one is safe. True if the cumulative acknowledgement grew.
bool sequences_done(struct sequences *self, uint64_t sequence);

#endif
