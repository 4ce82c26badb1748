#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "report.h"
#include "verdicts.h"
#include "wire.h"

// ------------------------------------------------------------------------------ fetching

void run_release(struct run_pages *pages)
{
    for (size_t i = 0; i < pages->part_count; i++)
        wire_free(&pages->parts[i]);
    free(pages->parts);
    free(pages->agents);
    verdicts_destroy(&pages->verdicts);
    agents_release(&pages->registered);
    memset(pages, 0, sizeof *pages);
}

static Mp__Envelope *ask_run(struct cli *cli, const char *run, size_t offset, int *status)
{
    Mp__RunQuery query = MP__RUN_QUERY__INIT;
    query.run = (char *)run;
    query.has_agents_offset = true;
    query.agents_offset = (uint32_t)offset;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_RUN_QUERY;
    question.run_query = &query;
    return cli_ask(cli, &question, MP__ENVELOPE__BODY_RUN_ANSWER, status);
}

static void keep_part(struct run_pages *pages, Mp__Envelope *part)
{
    const Mp__RunAnswer *answer = part->run_answer;
    pages->parts = realloc(pages->parts, (pages->part_count + 1) * sizeof *pages->parts);
    pages->agents =
        realloc(pages->agents, (pages->agent_count + answer->n_agents + 1) * sizeof *pages->agents);
    if (!pages->parts || !pages->agents)
        abort();
    pages->parts[pages->part_count++] = part;
    memcpy(pages->agents + pages->agent_count, answer->agents,
        answer->n_agents * sizeof *pages->agents);
    pages->agent_count += answer->n_agents;
    pages->first = pages->parts[0];
}

int run_fetch(struct cli *cli, const char *run, struct run_pages *pages)
{
    int status = 0;
    memset(pages, 0, sizeof *pages);
    for (;;) {
        Mp__Envelope *part = ask_run(cli, run, pages->agent_count, &status);
        if (!part) {
            run_release(pages);
            return status;
        }
        size_t got = part->run_answer->n_agents;
        keep_part(pages, part);
        if (got == 0 || pages->agent_count >= pages->first->run_answer->info->agents)
            return 0;
    }
}

static int print_page(
    struct cli *cli, const char *run, uint32_t offset, report_t *report, size_t *count)
{
    Mp__CellsQuery query = MP__CELLS_QUERY__INIT;
    query.run = (char *)run;
    query.offset = offset;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_CELLS_QUERY;
    question.cells_query = &query;
    int status;
    Mp__Envelope *answer = cli_ask(cli, &question, MP__ENVELOPE__BODY_CELLS_ANSWER, &status);
    if (!answer)
        return status;
    *count = answer->cells_answer->n_cells;
    for (size_t i = 0; i < *count; i++)
        (void)report_cell(report, answer->cells_answer->cells[i]);
    wire_free(&answer);
    return 0;
}

// ------------------------------------------------------------------------------- printing

// Hands a whole temporary file on.
static int pour(FILE *held, FILE *stream)
{
    char part[65536];
    size_t size;
    rewind(held);
    while ((size = fread(part, 1, sizeof part, held)) > 0)
        if (fwrite(part, 1, size, stream) != size)
            return errno == EPIPE ? 0 : cli_usage("writing the report: %s", strerror(errno));
    return ferror(held) ? cli_usage("the temporary file: %s", strerror(errno)) : 0;
}

static int print_cells(struct cli *cli, const struct run_pages *pages,
    const struct report_options *options, FILE *stream)
{
    const Mp__RunInfo *info = pages->first->run_answer->info;
    report_t *report = report_new(options, stream);
    if (!report)
        return cli_usage("the format '%s' cannot be printed so", options->format);
    int status = 0;
    uint32_t offset = 0;
    (void)report_begin(report, info, pages->agents, pages->agent_count);
    while (!status && offset < info->cells) {
        size_t count = 0;
        status = print_page(cli, info->id, offset, report, &count);
        if (count == 0)
            break;
        offset += (uint32_t)count;
    }
    int written = report_end(report);
    report_destroy(&report);
    if (!status && written < 0 && written != -EPIPE)
        status = cli_usage("writing the report: %s", strerror(-written));
    return status;
}

// What asks for the cells of a check rather than its verdicts.
static bool wants_cells(const struct flags *flags)
{
    return flags->metric || flags->group_by || flags->pair || flags->worst;
}

static int print_verdicts(
    struct cli *cli, struct run_pages *pages, const char *format, FILE *stream)
{
    int status = run_judge(cli, pages, NULL);
    return status ? status : verdicts_print(cli, pages, format, stream);
}

