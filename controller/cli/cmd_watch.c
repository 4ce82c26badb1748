#include <string.h>
#include <unistd.h>

#include <czmq.h>

#include "cli.h"
#include "clock.h"
#include "errors.h"
#include "interrupt.h"
#include "report.h"
#include "units.h"
#include "verdicts.h"
#include "wire.h"

#define AWAIT_CONTROLLER_NS (60 * NS_PER_S)
#define POLL_MS 200

// What is shown of a run that goes on.
struct follow {
    struct cli *cli;
    const char *run;
    bool cancel, cancelled;
    bool terminal, jsonl;
    unsigned tenth; // progress lines elsewhere than on a terminal
    uint64_t since;
    int64_t start_mono_ns; // of following, with the cells done by then: the rate
    uint32_t done_before;
    struct run_pages pages; // for names in jsonl events
    char *told;             // cells whose result was printed
    uint32_t cells;
};

// -------------------------------------------------------------------------------- progress

static void progress_line(struct follow *follow, const Mp__RunInfo *info)
{
    char left[UNITS_TEXT_SIZE] = "", line[200];
    double followed_s = (double)(clock_mono_ns() - follow->start_mono_ns) / 1e9;
    double done = info->done > follow->done_before ? info->done - follow->done_before : 0;
    if (info->has_eta_s)
        units_format_seconds(info->eta_s, left);
    snprintf(line, sizeof line, "%s %s: %u of %u done, %u running, %u failed, %.1f/s%s%s", info->id,
        info->state == MP__RUN_STATE__QUEUED ? "queued" : "running", info->done, info->cells,
        info->running, info->failed, followed_s > 0 ? done / followed_s : 0, *left ? ", left " : "",
        left);
    if (follow->terminal) {
        fprintf(stderr, "\r%-78s", line);
        fflush(stderr);
        return;
    }
    unsigned tenth = info->cells ? (unsigned)((uint64_t)info->done * 10 / info->cells) : 10;
    if (tenth > follow->tenth)
        fprintf(stderr, "%s\n", line);
    follow->tenth = tenth > follow->tenth ? tenth : follow->tenth;
}

static void print_events(struct follow *follow, const Mp__EventsAnswer *answer)
{
    for (size_t i = 0; i < answer->n_events; i++) {
        const Mp__Event *event = answer->events[i];
        if (event->kind == MP__EVENT__KIND__RESULT && event->cell &&
            event->cell->index < follow->cells) {
            if (follow->told[event->cell->index])
                continue;
            follow->told[event->cell->index] = 1;
        }
        report_event(stdout, event, follow->pages.agents, follow->pages.agent_count);
    }
    fflush(stdout);
}

// ------------------------------------------------------------------------------ following

static Mp__Envelope *ask_events(struct follow *follow, int *error)
{
    Mp__EventsQuery query = MP__EVENTS_QUERY__INIT;
    query.run = (char *)follow->run;
    query.since = follow->since;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_EVENTS_QUERY;
    question.events_query = &query;
    return cli_try(follow->cli, &question, AWAIT_CONTROLLER_NS, error);
}

static bool ended(const Mp__RunInfo *info)
{
    return info->state == MP__RUN_STATE__FINISHED || info->state == MP__RUN_STATE__CANCELLED;
}

static int cancel_now(struct follow *follow)
{
    Mp__RunCancel cancel = MP__RUN_CANCEL__INIT;
    cancel.run = (char *)follow->run;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_RUN_CANCEL;
    question.run_cancel = &cancel;
    int status = 0;
    follow->cancelled = true;
    interrupt_answered();
    interrupt_hold(follow->cli);
    Mp__Envelope *answer = cli_ask(follow->cli, &question, MP__ENVELOPE__BODY_DONE, &status);
    wire_free(&answer);
    interrupt_resume(follow->cli);
    return status == EXIT_USAGE ? 0 : status; // it ended before it could be cancelled
}

static int controller_gone(struct follow *follow)
{
    fprintf(stderr,
        "meshperf: the controller at %s is gone; the run %s goes on when it returns: meshperf "
        "watch %s\n",
        follow->cli->endpoint, follow->run, follow->run);
    return EXIT_CONTROLLER;
}

// One look; 0 to go on, -1 at the run's end, else an exit status.
static int look(struct follow *follow, int *wait_ms)
{
    int error;
    Mp__Envelope *answer = ask_events(follow, &error);
    *wait_ms = POLL_MS;
    if (!answer && error == MESH_E_STOPPED)
        return 0;
    if (!answer)
        return controller_gone(follow);
    int result = 0;
    if (answer->body_case == MP__ENVELOPE__BODY_EVENTS_ANSWER) {
        const Mp__EventsAnswer *events = answer->events_answer;
        if (follow->jsonl)
            print_events(follow, events);
        if (!follow->cli->flags.quiet)
            progress_line(follow, events->info);
        // A smaller number: another life of the controller, which counts from its own start.
        if (events->n_events > 0 && events->next > follow->since)
            *wait_ms = 0;
        follow->since = events->next;
        result = ended(events->info) ? -1 : 0;
        if (ended(events->info) && events->n_events > 0)
            result = 0;
    } else if (answer->body_case == MP__ENVELOPE__BODY_REFUSED) {
        result = cli_refused(follow->cli, answer->refused);
    } else {
        result = EXIT_BUG;
    }
    wire_free(&answer);
    return result;
}

