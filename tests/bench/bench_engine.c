// Bandwidth tests beside iperf3 on the same links, one after the other in one run: what is reported
// are medians and ratios, never absolute judgements, because machines are shared and noisy.
//
//     bench_engine [--iperf3 PATH] [--rounds N] [--case WORDS] [--json FILE]
//
// --case: only the rows whose name has these words in it.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

#define ROUNDS_MAX 25
#define IPERF3_PORT 5201

struct row {
    const char *name, *to;
    const char *ours;   // of meshperf run
    const char *theirs; // of iperf3 -c
    bool udp;
    const char *needs; // an option that this iperf3 must know
};

#define BEST "-Z --skip-rx-copy -l 1M"

// Two seconds each; both leave out what comes before the window: slow start, a flood's ramp.
static const struct row rows[] = {
    {"tcp", "h2", "tcp -t 2s", "-t 2 -O 1", false, NULL},
    {"tcp, its best flags", "h2", "tcp -t 2s", "-t 2 -O 1 " BEST, false, "--skip-rx-copy"},
    {"tcp, 4 streams", "h2", "tcp -P 4 -t 2s", "-P 4 -t 2 -O 1", false, NULL},
    {"tcp, 4, its best flags", "h2", "tcp -P 4 -t 2s", "-P 4 -t 2 -O 1 " BEST, false,
        "--skip-rx-copy"},
    {"tcp, 100 Mbit/s link", "slow", "tcp -t 2s", "-t 2 -O 1", false, NULL},
    {"tcp, 50 Mbit/s asked", "h2", "tcp -b 50M -t 2s", "-b 50M -t 2 -O 1", false, NULL},
    {"udp, 50 Mbit/s asked", "h2", "udp -b 50M -t 2s", "-u -b 50M -l 1400 -t 2", true, NULL},
    {"udp, 500 Mbit/s asked", "h2", "udp -b 500M -t 2s", "-u -b 500M -l 1400 -t 2", true, NULL},
    {"udp, flood", "h2", "udp -b max -t 2s", "-u -b 0 -l 1400 -t 2", true, NULL},
};
#define ROWS (sizeof rows / sizeof *rows)

struct figures {
    double bandwidth_bps, loss_ratio, cores; // cores: both ends together
};

struct samples {
    struct figures ours[ROUNDS_MAX], theirs[ROUNDS_MAX];
};

static struct options {
    const char *iperf3, *json, *only;
    unsigned rounds;
} options = {"iperf3", NULL, "", 5};

static const char topology[] = "subnet bench 10.97.1.0/24\nhost h1 bench\nhost h2 bench\n"
                               "host slow bench rate=100mbit\n";

// ------------------------------------------------------------------------------ measuring

static struct figures measure_ours(mesh_t *mesh, const struct row *row)
{
    int status;
    json_t *run = mesh_json(mesh, &status, 60, "-q run %s --from h1 --to %s", row->ours, row->to);
    char kind[4] = "";
    snprintf(kind, sizeof kind, "%s", row->ours);
    json_t *cell = cell_of(run, kind, "h1", row->to);
    assert_string_equal(text_at(cell, "state"), "ok");
    struct figures figures = {.bandwidth_bps = number_at(cell, "bandwidth_bps"),
        .loss_ratio = row->udp ? number_at(cell, "loss_ratio") : 0,
        .cores = number_at(cell, "cpu.sender") + number_at(cell, "cpu.receiver")};
    json_decref(run);
    return figures;
}