int run_print(struct cli *cli, struct run_pages *pages, const char *format, FILE *stream)
{
    const struct flags *flags = &cli->flags;
    if (run_is_check(pages) && !wants_cells(flags))
        return print_verdicts(cli, pages, format, stream);
    struct report_options options = {.format = format,
        .metric = flags->metric,
        .group_by = flags->group_by,
        .worst = flags->worst,
        .color = cli_color(cli, stream),
        .width = cli_width(stream),
        .verbose = flags->verbose};
    if (flags->pair) {
        options.pair_from = cli->words[cli->word_count - 2];
        options.pair_to = cli->words[cli->word_count - 1];
    }
    // A controller that goes away between two pages must not leave half a document behind.
    FILE *held = tmpfile();
    if (!held)
        return cli_usage("a temporary file: %s", strerror(errno));
    int status = print_cells(cli, pages, &options, held);
    if (!status && fflush(held) != 0)
        status = cli_usage("the temporary file: %s", strerror(errno));
    if (!status)
        status = pour(held, stream);
    fclose(held);
    return status;
}

// Written beside the file and renamed, so that nobody sees half a report.
int report_open(const char *path, char temporary[4096], FILE **stream)
{
    if (snprintf(temporary, 4096, "%s.XXXXXX", path) >= 4096)
        return cli_usage("'%s' is too long", path);
    int fd = mkstemp(temporary);
    if (fd < 0)
        return cli_usage("%s: %s", path, strerror(errno));
    *stream = fdopen(fd, "w");
    if (!*stream)
        abort();
    return 0;
}

int report_close(const char *path, const char *temporary, FILE *stream, int status)
{
    int fd = fileno(stream);
    bool good = fflush(stream) == 0 && !ferror(stream) && fchmod(fd, 0644) == 0 && fsync(fd) == 0;
    int error = errno;
    fclose(stream);
    if (!status && !good)
        status = cli_usage("%s: %s", path, strerror(error));
    if (!status && rename(temporary, path) < 0)
        status = cli_usage("%s: %s", path, strerror(errno));
    if (status)
        unlink(temporary);
    return status;
}

static int print_to_file(
    struct cli *cli, struct run_pages *pages, const char *format, const char *path)
{
    char temporary[4096];
    FILE *stream;
    int status = report_open(path, temporary, &stream);
    if (status)
        return status;
    return report_close(path, temporary, stream, run_print(cli, pages, format, stream));
}

int run_write_reports(struct cli *cli, struct run_pages *pages)
{
    int status = 0;
    for (size_t i = 0; i < cli->flags.reports.count && !status; i++) {
        const char *word = cli->flags.reports.word[i], *equal = strchr(word, '=');
        char kind[8];
        snprintf(kind, sizeof kind, "%.*s", (int)(equal - word), word);
        status = print_to_file(cli, pages, kind, equal + 1);
    }
    return status;
}

// --------------------------------------------------------------------------------- commands

static bool has_agent(const struct run_pages *pages, const char *name)
{
    for (size_t i = 0; i < pages->agent_count; i++)
        if (strcmp(pages->agents[i]->name, name) == 0)
            return true;
    return false;
}

int cmd_show(struct cli *cli)
{
    size_t own = cli->flags.pair ? 2 : 0;
    if (cli->flags.pair && cli->word_count < 2)
        return cli_usage("--pair needs FROM and TO");
    if (cli->word_count > own + 1)
        return cli_usage("'%s' is one word too many for show", cli->words[cli->word_count - 1]);
    // The run may stand before or after the pair; ids look like r-17.
    if (cli->flags.pair && cli->word_count == 3 && strncmp(cli->words[0], "r-", 2) != 0 &&
        strcmp(cli->words[0], "last") != 0) {
        const char *run = cli->words[2];
        cli->words[2] = cli->words[1];
        cli->words[1] = cli->words[0];
        cli->words[0] = run;
    }
    struct run_pages pages;
    int status = run_fetch(cli, cli->word_count > own ? cli->words[0] : "last", &pages);
    if (status)
        return status;
    for (size_t i = 0; i < own && !status; i++)
        if (!has_agent(&pages, cli->words[cli->word_count - 2 + i]))
            status = cli_usage("no agent '%s' in this run", cli->words[cli->word_count - 2 + i]);
    if (!status)
        status = run_print(cli, &pages, cli->flags.format, stdout);
    run_release(&pages);
    return status;
}

int cmd_export(struct cli *cli)
{
    static const char *const endings[] = {"json", "jsonl", "csv", "md", "xml"};
    if (cli->flags.to.count != 1)
        return cli_usage("export needs one --to FILE");
    const char *path = cli->flags.to.word[0], *dot = strrchr(path, '.'), *format = NULL;
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (strcmp(dot + 1, endings[i]) == 0)
            format = endings[i];
    if (!format)
        return cli_usage(
            "'%s' does not end in .json, .jsonl, .csv, .md or (of a check) .xml", path);
    struct run_pages pages;
    int status = run_fetch(cli, cli->word_count ? cli->words[0] : "last", &pages);
    if (status)
        return status;
    bool junit = strcmp(format, "xml") == 0;
    if (junit && !run_is_check(&pages))
        status = cli_usage("%s is no check: only verdicts can be written as JUnit XML",
            pages.first->run_answer->info->id);
    else
        status = print_to_file(cli, &pages, junit ? "junit" : format, path);
    run_release(&pages);
    return status;
}
