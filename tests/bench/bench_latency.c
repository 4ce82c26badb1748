// Round trips beside what others report of the same path, on hosts that are idle and on hosts that
// are busy; and what the probes beside a bandwidth test cost its load.
//
//     bench_latency [--rounds N] [--pairs N] [--json FILE]
//
// sockperf (Debian: sockperf) is left out where it is not installed. Medians of the rounds'
// medians. Busy: a loop of the lowest importance on every core, as other people's programs are.

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine_bench.h"
#include "kinds.h"
#include "mesh.h"
#include "meshtest.h"

#define ROUNDS_MAX 25
#define PAIRS_MAX 200
#define LOOPS_MAX 64
#define SOCKPERF_PORT 11111

static struct options {
    unsigned rounds, pairs;
    const char *json;
} options = {5, 20, NULL};

static const char topology[] = "subnet bench 10.95.1.0/24\nhost h1 bench\nhost h2 bench\n";

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, by_value);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

// ------------------------------------------------------------------------------ round trips

static double ours_us(mesh_t *mesh)
{
    int status;
    json_t *run = mesh_json(mesh, &status, 60, "-q run latency -t 2s -4 --from h1 --to h2");
    double p50 = number_at(cell_of(run, "latency", "h1", "h2"), "rtt_s.p50");
    json_decref(run);
    return p50 * 1e6;
}

// As often as ours, so that as much sleeps in between.
static double ping_us(mesh_t *mesh)
{
    char *text = mesh_exec(
        mesh, "h1", "ping -n -i 0.05 -c 40 10.95.1.2 | sed -n 's/.*time=\\([0-9.]*\\) ms/\\1/p'");
    double values[64];
    unsigned count = 0;
    for (char *word = strtok(text, "\n"); word && count < 64; word = strtok(NULL, "\n"))
        values[count++] = atof(word) * 1e3;
    free(text);
    return count ? median(values, count) : NAN;
}

// Half of the round trip is what it prints. `flags`: 20 a second as ours, or spinning without a
// pause.
static double sockperf_us(mesh_t *mesh, const char *server_flags, const char *flags)
{
    if (system("command -v sockperf >/dev/null 2>&1") != 0)
        return NAN;
    task_t *server = mesh_start(mesh,
        "$LAB exec h2 timeout 6 sockperf server -i 10.95.1.2 %s >/dev/null 2>&1", server_flags);
    mesh_wait_until(mesh, 10, "$LAB exec h2 ss -Hlun | grep -q :%d", SOCKPERF_PORT);
    char *text = mesh_exec(mesh, "h1",
        "sockperf ping-pong -i 10.95.1.2 -t 2 %s 2>/dev/null | "
        "sed -n 's/.*percentile 50.000 = *\\([0-9.]*\\).*/\\1/p'",
        flags);
    double value = *text ? 2 * atof(text) : NAN;
    struct outcome ended = task_wait(&server, 20);
    outcome_release(&ended);
    free(text);
    return value;
}

static void round_trips(mesh_t *mesh, const char *words, json_t *report)
{
    double values[4][ROUNDS_MAX];
    for (unsigned i = 0; i < options.rounds; i++) {
        values[0][i] = ours_us(mesh);
        values[1][i] = ping_us(mesh);
        values[2][i] = sockperf_us(mesh, "", "--mps=20");
        values[3][i] = sockperf_us(mesh, "--nonblocked", "--nonblocked");
    }
    double all[4];
    for (int k = 0; k < 4; k++)
        all[k] = median(values[k], options.rounds);
    printf("%-12s %10.1f %10.1f %12.1f %14.1f\n", words, all[0], all[1], all[2], all[3]);
    fflush(stdout);
    json_t *row = json_object();
    const char *const names[] = {
        "meshperf_us", "ping_us", "sockperf_blocking_us", "sockperf_spinning_us"};
    json_object_set_new(row, "case", json_string(words));
    for (int k = 0; k < 4; k++)
        if (!isnan(all[k]))
            json_object_set_new(row, names[k], json_real(all[k]));
    json_array_append_new(report, row);
}

static pid_t busy_loop(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)!nice(19);
    for (volatile unsigned long spins = 0;; spins++)
        ;
}

static void beside_others(json_t *report)
{
    mesh_t *mesh = mesh_up(topology, "");
    printf("%-12s %10s %10s %12s %14s   (RTT p50, us)\n", "hosts", "meshperf", "ping", "sockperf",
        "sockperf spins");
    round_trips(mesh, "idle", report);
    pid_t loops[LOOPS_MAX];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned count = cores < LOOPS_MAX ? (unsigned)cores : LOOPS_MAX;
    for (unsigned i = 0; i < count; i++)
        loops[i] = busy_loop();
    round_trips(mesh, "busy", report);
    for (unsigned i = 0; i < count; i++) {
        kill(loops[i], SIGKILL);
        waitpid(loops[i], NULL, 0);
    }
    mesh_down(&mesh);
}

// ------------------------------------------------------------------------------ cost of the probes

#define RATE_BPS 200000000 // 100 probes a second are 0.1 % of it

struct cost {
    double bps, cpu_s_a_byte; // of the whole process: both ends, the probes and their answers
    double cores;
};

