#include "verdicts.h"

#include <czmq.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "errors.h"
#include "identity.h"
#include "report.h"
#include "wire.h"

// ------------------------------------------------------------------------------------ subjects

static void subject_fill(struct selector_subject *subject, const char **words, const char *name,
    Mp__Label *const *labels, size_t label_count, char *const *addresses, size_t address_count)
{
    *subject = (struct selector_subject){.name = name,
        .label_keys = words,
        .label_values = words + label_count,
        .label_count = label_count,
        .addresses = (const char *const *)addresses,
        .address_count = address_count};
    for (size_t i = 0; i < label_count; i++) {
        words[i] = labels[i]->key;
        words[label_count + i] = labels[i]->value;
    }
}

struct subjects subjects_of_agents(Mp__AgentInfo *const *agents, size_t count)
{
    struct subjects self = {.list = zmalloc((count + 1) * sizeof *self.list)};
    size_t words = 0, used = 0;
    for (size_t i = 0; i < count; i++)
        words += 2 * agents[i]->n_labels;
    self.words = zmalloc((words + 1) * sizeof *self.words);
    for (size_t i = 0; i < count; i++) {
        const Mp__AgentInfo *agent = agents[i];
        subject_fill(&self.list[self.count++], self.words + used, agent->name, agent->labels,
            agent->n_labels, agent->addresses, agent->n_addresses);
        used += 2 * agent->n_labels;
    }
    return self;
}

struct subjects subjects_of_run(Mp__RunAgent *const *agents, size_t count, uint32_t *index)
{
    struct subjects self = {.list = zmalloc((count + 1) * sizeof *self.list)};
    size_t words = 0, used = 0;
    for (size_t i = 0; i < count; i++)
        words += 2 * agents[i]->n_labels;
    self.words = zmalloc((words + 1) * sizeof *self.words);
    for (size_t i = 0; i < count; i++) {
        Mp__RunAgent *agent = agents[i];
        index[i] = UINT32_MAX;
        if (agent->has_target && agent->target)
            continue;
        index[i] = (uint32_t)self.count;
        // Runs of earlier versions know one address.
        bool one = agent->n_addresses == 0 && agent->address;
        subject_fill(&self.list[self.count++], self.words + used, agent->name, agent->labels,
            agent->n_labels, one ? &agent->address : agent->addresses,
            one ? 1 : agent->n_addresses);
        used += 2 * agent->n_labels;
    }
    return self;
}

void subjects_release(struct subjects *subjects)
{
    free(subjects->list);
    free(subjects->words);
    memset(subjects, 0, sizeof *subjects);
}

// ---------------------------------------------------------------------------------- the policy

int policy_file_read(const char *path, struct policy_file *file, char why[1024])
{
    struct policy_error error;
    char words[1024];
    *file = (struct policy_file){.path = path};
    int rc = file_read(path, POLICY_BYTES_MAX, &file->text, &file->size);
    if (rc == MESH_E_TOO_LARGE)
        snprintf(words, sizeof words, "%s:1:1: the file has over %u bytes", path, POLICY_BYTES_MAX);
    else if (rc != 0)
        snprintf(words, sizeof words, "%s: %s", path, mesh_strerror(rc));
    if (rc == 0) {
        file->policy = policy_parse(file->text, file->size, &error);
        if (!file->policy)
            snprintf(words, sizeof words, "%.300s:%u:%u: %s", path, error.place.line,
                error.place.column, error.text);
    }
    if (file->policy)
        return 0;
    if (why)
        snprintf(why, 1024, "%s", words);
    policy_file_release(file);
    return cli_usage("%s", words);
}

void policy_file_release(struct policy_file *file)
{
    policy_destroy(&file->policy);
    free(file->text);
    file->text = NULL;
}

