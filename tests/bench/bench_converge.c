// How often a test that ends early claims what is not so, and what it saves: the rule of --until on
// synthetic rates and on live paths.
//
//     bench_converge [--target 5] [--cells 10000] [--rounds 5] [--case WORDS] [--json FILE]
//
// --rounds 0: only the synthetic ones. --case: only live paths with these words in their name.
//
// A false claim is a cell that ended early and whose result is further from the truth than the
// target; its share is of all cells, also of those that ended at the cap of 10 s. Truth: of
// synthetic rates their mean, of a shaped link what headers leave of its rate, else the mean of
// tests of the full 10 s in turn with the early ones.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bucket.h"
#include "clock.h"
#include "converge.h"
#include "mesh.h"
#include "meshtest.h"
#include "series.h"

#define CAP 100 // samples: 10 s
#define ROUNDS_MAX 25

static struct options {
    double target;
    unsigned cells, rounds;
    const char *only, *json;
} options = {0.05, 10000, 5, "", NULL};

// What one rule did with many cells.
struct tally {
    unsigned cells, claims, wrong;
    double time_s, bytes, bytes_full;
};

static void tally_add(
    struct tally *self, bool claimed, double result, double truth, double time_s, double full_s)
{
    self->cells++;
    self->claims += claimed;
    self->wrong += claimed && fabs(result - truth) > options.target * truth;
    self->time_s += time_s;
    self->bytes += result * time_s;
    self->bytes_full += truth * full_s;
}

static void tell(const char *name, const struct tally *self, json_t *report)
{
    double n = self->cells, wrong = 100 * self->wrong / n, claims = 100 * self->claims / n,
           time = 100 * (1 - self->time_s / n / 10),
           bytes = 100 * (1 - self->bytes / self->bytes_full);
    printf("%-34s %6u %8.1f %8.1f %8.2f %10.0f %10.0f\n", name, self->cells, wrong, claims,
        self->time_s / n, time, bytes);
    fflush(stdout);
    json_array_append_new(
        report, json_pack("{s:s, s:i, s:f, s:f, s:f, s:f}", "case", name, "cells", (int)self->cells,
                    "false_claims", wrong / 100, "claims", claims / 100, "time_saved", time / 100,
                    "bytes_saved", bytes / 100));
}

// ------------------------------------------------------------------------------ synthetic

struct kind {
    const char *name;
    struct series series;
    struct converge_path path;
    double burst; // a token bucket: so many times the later rate in the first second
};

static const struct kind kinds[] = {
    {"steady, varies 1 %", {.variation = 0.01}, {.known = true}, 0},
    {"varies 20 %", {.variation = 0.2}, {.known = true}, 0},
    {"varies 20 %, rho 0.6", {.variation = 0.2, .rho = 0.6}, {.known = true}, 0},
    {"varies 20 %, rho 0.9", {.variation = 0.2, .rho = 0.9}, {.known = true}, 0},
    {"varies 10 %, rho 0.9", {.variation = 0.1, .rho = 0.9}, {.known = true}, 0},
    {"varies 5 %, rho 0.97", {.variation = 0.05, .rho = 0.97}, {.known = true}, 0},
    {"varies 10 %, rho 0.97", {.variation = 0.1, .rho = 0.97}, {.known = true}, 0},
    {"varies 10 %, rho 0.99", {.variation = 0.1, .rho = 0.99}, {.known = true}, 0},
    {"sawtooth of 4 s", {.variation = 0.02, .sawtooth_samples = 40},
        {.known = true, .reduced = true, .retransmitted = true, .sawtooth_ns = 4 * NS_PER_S}, 0},
    {"slow start of 1 s", {.variation = 0.01, .start = 0.2, .start_samples = 10}, {.known = true},
        0},
    {"token bucket, 5 x for 1 s", {.variation = 0.01}, {.known = true}, 5},
};

static double next_of(const struct kind *kind, struct series *series, unsigned at)
{
    double value = series_next(series);
    return kind->burst > 0 && at <= 10 ? value * kind->burst : value;
}

// Looks at each sample after the first second, as if they were independent.
static bool naive(const double *values, unsigned count)
{
    double sum = 0, squares = 0;
    for (unsigned i = 0; i < count; i++) {
        sum += values[i];
        squares += values[i] * values[i];
    }
    double mean = sum / count, variance = (squares / count - mean * mean) * count / (count - 1);
    return count >= 10 && 1.96 * sqrt(fmax(variance, 0) / count) <= options.target * mean;
}

static void simulate(const struct kind *kind, struct tally *rule, struct tally *peeking)
{
    for (unsigned cell = 0; cell < options.cells; cell++) {
        struct series series = kind->series;
        struct converge converge;
        double values[CAP], sum = 0, at[2] = {0, 0}, result[2] = {0, 0};
        series_begin(&series, 7 * cell + 1);
        converge_begin(&converge, options.target);
        for (unsigned i = 1; i <= CAP; i++) {
            values[i - 1] = next_of(kind, &series, i);
            sum += values[i - 1];
            bool early[2] = {
                converge_add(&converge, values[i - 1]) && converge_look(&converge, &kind->path),
                naive(values, i)};
            for (int k = 0; k < 2; k++)
                if (at[k] == 0 && (early[k] || i == CAP)) {
                    at[k] = early[k] ? i : CAP + 1;
                    result[k] = sum / i;
                }
        }
        double truth = kind->burst > 0 ? sum / CAP : 1; // of a bucket: of the whole time
        struct tally *tallies[2] = {rule, peeking};
        for (int k = 0; k < 2; k++)
            tally_add(tallies[k], at[k] <= CAP, result[k], truth, fmin(at[k], CAP) / 10, 10);
    }
}

