#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "log.h"
#include "server_parts.h"

#define TOKEN_GRACE_NS (600 * NS_PER_S)

// One that waits for its commit.
struct enrolment {
    struct server *server;
    struct peer_ref peer;
    uint32_t agent_id;
    char token[CREDENTIALS_TOKEN_ID_SIZE];
    int waiting; // commits: the agent's and its token's
    int error;   // the first failure of them
};

static void say_enrolled(struct server *self, struct peer *peer, const char *name)
{
    Mp__Enrolled enrolled = MP__ENROLLED__INIT;
    enrolled.name = (char *)name;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_ENROLLED;
    envelope.enrolled = &enrolled;
    (void)!server_send(self, peer, &envelope);
}

void token_persist(struct server *self, const struct token *token, store_done *done, void *ctx)
{
    struct stored_token stored = {.id = token->id,
        .public_key = token->public_key,
        .created_wall_ns = token->created_wall_ns,
        .expires_wall_ns = token->expires_wall_ns,
        .uses = token->uses,
        .used = token->used,
        .revoked = token->revoked,
        .by = token->by,
        .labels = token->labels,
        .label_count = token->label_count};
    store_put_token(self->store, &stored, done, ctx);
}

static void enrolment_failed(struct server *self, struct enrolment *enrolment, int error)
{
    struct agent *agent = registry_by_id(self->registry, enrolment->agent_id);
    struct peer *peer = gateway_find(self->gateway, &enrolment->peer);
    struct token *token = credentials_token_by_id(self->credentials, enrolment->token);
    log_error("%s could not enrol: storing failed: %s", agent ? agent->name : "an agent",
        mesh_strerror(error));
    if (token && token->used > 0) {
        token->used--;
        token_persist(self, token, NULL, NULL);
    }
    if (agent) {
        store_drop_agent(self->store, agent->id, NULL, NULL);
        server_member_remove(self, agent->id);
        registry_remove(self->registry, enrolment->agent_id);
    }
    if (peer)
        server_refuse(self, peer, MP__REFUSED__CODE__STORAGE,
            "the controller cannot store new agents at present: %s", mesh_strerror(error));
}

static void enrolment_committed(void *ctx, int error)
{
    struct enrolment *enrolment = ctx;
    struct server *self = enrolment->server;
    if (enrolment->error == 0)
        enrolment->error = error;
    if (--enrolment->waiting > 0)
        return;
    error = enrolment->error;
    zlistx_detach(self->enrolments, zlistx_find(self->enrolments, enrolment));
    struct agent *agent = registry_by_id(self->registry, enrolment->agent_id);
    struct member *member = server_member(self, enrolment->agent_id);
    if (error != 0) {
        enrolment_failed(self, enrolment, error);
    } else if (agent && member) { // it may have been removed meanwhile
        member->enrolling = false;
        // The agent reconnects with its own key as soon as it is answered: ZAP knows it before.
        member_zap(self, agent);
        struct peer *peer = gateway_find(self->gateway, &enrolment->peer);
        if (peer)
            say_enrolled(self, peer, agent->name);
        char fingerprint[IDENTITY_FINGERPRINT_SIZE];
        identity_fingerprint(agent->key, fingerprint);
        log_info("%s enrolled with token %s, key %s", agent->name, enrolment->token, fingerprint);
    }
    free(enrolment);
}

// The host came back on another connection before its commit: the answer goes there.
static void enrolment_redirect(struct server *self, uint32_t agent_id, const struct peer *peer)
{
    for (struct enrolment *item = zlistx_first(self->enrolments); item;
         item = zlistx_next(self->enrolments))
        if (item->agent_id == agent_id)
            item->peer = peer->ref;
}

static void enrol_commit(struct server *self, struct peer *peer, struct token *token,
    struct agent *agent, const Mp__Enrol *enrol)
{
    struct member *member = server_member_add(self, agent->id);
    member->enrolling = true;
    snprintf(agent->token, sizeof agent->token, "%s", token->id);
    agent->enrolled_wall_ns = clock_wall(self->clock);
    agent->lost_mono_ns = clock_mono(self->clock);
    member_set_labels(member, LABELS_OWN, enrol->labels, enrol->n_labels);
    if (token->label_count > 0) {
        member->labels[LABELS_TOKEN] = zmalloc(token->label_count * sizeof(struct label));
        memcpy(
            member->labels[LABELS_TOKEN], token->labels, token->label_count * sizeof(struct label));
        member->label_count[LABELS_TOKEN] = token->label_count;
    }
    member_apply_labels(self, member, agent);

