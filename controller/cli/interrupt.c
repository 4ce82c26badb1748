#include "interrupt.h"

#include <signal.h>
#include <unistd.h>

#include "cli.h"

// Set by the signal handler, as they must be. The count is never taken back: a second Ctrl-C leaves
// at once, also while the first one's cancel waits for its answer.
static volatile bool pressed;
static volatile sig_atomic_t presses;
static struct sigaction before;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    presses = presses + 1;
    if (presses > 1)
        _exit(EXIT_CANCELLED);
    pressed = true;
}

void interrupt_catch(struct cli *cli)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    pressed = false;
    presses = 0;
    sigaction(SIGINT, &action, &before);
    interrupt_resume(cli);
}

void interrupt_release(struct cli *cli)
{
    interrupt_hold(cli);
    sigaction(SIGINT, &before, NULL);
}

bool interrupt_pressed(void)
{
    return pressed;
}

void interrupt_answered(void)
{
    pressed = false;
}

void interrupt_hold(struct cli *cli)
{
    cli->interrupted = NULL;
}

void interrupt_resume(struct cli *cli)
{
    cli->interrupted = &pressed;
}
