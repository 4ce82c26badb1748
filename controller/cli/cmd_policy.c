// `policy lint | explain | learn`: what a policy's author wants to know.

#include <stdlib.h>
#include <string.h>

#include <czmq.h>

#include "clock.h"
#include "report.h"
#include "verdicts.h"
#include "wire.h"

// ---------------------------------------------------------------------------------------- lint

static struct policy_ability *abilities_of(const struct agent_pages *pages)
{
    struct policy_ability *abilities = zmalloc((pages->count + 1) * sizeof *abilities);
    for (size_t i = 0; i < pages->count; i++) {
        const Mp__Capabilities *can = pages->agents[i]->capabilities;
        if (can && !can->sctp)
            abilities[i].sctp = can->sctp_reason ? can->sctp_reason : "no SCTP there";
    }
    return abilities;
}

// Without a controller the text alone is read, and it is said what that leaves out.
int cmd_policy_lint(struct cli *cli)
{
    struct policy_file file;
    struct agent_pages pages = {0};
    int status = policy_file_read(cli->words[0], &file, NULL);
    if (status)
        return status;
    cli->quiet_refusals = true;
    int unreachable = agents_fetch(cli, NULL, &pages);
    cli->quiet_refusals = false;
    if (unreachable) {
        (void)policy_lint(file.policy, file.path, NULL, NULL, 0, stdout);
        printf("groups were not compared with agents: %s\n", cli->refusal);
    } else {
        struct subjects subjects = subjects_of_agents(pages.agents, pages.count);
        struct policy_ability *abilities = abilities_of(&pages);
        (void)policy_lint(file.policy, file.path, subjects.list, abilities, subjects.count, stdout);
        free(abilities);
        subjects_release(&subjects);
    }
    agents_release(&pages);
    policy_file_release(&file);
    return EXIT_FINE;
}

// ------------------------------------------------------------------------------------- explain

static void explain_row(void *arg, const struct policy_checks *checks,
    const struct policy_check *check, const char *overrides)
{
    const policy_t *policy = checks->policy;
    char port[128], expected[256], line[16] = "";
    policy_check_port(checks, check, port);
    policy_check_expected(checks, check, expected);
    uint32_t at = check->rule < policy->rule_count ? policy->rules[check->rule].place.line
                                                   : policy->unlisted_place.line;
    snprintf(line, sizeof line, "%u", at);
    const char *const texts[] = {
        port, expected, policy_rule_name(policy, check->rule), line, overrides};
    report_list_row(arg, texts);
}

static const struct selector_subject *find(const struct subjects *subjects, const char *name)
{
    for (size_t i = 0; i < subjects->count; i++)
        if (strcmp(subjects->list[i].name, name) == 0)
            return &subjects->list[i];
    return NULL;
}

static bool is_target(const policy_t *policy, const char *name)
{
    for (size_t i = 0; i < policy->target_count; i++)
        if (strcmp(policy->targets[i].name, name) == 0)
            return true;
    return false;
}

static int explain(struct cli *cli, const struct policy_file *file, const struct subjects *subjects)
{
    static const struct report_column columns[] = {{"PORT", "port"}, {"EXPECTED", "expected"},
        {"RULE", "rule"}, {"LINE", "#line"}, {"OVERRIDES", "overrides"}};
    const char *from = cli->flags.from.word[0], *to = cli->flags.to.word[0];
    const struct selector_subject *a = find(subjects, from), *b = find(subjects, to);
    struct policy_error error;
    if (!a)
        return cli_usage("there is no agent %s", from);
    if (!b && !is_target(file->policy, to))
        return cli_usage("there is no agent %s, and the policy has no such target", to);
    if (a == b)
        return cli_usage("%s and %s are the same agent", from, to);
    report_list_t *list = report_list_new(cli->flags.format, "meshperf.explain/1", "ports", columns,
        sizeof columns / sizeof *columns, stdout);
    int rc = policy_explain(file->policy, a, b, b ? NULL : to, explain_row, list, &error);
    report_list_destroy(&list);
    return rc == 0 ? EXIT_FINE
                   : cli_usage("%s:%u:%u: %s", file->path, error.place.line, error.place.column,
                         error.text);
}

int cmd_policy_explain(struct cli *cli)
{
    struct policy_file file;
    struct agent_pages pages = {0};
    if (cli->flags.from.count != 1 || cli->flags.to.count != 1)
        return cli_usage("policy explain needs one --from A and one --to B");
    int status = policy_file_read(cli->words[0], &file, NULL);
    if (status)
        return status;
    status = agents_fetch(cli, NULL, &pages);
    if (!status) {
        struct subjects subjects = subjects_of_agents(pages.agents, pages.count);
        status = explain(cli, &file, &subjects);
        subjects_release(&subjects);
    }
    agents_release(&pages);
    policy_file_release(&file);
    return status;
}

// --------------------------------------------------------------------------------------- learn

static int learn(struct cli *cli, const struct run_pages *pages)
{
    const Mp__RunInfo *info = pages->first->run_answer->info;
    size_t count = pages->agent_count, sight_count;
    uint32_t *index = zmalloc((count + 1) * sizeof *index);
    bool *target = zmalloc(count + 1);
    struct policy_sight *sights;
    char when[CLOCK_ISO_SIZE];
    struct subjects subjects = {.list = zmalloc((count + 1) * sizeof *subjects.list)};
    struct subjects agents = subjects_of_run(pages->agents, count, index);
    clock_iso8601(info->created_wall_ns, when);
    // Here the run's own numbers are kept, targets among the agents.
    for (size_t i = 0; i < count; i++) {
        const Mp__RunAgent *agent = pages->agents[i];
        target[i] = index[i] == UINT32_MAX;
        subjects.list[i] = target[i] ? (struct selector_subject){.name = agent->name,
                                           .addresses = (const char *const *)agent->addresses,
                                           .address_count = agent->n_addresses}
                                     : agents.list[index[i]];
        index[i] = (uint32_t)i;
    }
    int status = run_sights(cli, info, index, count, &sights, &sight_count);
    struct policy_open open = {.run = info->id,
        .when = when,
        .agents = subjects.list,
        .target = target,
        .agent_count = count,
        .sights = sights,
        .sight_count = sight_count};
    if (!status && !policy_learn(&open, stdout))
        status = cli_usage("%s has probed no port (or too much to learn from): meshperf run port "
                           "--port tcp/1-1024",
            info->id);
    policy_sights_release(sights, sight_count);
    subjects_release(&agents);
    subjects_release(&subjects);
    free(index);
    free(target);
    return status;
}

int cmd_policy_learn(struct cli *cli)
{
    struct run_pages pages;
    const char *run = cli->word_count ? cli->words[0] : cli->flags.run ? cli->flags.run : "last";
    int status = run_fetch(cli, run, &pages);
    if (status)
        return status;
    status = learn(cli, &pages);
    run_release(&pages);
    return status;
}
