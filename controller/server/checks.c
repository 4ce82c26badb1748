// Checks: a policy arrives in parts, is parsed and expanded here once more, and becomes a run of
// explicit cells. The verdicts are made where they are read, from the text that is kept with the
// run.

#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "log.h"
#include "planner.h"
#include "policy.h"
#include "server_parts.h"

#define UPLOADS_MAX 4
#define UPLOAD_PATIENCE_NS (30 * NS_PER_S)

// ------------------------------------------------------------------------------------- uploads

// A policy that is arriving. At most UPLOADS_MAX of 4 MiB each; one that stands still gives way.
struct upload {
    uint8_t id[ID_SIZE];
    char who[IDENTITY_NAME_SIZE];
    uint32_t next, parts;
    int64_t seen_mono_ns;
    char *text;
    size_t size;
};

struct uploads {
    struct upload list[UPLOADS_MAX];
};

void checks_destroy(struct server *self)
{
    for (size_t i = 0; self->uploads && i < UPLOADS_MAX; i++)
        free(self->uploads->list[i].text);
    free(self->uploads);
    self->uploads = NULL;
}

static void upload_end(struct upload *upload)
{
    free(upload->text);
    memset(upload, 0, sizeof *upload);
}

static struct upload *upload_find(struct server *self, const char *who, const Mp__CheckPart *part)
{
    int64_t now = clock_mono(self->clock);
    struct upload *unused = NULL;
    if (!self->uploads)
        self->uploads = zmalloc(sizeof *self->uploads);
    for (size_t i = 0; i < UPLOADS_MAX; i++) {
        struct upload *upload = &self->uploads->list[i];
        if (upload->parts && now - upload->seen_mono_ns > UPLOAD_PATIENCE_NS)
            upload_end(upload);
        if (!upload->parts)
            unused = upload;
        else if (memcmp(upload->id, part->upload.data, ID_SIZE) == 0 &&
                 strcmp(upload->who, who) == 0)
            return upload;
    }
    if (!unused || part->part != 0)
        return NULL;
    memcpy(unused->id, part->upload.data, ID_SIZE);
    snprintf(unused->who, sizeof unused->who, "%s", who);
    unused->seen_mono_ns = now;
    unused->parts = part->parts;
    return unused;
}

// False with the reason: the part does not belong here.
static const char *upload_add(struct server *self, struct upload *upload, const Mp__CheckPart *part)
{
    if (part->part != upload->next || part->parts != upload->parts)
        return "the parts of the policy are out of order";
    if (upload->size + part->policy_text.len > POLICY_BYTES_MAX)
        return "the policy has over 4 MiB";
    upload->text = realloc(upload->text, upload->size + part->policy_text.len + 1);
    if (!upload->text)
        abort();
    if (part->policy_text.len)
        memcpy(upload->text + upload->size, part->policy_text.data, part->policy_text.len);
    upload->size += part->policy_text.len;
    upload->next++;
    upload->seen_mono_ns = clock_mono(self->clock);
    return NULL;
}

// -------------------------------------------------------------------------------------- agents

// The registered agents as policies see them.
struct crowd {
    struct selector_subject *agents;
    const char **words; // of all agents: keys, values, addresses
    size_t count;
};

static void crowd_add(struct crowd *crowd, const struct agent *agent, const char **words)
{
    struct selector_subject *subject = &crowd->agents[crowd->count++];
    size_t labels = agent->label_count;
    *subject = (struct selector_subject){.name = agent->name,
        .label_keys = words,
        .label_values = words + labels,
        .label_count = labels,
        .addresses = words + 2 * labels};
    for (size_t i = 0; i < labels; i++) {
        words[i] = agent->labels[i].key;
        words[labels + i] = agent->labels[i].value;
    }
    for (size_t i = 0; i < agent->address_count && i < 2; i++)
        if (*agent->addresses[i])
            words[2 * labels + subject->address_count++] = agent->addresses[i];
}

static struct crowd crowd_of(registry_t *registry)
{
    struct crowd crowd = {0};
    size_t words = 0, used = 0;
    for (struct agent *a = registry_next(registry, 0); a; a = registry_next(registry, a->id))
        words += 2 * a->label_count + 2;
    crowd.agents = zmalloc((registry_count(registry) + 1) * sizeof *crowd.agents);
    crowd.words = zmalloc((words + 1) * sizeof *crowd.words);
    for (struct agent *a = registry_next(registry, 0); a; a = registry_next(registry, a->id)) {
        crowd_add(&crowd, a, crowd.words + used);
        used += 2 * a->label_count + 2;
    }
    return crowd;
}

static void crowd_free(struct crowd *crowd)
{
    free(crowd->agents);
    free(crowd->words);
}

