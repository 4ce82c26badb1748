#include "probe.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kinds.h"
#include "probe_setup.h"
#include "sctp.h"
#include "tcp_parts.h"

// Streams are numbered flow by flow: control, then load 1..P. Flow 0 is the only one, or with
// --bidir the one in which the connecting end sends; flow 1 is then the other direction.
#define FLOWS_MAX 2
#define STREAM_NUMBERS 256

struct tcp_test {
    const struct probe_order *order;
    const struct probe_hooks *hooks;
    struct probe_report *report;
    struct probe_streams streams; // all of them, control included
    unsigned flow_count;
    beside_t *beside;
    int fds[STREAM_NUMBERS];
    struct tcp_flow flows[FLOWS_MAX];
};

// A control connection is left as the kernel makes it.
static int dress(int fd, unsigned stream, const struct probe_order *order)
{
    bool control = stream % (order->spec.parallel + 1) == 0;
    if (control)
        return 0;
    if (order->spec.kind == TEST_SCTP && order->connects) {
        int rc = sctp_ask_streams(fd, order->spec.streams);
        if (rc < 0)
            return rc;
    }
    return probe_socket_options(fd, order);
}

// ------------------------------------------------------------------ running

struct helper {
    struct tcp_flow *flow;
    struct probe_report report;
};

static void *receive_apart(void *arg)
{
    struct helper *helper = arg;
    tcp_receive(helper->flow, &helper->report);
    return NULL;
}

static double needed(const struct probe_load *load)
{
    return load->busiest_thread + (load->run_queue_wait > 0 ? load->run_queue_wait : 0);
}

static void join_reports(struct probe_report *report, struct probe_report *other)
{
    report->receive = other->receive;
    report->has_receive = other->has_receive;
    if (!(needed(&report->load) >= needed(&other->load))) {
        report->load.busiest_thread = other->load.busiest_thread;
        report->load.run_queue_wait = other->load.run_queue_wait;
    }
    report->load.cores += other->load.cores;
    size_t have = strlen(report->technique);
    snprintf(report->technique + have, sizeof report->technique - have, "%s%s", have ? "; " : "",
        other->technique);
    if (other->outcome != PROBE_OK)
        probe_report_fail(report, other->outcome, other->retry, "%s", other->reason);
    else if (other->reason[0] && !report->reason[0])
        memcpy(report->reason, other->reason, sizeof report->reason);
}

static void run_both(struct tcp_test *self)
{
    struct tcp_flow *out = &self->flows[self->order->connects ? 0 : 1];
    struct tcp_flow *in = &self->flows[self->order->connects ? 1 : 0];
    struct helper helper = {.flow = in};
    probe_report_init(&helper.report);
    helper.report.family = self->report->family;
    helper.report.record = self->report->record;
    pthread_t thread;
    int error = pthread_create(&thread, NULL, receive_apart, &helper);
    if (error) {
        probe_report_fail(self->report, PROBE_FAILED, true, "no thread: %s", strerror(error));
        return;
    }
    tcp_send(out, self->report);
    pthread_join(thread, NULL);
    join_reports(self->report, &helper.report);
}

static void make_flows(struct tcp_test *self)
{
    unsigned parallel = self->order->spec.parallel;
    for (unsigned i = 0; i < self->flow_count; i++) {
        int *first = self->fds + i * (parallel + 1);
        self->flows[i] = (struct tcp_flow){.order = self->order,
            .hooks = self->hooks,
            .sctp = self->streams.protocol == DATAPORT_SCTP,
            .control_fd = first[0],
            .fds = first + 1,
            .streams = parallel,
            .beside = self->beside};
    }
}

void tcp_run(const struct probe_order *order, dataport_t *port, const struct probe_hooks *hooks,
    struct probe_report *report, enum dataport_protocol protocol)
{
    struct tcp_test self = {.order = order,
        .hooks = hooks,
        .report = report,
        .flow_count = order->sends && order->receives ? 2 : 1};
    self.streams = (struct probe_streams){.order = order,
        .hooks = hooks,
        .port = port,
        .report = report,
        .protocol = protocol,
        .count = self.flow_count * (order->spec.parallel + 1),
        .fds = self.fds,
        .prepare = dress};
    if (self.streams.count > STREAM_NUMBERS) {
        probe_report_fail(
            report, PROBE_UNSUPPORTED, false, "--bidir takes at most 127 parallel streams");
        return;
    }
    for (unsigned i = 0; i < STREAM_NUMBERS; i++)
        self.fds[i] = -1;
    self.beside = beside_new(order, port);
    if (probe_streams_open(&self.streams)) {
        make_flows(&self);
        // In a bidirectional test flow 0 is the connecting end's.
        probe_describe_socket(
            self.fds[1], order, self.flow_count == 2 ? order->connects : order->sends, report);
        beside_idle(self.beside, hooks->stop_fd);
        if (self.flow_count == 2)
            run_both(&self);
        else if (order->sends)
            tcp_send(&self.flows[0], report);
        else
            tcp_receive(&self.flows[0], report);
    }
    beside_end(&self.beside, report);
    probe_streams_close(&self.streams);
}

static void run(const struct probe_order *order, dataport_t *port, const struct probe_hooks *hooks,
    struct probe_report *report)
{
    tcp_run(order, port, hooks, report, DATAPORT_TCP);
}

static bool supported(char *reason)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        snprintf(reason, PROBE_TEXT_SIZE, "no TCP sockets: %s", strerror(errno));
        return false;
    }
    close(fd);
    return true;
}

const struct probe_kind probe_tcp = {
    .kind = TEST_TCP, .name = "tcp", .supported = supported, .run = run};
