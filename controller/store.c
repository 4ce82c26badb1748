#include "store.h"

#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "store_parts.h"

#define ERROR_SIZE 512

// --------------------------------------------------------------------------------------- jobs

void *job_new(size_t size, int (*work)(struct db *db, struct job *self))
{
    struct job *self = zmalloc(size);
    self->work = work;
    return self;
}

void job_free(struct job **self_p)
{
    struct job *self = *self_p;
    if (self && self->release)
        self->release(self);
    free(self);
    *self_p = NULL;
}

void store_send(store_t *self, struct job *job)
{
    // Inside a process and without a high-water mark this neither blocks nor fails.
    int rc = zsock_send(self->front, "p", job);
    assert(rc == 0);
    (void)rc;
}

// ------------------------------------------------------------------------------------ the store

static bool open_sockets(store_t *self)
{
    // Not of the object's address: an earlier one's endpoint may outlive it for a moment.
    uint64_t unique;
    char endpoint[64];
    randombytes_buf(&unique, sizeof unique);
    snprintf(endpoint, sizeof endpoint, "inproc://store-%016" PRIx64, unique);
    self->front = zsock_new(ZMQ_PAIR);
    self->back = zsock_new(ZMQ_PAIR);
    if (!self->front || !self->back)
        return false;
    zsock_t *ends[2] = {self->front, self->back};
    for (int i = 0; i < 2; i++) {
        zsock_set_sndhwm(ends[i], 0);
        zsock_set_rcvhwm(ends[i], 0);
        zsock_set_linger(ends[i], 0);
    }
    return zsock_bind(self->front, "%s", endpoint) >= 0 &&
           zsock_connect(self->back, "%s", endpoint) == 0;
}

store_t *store_new(const char *path, char *error)
{
    store_t *self = zmalloc(sizeof *self);
    snprintf(error, ERROR_SIZE, "out of sockets");
    if (snprintf(self->path, sizeof self->path, "%s", path) >= (int)sizeof self->path) {
        snprintf(error, ERROR_SIZE, "the path of the database is too long");
        store_destroy(&self);
    } else if (!db_open(&self->db, path, error) || !open_sockets(self)) {
        store_destroy(&self);
    }
    return self;
}

// Completions of the last writes are not told any more: who waits for them is going too.
static void drain(zsock_t *socket)
{
    if (!socket)
        return;
    zsock_set_rcvtimeo(socket, 0);
    struct job *job;
    while (zsock_recv(socket, "p", &job) == 0)
        if (job)
            job_free(&job);
}

void store_destroy(store_t **self_p)
{
    if (!self_p || !*self_p)
        return;
    store_t *self = *self_p;
    if (self->started) {
        zsock_send(self->front, "p", NULL);
        pthread_join(self->writer, NULL);
    }
    drain(self->front);
    drain(self->back);
    zsock_destroy(&self->front);
    zsock_destroy(&self->back);
    db_close(&self->db);
    free(self->trouble);
    free(self);
    *self_p = NULL;
}

void store_start(store_t *self)
{
    // Signals are the control thread's.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&self->writer, NULL, store_writer, self) != 0)
        abort();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    self->started = true;
}

zsock_t *store_socket(store_t *self)
{
    return self->front;
}

void store_dispatch(store_t *self)
{
    while (zsock_events(self->front) & ZMQ_POLLIN) {
        struct job *job = NULL;
        if (zsock_recv(self->front, "p", &job) != 0)
            return;
        if (job->finish)
            job->finish(job);
        job_free(&job);
    }
}

const char *store_trouble(store_t *self)
{
    return self->trouble;
}
