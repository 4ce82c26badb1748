#include "wire_rate.h"

#define ETHERNET 14
#define LINE_EXTRA 24
#define FRAME_LEAST 60
#define IPV6_FRAGMENT 8 // extension header

void wire_rates(const struct wire_traffic *traffic, double seconds, struct probe_receive *receive)
{
    if (traffic->packets == 0 || !(seconds > 0))
        return;
    double packets = (double)traffic->packets;
    double l3 = (double)traffic->payload_bytes + (double)traffic->extra_bytes +
                packets * traffic->packet_bytes;
    double l2 = l3 + packets * ETHERNET;
    // Of packets of several lengths only the mean is known.
    double framed = l2 / packets < FRAME_LEAST ? packets * FRAME_LEAST : l2;
    receive->wire_l3_bps = 8 * l3 / seconds;
    receive->wire_l2_bps = 8 * l2 / seconds;
    receive->wire_line_bps = 8 * (framed + packets * LINE_EXTRA) / seconds;
}

struct wire_traffic wire_of_datagrams(
    uint64_t count, unsigned length, unsigned family, unsigned path_mtu)
{
    unsigned ip = family == 6 ? WIRE_IPV6 : WIRE_IPV4, pieces = 1, extra = WIRE_UDP;
    if (path_mtu > ip + 16 && length + WIRE_UDP + ip > path_mtu) {
        unsigned room = path_mtu - ip - (family == 6 ? IPV6_FRAGMENT : 0);
        room -= room % 8; // a fragment's offset counts in eights
        pieces = (length + WIRE_UDP + room - 1) / room;
        extra += family == 6 ? pieces * IPV6_FRAGMENT : 0;
    }
    return (struct wire_traffic){.payload_bytes = count * length,
        .packets = count * pieces,
        .packet_bytes = ip,
        .extra_bytes = count * extra};
}

uint64_t wire_of_chunks(
    uint64_t payload_bytes, uint64_t chunks, uint64_t duplicates, unsigned message)
{
    uint64_t extra = (chunks + duplicates) * WIRE_SCTP_DATA;
    // The pieces of a message are whole words, but for the last one.
    if (message > 0)
        extra += payload_bytes / message * (3 - (message + 3) % 4);
    if (chunks > 0)
        extra += duplicates * (payload_bytes / chunks);
    return extra;
}

uint64_t wire_packets_of_chunks(uint64_t chunks, unsigned piece, unsigned message)
{
    unsigned chunk = WIRE_SCTP_DATA + (message + 3) / 4 * 4;
    unsigned together = message == 0 ? 1 : (piece + WIRE_SCTP_DATA) / chunk;
    return together > 1 ? (chunks + together - 1) / together : chunks;
}
