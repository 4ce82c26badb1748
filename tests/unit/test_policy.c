// The policy's text: what is understood, and what is said of each mistake, with line and column.

#include "meshtest.h"

#include <stdlib.h>
#include <string.h>

#include "policy_bench.h"

#define RULE(rest) GROUPS "rules:\n  - {name: r, from: web, to: db, " rest "}\n"

// "LINE:COLUMN: words" of a mistake; the words need to be within what is said.
static void refused_size(const char *text, size_t size, const char *expected)
{
    struct policy_error error = {0};
    char said[600];
    policy_t *policy = policy_parse(text, size, &error);
    if (policy)
        fail_msg("not refused: %s", expected);
    snprintf(said, sizeof said, "%u:%u: %s", error.place.line, error.place.column, error.text);
    size_t place = strcspn(expected, " ") + 1;
    if (strncmp(said, expected, place) != 0 || !strstr(said, expected + place))
        fail_msg("expected \"%s\", there is \"%s\"", expected, said);
}

static void refused(const char *text, const char *expected)
{
    refused_size(text, strlen(text), expected);
}

static void a_whole_policy_is_understood(void **state)
{
    (void)state;
    policy_t *policy = policy_of(
        "policy: prod-segmentation\n"
        "version: 1\n"
        "groups:\n"
        "  web:    {labels: {tier: web}}\n"
        "  db:     {subnets: [10.20.0.0/16, \"fd00:20::/48\"]}\n"
        "  store:  {agents: store-1}\n"
        "  office: {agents: [\"office-*\"]}\n"
        "  admin:  {labels: {role: bastion}}\n"
        "targets:\n"
        "  printer: {address: 10.9.0.7}\n"
        "defaults:\n"
        "  unlisted: deny\n"
        "  ports: [tcp/22, tcp/443, udp/53]\n"
        "  attempts: 2\n"
        "  timeout: 500 ms\n"
        "  rate: 50\n"
        "rules:\n"
        "  - {name: web may reach db, from: web, to: db, allow: tcp/5432}\n"
        "  - {name: blocked means silent, from: office, to: db, deny: any, how: filtered}\n"
        "  - name: backup stream\n"
        "    from: db\n"
        "    to: store\n"
        "    allow: [sctp/9000, tcp/9000-9003]\n"
        "    listener: service\n"
        "    unsupported: fail\n"
        "  - name: storage leg is fast enough\n"
        "    from: web\n"
        "    to: db\n"
        "    expect:\n"
        "      tcp:     {bandwidth: \">= 5 Gbit/s\", retransmits: \"< 0.1 %\"}\n"
        "      udp:     {at: 1 Gbit/s, loss: \"< 0.1 %\", jitter: \"< 300 us\"}\n"
        "      latency: {p50: \"< 0.5 ms\", p99: \"< 2 ms\"}\n"
        "    pairs: 95 %\n");
    assert_string_equal(policy->name, "prod-segmentation");
    assert_int_equal(policy->group_count, 5);
    assert_int_equal(policy->target_count, 1);
    assert_int_equal(policy->unlisted, POLICY_DENY);
    assert_int_equal(policy->port_count, 3);
    assert_int_equal(policy->attempts, 2);
    assert_int_equal(policy->timeout_ns, 500000000);
    assert_true(policy->rate == 50);
    assert_int_equal(policy->rule_count, 4);
    const struct policy_rule *rule = policy->rules;
    assert_int_equal(rule[0].expected, POLICY_ALLOW);
    assert_int_equal(rule[0].ports[0].first, 5432);
    assert_int_equal(rule[1].how, POLICY_HOW_FILTERED);
    assert_int_equal(rule[1].port_count, 3);
    assert_int_equal(rule[2].port_count, 2);
    assert_int_equal(rule[2].ports[0].last, 9003);
    assert_int_equal(rule[2].ports[1].protocol, POLICY_SCTP);
    assert_string_equal(rule[2].ports_text, "sctp/9000, tcp/9000-9003");
    assert_int_equal(rule[2].wish, POLICY_WISH_SERVICE);
    assert_true(rule[2].unsupported_fails);
    assert_true(rule[3].pairs > 0.9499 && rule[3].pairs < 0.9501);
    assert_int_equal(rule[3].at_bps, 1000000000);
    char text[256];
    policy_limits_text(&rule[3], TEST_TCP, text);
    assert_string_equal(text, "bandwidth >= 5 Gbit/s, retransmits < 0.1 %");
    policy_limits_text(&rule[3], TEST_LATENCY, text);
    assert_string_equal(text, "p50 < 500 us, p99 < 2 ms");
    policy_destroy(&policy);
}

