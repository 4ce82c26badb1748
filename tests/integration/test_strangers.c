// Bytes from nobody: at the controller's port and at the agents' data port. Nothing crashes,
// nothing grows without bound, no answer is longer than its question, and a run goes on beside it.

#include <arpa/inet.h>
#include <czmq.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "identity.h"
#include "mesh.h"
#include "meshtest.h"

#define CONTROLLER "10.99.99.1"
#define CONTROLLER_PORT 5700
#define VICTIM "10.84.1.2"
#define DATA_PORT 5701

static int bring_up(void **state)
{
    *state =
        mesh_up("subnet plain 10.84.1.0/24\nhost h1 plain\nhost h2 plain\nhost h3 plain\n", "");
    return 0;
}

// Runs `body` as a stranger on h3, in a child process inside that network namespace.
static pid_t stranger(mesh_t *mesh, int (*body)(int64_t deadline_mono_ns), int seconds)
{
    char *holder = NULL;
    struct outcome read = mesh_shell(mesh, 5, "cat $DIR/holder");
    holder = strdup(read.out);
    outcome_release(&read);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char path[128];
        snprintf(path, sizeof path, "/proc/%d/root/run/netns/h3", atoi(holder));
        int ns = open(path, O_RDONLY);
        if (ns < 0 || setns(ns, CLONE_NEWNET) < 0)
            _exit(99);
        alarm((unsigned)seconds + 30);
        _exit(body(clock_mono_ns() + seconds * NS_PER_S));
    }
    free(holder);
    return pid;
}

static void stranger_done(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the stranger ended with %d (see its body)", status);
}

static long resident_kib(mesh_t *mesh, const char *daemon)
{
    struct outcome read = mesh_shell(
        mesh, 10, "$LAB exec ctl awk '/VmRSS/ {print $2}' /proc/$(cat $DIR/%s/pid)/status", daemon);
    long kib = atol(read.out);
    outcome_release(&read);
    assert_true(kib > 0);
    return kib;
}

static void the_mesh_works_beside(mesh_t *mesh, pid_t pid)
{
    int status;
    json_t *run = mesh_json(mesh, &status, 60, "run tcp udp -b 5M -t 1s -l h1 -l h2");
    assert_int_equal(status, 0);
    assert_int_equal(count_cells(run, "ok"), 4);
    json_decref(run);
    stranger_done(pid);
}

static struct sockaddr_in address(const char *host, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    return to;
}

static int connection(const char *host, int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = address(host, port);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void fill_random(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)random();
}

// --------------------------------------------------------------------- at the controller

static int random_bytes(int64_t deadline)
{
    uint8_t bytes[4096];
    unsigned connected = 0;
    while (clock_mono_ns() < deadline) {
        int fd = connection(CONTROLLER, CONTROLLER_PORT);
        if (fd < 0)
            continue;
        connected++;
        fill_random(bytes, sizeof bytes);
        for (int i = 0; i < 16; i++)
            (void)!send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);
        close(fd);
        poll(NULL, 0, 2);
    }
    return connected > 10 ? 0 : 1;
}

// The first bytes of a ZMTP 3 greeting, then one byte a second or nothing more.
static int half_greetings_and_slow_loris(int64_t deadline)
{
    static const uint8_t greeting[12] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0};
    int fds[200];
    for (unsigned i = 0; i < 200; i++) {
        fds[i] = connection(CONTROLLER, CONTROLLER_PORT);
        if (fds[i] >= 0)
            (void)!send(fds[i], greeting, 1 + i % sizeof greeting, MSG_NOSIGNAL);
    }
    while (clock_mono_ns() < deadline) {
        for (unsigned i = 0; i < 200; i++)
            if (fds[i] >= 0)
                (void)!send(fds[i], "\0", 1, MSG_NOSIGNAL);
        poll(NULL, 0, 1000);
    }
    return 0;
}

