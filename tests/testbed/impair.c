// A link emulator in user space, for kernels without netem: forwards frames between two interfaces,
// one direction of which is impaired. Seeded: the same packets meet the same fate in each run.
//
//     impair FROM TO [delay=MS] [jitter=MS] [shape=normal|uniform] [loss=%] [duplicate=%]
//            [reorder=%] [seed=N]
//
// Frames from FROM to TO are lost, doubled and delayed; the way back is untouched. `jitter` is the
// deviation of a normal delay, or half the width of a uniform one. `reorder`: that share is not
// delayed at all and overtakes. On SIGTERM it prints one line: what it took, lost, doubled, sent
// ahead and forwarded, of frames that carry UDP of --length `only=BYTES` if that is given (others
// pass unimpaired but for the delay).
//
// Needs CAP_NET_RAW. Single packets are hit only where the senders do not hand over super-packets
// (ip link set DEV gso_max_segs 1).

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <math.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"

#define FRAME_MAX (64 * 1024)
#define HELD_MAX 65536 // a longer queue loses at its tail, as a network would
#define NS_PER_MS 1000000.0
#define HEAD 10 // struct virtio_net_hdr, before each frame

struct held {
    int64_t due_ns;
    uint64_t number; // of two that are due at once the older leaves first
    uint8_t *bytes;
    size_t size;
};

struct link {
    int from, to;
    double delay_ms, jitter_ms, loss, duplicate, reorder;
    bool uniform;
    unsigned only;
    uint64_t seed, number;
    struct held *heap;
    size_t held;
    uint64_t seen, lost, doubled, ahead, forwarded;
};

// ------------------------------------------------------------------ chance (splitmix64)

static double chance(struct link *self)
{
    uint64_t z = (self->seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static double deviation_ms(struct link *self)
{
    double a = chance(self), b = chance(self);
    if (self->uniform)
        return self->jitter_ms * (2 * a - 1);
    return self->jitter_ms * sqrt(-2 * log(1 - a)) * cos(2 * M_PI * b); // Box and Muller
}

// ------------------------------------------------------------------ what is on its way (a heap)

static bool before(const struct held *a, const struct held *b)
{
    return a->due_ns < b->due_ns || (a->due_ns == b->due_ns && a->number < b->number);
}

static void swap(struct held *a, struct held *b)
{
    struct held c = *a;
    *a = *b;
    *b = c;
}

static void hold(struct link *self, int64_t due_ns, const uint8_t *bytes, size_t size)
{
    if (self->held == HELD_MAX)
        return;
    struct held *heap = self->heap;
    size_t at = self->held++;
    heap[at] = (struct held){due_ns, self->number++, malloc(size), size};
    if (!heap[at].bytes)
        abort();
    memcpy(heap[at].bytes, bytes, size);
    for (; at > 0 && before(&heap[at], &heap[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&heap[at], &heap[(at - 1) / 2]);
}

static struct held take_first(struct link *self)
{
    struct held first = self->heap[0], *heap = self->heap;
    heap[0] = heap[--self->held];
    for (size_t at = 0, child; (child = 2 * at + 1) < self->held; at = child) {
        if (child + 1 < self->held && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &heap[at]))
            break;
        swap(&heap[child], &heap[at]);
    }
    return first;
}

// ------------------------------------------------------------------ frames

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void forward(int fd, const uint8_t *bytes, size_t size)
{
    // Full for a moment: wait rather than lose what was not to be lost.
    while (send(fd, bytes, size, 0) < 0) {
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        if (poll(&room, 1, 1000) <= 0)
            return;
    }
}

static void forward_due(struct link *self)
{
    while (self->held > 0 && self->heap[0].due_ns <= now_ns()) {
        struct held first = take_first(self);
        forward(self->to, first.bytes, first.size);
        free(first.bytes);
        self->forwarded++;
    }
}

static void impair(struct link *self, const uint8_t *bytes, size_t size)
{
    bool chosen =
        self->only == 0 || frame_udp_payload(bytes + HEAD, size - HEAD, NULL) == self->only;
    int64_t now = now_ns();
    double delay_ms = self->delay_ms;
    unsigned copies = 1;
    if (chosen) {
        self->seen++;
        delay_ms += deviation_ms(self);
        if (chance(self) < self->loss)
            copies = 0;
        else if (chance(self) < self->duplicate)
            copies = 2;
        if (chance(self) < self->reorder) {
            delay_ms = 0;
            self->ahead += copies > 0;
        }
        self->lost += copies == 0;
        self->doubled += copies == 2;
    }
    for (unsigned i = 0; i < copies; i++)
        hold(self, now + (int64_t)(fmax(delay_ms, 0) * NS_PER_MS), bytes, size);
}

static void read_frames(struct link *self, int fd)
{
    static uint8_t bytes[FRAME_MAX];
    for (int i = 0; i < 64; i++) {
        ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got <= HEAD)
            return;
        bytes[0] &= 1; // VIRTIO_NET_HDR_F_NEEDS_CSUM; other flags are refused on the way out
        if (fd == self->from)
            impair(self, bytes, (size_t)got);
        else
            forward(self->from, bytes, (size_t)got);
    }
}

// ------------------------------------------------------------------ begin and end

static int open_interface(const char *name)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), yes = 1, room = 16 << 20;
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = (int)if_nametoindex(name)};
    struct packet_mreq all = {.mr_ifindex = address.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (fd < 0 || !address.sll_ifindex ||
        setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &yes, sizeof yes) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) < 0) {
        perror(name);
        exit(1);
    }
    return fd;
}

