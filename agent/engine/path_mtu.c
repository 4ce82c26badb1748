// The largest packet that passes both ways, and sizes that vanish without a word.

#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "path_parts.h"

#define WAIT_NS (600 * NS_PER_MS)
#define HEADERS4 28u
#define HEADERS6 48u

static void set_probe(int fd, bool six)
{
    int probe = six ? IPV6_PMTUDISC_PROBE : IP_PMTUDISC_PROBE;
    (void)setsockopt(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER,
        &probe, sizeof probe);
}

// Of the interface that has the socket's own address: IP_MTU is what an earlier "fragmentation
// needed" made the kernel believe of the path. 0: not known.
static int interface_mtu(int fd)
{
    struct sockaddr_storage local;
    socklen_t size = sizeof local;
    struct reach_contact own, other;
    struct ifaddrs *all = NULL;
    struct ifreq request = {0};
    if (getsockname(fd, (struct sockaddr *)&local, &size) < 0 || getifaddrs(&all) < 0)
        return 0;
    reach_text(&local, &own);
    for (const struct ifaddrs *i = all; i && !*request.ifr_name; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != local.ss_family)
            continue;
        memcpy(&local, i->ifa_addr,
            local.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
        reach_text(&local, &other);
        if (strcmp(own.address, other.address) == 0)
            snprintf(request.ifr_name, sizeof request.ifr_name, "%s", i->ifa_name);
    }
    freeifaddrs(all);
    return *request.ifr_name && ioctl(fd, SIOCGIFMTU, &request) == 0 ? request.ifr_mtu : 0;
}

static unsigned headers(const struct walk *walk)
{
    return walk->six ? HEADERS6 : HEADERS4;
}

static void add_size(struct walk *walk, unsigned size)
{
    for (unsigned i = 0; i < walk->size_count; i++)
        if (walk->sizes[i] == size)
            return;
    if (walk->size_count < SIZES_MAX && size > headers(walk) + REACH_SIZE)
        walk->sizes[walk->size_count++] = size;
}

static void say_sizes(struct walk *walk)
{
    for (unsigned i = 0; i < walk->size_count; i++) {
        unsigned payload = walk->sizes[i] - headers(walk);
        if (!(walk->there >> i & 1))
            (void)!path_say(walk, PATH_ASK_SHORT, i, payload);
        if (!(walk->back >> i & 1))
            (void)!path_say(walk, REACH_ASK, i, payload);
    }
}

// From the interface's own size downwards, at the steps that tunnels make.
void mtu_begin(struct path *self, struct walk *walk, int64_t now)
{
    static const unsigned steps[] = {9000, 8950, 4352, 1500, 1492, 1480, 1476, 1460, 1450, 1440,
        1420, 1412, 1400, 1380, 1360, 1340, 1320, 1300, 1280, 1024, 576};
    for (unsigned i = 0; i < TESTSPEC_ATTEMPTS_MAX; i++)
        reach_unwatch(&walk->probes[i].watch);
    reach_unwatch(&walk->watch);
    walk->source_port = 0;
    walk->stage = STAGE_MTU;
    int mtu = 0, error = path_dial(self, walk, &walk->watch, MP__TRANSPORT__OVER_UDP);
    socklen_t size = sizeof mtu;
    if (error || getsockopt(walk->watch.fd, walk->six ? IPPROTO_IPV6 : IPPROTO_IP,
                     walk->six ? IPV6_MTU : IP_MTU, &mtu, &size) < 0) {
        path_walk_end(self, walk);
        return;
    }
    set_probe(walk->watch.fd, walk->six);
    int whole = interface_mtu(walk->watch.fd);
    if (whole > mtu)
        mtu = whole;
    unsigned local = mtu > 65000 ? 65000 : (unsigned)mtu;
    add_size(walk, local);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (steps[i] < local && (steps[i] >= 1280 || !walk->six))
            add_size(walk, steps[i]);
    say_sizes(walk);
    walk->due_mono_ns = now + WAIT_NS;
}

void mtu_end(struct path *self, struct walk *walk)
{
    unsigned there = 0, back = 0;
    for (unsigned i = 0; i < walk->size_count; i++) {
        if (walk->there >> i & 1 && walk->sizes[i] > there)
            there = walk->sizes[i];
        if (walk->back >> i & 1 && walk->sizes[i] > back)
            back = walk->sizes[i];
    }
    struct path_outcome *out = &walk->outcome;
    out->path_mtu = back;
    // Told by a router, or kept by the interface: no black hole.
    unsigned expected = walk->told_mtu ? walk->told_mtu : walk->size_count ? walk->sizes[0] : 0;
    if (there > 0 && there < expected)
        snprintf(out->black_hole, PROBE_TEXT_SIZE,
            "packets of %u bytes vanish on the way there without a word; %u pass", expected, there);
    else if (there > 0 && back < there)
        snprintf(out->black_hole, PROBE_TEXT_SIZE,
            "packets of %u bytes vanish on the way back; %s%u pass", there, back ? "" : "at most ",
            back ? back : REACH_SIZE + headers(walk));
    path_walk_end(self, walk);
}

void mtu_due(struct path *self, struct walk *walk, int64_t now)
{
    if (walk->back == (1u << walk->size_count) - 1) {
        mtu_end(self, walk);
        return;
    }
    if (now < walk->due_mono_ns)
        return;
    if (walk->told_mtu && walk->mtu_tries < 2)
        add_size(walk, walk->told_mtu);
    if (walk->mtu_tries++ >= 2) {
        mtu_end(self, walk);
        return;
    }
    // What was lost by chance comes through the second time.
    say_sizes(walk);
    walk->due_mono_ns = now + WAIT_NS;
}

// What came back short went there; what came back long passed both ways.
void mtu_reply(struct walk *walk, unsigned tag, size_t size)
{
    if (tag >= walk->size_count)
        return;
    walk->there |= 1u << tag;
    if (size > REACH_SIZE)
        walk->back |= 1u << tag;
}

void mtu_error(struct walk *walk, const struct socket_error *error)
{
    if (walk->told_mtu && error->info >= walk->told_mtu)
        return;
    walk->told_mtu = error->info;
    for (unsigned i = 0; i < walk->outcome.hop_count; i++)
        if (strcmp(walk->outcome.hops[i].address, error->from) == 0)
            walk->outcome.hops[i].mtu = error->info;
}