static void words_that_yaml_takes_for_other_things_stay_plain_strings(void **state)
{
    (void)state;
    policy_t *policy =
        policy_of("policy: no\n"
                  "groups: {no: {labels: {on: off, port: 22:22}}, 1.0: {agents: 0x10}}\n"
                  "rules: [{name: yes, from: no, to: 1.0, deny: tcp/22}]\n");
    assert_string_equal(policy->name, "no");
    assert_string_equal(policy->rules[0].name, "yes");
    assert_string_equal(policy->rules[0].from.text, "no");
    const struct policy_group *group = &policy->groups[1];
    assert_string_equal(group->name, "no");
    assert_string_equal(group->label_values[0], "off");
    assert_string_equal(group->label_values[1], "22:22");
    assert_string_equal(policy->groups[0].agents[0], "0x10");
    policy_destroy(&policy);
}

static void the_order_of_the_parts_does_not_matter(void **state)
{
    (void)state;
    policy_t *policy = policy_of("rules: [{to: printer, from: web, deny: any, name: r}]\n"
                                 "defaults: {ports: tcp/9100}\n"
                                 "targets: {printer: {address: \"fd00::7\"}}\n"
                                 "groups: {web: {agents: \"*\"}}\n"
                                 "policy: p\n");
    assert_int_equal(policy->rules[0].ports[0].first, 9100);
    policy_destroy(&policy);
}

static void ports_are_sorted_and_each_is_there_once(void **state)
{
    (void)state;
    policy_t *policy = policy_of(RULE("allow: [udp/53, tcp/9002-9010, tcp/9000-9003, tcp/9005]"));
    const struct policy_rule *rule = policy->rules;
    assert_int_equal(rule->port_count, 2);
    assert_int_equal(rule->ports[0].first, 9000);
    assert_int_equal(rule->ports[0].last, 9010);
    assert_int_equal(rule->ports[1].protocol, POLICY_UDP);
    policy_destroy(&policy);
}

static void unknown_keys_are_mistakes_with_a_suggestion(void **state)
{
    (void)state;
    refused("polcy: x\n", "1:1: unknown key 'polcy' in a policy, did you mean 'policy'?");
    refused("policy: x\ngroups:\n  web: {label: {a: b}}\n",
        "3:9: unknown key 'label' in a group, did you mean 'labels'? (expected labels, subnets or "
        "agents)");
    refused("policy: x\ntargets: {p: {adress: 10.0.0.1}}\n",
        "2:15: unknown key 'adress' in a target, did you mean 'address'?");
    refused("policy: x\ndefaults: {port: tcp/22}\n",
        "2:12: unknown key 'port' in defaults, did you mean 'ports'?");
    refused(RULE("dney: tcp/22"), "10:34: unknown key 'dney' in a rule, did you mean 'deny'?");
    refused(RULE("expect: {tpc: {bandwidth: \">= 1 Gbit/s\"}}"),
        "10:43: unknown key 'tpc' in expect, did you mean 'tcp'?");
    refused(RULE("expect: {tcp: {bandwith: \">= 1 Gbit/s\"}}"),
        "10:49: unknown key 'bandwith' in expect tcp, did you mean 'bandwidth'? (expected "
        "bandwidth, retransmits)");
    refused("policy: x\n<<: {policy: y}\n", "2:1: unknown key '<<' in a policy");
}

static void unknown_groups_are_mistakes_with_a_suggestion(void **state)
{
    (void)state;
    refused(GROUPS "rules:\n  - {name: r, from: webb, to: db, deny: tcp/22}\n",
        "10:21: unknown group 'webb' in 'webb', did you mean 'web'? (expected any, a group or a "
        "target)");
    refused(GROUPS "rules:\n  - {name: r, from: any except amdin, to: db, deny: tcp/22}\n",
        "10:32: unknown group 'amdin' in 'any except amdin', did you mean 'admin'?");
    refused(GROUPS "rules:\n  - {name: r, from: web, to: [db, printr], deny: tcp/22}\n",
        "10:35: unknown group 'printr' in 'printr', did you mean 'printer'?");
    refused(GROUPS "rules:\n  - {name: r, from: any excpt admin, to: db, deny: tcp/22}\n",
        "10:25: 'excpt' is not expected here");
}

