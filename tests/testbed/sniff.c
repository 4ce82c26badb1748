// A passive sniffer: writes one line for each UDP datagram of one payload length that passes an
// interface, in the order of passing: the kernel's time in nanoseconds, and a hash of the payload
// by which two sniffers can tell that they saw the same one. Ends on SIGTERM, with all lines
// written.
//
//     sniff INTERFACE BYTES in|out FILE

#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"

static uint64_t hash(const uint8_t *bytes, size_t size) // FNV-1a
{
    uint64_t value = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        value = (value ^ bytes[i]) * UINT64_C(0x100000001b3);
    return value;
}

static int open_interface(const char *name)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), yes = 1, room = 32 << 20;
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = (int)if_nametoindex(name)};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (fd < 0 || !address.sll_ifindex ||
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror(name);
        exit(1);
    }
    return fd;
}

static int64_t stamp_of(struct msghdr *message)
{
    for (struct cmsghdr *one = CMSG_FIRSTHDR(message); one; one = CMSG_NXTHDR(message, one))
        if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec at;
            memcpy(&at, CMSG_DATA(one), sizeof at);
            return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
        }
    return 0;
}

static void take(int fd, unsigned length, bool out, FILE *file)
{
    static uint8_t bytes[64 * 1024];
    for (;;) {
        struct sockaddr_ll from;
        char control[128];
        struct iovec piece = {bytes, sizeof bytes};
        struct msghdr message = {.msg_name = &from,
            .msg_namelen = sizeof from,
            .msg_iov = &piece,
            .msg_iovlen = 1,
            .msg_control = control,
            .msg_controllen = sizeof control};
        ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
        const uint8_t *payload;
        if (got < 0)
            return;
        if ((from.sll_pkttype == PACKET_OUTGOING) == out &&
            frame_udp_payload(bytes, (size_t)got, &payload) == length)
            fprintf(file, "%lld %llx\n", (long long)stamp_of(&message),
                (unsigned long long)hash(payload, length));
    }
}

int main(int argc, char **argv)
{
    FILE *file = argc == 5 ? fopen(argv[4], "we") : NULL;
    sigset_t ends;
    if (!file) {
        fprintf(stderr, "usage: sniff INTERFACE BYTES in|out FILE\n");
        return 2;
    }
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    struct pollfd waits[2] = {{.fd = open_interface(argv[1]), .events = POLLIN},
        {.fd = signalfd(-1, &ends, SFD_CLOEXEC), .events = POLLIN}};
    while (!waits[1].revents) {
        (void)poll(waits, 2, -1);
        take(waits[0].fd, (unsigned)atoi(argv[2]), strcmp(argv[3], "out") == 0, file);
    }
    return fclose(file) == 0 ? 0 : 1;
}
