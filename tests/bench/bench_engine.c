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

#include "contest.h"
#include "meshtest.h"

#define ROUNDS_MAX 25

// ------------------------------------------------------------------------ who takes part

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

static void beside_iperf3(void **state)
{
    (void)state;
    mesh_t *mesh = contest_up();
    for (size_t i = 0; i < CONTESTANTS; i++)
        left_out[i] = !strstr(contestants[i].group, options.only) ||
                      !contest_able(&contestants[i], options.iperf3);
    for (size_t first = 0, next; first < CONTESTANTS; first = next) {
        for (next = first; next < CONTESTANTS; next++)
            if (strcmp(contestants[next].group, contestants[first].group) != 0)
                break;
        for (unsigned round = 0; round < options.rounds; round++)
            for (size_t i = first; i < next; i++)
                if (!left_out[i])
                    rounds_of[i][round] =
                        contest_measure(mesh, &contestants[i], options.iperf3, &asked_bps_of[i]);
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

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "sniff") == 0)
        return contest_sniff(argv[2], argv[3]);
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
