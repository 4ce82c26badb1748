#ifndef MESHPERF_VERDICTS_H
#define MESHPERF_VERDICTS_H

// Verdicts on the command line's side: a run's cells and agents, and a policy, judged. For `check`,
// and for every command that prints a run that is a check.

#include "cli.h"
#include "policy.h"

// Agents as policies see them. Borrows from the messages that they were made of.
struct subjects {
    struct selector_subject *list;
    const char **words;
    size_t count;
};
struct subjects subjects_of_agents(Mp__AgentInfo *const *agents, size_t count);
// Without the run's targets; `index` (count entries) says where each agent went, UINT32_MAX: nowhere.
struct subjects subjects_of_run(Mp__RunAgent *const *agents, size_t count, uint32_t *index);
void subjects_release(struct subjects *subjects);

// A file and its policy. 0, or EXIT_USAGE after FILE:LINE:COLUMN and words on standard error; these
// words are in `why` too (may be NULL).
struct policy_file {
    const char *path;
    char *text;
    size_t size;
    policy_t *policy;
};
int policy_file_read(const char *path, struct policy_file *file, char why[1024]);
void policy_file_release(struct policy_file *file);

struct verdicts {
    struct policy_file file;
    struct subjects subjects;
    struct policy_checks checks;
    struct policy_sight *sights;
    size_t sight_count;
    struct policy_judged *judged;
    struct policy_counts counts;
};

bool run_is_check(const struct run_pages *pages);
// Pulls policy (unless `file` is given, which is taken over) and cells of the run, and judges them;
// kept in `pages`. 0 or an exit status, said.
int run_judge(struct cli *cli, struct run_pages *pages, struct policy_file *file);
// The same of agents alone: what a policy says that has nothing to measure.
int agents_judge(struct cli *cli, struct run_pages *pages, struct policy_file *file);
void verdicts_destroy(struct verdicts **self_p);
// All cells of a run that a policy can speak of; the caller's. Numbers of agents as `index` says.
int run_sights(struct cli *cli, const Mp__RunInfo *info, const uint32_t *index, size_t index_count,
    struct policy_sight **sights, size_t *count);

int verdicts_status(const struct cli *cli, const struct run_pages *pages);
int verdicts_print(
    struct cli *cli, const struct run_pages *pages, const char *format, FILE *stream);
// The jsonl events of the verdicts, and the run's end.
void verdicts_print_end(struct cli *cli, const struct run_pages *pages, int status);

#endif
