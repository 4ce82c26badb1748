// A policy drafted from what a run found open. Agents that are interchangeable (the same is open
// from and to them) become one group, so that the draft says exactly what was seen, in few rules.

#include <stdlib.h>
#include <string.h>

#include "policy_parts.h"

#define NAME_SIZE 64
#define WORDS_MOST (64u << 20) // of the table of what is open: 512 MiB

struct learner {
    const struct policy_open *open;
    size_t n;
    struct policy_ports *ports; // single ports, each once, sorted
    size_t port_count, words;
    uint64_t *bits;  // [from][to][port]
    uint32_t *class; // of each agent: the least agent of its class
    char (*names)[NAME_SIZE];
    size_t probes, untold; // how many told nothing
};

// ---------------------------------------------------------------------------------- what is open

static size_t port_index(const struct learner *self, unsigned protocol, unsigned port)
{
    size_t low = 0, high = self->port_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct policy_ports *at = &self->ports[middle];
        if (at->protocol < protocol || (at->protocol == protocol && at->first < port))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int by_number(const void *a, const void *b)
{
    const struct policy_ports *left = a, *right = b;
    if (left->protocol != right->protocol)
        return left->protocol < right->protocol ? -1 : 1;
    return (int)left->first - (int)right->first;
}

static void find_ports(struct learner *self)
{
    const struct policy_open *open = self->open;
    self->ports = calloc(open->sight_count + 1, sizeof *self->ports);
    if (!self->ports)
        abort();
    size_t count = 0, kept = 0;
    for (size_t i = 0; i < open->sight_count; i++) {
        const struct policy_cell *cell = &open->sights[i].cell;
        if (cell->kind == TEST_PORT)
            self->ports[count++] = (struct policy_ports){cell->protocol, cell->port, cell->port};
    }
    qsort(self->ports, count, sizeof *self->ports, by_number);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || by_number(&self->ports[kept - 1], &self->ports[i]) != 0)
            self->ports[kept++] = self->ports[i];
    self->port_count = kept;
    self->words = (kept + 63) / 64;
}

static uint64_t *bits_of(const struct learner *self, size_t from, size_t to)
{
    return self->bits + (from * self->n + to) * self->words;
}

static void find_open(struct learner *self)
{
    const struct policy_open *open = self->open;
    for (size_t i = 0; i < open->sight_count; i++) {
        const struct policy_sight *sight = &open->sights[i];
        const struct policy_cell *cell = &sight->cell;
        const char *words;
        if (cell->kind != TEST_PORT || cell->from >= self->n || cell->to >= self->n)
            continue;
        bool target = open->target[cell->to];
        self->probes++;
        enum policy_verdict allowed = policy_table(POLICY_ALLOW, sight, target, &words);
        if (!sight->measured || allowed == POLICY_NOT_TESTED) {
            self->untold++;
        } else if (allowed == POLICY_HELD) {
            size_t index = port_index(self, cell->protocol, cell->port);
            bits_of(self, cell->from, cell->to)[index / 64] |= UINT64_C(1) << (index % 64);
        }
    }
}

// -------------------------------------------------------------------------------------- classes

static bool same(const struct learner *self, size_t a, size_t b, size_t c, size_t d)
{
    return memcmp(bits_of(self, a, b), bits_of(self, c, d), self->words * sizeof(uint64_t)) == 0;
}

static bool interchangeable(const struct learner *self, size_t a, size_t b)
{
    if (self->open->target[a] || self->open->target[b] || !same(self, a, b, b, a))
        return false;
    for (size_t c = 0; c < self->n; c++)
        if (c != a && c != b && (!same(self, a, c, b, c) || !same(self, c, a, c, b)))
            return false;
    return true;
}

static void find_classes(struct learner *self)
{
    for (uint32_t i = 0; i < self->n; i++) {
        self->class[i] = i;
        for (uint32_t k = 0; k < i && self->class[i] == i; k++)
            if (self->class[k] == k && interchangeable(self, k, i))
                self->class[i] = k;
    }
}

