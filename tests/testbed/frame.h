#ifndef MESHPERF_TESTBED_FRAME_H
#define MESHPERF_TESTBED_FRAME_H

// What the test bed's tools need to know of an Ethernet frame.

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <stddef.h>
#include <stdint.h>

// Bytes of payload of an unfragmented UDP datagram in IPv4 or IPv6, and where it begins (may be
// NULL); 0: it is something else.
static inline unsigned frame_udp_payload(const uint8_t *bytes, size_t size, const uint8_t **payload)
{
    size_t ip = sizeof(struct ether_header), udp = 0;
    if (size < ip + 48)
        return 0;
    unsigned type = (unsigned)bytes[12] << 8 | bytes[13];
    if (type == ETHERTYPE_IP && bytes[ip + 9] == IPPROTO_UDP)
        udp = ip + (size_t)(bytes[ip] & 15) * 4;
    else if (type == ETHERTYPE_IPV6 && bytes[ip + 6] == IPPROTO_UDP)
        udp = ip + 40;
    if (udp == 0 || size < udp + 8)
        return 0;
    unsigned length = (unsigned)bytes[udp + 4] << 8 | bytes[udp + 5];
    if (length < 8 || size < udp + length)
        return 0;
    if (payload)
        *payload = bytes + udp + 8;
    return length - 8;
}

#endif
