#include "registry.h"

#include <czmq.h>
#include <stdlib.h>
#include <string.h>

#include "testspec.h"

struct registry {
    struct agent **agents; // by rising id
    size_t count;
    size_t room;
    uint32_t last_id;  // highest id ever given here
    zhashx_t *by_name; // name -> struct agent, borrowed
    zhashx_t *by_key;  // Z85 of the key -> struct agent, borrowed
};

registry_t *registry_new(void)
{
    registry_t *self = zmalloc(sizeof *self);
    self->by_name = zhashx_new();
    self->by_key = zhashx_new();
    return self;
}

static void agent_free(struct agent *agent)
{
    if (agent->capabilities)
        mp__capabilities__free_unpacked(agent->capabilities, NULL);
    free(agent->labels);
    free(agent);
}

void registry_destroy(registry_t **self_p)
{
    if (!self_p || !*self_p)
        return;
    registry_t *self = *self_p;
    zhashx_destroy(&self->by_name);
    zhashx_destroy(&self->by_key);
    for (size_t i = 0; i < self->count; i++)
        agent_free(self->agents[i]);
    free(self->agents);
    free(self);
    *self_p = NULL;
}

// Place of the first agent whose id is not below `id`.
static size_t registry_place(const registry_t *self, uint32_t id)
{
    size_t low = 0, high = self->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (self->agents[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct agent *registry_by_id(registry_t *self, uint32_t id)
{
    size_t place = registry_place(self, id);
    return place < self->count && self->agents[place]->id == id ? self->agents[place] : NULL;
}

struct agent *registry_by_name(registry_t *self, const char *name)
{
    return zhashx_lookup(self->by_name, name);
}

struct agent *registry_by_key(registry_t *self, const uint8_t key[IDENTITY_KEY_SIZE])
{
    char text[IDENTITY_Z85_SIZE];
    identity_z85(key, text);
    return zhashx_lookup(self->by_key, text);
}

size_t registry_count(const registry_t *self)
{
    return self->count;
}

struct agent *registry_next(registry_t *self, uint32_t after_id)
{
    if (after_id == UINT32_MAX)
        return NULL;
    size_t place = registry_place(self, after_id + 1);
    return place < self->count ? self->agents[place] : NULL;
}

static void registry_insert(registry_t *self, struct agent *agent)
{
    if (self->count == self->room) {
        self->room = self->room ? 2 * self->room : 64;
        self->agents = realloc(self->agents, self->room * sizeof *self->agents);
        if (!self->agents)
            abort();
    }
    size_t place = registry_place(self, agent->id);
    memmove(self->agents + place + 1, self->agents + place,
        (self->count - place) * sizeof *self->agents);
    self->agents[place] = agent;
    self->count++;
}

struct agent *registry_add(
    registry_t *self, uint32_t id, const char *name, const uint8_t key[IDENTITY_KEY_SIZE])
{
    char text[IDENTITY_Z85_SIZE];
    identity_z85(key, text);
    if (self->count >= REGISTRY_AGENTS_MAX || strlen(name) >= IDENTITY_NAME_SIZE ||
        zhashx_lookup(self->by_name, name) || zhashx_lookup(self->by_key, text))
        return NULL;
    if (id == 0) {
        if (self->last_id == UINT32_MAX)
            return NULL;
        id = self->last_id + 1;
    } else if (registry_by_id(self, id)) {
        return NULL;
    }
    if (id > self->last_id)
        self->last_id = id;

    struct agent *agent = zmalloc(sizeof *agent);
    agent->id = id;
    strcpy(agent->name, name);
    memcpy(agent->key, key, IDENTITY_KEY_SIZE);
    registry_insert(self, agent);
    zhashx_insert(self->by_name, agent->name, agent);
    zhashx_insert(self->by_key, text, agent);
    return agent;
}

void registry_remove(registry_t *self, uint32_t id)
{
    size_t place = registry_place(self, id);
    if (place == self->count || self->agents[place]->id != id)
        return;
    struct agent *agent = self->agents[place];
    char text[IDENTITY_Z85_SIZE];
    identity_z85(agent->key, text);
    zhashx_delete(self->by_name, agent->name);
    zhashx_delete(self->by_key, text);
    self->count--;
    memmove(self->agents + place, self->agents + place + 1,
        (self->count - place) * sizeof *self->agents);
    agent_free(agent);
}

bool agent_connected(const struct agent *agent)
{
    return agent->seen_mono_ns != 0 && agent->lost_mono_ns == 0;
}

Mp__AgentState agent_state(const struct agent *agent, bool busy)
{
    if (!agent_connected(agent))
        return MP__AGENT_STATE__AGENT_LOST;
    if (agent->draining)
        return MP__AGENT_STATE__DRAINING;
    return busy ? MP__AGENT_STATE__AGENT_BUSY : MP__AGENT_STATE__READY;
}

const char *agent_label(const struct agent *agent, const char *key)
{
    for (size_t i = 0; i < agent->label_count; i++)
        if (strcmp(agent->labels[i].key, key) == 0)
            return agent->labels[i].value;
    return NULL;
}

static bool capabilities_list(const Mp__Capabilities *capabilities, const char *word)
{
    for (size_t i = 0; i < capabilities->n_tests; i++)
        if (strcmp(capabilities->tests[i], word) == 0)
            return true;
    return false;
}

const char *agent_cannot(const struct agent *agent, Mp__TestKind kind, char text[256])
{
    const Mp__Capabilities *can = agent->capabilities;
    const char *word = test_kind_name((enum test_kind)kind);
    if (!can) {
        snprintf(text, 256, "%s has not registered yet", agent->name);
        return text;
    }
    if (kind == MP__TEST_KIND__SCTP && !can->sctp) {
        const char *reason =
            can->sctp_reason && *can->sctp_reason ? can->sctp_reason : "no SCTP in its kernel";
        snprintf(text, 256, "%s cannot run sctp: %.150s", agent->name, reason);
        return text;
    }
    bool transport = kind == MP__TEST_KIND__TCP                                     ? can->tcp
                     : kind == MP__TEST_KIND__UDP || kind == MP__TEST_KIND__LATENCY ? can->udp
                                                                                    : true;
    if (!transport) {
        snprintf(
            text, 256, "%s cannot run %s: its host does not allow such sockets", agent->name, word);
        return text;
    }
    if (!capabilities_list(can, word)) {
        snprintf(text, 256, "%s (meshperf %s) does not know the test %s", agent->name,
            agent->software, word);
        return text;
    }
    return NULL;
}

Mp__Label **labels_fill(const struct label *labels, size_t count)
{
    if (count == 0)
        return NULL;
    Mp__Label **list = zmalloc(count * sizeof *list), *each = zmalloc(count * sizeof *each);
    for (size_t i = 0; i < count; i++) {
        mp__label__init(each + i);
        each[i].key = (char *)labels[i].key;
        each[i].value = (char *)labels[i].value;
        list[i] = each + i;
    }
    return list;
}

void labels_release(Mp__Label **list)
{
    if (list)
        free(list[0]);
    free(list);
}

static void addresses_fill(const struct agent *agent, Mp__AgentInfo *info)
{
    if (agent->address_count == 0)
        return;
    info->addresses = zmalloc(agent->address_count * sizeof *info->addresses);
    for (size_t i = 0; i < agent->address_count; i++)
        info->addresses[i] = (char *)agent->addresses[i];
    info->n_addresses = agent->address_count;
}

void agent_info_fill(const struct agent *agent, bool busy, Mp__AgentInfo *info)
{
    mp__agent_info__init(info);
    info->name = (char *)agent->name;
    info->state = agent_state(agent, busy);
    addresses_fill(agent, info);
    info->labels = labels_fill(agent->labels, agent->label_count);
    info->n_labels = agent->label_count;
    info->capabilities = agent->capabilities;
    if (agent->software[0])
        info->software = (char *)agent->software;
    if (agent->boot_id[0])
        info->boot_id = (char *)agent->boot_id;
    if (agent->token[0])
        info->token = (char *)agent->token;
    info->fingerprint = zmalloc(IDENTITY_FINGERPRINT_SIZE);
    identity_fingerprint(agent->key, info->fingerprint);
    info->has_enrolled_wall_ns = agent->enrolled_wall_ns != 0;
    info->enrolled_wall_ns = agent->enrolled_wall_ns;
    info->has_seen_wall_ns = agent->seen_wall_ns != 0;
    info->seen_wall_ns = agent->seen_wall_ns;
    info->has_clock_offset_s = agent->seen_mono_ns != 0;
    info->clock_offset_s = agent->clock_offset_s;
    info->has_data_port = agent->data_port != 0;
    info->data_port = agent->data_port;
    info->has_running = info->has_spooled = agent_connected(agent);
    info->running = agent->running;
    info->spooled = agent->spooled;
}

void agent_info_release(Mp__AgentInfo *info)
{
    labels_release(info->labels);
    free(info->addresses);
    free(info->fingerprint);
    mp__agent_info__init(info);
}
