// The limiter's verdict on cases in which the limit is known because it was put there: a shaped
// link, a policer, loss, a starved host, small buffers, a rate asked for. Prints each case that is
// judged otherwise, and the confusion matrix.
//
//     bench_limiter [--case WORDS] [--drawn N [--seed N]] [--json FILE]
//
// --drawn: instead of the scenes that the rules were calibrated on, N of each kind whose rates,
// delays, sizes and counts are drawn by the seed.
//
// Sender s on the first core, receiver r on the last; all links pass the router, whose port to r is
// port2. Needs root for control groups and an own core for each host.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

static const char topology[] = "subnet lim 10.98.1.0/24\nhost s lim\nhost r lim\n";

// Shell functions for the scenes below.
static const char functions[] =
    "link() { $LAB exec router tc qdisc replace dev port2 root \"$@\"; };"
    "clear_link() { $LAB exec router tc qdisc del dev port2 root; };"
    "rules() { printf 'table netdev lim {\\nchain in {\\ntype filter hook egress device port2"
    " priority 0;\\n%s\\n}\\n}\\n' \"$1\" | $LAB exec router nft -f -; };"
    "clear_rules() { $LAB exec router nft delete table netdev lim; };"
    "setting() { h=$1; shift; $LAB exec $h sysctl -qw \"$@\"; };"
    "pid() { cat $DIR/agents/$1/pid; };"
    "pin() { $LAB exec $1 taskset -a -cp $2 $(pid $1) >/dev/null; };"
    "group() { if [ -d /sys/fs/cgroup/cpu ]; then echo /sys/fs/cgroup/cpu/meshperf-lim; else echo "
    "/sys/fs/cgroup/meshperf-lim; fi; };"
    "quota() { mkdir -p $(group); if [ -e $(group)/cpu.max ]; then echo \"$2 10000\""
    " >$(group)/cpu.max; else echo 10000 >$(group)/cpu.cfs_period_us; echo $2"
    " >$(group)/cpu.cfs_quota_us; fi; $LAB exec $1 sh -c \"echo $(pid $1) "
    ">$(group)/cgroup.procs\"; };"
    "free_quota() { $LAB exec $1 sh -c \"echo $(pid $1) >$(dirname $(group))/cgroup.procs\"; rmdir"
    " $(group); };"
    "shape() { link handle 1: htb default 1 && $LAB exec router tc class add dev port2 parent 1:"
    " classid 1:1 htb \"$@\"; };"
    "hogs() { for i in $(seq $3); do $LAB exec $1 setsid -f sh -c \"echo \\$\\$ >>$DIR/hogs; exec"
    " timeout 30 taskset -c $2 sh -c 'while :; do :; done'\"; done; };"
    "free_hogs() { $LAB exec s kill $(cat $DIR/hogs); rm $DIR/hogs; };"
    "last=$(($(nproc) - 1));";

// Where `bites` is set a case counts only if it is slower by two fifths than the same test was
// without the provocation: what does not slow a test down does not limit it, and rates without any
// limit vary by a third on a shared machine.
#define BITES 0.6

struct scene {
    const char *name, *expected; // verdicts that are right, separated by blanks
    const char *begin, *end;     // shell
    const char *tests;           // arguments of meshperf run, each line a case
    bool bites;
};

// Its shell and its tests have $A and $B in them: drawn evenly over their logarithms.
struct drawn {
    struct scene scene;
    unsigned a[2], b[2];
};

#define SHAPED(rate)                                                                               \
    {                                                                                              \
        "link of " rate, "network", "link tbf rate " rate " burst 64k latency 20ms", "clear_link", \
            "tcp\ntcp -P 4\nudp -b max", false                                                     \
    }
#define POLICED(rate, words)                                                                       \
    {                                                                                              \
        "policer of " words, "network", "rules 'limit rate over " rate " burst 64 kbytes drop'",   \
            "clear_rules", "tcp\ntcp -P 4", false                                                  \
    }
#define LOSING(percent, per)                                                                       \
    {                                                                                              \
        "link of 100mbit losing " percent, "network",                                              \
            "link tbf rate 100mbit burst 64k latency 20ms; rules 'numgen random mod 1000 < " per   \
            " drop'",                                                                              \
            "clear_link; clear_rules", "tcp", false                                                \
    }
#define DEEP(rate, limit)                                                                          \
    {                                                                                              \
        "link of " rate ", queue of " limit, "network",                                            \
            "link tbf rate " rate " burst 64k limit " limit, "clear_link", "tcp\ntcp -P 2", false  \
    }
