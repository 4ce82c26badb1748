// `expect`: thresholds for what the bandwidth and latency tests measure.

#include <stdlib.h>
#include <string.h>

#include "policy_parts.h"
#include "units.h"

// Which value of a Cell each of these is stands in sight.c.
static const struct policy_quantity quantities[] = {
    {"bandwidth", TEST_TCP, POLICY_RATE},
    {"retransmits", TEST_TCP, POLICY_RATIO},
    {"bandwidth", TEST_UDP, POLICY_RATE},
    {"loss", TEST_UDP, POLICY_RATIO},
    {"jitter", TEST_UDP, POLICY_TIME},
    {"bandwidth", TEST_SCTP, POLICY_RATE},
    {"retransmits", TEST_SCTP, POLICY_RATIO},
    {"p50", TEST_LATENCY, POLICY_TIME},
    {"p90", TEST_LATENCY, POLICY_TIME},
    {"p99", TEST_LATENCY, POLICY_TIME},
    {"max", TEST_LATENCY, POLICY_TIME},
    {"loss", TEST_LATENCY, POLICY_RATIO},
    {"jitter", TEST_LATENCY, POLICY_TIME},
};

static const char *const compare_words[] = {
    [POLICY_LESS] = "<", [POLICY_AT_MOST] = "<=", [POLICY_MORE] = ">", [POLICY_AT_LEAST] = ">="};

const struct policy_quantity *policy_quantities(size_t *count)
{
    *count = COUNT(quantities);
    return quantities;
}

static const char *example_of(enum policy_unit unit)
{
    static const char *const words[] = {
        [POLICY_RATE] = "'>= 5 Gbit/s'", [POLICY_TIME] = "'< 2 ms'", [POLICY_RATIO] = "'< 0.1 %'"};
    return words[unit];
}

static bool parse_value(enum policy_unit unit, const char *text, double *value)
{
    char word[64];
    uint64_t rate_bps;
    int64_t duration_ns;
    if (!without_blanks(text, word, sizeof word))
        return false;
    switch (unit) {
    case POLICY_RATE:
        if (units_rate_bps(word, &rate_bps) != 0)
            return false;
        *value = (double)rate_bps;
        return true;
    case POLICY_TIME:
        if (units_duration_ns(word, &duration_ns) != 0)
            return false;
        *value = (double)duration_ns / 1e9;
        return true;
    case POLICY_RATIO:
        return units_percent(word, value) == 0;
    }
    return false;
}

// ">= 5 Gbit/s"
static bool read_limit(
    struct reader *reader, const struct node *node, uint32_t quantity, struct policy_limit *limit)
{
    const struct policy_quantity *kind = &quantities[quantity];
    if (!need_text(reader, node, "a comparison"))
        return false;
    size_t size = strspn(node->text, "<>=");
    limit->quantity = quantity;
    size_t i = 0;
    while (i < COUNT(compare_words) &&
           !(strlen(compare_words[i]) == size && memcmp(compare_words[i], node->text, size) == 0))
        i++;
    if (i == COUNT(compare_words))
        return fail(reader, node->place,
            "'%.100s' is no comparison: expected <, <=, > or >= and a value, such as %s",
            node->text, example_of(kind->unit));
    limit->compare = (enum policy_compare)i;
    size += strspn(node->text + size, " ");
    return parse_value(kind->unit, node->text + size, &limit->value) ||
           fail(reader, place_within(node, size),
               "'%.100s' has a wrong value or unit for %s %s: expected such as %s", node->text,
               test_kind_name(kind->kind), kind->name, example_of(kind->unit));
}

// The keys of one kind of test: its quantities, and `at` for udp.
static size_t keys_of(enum test_kind kind, const char *words[COUNT(quantities) + 1])
{
    size_t count = 0;
    for (size_t i = 0; i < COUNT(quantities); i++)
        if (quantities[i].kind == kind)
            words[count++] = quantities[i].name;
    if (kind == TEST_UDP)
        words[count++] = "at";
    return count;
}

static bool unknown(struct reader *reader, const struct node *node, enum test_kind kind)
{
    const char *words[COUNT(quantities) + 1];
    char nearest[96], all[128] = "";
    size_t count = keys_of(kind, words), used = 0;
    for (size_t i = 0; i < count; i++)
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", words[i]);
    return fail(reader, node->key_place, "unknown key '%.100s' in expect %s%s (expected %s)",
        node->key, test_kind_name(kind),
        did_you_mean(node->key, words, count, sizeof *words, nearest), all);
}

static bool read_at(struct reader *reader, const struct node *node, struct policy_rule *rule)
{
    policy_t *policy = reader->policy;
    double rate;
    if (!need_text(reader, node, "a rate"))
        return false;
    if (!parse_value(POLICY_RATE, node->text, &rate) || rate < 1)
        return fail(
            reader, node->place, "'%.100s' is no rate: expected such as '1 Gbit/s'", node->text);
    rule->at_bps = (uint64_t)rate;
    if (policy->udp_at_bps && policy->udp_at_bps != rule->at_bps)
        return fail(reader, node->place,
            "'%.100s' differs from the rate of an earlier rule: one check sends udp at one rate",
            node->text);
    policy->udp_at_bps = rule->at_bps;
    return true;
}

