// Round trips beside what others report of the same path, on hosts that are idle and on hosts that
// are busy; and what the probes beside a bandwidth test cost its load.
//
//     bench_latency [--rounds N] [--pairs N] [--json FILE]
//
// Ours sleeping and, with `guard: spin` at both ends, spinning; ping; a pair of echo programs that
// block and one that spins, both of this program and without a pause between their round trips; and
// sockperf (Debian: sockperf), which is left out where it is not installed. In turn; medians of the
// rounds' medians. Busy: a loop of the lowest importance on every core, as other people's programs
// are.

#include <arpa/inet.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "engine_bench.h"
#include "kinds.h"
#include "light.h"
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

// ------------------------------------------------------------------------------ echo programs

// What an ordinary program sees of a round trip, wake-ups included.
#define ECHO_PORT 11112
#define ECHO_NS (2 * NS_PER_S)
#define ECHO_ROUNDS 20000

static ssize_t take(int fd, void *bytes, size_t size, bool spins, int64_t until_mono_ns)
{
    ssize_t got;
    do
        got = recv(fd, bytes, size, spins ? MSG_DONTWAIT : 0);
    while (got < 0 && clock_mono_ns() < until_mono_ns);
    return got;
}

static int echo_socket(const char *address, bool serves)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(ECHO_PORT)};
    struct timeval patience = {.tv_usec = 100000};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || inet_pton(AF_INET, address, &at.sin_addr) != 1 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
        (serves ? bind : connect)(fd, (struct sockaddr *)&at, sizeof at) < 0)
        return -1;
    return fd;
}

// Answers until it has been quiet for 1 s.
static int echo_server(const char *address, bool spins)
{
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    char bytes[LIGHT_SIZE];
    int fd = echo_socket(address, true);
    for (int64_t last = clock_mono_ns(); fd >= 0 && clock_mono_ns() - last < NS_PER_S;) {
        ssize_t got = recvfrom(
            fd, bytes, sizeof bytes, spins ? MSG_DONTWAIT : 0, (struct sockaddr *)&peer, &size);
        if (got < 0)
            continue;
        (void)!sendto(fd, bytes, (size_t)got, 0, (struct sockaddr *)&peer, size);
        last = clock_mono_ns();
    }
    return fd < 0;
}

static int echo_client(const char *address, bool spins)
{
    static double values[ECHO_ROUNDS];
    char bytes[LIGHT_SIZE] = {0};
    unsigned count = 0;
    int fd = echo_socket(address, false);
    int64_t end = clock_mono_ns() + ECHO_NS;
    while (fd >= 0 && count < ECHO_ROUNDS && clock_mono_ns() < end) {
        int64_t begin = clock_mono_ns();
        if (send(fd, bytes, sizeof bytes, 0) > 0 &&
            take(fd, bytes, sizeof bytes, spins, begin + NS_PER_S / 10) > 0)
            values[count++] = (double)(clock_mono_ns() - begin) * 1e-3;
    }
    if (count)
        printf("%.3f\n", median(values, count));
    return count == 0;
}

static double echo_us(mesh_t *mesh, bool spins)
{
    char program[PATH_MAX] = "";
    assert_true(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
    const char *how = spins ? "spin" : "block";
    task_t *server =
        mesh_start(mesh, "$LAB exec h2 timeout 9 %s --echo %s 10.95.1.2", program, how);
    mesh_wait_until(mesh, 10, "$LAB exec h2 ss -Hlun | grep -q :%d", ECHO_PORT);
    char *text = mesh_exec(mesh, "h1", "timeout 9 %s --ask %s 10.95.1.2", program, how);
    double value = *text ? atof(text) : NAN;
    struct outcome ended = task_wait(&server, 20);
    outcome_release(&ended);
    free(text);
    return value;
}

// ------------------------------------------------------------------------------ round trips

// Whether their owner allows both hosts to spin.
static void allow(mesh_t *mesh, bool spin)
{
    for (int i = 1; i <= 2; i++) {
        struct outcome placed = mesh_shell(mesh, 30,
            "printf 'guard: {spin: %s}\n' >$DIR/spin.yaml; $LAB kill h%d TERM; "
            "$LAB agent h%d --config $DIR/spin.yaml",
            spin ? "true" : "false", i, i);
        if (placed.status != 0)
            fail_msg("agent: %s", placed.err);
        outcome_release(&placed);
    }
    mesh_wait_until(mesh, 15, "test $($LAB meshperf agent list | grep -c ready) = 2");
}

static double ours_us(mesh_t *mesh, bool spin)
{
    int status;
    allow(mesh, spin);
    json_t *run = mesh_json(mesh, &status, 60, "-q run latency -t 2s -4 --from h1 --to h2");
    json_t *cell = cell_of(run, "latency", "h1", "h2");
    double p50 = number_at(cell, "rtt_s.p50");
    if ((strstr(text_at(cell, "technique"), "prober spins, reflector spins") != NULL) != spin)
        printf("%s\n", text_at(cell, "technique"));
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

// Half of the round trip is what it prints. Without a pause.
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

enum contestant { OURS, OURS_SPINNING, PING, BLOCKING, SPINNING, SOCKPERF, SOCKPERF_SPINNING };
#define CONTESTANTS 7
static const char *const contestants[CONTESTANTS] = {"meshperf", "meshperf_spinning", "ping",
    "echo_blocking", "echo_spinning", "sockperf_blocking", "sockperf_spinning"};

static double round_trip_us(mesh_t *mesh, enum contestant contestant)
{
    switch (contestant) {
    case OURS:
    case OURS_SPINNING:
        return ours_us(mesh, contestant == OURS_SPINNING);
    case PING:
        return ping_us(mesh);
    case BLOCKING:
    case SPINNING:
        return echo_us(mesh, contestant == SPINNING);
    case SOCKPERF:
        return sockperf_us(mesh, "", "");
    case SOCKPERF_SPINNING:
        return sockperf_us(mesh, "--nonblocked", "--nonblocked");
    }
    return NAN;
}

static void round_trips(mesh_t *mesh, const char *words, json_t *report)
{
    double values[CONTESTANTS][ROUNDS_MAX], all[CONTESTANTS];
    for (unsigned i = 0; i < options.rounds; i++)
        for (int k = 0; k < CONTESTANTS; k++)
            values[k][i] = round_trip_us(mesh, (enum contestant)k);
    json_t *row = json_object();
    json_object_set_new(row, "case", json_string(words));
    for (int k = 0; k < CONTESTANTS; k++) {
        all[k] = median(values[k], options.rounds);
        printf("%s: %s %.1f us\n", words, contestants[k], all[k]);
        if (!isnan(all[k]))
            json_object_set_new(row, contestants[k], json_real(all[k]));
    }
    for (int k = BLOCKING; k < CONTESTANTS; k++)
        printf("%s: %s over meshperf_spinning: %.2f\n", words, contestants[k],
            all[k] / all[OURS_SPINNING]);
    fflush(stdout);
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
        if (i + 2 < argc && (strcmp(argv[i], "--echo") == 0 || strcmp(argv[i], "--ask") == 0)) {
            bool spins = strcmp(argv[i + 1], "spin") == 0;
            return (argv[i][2] == 'e' ? echo_server : echo_client)(argv[i + 2], spins);
        }
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