#define BURST(rate, burst)                                                                         \
    {                                                                                              \
        "link of " rate " after " burst, "network",                                                \
            "link tbf rate " rate " burst " burst " latency 20ms", "clear_link", "tcp -t 3s",      \
            false                                                                                  \
    }
#define WINDOW(bytes)                                                                              \
    {                                                                                              \
        "receive buffer of " bytes, "receive_window",                                              \
            "setting r net.ipv4.tcp_rmem='4096 " bytes " " bytes "'", USUAL_BUFFERS,               \
            "tcp\ntcp -P 2", true                                                                  \
    }
#define BUFFER(bytes)                                                                              \
    {                                                                                              \
        "send buffer of " bytes, "send_buffer",                                                    \
            "setting s net.ipv4.tcp_wmem='4096 " bytes " " bytes "'", USUAL_BUFFERS,               \
            "tcp\ntcp -P 2", true                                                                  \
    }
#define USUAL_BUFFERS                                                                              \
    "setting r net.ipv4.tcp_rmem='4096 131072 6291456'; setting s net.ipv4.tcp_wmem='4096 16384 "  \
    "4194304'"
// netem: in a guest kernel only (tests/testbed/guest).
#define DELAYED(words, host, setting, verdict)                                                     \
    {                                                                                              \
        words " over a delay of 20 ms", verdict,                                                   \
            "link netem delay 20ms limit 10000 && setting " host " " setting,                      \
            "clear_link; " USUAL_BUFFERS, "tcp\ntcp -P 2", true                                    \
    }
#define STARVED(side, host, us, verdict)                                                           \
    {                                                                                              \
        side " with " us " of 10000 us", verdict, "quota " host " " us, "free_quota " host,        \
            "tcp\ntcp -P 2\nudp -b 2G", true                                                       \
    }
#define HOGGED(side, host, core, count, verdict)                                                   \
    {                                                                                              \
        side " beside " count " hogs", verdict, "hogs " host " " core " " count, "free_hogs",      \
            "tcp\ntcp -P 2\nudp -b 2G", true                                                       \
    }

static const struct scene scenes[] = {
    SHAPED("7300kbit"),
    SHAPED("37mbit"),
    SHAPED("100mbit"),
    SHAPED("317mbit"),
    SHAPED("1gbit"),
    POLICED("1250 kbytes/second", "10mbit"),
    POLICED("11300 kbytes/second", "90mbit"),
    POLICED("62500 kbytes/second", "500mbit"),
    LOSING("0.3 %", "3"),
    LOSING("2.7 %", "27"),
    LOSING("1 %", "10"),
    LOSING("5 %", "50"),
    DEEP("20mbit", "500kb"),
    DEEP("130mbit", "1mb"),
    DEEP("300mbit", "4mb"),
    BURST("50mbit", "10mb"),
    BURST("200mbit", "30mb"),
    WINDOW("4096"),
    WINDOW("8192"),
    WINDOW("16384"),
    BUFFER("4608"),
    BUFFER("9216"),
    BUFFER("18432"),
    DELAYED("receive buffer of 48K", "r", "net.ipv4.tcp_rmem='4096 49152 49152'", "receive_window"),
    DELAYED(
        "receive buffer of 200K", "r", "net.ipv4.tcp_rmem='4096 204800 204800'", "receive_window"),
    DELAYED("send buffer of 40K", "s", "net.ipv4.tcp_wmem='4096 40960 40960'", "send_buffer"),
    DELAYED("send buffer of 150K", "s", "net.ipv4.tcp_wmem='4096 153600 153600'", "send_buffer"),
    STARVED("sender", "s", "1000", "sender_cpu"),
    STARVED("sender", "s", "1500", "sender_cpu"),
    STARVED("sender", "s", "2000", "sender_cpu"),
    STARVED("receiver", "r", "2000", "receiver_cpu"),
    STARVED("receiver", "r", "1000", "receiver_cpu"),
    STARVED("receiver", "r", "1500", "receiver_cpu"),
    HOGGED("sender", "s", "0", "4", "sender_cpu"),
    HOGGED("sender", "s", "0", "9", "sender_cpu"),
    HOGGED("receiver", "r", "$last", "9", "receiver_cpu"),
    HOGGED("receiver", "r", "$last", "19", "receiver_cpu"),
    {"link of 50mbit, receiver beside 9 hogs", "network",
        "link tbf rate 50mbit burst 64k latency 50ms; hogs r $last 9", "clear_link; free_hogs",
        "tcp\ntcp -P 2", false},
    {"link of 50mbit, sender beside 9 hogs", "network",
        "link tbf rate 50mbit burst 64k latency 50ms; hogs s 0 9", "clear_link; free_hogs",
        "tcp\ntcp -P 2", false},
    {"a rate asked for", "bitrate", ":", ":",
        "tcp -b 5M\ntcp -b 50M\ntcp -b 500M\ntcp -b 50M -P 4\nudp -b 1M\nudp -b 50M\nudp -b 200M",
        false},
    {"more asked for than the link", "network", "link tbf rate 50mbit burst 64k latency 20ms",
        "clear_link", "tcp -b 60M\ntcp -b 1G\nudp -b 60M\nudp -b 300M", false},
    {"nothing in the way", "sender_cpu receiver_cpu", ":", ":", "tcp\ntcp -P 2\ntcp -P 4", false},
};

