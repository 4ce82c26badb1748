// The engine beside iperf3 on one link, in turn, and the goals that it is built to reach:
//
//     bench_engine [--iperf3 PATH] [--rounds N] [--case WORDS] [--json FILE]
//
// Two hosts with a direct veth between them, and one behind a bridge whose port is shaped to 100
// Mbit/s. What is reported are medians and ratios of rounds in which every contestant has its turn:
// machines are shared and noisy. CPU seconds are those of both ends' test threads (iperf3: its
// processes). --case: only the groups whose name has these words in it.
//
//     bench_engine sniff INTERFACE PAYLOAD      (used by the above: sniff.h)

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mesh.h"
#include "meshtest.h"
#include "sniff.h"

#define ROUNDS_MAX 25
#define SNIFF_S 20
#define LOSS_MAX 0.001 // of a round in which packets per CPU-second count
#define LESS 0.85      // of a rate at which more was lost
#define TRIES 6

static const char topology[] = "subnet bench 10.97.1.0/24\nhost h1 bench\nhost h2 bench\n"
                               "host slow bench rate=100mbit\nhost far bench\n";

// ------------------------------------------------------------------------ who takes part

enum maker { OURS, THEIRS };

struct contestant {
    const char *group, *name;
    enum maker maker;
    const char *arguments; // of `meshperf run`, of `iperf3 -c`
    const char *needs;     // an option that this iperf3 must know
    bool behind_bridge;    // from "far" to "slow" instead of from h1 to h2
    const char *under;     // a command that runs h1's agent
    unsigned sniffed;      // UDP payload to look for on the link; 0: none
    bool held;             // to the highest -b at which it loses less than LOSS_MAX
};

#define BEST "-Z --skip-rx-copy -l 1M"
#define SKIP "--skip-rx-copy"

static const struct contestant contestants[] = {
    {.group = "tcp 1", .name = "tcp", .arguments = "tcp -t 2s"},
    {.group = "tcp 1", .name = "tcp: default", .maker = THEIRS, .arguments = "-t 2 -O 1"},
    {.group = "tcp 1",
        .name = "tcp: best flags",
        .maker = THEIRS,
        .arguments = "-t 2 -O 1 " BEST,
        .needs = SKIP},
    {.group = "tcp 4", .name = "tcp 4", .arguments = "tcp -P 4 -t 2s"},
    {.group = "tcp 4", .name = "tcp 4: default", .maker = THEIRS, .arguments = "-P 4 -t 2 -O 1"},
    {.group = "tcp 4",
        .name = "tcp 4: best flags",
        .maker = THEIRS,
        .arguments = "-P 4 -t 2 -O 1 " BEST,
        .needs = SKIP},
    {.group = "udp 1400", .name = "udp 1400", .arguments = "udp -b max --length 1400 -t 2s"},
    {.group = "udp 1400",
        .name = "udp 1400, one a packet",
        .arguments = "udp -b max --length 1400 -t 2s",
        .under = "$BIN/without segment --"},
    {.group = "udp 1400",
        .name = "udp 1400: default",
        .maker = THEIRS,
        .arguments = "-u -b 0 -l 1400 -t 2"},
    {.group = "udp 1400",
        .name = "udp 1400: gsro",
        .maker = THEIRS,
        .arguments = "-u -b 0 -l 1400 -t 2 --gsro",
        .needs = "--gsro"},
    {.group = "udp 1400",
        .name = "udp 1400: gsro, held",
        .maker = THEIRS,
        .arguments = "-u -l 1400 -t 2 --gsro",
        .needs = "--gsro",
        .held = true},
    {.group = "udp 64", .name = "udp 64", .arguments = "udp -b max --length 64 -t 2s"},
    {.group = "udp 64",
        .name = "udp 64: default",
        .maker = THEIRS,
        .arguments = "-u -b 0 -l 64 -t 2"},
    {.group = "udp 64",
        .name = "udp 64: gsro",
        .maker = THEIRS,
        .arguments = "-u -b 0 -l 64 -t 2 --gsro",
        .needs = "--gsro"},
    {.group = "udp 64",
        .name = "udp 64: gsro, held",
        .maker = THEIRS,
        .arguments = "-u -l 64 -t 2 --gsro",
        .needs = "--gsro",
        .held = true},
    {.group = "pace 100M",
        .name = "pace 100M",
        .arguments = "udp -b 100M --length 1400 -t 2s",
        .sniffed = 1400},
    {.group = "pace 100M",
        .name = "pace 100M: iperf3",
        .maker = THEIRS,
        .arguments = "-u -b 100M -l 1400 -t 2",
        .sniffed = 1400},
    {.group = "pace 1G",
        .name = "pace 1G",
        .arguments = "udp -b 1G --length 1400 -t 2s",
        .sniffed = 1400},
    {.group = "pace 1G",
        .name = "pace 1G, one core",
        .arguments = "udp -b 1G --length 1400 -t 2s",
        .under = "taskset -c 0",
        .sniffed = 1400},
    {.group = "pace 1G",
        .name = "pace 1G: iperf3",
        .maker = THEIRS,
        .arguments = "-u -b 1G -l 1400 -t 2",
        .sniffed = 1400},
    {.group = "latency", .name = "latency", .arguments = "latency -t 2s"},
    {.group = "truth",
        .name = "loss",
        .arguments = "udp -b 50M --length 1000 -t 2s",
        .behind_bridge = true},
    {.group = "truth", .name = "shaped", .arguments = "tcp -t 3s", .behind_bridge = true},
};
#define CONTESTANTS (sizeof contestants / sizeof *contestants)

