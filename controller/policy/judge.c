// Verdicts: the table, the liveness control, and what a rule asks beyond it.

#include "policy.h"

#include <stdlib.h>
#include <string.h>

#include "policy_parts.h"

#define ALIVE_WITHIN_NS INT64_C(60000000000)

// --------------------------------------------------------------------------------- the table

// Bits of what a row matches.
#define IS(value) (1u << (value))
#define ANY ~0u
enum { BY_TARGET = 1, BY_TCP = 2, BY_OTHERS = 4, BY_UNREACHABLE = 8 };

struct row {
    enum policy_observed observed;
    unsigned arrived, listener;
    unsigned circumstances; // all of these must be so
    enum policy_verdict allow, deny;
    const char *words;
};

#define HOLDS POLICY_HELD
#define BROKEN POLICY_VIOLATED
#define UNTOLD POLICY_NOT_TESTED

// The first row that matches counts. The same table, in words, is in meshperf-policy(5). Each
// denial that holds here is believed only of a destination that was shown alive.
static const struct row rows[] = {
    {POLICY_OPEN, ANY, ANY, 0, HOLDS, BROKEN, "the path and the port work"},
    {POLICY_ACCEPTED, IS(POLICY_ARRIVED_NO), ANY, 0, BROKEN, BROKEN,
        "answered by a middlebox: something in between took the connection"},
    {POLICY_ACCEPTED, IS(POLICY_ARRIVED_YES), ANY, 0, HOLDS, BROKEN,
        "it arrived, and something else than the agent's listener answered"},
    {POLICY_ACCEPTED, IS(POLICY_ARRIVED_UNKNOWN), IS(POLICY_LISTENER_SERVICE), 0, HOLDS, BROKEN,
        "a service answered"},
    {POLICY_ACCEPTED, IS(POLICY_ARRIVED_UNKNOWN), ANY, BY_TARGET, HOLDS, BROKEN,
        "something answered; without an agent there nobody can say what"},
    {POLICY_ACCEPTED, IS(POLICY_ARRIVED_UNKNOWN), ANY, 0, UNTOLD, BROKEN,
        "something answered, and whether it arrived is not known"},
    {POLICY_REFUSED, IS(POLICY_ARRIVED_YES), ANY, 0, HOLDS, BROKEN,
        "the network lets it through, and the port is closed"},
    {POLICY_REFUSED, IS(POLICY_ARRIVED_NO), IS(POLICY_LISTENER_AGENT), 0, BROKEN, HOLDS,
        "rejected: a device refused it, or led it to another port"},
    {POLICY_REFUSED, ANY, ANY, BY_TARGET, UNTOLD, UNTOLD,
        "a closed port or a device's refusal, which cannot be told where no agent is"},
    {POLICY_REFUSED, ANY, IS(POLICY_LISTENER_AGENT), 0, UNTOLD, UNTOLD,
        "a refusal, and the destination cannot say whether the probe arrived"},
    {POLICY_REFUSED, ANY, ANY, 0, UNTOLD, UNTOLD,
        "a closed port or a device's refusal, which cannot be told: let the agent listen there"},
    {POLICY_REJECTED, IS(POLICY_ARRIVED_YES), ANY, 0, BROKEN, BROKEN,
        "packets get in, and then something rejects them"},
    {POLICY_REJECTED, IS(POLICY_ARRIVED_NO), ANY, 0, BROKEN, HOLDS, "blocked, politely"},
    {POLICY_REJECTED, ANY, IS(POLICY_LISTENER_AGENT), 0, UNTOLD, UNTOLD,
        "rejected, and the destination cannot say whether an earlier packet arrived"},
    {POLICY_REJECTED, ANY, ANY, BY_UNREACHABLE, UNTOLD, HOLDS,
        "reported unreachable, which a router also says of a dead host"},
    {POLICY_REJECTED, ANY, ANY, 0, BROKEN, HOLDS, "blocked, politely; seen at the source only"},
    {POLICY_FILTERED, IS(POLICY_ARRIVED_YES), ANY, 0, BROKEN, BROKEN,
        "packets get in, replies are lost: a one-way leak"},
    {POLICY_FILTERED, IS(POLICY_ARRIVED_NO), ANY, 0, BROKEN, HOLDS, "blocked, silently"},
    {POLICY_FILTERED, ANY, IS(POLICY_LISTENER_AGENT), 0, UNTOLD, UNTOLD,
        "silence, and the destination cannot say whether it arrived"},
    {POLICY_FILTERED, ANY, IS(POLICY_LISTENER_SERVICE), BY_TCP, UNTOLD, UNTOLD,
        "silence, and the destination cannot say whether it arrived"},
    {POLICY_FILTERED, ANY, ANY, BY_TCP, UNTOLD, HOLDS, "silence; seen at the source only"},
    {POLICY_FILTERED, ANY, ANY, BY_OTHERS, UNTOLD, UNTOLD,
        "silence, and a silent service looks the same"},
    {POLICY_NO_ROUTE, IS(POLICY_ARRIVED_YES), ANY, 0, BROKEN, BROKEN,
        "packets get in, and then the source has no route there"},
    {POLICY_NO_ROUTE, IS(POLICY_ARRIVED_NO), ANY, 0, BROKEN, HOLDS,
        "the source has no route there"},
    {POLICY_NO_ROUTE, ANY, ANY, 0, UNTOLD, UNTOLD,
        "the source has no route there, and nobody says whether the destination lives"},
    {POLICY_UNSUPPORTED, ANY, ANY, 0, UNTOLD, UNTOLD, "not supported"},
    {POLICY_ERROR, ANY, ANY, 0, UNTOLD, UNTOLD, "the probe failed"},
    {POLICY_NOTHING, ANY, ANY, 0, UNTOLD, UNTOLD, "nothing was observed"},
};