    token->used++;
    token_zap(self, token, TOKEN_GRACE_NS);
    struct enrolment *enrolment = zmalloc(sizeof *enrolment);
    enrolment->server = self;
    enrolment->peer = peer->ref;
    enrolment->agent_id = agent->id;
    snprintf(enrolment->token, sizeof enrolment->token, "%s", token->id);
    enrolment->waiting = 2;
    zlistx_add_end(self->enrolments, enrolment);
    // The agent first: a count that a crash swallowed is found again by counting agents.
    member_persist(self, member, enrolment_committed, enrolment);
    token_persist(self, token, enrolment_committed, enrolment);
}

static void name_in_use(
    struct server *self, struct peer *peer, struct token *token, const struct agent *present)
{
    char fingerprint[IDENTITY_FINGERPRINT_SIZE];
    identity_fingerprint(present->key, fingerprint);
    struct member *member = server_member(self, present->id);
    const char *host = member && member->session ? member->session->host : NULL;
    server_complain(self,
        "the host at %s may not join as %s (token %s): another agent%s%s has that name",
        peer->address, present->name, token->id, host ? " at " : "", host ? host : "");
    server_refuse(self, peer, MP__REFUSED__CODE__NAME_IN_USE,
        "the name %s is in use by another agent (key %s%s%s); choose another --name, or remove "
        "that one first: meshperf agent remove %s",
        present->name, fingerprint, host ? ", at " : ", not connected", host ? host : "",
        present->name);
}

// False if this host may join; else it was told why not.
static bool enrol_refused(
    struct server *self, struct peer *peer, struct token *token, const Mp__Enrol *enrol)
{
    if (enrol->version_min > PROTO_VERSION || enrol->version_max < PROTO_VERSION_MIN) {
        server_complain(self, "the host at %s speaks protocol versions %u to %u, not ours",
            peer->address, enrol->version_min, enrol->version_max);
        server_refuse(self, peer, MP__REFUSED__CODE__VERSION,
            "this controller (meshperf " MESHPERF_VERSION
            ") speaks protocol versions %d to %d, and the agent %u to %u",
            PROTO_VERSION_MIN, PROTO_VERSION, enrol->version_min, enrol->version_max);
        return true;
    }
    const char *fault = token_fault(token, clock_wall(self->clock));
    if (fault) {
        server_complain(self, "the host at %s may not join as %s: token %s %s", peer->address,
            enrol->name, token->id, fault);
        server_refuse(self, peer, MP__REFUSED__CODE__TOKEN, "the token %s %s", token->id, fault);
        return true;
    }
    struct agent *present = registry_by_name(self->registry, enrol->name);
    if (present) {
        name_in_use(self, peer, token, present);
        return true;
    }
    return false;
}

void enrol_handle(struct server *self, struct peer *peer, const Mp__Enrol *enrol)
{
    struct token *token = credentials_token_by_key(self->credentials, peer->key);
    struct agent *known = registry_by_key(self->registry, enrol->public_key.data);
    // Asked again, since the answer was lost: the same answer, and no further use of the token.
    if (known && !token->revoked && strcmp(known->name, enrol->name) == 0) {
        struct member *member = server_member(self, known->id);
        if (member->enrolling)
            enrolment_redirect(self, known->id, peer);
        else
            say_enrolled(self, peer, known->name);
        return;
    }
    if (enrol_refused(self, peer, token, enrol))
        return;
    bool taken = known || credentials_token_by_key(self->credentials, enrol->public_key.data) ||
                 credentials_operator_by_key(self->credentials, enrol->public_key.data);
    if (taken) {
        server_complain(self,
            "the host at %s may not join as %s: its key is in use under another "
            "name",
            peer->address, enrol->name);
        server_refuse(self, peer, MP__REFUSED__CODE__NAME_IN_USE,
            "this key is in use under another name%s%s; --rejoin makes a new key",
            known ? ": " : "", known ? known->name : "");
        return;
    }
    struct agent *agent = registry_add(self->registry, 0, enrol->name, enrol->public_key.data);
    if (!agent) {
        server_complain(
            self, "%s cannot join: there are %d agents already", enrol->name, REGISTRY_AGENTS_MAX);
        server_refuse(self, peer, MP__REFUSED__CODE__BUSY,
            "this controller has as many agents as it can have (%d)", REGISTRY_AGENTS_MAX);
        return;
    }
    enrol_commit(self, peer, token, agent, enrol);
}
