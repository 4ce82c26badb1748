// Who is meant by a selector, and which words are none.

#include "meshtest.h"

#include <stdio.h>
#include <string.h>

#include "selector.h"

static const char *const keys[] = {"zone", "rack"};
static const char *const values[] = {"a", "r-7"};
static const char *const addresses[] = {"10.1.2.3", "fd00::7"};
static const struct selector_subject subject = {.name = "web-1.example",
    .label_keys = keys,
    .label_values = values,
    .label_count = 2,
    .addresses = addresses,
    .address_count = 2};

static bool matches(const char *word)
{
    char error[256];
    selector_t *selector = selector_new(word, error);
    if (!selector)
        fail_msg("%s", error);
    bool match = selector_match(selector, &subject);
    selector_destroy(&selector);
    assert_null(selector);
    return match;
}

static void every_documented_form_selects(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        bool match;
    } rows[] = {{"web-1.example", true}, {"web-1", false}, {"web-1*", true}, {"*", true},
        {"db*", false}, {"zone=a", true}, {"zone=b", false}, {"zone!=b", true}, {"zone!=a", false},
        {"absent!=x", true}, {"absent=x", false}, {"10.1.0.0/16", true}, {"10.2.0.0/16", false},
        {"10.1.2.3/32", true}, {"0.0.0.0/0", true}, {"fd00::/8", true}, {"fd00::7", true},
        {"fd01::/16", false}, {"zone=a,rack=r-7", true}, {"zone=a,rack=r-8", false},
        {"web*,10.1.0.0/16,zone!=b", true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (matches(rows[i].word) != rows[i].match)
            fail_msg("%s: not %d", rows[i].word, rows[i].match);
}

static void a_bad_word_is_quoted_whole(void **state)
{
    (void)state;
    static const char *const bad[] = {"", ",", "zone=a,", ",zone=a", "zone==a", "=a",
        "zone=", "!=a", "zone!=", "10.1.0.0/33", "10.1/16", "10.1.0.0/", "fd00::/129", "a b", "-x",
        "a*b", "zone=a b", "/8", "x/y"};
    char error[256];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char quoted[64];
        snprintf(quoted, sizeof quoted, "'%s'", bad[i]);
        if (selector_new(bad[i], error))
            fail_msg("'%s' is taken", bad[i]);
        if (!strstr(error, quoted))
            fail_msg("no %s in: %s", quoted, error);
    }
}

static void words_have_caps(void **state)
{
    (void)state;
    char error[256], word[1200], terms[100];
    memset(word, 'a', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    assert_null(selector_new(word, error));
    assert_non_null(strstr(error, "too long"));
    for (int i = 0; i < 33; i++)
        memcpy(terms + 2 * i, "a,", 2);
    terms[2 * 33 - 1] = '\0';
    assert_null(selector_new(terms, error));
    assert_non_null(strstr(error, "32 terms"));
}

static void networks_hold_addresses_of_their_family(void **state)
{
    (void)state;
    struct cidr net;
    assert_int_equal(cidr_parse("10.0.0.0/9", &net), 0);
    assert_true(cidr_contains(&net, "10.127.255.255"));
    assert_false(cidr_contains(&net, "10.128.0.0"));
    assert_true(cidr_contains(&net, "::ffff:10.1.2.3"));
    assert_false(cidr_contains(&net, "::10.1.2.3"));
    assert_false(cidr_contains(&net, "no address"));
    assert_int_equal(cidr_parse("::/0", &net), 0);
    assert_true(cidr_contains(&net, "2001:db8::1"));
    assert_false(cidr_contains(&net, "1.2.3.4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_documented_form_selects),
        cmocka_unit_test(a_bad_word_is_quoted_whole),
        cmocka_unit_test(words_have_caps),
        cmocka_unit_test(networks_hold_addresses_of_their_family),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