static int follow_to_end(struct follow *follow)
{
    for (;;) {
        if (interrupt_pressed() && follow->cancel && !follow->cancelled) {
            int status = cancel_now(follow);
            if (status)
                return status;
        } else if (interrupt_pressed() && !follow->cancel) {
            return EXIT_CANCELLED;
        }
        int wait_ms;
        int result = look(follow, &wait_ms);
        if (result)
            return result < 0 ? 0 : result;
        if (wait_ms > 0)
            zclock_sleep(wait_ms);
    }
}

// ---------------------------------------------------------------------------- the end of it

// Results that no event told of, from another life of the controller or beyond the ring.
static int print_missed_results(struct follow *follow, const Mp__RunInfo *info)
{
    uint32_t offset = 0;
    while (offset < info->cells) {
        Mp__CellsQuery query = MP__CELLS_QUERY__INIT;
        query.run = (char *)follow->run;
        query.offset = offset;
        Mp__Envelope question = MP__ENVELOPE__INIT;
        question.body_case = MP__ENVELOPE__BODY_CELLS_QUERY;
        question.cells_query = &query;
        int status;
        Mp__Envelope *answer =
            cli_ask(follow->cli, &question, MP__ENVELOPE__BODY_CELLS_ANSWER, &status);
        if (!answer)
            return status;
        size_t count = answer->cells_answer->n_cells;
        for (size_t i = 0; i < count; i++) {
            Mp__Cell *cell = answer->cells_answer->cells[i];
            Mp__Event event = MP__EVENT__INIT;
            event.kind = MP__EVENT__KIND__RESULT;
            event.wall_ns = clock_wall_ns();
            event.cell = cell;
            if (cell->index < follow->cells && !follow->told[cell->index])
                report_event(stdout, &event, follow->pages.agents, follow->pages.agent_count);
        }
        wire_free(&answer);
        if (count == 0)
            break;
        offset += (uint32_t)count;
    }
    return 0;
}

static int print_end(struct follow *follow)
{
    struct cli *cli = follow->cli;
    struct run_pages pages;
    if (follow->terminal && !cli->flags.quiet)
        fprintf(stderr, "\r%-78s\r", "");
    int status = run_fetch(cli, follow->run, &pages);
    if (status)
        return status;
    const Mp__RunInfo *info = pages.first->run_answer->info;
    if (run_is_check(&pages))
        status = run_judge(cli, &pages, NULL);
    int verdict = pages.verdicts ? verdicts_status(cli, &pages)
                                 : report_exit_status(info, cli->flags.allow_incomplete);
    // Files first: where one of them fails, standard output stays empty.
    if (!status)
        status = run_write_reports(cli, &pages);
    if (follow->jsonl) {
        int missed = print_missed_results(follow, info);
        status = status ? status : missed;
        if (pages.verdicts)
            verdicts_print_end(cli, &pages, status ? status : verdict);
        else
            report_event_end(stdout, info, status ? status : verdict);
    } else if (!status) {
        status = run_print(cli, &pages, cli->flags.format, stdout);
    }
    run_release(&pages);
    return status ? status : verdict;
}

int run_follow(struct cli *cli, const char *run, bool cancel)
{
    struct follow follow = {.cli = cli,
        .run = run,
        .cancel = cancel,
        .terminal = isatty(STDERR_FILENO),
        .jsonl = strcmp(cli->flags.format, "jsonl") == 0};
    interrupt_hold(cli);
    int status = run_fetch(cli, run, &follow.pages);
    if (!status) {
        const Mp__RunInfo *info = follow.pages.first->run_answer->info;
        follow.cells = info->cells;
        follow.start_mono_ns = clock_mono_ns();
        follow.done_before = info->done;
        follow.told = zmalloc(follow.cells + 1);
        if (follow.jsonl)
            report_event_plan(stdout, info, follow.pages.agents, follow.pages.agent_count);
        interrupt_resume(cli);
        status = follow_to_end(&follow);
        interrupt_hold(cli);
        if (status == 0)
            status = print_end(&follow);
        else if (status == EXIT_CANCELLED && !cancel)
            fprintf(stderr, "\nmeshperf: %s goes on; meshperf watch %s follows it\n", run, run);
        free(follow.told);
        run_release(&follow.pages);
    }
    return status;
}

int cmd_watch(struct cli *cli)
{
    interrupt_catch(cli);
    int status = run_follow(cli, cli->word_count ? cli->words[0] : "last", false);
    interrupt_release(cli);
    return status;
}

int cmd_cancel(struct cli *cli)
{
    Mp__RunCancel cancel = MP__RUN_CANCEL__INIT;
    cancel.run = (char *)cli->words[0];
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_RUN_CANCEL;
    question.run_cancel = &cancel;
    int status;
    Mp__Envelope *answer = cli_ask(cli, &question, MP__ENVELOPE__BODY_DONE, &status);
    if (!answer)
        return status;
    wire_free(&answer);
    return EXIT_FINE;
}