static size_t class_size(const struct learner *self, uint32_t class)
{
    size_t size = 0;
    for (size_t i = 0; i < self->n; i++)
        size += self->class[i] == class;
    return size;
}

// Does this label's value mean exactly the agents of the class?
static bool label_means(
    const struct learner *self, uint32_t class, const char *key, const char *value)
{
    for (size_t i = 0; i < self->n; i++) {
        const struct selector_subject *agent = &self->open->agents[i];
        bool has = false;
        for (size_t l = 0; l < agent->label_count && !self->open->target[i]; l++)
            has = has || (strcmp(agent->label_keys[l], key) == 0 &&
                             strcmp(agent->label_values[l], value) == 0);
        if (has != (self->class[i] == class))
            return false;
    }
    return true;
}

static const char *label_of_class(const struct learner *self, uint32_t class, size_t *index)
{
    const struct selector_subject *agent = &self->open->agents[class];
    for (*index = 0; *index < agent->label_count; ++*index)
        if (label_means(self, class, agent->label_keys[*index], agent->label_values[*index]))
            return agent->label_values[*index];
    return NULL;
}

// ------------------------------------------------------------------------------------- printing

static bool name_taken(const struct learner *self, uint32_t class)
{
    for (uint32_t i = 0; i < self->n; i++)
        if (i != class && strcmp(self->names[i], self->names[class]) == 0)
            return true;
    return false;
}

