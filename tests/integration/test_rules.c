// Verdicts against rules drawn at random. A router between three subnets treats each pair, port and
// family in a way of its own; a policy allows and denies at random. What the router's counters say
// went through (and came back) is the truth, and no verdict may contradict it:
//
//   a denial that holds      nothing went through
//   a denial that is broken  something went through, or a proxy answered for the destination
//   an allowance that holds  something went through
//   one that is broken       the rule did not let it work
//   not tested               has its reason, and is not said where both ends know
//
// (A proxy in front of a service is not told from the service.)
//
// MESHPERF_RULES_SEED draws the same rules again, MESHPERF_RULES_ROUNDS as many as one likes.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

enum { HOSTS = 3, FAMILIES = 2, PROTOCOLS = 2, PORTS = 12, FIRST_PORT = 21000, PROXY_PORT = 20999 };

static const char TOPOLOGY[] = "subnet s1 10.84.1.0/24 fd84:1::/64\n"
                               "subnet s2 10.84.2.0/24 fd84:2::/64\n"
                               "subnet s3 10.84.3.0/24 fd84:3::/64\n"
                               "host h1 s1\n"
                               "host h2 s2\n"
                               "host h3 s3\n";
static const char *const protocols[PROTOCOLS] = {"tcp", "udp"};

// ------------------------------------------------------------------------------- treatments

enum works { NEVER, MAYBE, ALWAYS };
enum trace {
    CLEAR, // the destination knows what happened, and so do others that probe the same port
    NOISY, // others may be unsure whose packets came
    VAGUE, // the destination knows that something came, and cannot say whose
    ASTRAY // to another port of the destination: has the port been reached? Nothing is judged
};
enum { TCP = 1, UDP = 2, BOTH = 3 };

// $there and $back match packets of the pair and port in either direction, $dest is the
// destination, $third the host that is neither end, and $other a neighbouring port.
struct treatment {
    const char *name;
    unsigned protocols;
    enum works works;
    enum trace trace;
    const char *forward, *prerouting, *postrouting; // rules; NULL: none
    bool proxy;                                     // answers for the destination
};

#define REJECT "reject with icmpx type "

