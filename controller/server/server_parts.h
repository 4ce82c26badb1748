#ifndef MESHPERF_SERVER_PARTS_H
#define MESHPERF_SERVER_PARTS_H

// What the server's sources share; no other part includes this.
//
//   server.c                   the loop, and the director's way out
//   startup.c                  loads and opens
//   messages.c                 what agents say
//   sessions.c, enrol.c        agents that are there, hosts that join
//   operators.c                what operators ask
//   admin_*.c checks.c runs.c  and what is done about it
//   answers.c                  how they are told

#include <czmq.h>
#include <stdbool.h>
#include <stdint.h>

#include "credentials.h"
#include "director.h"
#include "gateway.h"
#include "registry.h"
#include "sequences.h"
#include "server.h"
#include "store.h"
#include "timers.h"
#include "wire.h"
#include "zap.h"

#define SERVER_ADMIN "admin" // the operator of the context that the first start writes
#define SERVER_ENDPOINT_SIZE IDENTITY_ENDPOINT_SIZE
#define ID_SIZE 16

enum { LABELS_OWN, LABELS_TOKEN, LABELS_OPERATOR, LABELS_STRENGTHS };

// A process of an agent that said HELLO and was welcomed.
struct session {
    struct member *member;
    struct peer_ref peer;
    bool connected; // the connection is not known to have ended
    uint8_t id[ID_SIZE];
    int64_t since_wall_ns;
    int64_t since_mono_ns;
    char host[128]; // its address and hostname, for people
};

// A HELLO of another process with the same key, held until the present one proved to be alive.
struct newcomer {
    struct peer_ref peer;
    Mp__Hello *hello;
    uint64_t nonce;
    uint64_t timer;
};

// The server's part of an agent, beside struct agent in the registry.
struct member {
    struct server *server;
    uint32_t agent_id;
    // By strength. The operator's may have an empty value: it hides a weaker label.
    struct label *labels[LABELS_STRENGTHS];
    size_t label_count[LABELS_STRENGTHS];
    uint8_t *hello; // packed, of the last registration; what the store has
    size_t hello_size;
    bool enrolling; // not committed yet
    bool instance_known;
    uint8_t instance[ID_SIZE];
    struct sequences sequences;
    bool ack_due;
    struct session *session;   // NULL: not there
    struct newcomer *newcomer; // NULL: none
};

// Where an operator's answer goes, kept while the store works.
struct reply {
    struct server *server;
    void *place; // in server.replies
    struct peer_ref peer;
    uint64_t request;
    bool has_request;
    char who[IDENTITY_NAME_SIZE];
    Mp__Role role;
    char object[128]; // what the request was about
    char text[256];   // of DONE
    uint64_t since;   // EVENTS
    uint32_t limit;
    char *secret; // token or context to hand out once; wiped and freed
};

struct rate {
    double level;
    int64_t filled_mono_ns;
};

struct server {
    const struct clock *clock;
    int lock_fd;
    char state_dir[256];
    char context_path[300];
    char endpoint[SERVER_ENDPOINT_SIZE];
    char operator_endpoint[SERVER_ENDPOINT_SIZE];
    struct identity key;
    uint64_t epoch;
    int64_t started_mono_ns;

    timers_t *timers;
    store_t *store;
    zap_t *zap;
    gateway_t *gateway;
    registry_t *registry;
    credentials_t *credentials;
    director_t *director;

    struct member **members; // by agent id
    size_t member_room;
    zlistx_t *replies;      // struct reply, owned
    struct reply *starting; // the RUN_REQUEST that director_start is working on
    const void *starting_policy; // its text, if it is a check
    size_t starting_policy_size;
    struct uploads *uploads; // policies that arrive in parts; NULL: none did yet
    zlistx_t *acks;         // struct member with ack_due
    struct rate hellos;
    struct rate complaints; // log lines about what peers do
    int64_t director_due_mono_ns;
    char trouble[512];    // of the store, as last told to the director
    bool read_only;       // the database could not be written at the start
    zlistx_t *enrolments; // those that wait for their commit
};

// ---- server.c
struct member *server_member(struct server *self, uint32_t agent_id); // NULL: none
struct member *server_member_add(struct server *self, uint32_t agent_id);
void server_member_remove(struct server *self, uint32_t agent_id);
int server_send(struct server *self, struct peer *peer, Mp__Envelope *envelope);
void server_refuse(struct server *self, struct peer *peer, Mp__Refused__Code code,
    const char *format, ...) __attribute__((format(printf, 4, 5)));
