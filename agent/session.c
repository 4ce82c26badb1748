#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

#include "errors.h"
#include "log.h"
#include "session_parts.h"
#include "wire.h"

#define ANSWER_NS (10 * NS_PER_S) // HELLO and ENROL are answered within
#define STEADY_NS (10 * NS_PER_S) // a session that lived so long ends a row of failures
#define MISSES_MAX 3
#define STRANGERS_MAX 3
#define OUTBOX_MAX 256
#define FLUSH_NS (50 * NS_PER_MS)
#define EVENTS_A_TURN 64
#define GOODBYE_LINGER_MS 300

// -------------------------------------------------------------------------------------- sending

static void stamp(session_t *self, Mp__Envelope *envelope)
{
    if (self->state != STATE_REGISTERED)
        return;
    envelope->has_session = true;
    envelope->session = (ProtobufCBinaryData){ID_SIZE, self->id};
}

bool session_try(session_t *self, Mp__Envelope *envelope)
{
    stamp(self, envelope);
    int result = self->link ? link_send(self->link, envelope) : -EAGAIN;
    if (result && result != -EAGAIN)
        log_error("%s could not be sent: %s", wire_name(envelope), mesh_strerror(result));
    return result != -EAGAIN;
}

static void flush(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    session_t *self = arg;
    self->flush_timer = 0;
    for (Mp__Envelope *first; (first = zlist_first(self->outbox));) {
        if (!session_try(self, first)) {
            self->flush_timer = timers_after(self->timers, FLUSH_NS, flush, self);
            return;
        }
        // What stamp lent is not the copy's to free.
        first->has_session = false;
        first->session = (ProtobufCBinaryData){0, NULL};
        zlist_pop(self->outbox);
        wire_free(&first);
    }
    orders_pump(self);
}

void session_send(session_t *self, Mp__Envelope *envelope)
{
    if (zlist_size(self->outbox) == 0 && session_try(self, envelope))
        return;
    if (!self->link || zlist_size(self->outbox) >= OUTBOX_MAX) {
        log_debug("%s is dropped: the controller takes nothing", wire_name(envelope));
        return;
    }
    envelope->version = PROTO_VERSION;
    envelope->has_session = false;
    zlist_append(self->outbox, wire_copy(&envelope->base));
    if (!self->flush_timer)
        self->flush_timer = timers_after(self->timers, FLUSH_NS, flush, self);
}

static void outbox_clear(session_t *self)
{
    for (Mp__Envelope *first; (first = zlist_pop(self->outbox));) {
        first->has_session = false;
        first->session = (ProtobufCBinaryData){0, NULL};
        wire_free(&first);
    }
}

// ------------------------------------------------------------------------------------- the link

static void link_open(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    session_t *self = arg;
    const struct account *account = self->options.account;
    self->open_timer = 0;
    self->connected = false;
    if (account->enrolled)
        self->link =
            link_new(account->endpoint, account->controller_key, &account->key, LINK_AGENT);
    else
        self->link = link_new(
            self->token.endpoint, self->token.controller_key, &self->token.key, LINK_AGENT);
    self->state = account->enrolled ? STATE_GREETING : STATE_ENROLLING;
    if (self->link)
        return;
    log_error("no connection to %s can be made",
        account->enrolled ? account->endpoint : self->token.endpoint);
    session_fail(self, session_slowly());
}

static void link_close(session_t *self)
{
    uint64_t *const timers[] = {&self->open_timer, &self->answer_timer, &self->hello_timer,
        &self->heartbeat_timer, &self->resend_timer, &self->flush_timer};
    for (size_t i = 0; i < sizeof timers / sizeof *timers; i++)
        timers_cancel(self->timers, timers[i]);
    outbox_clear(self);
    link_destroy(&self->link);
    self->state = STATE_WAITING;
}

int64_t session_slowly(void)
{
    return timers_jitter(37500 * NS_PER_MS, 22500 * NS_PER_MS);
}

int64_t session_delay(session_t *self)
{
    if (self->state == STATE_REGISTERED &&
        clock_mono(self->clock) - self->registered_mono_ns > STEADY_NS)
        self->failures = 0;
    unsigned failures = self->failures++;
    if (failures == 0)
        return timers_jitter(NS_PER_S / 2, NS_PER_S / 2);
    if (failures <= 4)
        return timers_jitter(4500 * NS_PER_MS, 3500 * NS_PER_MS);
    return timers_jitter(30500 * NS_PER_MS, 29500 * NS_PER_MS);
}