static const struct treatment treatments[] = {
    {"accept", BOTH, ALWAYS, CLEAR, .forward = "$there accept"},
    {"drop", BOTH, NEVER, CLEAR, .forward = "$there drop"},
    {"reset", TCP, NEVER, CLEAR, .forward = "$there reject with tcp reset"},
    {"port unreachable", BOTH, NEVER, CLEAR, .forward = "$there " REJECT "port-unreachable"},
    {"host unreachable", BOTH, NEVER, CLEAR, .forward = "$there " REJECT "host-unreachable"},
    {"prohibited", BOTH, NEVER, CLEAR, .forward = "$there " REJECT "admin-prohibited"},
    {"no route", BOTH, NEVER, CLEAR, .forward = "$there " REJECT "no-route"},
    {"established only", BOTH, NEVER, CLEAR, .forward = "$there ct state new drop"},
    {"replies dropped", BOTH, NEVER, NOISY, .forward = "$back drop"},
    {"replies reset", TCP, NEVER, VAGUE, .forward = "$back reject with tcp reset"},
    {"replies rejected", BOTH, NEVER, VAGUE, .forward = "$back " REJECT "host-unreachable"},
    {"replies prohibited", BOTH, NEVER, VAGUE, .forward = "$back " REJECT "admin-prohibited"},
    {"policed", BOTH, ALWAYS, NOISY,
        .forward = "$there limit rate over 2/second burst 1 packets drop"},
    {"lossy", BOTH, MAYBE, NOISY, .forward = "$there numgen random mod 3 == 0 drop"},
    {"first lost", BOTH, MAYBE, NOISY, .forward = "$there quota until 80 bytes drop"},
    {"first only", BOTH, MAYBE, NOISY, .forward = "$there quota over 100 bytes drop"},
    {"payload dropped", BOTH, MAYBE, NOISY, .forward = "$there meta length > 100 drop"},
    {"masqueraded", BOTH, ALWAYS, NOISY, .postrouting = "$there masquerade"},
    {"masqueraded, replies dropped", BOTH, NEVER, VAGUE, .forward = "$back drop",
        .postrouting = "$there masquerade"},
    {"proxied", TCP, NEVER, CLEAR, .prerouting = "$there redirect to :20999", .proxy = true},
    {"to a closed port", BOTH, NEVER, ASTRAY, .prerouting = "$there dnat $dest:20998"},
    {"to another port", BOTH, NEVER, ASTRAY, .prerouting = "$there dnat $dest:$other"},
    {"no long ones", BOTH, ALWAYS, CLEAR, .forward = "$there meta length > 500 drop"},
    {"nothing invalid", BOTH, ALWAYS, CLEAR, .forward = "$there ct state invalid drop"},
    {"dropped, then reset", TCP, NEVER, CLEAR,
        .forward = "$there limit rate over 30/minute burst 1 packets reject with tcp reset\n"
                   "$there drop"},
    {"one connection", BOTH, MAYBE, NOISY, .forward = "$there ct count over 1 drop"},
    {"some source ports", BOTH, MAYBE, NOISY, .forward = "$there th sport < 48000 drop"},
    {"no acknowledgement", TCP, MAYBE, NOISY,
        .forward = "$there tcp flags & (syn|ack) == ack drop"},
    {"established reset", TCP, MAYBE, NOISY,
        .forward = "$there ct state established reject with tcp reset"},
    {"established rejected", TCP, MAYBE, NOISY,
        .forward = "$there ct state established " REJECT "port-unreachable"},
    {"some reset", TCP, MAYBE, NOISY,
        .forward = "$there numgen random mod 2 == 0 reject with tcp reset"},
    {"some rejected", BOTH, MAYBE, NOISY,
        .forward = "$there numgen random mod 2 == 0 " REJECT "host-unreachable"},
    {"some replies dropped", BOTH, MAYBE, VAGUE, .forward = "$back numgen random mod 2 == 0 drop"},
    {"from another port", BOTH, ALWAYS, NOISY, .postrouting = "$there masquerade random"},
    {"from another port, replies dropped", BOTH, NEVER, VAGUE, .forward = "$back drop",
        .postrouting = "$there masquerade random"},
    {"as the third", BOTH, ALWAYS, NOISY, .postrouting = "$there snat $third"},
    {"as the third, replies dropped", BOTH, NEVER, VAGUE, .forward = "$back drop",
        .postrouting = "$there snat $third"},
};
enum { TREATMENTS = sizeof treatments / sizeof *treatments, CLEAR_ONES = 8 };

// One port of a pair, as the router treats it in one family and as the policy would have it.
struct rule {
    const struct treatment *treatment;
    bool deny;
    double through, back; // packets that the router forwarded, by its own counters
};

struct world {
    mesh_t *mesh;
    unsigned port; // the first of this round
    struct rule rules[FAMILIES][HOSTS][HOSTS][PROTOCOLS][PORTS];
};

struct place {
    unsigned family, from, to, protocol, port;
};

static const struct rule *rule_at(const struct world *world, const struct place *at)
{
    return &world->rules[at->family][at->from][at->to][at->protocol][at->port];
}

#define EACH(from, to, protocol, port)                                                             \
    for (unsigned from = 0; from < HOSTS; from++)                                                  \
        for (unsigned to = 0; to < HOSTS; to++)                                                    \
            for (unsigned protocol = 0; from != to && protocol < PROTOCOLS; protocol++)            \
                for (unsigned port = 0; port < PORTS; port++)

// ------------------------------------------------------------------------------------ drawing

static uint64_t random_state;

// xorshift64*: the same rules for the same seed, everywhere.
static unsigned draw(unsigned below)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (unsigned)((random_state * UINT64_C(2685821657736338717)) >> 33) % below;
}

// Half of the time one that leaves no doubt.
static const struct treatment *draw_treatment(unsigned protocol)
{
    for (;;) {
        const struct treatment *one = &treatments[draw(draw(2) ? TREATMENTS : CLEAR_ONES)];
        if (one->protocols & 1u << protocol)
            return one;
    }
}

// Neighbouring ports often share a treatment, as ranges do.
static void draw_rules(struct world *world)
{
    for (unsigned family = 0; family < FAMILIES; family++)
        EACH(from, to, protocol, port)
        {
            struct rule *rules = world->rules[family][from][to][protocol];
            bool same = port > 0 && draw(4) == 0;
            rules[port].treatment = same ? rules[port - 1].treatment : draw_treatment(protocol);
            rules[port].deny = family ? world->rules[0][from][to][protocol][port].deny : draw(2);
        }
}

