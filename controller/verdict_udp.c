// Datagrams: what was not offered, what was lost, and where.

#include "verdict_parts.h"

static bool udp_loss(const struct facts *facts, const Mp__Packets *packets, struct finding *finding)
{
    if (!packets || !packets->has_sent || !packets->has_received ||
        packets->received >= packets->sent)
        return false;
    double missing = (double)(packets->sent - packets->received);
    double own = packets->has_lost_receiver ? (double)packets->lost_receiver : 0;
    double share = 100 * missing / (double)packets->sent;
    if (share < 100 * (1 - REACHED))
        return false;
    if (own >= missing / 2)
        return find(
            finding, "receiver_cpu", "%.1f %% lost, most of it in the receiver's socket", share);
    if (facts->softnet_dropped >= missing / 2)
        return find(finding, "receiver_cpu", "%.1f %% lost, %llu dropped by the receiver's kernel",
            share, (unsigned long long)facts->softnet_dropped);
    if (facts->interface_dropped >= missing / 2)
        return find(finding, "receiver_cpu",
            "%.1f %% lost, %llu dropped by the receiver's interface", share,
            (unsigned long long)facts->interface_dropped);
    return find(finding, "network", "%.1f %% of the packets lost in the network", share);
}

struct finding judge_udp(const struct testspec *spec, const struct facts *facts,
    const Mp__SendSide *send, const Mp__Packets *packets)
{
    struct finding finding;
    char words[80];
    double asked = facts->capped_bps ? (double)facts->capped_bps : facts->asked_bps;
    bool short_of = asked > 0 && send->has_offered_bps && send->offered_bps < REACHED * asked;
    // What was not offered against what was offered and did not arrive: the larger gap is judged.
    bool mostly_offered = asked > 0 && (!short_of || asked - send->offered_bps <
                                                         send->offered_bps - facts->goodput_bps);
    if (found_bitrate(facts, &finding))
        return finding;
    if (mostly_offered && udp_loss(facts, packets, &finding))
        return finding;
    if (found_quota(facts, &finding))
        return finding;
    if (short_of && !mostly_offered && host_late(&facts->tx)) {
        find(&finding, "sender_cpu", "%.0f %% of the rate offered, sender's %s",
            100 * send->offered_bps / asked, host_words(&facts->tx, words));
        return finding;
    }
    if (udp_loss(facts, packets, &finding))
        return finding;
    if (spec->bitrate_max && host_full(&facts->tx))
        find(&finding, "sender_cpu", "sender's %s", host_words(&facts->tx, words));
    else if (spec->bitrate_max && host_full(&facts->rx))
        find(&finding, "receiver_cpu", "receiver's %s", host_words(&facts->rx, words));
    else if (send->has_blocked_s && send->has_duration_s && send->duration_s > 0 &&
             send->blocked_s >= LIMITED_SHARE * send->duration_s)
        find(&finding, "network", "the sender's queue was full %.0f %% of the time",
            100 * send->blocked_s / send->duration_s);
    else if (asked > 0 && send->has_offered_bps && !short_of)
        find(&finding, "bitrate", "what was asked for was sent, and under 1 %% of it was lost");
    else if (short_of)
        find(&finding, "unknown", "%.0f %% of the rate offered although the sender was not busy",
            100 * send->offered_bps / asked);
    else
        find(&finding, "unknown", "no rule of the limiter applies");
    return finding;
}