#define ALL_TESTS "tcp\ntcp -P 3\nudp -b max"

static const struct drawn drawn[] = {
    {{"tbf of $A kbit, burst of $B bytes", "network",
         "link tbf rate ${A}kbit burst $B latency 30ms", "clear_link", ALL_TESTS, false},
        {5000, 800000}, {20000, 200000}},
    {{"htb of $A kbit, queue of $B bytes", "network",
         "shape rate ${A}kbit && $LAB exec router tc qdisc add dev port2 parent 1:1 bfifo limit $B",
         "clear_link", ALL_TESTS, false},
        {5000, 800000}, {70000, 600000}},
    {{"policer of $A kbytes/second, burst of $B kbytes", "network",
         "rules \"limit rate over $A kbytes/second burst $B kbytes drop\"", "clear_rules",
         "tcp\ntcp -P 3", false},
        {700, 80000}, {32, 512}},
    {{"link of $A kbit losing $B of 10000", "network",
         "link tbf rate ${A}kbit burst 64k latency 30ms; rules \"numgen random mod 10000 < $B "
         "drop\"",
         "clear_link; clear_rules", "tcp\ntcp -P 3", false},
        {20000, 300000}, {10, 600}},
    {{"link of $A kbit, queue of $B kbytes", "network",
         "link tbf rate ${A}kbit burst 64k limit ${B}kb", "clear_link", "tcp\ntcp -P 2", false},
        {10000, 400000}, {300, 8000}},
    {{"link of $A kbit, $B of 1000 segments marked", "network",
         "setting s net.ipv4.tcp_ecn=1; link tbf rate ${A}kbit burst 64k latency 50ms; "
         "rules \"ip ecn != not-ect numgen random mod 1000 < $B ip ecn set ce\"",
         "clear_link; clear_rules; setting s net.ipv4.tcp_ecn=2", "tcp -4", false},
        {20000, 300000}, {15, 100}},
    {{"receive buffer of $A", "receive_window", "setting r net.ipv4.tcp_rmem=\"4096 $A $A\"",
         USUAL_BUFFERS, "tcp\ntcp -P 2", true},
        {4096, 30000}, {1, 1}},
    {{"send buffer of $A", "send_buffer", "setting s net.ipv4.tcp_wmem=\"4096 $A $A\"",
         USUAL_BUFFERS, "tcp\ntcp -P 2", true},
        {4608, 30000}, {1, 1}},
    {{"sender with $A of 10000 us", "sender_cpu", "quota s $A", "free_quota s",
         "tcp\ntcp -P 2\nudp -b 2G", true},
        {1000, 4000}, {1, 1}},
    {{"receiver with $A of 10000 us", "receiver_cpu", "quota r $A", "free_quota r",
         "tcp\ntcp -P 2\nudp -b 2G", true},
        {1000, 4000}, {1, 1}},
    {{"sender beside $A hogs", "sender_cpu", "hogs s 0 $A", "free_hogs", "tcp\ntcp -P 2\nudp -b 2G",
         true},
        {4, 20}, {1, 1}},
    {{"receiver beside $A hogs", "receiver_cpu", "hogs r $last $A", "free_hogs",
         "tcp\ntcp -P 2\nudp -b 2G", true},
        {4, 20}, {1, 1}},
    {{"link of $A kbit, receiver beside $B hogs", "network",
         "link tbf rate ${A}kbit burst 64k latency 50ms; hogs r $last $B", "clear_link; free_hogs",
         "tcp", false},
        {5000, 80000}, {2, 12}},
    {{"$A kbit/s asked for", "bitrate", ":", ":", "tcp -b ${A}K\ntcp -P 3 -b ${A}K\nudp -b ${A}K",
         false},
        {1000, 400000}, {1, 1}},
    {{"$A kbit/s asked of $B kbit/s", "network", "link tbf rate ${B}kbit burst 64k latency 20ms",
         "clear_link", "tcp -b ${A}K\nudp -b ${A}K", false},
        {120000, 1000000}, {10000, 90000}},
    // netem: in a guest kernel only, as above.
    {{"receive buffer of $A over a delay of $B ms", "receive_window",
         "link netem delay ${B}ms limit 10000 && setting r net.ipv4.tcp_rmem=\"4096 $A $A\"",
         "clear_link; " USUAL_BUFFERS, "tcp\ntcp -P 2", true},
        {40000, 200000}, {10, 100}},
    {{"send buffer of $A over a delay of $B ms", "send_buffer",
         "link netem delay ${B}ms limit 10000 && setting s net.ipv4.tcp_wmem=\"4096 $A $A\"",
         "clear_link; " USUAL_BUFFERS, "tcp\ntcp -P 2", true},
        {20000, 200000}, {10, 100}},
    {{"delay of $B ms, $A kbit", "network", "link netem delay ${B}ms rate ${A}kbit limit 100",
         "clear_link", "tcp -t 3s\ntcp -P 2 -t 3s", false},
        {3000, 20000}, {10, 100}},
    {{"delay of $B ms, losing $A of 10000", "network",
         "link netem delay ${B}ms loss $(printf %d.%02d $((A / 100)) $((A % 100)))% rate 20mbit "
         "limit 1000",
         "clear_link", "tcp -t 3s\ntcp -P 2 -t 3s", false},
        {20, 500}, {10, 100}},
};

