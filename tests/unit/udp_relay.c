#include "udp_relay.h"

#include "meshtest.h"

#include <endian.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "udp_parts.h"

#define CLIENTS_MAX 64
#define QUEUE 65536
#define DATAGRAM_MAX 2048

struct parcel {
    int64_t due_ns;
    unsigned client;
    enum relay_direction direction;
    size_t size;
    uint8_t bytes[DATAGRAM_MAX];
};

struct udp_relay {
    pthread_t thread;
    atomic_bool over;
    int front; // where clients send to
    struct sockaddr_in own, target;
    struct sockaddr_in clients[CLIENTS_MAX];
    int upstream[CLIENTS_MAX];
    unsigned client_count;
    int64_t delay_ns;
    relay_rule *rule;
    void *ctx;
    struct parcel *queue[QUEUE]; // in the order of due_ns: the delay is the same for all
    unsigned head, count;
    struct parcel *held; // waits for its successor
    struct relay_counts counts;
};

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int udp_socket(struct sockaddr_in *own)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), size = 8 << 20;
    socklen_t length = sizeof *own;
    *own = loopback(0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)own, sizeof *own), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)own, &length), 0);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    return fd;
}

static unsigned client_of(udp_relay_t *self, const struct sockaddr_in *from)
{
    struct sockaddr_in own;
    for (unsigned i = 0; i < self->client_count; i++)
        if (self->clients[i].sin_port == from->sin_port)
            return i;
    assert_true(self->client_count < CLIENTS_MAX);
    self->clients[self->client_count] = *from;
    self->upstream[self->client_count] = udp_socket(&own);
    assert_int_equal(connect(self->upstream[self->client_count], (struct sockaddr *)&self->target,
                         sizeof self->target),
        0);
    return self->client_count++;
}

static int64_t window_number(const uint8_t *bytes, size_t size)
{
    uint64_t number;
    if (size < UDP_HEADER || bytes[0] != UDP_LOAD || (bytes[2] & UDP_FLAG_OMIT))
        return -1;
    memcpy(&number, bytes + 16, sizeof number);
    return (int64_t)be64toh(number);
}

static void enqueue(udp_relay_t *self, const struct parcel *parcel)
{
    assert_true(self->count < QUEUE);
    struct parcel *copy = malloc(sizeof *copy);
    *copy = *parcel;
    self->queue[(self->head + self->count++) % QUEUE] = copy;
}

// Three that an honest end must not take for load: another number each, none under the tag.
static void forge(udp_relay_t *self, const struct parcel *parcel)
{
    struct parcel other = *parcel;
    assert_true(parcel->size >= UDP_HEADER && parcel->size + 500 <= DATAGRAM_MAX);
    other.bytes[16 + 5] ^= 1;
    other.size = UDP_HEADER - 1;
    enqueue(self, &other);
    other.bytes[4 + 11] ^= 1;
    other.size = parcel->size;
    enqueue(self, &other);
    other.size = parcel->size + 500;
    enqueue(self, &other);
    self->counts.forged += 3;
}

// The one that waited for its successor; one without (the final count comes instead) is not
// swapped.
static void let_go(udp_relay_t *self, int64_t due_ns)
{
    self->held->due_ns = due_ns;
    enqueue(self, self->held);
    free(self->held);
    self->held = NULL;
}

static void judge(udp_relay_t *self, struct parcel *parcel)
{
    int64_t number = window_number(parcel->bytes, parcel->size);
    enum relay_action action =
        self->rule ? self->rule(self->ctx, parcel->direction, parcel->bytes, parcel->size, number)
                   : RELAY_PASS;
    parcel->due_ns = clock_mono_ns() + self->delay_ns;
    self->counts.dropped += action == RELAY_DROP;
    self->counts.twice += action == RELAY_TWICE;
    self->counts.swapped += action == RELAY_SWAP;
    if (action == RELAY_DROP)
        return;
    if (action == RELAY_SWAP && !self->held) {
        self->held = malloc(sizeof *self->held);
        *self->held = *parcel;
        return;
    }
    if (self->held && self->held->direction == parcel->direction && number < 0) {
        self->counts.swapped--;
        let_go(self, parcel->due_ns);
    }
    if (action == RELAY_FORGE)
        forge(self, parcel);
    enqueue(self, parcel);
    if (action == RELAY_TWICE)
        enqueue(self, parcel);
    if (self->held && self->held->direction == parcel->direction && number >= 0)
        let_go(self, parcel->due_ns);
}

