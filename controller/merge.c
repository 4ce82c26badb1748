#include "merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verdict.h"
#include "wire.h"

#define COPY(target, source, to, from)                                                             \
    do {                                                                                           \
        (target)->has_##to = (source)->has_##from;                                                 \
        (target)->to = (source)->from;                                                             \
    } while (0)

#define COPY_OF(type, part) ((part) ? (type *)wire_copy(&(part)->base) : NULL)

static char *text_copy(const char *text)
{
    return text ? strdup(text) : NULL;
}

static Mp__Distribution *distribution_copy(const Mp__Distribution *from)
{
    return from && from->count ? (Mp__Distribution *)wire_copy(&from->base) : NULL;
}

static void merge_sender(const struct testspec *spec, const Mp__SendSide *send, Mp__Cell *cell)
{
    if (spec->kind != TEST_UDP)
        COPY(cell, send, retransmits, retransmits);
    COPY(cell, send, cwnd_max, cwnd_max);
    COPY(cell, send, segments, segments);
    cell->rtt_self = distribution_copy(send->rtt_loaded);
    COPY(cell, send, offered_bps, offered_bps);
    COPY(cell, send, mss, mss);
    COPY(cell, send, path_mtu, path_mtu);
    COPY(cell, send, length, length);
    COPY(cell, send, fragmented, fragmented);
    COPY(cell, send, stalled_s, stalled_s);
    COPY(cell, send, blocked_s, blocked_s);
    cell->congestion = text_copy(send->congestion);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void merge_packets(const Mp__SendSide *send, const Mp__Packets *seen, Mp__Cell *cell)
{
    Mp__Packets *packets = (Mp__Packets *)wire_copy(&seen->base);
    if (!packets)
        return;
    cell->packets = packets;
    if (!packets->has_sent)
        COPY(packets, send, sent, packets_sent);
    COPY(packets, send, lost_sender, packets_lost_sender);
    if (!packets->has_sent || !packets->has_received)
        return;
    // More distinct arrivals than sent: the sender's count was cut short; nothing is negative.
    if (packets->received > packets->sent)
        packets->sent = packets->received;
    uint64_t missing = packets->sent - packets->received;
    packets->lost_receiver =
        packets->has_lost_receiver ? least(packets->lost_receiver, missing) : 0;
    packets->lost_network = missing - packets->lost_receiver;
    packets->has_lost_receiver = packets->has_lost_network = true;
    cell->has_loss_ratio = packets->sent > 0;
    if (packets->sent > 0)
        cell->loss_ratio = (double)packets->lost_network / (double)packets->sent;
}

static void merge_intervals(const Mp__ReceiveSide *receive, Mp__Cell *cell)
{
    if (receive->n_intervals == 0)
        return;
    cell->intervals = calloc(receive->n_intervals, sizeof *cell->intervals);
    if (!cell->intervals)
        abort();
    for (size_t i = 0; i < receive->n_intervals; i++) {
        cell->intervals[cell->n_intervals] =
            (Mp__Interval *)wire_copy(&receive->intervals[i]->base);
        cell->n_intervals += cell->intervals[cell->n_intervals] != NULL;
    }
}

static void merge_receiver(const Mp__ReceiveSide *receive, Mp__Cell *cell)
{
    COPY(cell, receive, bandwidth_bps, bandwidth_bps);
    COPY(cell, receive, bytes, bytes);
    COPY(cell, receive, duration_s, duration_s);
    COPY(cell, receive, omitted_s, omitted_s);
    COPY(cell, receive, jitter_s, jitter_s);
    COPY(cell, receive, jitter_rfc3550_s, jitter_rfc3550_s);
    COPY(cell, receive, drained_bytes, drained_bytes);
    COPY(cell, receive, wire_l3_bps, wire_l3_bps);
    COPY(cell, receive, wire_l2_bps, wire_l2_bps);
    COPY(cell, receive, wire_line_bps, wire_line_bps);
    COPY(cell, receive, valid_bytes, whole_bytes);
    COPY(cell, receive, valid_s, whole_s);
    COPY(cell, receive, streams, streams);
    cell->convergence = COPY_OF(Mp__Convergence, receive->convergence);
    cell->bucket = COPY_OF(Mp__Bucket, receive->bucket);
    cell->pdv = distribution_copy(receive->pdv);
    cell->ipdv = distribution_copy(receive->ipdv);
    cell->stamps = text_copy(receive->stamps);
    merge_intervals(receive, cell);
}

// "sender: X; receiver: Y", or what one of them says.
static char *merge_technique(const Mp__EndReport *sender, const Mp__EndReport *receiver)
{
    const char *ends[2] = {sender->technique, receiver->technique};
    if (!ends[0] || !ends[1])
        return text_copy(ends[0] ? ends[0] : ends[1]);
    size_t size = strlen(ends[0]) + strlen(ends[1]) + 3;
    char *text = malloc(size);
    if (!text)
        abort();
    strcpy(text, ends[0]);
    if (strcmp(ends[0], ends[1]) != 0)
        strcat(strcat(text, "; "), ends[1]);
    return text;
}

// Latency while the load ran, and how much it is above the idle path's.
static void merge_rtt(const Mp__EndReport *sender, const Mp__EndReport *receiver, Mp__Cell *cell)
{
    const Mp__EndReport *prober = sender->rtt_idle || sender->rtt_foreign ? sender : receiver;
    const Mp__Distribution *idle = prober->rtt_idle, *loaded = prober->rtt_foreign;
    cell->rtt = distribution_copy(idle);
    cell->rtt_loaded = distribution_copy(loaded);
    if (!idle || !loaded)
        return;
    cell->has_rtt_added_p50_s = idle->has_p50 && loaded->has_p50;
    cell->has_rtt_added_p99_s = idle->has_p99 && loaded->has_p99;
    cell->rtt_added_p50_s = loaded->p50 - idle->p50;
    cell->rtt_added_p99_s = loaded->p99 - idle->p99;
}

static void merge_common(const Mp__EndReport *sender, const Mp__EndReport *receiver, Mp__Cell *cell)
{
    cell->technique = merge_technique(sender, receiver);
    cell->translated = text_copy(receiver->peer_seen ? receiver->peer_seen : sender->peer_seen);
    COPY(cell, sender, family, family);
    if (!cell->has_family)
        COPY(cell, receiver, family, family);
    const Mp__EndReport *ports = sender->has_source_port ? sender : receiver;
    COPY(cell, ports, source_port, source_port);
    COPY(cell, ports, destination_port, destination_port);
    merge_rtt(sender, receiver, cell);
    cell->record_sender = COPY_OF(Mp__HostRecord, sender->record);
    cell->record_receiver = COPY_OF(Mp__HostRecord, receiver->record);
    if (sender->load)
        COPY(cell, sender->load, cpu_sender, cores);
    if (receiver->load)
        COPY(cell, receiver->load, cpu_receiver, cores);
}

bool merge_ends(const struct testspec *spec, const Mp__EndReport *sender,
    const Mp__EndReport *receiver, Mp__Cell *cell)
{
    const Mp__SendSide *send = sender->send;
    const Mp__ReceiveSide *receive = receiver->receive;
    if (!send || !receive || !receive->has_bandwidth_bps)
        return false;
    cell->state = MP__CELL_STATE__OK;
    merge_sender(spec, send, cell);
    merge_receiver(receive, cell);
    if (receive->packets)
        merge_packets(send, receive->packets, cell);
    merge_common(sender, receiver, cell);
    cell->limiter = verdict_new(spec, sender, receiver);
    return true;
}

// ------------------------------------------------------------------------------------------ light

static const Mp__CellState light_states[] = {
    [MP__OUTCOME__OUTCOME_OK] = MP__CELL_STATE__OK,
    [MP__OUTCOME__OUTCOME_FAILED] = MP__CELL_STATE__FAILED,
    [MP__OUTCOME__OUTCOME_UNSUPPORTED] = MP__CELL_STATE__UNSUPPORTED,
    [MP__OUTCOME__OUTCOME_STOPPED] = MP__CELL_STATE__FAILED,
    [MP__OUTCOME__OUTCOME_SKIPPED] = MP__CELL_STATE__SKIPPED,
};

static Mp__Packets *light_packets(const Mp__LightOutcome *outcome)
{
    Mp__Packets *packets = malloc(sizeof *packets);
    if (!packets)
        abort();
    mp__packets__init(packets);
    COPY(packets, outcome, sent, sent);
    COPY(packets, outcome, received, received);
    COPY(packets, outcome, duplicate, duplicate);
    COPY(packets, outcome, reordered, reordered);
    if (packets->has_sent && packets->has_received) {
        packets->received = least(packets->received, packets->sent);
        packets->has_lost_network = packets->has_lost_receiver = true;
        packets->lost_network = packets->sent - packets->received;
    }
    return packets;
}

// The first question finds it asleep.
static char *light_technique(const Mp__LightOutcome *outcome, const char *prober)
{
    if (!prober || !outcome->has_far_spun || !outcome->has_received)
        return text_copy(prober);
    const char *how = outcome->far_spun == 0                       ? "sleeps"
                      : outcome->far_spun + 1 >= outcome->received ? "spins"
                                                                   : "spins in part";
    char *text = NULL;
    return asprintf(&text, "%s, reflector %s", prober, how) < 0 ? NULL : text;
}

void merge_light(const Mp__LightOutcome *outcome, const Mp__LightResult *result, Mp__Cell *cell)
{
    cell->state = light_states[outcome->outcome];
    if (cell->state != MP__CELL_STATE__OK)
        cell->reason = text_copy(
            outcome->reason && *outcome->reason ? outcome->reason : "the prober gives no reason");
    cell->rtt = distribution_copy(outcome->rtt);
    cell->pdv = distribution_copy(outcome->pdv_forward);
    cell->pdv_backward = distribution_copy(outcome->pdv_backward);
    cell->convergence = COPY_OF(Mp__Convergence, outcome->convergence);
    COPY(cell, outcome, one_way_forward_s, one_way_forward_s);
    COPY(cell, outcome, one_way_backward_s, one_way_backward_s);
    COPY(cell, outcome, one_way_bound_s, one_way_bound_s);
    cell->stamps = text_copy(result->stamps);
    cell->technique = light_technique(outcome, result->technique);
    COPY(cell, outcome, duration_s, duration_s);
    COPY(cell, outcome, jitter_s, jitter_s);
    COPY(cell, outcome, flows, flows);
    COPY(cell, outcome, worst_flow_p50_s, worst_flow_p50_s);
    COPY(cell, outcome, best_flow_p50_s, best_flow_p50_s);
    COPY(cell, outcome, family, family);
    if (!outcome->has_sent)
        return;
    cell->packets = light_packets(outcome);
    if (cell->packets->has_lost_network && cell->packets->sent > 0) {
        cell->has_loss_ratio = true;
        cell->loss_ratio = (double)cell->packets->lost_network / (double)cell->packets->sent;
    }
}
