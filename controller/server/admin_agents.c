// Operators ask about agents and change them.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "server_parts.h"

static void agent_info(struct server *self, const struct agent *agent, Mp__AgentInfo *info)
{
    agent_info_fill(agent, director_agent_busy(self->director, agent->id), info);
}

void admin_agents(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__AgentsQuery *query = question->agents_query;
    Mp__AgentInfo infos[PAGE_ENTRIES_MAX];
    Mp__AgentInfo *pointers[PAGE_ENTRIES_MAX];
    Mp__AgentsAnswer answer = MP__AGENTS_ANSWER__INIT;
    answer.agents = pointers;
    answer.total = (uint32_t)registry_count(self->registry);
    struct agent *agent = registry_next(self->registry, 0);
    if (query->name) {
        agent = registry_by_name(self->registry, query->name);
        answer.total = 1;
        if (!agent) {
            reply_refuse(&reply, MP__REFUSED__CODE__NOT_FOUND, "there is no agent %s", query->name);
            return;
        }
    }
    for (uint32_t i = 0; i < query->offset && agent; i++)
        agent = registry_next(self->registry, agent->id);
    struct page page = {0};
    while (agent && answer.n_agents < PAGE_ENTRIES_MAX) {
        Mp__AgentInfo *info = infos + answer.n_agents;
        agent_info(self, agent, info);
        if (!page_takes(&page, &info->base)) {
            agent_info_release(info);
            break;
        }
        pointers[answer.n_agents++] = info;
        agent = query->name ? NULL : registry_next(self->registry, agent->id);
    }
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_AGENTS_ANSWER;
    envelope.agents_answer = &answer;
    size_t count = answer.n_agents;
    reply_send(&reply, &envelope);
    for (size_t i = 0; i < count; i++)
        agent_info_release(infos + i);
}

// Sets, replaces or (empty value) removes one of the operator's labels.
static void label_change(struct member *member, const struct agent *agent, const Mp__Label *label)
{
    struct label **labels = &member->labels[LABELS_OPERATOR];
    size_t *count = &member->label_count[LABELS_OPERATOR];
    size_t place = 0;
    while (place < *count && strcmp((*labels)[place].key, label->key) != 0)
        place++;
    if (place == *count) {
        if (!label->value[0] && !agent_label(agent, label->key))
            return; // there is nothing to hide
        *labels = realloc(*labels, (*count + 1) * sizeof **labels);
        if (!*labels)
            abort();
        (*count)++;
    }
    snprintf((*labels)[place].key, sizeof(*labels)[place].key, "%s", label->key);
    snprintf((*labels)[place].value, sizeof(*labels)[place].value, "%s", label->value);
}

static void change_labels(
    struct server *self, struct reply *reply, struct agent *agent, const Mp__AgentChange *change)
{
    struct member *member = server_member(self, agent->id);
    if (change->n_labels == 0) {
        reply_refuse(&reply, MP__REFUSED__CODE__INVALID, "no labels were given");
        return;
    }
    if (member->label_count[LABELS_OPERATOR] + change->n_labels > REGISTRY_LABELS_MAX) {
        reply_refuse(&reply, MP__REFUSED__CODE__INVALID, "%s would have more than %d labels",
            agent->name, REGISTRY_LABELS_MAX);
        return;
    }
    for (size_t i = 0; i < change->n_labels; i++)
        label_change(member, agent, change->labels[i]);
    member_apply_labels(self, member, agent);
    char text[512];
    reply_audit(reply, "agent label", agent->name,
        labels_text(change->labels, change->n_labels, text, sizeof text));
    member_persist(self, member, reply_committed, reply);
}

static void change_draining(
    struct server *self, struct reply *reply, struct agent *agent, bool draining)
{
    reply_audit(reply, draining ? "agent drain" : "agent resume", agent->name, NULL);
    agent->draining = draining;
    director_agent_changed(self->director, agent->id);
    log_info("%s is %s by %s", agent->name, draining ? "drained" : "resumed", reply->who);
    member_persist(self, server_member(self, agent->id), reply_committed, reply);
}

// From here on its key is unknown: ZAP turns it away, its messages are dropped, and its connection
// is shut down when it next speaks.
static void remove_agent(struct server *self, struct reply *reply, struct agent *agent)
{
    uint32_t id = agent->id;
    struct member *member = server_member(self, id);
    reply_audit(reply, "agent remove", agent->name, NULL);
    log_info("%s is removed by %s", agent->name, reply->who);
    zap_drop(self->zap, agent->key);
    if (member->session) {
        struct peer *peer = gateway_find(self->gateway, &member->session->peer);
        if (peer) {
            server_refuse(self, peer, MP__REFUSED__CODE__REMOVED,
                "%s was removed from this controller", agent->name);
            gateway_cut(self->gateway, peer, "it was removed");
        }
    }
    agent->lost_mono_ns = clock_mono(self->clock);
    director_agent_removed(self->director, id);
    server_member_remove(self, id);
    registry_remove(self->registry, id);
    store_drop_agent(self->store, id, reply_committed, reply);
}

void admin_agent_change(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__AgentChange *change = question->agent_change;
    struct agent *agent = registry_by_name(self->registry, change->name);
    if (!agent) {
        reply_refuse(&reply, MP__REFUSED__CODE__NOT_FOUND, "there is no agent %s", change->name);
        return;
    }
    snprintf(reply->object, sizeof reply->object, "%s", agent->name);
    switch (change->what) {
    case MP__AGENT_CHANGE__WHAT__LABEL:
        change_labels(self, reply, agent, change);
        return;
    case MP__AGENT_CHANGE__WHAT__DRAIN:
        change_draining(self, reply, agent, true);
        return;
    case MP__AGENT_CHANGE__WHAT__RESUME:
        change_draining(self, reply, agent, false);
        return;
    case MP__AGENT_CHANGE__WHAT__REMOVE:
        if (reply->role != MP__ROLE__ADMIN)
            reply_refuse(&reply, MP__REFUSED__CODE__ROLE,
                "only an admin may remove agents, and %s is none", reply->who);
        else
            remove_agent(self, reply, agent);
        return;
    default:
        reply_refuse(&reply, MP__REFUSED__CODE__INVALID, "an unknown change of an agent");
    }
}
