// Checks for programs: one entry a check, in JSON, JSON lines, CSV and aligned columns.

#include <string.h>

#include "check_parts.h"
#include "json.h"
#include "report.h"
#include "report_parts.h"

static void member(FILE *stream, const char *name, const char *text, bool has)
{
    fprintf(stream, "\"%s\":", name);
    report_json_text(stream, has ? text : NULL);
}

// What an expectation has in place of allow and deny stands in `expected` too.
static void json_members(const struct check_report *report, size_t index, FILE *stream)
{
    const struct policy_check *check = &report->checks->checks[index];
    struct check_line line;
    check_line(report, index, &line);
    bool limits = check->expected == POLICY_EXPECT && check->kind;
    const char *expected = limits ? line.expected : policy_expected_word(check->expected);
    const struct {
        const char *name, *text;
        bool has;
    } members[] = {{"rule", line.rule, true}, {"from", line.from, true}, {"to", line.to, true},
        {"test", line.test, true}, {"port", line.port, line.has_port}, {"expected", expected, true},
        {"how", line.how, true}, {"observed", line.observed, strcmp(line.observed, "-") != 0},
        {"arrived", line.arrived, true}, {"listener", line.listener, true},
        {"verdict", line.verdict, true}, {"evidence", line.evidence, true}};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        fputs(i ? "," : "", stream);
        member(stream, members[i].name, members[i].text, members[i].has);
    }
    if (report->judged[index].tolerated)
        fputs(",\"tolerated\":true", stream);
}

static void json_counts(const struct policy_counts *counts, FILE *stream)
{
    fprintf(stream, "{\"held\":%zu,\"violated\":%zu,\"not_tested\":%zu,\"tolerated\":%zu}",
        counts->held, counts->violated, counts->not_tested, counts->tolerated);
}

static void json_rules(const struct check_report *report, FILE *stream)
{
    struct check_rule rule;
    bool first = true;
    fputs("\"rules\":[", stream);
    for (check_rule_first(&rule); check_rule_next(report, &rule); first = false) {
        char verb[16], what[512];
        check_rule_words(report, &rule, verb, what);
        fputs(first ? "\n {" : ",\n {", stream);
        member(stream, "name", policy_rule_name(report->checks->policy, rule.rule), true);
        fputc(',', stream);
        member(stream, verb, what, true);
        fprintf(stream, ",\"checks\":%zu,\"counts\":", rule.end - rule.first);
        json_counts(&rule.counts, stream);
        fputc('}', stream);
    }
    fputc(']', stream);
}

void check_print_json(const struct check_report *report, FILE *stream)
{
    fputs("{\"schema\":\"meshperf.check/1\",\"tool\":\"" MESHPERF_VERSION "\",\n", stream);
    member(stream, "policy", report->checks->policy->name, true);
    fputs(",\n\"run\":", stream);
    if (report->info)
        report_json_run(stream, report->info);
    else
        fputs("null", stream);
    fprintf(stream, ",\n\"agents\":%zu,\n\"counts\":", report->checks->agent_count);
    json_counts(report->counts, stream);
    fputs(",\n", stream);
    json_rules(report, stream);
    fputs(",\n\"checks\":[", stream);
    for (size_t i = 0; i < report->checks->count; i++) {
        fputs(i ? ",\n {" : "\n {", stream);
        json_members(report, i, stream);
        fputc('}', stream);
    }
    fputs("]}\n", stream);
}

void check_print_events(const struct check_report *report, FILE *stream)
{
    for (size_t i = 0; i < report->checks->count; i++) {
        fputs("{\"event\":\"verdict\",", stream);
        json_members(report, i, stream);
        fputs("}\n", stream);
    }
}

void check_print_jsonl(const struct check_report *report, FILE *stream)
{
    check_print_events(report, stream);
    fputs("{\"event\":\"end\",", stream);
    member(stream, "policy", report->checks->policy->name, true);
    fputc(',', stream);
    member(stream, "run", report->info ? report->info->id : NULL, true);
    fputs(",\"counts\":", stream);
    json_counts(report->counts, stream);
    fprintf(stream, ",\"exit_status\":%d}\n", report->exit_status);
}

static void listed(const struct check_report *report, const char *format, FILE *stream)
{
    static const struct report_column columns[] = {{"VERDICT", "verdict"}, {"RULE", "rule"},
        {"FROM", "from"}, {"TO", "to"}, {"TEST", "test"}, {"PORT", "port"},
        {"EXPECTED", "expected"}, {"OBSERVED", "observed"}, {"ARRIVED", "arrived"},
        {"LISTENER", "listener"}, {"EVIDENCE", "evidence"}};
    const size_t count = sizeof columns / sizeof *columns;
    bool csv = strcmp(format, "csv") == 0;
    report_list_t *list =
        report_list_new(format, "meshperf.check/1", "checks", columns, count, stream);
    for (size_t i = 0; i < report->checks->count; i++) {
        struct check_line line;
        check_line(report, i, &line);
        const char *const texts[] = {line.verdict, line.rule, line.from, line.to,
            line.test ? line.test : "", line.has_port ? line.port : "", line.expected,
            csv && strcmp(line.observed, "-") == 0 ? "" : line.observed,
            line.arrived ? line.arrived : "", line.listener ? line.listener : "", line.evidence};
        report_list_row(list, texts);
    }
    report_list_destroy(&list);
}

void check_print_wide(const struct check_report *report, FILE *stream)
{
    listed(report, "wide", stream);
}

void check_print_csv(const struct check_report *report, FILE *stream)
{
    listed(report, "csv", stream);
}