static void wrong_units_and_values_are_mistakes(void **state)
{
    (void)state;
    refused(RULE("expect: {tcp: {bandwidth: \">= 5 ms\"}}"),
        "10:60: '>= 5 ms' has a wrong value or unit for tcp bandwidth: expected such as '>= 5 "
        "Gbit/s'");
    refused(RULE("expect: {latency: {p99: \"< 2 Gbit/s\"}}"),
        "10:58: '< 2 Gbit/s' has a wrong value or unit for latency p99");
    refused(RULE("expect: {udp: {at: 1 Gbit/s, loss: \"< 0.1\"}}"),
        "10:69: '< 0.1' has a wrong value or unit for udp loss: expected such as '< 0.1 %'");
    refused(RULE("expect: {tcp: {bandwidth: 5 Gbit/s}}"), "10:60: '5 Gbit/s' is no comparison");
    refused(RULE("expect: {tcp: {bandwidth: \"=> 5 Gbit/s\"}}"),
        "10:60: '=> 5 Gbit/s' is no comparison");
    refused(RULE("expect: {udp: {at: 5 s, loss: \"< 1 %\"}}"), "10:53: '5 s' is no rate");
    refused(
        RULE("expect: {udp: {loss: \"< 1 %\"}}"), "10:48: expect udp needs the rate to send at");
    refused(RULE("expect: {udp: {at: 1 Mbit/s}}"), "10:48: expect udp says nothing to hold");
    refused(RULE("allow: tcp/22, pairs: 95"), "10:56: '95' is no share of the pairs");
    refused(RULE("allow: tcp/22, pairs: 120 %"), "10:56: '120 %' is no share of the pairs");
    refused("policy: x\ndefaults: {timeout: 2}\n", "2:21: '2' is no duration");
    refused("policy: x\ndefaults: {timeout: 2h}\n",
        "2:21: '2h' is out of range: expected a timeout from 50ms to 1m");
    refused("policy: x\ndefaults: {rate: 0}\n",
        "2:18: '0' is no rate of probes: expected a number a second");
    refused("policy: x\ndefaults: {attempts: 0}\n", "2:22: '0' is no number of attempts");
    refused("policy: x\ndefaults: {unlisted: denied}\n",
        "2:22: 'denied' is not what holds for the unlisted: expected ignore, allow or deny");
    refused("policy: x\nversion: 2\n", "2:10: version '2' is not known here: expected 1");
}

static void ports_that_are_none_are_mistakes(void **state)
{
    (void)state;
    refused(RULE("deny: 22"), "10:40: '22' is no port: expected tcp/, udp/ or sctp/ and a number");
    refused(RULE("deny: [tcp/22, tpc/443]"),
        "10:49: 'tpc/443' is no port: expected tcp/, udp/ or sctp/ and a number, such as tcp/443, "
        "did you mean 'tcp'?");
    refused(RULE("deny: tcp/65536"),
        "10:44: 'tcp/65536' is no port: expected a number from 1 to 65535");
    refused(RULE("deny: tcp/0"), "10:44: 'tcp/0' is no port");
    refused(RULE("deny: tcp/20-10"), "10:44: 'tcp/20-10' is no port");
    refused(RULE("deny: any"), "10:40: 'any' has no ports to try");
    refused(RULE("deny: []"), "10:40: expected a port such as tcp/443, there is an empty list");
    refused(RULE("deny: {tcp: 22}"), "10:40: expected a port such as tcp/443, there is a mapping");
    refused("policy: x\ndefaults: {ports: any}\n", "2:19: 'any' stands for these ports");
}

static void a_rule_is_one_sentence(void **state)
{
    (void)state;
    refused(RULE("allow: tcp/22, deny: tcp/23"),
        "10:49: a rule has one of allow, deny and expect; this one has 'allow' already");
    refused(GROUPS "rules:\n  - {name: r, from: web, to: db}\n",
        "10:5: the rule 'r' has none of allow, deny and expect");
    refused(
        GROUPS "rules:\n  - {name: r, to: db, deny: tcp/22}\n", "10:5: the rule 'r' has no 'from'");
    refused(GROUPS "rules:\n  - {from: web, to: db, deny: tcp/22}\n", "10:5: a rule has no name");
    refused(RULE("allow: tcp/22, how: filtered"),
        "10:49: 'how' says how a port is denied; this rule has 'allow'");
    refused(RULE("deny: tcp/22, pairs: 95 %"), "10:48: a deny holds for all pairs");
    refused(RULE("deny: tcp/22, how: silently"),
        "10:53: 'silently' is not how a denied port is blocked: expected any, filtered, rejected "
        "or refused");
    refused(RULE("expect: {latency: {p50: < 1 ms}}, listener: agent"),
        "10:68: 'listener' belongs to allow and deny");
    refused(GROUPS "rules:\n  - {name: r, from: printer, to: db, deny: tcp/22}\n",
        "10:21: no agent runs on the target 'printer', so that nothing can be sent from it");
    refused(GROUPS
        "rules:\n  - {name: r, from: web, to: printer, expect: {latency: {p50: < 1 ms}}}\n",
        "10:39: no agent runs on the target 'printer', so that nothing can be measured to it");
    refused(GROUPS "rules:\n  - {name: r, from: web, to: db, deny: tcp/1}\n  - {name: r, from: "
                   "web, to: db, deny: tcp/2}\n",
        "11:5: two rules have the name 'r'");
    refused(GROUPS "rules: {name: r}\n", "9:8: expected rules as a list");
    refused("policy: x\n", "1:1: the policy says nothing");
    refused("groups: {}\n", "1:1: expected the policy's name");
    refused("", "1:1: expected the policy's name");
    refused("[policy]", "1:1: expected a mapping of keys to values");
}