static const char *const verdicts[] = {
    "network", "sender_cpu", "receiver_cpu", "send_buffer", "receive_window", "bitrate", "unknown"};
#define VERDICTS (sizeof verdicts / sizeof *verdicts)

static struct options {
    const char *only, *json;
    unsigned drawn, seed;
} options = {"", NULL, 0, 1};

struct tally {
    unsigned confusion[VERDICTS][VERDICTS], cases, right, without_bite;
    json_t *list;
    json_t *unprovoked; // bandwidth of each test
    char name[128];     // of the scene, with what was drawn
};

static size_t verdict_index(const char *word, size_t length)
{
    for (size_t i = 0; i < VERDICTS; i++)
        if (strlen(verdicts[i]) == length && strncmp(verdicts[i], word, length) == 0)
            return i;
    return VERDICTS - 1;
}

static void count_case(
    struct tally *tally, const struct scene *scene, const char *test, json_t *cell)
{
    const char *verdict = text_at(cell, "limiter.verdict");
    bool right = strstr(scene->expected, verdict) != NULL;
    size_t column = verdict_index(verdict, strlen(verdict));
    // Where two verdicts are right the one that was given is the truth.
    size_t row = right ? column : verdict_index(scene->expected, strcspn(scene->expected, " "));
    tally->confusion[row][column]++;
    tally->cases++;
    tally->right += right;
    if (!right)
        printf("%s, %s: %s (%s), not %s\n", tally->name, test, verdict,
            text_at(cell, "limiter.evidence"), scene->expected);
    fflush(stdout);
    json_t *limiter = json_deep_copy(json_object_get(cell, "limiter"));
    json_array_append_new(
        tally->list, json_pack("{s:s, s:s, s:s, s:b, s:f, s:o, s:o?}", "scene", tally->name, "test",
                         test, "expected", scene->expected, "right", right, "bandwidth_bps",
                         number_at(cell, "bandwidth_bps"), "limiter", limiter, "bucket",
                         json_deep_copy(json_object_get(cell, "bucket"))));
}

// The caller's run; cell is in it, and NULL unless it is ok.
static json_t *measure(mesh_t *mesh, const char *test, json_t **cell)
{
    int status;
    json_t *run = mesh_json(mesh, &status, 60, "-q run %s%s --from s --to r", test,
        strstr(test, "-t ") ? "" : " -t 1s");
    char kind[4] = "";
    snprintf(kind, sizeof kind, "%s", test);
    *cell = cell_of(run, kind, "s", "r");
    if (strcmp(text_at(*cell, "state"), "ok") != 0) {
        printf("%s: %s\n", test, text_at(*cell, "reason"));
        *cell = NULL;
    }
    return run;
}

static void measure_unprovoked(mesh_t *mesh, struct tally *tally, const char *test)
{
    json_t *cell;
    if (json_object_get(tally->unprovoked, test))
        return;
    json_t *run = measure(mesh, test, &cell);
    double bps = cell ? number_at(cell, "bandwidth_bps") : 0;
    json_object_set_new(tally->unprovoked, test, json_real(bps));
    json_decref(run);
}