static double cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

// `bps`: the rate that is kept; 0: as much as goes.
static struct cost load(const struct probe_kind *kind, bool alone, uint64_t bps)
{
    struct engine_bench bench;
    engine_bench_begin(&bench, kind, "127.0.0.1", true);
    struct probe_order *orders[] = {&bench.connecting, &bench.listening};
    for (int i = 0; i < 2; i++) {
        orders[i]->alone = alone;
        orders[i]->spec.omit_ns = 400000000; // the ways of moving load are tried in it
        orders[i]->spec.bitrate_max = kind->kind == TEST_UDP && bps == 0;
        orders[i]->spec.bitrate_bps = bps;
    }
    double before_s = cpu_s();
    engine_bench_run(&bench);
    double spent_s = cpu_s() - before_s;
    assert_int_equal(bench.connected.outcome, PROBE_OK);
    assert_int_equal(bench.listened.outcome, PROBE_OK);
    assert_true(alone == (bench.connected.rtt_foreign.count == 0));
    const struct probe_receive *receive = &bench.listened.receive;
    struct cost cost = {.bps = receive->bandwidth_bps,
        .cpu_s_a_byte = spent_s / (double)receive->whole_bytes,
        .cores = spent_s / receive->whole_s};
    engine_bench_end(&bench);
    return cost;
}

struct spread {
    double median, mean, half_width; // of the mean, at 95 %
};

static struct spread spread_of(double *values)
{
    double n = options.pairs, sum = 0, squares = 0;
    for (unsigned i = 0; i < options.pairs; i++) {
        sum += values[i];
        squares += values[i] * values[i];
    }
    double mean = sum / n;
    return (struct spread){.median = median(values, options.pairs),
        .mean = mean,
        .half_width = 1.96 * sqrt(fmax(squares / n - mean * mean, 0) / (n - 1))};
}

static void tell(const char *kind, const char *what, double *values, json_t *report)
{
    struct spread spread = spread_of(values);
    printf("%s %s: median %.5f, mean %.5f +- %.5f (%u pairs)\n", kind, what, spread.median,
        spread.mean, spread.half_width, options.pairs);
    fflush(stdout);
    json_array_append_new(
        report, json_pack("{s:s, s:s, s:f, s:f, s:f}", "case", kind, "what", what, "median",
                    spread.median, "mean", spread.mean, "half_width", spread.half_width));
}

// Pairs, each in turn with and without, the order alternating.
static void cost(const struct probe_kind *kind, json_t *report)
{
    double rates[PAIRS_MAX], efforts[PAIRS_MAX];
    for (unsigned i = 0; i < options.pairs; i++) {
        struct cost costs[2]; // with, without
        costs[i % 2] = load(kind, i % 2, 0);
        costs[!(i % 2)] = load(kind, !(i % 2), 0);
        rates[i] = costs[0].bps / costs[1].bps;
        efforts[i] = costs[0].cpu_s_a_byte / costs[1].cpu_s_a_byte;
    }
    tell(kind->name, "load, with probes over without", rates, report);
    tell(kind->name, "CPU time a byte, with probes over without", efforts, report);
}

// A load without limit varies by more than what is looked for. At a rate that is kept, and gets as
// many probes, what they cost stands out; as a share of what such a load takes it is what it loses.
static void cost_at_a_rate(json_t *report)
{
    double extra[PAIRS_MAX], shares[PAIRS_MAX];
    for (unsigned i = 0; i < options.pairs; i++) {
        struct cost costs[2]; // with, without
        costs[i % 2] = load(&probe_tcp, i % 2, RATE_BPS);
        costs[!(i % 2)] = load(&probe_tcp, !(i % 2), RATE_BPS);
        extra[i] = costs[0].cores - costs[1].cores;
        shares[i] = extra[i] / load(&probe_tcp, true, 0).cores;
    }
    tell("tcp at 200 Mbit/s", "cores, with probes less without", extra, report);
    tell("tcp at 200 Mbit/s", "the same, to the cores of a load without limit", shares, report);
}

static void latency(void **state)
{
    (void)state;
    json_t *report = json_array();
    if (options.rounds > 0)
        beside_others(report);
    if (options.pairs > 0) {
        cost(&probe_tcp, report);
        cost(&probe_udp, report);
        cost_at_a_rate(report);
    }
    if (options.json)
        assert_int_equal(json_dump_file(report, options.json, JSON_INDENT(1)), 0);
    json_decref(report);
}

static int usage(void)
{
    fprintf(stderr, "usage: bench_latency [--rounds 0..%d] [--pairs 0..%d] [--json FILE]\n",
        ROUNDS_MAX, PAIRS_MAX);
    return 2;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return usage();
        if (strcmp(argv[i], "--rounds") == 0)
            options.rounds = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--pairs") == 0)
            options.pairs = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--json") == 0)
            options.json = argv[i + 1];
        else
            return usage();
    }
    if (options.rounds > ROUNDS_MAX || options.pairs > PAIRS_MAX || options.pairs == 1)
        return usage();
    const struct CMUnitTest tests[] = {cmocka_unit_test(latency)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
