#include "cli.h"

#include <stdint.h>

// Parser, help, manual synopsis and shell completion all come from this table.
static const struct command table[] = {
    {"run", "TEST [TEST...] [selection] [options]", "start a run, show progress, print its matrix",
        SCOPE_RUN, 1, 6, cmd_run},
    {"watch", "[RUN]", "follow a run; Ctrl-C leaves it running", SCOPE_WATCH, 0, 1, cmd_watch},
    {"cancel", "RUN", "cancel a run", 0, 1, 1, cmd_cancel},
    {"runs", "", "list runs", 0, 0, 0, cmd_runs},
    {"show", "[RUN] [--metric M] [--group-by LABEL] [--pair FROM TO] [--worst N]",
        "print a run again", SCOPE_SHOW, 0, 3, cmd_show},
    {"check", "POLICY.yaml [--run RUN]", "segmentation and thresholds against reality", SCOPE_CHECK,
        1, 1, cmd_check},
    {"export", "[RUN] --to FILE", "write a run to a file: .json .jsonl .csv .md, a check also .xml",
        SCOPE_EXPORT, 0, 1, cmd_export},
    {"policy lint", "FILE", "doubts about a policy, and what it checks", 0, 1, 1, cmd_policy_lint},
    {"policy explain", "FILE --from A --to B", "which rule decides each port of a pair",
        SCOPE_EXPLAIN, 1, 1, cmd_policy_explain},
    {"policy learn", "[RUN]", "draft a policy from what a run found open", SCOPE_LEARN, 0, 1,
        cmd_policy_learn},
    {"agent list", "", "list agents", 0, 0, 0, cmd_agent_list},
    {"agent show", "NAME", "everything about one agent", 0, 1, 1, cmd_agent_show},
    {"agent label", "NAME KEY=VALUE...", "set labels; KEY= removes one", 0, 2, 64, cmd_agent_label},
    {"agent drain", "NAME", "leave an agent out of new tests", 0, 1, 1, cmd_agent_drain},
    {"agent resume", "NAME", "take a drained agent back", 0, 1, 1, cmd_agent_resume},
    {"agent remove", "NAME", "revoke an agent's key at once", 0, 1, 1, cmd_agent_remove},
    {"token create", "[--expires 1h] [--uses N] [--label KEY=VALUE]...", "print a new join token",
        SCOPE_TOKEN, 0, 0, cmd_token_create},
    {"token list", "", "list join tokens", 0, 0, 0, cmd_token_list},
    {"token revoke", "ID", "revoke a join token", 0, 1, 1, cmd_token_revoke},
    {"operator add", "NAME --role viewer|operator|admin", "print a context for another operator",
        SCOPE_OPERATOR, 1, 1, cmd_operator_add},
    {"operator list", "", "list operators", 0, 0, 0, cmd_operator_list},
    {"operator remove", "NAME", "revoke an operator's key", 0, 1, 1, cmd_operator_remove},
    {"audit", "", "who did what", 0, 0, 0, cmd_audit},
    {"doctor", "", "versions, clocks, ports and limits of every agent", 0, 0, 0, cmd_doctor},
    {"completion", "bash|zsh|fish", "print a shell's completion", 0, 1, 1, cmd_completion},
    {"help", "[COMMAND]", "print help", 0, 0, 2, cmd_help},
};

const struct command *commands(size_t *count)
{
    *count = sizeof table / sizeof *table;
    return table;
}
