#ifndef MESHPERF_TEST_MESH_H
#define MESHPERF_TEST_MESH_H

// A mesh of real programs for integration tests: brings up a topology with deploy/lab/lab, runs the
// command line against it, and reads what it printed. A mesh that cannot be had here (no root and no
// user namespaces) ends the program with 77 and a loud line. Failures of the harness itself fail the
// running cmocka test.
//
// Every call has a deadline, but none gives up before MESH_PATIENCE_S: a smaller number says how long
// it should take, and a machine that stands still for a while fails nothing.

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define MESH_PATIENCE_S 90

typedef struct mesh mesh_t;

// `topology` is the text of a topology file (deploy/lab/README.md). `flags` for `lab up`, may be
// "".
mesh_t *mesh_up(const char *topology, const char *flags);
void mesh_down(mesh_t **self_p);
int mesh_take_down(void **state); // the group's fixture: *state is a mesh
const char *mesh_dir(const mesh_t *self); // the mesh's directory: logs, state, context

// `count` equal hosts h1..hN in one subnet, unshaped. The caller frees the text.
char *mesh_topology_plain(unsigned count);

struct outcome {
    int status; // exit status; 128 + n for a signal; -1 when the deadline passed
    char *out;  // standard output
    char *err;  // standard error
};
void outcome_release(struct outcome *outcome);

// Runs a shell command with $LAB (the lab script) and $DIR (the mesh's directory) set.
struct outcome mesh_shell(mesh_t *self, int timeout_s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// The same in a host's namespace. Fails the test unless it exits with 0; returns its output.
char *mesh_exec(mesh_t *self, const char *host, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Rules for nft -f, in a host's namespace; fails the test unless they are taken.
void mesh_nft(mesh_t *self, const char *host, const char *rules, ...)
    __attribute__((format(printf, 3, 4)));
// What a named counter has seen: COUNTER is FAMILY TABLE NAME.
double mesh_packets(mesh_t *self, const char *host, const char *counter);

// meshperf ARGUMENTS.
struct outcome mesh_meshperf(mesh_t *self, int timeout_s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// meshperf -o json ARGUMENTS, parsed; fails the test if it is no JSON. The caller json_decrefs.
json_t *mesh_json(mesh_t *self, int *status, int timeout_s, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

// Rates and times are spoilt where the machine stands still in the middle: it takes from a link what
// its shaper would let through, and never adds. So often at most is measured again.
#define MESH_TRIES 10

// Runs meshperf's TEST of one pair with these options; must be ok. Up to MESH_TRIES times, until
// `good` (NULL: once) says yes; the caller judges the last one. The document is the caller's, *cell
// is in it.
json_t *mesh_measured(mesh_t *self, bool (*good)(json_t *cell), json_t **cell, const char *test,
    const char *from, const char *to, const char *options);

// A command in the background.
typedef struct task task_t;
task_t *mesh_start(mesh_t *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
pid_t task_pid(const task_t *self);
struct outcome task_wait(task_t **self_p, int timeout_s);

// Polls a shell command (its exit status 0 is the event) until it holds; fails the test after
// `timeout_s`.
void mesh_wait_until(mesh_t *self, int timeout_s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// ---------------------------------------------------------------------- reading documents

json_t *cell_of(
    json_t *run, const char *test, const char *from, const char *to); // borrowed, or fails
// A number at a dotted path ("packets.sent"); fails the test if it is absent.
double number_at(json_t *object, const char *path);
bool has_number(json_t *object, const char *path);
const char *text_at(json_t *object, const char *path);
size_t count_cells(json_t *run, const char *state); // in this state; NULL: all

bool is_close(double value, double truth, double tolerance); // |value - truth| <= tolerance * truth
// The test fails with both numbers unless it is.
void assert_close(double value, double truth, double tolerance, const char *what);

#endif
