#include <string.h>

#include "cli.h"

// All first words, or the second words of a group, once each.
static void print_words(const char *group)
{
    size_t count;
    const struct command *all = commands(&count);
    const char *previous = "";
    size_t previous_size = 0;
    for (size_t i = 0; i < count; i++) {
        const char *word = all[i].words;
        size_t size = strcspn(word, " ");
        if (group) {
            if (strlen(group) != size || memcmp(group, word, size) != 0)
                continue;
            printf(" %s", word + size + 1);
        } else if (size != previous_size || memcmp(word, previous, size) != 0) {
            printf("%s%.*s", i ? " " : "", (int)size, word);
        }
        previous = word;
        previous_size = size;
    }
}

static void print_options(unsigned scope, const char *before)
{
    for (size_t i = 0; i < cli_options.count; i++) {
        const struct option_spec *spec = &cli_options.specs[i];
        if (!spec->scope || (spec->scope & scope))
            printf("%s--%s", before, spec->name);
    }
}

// A case line for each command that has options or words of its own.
static void print_cases(const char *indent, const char *open, const char *close)
{
    size_t count;
    const struct command *all = commands(&count);
    for (size_t i = 0; i < count; i++) {
        size_t group = strcspn(all[i].words, " ");
        bool first_of_group = i == 0 || strncmp(all[i].words, all[i - 1].words, group + 1) != 0;
        if (all[i].words[group] && !first_of_group)
            continue;
        printf("%s%.*s%s", indent, (int)group, all[i].words, open);
        if (all[i].words[group]) {
            char name[32];
            snprintf(name, sizeof name, "%.*s", (int)group, all[i].words);
            print_words(name);
        } else if (strcmp(all[i].words, "run") == 0) {
            printf(" tcp udp sctp latency path port");
        } else if (strcmp(all[i].words, "completion") == 0) {
            printf(" bash zsh fish");
        }
        unsigned scope = 0;
        for (size_t k = i; k < count && strncmp(all[k].words, all[i].words, group) == 0; k++)
            scope |= all[k].scope;
        print_options(scope, " ");
        printf("%s", close);
    }
}

static void bash(void)
{
    printf("_meshperf() {\n    local words\n    COMPREPLY=()\n    case ${COMP_WORDS[1]:-} in\n");
    print_cases("    ", ") words=\"", "\" ;;\n");
    printf("    *) words=\"");
    print_words(NULL);
    print_options(0, " ");
    printf("\" ;;\n    esac\n    [ \"$COMP_CWORD\" -gt 1 ] || words=\"");
    print_words(NULL);
    printf("\"\n    COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\n"
           "complete -o default -F _meshperf meshperf\n");
}

static void zsh(void)
{
    printf("#compdef meshperf\n_meshperf() {\n    local -a choices\n    if (( CURRENT == 2 )); "
           "then\n        choices=(");
    print_words(NULL);
    printf(")\n    else\n        case $words[2] in\n");
    print_cases("        ", ") choices=(", ") ;;\n");
    printf("        esac\n    fi\n    compadd -- $choices\n    _files\n}\ncompdef _meshperf "
           "meshperf\n");
}

static void fish(void)
{
    size_t count;
    const struct command *all = commands(&count);
    for (size_t i = 0; i < count; i++) {
        size_t group = strcspn(all[i].words, " ");
        if (!all[i].words[group])
            printf("complete -c meshperf -n __fish_use_subcommand -f -a %s -d '%s'\n", all[i].words,
                all[i].help);
        else
            printf("complete -c meshperf -n __fish_use_subcommand -f -a %.*s\n"
                   "complete -c meshperf -n '__fish_seen_subcommand_from %.*s' -f -a %s\n",
                (int)group, all[i].words, (int)group, all[i].words, all[i].words + group + 1);
    }
    for (size_t i = 0; i < cli_options.count; i++)
        printf("complete -c meshperf -l %s%s\n", cli_options.specs[i].name,
            cli_options.specs[i].argument ? " -r" : "");
}

int cmd_completion(struct cli *cli)
{
    static const struct {
        const char *shell;
        void (*print)(void);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++) {
        if (strcmp(cli->words[0], shells[i].shell) == 0) {
            shells[i].print();
            return EXIT_FINE;
        }
    }
    return cli_usage("'%s' is no shell known here: bash, zsh or fish", cli->words[0]);
}