void session_fail(session_t *self, int64_t delay_ns)
{
    link_close(self);
    self->open_timer = timers_after(self->timers, delay_ns, link_open, self);
}

void session_refused(session_t *self, const char *words)
{
    link_close(self);
    self->fatal = MESH_E_REFUSED;
    snprintf(self->error, sizeof self->error, "%s", words);
}

void session_as_itself(session_t *self)
{
    session_fail(self, 0);
}

static void answer_late(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    session_t *self = arg;
    self->answer_timer = 0;
    log_warn("the controller does not answer %s; trying again",
        self->state == STATE_ENROLLING ? "ENROL" : "HELLO");
    session_fail(self, session_delay(self));
}

static void await_answer(session_t *self)
{
    timers_cancel(self->timers, &self->answer_timer);
    self->answer_timer = timers_after(self->timers, ANSWER_NS, answer_late, self);
}

// ------------------------------------------------------------------------------------- greeting

static size_t fill_labels(const session_t *self, Mp__Label *labels, Mp__Label **list)
{
    const struct agent_settings *settings = self->options.settings;
    for (size_t i = 0; i < settings->label_count; i++) {
        mp__label__init(&labels[i]);
        labels[i].key = (char *)settings->labels[i].key;
        labels[i].value = (char *)settings->labels[i].value;
        list[i] = &labels[i];
    }
    return settings->label_count;
}

static void say_enrol(session_t *self)
{
    Mp__Label labels[SETTINGS_LABELS_MAX], *list[SETTINGS_LABELS_MAX];
    Mp__Enrol enrol = MP__ENROL__INIT;
    enrol.public_key =
        (ProtobufCBinaryData){IDENTITY_KEY_SIZE, self->options.account->key.public_key};
    enrol.name = (char *)self->options.settings->name;
    enrol.n_labels = fill_labels(self, labels, list);
    enrol.labels = list;
    enrol.version_min = PROTO_VERSION_MIN;
    enrol.version_max = PROTO_VERSION;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_ENROL;
    envelope.enrol = &enrol;
    session_send(self, &envelope);
    await_answer(self);
}

static void say_hello(session_t *self)
{
    const struct agent_settings *settings = self->options.settings;
    Mp__Label labels[SETTINGS_LABELS_MAX], *list[SETTINGS_LABELS_MAX];
    ProtobufCBinaryData running[GUARD_TESTS_MAX];
    char found[2][CAPABILITY_ADDRESS_SIZE], *addresses[2] = {found[0], found[1]};
    Mp__Capabilities capabilities;
    Mp__Hello hello = MP__HELLO__INIT;
    capability_to_wire(&self->capability, &settings->guard, &capabilities);
    hello.instance = (ProtobufCBinaryData){ID_SIZE, self->instance};
    hello.boot_id = self->capability.boot_id;
    hello.version_min = PROTO_VERSION_MIN;
    hello.version_max = PROTO_VERSION;
    hello.software = (char *)MESHPERF_VERSION;
    hello.capabilities = &capabilities;
    hello.n_addresses =
        capability_addresses(self->options.account->endpoint, settings->addresses, found);
    hello.addresses = addresses;
    hello.data_port = dataport_number(self->options.port);
    hello.n_running = runner_ids(self->runner, running, GUARD_TESTS_MAX);
    hello.running = running;
    hello.wall_ns = clock_wall(self->clock);
    hello.n_labels = fill_labels(self, labels, list);
    hello.labels = list;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    session_send(self, &envelope);
    await_answer(self);
}

static void hello_due(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    session_t *self = arg;
    self->hello_timer = 0;
    if (self->state == STATE_GREETING)
        say_hello(self);
}

void session_hello_soon(session_t *self, int64_t delay_ns)
{
    self->state = STATE_GREETING;
    timers_cancel(self->timers, &self->answer_timer);
    timers_cancel(self->timers, &self->heartbeat_timer);
    timers_cancel(self->timers, &self->hello_timer);
    self->hello_timer = timers_after(self->timers, delay_ns, hello_due, self);
}

// ----------------------------------------------------------------------------------- heartbeats