// -------------------------------------------------------------------------------- the router

static void address(unsigned family, unsigned host, char text[32])
{
    if (family == 0)
        snprintf(text, 32, "10.84.%u.1", host + 1);
    else
        snprintf(text, 32, "fd84:%u::1", host + 1);
}

// What stands for the words in $ of a treatment's rules.
struct words {
    char there[160], back[224], dest[48], third[48], other[16];
};

static void words_of(const struct world *world, unsigned family, unsigned from, unsigned to,
    unsigned protocol, unsigned port, struct words *words)
{
    const char *ip = family ? "ip6" : "ip";
    char a[32], b[32], c[32];
    address(family, from, a);
    address(family, to, b);
    address(family, 3 - from - to, c);
    snprintf(words->there, sizeof words->there, "%s saddr %s %s daddr %s %s dport %u", ip, a, ip, b,
        protocols[protocol], world->port + port);
    // Where the source is translated, the reply is to the original one again here.
    snprintf(words->back, sizeof words->back,
        "%s saddr %s %s daddr %s meta l4proto %s ct direction reply ct original proto-dst %u", ip,
        b, ip, a, protocols[protocol], world->port + port);
    snprintf(words->dest, sizeof words->dest, family ? "ip6 to [%s]" : "ip to %s", b);
    snprintf(words->third, sizeof words->third, "%s to %s", ip, c);
    snprintf(words->other, sizeof words->other, "%u", world->port + (port ^ 1));
}

static void print_rule(FILE *file, const char *text, const struct words *words)
{
    const struct {
        const char *word, *meaning;
    } table[] = {{"$there", words->there}, {"$back", words->back}, {"$dest", words->dest},
        {"$third", words->third}, {"$other", words->other}};
    while (*text) {
        size_t i = 0, count = sizeof table / sizeof *table;
        while (i < count && strncmp(text, table[i].word, strlen(table[i].word)) != 0)
            i++;
        if (i < count)
            fputs(table[i].meaning, file);
        else
            fputc(*text, file);
        text += i < count ? strlen(table[i].word) : 1;
    }
    fputc('\n', file);
}

static void print_chain(FILE *file, const struct world *world, const char *head, size_t member)
{
    fprintf(file, "%s\n", head);
    for (unsigned family = 0; family < FAMILIES; family++)
        EACH(from, to, protocol, port)
        {
            const struct rule *rule = &world->rules[family][from][to][protocol][port];
            const char *text;
            struct words words;
            memcpy(&text, (const char *)rule->treatment + member, sizeof text);
            words_of(world, family, from, to, protocol, port, &words);
            if (text)
                print_rule(file, text, &words);
        }
    fputs("}\n", file);
}

// Behind all rules: what leaves towards the destination, by the connection's first packet, and what
// comes back. The names are read again below.
static void print_counters(FILE *file, const struct world *world)
{
    for (int pass = 0; pass < 2; pass++) {
        if (pass)
            fputs("chain truth { type filter hook postrouting priority 350;\n", file);
        for (unsigned family = 0; family < FAMILIES; family++)
            EACH(from, to, protocol, port)
            {
                const char *ip = family ? "ip6" : "ip";
                char a[32], b[32];
                address(family, from, a);
                address(family, to, b);
                for (int back = 0; back < 2; back++) {
                    if (pass)
                        fprintf(file,
                            "ct original %s saddr %s ct original %s daddr %s meta l4proto %s "
                            "ct original proto-dst %u ct direction %s counter name ",
                            ip, a, ip, b, protocols[protocol], world->port + port,
                            back ? "reply" : "original");
                    fprintf(file, "%sc_%u_%u_%u_%u_%u_%d%s\n", pass ? "" : "counter ", family, from,
                        to, protocol, port, back, pass ? "" : " { }");
                }
            }
    }
    fputs("}\n", file);
}

static void load_rules(struct world *world)
{
    char path[128];
    snprintf(path, sizeof path, "%s/rules.nft", mesh_dir(world->mesh));
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("table inet rules {}\ndelete table inet rules\ntable inet rules {\n", file);
    print_counters(file, world);
    print_chain(file, world, "chain forward { type filter hook forward priority 0;",
        offsetof(struct treatment, forward));
    print_chain(file, world, "chain pre { type nat hook prerouting priority -100;",
        offsetof(struct treatment, prerouting));
    print_chain(file, world, "chain post { type nat hook postrouting priority 100;",
        offsetof(struct treatment, postrouting));
    fputs("}\n", file);
    assert_int_equal(fclose(file), 0);
    free(mesh_exec(world->mesh, "router", "nft -f $DIR/rules.nft"));
}