// The text that was checked, pulled in parts.
static int policy_pull(struct cli *cli, const char *run, struct policy_file *file)
{
    struct policy_error error;
    uint32_t total = 1;
    *file = (struct policy_file){.path = run};
    while (file->size < total) {
        Mp__PolicyQuery query = MP__POLICY_QUERY__INIT;
        query.run = (char *)run;
        query.offset = (uint32_t)file->size;
        Mp__Envelope question = MP__ENVELOPE__INIT;
        question.body_case = MP__ENVELOPE__BODY_POLICY_QUERY;
        question.policy_query = &query;
        int status;
        Mp__Envelope *answer = cli_ask(cli, &question, MP__ENVELOPE__BODY_POLICY_ANSWER, &status);
        if (!answer)
            return status;
        const ProtobufCBinaryData *part = &answer->policy_answer->policy_text;
        total = answer->policy_answer->total;
        bool good = part->len > 0 && total <= POLICY_BYTES_MAX && file->size + part->len <= total;
        if (good) {
            file->text = realloc(file->text, total);
            if (!file->text)
                abort();
            memcpy(file->text + file->size, part->data, part->len);
            file->size += part->len;
        }
        wire_free(&answer);
        if (!good)
            return cli_usage("the policy of %s cannot be read", run);
    }
    file->policy = policy_parse(file->text, file->size, &error);
    if (file->policy)
        return 0;
    return cli_usage("the policy of %s, line %u, column %u: %s", run, error.place.line,
        error.place.column, error.text);
}

// --------------------------------------------------------------------------------------- cells

static void keep_sights(const Mp__CellsAnswer *answer, const uint32_t *index, size_t index_count,
    struct policy_sight *sights, size_t *count)
{
    for (size_t i = 0; i < answer->n_cells; i++) {
        const Mp__Cell *cell = answer->cells[i];
        struct policy_sight sight;
        if (cell->from >= index_count || cell->to >= index_count ||
            index[cell->from] == UINT32_MAX || index[cell->to] == UINT32_MAX ||
            !policy_sight_of(cell, &sight))
            continue;
        sight.cell.from = index[cell->from];
        sight.cell.to = index[cell->to];
        sights[(*count)++] = sight;
    }
}

int run_sights(struct cli *cli, const Mp__RunInfo *info, const uint32_t *index, size_t index_count,
    struct policy_sight **sights, size_t *count)
{
    uint32_t offset = 0;
    int status = 0;
    *count = 0;
    *sights = zmalloc(((size_t)info->cells + 1) * sizeof **sights);
    while (!status && offset < info->cells) {
        Mp__CellsQuery query = MP__CELLS_QUERY__INIT;
        query.run = info->id;
        query.offset = offset;
        Mp__Envelope question = MP__ENVELOPE__INIT;
        question.body_case = MP__ENVELOPE__BODY_CELLS_QUERY;
        question.cells_query = &query;
        Mp__Envelope *answer = cli_ask(cli, &question, MP__ENVELOPE__BODY_CELLS_ANSWER, &status);
        if (!answer)
            break;
        uint32_t got = (uint32_t)answer->cells_answer->n_cells;
        if (got <= info->cells - offset)
            keep_sights(answer->cells_answer, index, index_count, *sights, count);
        wire_free(&answer);
        if (got == 0)
            break;
        offset += got;
    }
    return status;
}

// --------------------------------------------------------------------------------------- judge

// Where the run's targets stand among the policy's; those that it does not know are nowhere.
static void place_targets(
    const struct run_pages *pages, const struct verdicts *self, uint32_t *index)
{
    const policy_t *policy = self->file.policy;
    for (size_t i = 0; i < pages->agent_count; i++)
        for (uint32_t t = 0; index[i] == UINT32_MAX && t < policy->target_count; t++)
            if (strcmp(pages->agents[i]->name, policy->targets[t].name) == 0)
                index[i] = (uint32_t)self->subjects.count + t;
}

