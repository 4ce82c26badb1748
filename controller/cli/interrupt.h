#ifndef MESHPERF_INTERRUPT_H
#define MESHPERF_INTERRUPT_H

// Ctrl-C of a command that starts or follows a run: the first press asks (cancel the run, or stop
// watching it), a second one leaves at once with EXIT_CANCELLED. It is caught from before the
// question that starts a run, so that no press can fall between the start and the watching and
// leave a run behind that nobody follows.

#include <stdbool.h>

struct cli;

// From here to interrupt_release a press is kept and ends what waits in cli_ask or cli_try, unless
// the question may have started something: that answer is waited for.
void interrupt_catch(struct cli *cli);
void interrupt_release(struct cli *cli);

bool interrupt_pressed(void);
void interrupt_answered(void); // the first press was acted upon

// Questions that must have their answer also after a press stand between these two.
void interrupt_hold(struct cli *cli);
void interrupt_resume(struct cli *cli);

#endif