static void judge(mesh_t *mesh, struct tally *tally, const struct scene *scene, const char *test)
{
    json_t *cell, *run = measure(mesh, test, &cell);
    double before = json_number_value(json_object_get(tally->unprovoked, test));
    if (cell && scene->bites && number_at(cell, "bandwidth_bps") > BITES * before) {
        printf("%s, %s: as fast as without\n", tally->name, test);
        tally->without_bite++;
    } else if (cell) {
        count_case(tally, scene, test, cell);
    }
    json_decref(run);
}

static void each_test(mesh_t *mesh, struct tally *tally, const struct scene *scene, bool provoked)
{
    char tests[512];
    snprintf(tests, sizeof tests, "%s", scene->tests);
    for (char *test = strtok(tests, "\n"); test; test = strtok(NULL, "\n"))
        if (provoked)
            judge(mesh, tally, scene, test);
        else
            measure_unprovoked(mesh, tally, test);
}

static unsigned between(const unsigned range[2])
{
    double share = (double)rand() / RAND_MAX;
    return (unsigned)(range[0] * pow((double)range[1] / range[0], share));
}

// Leaves them in the shell's environment.
static void draw(struct tally *tally, const struct drawn *from)
{
    unsigned values[] = {between(from->a), between(from->b)};
    for (unsigned i = 0; i < 2; i++) {
        char name[2] = {(char)('A' + i)}, text[12];
        snprintf(text, sizeof text, "%u", values[i]);
        setenv(name, text, 1);
    }
    snprintf(
        tally->name, sizeof tally->name, "%s (%u, %u)", from->scene.name, values[0], values[1]);
}

static void play(mesh_t *mesh, struct tally *tally, const struct scene *scene)
{
    if (scene->bites)
        each_test(mesh, tally, scene, false);
    struct outcome begun = mesh_shell(mesh, 30, "%s %s", functions, scene->begin);
    if (begun.status == 0)
        each_test(mesh, tally, scene, true);
    else
        printf("%s: left out: %s\n", tally->name, begun.err);
    outcome_release(&begun);
    struct outcome ended = mesh_shell(mesh, 30, "%s %s", functions, scene->end);
    outcome_release(&ended);
}

static void play_all(mesh_t *mesh, struct tally *tally)
{
    for (size_t i = 0; !options.drawn && i < sizeof scenes / sizeof *scenes; i++) {
        snprintf(tally->name, sizeof tally->name, "%s", scenes[i].name);
        if (strstr(tally->name, options.only))
            play(mesh, tally, &scenes[i]);
    }
    srand(options.seed);
    for (size_t i = 0; options.drawn && i < sizeof drawn / sizeof *drawn; i++)
        for (unsigned k = 0; k < options.drawn; k++) {
            draw(tally, &drawn[i]);
            if (strstr(tally->name, options.only))
                play(mesh, tally, &drawn[i].scene);
        }
}

static void print_matrix(const struct tally *tally)
{
    printf("\n%-16s", "provoked \\ said");
    for (size_t i = 0; i < VERDICTS; i++)
        printf(" %14s", verdicts[i]);
    for (size_t i = 0; i < VERDICTS; i++) {
        printf("\n%-16s", verdicts[i]);
        for (size_t k = 0; k < VERDICTS; k++)
            printf(" %14u", tally->confusion[i][k]);
    }
    printf("\n%u of %u cases right; %u did not slow the test down and are left out\n", tally->right,
        tally->cases, tally->without_bite);
}

static void known_limits(void **state)
{
    (void)state;
    struct tally tally = {.list = json_array(), .unprovoked = json_object()};
    mesh_t *mesh = mesh_up(topology, "");
    struct outcome pinned = mesh_shell(mesh, 30, "%s pin s 0 && pin r $last", functions);
    assert_int_equal(pinned.status, 0);
    outcome_release(&pinned);
    play_all(mesh, &tally);
    mesh_down(&mesh);
    print_matrix(&tally);
    if (options.json)
        assert_int_equal(json_dump_file(tally.list, options.json, JSON_INDENT(1)), 0);
    json_decref(tally.list);
    json_decref(tally.unprovoked);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--case") == 0) {
            options.only = argv[i + 1];
        } else if (i + 1 < argc && strcmp(argv[i], "--json") == 0) {
            options.json = argv[i + 1];
        } else if (i + 1 < argc && strcmp(argv[i], "--drawn") == 0) {
            options.drawn = (unsigned)atoi(argv[i + 1]);
        } else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0) {
            options.seed = (unsigned)atoi(argv[i + 1]);
        } else {
            fprintf(stderr, "usage: bench_limiter [--case WORDS] [--drawn N [--seed N]] "
                            "[--json FILE]\n");
            return 2;
        }
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
