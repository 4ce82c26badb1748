// Words of the command line and of files: quantities, selectors, networks, names.

#include <math.h>
#include <string.h>

#include "fuzz.h"
#include "identity.h"
#include "ports.h"
#include "selector.h"
#include "testspec.h"
#include "units.h"

static void quantities(const char *word)
{
    int64_t ns, ns_again = -1;
    uint64_t value, again = 0;
    double ratio;
    char text[UNITS_TEXT_SIZE];
    // The exact words are read through a double: exact up to 2^53.
    if (units_duration_ns(word, &ns) == 0 && ns > 0 && ns < INT64_C(1) << 53)
        HOLDS(units_duration_ns(units_word_duration(ns, text), &ns_again) == 0 && ns == ns_again);
    if (units_rate_bps(word, &value) == 0 && value < UINT64_C(1) << 53)
        HOLDS(units_rate_bps(units_word_rate(value, text), &again) == 0 && value == again);
    if (units_size_bytes(word, &value) == 0)
        HOLDS(strlen(units_format_bytes((double)value, text)) < sizeof text);
    if (units_percent(word, &ratio) == 0)
        HOLDS(isfinite(ratio) && ratio >= 0);
    if (units_count(word, 3, 9, &value) == 0)
        HOLDS(value >= 3 && value <= 9);
}

static void selectors(const char *word)
{
    static const char *const keys[] = {"zone"}, *const values[] = {"a"};
    static const char *const addresses[] = {"10.1.2.3", "fd00::7"};
    struct selector_subject subject = {"web-1", keys, values, 1, addresses, 2};
    char error[256] = "";
    struct cidr net;
    selector_t *selector = selector_new(word, error);
    HOLDS(selector || *error);
    if (selector)
        (void)selector_match(selector, &subject);
    selector_destroy(&selector);
    if (cidr_parse(word, &net) == 0) {
        HOLDS(net.prefix <= (net.family == 4 ? 32u : 128u));
        (void)cidr_contains(&net, "10.1.2.3");
    }
    (void)cidr_contains(&(struct cidr){.family = 4, .prefix = 8, .address = {10}}, word);
}

static void ports(const char *word)
{
    struct port_range range;
    struct port port, again;
    char error[256] = "", text[PORT_TEXT_SIZE];
    if (port_range_parse(word, &range, error) == 0)
        HOLDS(range.first >= 1 && range.first <= range.last);
    else
        HOLDS(*error);
    if (port_parse(word, &port, error) == 0)
        HOLDS(port_parse(port_format(&port, text), &again, error) == 0 &&
              again.number == port.number && again.transport == port.transport);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum test_kind kind;
    char *word = strndup((const char *)data, size);
    quantities(word);
    selectors(word);
    ports(word);
    (void)identity_name_valid(word);
    (void)identity_label_valid(word, word);
    (void)test_kind_parse(word, &kind);
    free(word);
    return 0;
}