static void names_of_groups_and_targets_are_words_of_their_own(void **state)
{
    (void)state;
    refused("policy: x\ngroups: {any: {agents: a}}\n",
        "2:10: 'any' has a meaning of its own and names no group");
    refused("policy: x\ngroups: {\"a b\": {agents: a}}\n", "2:10: 'a b' is no name of a group");
    refused("policy: x\ngroups: {a: {}}\n", "2:13: the group 'a' says nothing");
    refused("policy: x\ngroups: {a: {agents: \"*a\"}}\n", "2:22: '*a' is no agent");
    refused("policy: x\ngroups: {a: {subnets: 10.0.0.0/33}}\n", "2:23: '10.0.0.0/33' is no subnet");
    refused("policy: x\ngroups: {a: {labels: web}}\n", "2:22: expected labels as a mapping");
    refused("policy: x\ngroups: {a: {agents: x}}\ntargets: {a: {address: 10.0.0.1}}\n",
        "3:11: 'a' is a group already");
    refused(
        "policy: x\ntargets: {t: {address: host.example}}\n", "2:24: 'host.example' is no address");
    refused("policy: x\ntargets: {t: {}}\n", "2:14: the target 't' has no address");
}

static void what_yaml_can_do_beyond_is_refused(void **state)
{
    (void)state;
    refused("policy: &a x\n", "1:9: anchors and aliases are not permitted here");
    refused("policy: *a\n", "1:9: anchors and aliases are not permitted here");
    refused("policy: x\ngroups: &g {}\n", "2:9: anchors and aliases are not permitted here");
    refused("policy: x\nrules: &r []\n", "2:8: anchors and aliases are not permitted here");
    refused(
        "policy: !!str x\n", "1:9: tags such as 'tag:yaml.org,2002:str' are not permitted here");
    refused(
        "policy: x\n---\npolicy: y\n", "2:1: a policy is one document; here a second one begins");
    refused("policy: x\npolicy: y\n", "2:1: the key 'policy' stands here twice");
    refused("{policy: x, policy: y}", "1:13: the key 'policy' stands here twice");
    refused("policy: \"a\\0b\"\n",
        "1:9: control characters and line breaks are not permitted in a value");
    refused("policy: |\n  a\n  b\n", "1:9: control characters and line breaks");
    refused("policy: [x\n", "2:1: this is no YAML: did not find expected ',' or ']'");
    refused("? [a]\n: b\n", "1:3: a key must be a plain word");
    refused_size("policy: \xff\n", 10, "1:9: this is no YAML: invalid leading UTF-8 octet");
}

static void depth_and_size_have_limits(void **state)
{
    (void)state;
    refused("policy: x\nrules: [[[[[[[[[[[[[[[[a]]]]]]]]]]]]]]]]\n",
        "2:23: nested too deeply, over 16 levels");
    struct policy_error error;
    policy_t *policy =
        policy_parse("policy: x\nrules: [[[[[[[[[[[[[[[a]]]]]]]]]]]]]]]\n", 50, &error);
    assert_null(policy);
    assert_null(strstr(error.text, "nested"));
    size_t size = POLICY_BYTES_MAX + 1;
    char *large = malloc(size);
    memset(large, ' ', size);
    refused_size(large, size, "1:1: the file has 4194305 bytes, at most 4194304 are read");
    memcpy(large, "policy: p\ndefaults: {unlisted: deny}\n#", 38);
    policy = policy_parse(large, size - 1, &error);
    assert_non_null(policy);
    policy_destroy(&policy);
    memset(large, ',', size);
    memcpy(large, "policy: [", 9);
    for (size_t i = 9; i + 1 < size; i += 2)
        large[i] = 'a';
    refused_size(large, size - 1, "1:800006: there are over 400000 values");
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_policy_is_understood),
        cmocka_unit_test(words_that_yaml_takes_for_other_things_stay_plain_strings),
        cmocka_unit_test(the_order_of_the_parts_does_not_matter),
        cmocka_unit_test(ports_are_sorted_and_each_is_there_once),
        cmocka_unit_test(unknown_keys_are_mistakes_with_a_suggestion),
        cmocka_unit_test(unknown_groups_are_mistakes_with_a_suggestion),
        cmocka_unit_test(wrong_units_and_values_are_mistakes),
        cmocka_unit_test(ports_that_are_none_are_mistakes),
        cmocka_unit_test(a_rule_is_one_sentence),
        cmocka_unit_test(names_of_groups_and_targets_are_words_of_their_own),
        cmocka_unit_test(what_yaml_can_do_beyond_is_refused),
        cmocka_unit_test(depth_and_size_have_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