static bool row_matches(const struct row *row, const struct policy_sight *sight, bool target)
{
    unsigned here = (target ? BY_TARGET : 0u) |
                    (sight->cell.protocol == POLICY_TCP ? BY_TCP : BY_OTHERS) |
                    (sight->unreachable ? BY_UNREACHABLE : 0u);
    return row->observed == sight->observed && row->arrived & IS(sight->arrived) &&
           row->listener & IS(sight->listener) && (row->circumstances & here) == row->circumstances;
}

enum policy_verdict policy_table(enum policy_expected expected, const struct policy_sight *sight,
    bool target, const char **words)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (!row_matches(&rows[i], sight, target))
            continue;
        *words = rows[i].words;
        return expected == POLICY_ALLOW ? rows[i].allow : rows[i].deny;
    }
    *words = "nothing was observed";
    return POLICY_NOT_TESTED;
}

// ----------------------------------------------------------------------------------- liveness

struct sign {
    uint32_t to;
    int64_t at_wall_ns;
};

struct signs {
    struct sign *list;
    size_t count;
};

static int by_sign(const void *a, const void *b)
{
    const struct sign *left = a, *right = b;
    if (left->to != right->to)
        return left->to < right->to ? -1 : 1;
    return left->at_wall_ns < right->at_wall_ns ? -1 : left->at_wall_ns > right->at_wall_ns;
}

// Times at which a destination itself was seen to answer, from anywhere.
static void signs_find(const struct policy_sight *sights, size_t count, struct signs *signs)
{
    signs->list = calloc(count + 1, sizeof *signs->list);
    if (!signs->list)
        abort();
    for (size_t i = 0; i < count; i++) {
        const struct policy_sight *sight = &sights[i];
        bool proof = sight->observed == POLICY_OPEN || sight->arrived == POLICY_ARRIVED_YES ||
                     sight->alive ||
                     (sight->observed == POLICY_ACCEPTED && sight->arrived != POLICY_ARRIVED_NO);
        if (sight->cell.kind == TEST_PORT && proof && sight->at_wall_ns)
            signs->list[signs->count++] = (struct sign){sight->cell.to, sight->at_wall_ns};
    }
    qsort(signs->list, signs->count, sizeof *signs->list, by_sign);
}

