#include "runner.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <sys/eventfd.h>

#include "clock.h"
#include "errors.h"
#include "log.h"
#include "report_wire.h"

#define STACK_BYTES (1024 * 1024) // address space; only what is touched is resident
#define PROGRESS_NS (250 * NS_PER_MS)
#define RECENT_MAX 256 // ids that are over and must not start again

enum event_type { EVENT_READY, EVENT_INTERVAL, EVENT_REPORT };

// What a test's thread says, as frames: an event, then the report and its intervals if it is one.
struct event {
    enum event_type type;
    uint8_t test_id[TICKET_ID_SIZE];
    struct probe_interval interval;
};

// What a thread starts with: its own, freed by it. Nothing else is shared but the port.
struct assignment {
    struct probe_order order;
    const struct probe_kind *kind;
    dataport_t *port;
    int stop_fd;
    char endpoint[64];
    zsock_t *events;
    int64_t last_progress_mono_ns;
};

struct test {
    uint8_t id[TICKET_ID_SIZE];
    pthread_t thread;
    int stop_fd;
    bool ready, stopped;
    struct test *next;
};

struct runner {
    const struct guard *guard;
    dataport_t *port;
    spin_t *spin;
    struct runner_ops ops;
    zsock_t *events;
    char endpoint[64];
    struct test *tests;
    unsigned count;
    uint8_t recent[RECENT_MAX][TICKET_ID_SIZE];
    size_t recent_at;
};

// ----------------------------------------------------------------------------- in the test's
// thread

static void event_send(struct assignment *self, struct event *event, int flags)
{
    memcpy(event->test_id, self->order.keys.id, TICKET_ID_SIZE);
    (void)zmq_send(zsock_resolve(self->events), event, sizeof *event, flags);
}

static void say_ready(void *ctx)
{
    struct event event = {.type = EVENT_READY};
    event_send(ctx, &event, 0);
}

static void say_interval(void *ctx, const struct probe_interval *interval)
{
    struct assignment *self = ctx;
    struct event event = {.type = EVENT_INTERVAL, .interval = *interval};
    int64_t now = clock_mono_ns();
    if (now - self->last_progress_mono_ns < PROGRESS_NS)
        return;
    self->last_progress_mono_ns = now;
    event_send(self, &event, ZMQ_DONTWAIT);
}

static void say_report(struct assignment *self, struct probe_report *report)
{
    struct event event = {.type = EVENT_REPORT};
    void *socket = zsock_resolve(self->events);
    event_send(self, &event, ZMQ_SNDMORE);
    (void)zmq_send(socket, report, sizeof *report, ZMQ_SNDMORE);
    (void)zmq_send(socket, report->receive.intervals,
        report->receive.interval_count * sizeof *report->receive.intervals, 0);
}

static void *test_main(void *arg)
{
    struct assignment *self = arg;
    struct probe_report report;
    struct probe_hooks hooks = {
        .ctx = self, .ready = say_ready, .interval = say_interval, .stop_fd = self->stop_fd};
    probe_report_init(&report);
    self->kind->run(&self->order, self->port, &hooks, &report);
    say_report(self, &report);
    probe_report_release(&report);
    ticket_wipe(&self->order.keys);
    zsock_destroy(&self->events);
    free(self);
    return NULL;
}

// ------------------------------------------------------------------------------------- the tests

static struct test **find(runner_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    struct test **at = &self->tests;
    while (*at && memcmp((*at)->id, id, TICKET_ID_SIZE) != 0)
        at = &(*at)->next;
    return at;
}

static void stop(struct test *test)
{
    uint64_t one = 1;
    test->stopped = true;
    if (write(test->stop_fd, &one, sizeof one) < 0)
        log_error("a test could not be stopped: %s", strerror(errno));
}

static void test_join(runner_t *self, struct test **at)
{
    struct test *test = *at;
    pthread_join(test->thread, NULL);
    close(test->stop_fd);
    *at = test->next;
    spin_load(self->spin, --self->count);
    free(test);
}

static void remember(runner_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    memcpy(self->recent[self->recent_at++ % RECENT_MAX], id, TICKET_ID_SIZE);
}

static bool is_over(const runner_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    for (size_t i = 0; i < RECENT_MAX && i < self->recent_at; i++)
        if (memcmp(self->recent[i], id, TICKET_ID_SIZE) == 0)
            return true;
    return false;
}

