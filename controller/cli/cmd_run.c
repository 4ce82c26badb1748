#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "interrupt.h"
#include "ports.h"
#include "report.h"
#include "selector.h"
#include "wire.h"

// --------------------------------------------------------------------------- checked locally

static int parse_kinds(struct cli *cli, enum test_kind *kinds)
{
    for (size_t i = 0; i < cli->word_count; i++) {
        const char *word = cli->words[i];
        bool known = test_kind_parse(word, &kinds[i]);
        if (!known)
            return cli_usage("'%s' is no test: tcp, udp, sctp, latency, path or port", word);
        for (size_t k = 0; k < i; k++)
            if (kinds[k] == kinds[i])
                return cli_usage("'%s' is named twice", word);
    }
    return 0;
}

static int check_selectors(const struct words *words)
{
    char error[256];
    for (size_t i = 0; i < words->count; i++) {
        selector_t *selector = selector_new(words->word[i], error);
        if (!selector)
            return cli_usage("%s", error);
        selector_destroy(&selector);
    }
    return 0;
}

int check_reports(const struct words *reports, bool junit)
{
    for (size_t i = 0; i < reports->count; i++) {
        const char *word = reports->word[i], *equal = strchr(word, '=');
        size_t kind = equal ? (size_t)(equal - word) : 0;
        bool known = (kind == 2 && memcmp(word, "md", 2) == 0) ||
                     (kind == 3 && memcmp(word, "csv", 3) == 0) ||
                     (kind == 4 && memcmp(word, "json", 4) == 0) ||
                     (junit && kind == 5 && memcmp(word, "junit", 5) == 0);
        if (!known || !equal[1])
            return cli_usage("'%s' is not of the form KIND=FILE with %smd, csv or json", word,
                junit ? "junit, " : "");
    }
    return 0;
}

static int check_flags(struct cli *cli, const enum test_kind *kinds)
{
    const char *foreign = flag_refused_by_tests(&cli->flags, kinds, cli->word_count);
    if (foreign)
        return cli_usage("none of the named tests knows %s", foreign);
    int status = check_selectors(&cli->flags.from);
    if (!status)
        status = check_selectors(&cli->flags.to);
    if (!status)
        status = check_selectors(&cli->flags.both);
    return status ? status : check_reports(&cli->flags.reports, false);
}

// --------------------------------------------------------------------------------- request

struct request {
    Mp__RunRequest message;
    struct testspec specs[TEST_KIND_MAX];
    Mp__TestSpec wires[TEST_KIND_MAX];
    Mp__TestSpec *tests[TEST_KIND_MAX];
    Mp__PortRange ranges[WORDS_MAX];
    Mp__PortRange *ports[WORDS_MAX];
};

static int fill_tests(struct cli *cli, const enum test_kind *kinds, struct request *request)
{
    char error[256];
    for (size_t i = 0; i < cli->word_count; i++) {
        testspec_defaults(kinds[i], &request->specs[i]);
        flags_to_spec(&cli->flags, &request->specs[i]);
        if (testspec_check(&request->specs[i], error))
            return cli_usage("%s: %s", cli->words[i], error);
        request->wires[i] = (Mp__TestSpec)MP__TEST_SPEC__INIT;
        testspec_to_wire(&request->specs[i], &request->wires[i]);
        request->tests[i] = &request->wires[i];
    }
    request->message.n_tests = cli->word_count;
    request->message.tests = request->tests;
    return 0;
}

static int fill_ports(struct cli *cli, struct request *request)
{
    const struct words *words = &cli->flags.ports;
    char error[256];
    bool probes = false;
    for (size_t i = 0; i < request->message.n_tests; i++)
        probes = probes || request->tests[i]->kind == MP__TEST_KIND__PORT;
    if (probes && words->count == 0)
        return cli_usage("port: which one? Name at least one with --port, such as --port tcp/443");
    for (size_t i = 0; i < words->count; i++) {
        struct port_range range;
        if (port_range_parse(words->word[i], &range, error))
            return cli_usage("--port: %s", error);
        request->ranges[i] = (Mp__PortRange)MP__PORT_RANGE__INIT;
        request->ranges[i].transport = range.transport;
        request->ranges[i].first = range.first;
        request->ranges[i].last = range.last;
        request->ports[i] = &request->ranges[i];
    }
    request->message.ports = request->ports;
    request->message.n_ports = words->count;
    return 0;
}

static void fill_request(struct cli *cli, struct request *request)
{
    const struct flags *flags = &cli->flags;
    Mp__RunRequest *message = &request->message;
    message->n_from = flags->from.count;
    message->from = (char **)flags->from.word;
    message->n_to = flags->to.count;
    message->to = (char **)flags->to.word;
    message->n_both = flags->both.count;
    message->both = (char **)flags->both.word;
    message->n_shared = flags->shared.count;
    message->shared = (char **)flags->shared.word;
    message->pairs = (char *)flags->pairs;
    message->has_seed = flags->seed_given;
    message->seed = flags->seed;
    message->has_mode = flags->mode_given;
    message->mode = flags->mode;
    message->has_machines_ignore = flags->machines_ignore;
    message->machines_ignore = flags->machines_ignore;
    message->has_retries = true;
    message->retries = flags->retries;
    message->has_passes = flags->passes > 1;
    message->passes = flags->passes;
    message->has_flow_check = message->flow_check = flags->flow_check;
    message->name = (char *)flags->name;
    message->command = cli->command_line;
    message->has_plan_only = flags->plan;
    message->plan_only = flags->plan;
}

static int print_plan(struct cli *cli, Mp__Envelope *question)
{
    int status = EXIT_BUG;
    Mp__Envelope *answer = cli_ask(cli, question, MP__ENVELOPE__BODY_PLAN_ANSWER, &status);
    if (!answer)
        return status;
    report_plan(stdout, cli->flags.format, answer->plan_answer);
    wire_free(&answer);
    return EXIT_FINE;
}

static int start_and_follow(struct cli *cli, Mp__Envelope *question)
{
    int status = EXIT_BUG;
    Mp__Envelope *answer = cli_ask(cli, question, MP__ENVELOPE__BODY_RUN_ACCEPTED, &status);
    if (!answer)
        return status;
    char run[64];
    snprintf(run, sizeof run, "%s", answer->run_accepted->run);
    wire_free(&answer);
    if (!cli->flags.detach)
        return run_follow(cli, run, true);
    printf("%s\n", run);
    return EXIT_FINE;
}

int cmd_run(struct cli *cli)
{
    enum test_kind kinds[TEST_KIND_MAX];
    struct request request = {.message = MP__RUN_REQUEST__INIT};
    int status = parse_kinds(cli, kinds);
    if (!status)
        status = check_flags(cli, kinds);
    if (!status)
        status = fill_tests(cli, kinds, &request);
    if (!status)
        status = fill_ports(cli, &request);
    if (status)
        return status;
    fill_request(cli, &request);
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_RUN_REQUEST;
    question.run_request = &request.message;
    if (cli->flags.plan)
        return print_plan(cli, &question);
    interrupt_catch(cli);
    status = start_and_follow(cli, &question);
    interrupt_release(cli);
    return status;
}
