// A service for tests: listens on one port, TCP, UDP and, where the kernel has it, SCTP, both
// families, for all addresses. `service PORT` accepts connections and says nothing, as a proxy does
// that waits for its own upstream; `service PORT TEXT` greets each connection with a line.
// Datagrams are taken and not answered. Says "ready", and at its end (SIGTERM) how many connections
// and datagrams came.

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int listener(int type, int protocol, uint16_t port)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int fd = socket(AF_INET6, type | SOCK_NONBLOCK, protocol), none = 0, one = 1;
    if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &none, sizeof none) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(fd, (struct sockaddr *)&any, sizeof any) < 0 ||
        (type == SOCK_STREAM && listen(fd, 16) < 0)) {
        if (protocol == IPPROTO_SCTP)
            return -1;
        perror("service");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    unsigned connections = 0, datagrams = 0;
    sigset_t ends;
    if (argc < 2)
        return 2;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    uint16_t port = (uint16_t)atoi(argv[1]);
    struct pollfd polled[] = {{.fd = listener(SOCK_STREAM, 0, port), .events = POLLIN},
        {.fd = listener(SOCK_DGRAM, 0, port), .events = POLLIN},
        {.fd = listener(SOCK_STREAM, IPPROTO_SCTP, port), .events = POLLIN},
        {.fd = signalfd(-1, &ends, 0), .events = POLLIN}};
    puts("ready");
    fflush(stdout);
    while (poll(polled, 4, -1) > 0 && !polled[3].revents) {
        char bytes[2048];
        for (int i = 0; i <= 2; i += 2) {
            int fd = polled[i].revents ? accept(polled[i].fd, NULL, NULL) : -1;
            connections += fd >= 0;
            if (fd >= 0 && argc > 2)
                (void)!write(fd, argv[2], strlen(argv[2])); // and stays open
        }
        if (polled[1].revents)
            datagrams += recv(polled[1].fd, bytes, sizeof bytes, 0) >= 0;
    }
    printf("%u connections, %u datagrams\n", connections, datagrams);
    return 0;
}