runner_t *runner_new(
    const struct guard *guard, dataport_t *port, spin_t *spin, const struct runner_ops *ops)
{
    runner_t *self = zmalloc(sizeof *self);
    uint64_t number;
    randombytes_buf(&number, sizeof number);
    self->guard = guard;
    self->port = port;
    self->spin = spin;
    self->ops = *ops;
    snprintf(self->endpoint, sizeof self->endpoint, "inproc://runner-%016llx",
        (unsigned long long)number);
    self->events = zsock_new(ZMQ_PULL);
    if (!self->events || zsock_bind(self->events, "%s", self->endpoint) != 0)
        runner_destroy(&self);
    return self;
}

void runner_destroy(runner_t **self_p)
{
    runner_t *self = *self_p;
    if (!self)
        return;
    runner_stop_all(self);
    // Reports that nobody reads must not hold their threads: the queue is endless for one each.
    while (self->tests)
        test_join(self, &self->tests);
    zsock_destroy(&self->events);
    free(self);
    *self_p = NULL;
}

zsock_t *runner_events(const runner_t *self)
{
    return self->events;
}

unsigned runner_count(const runner_t *self)
{
    return self->count;
}

size_t runner_ids(const runner_t *self, ProtobufCBinaryData *ids, size_t most)
{
    size_t count = 0;
    for (struct test *test = self->tests; test && count < most; test = test->next)
        ids[count++] = (ProtobufCBinaryData){TICKET_ID_SIZE, test->id};
    return count;
}

void runner_stop(runner_t *self, const uint8_t test_id[TICKET_ID_SIZE])
{
    struct test *test = *find(self, test_id);
    if (test && !test->stopped)
        stop(test);
}

void runner_stop_all(runner_t *self)
{
    for (struct test *test = self->tests; test; test = test->next)
        if (!test->stopped)
            stop(test);
}

// -------------------------------------------------------------------------------------- starting

static void refuse(
    runner_t *self, const uint8_t *id, Mp__Outcome outcome, bool retry, const char *reason)
{
    remember(self, id);
    self->ops.report(self->ops.ctx, id, report_refusal(outcome, retry, reason));
}

static void order_from_ticket(const Mp__Ticket *ticket, struct probe_order *order)
{
    ticket_derive(ticket->test_id.data, ticket->key.data, &order->keys);
    order->connects = ticket->connects;
    order->sends = ticket->sends;
    order->receives = ticket->receives;
    snprintf(order->local_address, sizeof order->local_address, "%s", ticket->local_address);
    snprintf(order->peer_address, sizeof order->peer_address, "%s", ticket->peer_address);
    order->peer_port = (uint16_t)ticket->peer_port;
    int64_t expiry_ns = ticket->expiry_ns < 3600 * NS_PER_S ? ticket->expiry_ns : 3600 * NS_PER_S;
    order->expiry_mono_ns = clock_mono_ns() + expiry_ns;
    order->limit_ns = ticket->limit_ns;
    order->limit_bps = ticket->has_limit_bps ? ticket->limit_bps : 0;
    order->limit_bytes = ticket->has_limit_bytes ? ticket->limit_bytes : 0;
}

// The thread and its socket, or a negative error.
static int launch(struct test *test, struct assignment *assignment)
{
    pthread_attr_t attributes;
    assignment->events = zsock_new(ZMQ_PUSH);
    if (!assignment->events)
        return -EMFILE;
    zsock_set_linger(assignment->events, -1);
    zsock_set_sndhwm(assignment->events, 0);
    if (zsock_connect(assignment->events, "%s", assignment->endpoint) != 0)
        return -EMFILE;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int result = -pthread_create(&test->thread, &attributes, test_main, assignment);
    pthread_attr_destroy(&attributes);
    return result;
}

