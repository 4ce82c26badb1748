#ifndef MESHPERF_REACH_THREAD_H
#define MESHPERF_REACH_THREAD_H

// The thread of all port probes: drives the engine's batches by their events and deadlines. Private
// to reaches.c. Values travel over a pipe of PAIR sockets, never pointers: an order is a frame
// `struct reach_order` and a frame of `count` values (REACH_ARM: struct reach_peer; REACH_GO: bool,
// or none); an answer is a frame `struct reach_answer` and one of `count` values (REACH_OPENED:
// bool, a service has the port; the others: struct reach_outcome, of both ends' peers in the order
// of arming).

#include <czmq.h>

#include "guard.h"
#include "path.h"
#include "reach.h"

enum reach_order_kind { REACH_ARM, REACH_OPEN, REACH_GO, REACH_CLOSE, REACH_STOP, REACH_QUIT };
enum reach_answer_kind { REACH_OPENED, REACH_PROBED, REACH_HEARD };

struct reach_order {
    enum reach_order_kind kind;
    uint8_t batch[TICKET_ID_SIZE];
    struct testspec spec;
    size_t count;
};

struct reach_answer {
    enum reach_answer_kind kind;
    uint8_t batch[TICKET_ID_SIZE];
    size_t count;
};

struct reach_assignment {
    zsock_t *pipe; // the thread's
    struct guard guard;
};

// Body of the thread; takes the assignment (heap). Ends after REACH_QUIT.
void *reach_thread(void *assignment);

#endif
