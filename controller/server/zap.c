#include "zap.h"

#include <czmq.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
// Handshakes with join tokens: so many a second, and so many at once, before clients are told to
// come back later. Agents and operators are never shed here.
#define ENROL_RATE 300
#define ENROL_BURST 1000
#define LOG_RATE 5
#define LOG_BURST 20

enum job_kind { JOB_PUT, JOB_DROP, JOB_COUNT };

struct job {
    enum job_kind kind;
    struct zap_entry entry;
};

// Tokens that trickle in with time; taking one asks permission.
struct bucket {
    double level, rate, burst;
    int64_t filled_mono_ns;
};

struct zap {
    zactor_t *actor;
};

// The actor's own state; nothing of it is seen by another thread.
struct handler {
    zsock_t *pipe;
    zsock_t *socket;
    zhashx_t *entries; // Z85 of the key -> struct zap_entry
    struct zap_counts counts;
    struct bucket enrolments, lines;
    uint64_t lines_dropped;
};

// One question of libzmq, after its frames were checked. Pointers into the message.
struct question {
    char request[32];
    size_t request_size;
    char domain[32];
    char address[64];
    char key[IDENTITY_Z85_SIZE];
    const char *fault; // why it is no proper question, or NULL
};

struct verdict {
    const char *code; // "200", "300", "400"
    const char *text;
};

static bool bucket_take(struct bucket *bucket, int64_t now_ns)
{
    bucket->level += (double)(now_ns - bucket->filled_mono_ns) / NS_PER_S * bucket->rate;
    bucket->filled_mono_ns = now_ns;
    if (bucket->level > bucket->burst)
        bucket->level = bucket->burst;
    if (bucket->level < 1)
        return false;
    bucket->level -= 1;
    return true;
}

// Refusals are an attacker's to provoke, so the log takes a few a second and counts the rest.
static void handler_log_refusal(
    struct handler *self, const struct question *question, const char *who, const char *reason)
{
    if (!bucket_take(&self->lines, clock_mono_ns())) {
        self->lines_dropped++;
        return;
    }
    if (self->lines_dropped > 0) {
        log_warn("%llu more refused connections were not logged",
            (unsigned long long)self->lines_dropped);
        self->lines_dropped = 0;
    }
    const char *from = question->address;
    if (!*from || strncmp(from, "localhost:", 10) == 0)
        from = "this host";
    else if (strncmp(from, "::ffff:", 7) == 0 && strchr(from, '.'))
        from += 7;
    log_warn("refused a connection from %s to the %s' socket: %s%s%s", from, question->domain,
        who ? who : "", who ? " " : "", reason);
}

static bool frame_text(zframe_t *frame, char *text, size_t room)
{
    if (!frame || zframe_size(frame) >= room)
        return false;
    memcpy(text, zframe_data(frame), zframe_size(frame));
    text[zframe_size(frame)] = 0;
    return strlen(text) == zframe_size(frame);
}

// Frames: version, request id, domain, address, routing id, mechanism, the client's public key.
static void question_read(zmsg_t *message, struct question *question)
{
    *question = (struct question){.fault = NULL};
    char version[8], mechanism[16];
    zframe_t *frames[7] = {NULL};
    frames[0] = zmsg_first(message);
    for (size_t i = 1; i < 7; i++)
        frames[i] = zmsg_next(message);

    if (frames[1] && zframe_size(frames[1]) <= sizeof question->request) {
        question->request_size = zframe_size(frames[1]);
        memcpy(question->request, zframe_data(frames[1]), question->request_size);
    }
    if (zmsg_size(message) != 7)
        question->fault = "a malformed question from libzmq";
    else if (!frame_text(frames[0], version, sizeof version) || strcmp(version, "1.0") != 0)
        question->fault = "an unknown version of ZAP";
    else if (!frame_text(frames[2], question->domain, sizeof question->domain))
        question->fault = "a malformed domain";
    else if (!frame_text(frames[3], question->address, sizeof question->address))
        question->fault = "a malformed address";
    else if (!frame_text(frames[5], mechanism, sizeof mechanism) || strcmp(mechanism, "CURVE") != 0)
        question->fault = "its mechanism is not CURVE";
    else if (zframe_size(frames[6]) != IDENTITY_KEY_SIZE)
        question->fault = "its key has a wrong length";
    else
        identity_z85(zframe_data(frames[6]), question->key);
}

