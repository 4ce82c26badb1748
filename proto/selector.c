#include "selector.h"

#include <arpa/inet.h>
#include <czmq.h>

#include "errors.h"
#include "identity.h"
#include "units.h"

#define SELECTOR_WORD_MAX 1024
#define SELECTOR_TERMS_MAX 32

enum term_kind { TERM_NAME, TERM_PREFIX, TERM_EQUAL, TERM_DIFFERENT, TERM_CIDR };

struct term {
    enum term_kind kind;
    const char *text; // name, prefix or key; inside the selector's copy of the word
    const char *value;
    struct cidr cidr;
};

struct selector {
    char *copy;
    size_t count;
    struct term terms[SELECTOR_TERMS_MAX];
};

int cidr_parse(const char *word, struct cidr *cidr)
{
    char address[64];
    const char *slash = strchr(word, '/');
    size_t size = slash ? (size_t)(slash - word) : strlen(word);
    if (size == 0 || size >= sizeof address)
        return MESH_E_SYNTAX;
    memcpy(address, word, size);
    address[size] = '\0';
    struct cidr made = {0};
    if (inet_pton(AF_INET, address, made.address) == 1)
        made.family = 4;
    else if (inet_pton(AF_INET6, address, made.address) == 1)
        made.family = 6;
    else
        return MESH_E_SYNTAX;
    unsigned longest = made.family == 4 ? 32 : 128;
    uint64_t prefix = longest;
    if (slash && units_count(slash + 1, 0, longest, &prefix) != 0)
        return MESH_E_RANGE;
    made.prefix = (unsigned)prefix;
    *cidr = made;
    return 0;
}

static bool prefix_equal(const unsigned char *a, const unsigned char *b, unsigned bits)
{
    if (memcmp(a, b, bits / 8) != 0)
        return false;
    unsigned rest = bits % 8;
    return rest == 0 || ((a[bits / 8] ^ b[bits / 8]) >> (8 - rest)) == 0;
}

bool cidr_contains(const struct cidr *cidr, const char *address)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    unsigned char bytes[16] = {0};
    unsigned family = 4;
    if (inet_pton(AF_INET, address, bytes) != 1) {
        if (inet_pton(AF_INET6, address, bytes) != 1)
            return false;
        family = 6;
        if (memcmp(bytes, mapped, sizeof mapped) == 0) {
            family = 4;
            memmove(bytes, bytes + 12, 4);
        }
    }
    return family == cidr->family && prefix_equal(bytes, cidr->address, cidr->prefix);
}

static bool label_word(const char *text)
{
    return identity_label_valid(text, "x");
}

static bool parse_label(char *text, struct term *term)
{
    char *equal = strchr(text, '=');
    term->kind = equal > text && equal[-1] == '!' ? TERM_DIFFERENT : TERM_EQUAL;
    *(term->kind == TERM_DIFFERENT ? equal - 1 : equal) = '\0';
    term->text = text;
    term->value = equal + 1;
    return label_word(text) && *term->value != '=' && identity_label_valid("x", term->value);
}

static bool parse_name(char *text, struct term *term)
{
    size_t size = strlen(text);
    term->kind = TERM_NAME;
    term->text = text;
    if (size > 0 && text[size - 1] == '*') {
        term->kind = TERM_PREFIX;
        text[size - 1] = '\0';
        return size == 1 || identity_name_valid(text);
    }
    return identity_name_valid(text);
}

static bool parse_term(char *text, struct term *term)
{
    if (strchr(text, '='))
        return parse_label(text, term);
    if (strchr(text, '/') || strchr(text, ':')) {
        term->kind = TERM_CIDR;
        return cidr_parse(text, &term->cidr) == 0;
    }
    return parse_name(text, term);
}

static selector_t *refuse(selector_t *self, const char *word, const char *why, char *error)
{
    snprintf(error, 256, "'%.160s' is not a selector: %s", word, why);
    selector_destroy(&self);
    return NULL;
}

selector_t *selector_new(const char *word, char *error)
{
    selector_t *self = zmalloc(sizeof *self);
    if (strlen(word) > SELECTOR_WORD_MAX)
        return refuse(self, word, "it is too long", error);
    self->copy = strdup(word);
    char *rest = self->copy, *text;
    while ((text = strsep(&rest, ","))) {
        if (self->count == SELECTOR_TERMS_MAX)
            return refuse(self, word, "it has over 32 terms", error);
        if (!*text)
            return refuse(self, word, "a term is empty", error);
        if (!parse_term(text, &self->terms[self->count++]))
            return refuse(self, word, "use name, name*, key=value, key!=value or a CIDR", error);
    }
    return self;
}

void selector_destroy(selector_t **self_p)
{
    if (*self_p)
        free((*self_p)->copy);
    free(*self_p);
    *self_p = NULL;
}

static const char *label_of(const struct selector_subject *subject, const char *key)
{
    for (size_t i = 0; i < subject->label_count; i++)
        if (strcmp(subject->label_keys[i], key) == 0)
            return subject->label_values[i];
    return NULL;
}

static bool term_matches(const struct term *term, const struct selector_subject *subject)
{
    const char *value;
    switch (term->kind) {
    case TERM_NAME:
        return strcmp(subject->name, term->text) == 0;
    case TERM_PREFIX:
        return strncmp(subject->name, term->text, strlen(term->text)) == 0;
    case TERM_EQUAL:
        value = label_of(subject, term->text);
        return value && strcmp(value, term->value) == 0;
    case TERM_DIFFERENT:
        value = label_of(subject, term->text);
        return !value || strcmp(value, term->value) != 0;
    case TERM_CIDR:
        for (size_t i = 0; i < subject->address_count; i++)
            if (cidr_contains(&term->cidr, subject->addresses[i]))
                return true;
        return false;
    }
    return false;
}

bool selector_match(const selector_t *self, const struct selector_subject *subject)
{
    for (size_t i = 0; i < self->count; i++)
        if (!term_matches(&self->terms[i], subject))
            return false;
    return true;
}
