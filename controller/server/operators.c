
#include "errors.h"
#include "peek.h"
#include "server_parts.h"

static const struct {
    Mp__Envelope__BodyCase body;
    operator_handler *handle;
    unsigned roles; // stricter than the wire's table where it is not 0
} handlers[] = {
    {MP__ENVELOPE__BODY_RUN_REQUEST, runs_request, 0},
    {MP__ENVELOPE__BODY_CHECK_PART, checks_part, WIRE_OPERATOR | WIRE_ADMIN},
    {MP__ENVELOPE__BODY_POLICY_QUERY, checks_policy, 0},
    {MP__ENVELOPE__BODY_RUN_CANCEL, runs_cancel, WIRE_OPERATOR | WIRE_ADMIN},
    {MP__ENVELOPE__BODY_RUNS_QUERY, runs_list, 0},
    {MP__ENVELOPE__BODY_RUN_QUERY, runs_show, 0},
    {MP__ENVELOPE__BODY_CELLS_QUERY, runs_cells, 0},
    {MP__ENVELOPE__BODY_EVENTS_QUERY, runs_events, 0},
    {MP__ENVELOPE__BODY_AGENTS_QUERY, admin_agents, 0},
    {MP__ENVELOPE__BODY_AGENT_CHANGE, admin_agent_change, WIRE_OPERATOR | WIRE_ADMIN},
    {MP__ENVELOPE__BODY_TOKEN_CREATE, admin_token_create, WIRE_ADMIN},
    {MP__ENVELOPE__BODY_TOKENS_QUERY, admin_tokens, WIRE_OPERATOR | WIRE_ADMIN},
    {MP__ENVELOPE__BODY_TOKEN_REVOKE, admin_token_revoke, WIRE_ADMIN},
    {MP__ENVELOPE__BODY_OPERATOR_ADD, admin_operator_add, WIRE_ADMIN},
    {MP__ENVELOPE__BODY_OPERATORS_QUERY, admin_operators, 0},
    {MP__ENVELOPE__BODY_OPERATOR_REMOVE, admin_operator_remove, WIRE_ADMIN},
    {MP__ENVELOPE__BODY_AUDIT_QUERY, admin_audit, 0},
    {MP__ENVELOPE__BODY_STATUS_QUERY, admin_status, 0},
};

const char *role_word(Mp__Role role)
{
    return role == MP__ROLE__ADMIN ? "admin" : role == MP__ROLE__OPERATOR ? "operator" : "viewer";
}

static void refuse_unreadable(struct server *self, struct peer *peer,
    const struct operator_ *operator_, const void *bytes, size_t size, int error, const char *text)
{
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.has_request = peek_request(bytes, size, &question.request);
    struct reply *reply = reply_new(self, peer, operator_, &question);
    Mp__Refused__Code code = error == MESH_E_FORBIDDEN ? MP__REFUSED__CODE__ROLE
                             : error == MESH_E_VERSION ? MP__REFUSED__CODE__VERSION
                                                       : MP__REFUSED__CODE__INVALID;
    if (code == MP__REFUSED__CODE__ROLE)
        reply_refuse(&reply, code, "the operator %s has the role %s, which may not do that",
            operator_->name, role_word(operator_->role));
    else
        reply_refuse(&reply, code, "%s", text);
}

bool operators_message(struct server *self, struct peer *peer, const void *bytes, size_t size)
{
    struct operator_ *operator_ = credentials_operator_by_key(self->credentials, peer->key);
    if (!operator_)
        return false; // removed since it connected
    int error = 0;
    char text[256] = "";
    enum wire_role role = role_to_wire(operator_->role);
    Mp__Envelope *question = wire_unpack(bytes, size, role, true, &error, text);
    if (!question) {
        server_complain(
            self, "the operator %s sent a message that is not taken: %s", operator_->name, text);
        refuse_unreadable(self, peer, operator_, bytes, size, error, text);
        return true;
    }
    for (size_t i = 0; i < sizeof handlers / sizeof handlers[0]; i++) {
        if (handlers[i].body != question->body_case)
            continue;
        struct reply *reply = reply_new(self, peer, operator_, question);
        if (handlers[i].roles != 0 && !(handlers[i].roles & role))
            reply_refuse(&reply, MP__REFUSED__CODE__ROLE,
                "the operator %s has the role %s, which may not do that", operator_->name,
                role_word(operator_->role));
        else
            handlers[i].handle(self, reply, question);
        break;
    }
    wire_free(&question);
    return true;
}
