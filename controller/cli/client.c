#include "client.h"

#include <czmq.h>
#include <errno.h>

#include "clock.h"
#include "errors.h"
#include "link.h"
#include "wire.h"

struct client {
    link_t *link;
    uint64_t requests;
    bool broken; // the connection was lost and is not back yet
};

client_t *client_new(const struct operator_context *context)
{
    link_t *link =
        link_new(context->endpoint, context->controller_key, &context->key, LINK_COMMAND);
    if (!link)
        return NULL;
    client_t *self = zmalloc(sizeof *self);
    self->link = link;
    return self;
}

void client_destroy(client_t **self_p)
{
    if (*self_p)
        link_destroy(&(*self_p)->link);
    free(*self_p);
    *self_p = NULL;
}

// The answer to this request, or NULL; older answers are dropped.
static Mp__Envelope *matching_answer(client_t *self, int *error)
{
    for (;;) {
        Mp__Envelope *answer = link_receive(self->link, error);
        if (!answer)
            return NULL;
        if (answer->has_request && answer->request == self->requests)
            return answer;
        wire_free(&answer);
    }
}

// Whether the connection was lost or refused since the last look.
static int connection_trouble(client_t *self, bool *lost)
{
    enum link_event event;
    while ((event = link_event(self->link)) != LINK_NOTHING) {
        if (event == LINK_REFUSED)
            return MESH_E_REFUSED;
        *lost = *lost || event == LINK_DISCONNECTED;
        if (event == LINK_DISCONNECTED || event == LINK_CONNECTED)
            self->broken = event == LINK_DISCONNECTED;
    }
    return 0;
}

Mp__Envelope *client_ask(client_t *self, Mp__Envelope *question, int64_t timeout_ns,
    const volatile bool *interrupted, int *error)
{
    int64_t deadline = clock_mono_ns() + timeout_ns;
    const struct wire_rule *rule = wire_rule(question->body_case);
    bool sent = false, mutates = rule && rule->mutates;
    question->has_request = true;
    question->request = ++self->requests;
    while (clock_mono_ns() < deadline) {
        if (interrupted && *interrupted && !(sent && mutates)) {
            *error = MESH_E_STOPPED;
            return NULL;
        }
        bool lost = false;
        *error = connection_trouble(self, &lost);
        if (*error)
            return NULL;
        // What changes something may have been done although its answer is lost: once is enough.
        if (lost && !mutates)
            sent = false;
        // For a moment the dead connection still takes messages, and forgets them.
        if (!sent && !self->broken) {
            int result = link_send(self->link, question);
            if (result && result != -EAGAIN) {
                *error = result;
                return NULL;
            }
            sent = result == 0;
        }
        Mp__Envelope *answer = matching_answer(self, error);
        if (answer || *error)
            return answer;
        zmq_pollitem_t items[] = {{zsock_resolve(link_socket(self->link)), 0, ZMQ_POLLIN, 0},
            {zsock_resolve(link_monitor(self->link)), 0, ZMQ_POLLIN, 0}};
        zmq_poll(items, 2, sent ? 200 : 20);
    }
    *error = MESH_E_TIMEOUT;
    return NULL;
}
