#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <czmq.h>

#include "cli.h"
#include "log.h"

// ----------------------------------------------------------------------------- the command

// How many words of `typed` the command's name takes; 0: another command.
static size_t name_matches(const struct command *command, const char *const *typed, size_t count)
{
    const char *name = command->words;
    for (size_t used = 1; used <= count; used++) {
        size_t size = strcspn(name, " ");
        if (strlen(typed[used - 1]) != size || memcmp(typed[used - 1], name, size) != 0)
            return 0;
        if (!name[size])
            return used;
        name += size + 1;
    }
    return 0;
}

static const struct command *find(const char *const *typed, size_t count, size_t *used)
{
    size_t total;
    const struct command *all = commands(&total);
    for (size_t i = 0; i < total; i++) {
        *used = name_matches(&all[i], typed, count);
        if (*used)
            return &all[i];
    }
    return NULL;
}

static int unknown_command(const char *const *typed, size_t count)
{
    size_t total;
    const struct command *all = commands(&total);
    for (size_t i = 0; i < total; i++) {
        size_t group = strcspn(all[i].words, " ");
        if (all[i].words[group] && strlen(typed[0]) == group &&
            memcmp(typed[0], all[i].words, group) == 0)
            return count > 1 ? cli_usage("unknown command '%s %s'", typed[0], typed[1])
                             : cli_usage("'%s' needs a command after it (meshperf help %s)",
                                   typed[0], typed[0]);
    }
    const char *nearest = options_nearest(typed[0], &all[0].words, total, sizeof *all);
    return nearest ? cli_usage("unknown command '%s', did you mean '%s'?", typed[0], nearest)
                   : cli_usage("unknown command '%s' (meshperf help lists them)", typed[0]);
}

// ------------------------------------------------------------------------------ the options

// Which of the command line's options the command does not know. The whole table was parsed; now
// only the options that the command knows are, and an unknown one is named with the command.
static int check_scope(const struct command *command, int argc, char **argv)
{
    struct option_spec known[128];
    struct option_table table = {.specs = known};
    struct flags unused;
    char error[OPTIONS_ERROR_SIZE];
    const char **words = calloc((size_t)argc + 1, sizeof *words);
    size_t count;
    for (size_t i = 0; i < cli_options.count; i++)
        if (!cli_options.specs[i].scope || (cli_options.specs[i].scope & command->scope))
            known[table.count++] = cli_options.specs[i];
    flags_init(&unused);
    int result = options_parse_argv(&table, argc, argv, &unused, words, &count, error);
    free(words);
    if (result)
        return cli_usage("%s: %s", command->words, error);
    return 0;
}

static int run_command(struct cli *cli, int argc, char **argv, const char **typed, size_t count)
{
    size_t used;
    cli->command = find(typed, count, &used);
    if (!cli->command)
        return unknown_command(typed, count);
    int status = check_scope(cli->command, argc, argv);
    if (status)
        return status;
    cli->words = typed + used;
    cli->word_count = count - used;
    if (cli->flags.help)
        return cmd_help(cli);
    if (cli->word_count < cli->command->least)
        return cli_usage("%s needs %s", cli->command->words,
            strncmp(cli->command->words, "run", 4) ? cli->command->arguments
                                                   : "a test: tcp, udp, sctp, latency, path or port");
    if (cli->word_count > cli->command->most)
        return cli_usage("'%s' is one word too many for %s", cli->words[cli->command->most],
            cli->command->words);
    return cli->command->run(cli);
}

// The command line as typed, quoted where a shell would need it, for the run's record.
static void remember(struct cli *cli, int argc, char **argv)
{
    size_t at = (size_t)snprintf(cli->command_line, sizeof cli->command_line, "meshperf");
    for (int i = 1; i < argc && at < sizeof cli->command_line; i++) {
        bool plain = argv[i][0] && !argv[i][strcspn(argv[i], " '\"*?[]$&|;<>(){}\\!#~\t\n")];
        at += (size_t)snprintf(cli->command_line + at, sizeof cli->command_line - at,
            plain ? " %s" : " '%s'", argv[i]);
    }
}

int main(int argc, char **argv)
{
    struct cli *cli = calloc(1, sizeof *cli);
    const char **typed = calloc((size_t)argc + 1, sizeof *typed);
    char error[OPTIONS_ERROR_SIZE];
    size_t count;
    int status;
    if (!cli || !typed)
        return EXIT_BUG;
    log_setup("meshperf", LOG_WARN, LOG_TEXT);
    zsys_init();
    zsys_handler_set(NULL);
    signal(SIGPIPE, SIG_IGN);
    flags_init(&cli->flags);
    remember(cli, argc, argv);
    if (options_parse_argv(&cli_options, argc, argv, &cli->flags, typed, &count, error))
        status = cli_usage("%s", error);
    else if (cli->flags.version)
        status = printf("meshperf %s\n", MESHPERF_VERSION) < 0 ? EXIT_BUG : EXIT_FINE;
    else if (count == 0 && cli->flags.help)
        status = cmd_help(cli);
    else if (count == 0)
        status = cli_usage("what shall it do? (meshperf help lists the commands)");
    else
        status = run_command(cli, argc, argv, typed, count);
    status = cli_finish(stdout, status);
    client_destroy(&cli->client);
    free(typed);
    free(cli);
    return status;
}
