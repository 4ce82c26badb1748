// Checks for people: rule by rule, and what did not hold in words.

#include "check_parts.h"
#include "report_parts.h"

#define NAME_MOST 48
#define VIOLATED_MOST 20 // of a rule, told one by one
#define UNTOLD_MOST 5

static const char *grouped(size_t number, char text[32])
{
    char digits[24];
    size_t size = (size_t)snprintf(digits, sizeof digits, "%zu", number), used = 0;
    for (size_t i = 0; i < size; i++) {
        if (i && (size - i) % 3 == 0)
            text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = '\0';
    return text;
}

static const char *plural(size_t count)
{
    return count == 1 ? "" : "s";
}

static size_t rules_of(const struct check_report *report)
{
    struct check_rule rule;
    size_t count = 0;
    for (check_rule_first(&rule); check_rule_next(report, &rule);)
        count++;
    return count;
}

static void padded(FILE *stream, const char *text, size_t width)
{
    report_plain(stream, text, false);
    for (size_t i = report_width(text); i < width; i++)
        fputc(' ', stream);
}

// ------------------------------------------------------------------------------------ a rule

static const char *status_of(const struct check_rule *rule)
{
    if (rule->counts.violated)
        return "FAIL";
    if (rule->counts.not_tested)
        return "skip";
    return rule->end > rule->first ? "ok" : "-";
}

// Violations that are not about being reachable: blocked in another way, or unsupported.
static size_t not_as_asked(const struct check_report *report, const struct check_rule *rule)
{
    const struct policy_checks *checks = report->checks;
    size_t count = 0;
    for (size_t i = rule->first; i < rule->end; i++) {
        const struct policy_judged *judged = &report->judged[i];
        const struct policy_check *check = &checks->checks[i];
        const char *words;
        if (judged->verdict != POLICY_VIOLATED || judged->tolerated || check->kind != TEST_PORT)
            continue;
        count += !judged->sight->measured ||
                 policy_table(check->expected, judged->sight, check->to >= checks->agent_count,
                     &words) != POLICY_VIOLATED;
    }
    return count;
}

// "31/32 blocked, 1 reachable"
static void tally(const struct check_report *report, const struct check_rule *rule, char text[256])
{
    static const char *const good[] = {"", "open", "blocked", "hold"};
    static const char *const bad[] = {"", "not open", "reachable", "do not hold"};
    const policy_t *policy = report->checks->policy;
    unsigned expected =
        rule->rule == POLICY_UNLISTED ? policy->unlisted : policy->rules[rule->rule].expected;
    size_t all = rule->end - rule->first;
    if (all == 0) {
        uint32_t by =
            rule->rule == POLICY_UNLISTED ? UINT32_MAX : report->checks->overridden_by[rule->rule];
        snprintf(text, 256, "no check%s%.128s", by < policy->rule_count ? ": decided by " : "",
            by < policy->rule_count ? policy->rules[by].name : "");
        return;
    }
    size_t used = (size_t)snprintf(text, 256, "%zu/%zu %s", rule->counts.held, all, good[expected]);
    size_t otherwise = not_as_asked(report, rule);
    if (rule->counts.violated > otherwise)
        used += (size_t)snprintf(
            text + used, 256 - used, ", %zu %s", rule->counts.violated - otherwise, bad[expected]);
    if (otherwise)
        used += (size_t)snprintf(text + used, 256 - used, ", %zu not as asked", otherwise);
    if (rule->counts.tolerated)
        used +=
            (size_t)snprintf(text + used, 256 - used, ", %zu tolerated", rule->counts.tolerated);
    if (rule->counts.not_tested)
        snprintf(text + used, 256 - used, ", %zu not tested", rule->counts.not_tested);
}

static void expected_words(
    const struct policy_check *check, const struct check_line *line, char text[300])
{
    if (check->expected == POLICY_EXPECT)
        snprintf(text, 300, "%s", check->kind ? line->expected : "measured limits");
    else
        snprintf(text, 300, "%s%s%s%s", check->expected == POLICY_ALLOW ? "reachable" : "blocked",
            line->how ? " (" : "", line->how ? line->how : "", line->how ? ")" : "");
}

static void print_detail(const struct check_report *report, size_t index, FILE *stream)
{
    const struct policy_check *check = &report->checks->checks[index];
    const struct policy_judged *judged = &report->judged[index];
    struct check_line line;
    char expected[300], pair[700];
    check_line(report, index, &line);
    expected_words(check, &line, expected);
    snprintf(pair, sizeof pair, "%.200s > %.200s %s", line.from, line.to, line.port);
    fputs("        ", stream);
    padded(stream, pair, 24);
    fprintf(stream, "  expected %s   ", expected);
    if (judged->verdict == POLICY_NOT_TESTED)
        fputs("not tested", stream);
    else
        fprintf(stream, "observed %s", line.observed);
    // That an open port works needs no words; where the nonce was seen does.
    bool plain = judged->sight && judged->sight->observed == POLICY_OPEN && judged->sight->text;
    fputs(" (", stream);
    report_plain(stream, plain ? judged->sight->text : line.evidence, false);
    fputs(")\n", stream);
}

static void print_details(
    const struct check_report *report, const struct check_rule *rule, FILE *stream)
{
    static const uint8_t verdicts[] = {POLICY_VIOLATED, POLICY_NOT_TESTED};
    static const size_t most[] = {VIOLATED_MOST, UNTOLD_MOST};
    for (size_t v = 0; v < 2; v++) {
        size_t found = 0;
        for (size_t i = rule->first; i < rule->end; i++) {
            if (report->judged[i].verdict != verdicts[v] ||
                (found++ >= most[v] && !report->verbose))
                continue;
            print_detail(report, i, stream);
        }
        if (found > most[v] && !report->verbose)
            fprintf(stream, "        and %zu more %s (-v or -o wide tells all)\n", found - most[v],
                v ? "not tested" : "violated");
    }
}

// ------------------------------------------------------------------------------------- table

struct widths {
    size_t name, verb, what;
};

static struct widths widths_of(const struct check_report *report)
{
    struct widths widths = {0};
    struct check_rule rule;
    for (check_rule_first(&rule); check_rule_next(report, &rule);) {
        char verb[16], what[512];
        check_rule_words(report, &rule, verb, what);
        size_t name = report_width(policy_rule_name(report->checks->policy, rule.rule));
        size_t words = report_width(what);
        name = name < NAME_MOST ? name : NAME_MOST;
        words = words < NAME_MOST ? words : NAME_MOST;
        widths.name = name > widths.name ? name : widths.name;
        widths.what = words > widths.what ? words : widths.what;
        widths.verb = report_width(verb) > widths.verb ? report_width(verb) : widths.verb;
    }
    return widths;
}

static void print_rule(const struct check_report *report, const struct check_rule *rule,
    const struct widths *widths, FILE *stream)
{
    char verb[16], what[512], counted[256];
    const char *status = status_of(rule);
    bool red = report->color && rule->counts.violated;
    check_rule_words(report, rule, verb, what);
    tally(report, rule, counted);
    fprintf(stream, "%s%-4s%s  ", red ? "\033[31m" : "", status, red ? "\033[0m" : "");
    padded(stream, policy_rule_name(report->checks->policy, rule->rule), widths->name + 2);
    padded(stream, verb, widths->verb + 1);
    padded(stream, what, widths->what + 3);
    report_plain(stream, counted, false);
    fputc('\n', stream);
}

void check_print_table(const struct check_report *report, FILE *stream)
{
    const struct policy_checks *checks = report->checks;
    const struct policy_counts *counts = report->counts;
    struct widths widths = widths_of(report);
    struct check_rule rule;
    char all[32], held[32], violated[32], untold[32];
    size_t rules = rules_of(report);
    fputs("policy ", stream);
    report_plain(stream, checks->policy->name, false);
    fprintf(stream, "   %zu rule%s, %s check%s, %zu agent%s\n", rules, plural(rules),
        grouped(checks->count, all), plural(checks->count), checks->agent_count,
        plural(checks->agent_count));
    for (check_rule_first(&rule); check_rule_next(report, &rule);) {
        print_rule(report, &rule, &widths, stream);
        print_details(report, &rule, stream);
    }
    fprintf(stream, "%s hold   %s violated   %s not tested", grouped(counts->held, held),
        grouped(counts->violated, violated), grouped(counts->not_tested, untold));
    if (counts->tolerated)
        fprintf(stream, "   %zu tolerated", counts->tolerated);
    if (report->info && report->info->state == MP__RUN_STATE__CANCELLED)
        fputs("   (cancelled)", stream);
    fputc('\n', stream);
}

// ---------------------------------------------------------------------------------- markdown

static void md_rules(const struct check_report *report, FILE *stream)
{
    struct check_rule rule;
    fputs("| | rule | | | verdicts |\n|---|---|---|---|---|\n", stream);
    for (check_rule_first(&rule); check_rule_next(report, &rule);) {
        char verb[16], what[512], counted[256];
        check_rule_words(report, &rule, verb, what);
        tally(report, &rule, counted);
        fprintf(stream, "| %s | ", status_of(&rule));
        report_plain(stream, policy_rule_name(report->checks->policy, rule.rule), true);
        fprintf(stream, " | %s | ", verb);
        report_plain(stream, what, true);
        fputs(" | ", stream);
        report_plain(stream, counted, true);
        fputs(" |\n", stream);
    }
}

static void md_row(const struct check_report *report, size_t index, FILE *stream)
{
    struct check_line line;
    check_line(report, index, &line);
    const char *const texts[] = {line.rule, line.from, line.to, line.port, line.expected,
        line.observed, line.verdict, line.evidence};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        fputs("| ", stream);
        report_plain(stream, texts[i], true);
        fputc(' ', stream);
    }
    fputs("|\n", stream);
}

void check_print_md(const struct check_report *report, FILE *stream)
{
    const struct policy_counts *counts = report->counts;
    bool any = false;
    fputs("## policy ", stream);
    report_plain(stream, report->checks->policy->name, true);
    fprintf(stream,
        "\n\n%zu checks, %zu agents%s%s: %zu hold, %zu violated, %zu not tested, %zu tolerated\n\n",
        report->checks->count, report->checks->agent_count, report->info ? ", run " : "",
        report->info ? report->info->id : "", counts->held, counts->violated, counts->not_tested,
        counts->tolerated);
    md_rules(report, stream);
    for (size_t i = 0; i < report->checks->count; i++) {
        if (report->judged[i].verdict == POLICY_HELD)
            continue;
        if (!any)
            fputs("\n| rule | from | to | port | expected | observed | verdict | evidence |\n"
                  "|---|---|---|---|---|---|---|---|\n",
                stream);
        any = true;
        md_row(report, i, stream);
    }
}
