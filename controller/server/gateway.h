#ifndef MESHPERF_GATEWAY_H
#define MESHPERF_GATEWAY_H

// The controller's two ROUTER sockets and the connections behind them: agents on TCP, operators on
// an endpoint of their own. Reads whole messages with the sender's key, which is the User-Id that
// ZAP gave the connection and comes with every payload frame; a claimed name plays no part.
//
// Each connection has budgets: messages a second in, a bounded queue out. A connection that breaks
// them is cut off and the others do not notice. Nothing here blocks. Belongs to the control thread;
// the ZAP handler must exist before gateway_new.

#include <czmq.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "identity.h"

#define GATEWAY_QUEUE_MESSAGES 64
#define GATEWAY_QUEUE_BYTES (4 * 1024 * 1024)
#define GATEWAY_IPC_PATH_MAX 100
#define GATEWAY_ROUTING_ID_MAX 16 // automatic ones have 5 bytes; longer ones are not served
#define GATEWAY_AGENT_RATE 2000   // messages a second, sustained, with twice that at once
#define GATEWAY_OPERATOR_RATE 20000
#define GATEWAY_IDLE_NS (60 * NS_PER_S) // a silent connection is forgotten

enum gateway_side { GATEWAY_AGENTS, GATEWAY_OPERATORS };

// Names a connection for later; finding fails once the connection is gone.
struct peer_ref {
    uint64_t number; // never used again
    char id[2 * GATEWAY_ROUTING_ID_MAX + 1];
};

// One connection. Valid until `gone` was called for it.
struct peer {
    struct peer_ref ref;
    enum gateway_side side;
    uint8_t key[IDENTITY_KEY_SIZE];
    char address[64]; // numeric, or "this host"
};

struct gateway_ops {
    void *ctx;
    // A whole message; `bytes` are borrowed. False: cut this connection off.
    bool (*message)(void *ctx, struct peer *peer, const void *bytes, size_t size);
    // The connection is no more, for a reason in words. Called from gateway_turn only.
    void (*gone)(void *ctx, struct peer *peer, const char *reason);
};

typedef struct gateway gateway_t;

// Binds both sockets. NULL with a sentence in `error` (512 bytes).
gateway_t *gateway_new(const char *listen, const char *operator_listen, const struct identity *key,
    const struct clock *clock, const struct gateway_ops *ops, char *error);
void gateway_destroy(gateway_t **self_p);

zsock_t *gateway_socket(gateway_t *self, enum gateway_side side);
const char *gateway_endpoint(gateway_t *self, enum gateway_side side); // as bound, ports resolved

// Reads what waits, a bounded number of messages. True if there may be more.
bool gateway_read(gateway_t *self, enum gateway_side side);
// Sends what was queued, tells of connections that ended. Call after anything happened.
void gateway_turn(gateway_t *self);
// True while something waits to be sent: call gateway_turn again within some 20 ms.
bool gateway_pending(const gateway_t *self);

// 0 (sent or queued), -EAGAIN (its queue is full: the connection will be cut off), or
// MESH_E_NOT_FOUND (it is gone). `bytes` are copied.
int gateway_send(gateway_t *self, struct peer *peer, const void *bytes, size_t size)
    __attribute__((warn_unused_result));
struct peer *gateway_find(gateway_t *self, const struct peer_ref *ref); // NULL: gone
// From now on nothing of it is heard; the TCP connection is shut down at its next message.
void gateway_cut(gateway_t *self, struct peer *peer, const char *reason);

#endif
