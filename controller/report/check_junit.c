// Checks as JUnit XML: a rule is a test suite, a pair and port a test case. Within what the usual
// schemas of CI servers have in common: every suite has properties, system-out and system-err,
// times are without a zone, and a case is passed, failed or skipped.

#include <stdlib.h>

#include "check_parts.h"
#include "clock.h"

// Text that any XML 1.0 reader takes: no control characters, no noncharacters.
static void xml(FILE *stream, const char *text)
{
    static const char *const names[] = {
        ['<'] = "&lt;", ['>'] = "&gt;", ['&'] = "&amp;", ['"'] = "&quot;"};
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == 0xef && c[1] == 0xbf && (c[2] == 0xbe || c[2] == 0xbf)) {
            fputc('?', stream);
            c += 2;
        } else if (*c < sizeof names / sizeof *names && names[*c]) {
            fputs(names[*c], stream);
        } else {
            fputc(*c < 0x20 ? ' ' : *c, stream);
        }
    }
}

static void attribute(FILE *stream, const char *name, const char *text)
{
    fprintf(stream, " %s=\"", name);
    xml(stream, text);
    fputc('"', stream);
}

static void suite_begin(FILE *stream, const char *name, const char *package, unsigned id,
    const char *when, size_t tests, size_t failures, size_t skipped, double elapsed_s)
{
    fputs("<testsuite", stream);
    attribute(stream, "name", name);
    attribute(stream, "package", package);
    fprintf(stream,
        " id=\"%u\" timestamp=\"%s\" hostname=\"localhost\" tests=\"%zu\" failures=\"%zu\" "
        "errors=\"0\""
        " skipped=\"%zu\" time=\"%.3f\">\n",
        id, when, tests, failures, skipped, elapsed_s);
}

static void suite_end(FILE *stream, const char *output)
{
    fputs("<system-out>", stream);
    xml(stream, output);
    fputs("</system-out>\n<system-err></system-err>\n</testsuite>\n", stream);
}

static void case_text(const struct check_line *line, char text[2048])
{
    snprintf(text, 2048, "expected %s, observed %s, arrived %s: %s", line->expected, line->observed,
        line->arrived ? line->arrived : "-", line->evidence);
}

static double time_s_of(const struct policy_judged *judged)
{
    return judged->sight && judged->sight->time_s > 0 ? judged->sight->time_s : 0;
}

static void print_case(const struct check_report *report, size_t index, FILE *stream)
{
    const struct policy_judged *judged = &report->judged[index];
    struct check_line line;
    char name[700], text[2048];
    check_line(report, index, &line);
    snprintf(name, sizeof name, "%.200s > %.200s %s", line.from, line.to, line.port);
    case_text(&line, text);
    fputs("<testcase", stream);
    attribute(stream, "name", name);
    attribute(stream, "classname", line.rule);
    fprintf(stream, " time=\"%.3f\"", time_s_of(judged));
    if (judged->verdict == POLICY_VIOLATED && !judged->tolerated) {
        fputs("><failure", stream);
        attribute(stream, "message", text);
        fputs(" type=\"violated\">", stream);
        xml(stream, text);
        fputs("</failure></testcase>\n", stream);
    } else if (judged->verdict == POLICY_NOT_TESTED) {
        fputs("><skipped", stream);
        attribute(stream, "message", line.evidence);
        fputs("/></testcase>\n", stream);
    } else {
        fputs("/>\n", stream);
    }
}

static void property(FILE *stream, const char *name, const char *value)
{
    fputs("<property", stream);
    attribute(stream, "name", name);
    attribute(stream, "value", value);
    fputs("/>", stream);
}

// "2026-11-23T10:00:00" of "2026-11-23T10:00:00.000Z"
static void time_of(const Mp__RunInfo *info, char text[CLOCK_ISO_SIZE])
{
    clock_iso8601(info ? info->created_wall_ns : 0, text);
    text[19] = '\0';
}

void check_print_junit(const struct check_report *report, FILE *stream)
{
    const Mp__RunInfo *info = report->info;
    const policy_t *policy = report->checks->policy;
    char when[CLOCK_ISO_SIZE];
    struct check_rule rule;
    unsigned id = 0;
    time_of(info, when);
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n", stream);
    for (check_rule_first(&rule); check_rule_next(report, &rule);) {
        char verb[16], what[512];
        check_rule_words(report, &rule, verb, what);
        double time_s = 0; // of its cases, many of which ran at once
        for (size_t i = rule.first; i < rule.end; i++)
            time_s += time_s_of(&report->judged[i]);
        suite_begin(stream, policy_rule_name(policy, rule.rule), policy->name, id++, when,
            rule.end - rule.first, rule.counts.violated, rule.counts.not_tested, time_s);
        fputs("<properties>", stream);
        property(stream, "policy", policy->name);
        property(stream, verb, what);
        if (info)
            property(stream, "run", info->id);
        fputs("</properties>\n", stream);
        for (size_t i = rule.first; i < rule.end; i++)
            print_case(report, i, stream);
        suite_end(stream,
            rule.counts.tolerated ? "violations are tolerated: enough pairs of the rule hold" : "");
    }
    fputs("</testsuites>\n", stream);
}

void check_junit_failure(const char *policy, const char *why, FILE *stream)
{
    char when[CLOCK_ISO_SIZE];
    time_of(NULL, when);
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n", stream);
    suite_begin(stream, policy, policy, 0, when, 1, 1, 0, 0);
    fputs("<properties></properties>\n<testcase name=\"the check is made\"", stream);
    attribute(stream, "classname", policy);
    fputs(" time=\"0.000\"><failure", stream);
    attribute(stream, "message", why);
    fputs(" type=\"not made\">", stream);
    xml(stream, why);
    fputs("</failure></testcase>\n", stream);
    suite_end(stream, "");
    fputs("</testsuites>\n", stream);
}
