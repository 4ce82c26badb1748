#include "advertise.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "units.h"

// Addresses for documentation (RFC 5737, RFC 3849): connecting a UDP socket to them sends nothing
// and makes the kernel choose the source address of the default route.
static const struct {
    int family;
    const char *address;
} distant[] = {{AF_INET, "192.0.2.1"}, {AF_INET6, "2001:db8::1"}};

bool advertise_valid(const char *endpoint)
{
    if (strncmp(endpoint, "tcp://", 6) != 0 || strlen(endpoint) >= IDENTITY_ENDPOINT_SIZE)
        return false;
    const char *host = endpoint + 6;
    const char *colon = strrchr(host, ':');
    uint64_t port;
    if (!colon || colon == host || units_count(colon + 1, 1, 65535, &port) != 0)
        return false;
    size_t size = (size_t)(colon - host);
    if (host[0] == '[')
        return size > 2 && host[size - 1] == ']' && strncmp(host, "[::]", 4) != 0;
    for (size_t i = 0; i < size; i++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_", host[i]))
            return false;
    return strncmp(host, "0.0.0.0:", 8) != 0;
}

static bool address_text(const struct sockaddr *address, char *text, size_t size)
{
    char number[INET6_ADDRSTRLEN];
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        if (in->sin_addr.s_addr == htonl(INADDR_ANY))
            return false;
        inet_ntop(AF_INET, &in->sin_addr, number, sizeof number);
        snprintf(text, size, "%s", number);
        return true;
    }
    if (address->sa_family != AF_INET6)
        return false;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    if (IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr))
        return false;
    inet_ntop(AF_INET6, &in6->sin6_addr, number, sizeof number);
    snprintf(text, size, "[%s]", number);
    return true;
}

static bool default_route_address(size_t which, char *text, size_t size)
{
    struct sockaddr_storage address = {.ss_family = (sa_family_t)distant[which].family};
    socklen_t length;
    if (distant[which].family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)&address;
        in->sin_port = htons(9);
        inet_pton(AF_INET, distant[which].address, &in->sin_addr);
        length = sizeof *in;
    } else {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
        in6->sin6_port = htons(9);
        inet_pton(AF_INET6, distant[which].address, &in6->sin6_addr);
        length = sizeof *in6;
    }
    int fd = socket(distant[which].family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool found = connect(fd, (struct sockaddr *)&address, length) == 0;
    length = sizeof address;
    found = found && getsockname(fd, (struct sockaddr *)&address, &length) == 0 &&
            address_text((struct sockaddr *)&address, text, size);
    close(fd);
    return found;
}

// Without a default route: the first address of an interface that is up and not loopback.
static bool interface_address(char *text, size_t size)
{
    struct ifaddrs *list;
    if (getifaddrs(&list) != 0)
        return false;
    bool found = false;
    for (struct ifaddrs *item = list; item && !found; item = item->ifa_next)
        if (item->ifa_addr && (item->ifa_flags & IFF_UP) && !(item->ifa_flags & IFF_LOOPBACK))
            found = address_text(item->ifa_addr, text, size);
    freeifaddrs(list);
    return found;
}

void advertise_endpoint(const char *bound, char endpoint[IDENTITY_ENDPOINT_SIZE])
{
    const char *port = strrchr(bound, ':');
    bool any_v4 = strncmp(bound, "tcp://0.0.0.0:", 14) == 0;
    bool any_v6 = strncmp(bound, "tcp://[::]:", 11) == 0 || strncmp(bound, "tcp://*:", 8) == 0;
    if (!any_v4 && !any_v6) {
        snprintf(endpoint, IDENTITY_ENDPOINT_SIZE, "%s", bound);
        return;
    }
    char host[INET6_ADDRSTRLEN + 2] = "127.0.0.1";
    if (!default_route_address(0, host, sizeof host) &&
        !(any_v6 && default_route_address(1, host, sizeof host)))
        interface_address(host, sizeof host);
    snprintf(endpoint, IDENTITY_ENDPOINT_SIZE, "tcp://%s%s", host, port);
}
