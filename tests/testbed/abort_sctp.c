// A device that forges refusals of SCTP: answers each INIT to one port that comes in at an
// interface with an ABORT, as if from the port's host (RFC 9260, 3.3.7). It lets nothing through
// and holds nothing back: that is the router's part.
//
//     abort_sctp INTERFACE PORT
//
// Says "ready". On SIGTERM it prints how many it refused. Needs CAP_NET_RAW.

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define SCTP 132
#define INIT 1
#define ABORT 6
#define HEAD 12       // of an SCTP packet
#define ABORT_SIZE 16 // with an ABORT that gives no cause

// CRC32c, RFC 3309.
static uint32_t checksum(const uint8_t *bytes, size_t size)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

// Where the SCTP packet begins in an IP packet; 0: it is no INIT to this port.
static size_t init_at(const uint8_t *packet, size_t size, uint16_t port)
{
    bool six = size > 0 && packet[0] >> 4 == 6;
    size_t at = six ? 40 : (size_t)(packet[0] & 15) * 4;
    if (size < 60 || packet[six ? 6 : 9] != SCTP || size < at + HEAD + 8)
        return 0;
    const uint8_t *sctp = packet + at;
    return sctp[HEAD] == INIT && sctp[2] == port >> 8 && sctp[3] == (port & 255) ? at : 0;
}

static void answer(const uint8_t *packet, size_t at)
{
    bool six = packet[0] >> 4 == 6;
    const uint8_t *init = packet + at;
    uint8_t bytes[40 + ABORT_SIZE] = {0}, *sctp = bytes + (six ? 40 : 20);
    struct sockaddr_in to4 = {.sin_family = AF_INET};
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6};
    if (six) {
        bytes[0] = 0x60;
        bytes[5] = ABORT_SIZE;
        bytes[6] = SCTP;
        bytes[7] = 64;
        memcpy(bytes + 8, packet + 24, 16);
        memcpy(bytes + 24, packet + 8, 16);
        memcpy(&to6.sin6_addr, packet + 8, 16);
    } else { // the kernel fills in length and checksum
        bytes[0] = 0x45;
        bytes[8] = 64;
        bytes[9] = SCTP;
        memcpy(bytes + 12, packet + 16, 4);
        memcpy(bytes + 16, packet + 12, 4);
        memcpy(&to4.sin_addr, packet + 12, 4);
    }
    memcpy(sctp, init + 2, 2);
    memcpy(sctp + 2, init, 2);
    memcpy(sctp + 4, init + HEAD + 4, 4); // its own tag
    sctp[HEAD] = ABORT;
    sctp[HEAD + 3] = 4;
    uint32_t sum = checksum(sctp, ABORT_SIZE); // little endian on the wire
    for (int i = 0; i < 4; i++)
        sctp[8 + i] = (uint8_t)(sum >> 8 * i);
    int fd = socket(six ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    if (fd < 0 || sendto(fd, bytes, (size_t)(sctp - bytes) + ABORT_SIZE, 0,
                      six ? (struct sockaddr *)&to6 : (struct sockaddr *)&to4,
                      six ? sizeof to6 : sizeof to4) < 0)
        perror("abort_sctp");
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    unsigned refused = 0;
    uint8_t packet[65536];
    sigset_t ends;
    if (argc != 3)
        return 2;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_ALL),
        .sll_ifindex = (int)if_nametoindex(argv[1])};
    struct pollfd polled[] = {
        {.fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ALL)), .events = POLLIN},
        {.fd = signalfd(-1, &ends, SFD_CLOEXEC), .events = POLLIN}};
    if (at.sll_ifindex == 0 || bind(polled[0].fd, (struct sockaddr *)&at, sizeof at) < 0) {
        perror("abort_sctp");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    while (poll(polled, 2, -1) > 0 && !polled[1].revents) {
        struct sockaddr_ll from;
        socklen_t room = sizeof from;
        ssize_t size =
            recvfrom(polled[0].fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &room);
        size_t init = size > 0 && from.sll_pkttype != PACKET_OUTGOING
                          ? init_at(packet, (size_t)size, (uint16_t)atoi(argv[2]))
                          : 0;
        if (init)
            answer(packet, init);
        refused += init != 0;
    }
    printf("%u refused\n", refused);
    return 0;
}
