#include "worker.h"

#define STACK_BYTES (1024 * 1024)

bool worker_start(struct worker *self, void *(*body)(void *), void *assignment, zsock_t **pipe)
{
    *pipe = NULL;
    self->pipe = zsys_create_pipe(pipe);
    if (self->pipe) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, STACK_BYTES);
        self->runs = pthread_create(&self->thread, &attributes, body, assignment) == 0;
        pthread_attr_destroy(&attributes);
    }
    if (!self->runs) {
        zsock_destroy(pipe);
        free(assignment);
    }
    return self->runs;
}

void worker_end(struct worker *self)
{
    if (self->runs)
        pthread_join(self->thread, NULL);
    self->runs = false;
    zsock_destroy(&self->pipe);
}
