#ifndef MESHPERF_WIRE_H
#define MESHPERF_WIRE_H

// The border of the control plane: Envelope <-> bytes. wire_unpack is the only way in: it checks the
// size, unpacks with a budgeted allocator, checks version, the sender's role and state against one
// table, and runs the message's validator. What it returns can be trusted to be well formed; what
// it refuses has cost no more memory than the budget. Nothing a peer sent is ever packed again.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "meshperf.pb-c.h"

#define PROTO_VERSION 1
#define PROTO_VERSION_MIN 1                    // one version back is spoken, once there is one
#define WIRE_MESSAGE_MAX (256 * 1024)          // ZMQ_MAXMSGSIZE of every socket
#define WIRE_PART_BYTES (128 * 1024)           // lists are split so that a part stays under this
#define WIRE_MEMORY_MAX (4 * 1024 * 1024)      // an unpacked message may use at most this

// Who sends. A bit mask in the table; exactly one bit for a sender.
enum wire_role {
    WIRE_ENROL = 1,         // holder of a join token
    WIRE_AGENT = 2,
    WIRE_VIEWER = 4,
    WIRE_OPERATOR = 8,
    WIRE_ADMIN = 16,
    WIRE_CONTROLLER = 32,
};

// May this message be sent before (outside) a session, inside one, or both? Only agents have sessions.
enum wire_state { WIRE_OUTSIDE = 1, WIRE_INSIDE = 2 };

struct wire_rule {
    Mp__Envelope__BodyCase body;
    const char *name;       // "HELLO", for logs
    unsigned roles;         // who may send it
    unsigned states;        // agents: wire_state bits
    bool mutates;           // operators: a change, so it is an audit row
};
const struct wire_rule *wire_rule(Mp__Envelope__BodyCase body);  // NULL for an unknown body
const char *wire_name(const Mp__Envelope *envelope);

// NULL on refusal, with the code in *error (MESH_E_TOO_LARGE, _DECODE, _VERSION, _FORBIDDEN,
// _INVALID) and a short sentence in `text` (256 bytes, may be NULL). Free with wire_free.
// `in_session` says whether this peer has a session (operators and the controller: true).
// On MESH_E_VERSION the peer's version is in *peer_version if not NULL.
Mp__Envelope *wire_unpack(const void *bytes, size_t size, enum wire_role sender, bool in_session,
    int *error, char *text);
void wire_free(Mp__Envelope **envelope_p);

// Packs into a fresh buffer that the caller frees with free(); NULL if over WIRE_MESSAGE_MAX.
// Sets version to PROTO_VERSION when it is 0.
uint8_t *wire_pack(Mp__Envelope *envelope, size_t *size);

// Packed size of any message against the part limit, for splitting lists.
size_t wire_packed_size(const ProtobufCMessage *message);

// A stored Cell (SQLite blob) is bytes from outside too: size, unpack, validate. NULL if bad.
// Free with mp__cell__free_unpacked (cell, NULL).
Mp__Cell *wire_cell_unpack(const void *bytes, size_t size);
Mp__RunRequest *wire_run_request_unpack(const void *bytes, size_t size);

// A deep copy of any message through its packed form, for handing to another thread or keeping.
ProtobufCMessage *wire_copy(const ProtobufCMessage *message);

#endif