static bool shown_alive(const struct signs *signs, const struct policy_sight *sight)
{
    if (sight->alive)
        return true;
    struct sign from = {sight->cell.to, sight->at_wall_ns - ALIVE_WITHIN_NS};
    size_t low = 0, high = signs->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (by_sign(&signs->list[middle], &from) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < signs->count && signs->list[low].to == sight->cell.to &&
           signs->list[low].at_wall_ns <= sight->at_wall_ns + ALIVE_WITHIN_NS;
}

// ------------------------------------------------------------------------------------ a check

struct judge {
    const struct policy_checks *checks;
    const struct policy_sight *sights;
    size_t sight_count;
    struct signs signs;
    bool *heard; // by source: an ICMP message told of a block
};

// Routers send few messages a second to one host: where some of its probes were answered by one,
// the silence of others says nothing of how they are blocked.
static void heard_find(struct judge *self)
{
    self->heard = calloc(self->checks->agent_count + 1, sizeof *self->heard);
    if (!self->heard)
        abort();
    for (size_t i = 0; i < self->sight_count; i++) {
        const struct policy_sight *sight = &self->sights[i];
        bool message = sight->observed == POLICY_REJECTED ||
                       (sight->observed == POLICY_REFUSED && sight->cell.protocol == POLICY_UDP);
        if (message && sight->cell.from < self->checks->agent_count)
            self->heard[sight->cell.from] = true;
    }
}

static bool may_be_limited(
    const struct judge *self, enum policy_how how, const struct policy_sight *sight)
{
    bool message = how == POLICY_HOW_REJECTED ||
                   (how == POLICY_HOW_REFUSED && sight->cell.protocol == POLICY_UDP);
    return message && sight->observed == POLICY_FILTERED && self->heard[sight->cell.from];
}

static bool blocked_as(enum policy_how how, enum policy_observed observed)
{
    switch (how) {
    case POLICY_HOW_ANY:
        return true;
    case POLICY_HOW_FILTERED:
        return observed == POLICY_FILTERED;
    case POLICY_HOW_REJECTED:
        return observed == POLICY_REJECTED || observed == POLICY_REFUSED;
    case POLICY_HOW_REFUSED:
        return observed == POLICY_REFUSED;
    }
    return false;
}

static void judge_port(
    const struct judge *self, const struct policy_check *check, struct policy_judged *judged)
{
    const struct policy_sight *sight = judged->sight;
    bool target = check->to >= self->checks->agent_count;
    enum policy_how how = policy_check_how(self->checks, check);
    judged->verdict = policy_table(check->expected, sight, target, &judged->words);
    if (judged->verdict != POLICY_HELD || check->expected != POLICY_DENY)
        return;
    if (!shown_alive(&self->signs, sight)) {
        judged->verdict = POLICY_NOT_TESTED;
        judged->words =
            "nothing showed within a minute that the destination lives, and a dead host "
            "looks the same";
    } else if (may_be_limited(self, how, sight)) {
        judged->verdict = POLICY_NOT_TESTED;
        judged->words = "blocked, but how is not known: other probes of this source were rejected, "
                        "and routers limit the messages that they send";
    } else if (!blocked_as(how, sight->observed)) {
        judged->verdict = POLICY_VIOLATED;
        judged->words = "blocked, but not in the way that the rule asks for";
    }
}

static int sight_order(const void *a, const void *b)
{
    const struct policy_sight *left = a, *right = b;
    return policy_cell_order(&left->cell, &right->cell);
}

static const struct policy_sight *sight_of(
    const struct judge *self, const struct policy_check *check)
{
    struct policy_sight key = {.cell = policy_cell_of(check)};
    return self->sight_count
               ? bsearch(&key, self->sights, self->sight_count, sizeof key, sight_order)
               : NULL;
}

static void judge_check(
    const struct judge *self, const struct policy_check *check, struct policy_judged *judged)
{
    const struct policy_rule *rules = self->checks->policy->rules;
    judged->verdict = POLICY_NOT_TESTED;
    if (!check->kind) {
        judged->words = "the rule means nobody";
        return;
    }
    judged->sight = sight_of(self, check);
    const struct policy_sight *sight = judged->sight;
    if (!sight) {
        judged->words = "the run did not test this";
        return;
    }
    bool fails = check->rule != POLICY_UNLISTED && rules[check->rule].unsupported_fails;
    if (sight->unsupported) {
        judged->words = "not supported";
        judged->verdict = fails ? POLICY_VIOLATED : POLICY_NOT_TESTED;
    } else if (!sight->measured) {
        judged->words = sight->final ? "the test did not succeed" : "the test did not end";
    } else if (check->kind == TEST_PORT) {
        judge_port(self, check, judged);
    } else {
        judged->verdict = expect_judge(
            &rules[check->rule], (enum test_kind)check->kind, sight->values, &judged->words);
    }
}

// --------------------------------------------------------------------------- shares of pairs

// Whether enough pairs of a rule hold, of checks [first, end).
static bool enough_pairs(const struct judge *self, const struct policy_judged *judged, size_t first,
    size_t end, double share)
{
    const struct policy_check *checks = self->checks->checks;
    size_t pairs = 0, holding = 0;
    for (size_t i = first; i < end;) {
        size_t pair = i;
        bool holds = true;
        for (; i < end && checks[i].from == checks[pair].from && checks[i].to == checks[pair].to;
             i++)
            holds = holds && judged[i].verdict == POLICY_HELD;
        pairs++;
        holding += holds;
    }
    return (double)holding >= share * (double)pairs - 1e-9;
}

static void tolerate(const struct judge *self, struct policy_judged *judged)
{
    const struct policy_checks *checks = self->checks;
    for (size_t i = 0; i < checks->count;) {
        size_t first = i;
        uint32_t rule = checks->checks[i].rule;
        while (i < checks->count && checks->checks[i].rule == rule)
            i++;
        if (rule == POLICY_UNLISTED || checks->policy->rules[rule].pairs >= 1 ||
            !enough_pairs(self, judged, first, i, checks->policy->rules[rule].pairs))
            continue;
        for (size_t k = first; k < i; k++)
            judged[k].tolerated = judged[k].verdict == POLICY_VIOLATED;
    }
}

struct policy_judged *policy_judge(const struct policy_checks *checks, struct policy_sight *sights,
    size_t sight_count, struct policy_counts *counts)
{
    struct judge self = {.checks = checks, .sights = sights, .sight_count = sight_count};
    struct policy_judged *judged = calloc(checks->count + 1, sizeof *judged);
    if (!judged)
        abort();
    if (sight_count)
        qsort(sights, sight_count, sizeof *sights, sight_order);
    signs_find(sights, sight_count, &self.signs);
    heard_find(&self);
    for (size_t i = 0; i < checks->count; i++)
        judge_check(&self, &checks->checks[i], &judged[i]);
    tolerate(&self, judged);
    free(self.signs.list);
    free(self.heard);
    *counts = (struct policy_counts){0};
    for (size_t i = 0; i < checks->count; i++) {
        size_t *count = judged[i].tolerated                    ? &counts->tolerated
                        : judged[i].verdict == POLICY_HELD     ? &counts->held
                        : judged[i].verdict == POLICY_VIOLATED ? &counts->violated
                                                               : &counts->not_tested;
        ++*count;
    }
    return judged;
}

int policy_exit_status(const struct policy_counts *counts, bool allow_incomplete)
{
    if (counts->violated)
        return 1;
    if (counts->held + counts->tolerated == 0)
        return 4;
    return counts->not_tested && !allow_incomplete ? 4 : 0;
}

void policy_sights_release(struct policy_sight *sights, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(sights[i].values);
        free(sights[i].text);
    }
    free(sights);
}

