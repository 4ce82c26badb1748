#include "dataport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "clock.h"
#include "dataport_parts.h"

#define SPIN_QUIET_NS (2 * NS_PER_S) // whoever asks no more is not waited for

// A call from another thread: lies on its stack, and is answered before it goes on.
struct command {
    void (*act)(dataport_t *self, struct command *command); // NULL: the thread ends
    admission_t *admission;
    const struct ticket_keys *keys;
    const char *local_address;
    const uint8_t *id;
    int64_t expiry_mono_ns, spin_ns;
    struct dataport_counters *counters;
    int result;
};

// ------------------------------------------------------------------ live tickets, by id

// The entry's place, or the place where it would be.
static size_t place_of(const dataport_t *self, const uint8_t *id, bool *found)
{
    size_t low = 0, high = self->entry_count;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = memcmp(self->entries[middle].id, id, TICKET_ID_SIZE);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct entry *dataport_entry(dataport_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    bool found;
    size_t at = place_of(self, id, &found);
    return found ? &self->entries[at] : NULL;
}

static void entry_insert(dataport_t *self, size_t at, const struct entry *entry)
{
    if (self->entry_count == self->entry_room) {
        self->entry_room = self->entry_room ? 2 * self->entry_room : 16;
        self->entries = realloc(self->entries, self->entry_room * sizeof *self->entries);
        if (!self->entries)
            abort();
    }
    struct entry *place = self->entries + at;
    memmove(place + 1, place, (self->entry_count - at) * sizeof *place);
    *place = *entry;
    self->entry_count++;
}

static void entry_remove(dataport_t *self, size_t at)
{
    struct entry *entry = self->entries + at;
    listener_release(self, entry->listener);
    if (entry->keys)
        ticket_wipe(entry->keys);
    free(entry->keys);
    bool last_to_spin = entry->spin_end_mono_ns == self->spin_end_mono_ns;
    memmove(entry, entry + 1, (self->entry_count - at - 1) * sizeof *entry);
    self->entry_count--;
    if (!last_to_spin || self->spin_end_mono_ns == 0)
        return;
    self->spin_end_mono_ns = 0;
    for (size_t i = 0; i < self->entry_count; i++)
        if (self->entries[i].spin_end_mono_ns > self->spin_end_mono_ns)
            self->spin_end_mono_ns = self->entries[i].spin_end_mono_ns;
}

static void sweep(dataport_t *self, int64_t now_mono_ns)
{
    self->next_expiry_mono_ns = INT64_MAX;
    for (size_t i = self->entry_count; i-- > 0;) {
        int64_t expiry = self->entries[i].expiry_mono_ns;
        if (expiry <= now_mono_ns)
            entry_remove(self, i);
        else if (expiry < self->next_expiry_mono_ns)
            self->next_expiry_mono_ns = expiry;
    }
}

// ------------------------------------------------------------------ what callers ask for

static void act_admit(dataport_t *self, struct command *command)
{
    admission_t *admission = command->admission;
    bool found;
    size_t at = place_of(self, admission->keys.id, &found);
    command->result = -EEXIST;
    if (found)
        return;
    admission->listener =
        listener_open(self, admission->protocol, command->local_address, &command->result);
    if (!admission->listener)
        return;
    struct entry entry = {
        .admission = admission, .listener = admission->listener, .expiry_mono_ns = INT64_MAX};
    memcpy(entry.id, admission->keys.id, TICKET_ID_SIZE);
    entry_insert(self, at, &entry);
    command->result = 0;
}

static void act_remove(dataport_t *self, struct command *command)
{
    bool found;
    size_t at = place_of(self, command->id, &found);
    if (found && self->entries[at].admission == command->admission)
        entry_remove(self, at);
}

static void act_reflect(dataport_t *self, struct command *command)
{
    bool found;
    size_t at = place_of(self, command->keys->id, &found);
    struct entry entry = {.expiry_mono_ns = command->expiry_mono_ns, .spin_ns = command->spin_ns};
    if (found && self->entries[at].admission) {
        command->result = -EEXIST;
        return;
    }
    entry.listener = listener_open(self, DATAPORT_UDP, command->local_address, &command->result);
    if (!entry.listener)
        return;
    if (found)
        entry_remove(self, at);
    memcpy(entry.id, command->keys->id, TICKET_ID_SIZE);
    entry.keys = malloc(sizeof *entry.keys);
    if (!entry.keys)
        abort();
    *entry.keys = *command->keys;
    entry_insert(self, at, &entry);
    if (entry.expiry_mono_ns < self->next_expiry_mono_ns)
        self->next_expiry_mono_ns = entry.expiry_mono_ns;
    command->result = 0;
}

static void act_counters(dataport_t *self, struct command *command)
{
    *command->counters = self->counters;
}

static void call(dataport_t *self, struct command *command)
{
    uint8_t done;
    pthread_mutex_lock(&self->calls);
    while (send(self->commands[0], &command, sizeof command, MSG_NOSIGNAL) < 0 && errno == EINTR)
        continue;
    while (recv(self->commands[0], &done, 1, 0) < 0 && errno == EINTR)
        continue;
    pthread_mutex_unlock(&self->calls);
}

// ------------------------------------------------------------------ the thread

int dataport_watch(dataport_t *self, int fd, enum source source, size_t index, uint32_t generation)
{
    struct epoll_event event = {
        .events = EPOLLIN, .data.u64 = (uint64_t)source << 48 | (uint64_t)index << 32 | generation};
    return epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void dataport_unwatch(dataport_t *self, int fd)
{
    epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static bool obey(dataport_t *self)
{
    struct command *command;
    if (recv(self->commands[1], &command, sizeof command, MSG_DONTWAIT) != (ssize_t)sizeof command)
        return true;
    bool go_on = command->act;
    if (go_on)
        command->act(self, command);
    (void)!send(self->commands[1], "", 1, MSG_NOSIGNAL);
    return go_on;
}

static bool dispatch(dataport_t *self, uint64_t key)
{
    size_t index = (uint16_t)(key >> 32);
    uint32_t generation = (uint32_t)key;
    if (key >> 48 == SOURCE_COMMAND)
        return obey(self);
    if (key >> 48 == SOURCE_LISTENER) {
        struct listener *listener = &self->listeners[index];
        if (listener->fd < 0 || listener->generation != generation)
            return true;
        if (listener->protocol != DATAPORT_UDP)
            dataport_accept(self, listener);
        else
            dataport_datagrams(self, listener);
        return true;
    }
    struct pending *pending = &self->pending[index];
    if (pending->fd >= 0 && pending->generation == generation)
        dataport_greet(self, pending);
    return true;
}

static int time_left_ms(const dataport_t *self, int64_t now_mono_ns)
{
    int64_t next = self->next_expiry_mono_ns;
    for (size_t i = 0; self->pending_count > 0 && i < PENDING_MAX; i++)
        if (self->pending[i].fd >= 0 && self->pending[i].deadline_mono_ns < next)
            next = self->pending[i].deadline_mono_ns;
    if (next == INT64_MAX)
        return -1;
    int64_t left_ms = (next - now_mono_ns) / NS_PER_MS + 1;
    return left_ms < 0 ? 0 : left_ms > 60000 ? 60000 : (int)left_ms;
}

static bool spins(dataport_t *self, int64_t now_mono_ns)
{
    bool wanted = now_mono_ns < self->spin_end_mono_ns &&
                  now_mono_ns - self->spun_for_mono_ns < SPIN_QUIET_NS;
    return spinner_turn(&self->spinner, self->spin, wanted, now_mono_ns);
}

static void *thread_main(void *arg)
{
    dataport_t *self = arg;
    struct epoll_event events[64];
    for (bool go_on = true; go_on;) {
        int64_t begin = clock_mono_ns();
        int timeout_ms = spins(self, begin) ? 0 : time_left_ms(self, begin);
        int count = epoll_wait(self->epoll_fd, events, 64, timeout_ms);
        for (int i = 0; i < count && go_on; i++)
            go_on = dispatch(self, events[i].data.u64);
        int64_t now = clock_mono_ns();
        pending_expire(self, now);
        if (self->next_expiry_mono_ns <= now)
            sweep(self, now);
    }
    (void)spinner_turn(&self->spinner, self->spin, false, 0);
    return NULL;
}

// ------------------------------------------------------------------ from outside

// A port that nobody uses now, for tests: 0 asks for one.
static uint16_t any_port(void)
{
    union address address;
    address_wildcard(AF_INET, 0, &address);
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, &address.any, sizeof address.v4) < 0 ||
        getsockname(fd, &address.any, &size) < 0)
        address.v4.sin_port = 0;
    if (fd >= 0)
        close(fd);
    return ntohs(address.v4.sin_port);
}

static int start(dataport_t *self)
{
    self->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    self->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (self->epoll_fd < 0 || self->spare_fd < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, self->commands) < 0)
        return -errno;
    int rc = dataport_watch(self, self->commands[1], SOURCE_COMMAND, 0, 0);
    if (rc < 0)
        return rc;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    // Signals are the main thread's.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = -pthread_create(&self->thread, &attributes, thread_main, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return rc;
}