// After a label that means exactly this class, else after its first agent. Targets have names.
static void name_class(const struct learner *self, uint32_t class)
{
    const struct selector_subject *agent = &self->open->agents[class];
    char *name = self->names[class];
    size_t index;
    if (self->open->target[class])
        snprintf(name, NAME_SIZE, "%s", agent->name);
    else if (class_size(self, class) > 1 && label_of_class(self, class, &index))
        snprintf(
            name, NAME_SIZE, "%.30s-%.30s", agent->label_keys[index], agent->label_values[index]);
    else
        snprintf(
            name, NAME_SIZE, "%s%.50s", class_size(self, class) > 1 ? "like-" : "", agent->name);
    // What a label may have and a group's name may not.
    for (char *c = name; *c; c++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", *c))
            *c = '-';
    if (name_taken(self, class))
        snprintf(name, NAME_SIZE, "group-%u", class);
}

static void print_groups(const struct learner *self, FILE *stream)
{
    fprintf(stream, "groups:\n");
    for (uint32_t c = 0; c < self->n; c++) {
        const char *name = self->names[c];
        size_t index, printed = 0;
        if (self->class[c] != c || self->open->target[c])
            continue;
        const struct selector_subject *agent = &self->open->agents[c];
        if (class_size(self, c) > 1 && label_of_class(self, c, &index)) {
            fprintf(stream, "  %s: {labels: {\"%s\": \"%s\"}}\n", name, agent->label_keys[index],
                agent->label_values[index]);
            continue;
        }
        fprintf(stream, "  %s: {agents: [", name);
        for (size_t i = c; i < self->n; i++)
            if (self->class[i] == c)
                fprintf(stream, "%s%s", printed++ ? ", " : "", self->open->agents[i].name);
        fprintf(stream, "]}\n");
    }
}

static void print_targets(const struct learner *self, FILE *stream)
{
    bool first = true;
    for (size_t i = 0; i < self->n; i++) {
        const struct selector_subject *agent = &self->open->agents[i];
        if (!self->open->target[i] || agent->address_count == 0)
            continue;
        fprintf(stream, "%s  %s: {address: \"%s\"}\n", first ? "targets:\n" : "", agent->name,
            agent->addresses[0]);
        first = false;
    }
}

// Ports whose bits are set, neighbours as ranges; all if `bits` is NULL.
static void print_ports(const struct learner *self, const uint64_t *bits, FILE *stream)
{
    size_t printed = 0;
    fputc('[', stream);
    for (size_t i = 0; i < self->port_count; i++) {
        if (bits && !(bits[i / 64] >> (i % 64) & 1))
            continue;
        size_t last = i;
        while (last + 1 < self->port_count &&
               self->ports[last + 1].protocol == self->ports[i].protocol &&
               self->ports[last + 1].first == self->ports[last].first + 1 &&
               (!bits || bits[(last + 1) / 64] >> ((last + 1) % 64) & 1))
            last++;
        fprintf(stream, "%s%s/%u", printed++ ? ", " : "",
            policy_protocol_word(self->ports[i].protocol), self->ports[i].first);
        if (last > i)
            fprintf(stream, "-%u", self->ports[last].first);
        i = last;
    }
    fputc(']', stream);
}

// Two agents that stand for all pairs of these classes; false if there is no such pair.
static bool pair_of(const struct learner *self, uint32_t from, uint32_t to, size_t *a, size_t *b)
{
    *a = from;
    *b = to;
    for (size_t i = from + 1; from == to && i < self->n && *b == from; i++)
        if (self->class[i] == from)
            *b = i;
    return *a != *b;
}

static size_t print_rules(const struct learner *self, FILE *stream)
{
    size_t rules = 0;
    for (uint32_t f = 0; f < self->n; f++)
        for (uint32_t t = 0; t < self->n; t++) {
            const char *from = self->names[f], *to = self->names[t];
            size_t a, b;
            bool any = false;
            if (self->class[f] != f || self->class[t] != t || !pair_of(self, f, t, &a, &b))
                continue;
            const uint64_t *bits = bits_of(self, a, b);
            for (size_t w = 0; w < self->words; w++)
                any = any || bits[w];
            if (!any)
                continue;
            fprintf(stream,
                "%s  - {name: \"observed, not approved: %s to %s\", from: %s, to: %s, allow: ",
                rules++ ? "" : "rules:\n", from, to, from, to);
            print_ports(self, bits, stream);
            fprintf(stream, "}\n");
        }
    return rules;
}

static void print_draft(const struct learner *self, FILE *stream)
{
    const struct policy_open *open = self->open;
    fprintf(stream,
        "# A draft: what run %s found open (%s). Observed, not approved: each rule is to be\n"
        "# read by somebody who knows whether it should be so. What was not open is denied.\n",
        open->run, open->when);
    if (self->untold)
        fprintf(stream,
            "# %zu of its %zu probes told nothing and are not in here: meshperf show %s\n",
            self->untold, self->probes, open->run);
    fprintf(stream, "policy: observed-in-%s\nversion: 1\n\n", open->run);
    print_groups(self, stream);
    print_targets(self, stream);
    fprintf(stream, "\ndefaults:\n  unlisted: deny\n  ports: ");
    print_ports(self, NULL, stream);
    fprintf(stream, "\n\n");
    if (print_rules(self, stream) == 0)
        fprintf(stream, "# nothing was open\n");
}

bool policy_learn(const struct policy_open *open, FILE *stream)
{
    struct learner self = {.open = open, .n = open->agent_count};
    find_ports(&self);
    bool good =
        self.port_count > 0 && (double)self.n * (double)self.n * (double)self.words < WORDS_MOST;
    if (good) {
        self.bits = calloc(self.n * self.n * self.words + 1, sizeof *self.bits);
        self.class = calloc(self.n + 1, sizeof *self.class);
        self.names = calloc(self.n + 1, sizeof *self.names);
        if (!self.bits || !self.class || !self.names)
            abort();
        find_open(&self);
        find_classes(&self);
        for (uint32_t i = 0; i < self.n; i++)
            if (self.class[i] == i)
                name_class(&self, i);
        print_draft(&self, stream);
    }
    free(self.ports);
    free(self.bits);
    free(self.class);
    free(self.names);
    return good;
}