// What one of them did in one round; NAN: not measured.
struct figures {
    double bandwidth_bps, packets_per_s, loss_ratio;
    double cores, sender_cores; // both ends together; the sender
    double gap_error_s;         // p99, sniffed
    double rtt_s;               // p50
    double error;               // against the truth that is known
};

static struct figures rounds_of[CONTESTANTS][ROUNDS_MAX];
static bool left_out[CONTESTANTS];
static double asked_bps_of[CONTESTANTS]; // of those that are held; 0: no limit

static struct options {
    const char *iperf3, *json, *only;
    unsigned rounds;
} options = {"iperf3", NULL, "", 5};

// ------------------------------------------------------------------------------ the goals

enum value { PER_CPU, SPEED, PACKETS_PER_CPU, GAP, CPU, SENDER_CPU, RTT, ERROR };

// `ours` over `theirs` (NULL: a value of its own), and what is to be reached.
static const struct goal {
    const char *words, *ours, *theirs;
    enum value value;
    double goal;
    bool at_most;
} goals[] = {
    {"TCP GB per CPU-s, to default", "tcp", "tcp: default", PER_CPU, 2.7, false},
    {"TCP GB per CPU-s, to its best flags", "tcp", "tcp: best flags", PER_CPU, 2.3, false},
    {"TCP 1 stream, to default", "tcp", "tcp: default", SPEED, 1.8, false},
    {"TCP 1 stream, to its best flags", "tcp", "tcp: best flags", SPEED, 1.8, false},
    {"TCP 4 streams, to default", "tcp 4", "tcp 4: default", SPEED, 2.2, false},
    {"TCP 4 streams, to its best flags", "tcp 4", "tcp 4: best flags", SPEED, 1.7, false},
    {"UDP 1400 B packets per CPU-s, to default", "udp 1400", "udp 1400: default", PACKETS_PER_CPU,
        14, false},
    {"UDP 1400 B packets per CPU-s, to --gsro", "udp 1400", "udp 1400: gsro", PACKETS_PER_CPU, 1.9,
        false},
    {"UDP 1400 B packets per CPU-s, to --gsro, held", "udp 1400", "udp 1400: gsro, held",
        PACKETS_PER_CPU, 1.9, false},
    {"UDP 64 B packets per CPU-s, to default", "udp 64", "udp 64: default", PACKETS_PER_CPU, 80,
        false},
    {"UDP 64 B packets per CPU-s, to --gsro", "udp 64", "udp 64: gsro", PACKETS_PER_CPU, 2.2,
        false},
    {"UDP 64 B packets per CPU-s, to --gsro, held", "udp 64", "udp 64: gsro, held", PACKETS_PER_CPU,
        2.2, false},
    {"UDP one datagram a packet per CPU-s, to default", "udp 1400, one a packet",
        "udp 1400: default", PACKETS_PER_CPU, 1.2, false},
    {"pace 100 Mbit/s, p99 gap error to -b", "pace 100M", "pace 100M: iperf3", GAP, 0.35, true},
    {"pace 100 Mbit/s, sender CPU to -b", "pace 100M", "pace 100M: iperf3", SENDER_CPU, 1, true},
    {"pace 1 Gbit/s, p99 gap error to -b", "pace 1G", "pace 1G: iperf3", GAP, 0.1, true},
    {"pace 1 Gbit/s on one core, sender CPU to -b", "pace 1G, one core", "pace 1G: iperf3",
        SENDER_CPU, 0.25, true},
    {"RTT p50, s", "latency", NULL, RTT, NAN, true},
    {"UDP loss against nft, packets", "loss", NULL, ERROR, 0, true},
    {"shaped TCP goodput, relative error", "shaped", NULL, ERROR, 0.001, true},
    {"UDP rate, relative error", "pace 100M", NULL, ERROR, 0.0005, true},
};
#define GOALS (sizeof goals / sizeof *goals)