static void read_counters(struct world *world)
{
    char *text = mesh_exec(world->mesh, "router", "nft -j list counters table inet rules");
    json_t *document = json_loads(text, 0, NULL), *entry;
    size_t index, found = 0;
    assert_non_null(document);
    json_array_foreach(json_object_get(document, "nftables"), index, entry)
    {
        json_t *counter = json_object_get(entry, "counter");
        unsigned f, a, b, p, n, back;
        if (!counter ||
            sscanf(text_at(counter, "name"), "c_%u_%u_%u_%u_%u_%u", &f, &a, &b, &p, &n, &back) != 6)
            continue;
        struct rule *rule = &world->rules[f][a][b][p][n];
        *(back ? &rule->back : &rule->through) = number_at(counter, "packets");
        found++;
    }
    assert_int_equal(found, FAMILIES * HOSTS * (HOSTS - 1) * PROTOCOLS * PORTS * 2);
    json_decref(document);
    free(text);
}

// -------------------------------------------------------------------------------- the policy

static void print_verb(FILE *file, const struct world *world, unsigned from, unsigned to, bool deny)
{
    const char *separator = "";
    fprintf(file, "  - {name: h%u %s h%u, from: g%u, to: g%u, %s: [", from + 1,
        deny ? "not to" : "to", to + 1, from + 1, to + 1, deny ? "deny" : "allow");
    for (unsigned protocol = 0; protocol < PROTOCOLS; protocol++)
        for (unsigned port = 0; port < PORTS; port++)
            if (world->rules[0][from][to][protocol][port].deny == deny) {
                fprintf(file, "%s%s/%u", separator, protocols[protocol], world->port + port);
                separator = ", ";
            }
    fputs(*separator ? "]}\n" : "tcp/1]}\n", file);
}

static void write_policy(const struct world *world)
{
    char path[128];
    snprintf(path, sizeof path, "%s/rules.yaml", mesh_dir(world->mesh));
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("policy: drawn\ngroups:\n", file);
    for (unsigned host = 0; host < HOSTS; host++)
        fprintf(file, "  g%u: {agents: h%u}\n", host + 1, host + 1);
    fputs("defaults: {attempts: 2, timeout: 2s}\nrules:\n", file);
    for (unsigned from = 0; from < HOSTS; from++)
        for (unsigned to = 0; to < HOSTS; to++)
            for (int deny = 0; from != to && deny < 2; deny++)
                print_verb(file, world, from, to, deny);
    assert_int_equal(fclose(file), 0);
}

// ------------------------------------------------------------------------------------ judging

// Whether the destination may be unsure: because of what this rule does, of what another does that
// leads to the same TCP port, or of a service that has it. UDP has the nonce in its first packet.
static bool may_be_unsure(const struct world *world, const struct place *at, json_t *check)
{
    const struct treatment *own = rule_at(world, at)->treatment;
    if (strcmp(text_at(check, "listener"), "service") == 0 || own->trace == ASTRAY)
        return true;
    // The machine stood still for seconds.
    if (strstr(text_at(check, "evidence"), "closed before the probes ended"))
        return true;
    for (unsigned from = 0; at->protocol == 0 && from < HOSTS; from++) {
        struct place same = *at, other = *at;
        same.from = other.from = from;
        other.port ^= 1;
        if (from != at->to && ((from != at->from && rule_at(world, &same)->treatment->trace) ||
                                  rule_at(world, &other)->treatment->trace == ASTRAY))
            return true;
    }
    return at->protocol == 0 && own->trace == VAGUE;
}

// Whether the neighbouring port's packets come to this rule too, and take their part of what a
// policer leaves.
static bool shares_its_rule(const struct world *world, const struct place *at)
{
    struct place other = *at;
    other.port ^= 1;
    return rule_at(world, &other)->treatment->trace == ASTRAY;
}

