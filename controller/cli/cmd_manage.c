#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "clock.h"
#include "report.h"
#include "units.h"
#include "wire.h"

#define COLUMNS_MAX 12
#define TEXT_SIZE 512

// One row of a list: texts that report_list_row borrows for the call.
struct row {
    char text[COLUMNS_MAX][TEXT_SIZE];
    unsigned count;
};

static void put(struct row *row, const char *text)
{
    snprintf(row->text[row->count++], TEXT_SIZE, "%s", text ? text : "");
}

static void put_time(struct row *row, int64_t wall_ns)
{
    char text[CLOCK_ISO_SIZE] = "";
    if (wall_ns > 0)
        clock_iso8601(wall_ns, text);
    put(row, text);
}

static void put_number(struct row *row, uint64_t number)
{
    snprintf(row->text[row->count++], TEXT_SIZE, "%llu", (unsigned long long)number);
}

static void put_labels(struct row *row, Mp__Label *const *labels, size_t count)
{
    char *text = row->text[row->count++];
    size_t at = 0;
    *text = '\0';
    for (size_t i = 0; i < count && at < TEXT_SIZE; i++)
        at += (size_t)snprintf(
            text + at, TEXT_SIZE - at, "%s%s=%s", i ? " " : "", labels[i]->key, labels[i]->value);
}

static void print_row(report_list_t *list, const struct row *row)
{
    const char *texts[COLUMNS_MAX];
    for (unsigned i = 0; i < row->count; i++)
        texts[i] = row->text[i];
    report_list_row(list, texts);
}

// ------------------------------------------------------------------------------ paged lists

// How one kind of list is asked for, page by page, and printed.
struct list_kind {
    const char *schema, *array;
    const struct report_column *columns;
    size_t column_count;
    Mp__Envelope__BodyCase answer;
    void (*ask)(Mp__Envelope *question, void *query, uint32_t offset);
    // Prints the rows of a page; how many there were, and the total.
    size_t (*rows)(const Mp__Envelope *answer, report_list_t *list, uint32_t *total);
};

