#include "check.h"

#include <errno.h>
#include <string.h>

#include "check_parts.h"

static const struct {
    const char *format;
    void (*print)(const struct check_report *report, FILE *stream);
} printers[] = {{"table", check_print_table}, {"wide", check_print_wide},
    {"json", check_print_json}, {"jsonl", check_print_jsonl}, {"csv", check_print_csv},
    {"md", check_print_md}, {"junit", check_print_junit}};

int check_print(const struct check_report *report, const char *format, FILE *stream)
{
    for (size_t i = 0; i < sizeof printers / sizeof *printers; i++)
        if (strcmp(format, printers[i].format) == 0)
            printers[i].print(report, stream);
    if (fflush(stream) != 0 || ferror(stream))
        return errno ? -errno : -EIO;
    return 0;
}

// ------------------------------------------------------------------------------------ a check

static const char *test_word(const struct policy_check *check)
{
    return check->kind                        ? test_kind_name((enum test_kind)check->kind)
           : check->expected == POLICY_EXPECT ? NULL
                                              : "port";
}

void check_line(const struct check_report *report, size_t index, struct check_line *line)
{
    const struct policy_checks *checks = report->checks;
    const struct policy_check *check = &checks->checks[index];
    const struct policy_judged *judged = &report->judged[index];
    const struct policy_sight *sight = judged->sight;
    const struct policy_rule *rule =
        check->rule < checks->policy->rule_count ? &checks->policy->rules[check->rule] : NULL;
    enum policy_how how = policy_check_how(checks, check);
    bool seen = sight && sight->measured && check->kind == TEST_PORT;
    bool nobody = check->from == POLICY_NOBODY;
    *line = (struct check_line){.rule = policy_rule_name(checks->policy, check->rule),
        .from = nobody && rule ? rule->from.text : policy_end_name(checks, check->from),
        .to = nobody && rule ? rule->to.text : policy_end_name(checks, check->to),
        .test = test_word(check),
        .has_port = check->kind == TEST_PORT || (nobody && rule && rule->ports_text),
        .how = how == POLICY_HOW_ANY ? NULL : policy_how_word(how),
        .arrived = seen ? policy_arrived_word(sight->arrived) : NULL,
        .listener = seen ? policy_listener_word(sight->listener) : NULL,
        .verdict = policy_verdict_word(judged->verdict)};
    policy_check_port(checks, check, line->port);
    policy_check_expected(checks, check, line->expected);
    policy_observed_text(checks, check, judged, line->observed);
    policy_evidence(checks, check, judged, line->evidence);
}

// ------------------------------------------------------------------------------------- rules

void check_rule_first(struct check_rule *rule)
{
    *rule = (struct check_rule){0};
}

bool check_rule_next(const struct check_report *report, struct check_rule *rule)
{
    const struct policy_checks *checks = report->checks;
    const policy_t *policy = checks->policy;
    uint32_t next = rule->begun ? rule->rule + 1 : 0;
    if (rule->begun && rule->rule == POLICY_UNLISTED)
        return false;
    if (next >= policy->rule_count) {
        if (policy->unlisted == POLICY_IGNORE)
            return false;
        next = POLICY_UNLISTED;
    }
    *rule = (struct check_rule){.begun = true, .rule = next, .first = rule->end, .end = rule->end};
    for (; rule->end < checks->count && checks->checks[rule->end].rule == next; rule->end++) {
        const struct policy_judged *judged = &report->judged[rule->end];
        size_t *count = judged->tolerated                    ? &rule->counts.tolerated
                        : judged->verdict == POLICY_HELD     ? &rule->counts.held
                        : judged->verdict == POLICY_VIOLATED ? &rule->counts.violated
                                                             : &rule->counts.not_tested;
        ++*count;
    }
    return true;
}

static void limits_of(const struct policy_rule *rule, char what[512])
{
    size_t used = 0;
    *what = '\0';
    for (unsigned kind = 1; kind <= TEST_KIND_MAX && used < 512; kind++) {
        char limits[256];
        policy_limits_text(rule, (enum test_kind)kind, limits);
        if (*limits)
            used += (size_t)snprintf(what + used, 512 - used, "%s%s %s", used ? "; " : "",
                test_kind_name((enum test_kind)kind), limits);
    }
}

void check_rule_words(
    const struct check_report *report, const struct check_rule *rule, char verb[16], char what[512])
{
    const policy_t *policy = report->checks->policy;
    if (rule->rule == POLICY_UNLISTED) {
        snprintf(verb, 16, "%s", policy_expected_word(policy->unlisted));
        snprintf(what, 512, "any");
        return;
    }
    const struct policy_rule *of = &policy->rules[rule->rule];
    snprintf(verb, 16, "%s", policy_expected_word(of->expected));
    if (of->expected == POLICY_EXPECT)
        limits_of(of, what);
    else
        snprintf(what, 512, "%s%s%s%s", of->ports_text, of->how ? " (" : "",
            of->how ? policy_how_word(of->how) : "", of->how ? ")" : "");
}
