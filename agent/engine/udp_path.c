// Before the load of a UDP test: datagrams that are no part of the window, until one arrives. What
// a router refuses of them (RFC 1191, RFC 8201) is not lost from the sequence range then. A path
// that swallows them in silence is loaded all the same.

#include <time.h>

#include "clock.h"
#include "udp_outlet.h"

#define PATH_NS (200 * NS_PER_MS) // until a datagram of full length arrives
#define PATH_AGAIN_NS (20 * NS_PER_MS)
#define PATH_LOOK_NS (200 * NS_PER_US)

// An asked length that the path does not take whole: its routers may fragment from now on.
static void let_fragment(struct udp_sender *sender, unsigned mtu)
{
    sender->path_mtu = mtu;
    sender->fragmented = true;
    for (unsigned i = 0; i < sender->streams; i++)
        udp_set_fragments(sender->fds[i], true);
}

static void fit(struct udp_outlet *outlet, int fd)
{
    struct udp_sender *sender = outlet->sender;
    unsigned mtu = udp_route_mtu(fd), headers = udp_is_six(fd) ? 48 : 28;
    if (sender->order->spec.length && mtu && mtu < sender->length + headers) {
        let_fragment(sender, mtu);
    } else if (udp_outlet_shrink(outlet, fd)) {
        sender->length = outlet->length;
        sender->path_mtu = outlet->path_mtu;
    }
}

// A byte longer than the load's datagrams or, where the MTU leaves no room for that, shorter:
// whoever counts the load by its length does not count these.
static size_t path_probe_size(const struct udp_sender *sender, int fd)
{
    unsigned mtu = udp_route_mtu(fd), headers = udp_is_six(fd) ? 48 : 28;
    bool longer = mtu == 0 || sender->length + headers < mtu || sender->length == UDP_HEADER;
    return longer ? sender->length + 1 : sender->length - 1;
}

void udp_find_path_mtu(struct udp_sender *sender)
{
    struct udp_outlet probe;
    struct udp_link *link = &sender->link;
    int fd = sender->fds[0];
    int64_t now = clock_mono_ns(), until = now + PATH_NS, next = now;
    udp_outlet_open(&probe, sender, 0, 1, 1);
    while (!sender->fragmented && !atomic_load(&link->arrived) && !atomic_load(&link->stop) &&
           now < until) {
        unsigned length = sender->length;
        fit(&probe, fd);
        if (now >= next || sender->length != length) {
            udp_outlet_try(
                &probe, atomic_fetch_add(&sender->omitted, 1), path_probe_size(sender, fd));
            next = now + PATH_AGAIN_NS;
        }
        int64_t look = now + PATH_LOOK_NS;
        struct timespec due = {look / NS_PER_S, look % NS_PER_S};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        now = clock_mono_ns();
    }
    udp_outlet_close(&probe);
}
