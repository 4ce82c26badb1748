#ifndef MESHPERF_CHECK_PARTS_H
#define MESHPERF_CHECK_PARTS_H

// What the writers of checks share. Private to the reports.

#include "check.h"

// Everything that is printed of one check, as texts.
struct check_line {
    const char *rule, *from, *to, *test;
    char port[128];     // "tcp/22", or of an expectation the test
    bool has_port;      // it is a port, or ports
    char expected[256]; // "deny (filtered)"
    char observed[128]; // "-": nothing
    const char *how, *arrived, *listener; // NULL: says nothing here
    const char *verdict;
    char evidence[1024];
};
void check_line(const struct check_report *report, size_t index, struct check_line *line);

// A rule's checks [first, end) and their counts; false behind the last rule. Rules come in the
// policy's order, those without a check too.
struct check_rule {
    bool begun;
    uint32_t rule; // POLICY_UNLISTED at last
    size_t first, end;
    struct policy_counts counts;
};
bool check_rule_next(const struct check_report *report, struct check_rule *rule);
void check_rule_first(struct check_rule *rule);
// What the rule says, as written: "deny", "tcp/22"; of an expectation all limits.
void check_rule_words(const struct check_report *report, const struct check_rule *rule, char verb[16],
    char what[512]);

void check_print_table(const struct check_report *report, FILE *stream);
void check_print_md(const struct check_report *report, FILE *stream);
void check_print_wide(const struct check_report *report, FILE *stream);
void check_print_csv(const struct check_report *report, FILE *stream);
void check_print_json(const struct check_report *report, FILE *stream);
void check_print_jsonl(const struct check_report *report, FILE *stream);
void check_print_junit(const struct check_report *report, FILE *stream);

#endif