static bool option(struct link *self, const char *word)
{
    const char *equal = strchr(word, '=');
    size_t size = equal ? (size_t)(equal - word) : 0;
    const struct {
        const char *name;
        double *value;
        double unit;
    } numbers[] = {{"delay", &self->delay_ms, 1}, {"jitter", &self->jitter_ms, 1},
        {"loss", &self->loss, 0.01}, {"duplicate", &self->duplicate, 0.01},
        {"reorder", &self->reorder, 0.01}};
    for (size_t i = 0; size && i < sizeof numbers / sizeof *numbers; i++)
        if (strlen(numbers[i].name) == size && strncmp(numbers[i].name, word, size) == 0) {
            *numbers[i].value = atof(equal + 1) * numbers[i].unit;
            return true;
        }
    if (strncmp(word, "seed=", 5) == 0)
        self->seed = strtoull(word + 5, NULL, 10);
    else if (strncmp(word, "only=", 5) == 0)
        self->only = (unsigned)atoi(word + 5);
    else if (strcmp(word, "shape=uniform") == 0)
        self->uniform = true;
    else
        return strcmp(word, "shape=normal") == 0;
    return true;
}

static int end_signal(void)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    return signalfd(-1, &ends, SFD_CLOEXEC);
}

static void run(struct link *self)
{
    struct pollfd waits[3] = {{.fd = self->from, .events = POLLIN},
        {.fd = self->to, .events = POLLIN}, {.fd = end_signal(), .events = POLLIN}};
    prctl(PR_SET_TIMERSLACK, 1);
    while (!waits[2].revents) {
        int64_t left = self->held > 0 ? self->heap[0].due_ns - now_ns() : INT64_C(1000000000);
        struct timespec wait = {.tv_sec = left > 0 ? left / 1000000000 : 0,
            .tv_nsec = left > 0 ? left % 1000000000 : 0};
        (void)ppoll(waits, 3, &wait, NULL);
        forward_due(self);
        for (int i = 0; i < 2; i++)
            if (waits[i].revents)
                read_frames(self, waits[i].fd);
        forward_due(self);
    }
}

int main(int argc, char **argv)
{
    struct link link = {.seed = 1, .heap = calloc(HELD_MAX, sizeof *link.heap)};
    bool good = argc >= 3 && link.heap;
    for (int i = 3; good && i < argc; i++)
        good = option(&link, argv[i]);
    if (!good) {
        fprintf(stderr,
            "usage: impair FROM TO [delay=MS] [jitter=MS] [shape=normal|uniform] [loss=%%]\n"
            "              [duplicate=%%] [reorder=%%] [only=BYTES] [seed=N]\n");
        return 2;
    }
    link.from = open_interface(argv[1]);
    link.to = open_interface(argv[2]);
    run(&link);
    printf("seen %llu lost %llu doubled %llu ahead %llu forwarded %llu\n",
        (unsigned long long)link.seen, (unsigned long long)link.lost,
        (unsigned long long)link.doubled, (unsigned long long)link.ahead,
        (unsigned long long)link.forwarded);
    free(link.heap);
    return 0;
}
