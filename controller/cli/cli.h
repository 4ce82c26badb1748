#ifndef MESHPERF_CLI_H
#define MESHPERF_CLI_H

// The command line: one table of commands (commands.c), one table of options (flags.c), one file a
// command or group of commands. main() parses, finds the row, and runs it.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "client.h"
#include "meshperf.pb-c.h"
#include "options.h"
#include "testspec.h"

enum exit_status {
    EXIT_FINE = 0,
    EXIT_VIOLATED = 1,
    EXIT_USAGE = 2,
    EXIT_CONTROLLER = 3,
    EXIT_INCOMPLETE = 4,
    EXIT_CANCELLED = 5,
    EXIT_BUG = 70,
};

#define WORDS_MAX 64 // of one repeatable option
#define REPORTS_MAX 8

// A repeatable option's words, borrowed from argv.
struct words {
    const char *word[WORDS_MAX];
    size_t count;
};

enum flag {
    FLAG_TIME,
    FLAG_OMIT,
    FLAG_INTERVAL,
    FLAG_PARALLEL,
    FLAG_BITRATE,
    FLAG_LENGTH,
    FLAG_STREAMS,
    FLAG_WINDOW,
    FLAG_REVERSE,
    FLAG_BIDIR,
    FLAG_FAMILY,
    FLAG_DSCP,
    FLAG_CONGESTION,
    FLAG_MSS,
    FLAG_FLOWS,
    FLAG_UNTIL,
    FLAG_PORT,
    FLAG_ATTEMPTS,
    FLAG_TIMEOUT,
    FLAG_RATE,
    FLAG_FROM_PORT,
    FLAG_VIA,
    FLAG_FLOW_CHECK,
    FLAG_OTHER,
    FLAG_COUNT
};

// Everything that options can say. Test options are applied to each named test that knows them.
struct flags {
    bool given[FLAG_COUNT];
    const char *context, *format, *color, *config_name;
    bool quiet, verbose, help, version;
    int64_t connect_timeout_ns;
    struct testspec test; // values of test options only where `given`
    bool bitrate_max;
    struct words from, to, both, shared, labels, reports, ports;
    const char *pairs, *name, *metric, *group_by, *role, *run;
    uint64_t seed;
    bool seed_given, machines_ignore, flow_check, plan, detach, allow_incomplete, pair, expires_given;
    Mp__Mode mode;
    bool mode_given;
    unsigned passes, retries;
    unsigned worst;
    int64_t expires_ns;
    unsigned uses;
};

struct command;

struct cli {
    struct flags flags;
    const struct command *command;
    const char **words; // after the command's own
    size_t word_count;
    char command_line[4096]; // as typed, for the run's record
    client_t *client;        // connected lazily by cli_ask
    char endpoint[256];
    const volatile bool *interrupted; // by Ctrl-C (interrupt.h); NULL: it is not asked
    char refusal[1024];               // why the last question got no answer, as it was said
    bool quiet_refusals;              // keep that, do not say it
    bool nothing;                     // the last refusal: there is no pair to measure
};

// Bits of option_spec.scope: which commands know an option. Test options are the command `run`'s.
enum scope {
    SCOPE_RUN = 1,
    SCOPE_SHOW = 2,
    SCOPE_EXPORT = 4,
    SCOPE_TOKEN = 8,
    SCOPE_OPERATOR = 16,
    SCOPE_WATCH = 32,
    SCOPE_CHECK = 64,
    SCOPE_EXPLAIN = 128,
    SCOPE_LEARN = 256,
};

struct command {
    const char *words;     // "agent list"
    const char *arguments; // for the synopsis: "NAME KEY=VALUE..."
    const char *help;      // one line
    unsigned scope;        // options it knows beside the global ones
    size_t least, most;    // words after its own; most SIZE_MAX: any
    int (*run)(struct cli *cli);
};
const struct command *commands(size_t *count);

