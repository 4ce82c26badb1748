// What the controller says, and what the tests answer to it.

#include <string.h>

#include "errors.h"
#include "log.h"
#include "report_wire.h"
#include "session_parts.h"
#include "wire.h"

#define RESEND_MIN_NS (5 * NS_PER_S)
#define RESEND_MAX_NS (60 * NS_PER_S)
#define LINK_FULL_NS (100 * NS_PER_MS)
#define MILLISECONDS_MAX 600000

// ------------------------------------------------------------------------------- results

static void resend(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    session_t *self = arg;
    self->resend_timer = 0;
    // The controller confirms in order, so one slow pair holds all: ask less and less often.
    self->resend_ns = self->resend_ns * 2 < RESEND_MAX_NS ? self->resend_ns * 2 : RESEND_MAX_NS;
    spool_rewind(self->spool);
    orders_pump(self);
}

// The link had no room: nothing was lost, so nothing is sent twice.
static void go_on(void *arg, int64_t now_mono_ns)
{
    (void)now_mono_ns;
    session_t *self = arg;
    self->resend_timer = 0;
    orders_pump(self);
}

void orders_pump(session_t *self)
{
    if (self->state != STATE_REGISTERED)
        return;
    Mp__Envelope *envelope;
    bool taken = true;
    while (taken && (envelope = spool_next(self->spool))) {
        taken = session_try(self, envelope);
        envelope->has_session = false;
        envelope->session = (ProtobufCBinaryData){0, NULL};
        wire_free(&envelope);
        if (taken)
            spool_sent(self->spool);
    }
    if (self->resend_timer || spool_count(self->spool) == 0)
        return;
    self->resend_timer = taken ? timers_after(self->timers, self->resend_ns, resend, self)
                               : timers_after(self->timers, LINK_FULL_NS, go_on, self);
}

static void keep(session_t *self, Mp__Envelope *envelope)
{
    int result = spool_put(self->spool, envelope);
    if (result)
        log_error("a result is lost: %s", mesh_strerror(result));
    orders_pump(self);
}

void orders_report(void *ctx, const uint8_t test_id[ID_SIZE], Mp__EndReport *report)
{
    session_t *self = ctx;
    Mp__Result result = MP__RESULT__INIT;
    result.test_id = (ProtobufCBinaryData){ID_SIZE, (uint8_t *)test_id};
    result.report = report;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_RESULT;
    envelope.result = &result;
    if (report->outcome != MP__OUTCOME__OUTCOME_OK)
        log_info("a test ends without a result: %s", report->reason ? report->reason : "stopped");
    keep(self, &envelope);
    mp__end_report__free_unpacked(report, NULL);
}

void orders_light_result(void *ctx, Mp__LightResult *result)
{
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_LIGHT_RESULT;
    envelope.light_result = result;
    keep(ctx, &envelope);
}

static void on_result_ack(session_t *self, const Mp__Envelope *envelope)
{
    if (!spool_acknowledge(self->spool, envelope->result_ack->sequence))
        return;
    timers_cancel(self->timers, &self->resend_timer);
    self->resend_ns = RESEND_MIN_NS;
    orders_pump(self);
}

// ------------------------------------------------------------------------- words of the tests

void orders_ready(void *ctx, const uint8_t test_id[ID_SIZE])
{
    Mp__Ready ready = MP__READY__INIT;
    ready.test_id = (ProtobufCBinaryData){ID_SIZE, (uint8_t *)test_id};
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_READY;
    envelope.ready = &ready;
    session_send(ctx, &envelope);
}

void orders_progress(
    void *ctx, const uint8_t test_id[ID_SIZE], const struct probe_interval *interval)
{
    session_t *self = ctx;
    Mp__Interval wire;
    Mp__Progress progress = MP__PROGRESS__INIT;
    interval_to_wire(interval, &wire);
    progress.test_id = (ProtobufCBinaryData){ID_SIZE, (uint8_t *)test_id};
    progress.interval = &wire;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_PROGRESS;
    envelope.progress = &progress;
    if (self->state == STATE_REGISTERED && zlist_size(self->outbox) == 0)
        (void)session_try(self, &envelope);
}

void orders_light_armed(void *ctx, const uint8_t batch[ID_SIZE], const char *refused)
{
    Mp__LightArmed armed = MP__LIGHT_ARMED__INIT;
    armed.batch = (ProtobufCBinaryData){ID_SIZE, (uint8_t *)batch};
    armed.refused = (char *)refused;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_LIGHT_ARMED;
    envelope.light_armed = &armed;
    session_send(ctx, &envelope);
}

void orders_light_opened(void *ctx, Mp__LightOpened *opened)
{
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_LIGHT_OPENED;
    envelope.light_opened = opened;
    session_send(ctx, &envelope);
}