// Only those that the policy means in any way: a run need not know the others. Their numbers
// change.
static void crowd_keep_used(struct crowd *crowd, const policy_t *policy)
{
    bool *used = zmalloc(crowd->count + policy->target_count + 1);
    size_t kept = 0;
    policy_used(policy, crowd->agents, crowd->count, used);
    for (size_t i = 0; i < crowd->count; i++)
        if (used[i])
            crowd->agents[kept++] = crowd->agents[i];
    crowd->count = kept;
    free(used);
}

// ----------------------------------------------------------------------------------- the request

struct request {
    Mp__RunRequest message;
    struct testspec specs[TEST_KIND_MAX];
    Mp__TestSpec wires[TEST_KIND_MAX];
    Mp__TestSpec *tests[TEST_KIND_MAX];
};

static void request_add(
    struct request *request, const policy_t *policy, enum test_kind kind, unsigned family)
{
    size_t i = request->message.n_tests;
    struct testspec *spec = &request->specs[i];
    testspec_defaults(kind, spec);
    spec->family = family;
    if (kind == TEST_PORT) {
        spec->attempts = policy->attempts;
        spec->timeout_ns = policy->timeout_ns;
        spec->agent_rate = policy->rate > 0 ? policy->rate : spec->agent_rate;
    } else if (policy->time_ns) {
        spec->duration_ns = policy->time_ns;
    }
    if (kind == TEST_UDP && policy->udp_at_bps)
        spec->bitrate_bps = policy->udp_at_bps;
    if (spec->interval_ns > spec->duration_ns)
        spec->interval_ns = spec->duration_ns;
    request->wires[i] = (Mp__TestSpec)MP__TEST_SPEC__INIT;
    testspec_to_wire(spec, &request->wires[i]);
    request->tests[i] = &request->wires[i];
    request->message.n_tests++;
    request->message.tests = request->tests;
}

static void request_fill(struct request *request, const policy_t *policy,
    const struct policy_cell *cells, size_t count, const Mp__CheckPart *part)
{
    request->message = (Mp__RunRequest)MP__RUN_REQUEST__INIT;
    request->message.policy = (char *)policy->name;
    request->message.name = part->name;
    request->message.command = part->command;
    // Cells are sorted by kind.
    for (size_t i = 0; i < count; i++)
        if (i == 0 || cells[i].kind != cells[i - 1].kind)
            request_add(request, policy, (enum test_kind)cells[i].kind,
                part->has_family ? part->family : 0);
}

// ------------------------------------------------------------------------------------- the cells

struct listing {
    const char **names;
    struct plan_target *targets;
    struct port *ports;
    struct plan_cell *cells;
    struct plan_cells plan;
};

static void listing_ends(struct listing *self, const struct crowd *crowd, const policy_t *policy)
{
    self->names = zmalloc((crowd->count + 1) * sizeof *self->names);
    self->targets = zmalloc((policy->target_count + 1) * sizeof *self->targets);
    for (size_t i = 0; i < crowd->count; i++)
        self->names[i] = crowd->agents[i].name;
    for (size_t i = 0; i < policy->target_count; i++)
        self->targets[i] = (struct plan_target){.name = policy->targets[i].name,
            .addresses = {policy->targets[i].address},
            .address_count = 1};
}

static size_t port_bit(const struct policy_cell *cell)
{
    return (size_t)cell->protocol * 65536 + cell->port;
}

// Every port once, in order; `index` finds it again.
static size_t listing_ports(
    struct listing *self, const struct policy_cell *cells, size_t count, uint16_t *index)
{
    size_t ports = 0;
    bool *seen = zmalloc(4 * 65536 * sizeof *seen);
    for (size_t i = 0; i < count; i++)
        if (cells[i].kind == TEST_PORT)
            seen[port_bit(&cells[i])] = true;
    self->ports = zmalloc((PORTS_MAX + 1) * sizeof *self->ports);
    for (size_t bit = 0; bit < 4 * 65536; bit++) {
        if (!seen[bit])
            continue;
        if (ports < PORTS_MAX) {
            self->ports[ports] =
                (struct port){(Mp__Transport)(bit / 65536), (uint16_t)(bit % 65536)};
            index[bit] = (uint16_t)ports;
        }
        ports++;
    }
    free(seen);
    return ports;
}

// False if there are too many different ports.
static bool listing_fill(struct listing *self, const struct crowd *crowd, const policy_t *policy,
    const struct policy_cell *cells, size_t count)
{
    uint16_t *index = zmalloc(4 * 65536 * sizeof *index);
    listing_ends(self, crowd, policy);
    size_t ports = listing_ports(self, cells, count, index);
    self->cells = zmalloc((count + 1) * sizeof *self->cells);
    for (size_t i = 0; i < count; i++)
        self->cells[i] = (struct plan_cell){.kind = (Mp__TestKind)cells[i].kind,
            .from = cells[i].from,
            .to = cells[i].to,
            .port = cells[i].kind == TEST_PORT ? index[port_bit(&cells[i])] : 0,
            .listener = cells[i].look_on ? PORT_LISTENER_SERVICE : PORT_LISTENER_AGENT};
    free(index);
    self->plan = (struct plan_cells){.agents = self->names,
        .agent_count = crowd->count,
        .targets = self->targets,
        .target_count = policy->target_count,
        .ports = self->ports,
        .port_count = ports,
        .cells = self->cells,
        .count = count,
        .keep_agents = true};
    return ports <= PORTS_MAX;
}

