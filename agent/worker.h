#ifndef MESHPERF_WORKER_H
#define MESHPERF_WORKER_H

// A measuring thread beside the control thread, and the pipe of PAIR sockets between them. Values
// travel over it, never pointers. Belongs to the control thread.

#include <czmq.h>
#include <pthread.h>

struct worker {
    zsock_t *pipe; // the control thread's end
    pthread_t thread;
    bool runs;
};

// Starts `body` with its assignment (heap), of which *pipe becomes the thread's end: both are the
// thread's then. False: there is no thread, and the assignment is freed.
bool worker_start(struct worker *self, void *(*body)(void *), void *assignment, zsock_t **pipe);
// Waits for a thread that was told to end, and closes the pipe.
void worker_end(struct worker *self);

#endif