static void release(dataport_t *self)
{
    for (size_t i = 0; i < PENDING_MAX; i++)
        if (self->pending[i].fd >= 0)
            pending_close(self, &self->pending[i]);
    while (self->entry_count > 0)
        entry_remove(self, self->entry_count - 1);
    int fds[] = {self->commands[0], self->commands[1], self->epoll_fd, self->spare_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_mutex_destroy(&self->calls);
    free(self->entries);
    free(self);
}

dataport_t *dataport_new(uint16_t port, spin_t *spin, int *error)
{
    dataport_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    self->port = port ? port : any_port();
    self->spin = spin;
    self->commands[0] = self->commands[1] = self->epoll_fd = self->spare_fd = -1;
    self->next_expiry_mono_ns = INT64_MAX;
    for (size_t i = 0; i < LISTENERS_MAX; i++)
        self->listeners[i].fd = -1;
    for (size_t i = 0; i < PENDING_MAX; i++)
        self->pending[i].fd = -1;
    pthread_mutex_init(&self->calls, NULL);
    *error = start(self);
    if (*error == 0)
        return self;
    release(self);
    return NULL;
}

void dataport_destroy(dataport_t **self_p)
{
    dataport_t *self = *self_p;
    if (!self)
        return;
    struct command end = {.act = NULL};
    call(self, &end);
    pthread_join(self->thread, NULL);
    release(self);
    *self_p = NULL;
}

uint16_t dataport_number(const dataport_t *self)
{
    return self->port;
}

void dataport_counters(dataport_t *self, struct dataport_counters *counters)
{
    struct command command = {.act = act_counters, .counters = counters};
    call(self, &command);
}

static void admission_free(admission_t *self)
{
    struct admitted left;
    while (self->fds[0] >= 0 && admission_take(self, &left) == 0)
        close(left.fd);
    for (int i = 0; i < 2; i++)
        if (self->fds[i] >= 0)
            close(self->fds[i]);
    ticket_wipe(&self->keys);
    free(self->greetings);
    free(self);
}

admission_t *dataport_admit(dataport_t *self, enum dataport_protocol protocol,
    const struct ticket_keys *keys, const char *local_address, unsigned streams, int *error)
{
    *error = -EINVAL;
    if (streams == 0 || streams > STREAMS_MAX)
        return NULL;
    admission_t *admission = calloc(1, sizeof *admission);
    struct greeting *greetings = calloc(streams, sizeof *greetings);
    if (!admission || !greetings)
        abort();
    *admission = (admission_t){.keys = *keys,
        .protocol = protocol,
        .streams = streams,
        .greetings = greetings,
        .fds = {-1, -1}};
    struct command command = {
        .act = act_admit, .admission = admission, .local_address = local_address};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, admission->fds) < 0)
        command.result = -errno;
    else
        call(self, &command);
    *error = command.result;
    if (*error == 0)
        return admission;
    admission_free(admission);
    return NULL;
}