// A line about a peer's doing, at most a few a second.
void server_complain(struct server *self, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
bool rate_take(struct rate *rate, double per_s, double burst, int64_t now_mono_ns);

// ---- startup.c
bool startup_load(struct server *self, char *error); // keys, database, what is in it
void startup_admit(struct server *self);             // fills ZAP
bool startup_open(struct server *self, const struct server_options *options, char *error);
bool startup_resume(struct server *self, char *error);  // unfinished runs
bool startup_context(struct server *self, char *error); // the operator's file
void member_zap(struct server *self, const struct agent *agent);
void token_zap(struct server *self, const struct token *token, int64_t grace_ns);
void operator_zap(struct server *self, const struct operator_ *operator_);
// The labels of all strengths -> agent->labels.
void member_apply_labels(struct server *self, struct member *member, struct agent *agent);
void member_set_labels(struct member *member, int strength, Mp__Label *const *labels, size_t count);
// A validated HELLO -> the agent's addresses, capabilities, ...
void agent_apply_hello(struct agent *agent, const Mp__Hello *hello);
void member_persist(struct server *self, struct member *member, store_done *done, void *ctx);

// ---- messages.c: false cuts the connection off
bool agents_message(struct server *self, struct peer *peer, const void *bytes, size_t size);

// ---- sessions.c
// The session that lives on this connection; NULL: none.
struct session *session_of(struct server *self, const struct peer *peer);
void session_begin(
    struct server *self, struct peer *peer, struct agent *agent, const Mp__Hello *hello);
void session_send(struct server *self, struct session *session, Mp__Envelope *envelope);
void session_end(struct server *self, struct session *session, bool orderly, const char *reason);
void session_peer_gone(struct server *self, struct peer *peer, const char *reason);
void sessions_sweep(void *server, int64_t now_mono_ns);
void sessions_acknowledge(struct server *self);
// Holds a HELLO and asks the present process whether it is alive. False if it certainly is not.
bool newcomer_hold(
    struct server *self, struct member *member, struct peer *peer, const Mp__Hello *hello);
void newcomer_refuse(struct server *self, struct member *member); // the present one answered
void newcomer_drop(struct server *self, struct member *member);

// ---- enrol.c
void token_persist(struct server *self, const struct token *token, store_done *done, void *ctx);
void enrol_handle(struct server *self, struct peer *peer, const Mp__Enrol *enrol);

// ---- answers.c
struct reply *reply_new(struct server *self, struct peer *peer, const struct operator_ *operator_,
    const Mp__Envelope *question);
void reply_free(struct reply **reply_p);
// Each of these answers and frees the reply.
void reply_send(struct reply **reply_p, Mp__Envelope *envelope);
void reply_done(struct reply **reply_p, const char *text);
void reply_refuse(struct reply **reply_p, Mp__Refused__Code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void reply_committed(void *reply, int error); // a store_done: DONE, or STORAGE
void reply_refuse_storage(struct reply **reply_p, int error);
void reply_audit(struct reply *reply, const char *what, const char *object, const char *detail);
// A part of a list: grows with each entry until it is full.
#define PAGE_ENTRIES_MAX 500 // besides the bytes
struct page {
    size_t count;
    size_t bytes;
};
bool page_takes(struct page *page, const ProtobufCMessage *entry);
const char *labels_text(Mp__Label *const *labels, size_t count, char *text, size_t size);

// ---- operators.c: the dispatch; admin_*.c, checks.c, runs.c: the handlers. Each takes the reply.
const char *role_word(Mp__Role role);
typedef void operator_handler(struct server *self, struct reply *reply, Mp__Envelope *question);
bool operators_message(struct server *self, struct peer *peer, const void *bytes, size_t size);
operator_handler admin_agents, admin_agent_change, admin_token_create, admin_tokens,
    admin_token_revoke, admin_operator_add, admin_operators, admin_operator_remove, admin_audit,
    admin_status;
operator_handler runs_request, runs_cancel, runs_list, runs_show, runs_cells, runs_events;
operator_handler checks_part, checks_policy; // checks.c
void checks_destroy(struct server *self);
void runs_new_saved(void *reply, int error); // a store_done

#endif
