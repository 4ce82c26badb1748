#include "sniff.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <math.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define SNAP 64
#define STAMPS_MAX (4u << 20)
#define NS_PER_S INT64_C(1000000000)
#define SILENCE_NS NS_PER_S

struct stamps {
    int64_t *at_ns;
    size_t count;
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static int open_on(const char *interface)
{
    int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0), on = 1, room = 64 << 20;
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_IP),
        .sll_ifindex = (int)if_nametoindex(interface)};
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static bool is_wanted(const uint8_t *packet, size_t size, unsigned udp_payload)
{
    size_t header = (size_t)(packet[0] & 15) * 4;
    if (size < 28 || packet[0] >> 4 != 4 || packet[9] != IPPROTO_UDP || header + 8 > size)
        return false;
    return (unsigned)(packet[header + 4] << 8 | packet[header + 5]) == udp_payload + 8;
}

static int64_t stamp_of(struct msghdr *header)
{
    struct timespec stamp = {0};
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS)
            memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
    return stamp.tv_sec * NS_PER_S + stamp.tv_nsec;
}

// Takes what waits; how many of the wanted there were.
static unsigned take(int fd, unsigned udp_payload, struct stamps *stamps)
{
    uint8_t bytes[BATCH][SNAP];
    _Alignas(struct cmsghdr) char controls[BATCH][64];
    struct iovec iov[BATCH];
    struct mmsghdr messages[BATCH];
    unsigned wanted = 0;
    int count;
    do {
        for (unsigned i = 0; i < BATCH; i++) {
            iov[i] = (struct iovec){bytes[i], SNAP};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i],
                .msg_iovlen = 1,
                .msg_control = controls[i],
                .msg_controllen = sizeof controls[i]};
        }
        count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < count; i++) {
            if (!is_wanted(bytes[i], messages[i].msg_len, udp_payload) ||
                stamps->count == STAMPS_MAX)
                continue;
            stamps->at_ns[stamps->count++] = stamp_of(&messages[i].msg_hdr);
            wanted++;
        }
    } while (count == BATCH);
    return wanted;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void judge(const struct stamps *stamps, struct sniffed *sniffed)
{
    size_t first = stamps->count / 20, last = stamps->count - stamps->count / 20;
    *sniffed = (struct sniffed){.packets = stamps->count};
    if (last < first + 100)
        return;
    size_t gaps = last - first - 1;
    double mean = (double)(stamps->at_ns[last - 1] - stamps->at_ns[first]) / (double)gaps;
    double *errors = malloc(gaps * sizeof *errors);
    if (!errors)
        abort();
    for (size_t i = 0; i < gaps; i++)
        errors[i] = fabs((double)(stamps->at_ns[first + i + 1] - stamps->at_ns[first + i]) - mean);
    qsort(errors, gaps, sizeof *errors, by_value);
    sniffed->mean_gap_s = mean / 1e9;
    sniffed->p99_error_s = errors[gaps * 99 / 100] / 1e9;
    free(errors);
}

int sniff(const char *interface, unsigned udp_payload, unsigned most_s, struct sniffed *sniffed)
{
    struct stamps stamps = {malloc(STAMPS_MAX * sizeof *stamps.at_ns), 0};
    int fd = open_on(interface);
    if (fd < 0 || !stamps.at_ns) {
        free(stamps.at_ns);
        return fd < 0 ? fd : -ENOMEM;
    }
    int64_t end = now_ns() + most_s * NS_PER_S, heard = 0, now;
    while ((now = now_ns()) < end && (heard == 0 || now - heard < SILENCE_NS)) {
        struct timespec rest = {.tv_nsec = 10000000};
        nanosleep(&rest, NULL);
        if (take(fd, udp_payload, &stamps) > 0)
            heard = now_ns();
    }
    close(fd);
    judge(&stamps, sniffed);
    free(stamps.at_ns);
    return 0;
}