void dataport_dismiss(dataport_t *self, admission_t **admission_p)
{
    admission_t *admission = *admission_p;
    if (!admission)
        return;
    struct command command = {.act = act_remove, .admission = admission, .id = admission->keys.id};
    call(self, &command);
    admission_free(admission);
    *admission_p = NULL;
}

int admission_fd(const admission_t *self)
{
    return self->fds[0];
}

int admission_take(admission_t *self, struct admitted *admitted)
{
    struct admitted next;
    if (recv(self->fds[0], &next, sizeof next, MSG_DONTWAIT) != (ssize_t)sizeof next)
        return -EAGAIN;
    *admitted = next;
    return 0;
}

bool admission_give(admission_t *self, int fd, uint8_t stream, const union address *peer)
{
    struct admitted admitted;
    memset(&admitted, 0, sizeof admitted);
    admitted.fd = fd;
    admitted.stream = stream;
    admitted.peer = peer->storage;
    if (send(self->fds[1], &admitted, sizeof admitted, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
        return true;
    close(fd);
    return false;
}

int dataport_reflect(dataport_t *self, const struct ticket_keys *keys, const char *local_address,
    int64_t expiry_mono_ns, int64_t spin_ns)
{
    struct command command = {.act = act_reflect,
        .keys = keys,
        .local_address = local_address,
        .expiry_mono_ns = expiry_mono_ns,
        .spin_ns = spin_ns};
    call(self, &command);
    return command.result;
}

void dataport_unreflect(dataport_t *self, const uint8_t id[TICKET_ID_SIZE])
{
    struct command command = {.act = act_remove, .id = id};
    call(self, &command);
}
