#include "mesh.h"

#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "meshtest.h"

struct mesh {
    char dir[64];
    char topology[80];
};

struct task {
    pid_t pid;
    int pid_fd;
    FILE *out, *err;
};

// ------------------------------------------------------------------------------ processes

__attribute__((format(printf, 1, 0))) static char *format_text(
    const char *format, va_list arguments)
{
    char *text = NULL;
    if (vasprintf(&text, format, arguments) < 0)
        abort();
    return text;
}

static int patience(int timeout_s)
{
    return timeout_s > MESH_PATIENCE_S ? timeout_s : MESH_PATIENCE_S;
}

// Output goes to unlinked files, so that no pipe can fill up while nobody reads.
static task_t *task_new(const char *dir, const char *command)
{
    task_t *self = calloc(1, sizeof *self);
    self->out = tmpfile();
    self->err = tmpfile();
    assert_non_null(self->out);
    assert_non_null(self->err);
    fflush(NULL);
    self->pid = fork();
    assert_true(self->pid >= 0);
    if (self->pid == 0) {
        setpgid(0, 0);
        int nothing = open("/dev/null", O_RDONLY);
        dup2(nothing, 0);
        dup2(fileno(self->out), 1);
        dup2(fileno(self->err), 2);
        setenv("MESHPERF_LAB", dir, 1);
        setenv("DIR", dir, 1);
        setenv("LAB", MESHPERF_LAB_SCRIPT, 1);
        setenv("BIN", MESHPERF_BIN_DIR, 1);
        execl("/bin/bash", "bash", "-c", command, (char *)NULL);
        _exit(127);
    }
    setpgid(self->pid, self->pid);
    self->pid_fd = (int)syscall(SYS_pidfd_open, self->pid, 0);
    assert_true(self->pid_fd >= 0);
    return self;
}

pid_t task_pid(const task_t *self)
{
    return self->pid;
}

static char *read_all(FILE *file)
{
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *text = calloc(1, (size_t)size + 1);
    size_t got = fread(text, 1, (size_t)size, file);
    text[got] = '\0';
    fclose(file);
    return text;
}

struct outcome task_wait(task_t **self_p, int timeout_s)
{
    task_t *self = *self_p;
    *self_p = NULL;
    struct pollfd end = {.fd = self->pid_fd, .events = POLLIN};
    bool in_time = poll(&end, 1, patience(timeout_s) * 1000) == 1;
    if (!in_time)
        kill(-self->pid, SIGKILL);
    int status = 0;
    waitpid(self->pid, &status, 0);
    close(self->pid_fd);
    struct outcome outcome = {.status = -1, .out = read_all(self->out), .err = read_all(self->err)};
    if (in_time)
        outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    free(self);
    return outcome;
}

void outcome_release(struct outcome *outcome)
{
    free(outcome->out);
    free(outcome->err);
    memset(outcome, 0, sizeof *outcome);
}

static struct outcome run(const char *dir, int timeout_s, const char *command)
{
    task_t *task = task_new(dir, command);
    return task_wait(&task, timeout_s);
}

// ------------------------------------------------------------------------------- the mesh

static void skip_without_namespaces(void)
{
    struct outcome can = run("/tmp", 10,
        // In a chroot / is no mount, and how mounts spread cannot be said of it.
        "mountpoint -q / && how=private || how=unchanged; "
        "unshare -mnp --propagation $how --fork --mount-proc true 2>/dev/null || "
        "unshare -rmnp --fork --mount-proc true");
    if (can.status != 0) {
        fprintf(stderr, "SKIPPED: no root and no user namespaces here: %s\n", can.err);
        exit(77);
    }
    outcome_release(&can);
}

mesh_t *mesh_up(const char *topology, const char *flags)
{
    skip_without_namespaces();
    mesh_t *self = calloc(1, sizeof *self);
    snprintf(self->dir, sizeof self->dir, "/tmp/meshperf-test.XXXXXX");
    assert_non_null(mkdtemp(self->dir));
    snprintf(self->topology, sizeof self->topology, "%s.topology", self->dir);
    FILE *file = fopen(self->topology, "w");
    assert_non_null(file);
    fputs(topology, file);
    fclose(file);
    struct outcome up = mesh_shell(self, 300, "$LAB up -t %s -b $BIN %s", self->topology, flags);
    if (up.status != 0) {
        struct outcome down = mesh_shell(self, 30, "$LAB down");
        outcome_release(&down);
        fail_msg("lab up: status %d\n%s%s", up.status, up.out, up.err);
    }
    outcome_release(&up);
    return self;
}

void mesh_down(mesh_t **self_p)
{
    mesh_t *self = *self_p;
    if (!self)
        return;
    struct outcome down = mesh_shell(self, 30, "$LAB down; rm -rf $DIR %s", self->topology);
    outcome_release(&down);
    free(self);
    *self_p = NULL;
}

int mesh_take_down(void **state)
{
    mesh_t *mesh = *state;
    mesh_down(&mesh);
    return 0;
}

const char *mesh_dir(const mesh_t *self)
{
    return self->dir;
}

char *mesh_topology_plain(unsigned count)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    fputs("subnet plain 10.88.1.0/24 fd88:1::/64\n", stream);
    for (unsigned i = 1; i <= count; i++)
        fprintf(stream, "host h%u plain\n", i);
    fclose(stream);
    return text;
}

struct outcome mesh_shell(mesh_t *self, int timeout_s, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *command = format_text(format, arguments);
    va_end(arguments);
    struct outcome outcome = run(self->dir, timeout_s, command);
    free(command);
    return outcome;
}