static bool domain_admits(const char *domain, enum wire_role role)
{
    if (strcmp(domain, ZAP_DOMAIN_AGENTS) == 0)
        return (role & (WIRE_ENROL | WIRE_AGENT)) != 0;
    if (strcmp(domain, ZAP_DOMAIN_OPERATORS) == 0)
        return (role & (WIRE_VIEWER | WIRE_OPERATOR | WIRE_ADMIN)) != 0;
    return false;
}

static const char *entry_fault(const struct zap_entry *entry, const char *domain)
{
    if (entry->standing == ZAP_REVOKED)
        return "was revoked";
    if (entry->standing == ZAP_USED_UP)
        return "is used up";
    if (entry->expires_wall_ns != 0 && clock_wall_ns() >= entry->expires_wall_ns)
        return "has expired";
    if (!domain_admits(domain, entry->role))
        return "may not use this socket";
    return NULL;
}

static struct verdict handler_judge(struct handler *self, const struct question *question)
{
    if (question->fault) {
        handler_log_refusal(self, question, NULL, question->fault);
        return (struct verdict){"400", "malformed"};
    }
    const struct zap_entry *entry = zhashx_lookup(self->entries, question->key);
    if (!entry) {
        handler_log_refusal(self, question, NULL, "its key is not known");
        return (struct verdict){"400", "unknown key"};
    }
    char who[96];
    snprintf(
        who, sizeof who, "%s %s", entry->role == WIRE_ENROL ? "token" : "the key of", entry->label);
    const char *fault = entry_fault(entry, question->domain);
    if (fault) {
        handler_log_refusal(self, question, who, fault);
        return (struct verdict){"400", "refused"};
    }
    if (entry->role == WIRE_ENROL && !bucket_take(&self->enrolments, clock_mono_ns())) {
        handler_log_refusal(self, question, who, "must come back later: too many enrolments");
        return (struct verdict){"300", "busy"};
    }
    return (struct verdict){"200", "OK"};
}

static void handler_answer(struct handler *self)
{
    zmsg_t *message = zmsg_recv(self->socket);
    if (!message)
        return;
    struct question question;
    question_read(message, &question);
    zmsg_destroy(&message);
    struct verdict verdict = handler_judge(self, &question);
    bool admitted = verdict.code[0] == '2';
    self->counts.admitted += admitted;
    self->counts.shed += verdict.code[0] == '3';
    self->counts.refused += verdict.code[0] == '4';

    zmsg_t *answer = zmsg_new();
    zmsg_addstr(answer, "1.0");
    zmsg_addmem(answer, question.request, question.request_size);
    zmsg_addstr(answer, verdict.code);
    zmsg_addstr(answer, verdict.text);
    zmsg_addstr(answer, admitted ? question.key : "");
    zmsg_addmem(answer, "", 0);
    zmsg_send(&answer, self->socket);
}

static void handler_work(struct handler *self, const struct job *job)
{
    char key[IDENTITY_Z85_SIZE];
    if (job->kind != JOB_COUNT)
        identity_z85(job->entry.key, key);
    if (job->kind == JOB_PUT) {
        struct zap_entry *entry = zmalloc(sizeof *entry);
        *entry = job->entry;
        zhashx_update(self->entries, key, entry);
    } else if (job->kind == JOB_DROP) {
        zhashx_delete(self->entries, key);
    }
    // The answer says that the change has been made.
    zframe_t *frame = zframe_new(&self->counts, sizeof self->counts);
    zframe_send(&frame, self->pipe, 0);
}