static void begin(runner_t *self, const struct probe_order *order, const struct probe_kind *kind)
{
    struct assignment *assignment = zmalloc(sizeof *assignment);
    struct test *test = zmalloc(sizeof *test);
    memcpy(test->id, order->keys.id, sizeof test->id);
    test->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    *assignment = (struct assignment){
        .order = *order, .kind = kind, .port = self->port, .stop_fd = test->stop_fd};
    strcpy(assignment->endpoint, self->endpoint);
    int result = test->stop_fd < 0 ? -errno : launch(test, assignment);
    if (result == 0) {
        test->next = self->tests;
        self->tests = test;
        spin_load(self->spin, ++self->count);
        return;
    }
    char reason[128];
    snprintf(reason, sizeof reason, "the test could not begin: %s", mesh_strerror(result));
    refuse(self, test->id, MP__OUTCOME__OUTCOME_FAILED, true, reason);
    if (test->stop_fd >= 0)
        close(test->stop_fd);
    zsock_destroy(&assignment->events);
    free(assignment);
    free(test);
}

void runner_start(runner_t *self, const Mp__Ticket *ticket, const Mp__TestSpec *spec)
{
    const uint8_t *id = ticket->test_id.data;
    char reason[PROBE_TEXT_SIZE] = "";
    struct probe_order order = {0};
    struct test *known = *find(self, id);
    if (known && known->ready)
        self->ops.ready(self->ops.ctx, id);
    if (known || is_over(self, id))
        return;
    if (testspec_from_wire(spec, &order.spec, reason) != 0) {
        refuse(self, id, MP__OUTCOME__OUTCOME_FAILED, false, reason);
        return;
    }
    const struct probe_kind *kind = self->ops.find(order.spec.kind);
    if (!kind || !kind->supported(reason)) {
        if (!kind)
            snprintf(reason, sizeof reason, "this agent knows no test \"%s\"",
                test_kind_name(order.spec.kind));
        refuse(self, id, MP__OUTCOME__OUTCOME_UNSUPPORTED, false, reason);
        return;
    }
    order_from_ticket(ticket, &order);
    if (guard_admit(self->guard, &order, self->count, reason))
        begin(self, &order, kind);
    else
        refuse(self, id, MP__OUTCOME__OUTCOME_SKIPPED, false, reason);
    ticket_wipe(&order.keys);
}

// ---------------------------------------------------------------------------------------- events

// The address seen may be another than the ticket's (translation): the guard judges that one too.
static void judge_peer_seen(const runner_t *self, struct probe_report *report)
{
    if (!*report->peer_seen || guard_peer_allowed(self->guard, report->peer_seen))
        return;
    report->outcome = PROBE_SKIPPED;
    report->retry = report->has_send = report->has_receive = false;
    snprintf(report->reason, sizeof report->reason,
        "guard: peers: the peer was seen from %.64s, which this host's owner does not allow",
        report->peer_seen);
}

// Frames two and three of a report.
static bool report_receive(void *socket, struct probe_report *report, zmq_msg_t *intervals)
{
    zmq_msg_init(intervals);
    if (zmq_recv(socket, report, sizeof *report, 0) != (int)sizeof *report ||
        zmq_msg_recv(intervals, socket, 0) < 0)
        return false;
    report->receive.intervals = zmq_msg_data(intervals);
    return true;
}

static void event_report(runner_t *self, const struct event *event)
{
    struct probe_report report;
    zmq_msg_t intervals;
    bool whole = report_receive(zsock_resolve(self->events), &report, &intervals);
    struct test **at = find(self, event->test_id);
    assert(whole && *at);
    (void)whole;
    uint8_t id[TICKET_ID_SIZE];
    memcpy(id, event->test_id, sizeof id);
    test_join(self, at);
    remember(self, id);
    judge_peer_seen(self, &report);
    Mp__EndReport *wire = report_to_wire(&report);
    zmq_msg_close(&intervals);
    self->ops.report(self->ops.ctx, id, wire);
}

static void event_handle(runner_t *self, const struct event *event)
{
    struct test *test = *find(self, event->test_id);
    switch (event->type) {
    case EVENT_READY:
        if (test && !test->stopped) {
            test->ready = true;
            self->ops.ready(self->ops.ctx, event->test_id);
        }
        break;
    case EVENT_INTERVAL:
        self->ops.progress(self->ops.ctx, event->test_id, &event->interval);
        break;
    case EVENT_REPORT:
        event_report(self, event);
        break;
    }
}

void runner_turn(runner_t *self)
{
    struct event event;
    void *socket = zsock_resolve(self->events);
    for (int i = 0; i < 64; i++) {
        if (zmq_recv(socket, &event, sizeof event, ZMQ_DONTWAIT) != (int)sizeof event)
            return;
        event_handle(self, &event);
    }
}