char *mesh_exec(mesh_t *self, const char *host, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *command = format_text(format, arguments);
    va_end(arguments);
    struct outcome outcome = mesh_shell(self, 60, "$LAB exec %s %s", host, command);
    if (outcome.status != 0)
        fail_msg("in %s: %s: status %d\n%s", host, command, outcome.status, outcome.err);
    free(command);
    free(outcome.err);
    return outcome.out;
}

void mesh_nft(mesh_t *self, const char *host, const char *rules, ...)
{
    va_list arguments;
    va_start(arguments, rules);
    char *text = format_text(rules, arguments);
    va_end(arguments);
    free(mesh_exec(self, host, "nft -f - <<'RULES'\n%s\nRULES", text));
    free(text);
}

double mesh_packets(mesh_t *self, const char *host, const char *counter)
{
    char *text = mesh_exec(self, host, "nft list counter %s", counter);
    const char *at = strstr(text, "packets ");
    double packets;
    if (!at || sscanf(at, "packets %lf", &packets) != 1)
        fail_msg("no counter %s in %s", counter, text);
    free(text);
    return packets;
}

struct outcome mesh_meshperf(mesh_t *self, int timeout_s, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *words = format_text(format, arguments);
    va_end(arguments);
    struct outcome outcome = mesh_shell(self, timeout_s, "$LAB meshperf %s", words);
    free(words);
    return outcome;
}

json_t *mesh_json(mesh_t *self, int *status, int timeout_s, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *words = format_text(format, arguments);
    va_end(arguments);
    struct outcome outcome = mesh_shell(self, timeout_s, "$LAB meshperf -o json %s", words);
    json_error_t error;
    json_t *document = json_loads(outcome.out, 0, &error);
    if (!document)
        fail_msg("meshperf -o json %s: status %d, %s at line %d\n%s\n%s", words, outcome.status,
            error.text, error.line, outcome.out, outcome.err);
    *status = outcome.status;
    outcome_release(&outcome);
    free(words);
    return document;
}

json_t *mesh_measured(mesh_t *self, bool (*good)(json_t *cell), json_t **cell, const char *test,
    const char *from, const char *to, const char *options)
{
    for (int tries = 1;; tries++) {
        int status;
        json_t *run_document =
            mesh_json(self, &status, 60, "-q run %s %s --from %s --to %s", test, options, from, to);
        *cell = cell_of(run_document, test, from, to);
        if (status != 0)
            fail_msg("%s %s, %s > %s: %s: %s", test, options, from, to, text_at(*cell, "state"),
                text_at(*cell, "reason"));
        if (tries == MESH_TRIES || !good || good(*cell))
            return run_document;
        json_decref(run_document);
    }
}

task_t *mesh_start(mesh_t *self, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *command = format_text(format, arguments);
    va_end(arguments);
    task_t *task = task_new(self->dir, command);
    free(command);
    return task;
}

void mesh_wait_until(mesh_t *self, int timeout_s, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *command = format_text(format, arguments);
    va_end(arguments);
    int64_t deadline = clock_mono_ns() + patience(timeout_s) * NS_PER_S;
    for (;;) {
        struct outcome outcome = run(self->dir, timeout_s, command);
        bool holds = outcome.status == 0;
        if (!holds && clock_mono_ns() > deadline)
            fail_msg("not within %d s: %s\n%s%s", patience(timeout_s), command, outcome.out,
                outcome.err);
        outcome_release(&outcome);
        if (holds)
            break;
        poll(NULL, 0, 50);
    }
    free(command);
}

// --------------------------------------------------------------------- reading documents

static json_t *value_at(json_t *object, const char *path)
{
    char *copy = strdup(path), *rest = copy, *key;
    while (object && (key = strsep(&rest, ".")))
        object = json_object_get(object, key);
    free(copy);
    return object;
}

json_t *cell_of(json_t *run_document, const char *test, const char *from, const char *to)
{
    size_t index;
    json_t *cell;
    json_array_foreach(json_object_get(run_document, "cells"), index, cell)
    {
        if (strcmp(text_at(cell, "test"), test) == 0 && strcmp(text_at(cell, "from"), from) == 0 &&
            strcmp(text_at(cell, "to"), to) == 0)
            return cell;
    }
    fail_msg("no cell %s %s > %s", test, from, to);
    return NULL;
}

double number_at(json_t *object, const char *path)
{
    json_t *value = value_at(object, path);
    if (!json_is_number(value)) {
        char *text = json_dumps(object, JSON_COMPACT);
        fail_msg("no number at %s in %s", path, text);
        free(text);
    }
    return json_number_value(value);
}

bool has_number(json_t *object, const char *path)
{
    return json_is_number(value_at(object, path));
}

const char *text_at(json_t *object, const char *path)
{
    const char *text = json_string_value(value_at(object, path));
    return text ? text : "";
}

size_t count_cells(json_t *run_document, const char *state)
{
    size_t index, count = 0;
    json_t *cell;
    json_array_foreach(json_object_get(run_document, "cells"), index, cell) count +=
        !state || strcmp(text_at(cell, "state"), state) == 0;
    return count;
}

bool is_close(double value, double truth, double tolerance)
{
    return fabs(value - truth) <= tolerance * fabs(truth);
}

void assert_close(double value, double truth, double tolerance, const char *what)
{
    if (!is_close(value, truth, tolerance))
        fail_msg(
            "%s: %g, but the truth is %g (tolerance %g %%)", what, value, truth, tolerance * 100);
}