static int verdicts_make(struct verdicts *self)
{
    struct policy_error error;
    if (policy_expand(self->file.policy, self->subjects.list, self->subjects.count, &self->checks,
            &error) != 0)
        return cli_usage(
            "%s:%u:%u: %s", self->file.path, error.place.line, error.place.column, error.text);
    self->judged = policy_judge(&self->checks, self->sights, self->sight_count, &self->counts);
    return 0;
}

void verdicts_destroy(struct verdicts **self_p)
{
    struct verdicts *self = *self_p;
    if (!self)
        return;
    *self_p = NULL;
    free(self->judged);
    policy_checks_release(&self->checks);
    policy_sights_release(self->sights, self->sight_count);
    subjects_release(&self->subjects);
    policy_file_release(&self->file);
    free(self);
}

bool run_is_check(const struct run_pages *pages)
{
    return pages->verdicts || (pages->first && pages->first->run_answer->info->request->policy);
}

int run_judge(struct cli *cli, struct run_pages *pages, struct policy_file *file)
{
    if (pages->verdicts)
        return 0;
    const Mp__RunInfo *info = pages->first->run_answer->info;
    struct verdicts *self = zmalloc(sizeof *self);
    uint32_t *index = zmalloc((pages->agent_count + 1) * sizeof *index);
    int status = 0;
    if (file) {
        self->file = *file;
        *file = (struct policy_file){0};
    } else {
        status = policy_pull(cli, info->id, &self->file);
    }
    self->subjects = subjects_of_run(pages->agents, pages->agent_count, index);
    if (!status) {
        place_targets(pages, self, index);
        status =
            run_sights(cli, info, index, pages->agent_count, &self->sights, &self->sight_count);
    }
    if (!status)
        status = verdicts_make(self);
    free(index);
    if (status)
        verdicts_destroy(&self);
    pages->verdicts = self;
    return status;
}

int agents_judge(struct cli *cli, struct run_pages *pages, struct policy_file *file)
{
    struct verdicts *self = zmalloc(sizeof *self);
    self->file = *file;
    *file = (struct policy_file){0};
    int status = agents_fetch(cli, NULL, &pages->registered);
    if (!status) {
        self->subjects = subjects_of_agents(pages->registered.agents, pages->registered.count);
        status = verdicts_make(self);
    }
    if (status)
        verdicts_destroy(&self);
    pages->verdicts = self;
    return status;
}

// ------------------------------------------------------------------------------------ printing

static const Mp__RunInfo *info_of(const struct run_pages *pages)
{
    return pages->first ? pages->first->run_answer->info : NULL;
}

int verdicts_status(const struct cli *cli, const struct run_pages *pages)
{
    const Mp__RunInfo *info = info_of(pages);
    if (info && info->state == MP__RUN_STATE__CANCELLED)
        return EXIT_CANCELLED;
    return policy_exit_status(&pages->verdicts->counts, cli->flags.allow_incomplete);
}

static struct check_report report_of(
    const struct cli *cli, const struct run_pages *pages, FILE *stream)
{
    const struct verdicts *self = pages->verdicts;
    return (struct check_report){.checks = &self->checks,
        .judged = self->judged,
        .counts = &self->counts,
        .info = info_of(pages),
        .color = cli_color(cli, stream),
        .verbose = cli->flags.verbose,
        .exit_status = verdicts_status(cli, pages)};
}

int verdicts_print(struct cli *cli, const struct run_pages *pages, const char *format, FILE *stream)
{
    struct check_report report = report_of(cli, pages, stream);
    int error = check_print(&report, format, stream);
    if (error < 0 && error != -EPIPE)
        return cli_usage("writing the report: %s", strerror(-error));
    return 0;
}

void verdicts_print_end(struct cli *cli, const struct run_pages *pages, int status)
{
    struct check_report report = report_of(cli, pages, stdout);
    check_print_events(&report, stdout);
    report_event_end(stdout, info_of(pages), status);
}