static double value_of(const struct figures *figures, enum value value)
{
    switch (value) {
    case PER_CPU:
        return figures->bandwidth_bps / 8e9 / figures->cores;
    case SPEED:
        return figures->bandwidth_bps;
    case PACKETS_PER_CPU:
        return figures->packets_per_s / figures->cores;
    case GAP:
        return figures->gap_error_s;
    case CPU:
        return figures->cores;
    case SENDER_CPU:
        return figures->sender_cores;
    case RTT:
        return figures->rtt_s;
    case ERROR:
        return figures->error;
    }
    return NAN;
}

// ------------------------------------------------------------------------------ measuring

static double number_or_nan(json_t *object, const char *path)
{
    return has_number(object, path) ? number_at(object, path) : NAN;
}

static task_t *start_sniffing(mesh_t *mesh, const struct contestant *who)
{
    char self[4096] = "";
    if (!who->sniffed)
        return NULL;
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    return mesh_start(mesh, "$LAB exec h2 %s sniff direct %u", self, who->sniffed);
}

static double sniffed_error_s(task_t *task)
{
    if (!task)
        return NAN;
    struct outcome ended = task_wait(&task, SNIFF_S + 10);
    double packets = 0, mean_s = NAN, error_s = NAN;
    if (ended.status != 0 || sscanf(ended.out, "%lf %lf %lf", &packets, &mean_s, &error_s) != 3)
        fail_msg("sniffer: %s%s", ended.out, ended.err);
    outcome_release(&ended);
    return error_s;
}

// Drops every hundredth datagram on the bridge, where neither end sees it.
static void lose(mesh_t *mesh, bool begin)
{
    free(mesh_exec(mesh, "router", "%s",
        begin ? "nft 'table netdev bench { counter lost { } ; chain c { type filter hook egress "
                "device port3 priority 0; udp length 1008 numgen inc mod 100 == 0 counter name "
                "lost drop; }; }'"
              : "nft delete table netdev bench"));
}

static double lost(mesh_t *mesh)
{
    return mesh_packets(mesh, "router", "netdev bench lost");
}

static double error_of(const struct contestant *who, json_t *cell, double truth)
{
    if (strcmp(who->name, "loss") == 0)
        return fabs(number_at(cell, "packets.lost_network") - truth);
    if (strcmp(who->name, "shaped") == 0)
        return fabs(number_at(cell, "bandwidth_bps") / (100e6 * 1448 / 1514) - 1);
    if (strcmp(who->name, "pace 100M") == 0)
        return fabs(number_at(cell, "bandwidth_bps") / 100e6 - 1);
    return NAN;
}