static bool read_quantity(
    struct reader *reader, const struct node *node, enum test_kind kind, struct policy_rule *rule)
{
    if (kind == TEST_UDP && strcmp(node->key, "at") == 0)
        return read_at(reader, node, rule);
    for (uint32_t i = 0; i < COUNT(quantities); i++)
        if (quantities[i].kind == kind && strcmp(quantities[i].name, node->key) == 0)
            return read_limit(reader, node, i, &rule->limits[rule->limit_count++]);
    return unknown(reader, node, kind);
}

static bool read_test(struct reader *reader, const struct node *node, struct policy_rule *rule)
{
    static const char *const words[] = {"tcp", "udp", "sctp", "latency"};
    char nearest[96];
    enum test_kind kind;
    size_t before = rule->limit_count;
    if (!test_kind_parse(node->key, &kind) || kind > TEST_LATENCY)
        return fail(reader, node->key_place,
            "unknown key '%.100s' in expect%s (expected tcp, udp, sctp or latency)", node->key,
            did_you_mean(node->key, words, COUNT(words), sizeof *words, nearest));
    if (node->type != NODE_MAP)
        return fail(reader, node->place, "expected a mapping such as %s: {%s}", node->key,
            kind == TEST_LATENCY ? "p99: \"< 2 ms\"" : "bandwidth: \">= 5 Gbit/s\"");
    for (const struct node *child = node->first; child; child = child->next)
        if (!read_quantity(reader, child, kind, rule))
            return false;
    if (rule->limit_count == before)
        return fail(reader, node->place, "expect %s says nothing to hold", node->key);
    return kind != TEST_UDP || rule->at_bps ||
           fail(
               reader, node->place, "expect udp needs the rate to send at, such as at: 100 Mbit/s");
}

bool read_expect(struct reader *reader, const struct node *node, struct policy_rule *rule)
{
    if (node->type != NODE_MAP || node->count == 0)
        return fail(reader, node->place, "expected a mapping such as latency: {p99: \"< 2 ms\"}");
    rule->limits = pool_get(reader->pool, COUNT(quantities) * sizeof *rule->limits);
    for (const struct node *child = node->first; child; child = child->next)
        if (!read_test(reader, child, rule))
            return false;
    return true;
}

static void value_text(enum policy_unit unit, double value, char text[UNITS_TEXT_SIZE])
{
    if (unit == POLICY_RATE)
        units_format_rate(value, text);
    else if (unit == POLICY_TIME)
        units_format_seconds(value, text);
    else
        units_format_ratio(value, text);
}

void policy_limits_text(const struct policy_rule *rule, enum test_kind kind, char text[256])
{
    size_t used = 0;
    *text = '\0';
    for (size_t i = 0; i < rule->limit_count && used < 256; i++) {
        const struct policy_limit *limit = &rule->limits[i];
        const struct policy_quantity *quantity = &quantities[limit->quantity];
        char value[UNITS_TEXT_SIZE];
        if (quantity->kind != kind)
            continue;
        value_text(quantity->unit, limit->value, value);
        used += (size_t)snprintf(text + used, 256 - used, "%s%s %s %s", used ? ", " : "",
            quantity->name, compare_words[limit->compare], value);
    }
}

// ------------------------------------------------------------------------------------ verdict

static bool holds(const struct policy_limit *limit, double value)
{
    switch (limit->compare) {
    case POLICY_LESS:
        return value < limit->value;
    case POLICY_AT_MOST:
        return value <= limit->value;
    case POLICY_MORE:
        return value > limit->value;
    case POLICY_AT_LEAST:
        return value >= limit->value;
    }
    return false;
}

// Where among the values of its kind a quantity stands.
static size_t slot_of(uint32_t quantity)
{
    size_t slot = 0;
    for (uint32_t i = 0; i < quantity; i++)
        slot += quantities[i].kind == quantities[quantity].kind;
    return slot;
}

enum policy_verdict expect_judge(
    const struct policy_rule *rule, enum test_kind kind, const double *values, const char **words)
{
    enum policy_verdict verdict = POLICY_HELD;
    *words = "the limits are kept";
    for (size_t i = 0; i < rule->limit_count; i++) {
        const struct policy_limit *limit = &rule->limits[i];
        if (quantities[limit->quantity].kind != kind)
            continue;
        double value = values[slot_of(limit->quantity)];
        if (!(value - value == 0)) {
            if (verdict == POLICY_HELD)
                *words = "a value was not measured";
            verdict = verdict == POLICY_HELD ? POLICY_NOT_TESTED : verdict;
        } else if (!holds(limit, value)) {
            *words = "a limit is not kept";
            verdict = POLICY_VIOLATED;
        }
    }
    return verdict;
}

void expect_observed(
    const struct policy_rule *rule, enum test_kind kind, const double *values, char text[128])
{
    size_t used = 0;
    *text = '\0';
    for (size_t i = 0; i < rule->limit_count && used < 128; i++) {
        const struct policy_quantity *quantity = &quantities[rule->limits[i].quantity];
        char value[UNITS_TEXT_SIZE];
        if (quantity->kind != kind)
            continue;
        value_text(quantity->unit, values[slot_of(rule->limits[i].quantity)], value);
        used += (size_t)snprintf(
            text + used, 128 - used, "%s%s %s", used ? ", " : "", quantity->name, value);
    }
}