void orders_stop_all(session_t *self)
{
    runner_stop_all(self->runner);
    lights_stop_all(self->lights);
    reaches_stop_all(self->reaches);
}

// ------------------------------------------------------------------------------- registration

static void on_enrolled(session_t *self, const Mp__Envelope *envelope)
{
    struct account *account = self->options.account;
    if (self->state != STATE_ENROLLING || !identity_name_valid(envelope->enrolled->name))
        return;
    strcpy(account->endpoint, self->token.endpoint);
    memcpy(account->controller_key, self->token.controller_key, IDENTITY_KEY_SIZE);
    strcpy(account->name, envelope->enrolled->name);
    int result = account_enrol(account, self->options.settings->state_dir);
    if (result) {
        self->fatal = result;
        snprintf(self->error, sizeof self->error, "the enrolment cannot be stored in %s: %s",
            self->options.settings->state_dir, mesh_strerror(result));
        return;
    }
    log_info("enrolled as %s at %s", account->name, account->endpoint);
    session_as_itself(self);
}

static int64_t milliseconds(uint32_t value, uint32_t least)
{
    value = value < least ? least : value > MILLISECONDS_MAX ? MILLISECONDS_MAX : value;
    return value * NS_PER_MS;
}

static void on_welcome(session_t *self, const Mp__Envelope *envelope)
{
    const Mp__Welcome *welcome = envelope->welcome;
    if (self->state != STATE_GREETING)
        return;
    if (self->epoch && welcome->epoch != self->epoch) {
        // Nobody waits for them any more; what they measured is sent all the same.
        orders_stop_all(self);
    }
    timers_cancel(self->timers, &self->answer_timer);
    self->state = STATE_REGISTERED;
    self->registered_mono_ns = clock_mono(self->clock);
    self->epoch = welcome->epoch;
    memcpy(self->id, welcome->session.data, ID_SIZE);
    self->heartbeat_ns = milliseconds(welcome->heartbeat_ms, 10);
    self->lease_ns = milliseconds(welcome->lease_ms, 100);
    self->missed = 0;
    self->resend_ns = RESEND_MIN_NS;
    session_heartbeats(self);
    session_lease(self);
    (void)spool_acknowledge(self->spool, welcome->acknowledged);
    spool_rewind(self->spool);
    log_info("registered as %s", welcome->name);
    self->options.registered(self->options.ctx, welcome->name);
    orders_pump(self);
}

static void on_retry_after(session_t *self, const Mp__Envelope *envelope)
{
    int64_t delay_ns = milliseconds(envelope->retry_after->delay_ms, 10);
    if (self->state == STATE_GREETING)
        session_hello_soon(self, timers_jitter(delay_ns, delay_ns / 5));
}

// Answers to what was sent before the new HELLO come as well: those are ignored in GREETING.
static void on_no_session(session_t *self, const Mp__Envelope *envelope)
{
    if (self->state != STATE_REGISTERED)
        return;
    log_info("the controller asks to register again%s%s", envelope->no_session->text ? ": " : "",
        envelope->no_session->text ? envelope->no_session->text : "");
    session_hello_soon(self, timers_jitter(250 * NS_PER_MS, 250 * NS_PER_MS));
}

static void on_refused(session_t *self, const Mp__Envelope *envelope)
{
    const Mp__Refused *refused = envelope->refused;
    const char *text = refused->text && *refused->text ? refused->text : "it gives no reason";
    char words[SESSION_ERROR_SIZE];
    if (self->state == STATE_ENROLLING) {
        if (refused->code == MP__REFUSED__CODE__TOKEN)
            snprintf(words, sizeof words,
                "the controller at %s does not accept this token (expired, used up, revoked, or "
                "another controller's): %s",
                self->token.endpoint, text);
        else
            snprintf(words, sizeof words, "the controller at %s refuses: %s", self->token.endpoint,
                text);
        // What may be over in a while is worth waiting for.
        bool passing =
            refused->code == MP__REFUSED__CODE__STORAGE || refused->code == MP__REFUSED__CODE__BUSY;
        if (!passing) {
            session_refused(self, words);
            return;
        }
        log_warn("%s", words);
        session_fail(self, session_slowly());
        return;
    }
    log_error("the controller at %s refuses this agent: %s; trying again slowly",
        self->options.account->endpoint, text);
    if (refused->code == MP__REFUSED__CODE__REMOVED) {
        orders_stop_all(self);
    }
    session_fail(self, session_slowly());
}

static void on_heartbeat_ack(session_t *self, const Mp__Envelope *envelope)
{
    if (envelope->heartbeat_ack->sequence > self->heartbeat_sequence)
        return;
    self->missed = 0;
    session_lease(self);
}