// A whole greeting with the CURVE mechanism, then frames that never end and claim to be huge.
static int endless_multipart(int64_t deadline)
{
    uint8_t greeting[64] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'C', 'U', 'R', 'V', 'E'};
    uint8_t frame[9 + 1024] = {0x03, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    int fds[20];
    for (unsigned i = 0; i < 20; i++) {
        fds[i] = connection(CONTROLLER, CONTROLLER_PORT);
        if (fds[i] >= 0)
            (void)!send(fds[i], greeting, sizeof greeting, MSG_NOSIGNAL);
    }
    while (clock_mono_ns() < deadline) {
        for (unsigned i = 0; i < 20; i++) {
            fill_random(frame + 9, 1024);
            if (fds[i] >= 0)
                (void)!send(fds[i], frame, sizeof frame, MSG_NOSIGNAL);
        }
        poll(NULL, 0, 5);
    }
    return 0;
}

static int idle_connections(int64_t deadline)
{
    unsigned open_now = 0;
    for (unsigned i = 0; i < 2000; i++)
        open_now += connection(CONTROLLER, CONTROLLER_PORT) >= 0;
    while (clock_mono_ns() < deadline)
        poll(NULL, 0, 200);
    return open_now >= 1900 ? 0 : 1;
}

static void beside(mesh_t *mesh, int (*body)(int64_t), const char *daemon, long grows_kib)
{
    long before = resident_kib(mesh, daemon);
    the_mesh_works_beside(mesh, stranger(mesh, body, 5));
    long after = resident_kib(mesh, daemon);
    if (after > before + grows_kib)
        fail_msg("%s grew from %ld to %ld KiB", daemon, before, after);
}

static void random_bytes_at_the_controller_disturb_nobody(void **state)
{
    beside(*state, random_bytes, "controller", 40000);
}

static void half_greetings_and_slow_loris_disturb_nobody(void **state)
{
    beside(*state, half_greetings_and_slow_loris, "controller", 40000);
}

static void an_endless_multipart_disturbs_nobody(void **state)
{
    beside(*state, endless_multipart, "controller", 40000);
}

static void two_thousand_idle_connections_disturb_nobody(void **state)
{
    beside(*state, idle_connections, "controller", 120000);
}

// --------------------------------------------------------------- from the holder of a token

static struct join_token leaked;

// Frames of one message that never ends, as fast as they are taken.
static int endless_message(int64_t deadline)
{
    zsys_init();
    zsock_t *socket = zsock_new(ZMQ_DEALER);
    char controller[IDENTITY_Z85_SIZE], public_key[IDENTITY_Z85_SIZE], secret[IDENTITY_Z85_SIZE];
    identity_z85(leaked.controller_key, controller);
    identity_z85(leaked.key.public_key, public_key);
    identity_z85(leaked.key.secret_key, secret);
    zsock_set_curve_serverkey(socket, controller);
    zsock_set_curve_publickey(socket, public_key);
    zsock_set_curve_secretkey(socket, secret);
    zsock_set_linger(socket, 0);
    if (zsock_connect(socket, "%s", leaked.endpoint) != 0)
        return 1;
    static uint8_t frame[200000];
    unsigned frames = 0;
    while (clock_mono_ns() < deadline) {
        if (zmq_send(zsock_resolve(socket), frame, sizeof frame, ZMQ_SNDMORE | ZMQ_DONTWAIT) > 0)
            frames++;
        else
            poll(NULL, 0, 1);
    }
    return frames > 100 ? 0 : 1;
}