static int print_list(struct cli *cli, const struct list_kind *kind)
{
    union {
        Mp__RunsQuery runs;
        Mp__AgentsQuery agents;
        Mp__TokensQuery tokens;
        Mp__OperatorsQuery operators;
        Mp__AuditQuery audit;
    } query;
    report_list_t *list = NULL;
    uint32_t offset = 0, total = 0;
    do {
        Mp__Envelope question = MP__ENVELOPE__INIT;
        int status;
        kind->ask(&question, &query, offset);
        Mp__Envelope *answer = cli_ask(cli, &question, kind->answer, &status);
        if (!answer) {
            if (list)
                report_list_destroy(&list);
            return status;
        }
        if (!list)
            list = report_list_new(cli->flags.format, kind->schema, kind->array, kind->columns,
                kind->column_count, stdout);
        size_t got = kind->rows(answer, list, &total);
        wire_free(&answer);
        if (got == 0)
            break;
        offset += (uint32_t)got;
    } while (offset < total);
    report_list_destroy(&list);
    return EXIT_FINE;
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

// --------------------------------------------------------------------------------- runs

static void ask_runs(Mp__Envelope *question, void *query, uint32_t offset)
{
    Mp__RunsQuery *runs = query;
    *runs = (Mp__RunsQuery)MP__RUNS_QUERY__INIT;
    runs->has_offset = true;
    runs->offset = offset;
    question->body_case = MP__ENVELOPE__BODY_RUNS_QUERY;
    question->runs_query = runs;
}

static const char *run_state(Mp__RunState state)
{
    static const char *const names[] = {"", "queued", "running", "finished", "cancelled"};
    return names[state];
}

static size_t rows_of_runs(const Mp__Envelope *answer, report_list_t *list, uint32_t *total)
{
    const Mp__RunsAnswer *runs = answer->runs_answer;
    for (size_t i = 0; i < runs->n_runs; i++) {
        const Mp__RunInfo *info = runs->runs[i];
        struct row row = {.count = 0};
        char tests[64] = "", elapsed[UNITS_TEXT_SIZE] = "";
        for (size_t k = 0; k < info->request->n_tests; k++) {
            strcat(tests, k ? " " : "");
            strcat(tests, test_kind_name((enum test_kind)info->request->tests[k]->kind));
        }
        put(&row, info->id);
        put(&row, run_state(info->state));
        put(&row, tests);
        put(&row, info->by);
        put(&row, info->request->name);
        put_time(&row, info->started_wall_ns);
        if (info->has_elapsed_s)
            snprintf(elapsed, sizeof elapsed, "%.1f", info->elapsed_s);
        put(&row, elapsed);
        put_number(&row, info->ok);
        put_number(&row, info->cells);
        print_row(list, &row);
    }
    *total = runs->total;
    return runs->n_runs;
}

int cmd_runs(struct cli *cli)
{
    static const struct report_column columns[] = {{"RUN", "id"}, {"STATE", "state"},
        {"TESTS", "tests"}, {"BY", "by"}, {"NAME", "name"}, {"STARTED", "started"},
        {"ELAPSED s", "#elapsed_s"}, {"OK", "#ok"}, {"CELLS", "#cells"}};
    static const struct list_kind kind = {"meshperf.runs/1", "runs", columns, COUNT(columns),
        MP__ENVELOPE__BODY_RUNS_ANSWER, ask_runs, rows_of_runs};
    return print_list(cli, &kind);
}

// -------------------------------------------------------------------------------- tokens

static void ask_tokens(Mp__Envelope *question, void *query, uint32_t offset)
{
    Mp__TokensQuery *tokens = query;
    *tokens = (Mp__TokensQuery)MP__TOKENS_QUERY__INIT;
    tokens->has_offset = true;
    tokens->offset = offset;
    question->body_case = MP__ENVELOPE__BODY_TOKENS_QUERY;
    question->tokens_query = tokens;
}

static const char *token_state(const Mp__TokenInfo *token)
{
    if (token->has_revoked && token->revoked)
        return "revoked";
    if (token->used >= token->uses)
        return "used up";
    return token->expires_wall_ns <= clock_wall_ns() ? "expired" : "valid";
}

static size_t rows_of_tokens(const Mp__Envelope *answer, report_list_t *list, uint32_t *total)
{
    const Mp__TokensAnswer *tokens = answer->tokens_answer;
    for (size_t i = 0; i < tokens->n_tokens; i++) {
        const Mp__TokenInfo *token = tokens->tokens[i];
        struct row row = {.count = 0};
        put(&row, token->id);
        put(&row, token_state(token));
        put_time(&row, token->created_wall_ns);
        put_time(&row, token->expires_wall_ns);
        put_number(&row, token->used);
        put_number(&row, token->uses);
        put(&row, token->by);
        put_labels(&row, token->labels, token->n_labels);
        print_row(list, &row);
    }
    *total = tokens->total;
    return tokens->n_tokens;
}

int cmd_token_list(struct cli *cli)
{
    static const struct report_column columns[] = {{"TOKEN", "id"}, {"STATE", "state"},
        {"CREATED", "created"}, {"EXPIRES", "expires"}, {"USED", "#used"}, {"USES", "#uses"},
        {"BY", "by"}, {"LABELS", "labels"}};
    static const struct list_kind kind = {"meshperf.tokens/1", "tokens", columns, COUNT(columns),
        MP__ENVELOPE__BODY_TOKENS_ANSWER, ask_tokens, rows_of_tokens};
    return print_list(cli, &kind);
}

// Asks for something that is answered by DONE.
static int ask_done(struct cli *cli, Mp__Envelope *question)
{
    int status;
    Mp__Envelope *answer = cli_ask(cli, question, MP__ENVELOPE__BODY_DONE, &status);
    if (!answer)
        return status;
    if (answer->done->text && cli->flags.verbose)
        fprintf(stderr, "%s\n", answer->done->text);
    wire_free(&answer);
    return EXIT_FINE;
}

// Labels as words KEY=VALUE into messages; `removal` permits KEY=.
struct labels {
    Mp__Label label[WORDS_MAX];
    Mp__Label *list[WORDS_MAX];
    char key[WORDS_MAX][64], value[WORDS_MAX][64];
};

static int parse_labels(const char *const *words, size_t count, bool removal, struct labels *labels)
{
    for (size_t i = 0; i < count; i++) {
        bool good = label_split(words[i], labels->key[i], labels->value[i]);
        const char *value = good && removal && !*labels->value[i] ? "x" : labels->value[i];
        if (!good || !identity_label_valid(labels->key[i], value))
            return cli_usage("'%s' is no label of the form KEY=VALUE", words[i]);
        labels->label[i] = (Mp__Label)MP__LABEL__INIT;
        labels->label[i].key = labels->key[i];
        labels->label[i].value = labels->value[i];
        labels->list[i] = &labels->label[i];
    }
    return 0;
}

int cmd_token_create(struct cli *cli)
{
    static struct labels labels;
    int status = parse_labels(cli->flags.labels.word, cli->flags.labels.count, false, &labels);
    if (status)
        return status;
    Mp__TokenCreate create = MP__TOKEN_CREATE__INIT;
    create.expires_ns = cli->flags.expires_ns;
    create.uses = cli->flags.uses;
    create.n_labels = cli->flags.labels.count;
    create.labels = labels.list;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_TOKEN_CREATE;
    question.token_create = &create;
    Mp__Envelope *answer = cli_ask(cli, &question, MP__ENVELOPE__BODY_TOKEN_CREATED, &status);
    if (!answer)
        return status;
    printf("%s\n", answer->token_created->token);
    wire_free(&answer);
    return EXIT_FINE;
}

int cmd_token_revoke(struct cli *cli)
{
    Mp__TokenRevoke revoke = MP__TOKEN_REVOKE__INIT;
    revoke.id = (char *)cli->words[0];
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_TOKEN_REVOKE;
    question.token_revoke = &revoke;
    return ask_done(cli, &question);
}

// ----------------------------------------------------------------------------- operators

static void ask_operators(Mp__Envelope *question, void *query, uint32_t offset)
{
    Mp__OperatorsQuery *operators = query;
    *operators = (Mp__OperatorsQuery)MP__OPERATORS_QUERY__INIT;
    operators->has_offset = true;
    operators->offset = offset;
    question->body_case = MP__ENVELOPE__BODY_OPERATORS_QUERY;
    question->operators_query = operators;
}

static const char *const role_names[] = {"", "viewer", "operator", "admin"};

static size_t rows_of_operators(const Mp__Envelope *answer, report_list_t *list, uint32_t *total)
{
    const Mp__OperatorsAnswer *operators = answer->operators_answer;
    for (size_t i = 0; i < operators->n_operators; i++) {
        const Mp__OperatorInfo *info = operators->operators[i];
        struct row row = {.count = 0};
        put(&row, info->name);
        put(&row, role_names[info->role]);
        put(&row, info->fingerprint);
        put_time(&row, info->created_wall_ns);
        print_row(list, &row);
    }
    *total = operators->total;
    return operators->n_operators;
}

int cmd_operator_list(struct cli *cli)
{
    static const struct report_column columns[] = {
        {"OPERATOR", "name"}, {"ROLE", "role"}, {"KEY", "fingerprint"}, {"CREATED", "created"}};
    static const struct list_kind kind = {"meshperf.operators/1", "operators", columns,
        COUNT(columns), MP__ENVELOPE__BODY_OPERATORS_ANSWER, ask_operators, rows_of_operators};
    return print_list(cli, &kind);
}

int cmd_operator_add(struct cli *cli)
{
    Mp__OperatorAdd add = MP__OPERATOR_ADD__INIT;
    if (!identity_name_valid(cli->words[0]))
        return cli_usage("'%s' is no name", cli->words[0]);
    if (!cli->flags.role)
        return cli_usage("operator add needs --role viewer, operator or admin");
    add.name = (char *)cli->words[0];
    for (unsigned i = 1; i < COUNT(role_names); i++)
        if (strcmp(cli->flags.role, role_names[i]) == 0)
            add.role = (Mp__Role)i;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_OPERATOR_ADD;
    question.operator_add = &add;
    int status;
    Mp__Envelope *answer = cli_ask(cli, &question, MP__ENVELOPE__BODY_OPERATOR_ADDED, &status);
    if (!answer)
        return status;
    fputs(answer->operator_added->context, stdout);
    wire_free(&answer);
    if (!cli->flags.quiet)
        fprintf(stderr, "keep this in a file that only %s can read (chmod 600), for --context\n",
            cli->words[0]);
    return EXIT_FINE;
}

int cmd_operator_remove(struct cli *cli)
{
    Mp__OperatorRemove removal = MP__OPERATOR_REMOVE__INIT;
    removal.name = (char *)cli->words[0];
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_OPERATOR_REMOVE;
    question.operator_remove = &removal;
    return ask_done(cli, &question);
}

// --------------------------------------------------------------------------------- audit

static void ask_audit(Mp__Envelope *question, void *query, uint32_t offset)
{
    Mp__AuditQuery *audit = query;
    *audit = (Mp__AuditQuery)MP__AUDIT_QUERY__INIT;
    audit->has_offset = true;
    audit->offset = offset;
    question->body_case = MP__ENVELOPE__BODY_AUDIT_QUERY;
    question->audit_query = audit;
}

static size_t rows_of_audit(const Mp__Envelope *answer, report_list_t *list, uint32_t *total)
{
    const Mp__AuditAnswer *audit = answer->audit_answer;
    for (size_t i = 0; i < audit->n_entries; i++) {
        const Mp__AuditEntry *entry = audit->entries[i];
        struct row row = {.count = 0};
        put_time(&row, entry->wall_ns);
        put(&row, entry->who);
        put(&row, entry->what);
        put(&row, entry->object);
        put(&row, entry->detail);
        print_row(list, &row);
    }
    *total = audit->total;
    return audit->n_entries;
}

int cmd_audit(struct cli *cli)
{
    static const struct report_column columns[] = {{"WHEN", "when"}, {"WHO", "who"},
        {"WHAT", "what"}, {"OBJECT", "object"}, {"DETAIL", "detail"}};
    static const struct list_kind kind = {"meshperf.audit/1", "entries", columns, COUNT(columns),
        MP__ENVELOPE__BODY_AUDIT_ANSWER, ask_audit, rows_of_audit};
    return print_list(cli, &kind);
}

// --------------------------------------------------------------------------- agent changes

static int change_agent(
    struct cli *cli, Mp__AgentChange__What what, Mp__Label **labels, size_t count)
{
    Mp__AgentChange change = MP__AGENT_CHANGE__INIT;
    change.name = (char *)cli->words[0];
    change.what = what;
    change.n_labels = count;
    change.labels = labels;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_AGENT_CHANGE;
    question.agent_change = &change;
    return ask_done(cli, &question);
}

int cmd_agent_label(struct cli *cli)
{
    static struct labels labels;
    int status = parse_labels(cli->words + 1, cli->word_count - 1, true, &labels);
    return status
               ? status
               : change_agent(cli, MP__AGENT_CHANGE__WHAT__LABEL, labels.list, cli->word_count - 1);
}

int cmd_agent_drain(struct cli *cli)
{
    return change_agent(cli, MP__AGENT_CHANGE__WHAT__DRAIN, NULL, 0);
}

int cmd_agent_resume(struct cli *cli)
{
    return change_agent(cli, MP__AGENT_CHANGE__WHAT__RESUME, NULL, 0);
}

int cmd_agent_remove(struct cli *cli)
{
    return change_agent(cli, MP__AGENT_CHANGE__WHAT__REMOVE, NULL, 0);
}