static struct figures measure_ours(mesh_t *mesh, const struct contestant *who)
{
    int status;
    bool loses = strcmp(who->name, "loss") == 0;
    const char *from = who->behind_bridge ? "far" : "h1", *to = who->behind_bridge ? "slow" : "h2";
    char kind[16] = "";
    (void)sscanf(who->arguments, "%15s", kind);
    if (loses)
        lose(mesh, true);
    json_t *run =
        mesh_json(mesh, &status, 60, "-q run %s -4 --from %s --to %s", who->arguments, from, to);
    double truth = loses ? lost(mesh) : NAN;
    if (loses)
        lose(mesh, false);
    json_t *cell = cell_of(run, kind, from, to);
    if (strcmp(text_at(cell, "state"), "ok") != 0)
        fail_msg("%s: %s", who->name, text_at(cell, "reason"));
    struct figures figures = {.bandwidth_bps = number_or_nan(cell, "bandwidth_bps"),
        .packets_per_s =
            number_or_nan(cell, "packets.received") / number_or_nan(cell, "duration_s"),
        .loss_ratio = number_or_nan(cell, "loss_ratio"),
        .sender_cores = number_or_nan(cell, "cpu.sender"),
        .rtt_s = number_or_nan(cell, "rtt_s.p50"),
        .gap_error_s = NAN,
        .error = error_of(who, cell, truth)};
    figures.cores = figures.sender_cores + number_or_nan(cell, "cpu.receiver");
    json_decref(run);
    return figures;
}

static struct figures iperf3_once(mesh_t *mesh, const char *arguments)
{
    task_t *server = mesh_start(mesh, "$LAB exec h2 %s -s -1", options.iperf3);
    mesh_wait_until(mesh, 10, "$LAB exec h2 ss -Hltn | grep -q :5201");
    char *text = mesh_exec(mesh, "h1", "%s -J -c 10.98.0.2 %s", options.iperf3, arguments);
    struct outcome ended = task_wait(&server, 20);
    json_t *document = json_loads(text, 0, NULL);
    assert_non_null(document);
    struct figures figures = {
        .sender_cores = number_at(document, "end.cpu_utilization_percent.host_total") / 100,
        .packets_per_s = NAN,
        .gap_error_s = NAN,
        .rtt_s = NAN,
        .error = NAN};
    figures.cores = figures.sender_cores +
                    number_at(document, "end.cpu_utilization_percent.remote_total") / 100;
    if (strstr(arguments, "-u ")) {
        figures.loss_ratio = number_at(document, "end.sum.lost_percent") / 100;
        double share = 1 - figures.loss_ratio, seconds = number_at(document, "end.sum.seconds");
        figures.packets_per_s = number_at(document, "end.sum.packets") / seconds * share;
        figures.bandwidth_bps = number_at(document, "end.sum.bits_per_second") * share;
    } else {
        figures.bandwidth_bps = number_at(document, "end.sum_received.bits_per_second");
    }
    json_decref(document);
    outcome_release(&ended);
    free(text);
    return figures;
}

// One that is held begins without a limit, or in later rounds with more than it could carry before.
static struct figures measure_theirs(mesh_t *mesh, const struct contestant *who)
{
    double *asked_bps = &asked_bps_of[who - contestants];
    if (*asked_bps > 0)
        *asked_bps /= LESS;
    for (unsigned tries = 1;; tries++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "%s -b %.0f", who->arguments, *asked_bps);
        struct figures figures = iperf3_once(mesh, who->held ? arguments : who->arguments);
        if (!who->held || figures.loss_ratio < LOSS_MAX || tries == TRIES)
            return figures;
        *asked_bps = (*asked_bps > 0 ? *asked_bps : figures.bandwidth_bps) * LESS;
    }
}

static void place_agent(mesh_t *mesh, const char *host, const char *address, const char *under)
{
    struct outcome placed =
        mesh_shell(mesh, 30, "$LAB kill %s TERM; LAB_AGENT_UNDER=\"%s\" $LAB agent %s --address %s",
            host, under, host, address);
    if (placed.status != 0)
        fail_msg("agent %s: %s%s", host, placed.out, placed.err);
    outcome_release(&placed);
    mesh_wait_until(mesh, 10, "$LAB meshperf agent list | grep -q '%s .*ready'", host);
}

