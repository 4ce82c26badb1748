// `check`: a policy against reality, or against an earlier run.

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cli.h"
#include "interrupt.h"
#include "verdicts.h"
#include "wire.h"

// ------------------------------------------------------------------------------------- upload

static Mp__Envelope *send_part(struct cli *cli, Mp__CheckPart *part, int *status)
{
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_CHECK_PART;
    question.check_part = part;
    bool last = part->part + 1 == part->parts;
    return cli_ask(
        cli, &question, last ? MP__ENVELOPE__BODY_RUN_ACCEPTED : MP__ENVELOPE__BODY_DONE, status);
}

// Sends the text and gets the run's id; an exit status that was said, and the refusal in `why`.
static int upload(struct cli *cli, const struct policy_file *file, char run[64])
{
    uint8_t id[16];
    Mp__CheckPart part = MP__CHECK_PART__INIT;
    randombytes_buf(id, sizeof id);
    part.upload = (ProtobufCBinaryData){sizeof id, id};
    part.parts = (uint32_t)((file->size + WIRE_PART_BYTES - 1) / WIRE_PART_BYTES);
    part.name = (char *)cli->flags.name;
    part.command = cli->command_line;
    part.has_family = cli->flags.given[FLAG_FAMILY];
    part.family = cli->flags.test.family;
    for (part.part = 0; part.part < part.parts; part.part++) {
        size_t at = (size_t)part.part * WIRE_PART_BYTES, left = file->size - at;
        int status;
        part.policy_text = (ProtobufCBinaryData){
            left < WIRE_PART_BYTES ? left : WIRE_PART_BYTES, (uint8_t *)file->text + at};
        Mp__Envelope *answer = send_part(cli, &part, &status);
        if (!answer)
            return status;
        if (answer->body_case == MP__ENVELOPE__BODY_RUN_ACCEPTED)
            snprintf(run, 64, "%s", answer->run_accepted->run);
        wire_free(&answer);
    }
    return 0;
}

// --------------------------------------------------------------------------------- not started

// CI sees a check that could not start as a failed case, where it was to see cases.
static void report_failure(struct cli *cli, const char *policy, const char *why)
{
    for (size_t i = 0; i < cli->flags.reports.count; i++) {
        const char *word = cli->flags.reports.word[i];
        if (strncmp(word, "junit=", 6) != 0)
            continue;
        FILE *stream;
        char temporary[4096];
        if (report_open(word + 6, temporary, &stream) != 0)
            continue;
        check_junit_failure(policy, why, stream);
        (void)!report_close(word + 6, temporary, stream, 0);
    }
}

static int not_made(struct cli *cli, const char *policy, const char *why, int status)
{
    char words[1200];
    if (status != EXIT_USAGE && status != EXIT_CONTROLLER)
        return status;
    snprintf(words, sizeof words, "the check could not be made (exit status %d)%s%s", status,
        *why ? ": " : "", why);
    report_failure(cli, policy, words);
    return status;
}

// -------------------------------------------------------------------------------------- ending

// Files first: where one of them fails, standard output stays empty.
static int print_all(struct cli *cli, struct run_pages *pages)
{
    int status = run_write_reports(cli, pages);
    if (!status)
        status = verdicts_print(cli, pages, cli->flags.format, stdout);
    return status ? status : verdicts_status(cli, pages);
}

// An earlier run's cells.
static int check_earlier(struct cli *cli, struct policy_file *file)
{
    struct run_pages pages;
    int status = run_fetch(cli, cli->flags.run, &pages);
    if (status)
        return status;
    status = run_judge(cli, &pages, file);
    if (!status)
        status = print_all(cli, &pages);
    run_release(&pages);
    return status;
}

// Nothing to measure: every rule means nobody, and the verdicts say so.
static int check_nothing(struct cli *cli, struct policy_file *file)
{
    struct run_pages pages = {0};
    int status = agents_judge(cli, &pages, file);
    if (!status)
        status = print_all(cli, &pages);
    run_release(&pages);
    return status;
}

static int check_start(struct cli *cli, struct policy_file *file)
{
    char run[64] = "";
    // That there is nothing to measure is a result, and no refusal.
    cli->quiet_refusals = true;
    int status = upload(cli, file, run);
    cli->quiet_refusals = false;
    if (status && cli->nothing)
        return check_nothing(cli, file);
    if (status) {
        if (status != EXIT_CANCELLED)
            fprintf(stderr, "meshperf: %s\n", cli->refusal);
        return status;
    }
    if (!cli->flags.detach)
        return run_follow(cli, run, true);
    printf("%s\n", run);
    return EXIT_FINE;
}

int cmd_check(struct cli *cli)
{
    struct policy_file file;
    char why[1024], name[POLICY_NAME_MAX + 1];
    int status = check_reports(&cli->flags.reports, true);
    if (status)
        return status;
    status = policy_file_read(cli->words[0], &file, why);
    if (status)
        return not_made(cli, cli->words[0], why, status);
    snprintf(name, sizeof name, "%s", file.policy->name);
    interrupt_catch(cli);
    status = cli->flags.run ? check_earlier(cli, &file) : check_start(cli, &file);
    interrupt_release(cli);
    policy_file_release(&file);
    return not_made(cli, name, cli->refusal, status);
}