// As deploy/systemd runs it: under a cap, and started again when it ends.
static void an_endless_message_from_a_token_costs_at_most_a_restart(void **state)
{
    mesh_t *mesh = *state;
    struct outcome token = mesh_shell(mesh, 20,
        "$LAB exec ctl sh -c 'prlimit --as=400000000 --pid $(cat $DIR/controller/pid)' && "
        "$LAB meshperf token create");
    assert_int_equal(token.status, 0);
    token.out[strcspn(token.out, "\n")] = '\0';
    assert_int_equal(join_token_read(token.out, &leaked), 0);
    outcome_release(&token);
    struct outcome started = mesh_meshperf(mesh, 20, "run udp -t 2s --detach");
    assert_int_equal(started.status, 0);
    outcome_release(&started);
    stranger_done(stranger(mesh, endless_message, 4));
    struct outcome alive = mesh_shell(mesh, 40,
        "$LAB exec ctl sh -c 'kill -0 $(cat $DIR/controller/pid)' 2>/dev/null || "
        "{ echo restarted; $LAB controller; }");
    printf("# the controller %s\n", *alive.out ? "was started again" : "lived on");
    assert_int_equal(alive.status, 0);
    outcome_release(&alive);
    struct outcome watched = mesh_meshperf(mesh, 120, "-o json watch last");
    assert_int_equal(watched.status, 0);
    json_t *run = json_loads(watched.out, 0, NULL);
    assert_non_null(run);
    assert_int_equal(count_cells(run, "ok"), 6);
    json_decref(run);
    outcome_release(&watched);
}

// ----------------------------------------------------------------------- at the data port

// Datagrams of every length, random or with the beginnings of ours; whatever comes back must not be
// longer than what was sent.
static int datagrams(int64_t deadline)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in to = address(VICTIM, DATA_PORT);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        return 1;
    uint8_t bytes[2048], answer[2048];
    uint64_t out = 0, in = 0;
    for (unsigned i = 0; clock_mono_ns() < deadline; i++) {
        size_t size = 1 + (size_t)random() % 1500;
        fill_random(bytes, size);
        if (i % 2 && size > 8)
            memcpy(bytes, "MPD1\1\0\0\0", 8);
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        out += sent > 0 ? (uint64_t)sent : 0;
        ssize_t got;
        while ((got = recv(fd, answer, sizeof answer, 0)) > 0)
            in += (uint64_t)got;
        if (i % 64 == 0)
            poll(NULL, 0, 1);
    }
    return in == 0 && out > 0 ? 0 : 1;
}

static int data_connections(int64_t deadline)
{
    uint8_t bytes[512];
    while (clock_mono_ns() < deadline) {
        int fd = connection(VICTIM, DATA_PORT);
        if (fd >= 0) {
            fill_random(bytes, sizeof bytes);
            (void)!send(fd, bytes, (size_t)random() % sizeof bytes, MSG_NOSIGNAL);
            struct pollfd in = {.fd = fd, .events = POLLIN};
            poll(&in, 1, 20);
            ssize_t got = recv(fd, bytes, sizeof bytes, 0);
            if (got > 0)
                return 1; // an answer to a stranger
            close(fd);
        } else {
            poll(NULL, 0, 5);
        }
    }
    return 0;
}

static void random_datagrams_at_the_data_port_get_no_answer_and_disturb_nobody(void **state)
{
    beside(*state, datagrams, "agents/h2", 8000);
}

static void strangers_connections_at_the_data_port_get_no_answer_and_disturb_nobody(void **state)
{
    beside(*state, data_connections, "agents/h2", 8000);
}

static void an_idle_agent_has_no_open_data_port(void **state)
{
    char *sockets = mesh_exec(*state, "h2", "ss -Hltun");
    assert_null(strstr(sockets, ":5701"));
    free(sockets);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_agent_has_no_open_data_port),
        cmocka_unit_test(random_bytes_at_the_controller_disturb_nobody),
        cmocka_unit_test(half_greetings_and_slow_loris_disturb_nobody),
        cmocka_unit_test(an_endless_multipart_disturbs_nobody),
        cmocka_unit_test(two_thousand_idle_connections_disturb_nobody),
        cmocka_unit_test(an_endless_message_from_a_token_costs_at_most_a_restart),
        cmocka_unit_test(random_datagrams_at_the_data_port_get_no_answer_and_disturb_nobody),
        cmocka_unit_test(strangers_connections_at_the_data_port_get_no_answer_and_disturb_nobody),
    };
    return cmocka_run_group_tests(tests, bring_up, mesh_take_down);
}