// NULL: the verdict and the counters agree.
static const char *disagreement(const struct world *world, const struct place *at, json_t *check)
{
    const struct rule *rule = rule_at(world, at);
    const struct treatment *treatment = rule->treatment;
    const char *verdict = text_at(check, "verdict");
    if (strcmp(verdict, "not_tested") == 0) {
        if (!*text_at(check, "evidence"))
            return "not tested, and no reason";
        return may_be_unsure(world, at, check) ? NULL : "not tested, although both ends know";
    }
    if (treatment->trace == ASTRAY)
        return NULL;
    bool held = strcmp(verdict, "held") == 0;
    if (rule->deny && held && rule->through > 0)
        return "a denial holds, and packets went through";
    if (rule->deny && !held && rule->through == 0 && !treatment->proxy)
        return "a denial is broken, and nothing went through";
    if (!rule->deny && held && rule->through == 0 && !treatment->proxy)
        return "an allowance holds, and nothing went through";
    if (!rule->deny && !held && treatment->works == ALWAYS && !shares_its_rule(world, at))
        return "an allowance is broken, and it works";
    return NULL;
}

static unsigned judge(const struct world *world, unsigned family, json_t *document)
{
    size_t index, judged = 0;
    unsigned wrong = 0;
    json_t *check;
    json_array_foreach(json_object_get(document, "checks"), index, check)
    {
        const char *port = text_at(check, "port");
        struct place at = {family, (unsigned)atoi(text_at(check, "from") + 1) - 1,
            (unsigned)atoi(text_at(check, "to") + 1) - 1, port[0] == 'u',
            (unsigned)atoi(port + 4) - world->port};
        if (at.port >= PORTS)
            continue;
        const struct rule *rule = rule_at(world, &at);
        const char *what = disagreement(world, &at, check);
        judged++;
        if (!what)
            continue;
        char *text = json_dumps(check, JSON_COMPACT);
        print_error("-%c, %s: %s; %g packets went through, %g came back: %s\n", family ? '6' : '4',
            rule->treatment->name, what, rule->through, rule->back, text);
        free(text);
        wrong++;
    }
    assert_int_equal(judged, HOSTS * (HOSTS - 1) * PROTOCOLS * PORTS);
    return wrong;
}

static unsigned round_of(struct world *world)
{
    unsigned wrong = 0;
    draw_rules(world);
    write_policy(world);
    for (unsigned family = 0; family < FAMILIES; family++) {
        int status;
        load_rules(world);
        json_t *document =
            mesh_json(world->mesh, &status, 120, "check -%c $DIR/rules.yaml", family ? '6' : '4');
        read_counters(world);
        wrong += judge(world, family, document);
        json_decref(document);
    }
    return wrong;
}

static unsigned number_from(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static void no_verdict_contradicts_the_routers_counters(void **state)
{
    struct world *world = *state;
    unsigned seed = number_from("MESHPERF_RULES_SEED", 20);
    unsigned rounds = number_from("MESHPERF_RULES_ROUNDS", 3), wrong = 0;
    for (unsigned i = 0; i < rounds; i++) {
        random_state = UINT64_C(0x9e3779b97f4a7c15) * (seed + i + 1);
        // Ports of its own: the router still knows connections of the last round.
        world->port = FIRST_PORT + i % 1000 * PORTS;
        unsigned here = round_of(world);
        print_message("seed %u: %u disagreements\n", seed + i, here);
        wrong += here;
    }
    assert_int_equal(wrong, 0);
}

// ---------------------------------------------------------------------------------------- life

static void start_service(mesh_t *mesh, const char *host, unsigned port)
{
    struct outcome made = mesh_shell(mesh, 10,
        "$LAB exec %s setsid -f bash -c 'exec %s/service %u >$DIR/service.%s.%u 2>&1 </dev/null'",
        host, MESHPERF_BIN_DIR, port, host, port);
    assert_int_equal(made.status, 0);
    outcome_release(&made);
    mesh_wait_until(mesh, 10, "grep -q ready $DIR/service.%s.%u", host, port);
}

static int bring_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    *state = world;
    world->mesh = mesh_up(TOPOLOGY, "");
    start_service(world->mesh, "router", PROXY_PORT);
    // Real services at some of the first round's ports.
    start_service(world->mesh, "h1", FIRST_PORT + 2);
    start_service(world->mesh, "h2", FIRST_PORT + 5);
    return 0;
}

static int take_down(void **state)
{
    struct world *world = *state;
    mesh_down(&world->mesh);
    free(world);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_verdict_contradicts_the_routers_counters),
    };
    return cmocka_run_group_tests(tests, bring_up, take_down);
}
