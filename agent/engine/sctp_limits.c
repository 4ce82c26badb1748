#include "sctp_limits.h"

#include <math.h>

#define ROOM_FRAGMENTS 4 // the kernel lets a window grow by pieces before it uses it
#define ROOM_PACKETS 2   // the status is as of the last acknowledgement
#define FULL 0.9         // of the send buffer: a message is written when some of it is free

uint64_t sctp_arrived(
    uint64_t read, uint64_t chunks, unsigned message, unsigned piece, uint64_t most)
{
    if (piece == 0)
        return read;
    unsigned pieces = message ? (message + piece - 1) / piece : 1;
    // The last piece of a message is shorter: the mean counts.
    double mean = message ? (double)message / pieces : piece;
    double unread = (double)chunks * mean - (double)read;
    return unread < 0 || unread > (double)most ? read : read + (uint64_t)unread;
}

static uint64_t bytes_on_their_way(const struct sctp_standing *standing)
{
    uint32_t piece = standing->fragment_bytes;
    if (piece == 0 || standing->message_bytes <= piece)
        return (uint64_t)standing->unacked * standing->message_bytes;
    // The last piece of a message is shorter: the mean counts.
    uint32_t pieces = (standing->message_bytes + piece - 1) / piece;
    return (uint64_t)standing->unacked * standing->message_bytes / pieces;
}

enum sctp_limit sctp_limit_of(const struct sctp_standing *standing)
{
    if (standing->unacked == 0 && standing->queued_bytes == 0)
        return SCTP_LIMIT_IDLE;
    uint64_t flight = bytes_on_their_way(standing);
    if (flight + ROOM_PACKETS * (uint64_t)standing->mtu_bytes >= standing->cwnd_bytes)
        return SCTP_LIMIT_NETWORK;
    if (standing->peer_window < ROOM_FRAGMENTS * (uint64_t)standing->fragment_bytes)
        return SCTP_LIMIT_WINDOW;
    // There is room at the peer and in the congestion window: what is queued is on its way.
    if ((double)standing->queued_bytes >= FULL * (double)standing->buffer_bytes)
        return SCTP_LIMIT_BUFFER;
    return SCTP_LIMIT_NONE;
}

void sctp_shares_add(struct sctp_shares *self, const struct sctp_standing *standing)
{
    self->samples++;
    self->of[sctp_limit_of(standing)]++;
}

double sctp_share(const struct sctp_shares *self, enum sctp_limit limit)
{
    return self->samples ? (double)self->of[limit] / (double)self->samples : NAN;
}