static struct figures measure(mesh_t *mesh, const struct contestant *who)
{
    task_t *sniffer = start_sniffing(mesh, who);
    if (who->under)
        place_agent(mesh, "h1", "10.98.0.1", who->under);
    struct figures figures =
        who->maker == OURS ? measure_ours(mesh, who) : measure_theirs(mesh, who);
    if (who->under)
        place_agent(mesh, "h1", "10.98.0.1", "");
    figures.gap_error_s = sniffed_error_s(sniffer);
    return figures;
}

// ------------------------------------------------------------------------------ reporting

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(size_t who, enum value value)
{
    double values[ROUNDS_MAX];
    for (unsigned i = 0; i < options.rounds; i++)
        values[i] = value_of(&rounds_of[who][i], value);
    qsort(values, options.rounds, sizeof *values, by_value);
    return (values[(options.rounds - 1) / 2] + values[options.rounds / 2]) / 2;
}

// Its place among the contestants, or SIZE_MAX if it took no part.
static size_t find(const char *name)
{
    for (size_t i = 0; i < CONTESTANTS; i++)
        if (strcmp(contestants[i].name, name) == 0)
            return left_out[i] ? SIZE_MAX : i;
    fail_msg("no contestant %s", name);
    return SIZE_MAX;
}

static json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *tell_goal(const struct goal *goal)
{
    size_t ours = find(goal->ours), theirs = goal->theirs ? find(goal->theirs) : ours;
    if (ours == SIZE_MAX || theirs == SIZE_MAX)
        return NULL;
    double a = median(ours, goal->value), b = goal->theirs ? median(theirs, goal->value) : NAN;
    double result = goal->theirs ? a / b : a;
    const char *verdict = isnan(goal->goal) ? ""
                          : (goal->at_most ? result <= goal->goal : result >= goal->goal)
                              ? "reached"
                              : "missed";
    printf(
        "%-48s %12.6g %12.6g %10.4g %8.4g  %s\n", goal->words, a, b, result, goal->goal, verdict);
    return json_pack("{s:s, s:o, s:o, s:o, s:o, s:s}", "what", goal->words, "ours", real_or_null(a),
        "iperf3", real_or_null(b), "result", real_or_null(result), "goal", real_or_null(goal->goal),
        "verdict", verdict);
}

static json_t *tell_contestant(size_t who)
{
    json_t *rounds = json_array();
    for (unsigned i = 0; i < options.rounds; i++) {
        const struct figures *it = &rounds_of[who][i];
        json_array_append_new(rounds,
            json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "bandwidth_bps",
                real_or_null(it->bandwidth_bps), "packets_per_s", real_or_null(it->packets_per_s),
                "loss_ratio", real_or_null(it->loss_ratio), "cores", real_or_null(it->cores),
                "sender_cores", real_or_null(it->sender_cores), "gap_error_s",
                real_or_null(it->gap_error_s), "rtt_s", real_or_null(it->rtt_s), "error",
                real_or_null(it->error)));
    }
    return json_pack("{s:s, s:s, s:s, s:o}", "name", contestants[who].name, "program",
        contestants[who].maker == OURS ? "meshperf" : "iperf3", "arguments",
        contestants[who].arguments, "rounds", rounds);
}

static void tell_medians(void)
{
    printf("%-28s %12s %10s %8s %8s %12s\n", "medians", "Mbit/s", "kpps", "cores", "sender",
        "gap p99 us");
    for (size_t i = 0; i < CONTESTANTS; i++) {
        if (left_out[i])
            continue;
        double packets = median(i, PACKETS_PER_CPU) * median(i, CPU);
        printf("%-28s %12.1f %10.1f %8.3f %8.3f %12.2f\n", contestants[i].name,
            median(i, SPEED) / 1e6, packets / 1e3, median(i, CPU), median(i, SENDER_CPU),
            median(i, GAP) * 1e6);
    }
}

