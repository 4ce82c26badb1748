#ifndef MESHPERF_REGISTRY_H
#define MESHPERF_REGISTRY_H

// All agents that ever enrolled and were not removed: identity, labels, addresses, capabilities and
// whether they are there now. Plain data in memory for the control thread; no I/O, no sockets.
// The server feeds it (enrol, hello, heartbeat, time), persists changes, and tells the director.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "identity.h"
#include "meshperf.pb-c.h"

#define REGISTRY_AGENTS_MAX 20000
#define REGISTRY_LABELS_MAX 64

typedef struct registry registry_t;

struct label {
    char key[64];
    char value[64];
};

struct agent {
    uint32_t id;                  // from 1, never used again; the same after a restart
    char name[IDENTITY_NAME_SIZE];
    uint8_t key[IDENTITY_KEY_SIZE];
    struct label *labels;         // effective: `agent label` beats the token's beats --label
    size_t label_count;
    char addresses[2][46];        // at most one per family, "" = none
    size_t address_count;
    uint16_t data_port;
    char boot_id[40];             // "" until it said HELLO once
    char software[32];
    Mp__Capabilities *capabilities;  // NULL until it said HELLO once; owned
    char token[20];               // id of the token it enrolled with
    int64_t enrolled_wall_ns;
    int64_t seen_wall_ns;
    int64_t seen_mono_ns;         // last message; 0: not since the controller's start
    int64_t lost_mono_ns;         // when it was found lost; 0: it is there. At the start: the start
    double clock_offset_s;
    bool draining;
    bool target;                  // not an agent: an address that others probe; never in a registry
    uint32_t running, spooled;    // as its last heartbeat said
};

registry_t *registry_new(void);
void registry_destroy(registry_t **self_p);

// Borrowed pointers stay valid until the agent is removed.
struct agent *registry_by_id(registry_t *self, uint32_t id);
struct agent *registry_by_name(registry_t *self, const char *name);
struct agent *registry_by_key(registry_t *self, const uint8_t key[IDENTITY_KEY_SIZE]);
size_t registry_count(const registry_t *self);
struct agent *registry_next(registry_t *self, uint32_t after_id);  // by rising id; NULL at the end

// NULL if the name or key is taken or the table is full. `id` 0 chooses the next one.
struct agent *registry_add(registry_t *self, uint32_t id, const char *name,
    const uint8_t key[IDENTITY_KEY_SIZE]);
void registry_remove(registry_t *self, uint32_t id);

bool agent_connected(const struct agent *agent);   // has a session and is not lost
Mp__AgentState agent_state(const struct agent *agent, bool busy);
const char *agent_label(const struct agent *agent, const char *key);  // NULL: has none
// Can it run this kind of test? NULL if so, else why not, in words that name the agent.
const char *agent_cannot(const struct agent *agent, Mp__TestKind kind, char text[256]);

// The wire form of labels, borrowing them; NULL for none. Release with labels_release.
Mp__Label **labels_fill(const struct label *labels, size_t count);
void labels_release(Mp__Label **list);

// The wire form, borrowing from the agent; release with agent_info_release.
void agent_info_fill(const struct agent *agent, bool busy, Mp__AgentInfo *info);
void agent_info_release(Mp__AgentInfo *info);

#endif