// -------------------------------------------------------------------------------------- words

static const char *const observed_words[] = {NULL, "open", "accepted", "refused", "rejected",
    "filtered", "no-route", "unsupported", "error"};
static const char *const arrived_words[] = {"unknown", "yes", "no"};
static const char *const listener_words[] = {"none", "agent", "service"};
static const char *const verdict_words[] = {"not_tested", "held", "violated"};

const char *policy_observed_word(enum policy_observed observed)
{
    return observed_words[observed];
}

const char *policy_arrived_word(enum policy_arrived arrived)
{
    return arrived_words[arrived];
}

const char *policy_listener_word(enum policy_listener listener)
{
    return listener_words[listener];
}

const char *policy_verdict_word(enum policy_verdict verdict)
{
    return verdict_words[verdict];
}

static bool parse(const char *const *words, size_t count, const char *word, uint8_t *index)
{
    for (size_t i = 0; i < count; i++)
        if (words[i] && strcmp(words[i], word) == 0) {
            *index = (uint8_t)i;
            return true;
        }
    return false;
}

bool policy_observed_parse(const char *word, uint8_t *observed)
{
    return parse(observed_words, COUNT(observed_words), word, observed);
}

bool policy_arrived_parse(const char *word, uint8_t *arrived)
{
    return parse(arrived_words, COUNT(arrived_words), word, arrived);
}

bool policy_listener_parse(const char *word, uint8_t *listener)
{
    return parse(listener_words, COUNT(listener_words), word, listener);
}

void policy_observed_text(const struct policy_checks *checks, const struct policy_check *check,
    const struct policy_judged *judged, char text[128])
{
    const struct policy_sight *sight = judged->sight;
    snprintf(text, 128, "-");
    if (!sight || !sight->measured)
        return;
    if (check->kind == TEST_PORT && sight->observed != POLICY_NOTHING)
        snprintf(text, 128, "%s", policy_observed_word(sight->observed));
    else if (check->kind != TEST_PORT && sight->values)
        expect_observed(
            &checks->policy->rules[check->rule], (enum test_kind)check->kind, sight->values, text);
}

void policy_evidence(const struct policy_checks *checks, const struct policy_check *check,
    const struct policy_judged *judged, char text[1024])
{
    const struct policy_sight *sight = judged->sight;
    char empty[256];
    if (!check->kind) {
        policy_check_empty(checks, check, empty);
        snprintf(text, 1024, "%s", empty);
        return;
    }
    snprintf(text, 1024, "%s%s%.800s%s", judged->words, sight && sight->text ? ": " : "",
        sight && sight->text ? sight->text : "",
        judged->tolerated ? " (tolerated: enough pairs of the rule hold)" : "");
}
