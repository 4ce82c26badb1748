#ifndef MESHPERF_SELECTOR_H
#define MESHPERF_SELECTOR_H

// SEL: `name`, `name*`, `key=value`, `key!=value`, a CIDR; comma = and, several selectors = or.
// Pure. Errors quote the whole word as typed.

#include <stdbool.h>
#include <stddef.h>

typedef struct selector selector_t;

struct selector_subject {
    const char *name;
    const char *const *label_keys;
    const char *const *label_values;
    size_t label_count;
    const char *const *addresses;  // numeric IPv4 or IPv6
    size_t address_count;
};

// NULL on a bad word, with a sentence in `error` (256 bytes). Words over 1,024 bytes or with more
// than 32 terms are refused.
selector_t *selector_new(const char *word, char *error);
void selector_destroy(selector_t **self_p);
bool selector_match(const selector_t *self, const struct selector_subject *subject);

// CIDR by itself, for the guard: "10.0.0.0/8", "fd00::/8", or a bare address.
struct cidr { unsigned family; unsigned prefix; unsigned char address[16]; };
int cidr_parse(const char *word, struct cidr *cidr) __attribute__((warn_unused_result));
// Numeric address text; IPv4-mapped IPv6 counts as IPv4. False for anything unparsable.
bool cidr_contains(const struct cidr *cidr, const char *address);

#endif
