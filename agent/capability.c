#include "capability.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "link.h"
#include "sctp.h"
#include "probe.h"

// ------------------------------------------------------------------------------------- trying

static bool socket_works(int family, int type)
{
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static int bind_loopback(int fd, bool ipv6)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    return ipv6 ? bind(fd, (struct sockaddr *)&v6, sizeof v6)
                : bind(fd, (struct sockaddr *)&v4, sizeof v4);
}

static bool ipv6_works(void)
{
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool works = bind_loopback(fd, true) == 0;
    close(fd);
    struct ifaddrs *list = NULL;
    if (works || getifaddrs(&list) < 0)
        return works;
    for (const struct ifaddrs *at = list; at && !works; at = at->ifa_next) {
        if (!at->ifa_addr || at->ifa_addr->sa_family != AF_INET6)
            continue;
        const struct sockaddr_in6 *v6 = (const void *)at->ifa_addr;
        works = !IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr) && !IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    }
    freeifaddrs(list);
    return works;
}

// ------------------------------------------------------------------------------------- reading

static void read_line(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    *text = '\0';
    if (!file)
        return;
    if (!fgets(text, (int)size, file))
        *text = '\0';
    text[strcspn(text, "\n")] = '\0';
    fclose(file);
}

static unsigned cores_usable(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (unsigned)count : 1;
}

static void find_tests(struct capability *self)
{
    self->test_count = 0;
    for (int kind = 1; kind <= TEST_KIND_MAX; kind++) {
        char reason[PROBE_TEXT_SIZE];
        const struct probe_kind *probe = probe_find((enum test_kind)kind);
        if (kind == TEST_LATENCY || kind == TEST_PORT || kind == TEST_PATH || (probe && probe->supported(reason)))
            self->tests[self->test_count++] = (char *)test_kind_name((enum test_kind)kind);
    }
}

void capability_find(struct capability *self, const struct guard *guard)
{
    struct utsname system;
    memset(self, 0, sizeof *self);
    self->tcp = socket_works(AF_INET, SOCK_STREAM) || socket_works(AF_INET6, SOCK_STREAM);
    self->udp = socket_works(AF_INET, SOCK_DGRAM) || socket_works(AF_INET6, SOCK_DGRAM);
    self->sctp = sctp_supported(self->sctp_reason, sizeof self->sctp_reason);
    self->ipv6 = ipv6_works();
    self->cores = cores_usable();
    if (uname(&system) == 0)
        snprintf(self->kernel, sizeof self->kernel, "%s %s", system.sysname, system.release);
    read_line("/proc/sys/net/ipv4/tcp_available_congestion_control", self->congestion,
        sizeof self->congestion);
    read_line("/proc/sys/kernel/random/boot_id", self->boot_id, sizeof self->boot_id);
    if (gethostname(self->hostname, sizeof self->hostname - 1) != 0)
        *self->hostname = '\0';
    guard_words(guard, self->guard);
    find_tests(self);
}

bool capability_changed(struct capability *self)
{
    bool loaded = access("/proc/self/net/sctp", F_OK) == 0, before = self->sctp;
    if (!loaded && !before)
        return false;
    char reason[sizeof self->sctp_reason];
    memcpy(reason, self->sctp_reason, sizeof reason);
    self->sctp = sctp_supported(self->sctp_reason, sizeof self->sctp_reason);
    if (self->sctp == before && strcmp(reason, self->sctp_reason) == 0)
        return false;
    find_tests(self);
    return true;
}

void capability_to_wire(
    const struct capability *self, const struct guard *guard, Mp__Capabilities *wire)
{
    mp__capabilities__init(wire);
    wire->tcp = self->tcp;
    wire->udp = self->udp;
    wire->sctp = self->sctp;
    wire->ipv6 = self->ipv6;
    wire->sctp_reason = self->sctp ? NULL : (char *)self->sctp_reason;
    wire->has_cores = true;
    wire->cores = self->cores;
    wire->kernel = (char *)self->kernel;
    wire->congestion = (char *)self->congestion;
    wire->hostname = (char *)self->hostname;
    wire->tests = (char **)self->tests;
    wire->n_tests = self->test_count;
    wire->guard = (char *)self->guard;
    wire->has_guard_rate_bps = guard->rate_bps > 0;
    wire->guard_rate_bps = guard->rate_bps;
    wire->has_guard_duration_ns = true;
    wire->guard_duration_ns = guard->duration_ns;
    wire->has_guard_bytes = guard->bytes > 0;
    wire->guard_bytes = guard->bytes;
    wire->has_guard_tests = true;
    wire->guard_tests = guard->tests;
}