// False when the actor is told to end.
static bool handler_command(struct handler *self)
{
    zmsg_t *message = zmsg_recv(self->pipe);
    if (!message)
        return false;
    zframe_t *frame = zmsg_first(message);
    bool go_on = !zframe_streq(frame, "$TERM");
    if (go_on && zframe_size(frame) == sizeof(struct job)) {
        struct job job;
        memcpy(&job, zframe_data(frame), sizeof job);
        handler_work(self, &job);
    }
    zmsg_destroy(&message);
    return go_on;
}

static void entry_free(void **entry_p)
{
    free(*entry_p);
    *entry_p = NULL;
}

static void handler_run(struct handler *self)
{
    zmq_pollitem_t items[2] = {{.socket = zsock_resolve(self->pipe), .events = ZMQ_POLLIN},
        {.socket = zsock_resolve(self->socket), .events = ZMQ_POLLIN}};
    for (;;) {
        if (zmq_poll(items, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            return;
        }
        if ((items[0].revents & ZMQ_POLLIN) && !handler_command(self))
            return;
        if (items[1].revents & ZMQ_POLLIN)
            handler_answer(self);
    }
}

static void zap_actor(zsock_t *pipe, void *arg)
{
    struct handler self = {.pipe = pipe,
        .socket = arg,
        .entries = zhashx_new(),
        .enrolments = {ENROL_BURST, ENROL_RATE, ENROL_BURST, clock_mono_ns()},
        .lines = {LOG_BURST, LOG_RATE, LOG_BURST, clock_mono_ns()}};
    zhashx_set_destructor(self.entries, entry_free);
    zsock_signal(pipe, 0);
    handler_run(&self);
    // Closing alone frees the endpoint some time later, and a successor could not bind.
    zsock_unbind(self.socket, "%s", ZAP_ENDPOINT);
    zsock_destroy(&self.socket);
    zhashx_destroy(&self.entries);
}

zap_t *zap_new(void)
{
    // Bound here rather than in the actor, so that failure is known at once; a socket may move to
    // another thread before its first use there.
    zsock_t *socket = zsock_new(ZMQ_REP);
    if (!socket)
        return NULL;
    zsock_set_linger(socket, 0);
    if (zsock_bind(socket, "%s", ZAP_ENDPOINT) < 0) {
        zsock_destroy(&socket);
        return NULL;
    }
    zap_t *self = zmalloc(sizeof *self);
    self->actor = zactor_new(zap_actor, socket);
    if (!self->actor) {
        zsock_destroy(&socket);
        free(self);
        return NULL;
    }
    return self;
}

void zap_destroy(zap_t **self_p)
{
    if (!self_p || !*self_p)
        return;
    zactor_destroy(&(*self_p)->actor);
    free(*self_p);
    *self_p = NULL;
}

static struct zap_counts zap_ask(zap_t *self, const struct job *job)
{
    struct zap_counts counts = {0};
    zframe_t *frame = zframe_new(job, sizeof *job);
    if (zframe_send(&frame, self->actor, 0) < 0) {
        zframe_destroy(&frame);
        return counts;
    }
    frame = zframe_recv(self->actor);
    if (frame && zframe_size(frame) == sizeof counts)
        memcpy(&counts, zframe_data(frame), sizeof counts);
    zframe_destroy(&frame);
    return counts;
}

void zap_put(zap_t *self, const struct zap_entry *entry)
{
    struct job job = {.kind = JOB_PUT, .entry = *entry};
    zap_ask(self, &job);
}

void zap_drop(zap_t *self, const uint8_t key[IDENTITY_KEY_SIZE])
{
    struct job job = {.kind = JOB_DROP};
    memcpy(job.entry.key, key, IDENTITY_KEY_SIZE);
    zap_ask(self, &job);
}

struct zap_counts zap_count(zap_t *self)
{
    struct job job = {.kind = JOB_COUNT};
    return zap_ask(self, &job);
}