static void take_in(udp_relay_t *self, int fd, enum relay_direction direction, unsigned client)
{
    struct parcel parcel = {.direction = direction, .client = client};
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    ssize_t size;
    while ((size = recvfrom(fd, parcel.bytes, sizeof parcel.bytes, 0, (struct sockaddr *)&from,
                &length)) >= 0) {
        parcel.size = (size_t)size;
        if (direction == RELAY_FORWARD)
            parcel.client = client_of(self, &from);
        judge(self, &parcel);
        length = sizeof from;
    }
}

static void send_due(udp_relay_t *self)
{
    while (self->count > 0 && self->queue[self->head]->due_ns <= clock_mono_ns()) {
        struct parcel *parcel = self->queue[self->head];
        self->head = (self->head + 1) % QUEUE;
        self->count--;
        if (parcel->direction == RELAY_FORWARD)
            (void)!send(self->upstream[parcel->client], parcel->bytes, parcel->size, 0);
        else
            (void)!sendto(self->front, parcel->bytes, parcel->size, 0,
                (struct sockaddr *)&self->clients[parcel->client], sizeof *self->clients);
        free(parcel);
    }
}

static void *relay_main(void *arg)
{
    udp_relay_t *self = arg;
    while (!self->over) {
        struct pollfd polled[CLIENTS_MAX + 1] = {{.fd = self->front, .events = POLLIN}};
        for (unsigned i = 0; i < self->client_count; i++)
            polled[i + 1] = (struct pollfd){.fd = self->upstream[i], .events = POLLIN};
        struct timespec wait = {.tv_nsec = 20 * NS_PER_MS};
        if (self->count > 0) {
            int64_t left = self->queue[self->head]->due_ns - clock_mono_ns();
            wait.tv_nsec = left < 0 ? 0 : left < wait.tv_nsec ? left : wait.tv_nsec;
        }
        unsigned known = self->client_count;
        (void)ppoll(polled, known + 1, &wait, NULL);
        take_in(self, self->front, RELAY_FORWARD, 0);
        for (unsigned i = 0; i < known; i++)
            take_in(self, self->upstream[i], RELAY_BACKWARD, i);
        send_due(self);
    }
    return NULL;
}

udp_relay_t *udp_relay_new(uint16_t port, int64_t delay_ns, relay_rule *rule, void *ctx)
{
    udp_relay_t *self = calloc(1, sizeof *self);
    self->target = loopback(port);
    self->delay_ns = delay_ns;
    self->rule = rule;
    self->ctx = ctx;
    self->front = udp_socket(&self->own);
    assert_int_equal(pthread_create(&self->thread, NULL, relay_main, self), 0);
    return self;
}

uint16_t udp_relay_port(const udp_relay_t *self)
{
    return ntohs(self->own.sin_port);
}

struct relay_counts udp_relay_end(udp_relay_t **self_p)
{
    udp_relay_t *self = *self_p;
    self->over = true;
    pthread_join(self->thread, NULL);
    struct relay_counts counts = self->counts;
    while (self->count > 0) {
        free(self->queue[self->head]);
        self->head = (self->head + 1) % QUEUE;
        self->count--;
    }
    for (unsigned i = 0; i < self->client_count; i++)
        close(self->upstream[i]);
    close(self->front);
    free(self->held);
    free(self);
    *self_p = NULL;
    return counts;
}