static void tell_all(void)
{
    json_t *goals_told = json_array(), *told = json_array();
    tell_medians();
    printf("\n%-48s %12s %12s %10s %8s\n", "goal", "ours", "iperf3", "result", "goal");
    for (size_t i = 0; i < GOALS; i++) {
        json_t *goal = tell_goal(&goals[i]);
        if (goal)
            json_array_append_new(goals_told, goal);
    }
    for (size_t i = 0; i < CONTESTANTS; i++)
        if (!left_out[i])
            json_array_append_new(told, tell_contestant(i));
    json_t *document =
        json_pack("{s:s, s:s, s:i, s:o, s:o}", "schema", "meshperf.bench_engine/1", "iperf3",
            options.iperf3, "rounds", options.rounds, "goals", goals_told, "contestants", told);
    if (options.json)
        assert_int_equal(json_dump_file(document, options.json, JSON_INDENT(1)), 0);
    json_decref(document);
}

// ------------------------------------------------------------------------------ the whole

// Older versions lack some flags.
static bool able(const struct contestant *who)
{
    char command[512];
    if (!who->needs)
        return true;
    snprintf(
        command, sizeof command, "%s --help 2>&1 | grep -q -- '%s'", options.iperf3, who->needs);
    return system(command) == 0;
}

static void build_link(mesh_t *mesh)
{
    free(mesh_exec(mesh, "router", "ip -n h1 link add direct type veth peer name direct netns h2"));
    free(mesh_exec(
        mesh, "h1", "sh -c 'ip addr add 10.98.0.1/24 dev direct; ip link set direct up'"));
    free(mesh_exec(
        mesh, "h2", "sh -c 'ip addr add 10.98.0.2/24 dev direct; ip link set direct up'"));
    place_agent(mesh, "h1", "10.98.0.1", "");
    place_agent(mesh, "h2", "10.98.0.2", "");
}

static void beside_iperf3(void **state)
{
    (void)state;
    mesh_t *mesh = mesh_up(topology, "");
    build_link(mesh);
    for (size_t i = 0; i < CONTESTANTS; i++)
        left_out[i] = !strstr(contestants[i].group, options.only) || !able(&contestants[i]);
    for (size_t first = 0, next; first < CONTESTANTS; first = next) {
        for (next = first; next < CONTESTANTS; next++)
            if (strcmp(contestants[next].group, contestants[first].group) != 0)
                break;
        for (unsigned round = 0; round < options.rounds; round++)
            for (size_t i = first; i < next; i++)
                if (!left_out[i])
                    rounds_of[i][round] = measure(mesh, &contestants[i]);
    }
    tell_all();
    mesh_down(&mesh);
}

static int usage(void)
{
    fprintf(stderr,
        "usage: bench_engine [--iperf3 PATH] [--rounds 1..%d] [--case WORDS] [--json FILE]\n",
        ROUNDS_MAX);
    return 2;
}

static int sniff_only(const char *interface, const char *payload)
{
    struct sniffed sniffed;
    int rc = sniff(interface, (unsigned)atoi(payload), SNIFF_S, &sniffed);
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", interface, strerror(-rc));
        return 1;
    }
    printf(
        "%lu %.9f %.9f\n", (unsigned long)sniffed.packets, sniffed.mean_gap_s, sniffed.p99_error_s);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "sniff") == 0)
        return sniff_only(argv[2], argv[3]);
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return usage();
        if (strcmp(argv[i], "--iperf3") == 0)
            options.iperf3 = argv[i + 1];
        else if (strcmp(argv[i], "--json") == 0)
            options.json = argv[i + 1];
        else if (strcmp(argv[i], "--case") == 0)
            options.only = argv[i + 1];
        else if (strcmp(argv[i], "--rounds") == 0)
            options.rounds = (unsigned)atoi(argv[i + 1]);
        else
            return usage();
    }
    if (options.rounds < 1 || options.rounds > ROUNDS_MAX)
        return usage();
    const struct CMUnitTest tests[] = {cmocka_unit_test(beside_iperf3)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