static void lease_over(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    session_t *self = arg;
    self->lease_timer = 0;
    if (runner_count(self->runner) > 0)
        log_warn("nothing was heard from the controller for %.1f s: tests are stopped",
            (double)self->lease_ns / NS_PER_S);
    orders_stop_all(self);
}

void session_lease(session_t *self)
{
    timers_cancel(self->timers, &self->lease_timer);
    self->lease_timer = timers_after(self->timers, self->lease_ns, lease_over, self);
}

static void say_heartbeat(session_t *self)
{
    Mp__Heartbeat heartbeat = MP__HEARTBEAT__INIT;
    heartbeat.sequence = ++self->heartbeat_sequence;
    heartbeat.running = runner_count(self->runner);
    heartbeat.has_spooled = heartbeat.has_wall_ns = true;
    heartbeat.spooled = (uint32_t)spool_count(self->spool);
    heartbeat.wall_ns = clock_wall(self->clock);
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_HEARTBEAT;
    envelope.heartbeat = &heartbeat;
    (void)session_try(self, &envelope);
}

static void heartbeat_due(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    session_t *self = arg;
    self->heartbeat_timer = 0;
    if (self->missed >= MISSES_MAX) {
        int64_t delay_ns = session_delay(self);
        bool first = self->failures == 1;
        log_warn("the controller does not answer heartbeats: connecting anew");
        session_fail(self, first ? 0 : delay_ns);
        return;
    }
    self->missed++;
    if (runner_count(self->runner) == 0 && capability_changed(&self->capability)) {
        log_info(
            "sctp: %s", self->capability.sctp ? "can be had now" : self->capability.sctp_reason);
        session_hello_soon(self, 0);
        return;
    }
    say_heartbeat(self);
    session_heartbeats(self);
}

void session_heartbeats(session_t *self)
{
    timers_cancel(self->timers, &self->heartbeat_timer);
    int64_t delay_ns = timers_jitter(self->heartbeat_ns, self->heartbeat_ns / 5);
    self->heartbeat_timer = timers_after(self->timers, delay_ns, heartbeat_due, self);
}

// ------------------------------------------------------------------------------ link events

static void on_connected(session_t *self)
{
    self->connected = true;
    self->strangers = 0;
    if (self->state == STATE_ENROLLING)
        say_enrol(self);
    else if (self->state == STATE_GREETING)
        say_hello(self);
}

static void on_refused(session_t *self)
{
    char words[SESSION_ERROR_SIZE];
    if (!self->options.account->enrolled) {
        snprintf(words, sizeof words,
            "the controller at %s does not accept this token (expired, used up, revoked, or "
            "another controller's)",
            self->token.endpoint);
        session_refused(self, words);
        return;
    }
    log_error("the controller at %s does not know this agent's key (any more): it was removed, or "
              "the controller is another one; trying again slowly. --rejoin enrols anew",
        self->options.account->endpoint);
    session_fail(self, session_slowly());
}

// Something is there, but it does not speak as the controller whose key we hold. Before the first
// enrolment that means a token of another controller, once a restart is ruled out.
static void on_no_handshake(session_t *self)
{
    bool enrolled = self->options.account->enrolled;
    if (++self->strangers >= STRANGERS_MAX && !enrolled) {
        on_refused(self);
        return;
    }
    log_warn("what answers at %s is not the controller that this agent knows",
        enrolled ? self->options.account->endpoint : self->token.endpoint);
    session_fail(self, session_delay(self));
}

static void on_disconnected(session_t *self)
{
    if (!self->connected)
        return; // libzmq tries again by itself
    log_warn("the connection to the controller ended");
    session_fail(self, session_delay(self));
}

static void on_shed(session_t *self)
{
    log_info("the controller is busy; trying again later");
    session_fail(self, session_delay(self));
}

static void link_events(session_t *self)
{
    static void (*const handlers[])(session_t * self) = {
        [LINK_CONNECTED] = on_connected,
        [LINK_DISCONNECTED] = on_disconnected,
        [LINK_REFUSED] = on_refused,
        [LINK_SHED] = on_shed,
        [LINK_NO_HANDSHAKE] = on_no_handshake,
        [LINK_RETRYING] = NULL,
    };
    const link_t *link = self->link;
    enum link_event event;
    while (self->link && self->link == link && (event = link_event(self->link)) != LINK_NOTHING)
        if (handlers[event])
            handlers[event](self);
}