static struct figures measure_theirs(mesh_t *mesh, const struct row *row)
{
    const char *address = strcmp(row->to, "slow") == 0 ? "10.97.1.3" : "10.97.1.2";
    task_t *server = mesh_start(mesh, "$LAB exec %s %s -s -1", row->to, options.iperf3);
    mesh_wait_until(mesh, 10, "$LAB exec %s ss -Hltn | grep -q :%d", row->to, IPERF3_PORT);
    char *text = mesh_exec(mesh, "h1", "%s -J -c %s %s", options.iperf3, address, row->theirs);
    struct outcome ended = task_wait(&server, 20);
    json_t *document = json_loads(text, 0, NULL);
    assert_non_null(document);
    struct figures figures = {
        .cores = (number_at(document, "end.cpu_utilization_percent.host_total") +
                     number_at(document, "end.cpu_utilization_percent.remote_total")) /
                 100};
    if (row->udp) {
        figures.loss_ratio = number_at(document, "end.sum.lost_percent") / 100;
        figures.bandwidth_bps =
            number_at(document, "end.sum.bits_per_second") * (1 - figures.loss_ratio);
    } else {
        figures.bandwidth_bps = number_at(document, "end.sum_received.bits_per_second");
    }
    json_decref(document);
    outcome_release(&ended);
    free(text);
    return figures;
}

// ------------------------------------------------------------------------------ reporting

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The median of one member over the rounds.
static double median(const struct figures *figures, size_t offset)
{
    double values[ROUNDS_MAX];
    for (unsigned i = 0; i < options.rounds; i++)
        memcpy(&values[i], (const char *)&figures[i] + offset, sizeof values[i]);
    qsort(values, options.rounds, sizeof *values, by_value);
    return (values[(options.rounds - 1) / 2] + values[options.rounds / 2]) / 2;
}

#define MEDIAN(figures, member) median(figures, offsetof(struct figures, member))

static struct figures medians(const struct figures *figures)
{
    return (struct figures){
        MEDIAN(figures, bandwidth_bps), MEDIAN(figures, loss_ratio), MEDIAN(figures, cores)};
}

// CPU seconds of both hosts' test threads for a gigabit that arrived.
static double cost(const struct figures *figures)
{
    return figures->cores / (figures->bandwidth_bps / 1e9);
}

static json_t *tell(const struct row *row, const struct samples *samples)
{
    struct figures ours = medians(samples->ours), theirs = medians(samples->theirs);
    printf("%-24s %10.1f %10.1f %8.3f %9.3f %9.3f %8.2f %8.2f %8.2f\n", row->name,
        ours.bandwidth_bps / 1e6, theirs.bandwidth_bps / 1e6,
        ours.bandwidth_bps / theirs.bandwidth_bps, cost(&ours), cost(&theirs),
        cost(&ours) / cost(&theirs), 100 * ours.loss_ratio, 100 * theirs.loss_ratio);
    fflush(stdout);
    return json_pack("{s:s, s:{s:f, s:f, s:f}, s:{s:f, s:f, s:f}}", "case", row->name, "meshperf",
        "bandwidth_bps", ours.bandwidth_bps, "loss_ratio", ours.loss_ratio, "cores", ours.cores,
        "iperf3", "bandwidth_bps", theirs.bandwidth_bps, "loss_ratio", theirs.loss_ratio, "cores",
        theirs.cores);
}

// Older versions lack some flags.
static bool able(const struct row *row)
{
    char command[512];
    snprintf(command, sizeof command, "%s --help 2>&1 | grep -q -- %s", options.iperf3, row->needs);
    if (!row->needs || system(command) == 0)
        return true;
    printf("%-24s left out: %s does not know %s\n", row->name, options.iperf3, row->needs);
    return false;
}

static void beside_iperf3(void **state)
{
    (void)state;
    mesh_t *mesh = mesh_up(topology, "");
    json_t *report = json_array();
    printf("%-24s %10s %10s %8s %9s %9s %8s %8s %8s\n", "medians", "ours Mb/s", "iperf3", "ratio",
        "CPU s/Gb", "iperf3", "ratio", "loss %", "iperf3");
    for (size_t i = 0; i < ROWS; i++) {
        struct samples samples;
        if (!strstr(rows[i].name, options.only) || !able(&rows[i]))
            continue;
        for (unsigned round = 0; round < options.rounds; round++) {
            samples.ours[round] = measure_ours(mesh, &rows[i]);
            samples.theirs[round] = measure_theirs(mesh, &rows[i]);
        }
        json_array_append_new(report, tell(&rows[i], &samples));
    }
    if (options.json)
        assert_int_equal(json_dump_file(report, options.json, JSON_INDENT(1)), 0);
    json_decref(report);
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