// ----------------------------------------------------------------------------------- addresses

static bool is_ipv6(const char *address)
{
    return strchr(address, ':') != NULL;
}

static bool address_text(const struct ifaddrs *at, char text[CAPABILITY_ADDRESS_SIZE])
{
    if (!at->ifa_addr)
        return false;
    int family = at->ifa_addr->sa_family;
    if (family == AF_INET)
        return inet_ntop(family,
            &((const struct sockaddr_in *)(const void *)at->ifa_addr)->sin_addr, text,
            CAPABILITY_ADDRESS_SIZE);
    if (family == AF_INET6)
        return inet_ntop(family,
            &((const struct sockaddr_in6 *)(const void *)at->ifa_addr)->sin6_addr, text,
            CAPABILITY_ADDRESS_SIZE);
    return false;
}

// Reachable from elsewhere: no loopback, no link-local (which needs an interface beside it).
static bool is_global(const char *address)
{
    struct in6_addr v6;
    struct in_addr v4;
    if (inet_pton(AF_INET6, address, &v6) == 1)
        return !IN6_IS_ADDR_LINKLOCAL(&v6) && !IN6_IS_ADDR_LOOPBACK(&v6);
    return inet_pton(AF_INET, address, &v4) == 1 && (ntohl(v4.s_addr) >> 24) != 127 &&
           (ntohl(v4.s_addr) >> 16) != 0xa9fe;
}

static bool beside(const char *known, bool ipv6, char text[CAPABILITY_ADDRESS_SIZE])
{
    struct ifaddrs *list = NULL;
    char interface[IF_NAMESIZE] = "", candidate[CAPABILITY_ADDRESS_SIZE];
    bool found = false;
    if (getifaddrs(&list) < 0)
        return false;
    for (const struct ifaddrs *at = list; at; at = at->ifa_next)
        if (address_text(at, candidate) && strcmp(candidate, known) == 0)
            snprintf(interface, sizeof interface, "%.15s", at->ifa_name);
    for (const struct ifaddrs *at = list; at && !found; at = at->ifa_next) {
        if (strcmp(at->ifa_name, interface) != 0 || !address_text(at, candidate))
            continue;
        found = is_ipv6(candidate) == ipv6 && is_global(candidate);
        if (found)
            strcpy(text, candidate);
    }
    freeifaddrs(list);
    return found;
}

// An IPv4 controller reached through an IPv6 socket, or a zone that means nothing elsewhere.
static void plain(char *address)
{
    if (strncmp(address, "::ffff:", 7) == 0 && strchr(address, '.'))
        memmove(address, address + 7, strlen(address + 7) + 1);
    address[strcspn(address, "%")] = '\0';
}

size_t capability_addresses(const char *endpoint, const char chosen[2][CAPABILITY_ADDRESS_SIZE],
    char found[2][CAPABILITY_ADDRESS_SIZE])
{
    char addresses[2][CAPABILITY_ADDRESS_SIZE] = {"", ""}, toward[CAPABILITY_ADDRESS_SIZE];
    if (link_local_address(endpoint, 0, toward) == 0) {
        plain(toward);
        int family = is_ipv6(toward);
        strcpy(addresses[family], toward);
        if (!beside(toward, !family, addresses[!family]))
            *addresses[!family] = '\0';
    }
    size_t count = 0;
    for (int family = 0; family < 2; family++) {
        if (*chosen[family])
            strcpy(addresses[family], chosen[family]);
        if (*addresses[family])
            strcpy(found[count++], addresses[family]);
    }
    return count;
}
