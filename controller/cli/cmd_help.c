#include <string.h>

#include "cli.h"

static void print_command(const struct command *command)
{
    printf("  %-18s%s\n", command->words, command->help);
}

static void help_all(void)
{
    size_t count;
    const struct command *all = commands(&count);
    printf("meshperf measures whole meshes: bandwidth, jitter and loss of every pair.\n\n"
           "usage: meshperf [OPTION...] COMMAND ...\n\ncommands:\n");
    for (size_t i = 0; i < count; i++)
        print_command(&all[i]);
    printf("\noptions of every command:\n");
    options_print_help(&cli_options, 0, stdout);
    printf("\nmeshperf help COMMAND tells more; meshperf(1) tells all.\n");
}

static void help_one(const struct command *command)
{
    printf("usage: meshperf %s%s%s\n\n%s\n", command->words, *command->arguments ? " " : "",
        command->arguments, command->help);
    if (command->scope == SCOPE_RUN)
        printf("\ntests: tcp, udp and sctp (bandwidth), latency (round trips, jitter, loss at a low "
               "rate),\npath (hops, path MTU),\nport (is a port reachable, proven at both ends; --port tcp/443)\n");
    if (command->scope) {
        printf("\noptions:\n");
        options_print_help(&cli_options, command->scope, stdout);
    }
}

// `meshperf help COMMAND` and `meshperf COMMAND --help`; a group's word prints all of it.
int cmd_help(struct cli *cli)
{
    if (cli->command && strcmp(cli->command->words, "help") != 0) {
        help_one(cli->command);
        return EXIT_FINE;
    }
    if (!cli->command || cli->word_count == 0) {
        help_all();
        return EXIT_FINE;
    }
    char wanted[128];
    snprintf(wanted, sizeof wanted, "%s%s%s", cli->words[0], cli->word_count > 1 ? " " : "",
        cli->word_count > 1 ? cli->words[1] : "");
    size_t count, size = strlen(wanted), found = 0;
    const struct command *all = commands(&count);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(all[i].words, wanted, size) != 0 ||
            (all[i].words[size] && all[i].words[size] != ' '))
            continue;
        if (found++)
            printf("\n");
        help_one(&all[i]);
    }
    return found ? EXIT_FINE : cli_usage("no command '%s'", wanted);
}