static void link_messages(session_t *self)
{
    for (int i = 0; self->link && i < EVENTS_A_TURN; i++) {
        int error;
        Mp__Envelope *envelope = link_receive(self->link, &error);
        if (error)
            log_warn("a message from the controller is ignored: %s", mesh_strerror(error));
        if (!envelope && !error)
            return;
        if (envelope)
            orders_take(self, envelope);
        wire_free(&envelope);
    }
}

// ------------------------------------------------------------------------------------------ life

session_t *session_new(const struct session_options *options)
{
    session_t *self = zmalloc(sizeof *self);
    self->options = *options;
    self->clock = options->clock;
    if (options->token)
        self->token = *options->token;
    self->timers = timers_new(self->clock);
    self->spool = spool_new();
    self->outbox = zlist_new();
    randombytes_buf(self->instance, sizeof self->instance);
    const struct guard *guard = &options->settings->guard;
    capability_find(&self->capability, guard);
    struct runner_ops runner_ops = {.ctx = self,
        .ready = orders_ready,
        .progress = orders_progress,
        .report = orders_report,
        .find = options->find};
    struct lights_ops lights_ops = {.ctx = self,
        .armed = orders_light_armed,
        .result = orders_light_result,
        .run = options->light_run};
    self->runner = runner_new(guard, options->port, options->spin, &runner_ops);
    self->lights =
        lights_new(guard, options->port, options->spin, self->timers, self->clock, &lights_ops);
    struct reaches_ops reaches_ops = {.ctx = self,
        .armed = orders_light_armed,
        .opened = orders_light_opened,
        .result = orders_light_result};
    self->reaches = reaches_new(guard, self->timers, self->clock, &reaches_ops);
    if (!self->runner || !self->lights || !self->reaches)
        session_destroy(&self);
    else
        link_open(self, 0);
    return self;
}

void session_destroy(session_t **self_p)
{
    session_t *self = *self_p;
    if (!self)
        return;
    link_close(self);
    runner_destroy(&self->runner);
    lights_destroy(&self->lights);
    reaches_destroy(&self->reaches);
    spool_destroy(&self->spool);
    timers_destroy(&self->timers);
    zlist_destroy(&self->outbox);
    sodium_memzero(&self->token, sizeof self->token);
    free(self);
    *self_p = NULL;
}

const char *session_error(const session_t *self)
{
    return self->error;
}

static zmq_pollitem_t readable(zsock_t *socket, int fd)
{
    return (zmq_pollitem_t){
        .socket = socket ? zsock_resolve(socket) : NULL, .fd = fd, .events = ZMQ_POLLIN};
}

int session_step(session_t *self, int timeout_ms, int wake_fd)
{
    zmq_pollitem_t items[6];
    int count = 0, wait_ms = timers_wait_ms(self->timers);
    items[count++] = readable(runner_events(self->runner), -1);
    items[count++] = readable(lights_events(self->lights), -1);
    items[count++] = readable(reaches_events(self->reaches), -1);
    if (wake_fd >= 0)
        items[count++] = readable(NULL, wake_fd);
    if (self->link) {
        items[count++] = readable(link_socket(self->link), -1);
        items[count++] = readable(link_monitor(self->link), -1);
    }
    if (wait_ms < 0 || wait_ms > timeout_ms)
        wait_ms = timeout_ms;
    if (zmq_poll(items, count, wait_ms) < 0 && errno != EINTR)
        return -errno;
    // Messages first: a refusal in words says more than the disconnection behind it.
    link_messages(self);
    link_events(self);
    runner_turn(self->runner);
    lights_turn(self->lights);
    reaches_turn(self->reaches);
    timers_run(self->timers);
    return self->fatal;
}

void session_goodbye(session_t *self)
{
    orders_stop_all(self);
    if (self->state != STATE_REGISTERED)
        return;
    Mp__Goodbye goodbye = MP__GOODBYE__INIT;
    goodbye.text = (char *)"the agent was asked to stop";
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_GOODBYE;
    envelope.goodbye = &goodbye;
    (void)session_try(self, &envelope);
    zsock_set_linger(link_socket(self->link), GOODBYE_LINGER_MS);
}
