#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "log.h"
#include "server_parts.h"

#define RUNS_PAGE_MAX 100
#define CELLS_PAGE_MAX 1000
#define EVENTS_PAGE_MAX 1000

static void refuse_unknown_run(struct reply **reply, int error)
{
    if (error != MESH_E_NOT_FOUND) {
        reply_refuse_storage(reply, error);
        return;
    }
    const char *run = (*reply)->object;
    if (strcmp(run, "last") == 0)
        reply_refuse(reply, MP__REFUSED__CODE__NOT_FOUND, "there is no run yet");
    else
        reply_refuse(reply, MP__REFUSED__CODE__NOT_FOUND, "there is no run %s", run);
}

// How many of these messages fit into a part beside `used` bytes; at least one.
static size_t how_many_fit(ProtobufCMessage *const *messages, size_t count, size_t used)
{
    size_t taken = 0;
    for (; taken < count; taken++) {
        used += wire_packed_size(messages[taken]) + 8;
        if (taken > 0 && used > WIRE_PART_BYTES)
            break;
    }
    return taken;
}

// ------------------------------------------------------------------------------ start and cancel

void runs_new_saved(void *arg, int error)
{
    struct reply *reply = arg;
    struct server *self = reply->server;
    if (error != 0) {
        // What is not in the database cannot be shown, resumed or judged: it does not run.
        log_error("run %s cannot be stored: %s", reply->object, mesh_strerror(error));
        (void)!director_cancel(self->director, reply->object);
        reply_refuse_storage(&reply, error);
        return;
    }
    Mp__RunAccepted accepted = MP__RUN_ACCEPTED__INIT;
    accepted.run = reply->object;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_RUN_ACCEPTED;
    envelope.run_accepted = &accepted;
    reply_send(&reply, &envelope);
}

static void run_plan(struct server *self, struct reply *reply, const Mp__RunRequest *request)
{
    Mp__PlanAnswer answer = MP__PLAN_ANSWER__INIT;
    struct director_refusal refusal;
    memset(&refusal, 0, sizeof refusal);
    if (director_plan(self->director, request, &answer, &refusal) != 0) {
        reply_refuse(&reply, refusal.code, "%s", refusal.text);
        return;
    }
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_PLAN_ANSWER;
    envelope.plan_answer = &answer;
    reply_send(&reply, &envelope);
    director_plan_release(&answer);
}

void runs_request(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__RunRequest *request = question->run_request;
    if (request->policy) {
        reply_refuse(&reply, MP__REFUSED__CODE__INVALID, "a check comes with its policy's text");
        return;
    }
    if (request->has_plan_only && request->plan_only) {
        run_plan(self, reply, request);
        return;
    }
    if (reply->role == MP__ROLE__VIEWER) {
        reply_refuse(&reply, MP__REFUSED__CODE__ROLE,
            "the operator %s has the role viewer, which may plan runs but not start them",
            reply->who);
        return;
    }
    struct director_refusal refusal;
    memset(&refusal, 0, sizeof refusal);
    char run[DIRECTOR_RUN_ID_SIZE];
    self->starting = reply;
    int rc = director_start(self->director, request, reply->who, run, &refusal);
    if (rc != 0) {
        self->starting = NULL;
        reply_refuse(&reply, refusal.code, "%s", refusal.text);
        return;
    }
    log_info("run %s is started by %s", run, reply->who);
    reply_audit(reply, "run start", run, request->command);
    // Normally it is answered when the store has it (runs_new_saved).
    if (self->starting == reply) {
        self->starting = NULL;
        snprintf(reply->object, sizeof reply->object, "%s", run);
        runs_new_saved(reply, 0);
    }
}

static void cancel_found(
    void *arg, int error, const Mp__RunInfo *info, Mp__RunAgent *const *agents, size_t count)
{
    (void)agents;
    (void)count;
    struct reply *reply = arg;
    if (error != 0) {
        refuse_unknown_run(&reply, error);
        return;
    }
    char text[96];
    if (director_cancel(reply->server->director, info->id) == 0) {
        log_info("run %s is cancelled by %s", info->id, reply->who);
        reply_audit(reply, "run cancel", info->id, NULL);
        snprintf(text, sizeof text, "%s is cancelled", info->id);
    } else {
        snprintf(text, sizeof text, "%s has ended already", info->id);
    }
    reply_done(&reply, text);
}

static void object_set(struct reply *reply, const char *run)
{
    snprintf(reply->object, sizeof reply->object, "%s", run);
}

void runs_cancel(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    object_set(reply, question->run_cancel->run);
    store_get_run(self->store, reply->object, 0, cancel_found, reply);
}

// ------------------------------------------------------------------------------- lists and one run

static const Mp__RunInfo *active_find(
    const Mp__RunInfo *const *active, size_t count, const char *run)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(active[i]->id, run) == 0)
            return active[i];
    return NULL;
}

// The store's rows lag behind for runs that are active; the director's are put in their place.
static void runs_read(void *arg, int error, Mp__RunInfo *const *runs, size_t count, uint32_t total)
{
    struct reply *reply = arg;
    if (error != 0) {
        reply_refuse_storage(&reply, error);
        return;
    }
    const Mp__RunInfo *active[DIRECTOR_RUNS_MAX];
    size_t active_count = director_active(reply->server->director, active, DIRECTOR_RUNS_MAX);
    Mp__RunInfo **shown = zmalloc((count + 1) * sizeof *shown);
    for (size_t i = 0; i < count; i++) {
        const Mp__RunInfo *fresh = active_find(active, active_count, runs[i]->id);
        shown[i] = fresh ? (Mp__RunInfo *)fresh : runs[i];
    }
    Mp__RunsAnswer answer = MP__RUNS_ANSWER__INIT;
    answer.runs = shown;
    answer.n_runs = how_many_fit((ProtobufCMessage *const *)shown, count, 0);
    answer.total = total;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_RUNS_ANSWER;
    envelope.runs_answer = &answer;
    reply_send(&reply, &envelope);
    free(shown);
}

