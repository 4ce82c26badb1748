#ifndef MESHPERF_ZAP_H
#define MESHPERF_ZAP_H

// The ZAP handler (RFC 27): an actor that libzmq asks about every CURVE handshake. It knows all
// public keys that may speak, each with one role, and nothing else gets past it. Two domains, one
// per socket: "agents" admits join tokens and agents, "operators" admits operators.
//
// A process has one (libzmq's rule), and it must exist before any socket is bound. Changes are made
// by the control thread and have taken effect when the call returns; the actor never blocks, so
// that takes microseconds. The User-Id of an admitted connection is the Z85 of its key.

#include <stdint.h>

#include "identity.h"
#include "wire.h"

#define ZAP_DOMAIN_AGENTS "agents"
#define ZAP_DOMAIN_OPERATORS "operators"

typedef struct zap zap_t;

// Why a key that is known is refused all the same: for the log.
enum zap_standing { ZAP_ADMITTED, ZAP_REVOKED, ZAP_USED_UP };

// What a key may do. Plain data, copied.
struct zap_entry {
    uint8_t key[IDENTITY_KEY_SIZE];
    enum wire_role role;
    enum zap_standing standing;
    int64_t expires_wall_ns;        // 0: never. Judged by the wall clock at each handshake
    char label[IDENTITY_NAME_SIZE]; // name or token id, for the log
};

struct zap_counts {
    uint64_t admitted, refused, shed;
};

zap_t *zap_new(void); // NULL if there is one in this process already
void zap_destroy(zap_t **self_p);

void zap_put(zap_t *self, const struct zap_entry *entry); // adds or replaces
void zap_drop(zap_t *self, const uint8_t key[IDENTITY_KEY_SIZE]);
struct zap_counts zap_count(zap_t *self);

#endif