static void listing_free(struct listing *self)
{
    free(self->names);
    free(self->targets);
    free(self->ports);
    free(self->cells);
}

// ------------------------------------------------------------------------------------- the start

static void check_run(struct server *self, struct reply *reply, const Mp__CheckPart *part,
    const policy_t *policy, const struct crowd *crowd, const struct policy_cell *cells,
    size_t count)
{
    struct request request = {0};
    struct listing listing = {0};
    struct director_refusal refusal = {0};
    char run[DIRECTOR_RUN_ID_SIZE];
    request_fill(&request, policy, cells, count, part);
    bool good = listing_fill(&listing, crowd, policy, cells, count);
    self->starting = reply;
    int rc = good ? director_start_cells(
                        self->director, &request.message, &listing.plan, reply->who, run, &refusal)
                  : MESH_E_RANGE;
    listing_free(&listing);
    if (rc != 0) {
        self->starting = NULL;
        if (good)
            reply_refuse(&reply, refusal.code, "%s", refusal.text);
        else
            reply_refuse(&reply, MP__REFUSED__CODE__INVALID,
                "a check can probe at most %d different ports", PORTS_MAX);
        return;
    }
    log_info("check %s of the policy %s is started by %s", run, policy->name, reply->who);
    reply_audit(reply, "check start", run, part->command);
    // Normally it is answered when the store has it (runs_new_saved).
    if (self->starting == reply) {
        self->starting = NULL;
        snprintf(reply->object, sizeof reply->object, "%s", run);
        runs_new_saved(reply, 0);
    }
}

static void check_start(struct server *self, struct reply *reply, const Mp__CheckPart *part,
    const struct upload *upload)
{
    struct policy_error error = {0};
    struct policy_checks checks = {0};
    struct policy_cell *cells = NULL;
    size_t count = 0;
    struct crowd crowd = crowd_of(self->registry);
    policy_t *policy = policy_parse(upload->text, upload->size, &error);
    int rc = policy ? 0 : MESH_E_SYNTAX;
    if (rc == 0) {
        crowd_keep_used(&crowd, policy);
        rc = policy_expand(policy, crowd.agents, crowd.count, &checks, &error);
    }
    if (rc == 0)
        cells = policy_cells(&checks, &count);
    self->starting_policy = upload->text;
    self->starting_policy_size = upload->size;
    if (rc != 0)
        reply_refuse(&reply, MP__REFUSED__CODE__INVALID, "line %u, column %u: %s", error.place.line,
            error.place.column, error.text);
    else if (count == 0)
        reply_refuse(&reply, MP__REFUSED__CODE__NO_PAIRS, "the policy tests nothing here");
    else
        check_run(self, reply, part, policy, &crowd, cells, count);
    self->starting_policy = NULL;
    free(cells);
    policy_checks_release(&checks);
    policy_destroy(&policy);
    crowd_free(&crowd);
}

void checks_part(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__CheckPart *part = question->check_part;
    struct upload *upload = upload_find(self, reply->who, part);
    if (!upload) {
        reply_refuse(&reply, MP__REFUSED__CODE__BUSY,
            part->part ? "an earlier part of the policy is not here"
                       : "too many policies arrive at once");
        return;
    }
    const char *wrong = upload_add(self, upload, part);
    if (wrong) {
        upload_end(upload);
        reply_refuse(&reply, MP__REFUSED__CODE__INVALID, "%s", wrong);
        return;
    }
    if (upload->next < upload->parts) {
        reply_done(&reply, "");
        return;
    }
    check_start(self, reply, part, upload);
    upload_end(upload);
}

// -------------------------------------------------------------------------------------- the text

static void policy_read(void *arg, int error, const void *bytes, size_t size, uint32_t total)
{
    struct reply *reply = arg;
    if (error == MESH_E_NOT_FOUND) {
        reply_refuse(&reply, MP__REFUSED__CODE__NOT_FOUND, "%s is no check", reply->object);
        return;
    }
    if (error != 0) {
        reply_refuse_storage(&reply, error);
        return;
    }
    Mp__PolicyAnswer answer = MP__POLICY_ANSWER__INIT;
    answer.policy_text = (ProtobufCBinaryData){size, (uint8_t *)bytes};
    answer.total = total;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_POLICY_ANSWER;
    envelope.policy_answer = &answer;
    reply_send(&reply, &envelope);
}

void checks_policy(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__PolicyQuery *query = question->policy_query;
    snprintf(reply->object, sizeof reply->object, "%s", query->run);
    store_get_policy(self->store, reply->object, query->offset, policy_read, reply);
}