void runs_list(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__RunsQuery *query = question->runs_query;
    uint32_t limit =
        query->has_limit && query->limit < RUNS_PAGE_MAX ? query->limit : RUNS_PAGE_MAX;
    store_get_runs(self->store, query->offset, limit, runs_read, reply);
}

static void run_read(
    void *arg, int error, const Mp__RunInfo *info, Mp__RunAgent *const *agents, size_t count)
{
    struct reply *reply = arg;
    if (error != 0) {
        refuse_unknown_run(&reply, error);
        return;
    }
    const Mp__RunInfo *fresh = director_info(reply->server->director, info->id);
    Mp__RunAnswer answer = MP__RUN_ANSWER__INIT;
    answer.info = (Mp__RunInfo *)(fresh ? fresh : info);
    answer.agents = (Mp__RunAgent **)agents;
    answer.n_agents = how_many_fit(
        (ProtobufCMessage *const *)agents, count, wire_packed_size(&answer.info->base));
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_RUN_ANSWER;
    envelope.run_answer = &answer;
    reply_send(&reply, &envelope);
}

void runs_show(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    object_set(reply, question->run_query->run);
    store_get_run(self->store, reply->object, question->run_query->agents_offset, run_read, reply);
}

// ------------------------------------------------------------------------------------------ cells

static bool cell_final(const Mp__Cell *cell)
{
    return cell->state != MP__CELL_STATE__PENDING && cell->state != MP__CELL_STATE__CELL_RUNNING;
}

// A cell without a committed row may be further than that: running, or waiting for its commit.
static Mp__Cell *cell_overlay(struct server *self, const char *run, const Mp__Cell *stored)
{
    if (cell_final(stored))
        return NULL;
    const Mp__Cell *fresh = director_cell(self->director, run, stored->index);
    if (!fresh ||
        (fresh->state == MP__CELL_STATE__PENDING && !fresh->has_attempts && !fresh->reason))
        return NULL;
    return (Mp__Cell *)wire_copy(&fresh->base);
}

static void cells_read(
    void *arg, int error, const char *run, Mp__Cell *const *cells, size_t count, uint32_t total)
{
    struct reply *reply = arg;
    if (error != 0) {
        refuse_unknown_run(&reply, error);
        return;
    }
    Mp__Cell **shown = zmalloc((count + 1) * sizeof *shown);
    bool *owned = zmalloc((count + 1) * sizeof *owned);
    for (size_t i = 0; i < count; i++) {
        Mp__Cell *fresh = cell_overlay(reply->server, run, cells[i]);
        owned[i] = fresh != NULL;
        shown[i] = fresh ? fresh : cells[i];
    }
    Mp__CellsAnswer answer = MP__CELLS_ANSWER__INIT;
    answer.cells = shown;
    answer.n_cells = how_many_fit((ProtobufCMessage *const *)shown, count, 0);
    answer.total = total;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_CELLS_ANSWER;
    envelope.cells_answer = &answer;
    reply_send(&reply, &envelope);
    for (size_t i = 0; i < count; i++)
        if (owned[i])
            mp__cell__free_unpacked(shown[i], NULL);
    free(shown);
    free(owned);
}

void runs_cells(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__CellsQuery *query = question->cells_query;
    uint32_t limit =
        query->has_limit && query->limit < CELLS_PAGE_MAX ? query->limit : CELLS_PAGE_MAX;
    object_set(reply, query->run);
    store_get_cells(self->store, reply->object, query->offset, limit, cells_read, reply);
}

// ----------------------------------------------------------------------------------------- events

static bool events_answer(struct reply **reply_p, const char *run, uint64_t since, uint32_t limit)
{
    struct reply *reply = *reply_p;
    Mp__EventsAnswer answer = MP__EVENTS_ANSWER__INIT;
    if (!director_events(reply->server->director, run, since, limit, &answer))
        return false;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_EVENTS_ANSWER;
    envelope.events_answer = &answer;
    reply_send(reply_p, &envelope);
    return true;
}

// The run is not active under the name asked for: it is "last", or it has ended.
static void events_found(
    void *arg, int error, const Mp__RunInfo *info, Mp__RunAgent *const *agents, size_t count)
{
    (void)agents;
    (void)count;
    struct reply *reply = arg;
    if (error != 0) {
        refuse_unknown_run(&reply, error);
        return;
    }
    if (events_answer(&reply, info->id, reply->since, reply->limit))
        return;
    Mp__EventsAnswer answer = MP__EVENTS_ANSWER__INIT;
    answer.info = (Mp__RunInfo *)info;
    answer.next = reply->since;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_EVENTS_ANSWER;
    envelope.events_answer = &answer;
    reply_send(&reply, &envelope);
}

void runs_events(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    const Mp__EventsQuery *query = question->events_query;
    object_set(reply, query->run);
    reply->since = query->since;
    reply->limit =
        query->has_limit && query->limit < EVENTS_PAGE_MAX ? query->limit : EVENTS_PAGE_MAX;
    if (!events_answer(&reply, reply->object, reply->since, reply->limit))
        store_get_run(self->store, reply->object, 0, events_found, reply);
}