static void on_ping(session_t *self, const Mp__Envelope *envelope)
{
    Mp__Pong pong = MP__PONG__INIT;
    pong.nonce = envelope->ping->nonce;
    Mp__Envelope answer = MP__ENVELOPE__INIT;
    answer.body_case = MP__ENVELOPE__BODY_PONG;
    answer.pong = &pong;
    session_send(self, &answer);
}

// --------------------------------------------------------------------------------- orders

// Each running test and each batch will need room for what it measured.
static void start(session_t *self, const Mp__Ticket *ticket, const Mp__TestSpec *spec)
{
    size_t reserved = runner_count(self->runner) + lights_count(self->lights) + 1;
    if (spool_room(self->spool, reserved)) {
        runner_start(self->runner, ticket, spec);
        return;
    }
    char reason[128];
    snprintf(reason, sizeof reason,
        "this agent holds %zu results that the controller has not taken yet",
        spool_count(self->spool));
    orders_report(
        self, ticket->test_id.data, report_refusal(MP__OUTCOME__OUTCOME_FAILED, true, reason));
}

static void on_prepare(session_t *self, const Mp__Envelope *envelope)
{
    const Mp__Prepare *prepare = envelope->prepare;
    if (prepare->epoch >= self->epoch && !prepare->ticket->connects)
        start(self, prepare->ticket, prepare->spec);
}

static void on_start(session_t *self, const Mp__Envelope *envelope)
{
    const Mp__Start *order = envelope->start;
    if (order->epoch >= self->epoch && order->ticket->connects)
        start(self, order->ticket, order->spec);
}

static void on_stop(session_t *self, const Mp__Envelope *envelope)
{
    runner_stop(self->runner, envelope->stop->test_id.data);
    lights_stop(self->lights, envelope->stop->test_id.data);
    reaches_stop(self->reaches, envelope->stop->test_id.data);
}

static void on_light_arm(session_t *self, const Mp__Envelope *envelope)
{
    const Mp__LightArm *arm = envelope->light_arm;
    if (arm->epoch < self->epoch)
        return;
    bool port = reaches_knows(arm->spec);
    size_t reserved = runner_count(self->runner) + lights_count(self->lights) +
                      (port ? reaches_results(arm->parts) : arm->parts);
    if (spool_room(self->spool, reserved) && port)
        reaches_arm(self->reaches, arm);
    else if (spool_room(self->spool, reserved))
        lights_arm(self->lights, arm);
    else
        orders_light_armed(self, arm->batch.data,
            "this agent holds too many results that the "
            "controller has not taken yet");
}

static void on_light_go(session_t *self, const Mp__Envelope *envelope)
{
    // Each knows its own batches.
    lights_go(self->lights, envelope->light_go->batch.data);
    reaches_go(self->reaches, envelope->light_go);
}

static void on_light_close(session_t *self, const Mp__Envelope *envelope)
{
    reaches_close(self->reaches, envelope->light_close->batch.data);
}

static const struct {
    Mp__Envelope__BodyCase body;
    bool registered; // only within a session
    void (*handle)(session_t *self, const Mp__Envelope *envelope);
} handlers[] = {
    {MP__ENVELOPE__BODY_ENROLLED, false, on_enrolled},
    {MP__ENVELOPE__BODY_WELCOME, false, on_welcome},
    {MP__ENVELOPE__BODY_RETRY_AFTER, false, on_retry_after},
    {MP__ENVELOPE__BODY_NO_SESSION, false, on_no_session},
    {MP__ENVELOPE__BODY_REFUSED, false, on_refused},
    {MP__ENVELOPE__BODY_HEARTBEAT_ACK, true, on_heartbeat_ack},
    {MP__ENVELOPE__BODY_PING, true, on_ping},
    {MP__ENVELOPE__BODY_PREPARE, true, on_prepare},
    {MP__ENVELOPE__BODY_START, true, on_start},
    {MP__ENVELOPE__BODY_STOP, true, on_stop},
    {MP__ENVELOPE__BODY_RESULT_ACK, true, on_result_ack},
    {MP__ENVELOPE__BODY_LIGHT_ARM, true, on_light_arm},
    {MP__ENVELOPE__BODY_LIGHT_GO, true, on_light_go},
    {MP__ENVELOPE__BODY_LIGHT_CLOSE, true, on_light_close},
};

static bool of_this_session(const session_t *self, const Mp__Envelope *envelope)
{
    return self->state == STATE_REGISTERED &&
           (!envelope->has_session || memcmp(envelope->session.data, self->id, ID_SIZE) == 0);
}

void orders_take(session_t *self, const Mp__Envelope *envelope)
{
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++) {
        if (handlers[i].body != envelope->body_case)
            continue;
        if (!handlers[i].registered || of_this_session(self, envelope))
            handlers[i].handle(self, envelope);
        else
            log_debug("%s outside a session is ignored", wire_name(envelope));
        return;
    }
    log_debug("%s is nothing for an agent", wire_name(envelope));
}