static void on_synthetic_rates(json_t *report)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct tally rule = {0}, peeking = {0};
        char name[64];
        simulate(&kinds[i], &rule, &peeking);
        tell(kinds[i].name, &rule, report);
        snprintf(name, sizeof name, "  %s, naive", kinds[i].name);
        tell(name, &peeking, report);
    }
}

// ------------------------------------------------------------------------------ live

struct path {
    const char *name, *to, *test;
    double truth_bps;   // 0: what the tests of the full time say
    unsigned drop_1000; // of so many packets of 1000, at random
};

#define GOODPUT(rate) ((rate)*1448 / 1514)

static const struct path paths[] = {
    {"tcp, shaped to 100 Mbit/s", "slow", "tcp", GOODPUT(100e6), 0},
    {"tcp, shaped to 17 Mbit/s", "slower", "tcp", GOODPUT(17e6), 0},
    {"tcp, 100 Mbit/s, 0.1 % loss", "slow", "tcp", 0, 1},
    {"tcp, 100 Mbit/s, 1 % loss", "slow", "tcp", 0, 10},
    {"tcp, unshaped", "h2", "tcp", 0, 0},
    {"udp, 20 Mbit/s of 100", "slow", "udp -b 20M", 20e6, 0},
};

static const char topology[] = "subnet bench 10.96.1.0/24\nhost h1 bench\nhost h2 bench\n"
                               "host slow bench rate=100mbit\nhost slower bench rate=17mbit\n";

static void drop(mesh_t *mesh, unsigned of_1000)
{
    struct outcome made = {0};
    made = mesh_shell(mesh, 10,
        "$LAB exec router nft 'table netdev bench { chain drops { type filter hook ingress device "
        "port1 priority 0; meta length > 500 numgen random mod 1000 < %u drop; }; }'",
        of_1000);
    if (made.status != 0)
        fail_msg("nft: %s", made.err);
    outcome_release(&made);
}

struct result {
    double bps, duration_s;
    bool reached;
};

static struct result measure(mesh_t *mesh, const struct path *path, const char *until)
{
    int status;
    json_t *run = mesh_json(
        mesh, &status, 60, "-q run %s %s -4 --from h1 --to %s", path->test, until, path->to);
    char kind[4] = "";
    memcpy(kind, path->test, 3);
    json_t *cell = cell_of(run, kind, "h1", path->to);
    assert_string_equal(text_at(cell, "state"), "ok");
    json_t *object = json_object_get(cell, "until");
    struct result result = {.bps = number_at(cell, "bandwidth_bps"),
        .duration_s = number_at(cell, "duration_s"),
        .reached = object && json_is_true(json_object_get(object, "reached"))};
    json_decref(run);
    return result;
}

static void on_path(mesh_t *mesh, const struct path *path, json_t *report)
{
    struct result early[ROUNDS_MAX];
    struct tally tally = {0};
    char until[32];
    double full_bps = 0;
    snprintf(until, sizeof until, "--until %g%% -t 10s", 100 * options.target);
    if (path->drop_1000)
        drop(mesh, path->drop_1000);
    for (unsigned round = 0; round < options.rounds; round++) {
        early[round] = measure(mesh, path, until);
        if (path->truth_bps <= 0)
            full_bps += measure(mesh, path, "-t 10s").bps / options.rounds;
    }
    if (path->drop_1000)
        free(mesh_exec(mesh, "router", "nft delete table netdev bench"));
    double truth = path->truth_bps > 0 ? path->truth_bps : full_bps;
    for (unsigned round = 0; round < options.rounds; round++)
        tally_add(
            &tally, early[round].reached, early[round].bps, truth, early[round].duration_s, 10);
    tell(path->name, &tally, report);
}

static void early_ends(void **state)
{
    (void)state;
    json_t *report = json_array();
    printf("target %g %%\n%-34s %6s %8s %8s %8s %10s %10s\n", 100 * options.target, "", "cells",
        "false %", "claims %", "time s", "saved s %", "saved B %");
    on_synthetic_rates(report);
    if (options.rounds > 0) {
        mesh_t *mesh = mesh_up(topology, "");
        for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
            if (strstr(paths[i].name, options.only))
                on_path(mesh, &paths[i], report);
        mesh_down(&mesh);
    }
    if (options.json)
        assert_int_equal(json_dump_file(report, options.json, JSON_INDENT(1)), 0);
    json_decref(report);
}

static int usage(void)
{
    fprintf(stderr,
        "usage: bench_converge [--target PERCENT] [--cells N] [--rounds 0..%d] [--case WORDS] "
        "[--json FILE]\n",
        ROUNDS_MAX);
    return 2;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc)
            return usage();
        if (strcmp(argv[i], "--target") == 0)
            options.target = atof(argv[i + 1]) / 100;
        else if (strcmp(argv[i], "--cells") == 0)
            options.cells = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--rounds") == 0)
            options.rounds = (unsigned)atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--case") == 0)
            options.only = argv[i + 1];
        else if (strcmp(argv[i], "--json") == 0)
            options.json = argv[i + 1];
        else
            return usage();
    }
    if (options.rounds > ROUNDS_MAX || options.cells < 1 || !(options.target >= 0.001))
        return usage();
    const struct CMUnitTest tests[] = {cmocka_unit_test(early_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