// flags.c
extern const struct option_table cli_options;
void flags_init(struct flags *flags);
const char *flag_refused_by_tests(
    const struct flags *flags, const enum test_kind *kinds, size_t count);
void flags_to_spec(const struct flags *flags, struct testspec *spec);

// cli.c: words on standard error, and the controller's answers
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Asks; NULL after having said why, with the exit status in *status.
Mp__Envelope *cli_ask(
    struct cli *cli, Mp__Envelope *question, Mp__Envelope__BodyCase expected, int *status);
// The same without a word and with its own patience; *error as client_ask's.
Mp__Envelope *cli_try(struct cli *cli, Mp__Envelope *question, int64_t timeout_ns, int *error);
int cli_connect(struct cli *cli);                             // 0 or an exit status, said
int cli_refused(struct cli *cli, const Mp__Refused *refused); // says it; the exit status
bool cli_color(const struct cli *cli, FILE *stream);
unsigned cli_width(FILE *stream);
bool label_split(const char *word, char key[64], char value[64]);
// Ends standard output: a full disk or closed pipe is a file error.
int cli_finish(FILE *stream, int status);

// cmd_agents.c: all pages of agents, kept until released
struct agent_pages {
    Mp__Envelope **parts;
    size_t part_count;
    Mp__AgentInfo **agents;
    size_t count;
};
int agents_fetch(struct cli *cli, const char *name, struct agent_pages *pages);
void agents_release(struct agent_pages *pages);

// cmd_show.c: shared by run, watch, check, show and export
struct verdicts;
struct run_pages {
    Mp__Envelope *first;  // holds info
    Mp__Envelope **parts; // holds agents
    size_t part_count;
    Mp__RunAgent **agents; // borrowed from parts
    size_t agent_count;
    struct verdicts *verdicts;     // verdicts.h; NULL: not judged (yet)
    struct agent_pages registered; // of a check without a run
};
int run_fetch(struct cli *cli, const char *run, struct run_pages *pages);
void run_release(struct run_pages *pages);
int run_print(struct cli *cli, struct run_pages *pages, const char *format, FILE *stream);
int run_write_reports(struct cli *cli, struct run_pages *pages);
// A file is written beside its place and renamed by report_close, unless `status` says that it
// failed.
int report_open(const char *path, char temporary[4096], FILE **stream);
int report_close(const char *path, const char *temporary, FILE *stream, int status);
// cmd_run.c: KIND=FILE words; junit only where it is possible
int check_reports(const struct words *reports, bool junit);

// cmd_watch.c: follows a run to its end and prints it; `cancel` = Ctrl-C cancels the run.
int run_follow(struct cli *cli, const char *run, bool cancel);

int cmd_run(struct cli *cli);
int cmd_watch(struct cli *cli);
int cmd_cancel(struct cli *cli);
int cmd_runs(struct cli *cli);
int cmd_show(struct cli *cli);
int cmd_export(struct cli *cli);
int cmd_agent_list(struct cli *cli);
int cmd_agent_show(struct cli *cli);
int cmd_agent_label(struct cli *cli);
int cmd_agent_drain(struct cli *cli);
int cmd_agent_resume(struct cli *cli);
int cmd_agent_remove(struct cli *cli);
int cmd_token_create(struct cli *cli);
int cmd_token_list(struct cli *cli);
int cmd_token_revoke(struct cli *cli);
int cmd_operator_add(struct cli *cli);
int cmd_operator_list(struct cli *cli);
int cmd_operator_remove(struct cli *cli);
int cmd_audit(struct cli *cli);
int cmd_doctor(struct cli *cli);
int cmd_completion(struct cli *cli);
int cmd_help(struct cli *cli);
int cmd_check(struct cli *cli);
int cmd_policy_lint(struct cli *cli);
int cmd_policy_explain(struct cli *cli);
int cmd_policy_learn(struct cli *cli);

#endif
