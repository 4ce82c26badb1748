#include "engine_bench.h"

#include "meshtest.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

static void tell_ready(void *ctx)
{
    int *fd = ctx;
    (void)!write(*fd, "", 1);
}

static void *listen_thread(void *arg)
{
    struct engine_bench *bench = arg;
    struct probe_hooks hooks = {
        .ctx = &bench->ready[1], .ready = tell_ready, .stop_fd = bench->listen_stop[0]};
    bench->kind->run(&bench->listening, bench->port, &hooks, &bench->listened);
    return NULL;
}

void engine_bench_begin(struct engine_bench *bench, const struct probe_kind *kind,
    const char *address, bool sender_connects)
{
    uint8_t id[TICKET_ID_SIZE], key[TICKET_KEY_SIZE];
    int error;
    memset(bench, 0, sizeof *bench);
    bench->kind = kind;
    bench->port = dataport_new(0, NULL, &error);
    assert_non_null(bench->port);
    assert_int_equal(pipe(bench->listen_stop) | pipe(bench->connect_stop) | pipe(bench->ready), 0);
    ticket_random(id, sizeof id);
    ticket_random(key, sizeof key);
    struct probe_order order = {.peer_port = dataport_number(bench->port),
        .expiry_mono_ns = clock_mono_ns() + 10 * NS_PER_S,
        .limit_ns = 60 * NS_PER_S};
    testspec_defaults(kind->kind, &order.spec);
    order.spec.duration_ns = 500 * NS_PER_MS;
    order.spec.interval_ns = 100 * NS_PER_MS;
    order.spec.omit_ns = 0;
    ticket_derive(id, key, &order.keys);
    snprintf(order.local_address, sizeof order.local_address, "%s", address);
    snprintf(order.peer_address, sizeof order.peer_address, "%s", address);
    bench->listening = bench->connecting = order;
    bench->connecting.connects = true;
    bench->connecting.sends = bench->listening.receives = sender_connects;
    bench->listening.sends = bench->connecting.receives = !sender_connects;
    probe_report_init(&bench->listened);
    probe_report_init(&bench->connected);
}

void engine_bench_listen(struct engine_bench *bench)
{
    struct pollfd poll_ready = {.fd = bench->ready[0], .events = POLLIN};
    assert_int_equal(pthread_create(&bench->listener, NULL, listen_thread, bench), 0);
    assert_int_equal(poll(&poll_ready, 1, 5000), 1);
}

void engine_bench_join(struct engine_bench *bench)
{
    pthread_join(bench->listener, NULL);
}

void engine_bench_run(struct engine_bench *bench)
{
    struct probe_hooks hooks = {.stop_fd = bench->connect_stop[0]};
    engine_bench_listen(bench);
    bench->kind->run(&bench->connecting, bench->port, &hooks, &bench->connected);
    engine_bench_join(bench);
}

void engine_bench_end(struct engine_bench *bench)
{
    if (!bench->port)
        return;
    probe_report_release(&bench->listened);
    probe_report_release(&bench->connected);
    dataport_destroy(&bench->port);
    int *pipes[] = {bench->listen_stop, bench->connect_stop, bench->ready};
    for (int i = 0; i < 3; i++) {
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
}

struct probe_report *engine_bench_sender(struct engine_bench *bench)
{
    return bench->connecting.sends ? &bench->connected : &bench->listened;
}

struct probe_report *engine_bench_receiver(struct engine_bench *bench)
{
    return bench->connecting.receives ? &bench->connected : &bench->listened;
}
