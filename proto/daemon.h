#ifndef MESHPERF_DAEMON_H
#define MESHPERF_DAEMON_H

// What both daemons do before and beside their work. Called from main.c only.

// The protocol of sd_notify(3): tells the service manager "READY=1", "STOPPING=1". Without one
// nothing happens.
void daemon_notify(const char *state);

// Raises the limit of open files to the hard one and returns it; -errno if it is not known.
long long daemon_raise_file_limit(void);

// A descriptor that becomes readable at SIGTERM and SIGINT, or -1. Before any thread starts: all of
// them inherit that the signals are blocked. SIGPIPE is ignored.
int daemon_signals(void);

// Gives back memory that only the start needed: free heap, and pages of program code, which the
// kernel reads again from its cache if they are used once more. Any time, any thread.
void daemon_shed_start(void);

#endif
