#ifndef MESHPERF_TEST_MESH_H
#define MESHPERF_TEST_MESH_H

// A mesh of real programs for integration tests: brings up a topology with deploy/lab/lab, runs the
// command line against it, and reads what it printed. Every call has a deadline; a mesh that cannot
// be had here (no root and no user namespaces) ends the program with 77 and a loud line.
// Failures of the harness itself fail the running cmocka test.

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct mesh mesh_t;

// `topology` is the text of a topology file (deploy/lab/README.md). `flags` for `lab up`, may be
// "".
mesh_t *mesh_up(const char *topology, const char *flags);
void mesh_down(mesh_t **self_p);
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

// meshperf ARGUMENTS.
struct outcome mesh_meshperf(mesh_t *self, int timeout_s, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// meshperf -o json ARGUMENTS, parsed; fails the test if it is no JSON. The caller json_decrefs.
json_t *mesh_json(mesh_t *self, int *status, int timeout_s, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

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

// |value - truth| <= tolerance * truth, else the test fails with both numbers.
void assert_close(double value, double truth, double tolerance, const char *what);

#endif
