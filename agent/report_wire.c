#include "report_wire.h"

#include <czmq.h>
#include <math.h>

#include "wire.h"

// What the envelope, the ids and the session need beside the report.
#define MESSAGE_OVERHEAD 1024

// Present if measured. Values that the protocol refuses (infinite, negative) are not measured.
#define SET_REAL(wire, field, value)                                                               \
    do {                                                                                           \
        double real_ = (value);                                                                    \
        (wire)->has_##field = isfinite(real_) && real_ >= 0;                                       \
        if ((wire)->has_##field)                                                                   \
            (wire)->field = real_;                                                                 \
    } while (0)

#define SET_COUNT(wire, field, value)                                                              \
    do {                                                                                           \
        uint64_t count_ = (value);                                                                 \
        (wire)->has_##field = count_ != PROBE_ABSENT;                                              \
        if ((wire)->has_##field)                                                                   \
            (wire)->field = count_;                                                                \
    } while (0)

// Zero stands for absent.
#define SET_NUMBER(wire, field, value)                                                             \
    do {                                                                                           \
        (wire)->has_##field = (value) != 0;                                                        \
        (wire)->field = (value);                                                                   \
    } while (0)

static char *text_copy(const char *text)
{
    return text && *text ? strdup(text) : NULL;
}

static Mp__Distribution *distribution(const struct probe_distribution *from)
{
    if (from->count == 0 || from->count == PROBE_ABSENT)
        return NULL;
    Mp__Distribution *wire = zmalloc(sizeof *wire);
    mp__distribution__init(wire);
    wire->count = from->count;
    SET_REAL(wire, min, from->min_s);
    SET_REAL(wire, mean, from->mean_s);
    SET_REAL(wire, p50, from->p50_s);
    SET_REAL(wire, p90, from->p90_s);
    SET_REAL(wire, p99, from->p99_s);
    SET_REAL(wire, p999, from->p999_s);
    SET_REAL(wire, max, from->max_s);
    return wire;
}

Mp__HostLoad *load_to_wire(const struct probe_load *load)
{
    Mp__HostLoad *wire = zmalloc(sizeof *wire);
    mp__host_load__init(wire);
    SET_REAL(wire, cores, load->cores);
    SET_REAL(wire, busiest_thread, load->busiest_thread);
    SET_REAL(wire, busiest_core, load->busiest_core);
    SET_REAL(wire, run_queue_wait, load->run_queue_wait);
    SET_COUNT(wire, softnet_dropped, load->softnet_dropped);
    SET_COUNT(wire, allowance_exceeded, load->allowance_exceeded);
    SET_REAL(wire, throttled, load->throttled);
    SET_REAL(wire, steal, load->steal);
    if (wire->has_cores || wire->has_busiest_thread || wire->has_busiest_core ||
        wire->has_run_queue_wait || wire->has_softnet_dropped)
        return wire;
    mp__host_load__free_unpacked(wire, NULL);
    return NULL;
}

void interval_to_wire(const struct probe_interval *interval, Mp__Interval *wire)
{
    mp__interval__init(wire);
    wire->start_s = isfinite(interval->start_s) && interval->start_s > 0 ? interval->start_s : 0;
    wire->duration_s =
        isfinite(interval->duration_s) && interval->duration_s > 0 ? interval->duration_s : 0;
    SET_REAL(wire, bandwidth_bps, interval->bandwidth_bps);
    SET_COUNT(wire, bytes, interval->bytes);
    SET_COUNT(wire, retransmits, interval->retransmits);
    SET_COUNT(wire, sent, interval->sent);
    SET_COUNT(wire, received, interval->received);
    SET_COUNT(wire, lost, interval->lost);
    SET_REAL(wire, jitter_s, interval->jitter_s);
}

static Mp__HostRecord *record(const struct probe_record *from, const struct probe_load *load)
{
    if (!*from->kernel)
        return NULL;
    Mp__HostRecord *wire = zmalloc(sizeof *wire);
    mp__host_record__init(wire);
    wire->kernel = text_copy(from->kernel);
    wire->interface = text_copy(from->interface);
    wire->driver = text_copy(from->driver);
    wire->offloads = text_copy(from->offloads);
    wire->qdisc = text_copy(from->qdisc);
    wire->congestion = text_copy(from->congestion);
    wire->virtualization = text_copy(from->virtualization);
    wire->boot_id = text_copy(from->boot_id);
    SET_NUMBER(wire, link_bps, from->link_bps);
    SET_NUMBER(wire, mtu, from->mtu);
    SET_NUMBER(wire, rmem_max, from->rmem_max);
    SET_NUMBER(wire, wmem_max, from->wmem_max);
    SET_NUMBER(wire, cores, from->cores);
    SET_REAL(wire, quota_cores, from->quota_cores);
    SET_COUNT(wire, moved_bytes, from->moved_bytes);
    SET_COUNT(wire, interface_dropped, load->interface_dropped);
    SET_COUNT(wire, softnet_dropped, load->softnet_dropped);
    return wire;
}

static Mp__Convergence *convergence(const struct probe_convergence *from)
{
    if (!(from->target > 0))
        return NULL;
    Mp__Convergence *wire = zmalloc(sizeof *wire);
    mp__convergence__init(wire);
    wire->target = from->target;
    wire->reached = from->reached;
    SET_REAL(wire, half_width, from->half_width);
    SET_NUMBER(wire, samples, from->samples);
    SET_NUMBER(wire, looks, from->looks);
    wire->has_autocorrelation = isfinite(from->autocorrelation);
    wire->autocorrelation = wire->has_autocorrelation ? from->autocorrelation : 0;
    wire->why = text_copy(from->why);
    return wire;
}

static Mp__Bucket *bucket(const struct probe_bucket *from)
{
    if (!from->found)
        return NULL;
    Mp__Bucket *wire = zmalloc(sizeof *wire);
    mp__bucket__init(wire);
    wire->at_s = from->at_s;
    wire->before_bps = from->before_bps;
    wire->after_bps = from->after_bps;
    wire->bytes = from->bytes;
    return wire;
}

// ------------------------------------------------------------------------------------- two sides

static Mp__SendSide *send_side(const struct probe_send *from)
{
    Mp__SendSide *wire = zmalloc(sizeof *wire);
    mp__send_side__init(wire);
    SET_COUNT(wire, bytes, from->bytes);
    SET_REAL(wire, duration_s, from->duration_s);
    SET_COUNT(wire, retransmits, from->retransmits);
    SET_COUNT(wire, segments, from->segments);
    wire->rtt_loaded = distribution(&from->rtt_loaded);
    SET_REAL(wire, min_rtt_s, from->min_rtt_s);
    SET_REAL(wire, busy, from->busy);
    SET_REAL(wire, receive_window_limited, from->receive_window_limited);
    SET_REAL(wire, send_buffer_limited, from->send_buffer_limited);
    SET_COUNT(wire, cwnd_max, from->cwnd_max);
    SET_COUNT(wire, delivered_ce, from->delivered_ce);
    SET_COUNT(wire, packets_sent, from->packets_sent);
    SET_COUNT(wire, packets_lost_sender, from->packets_lost_sender);
    SET_REAL(wire, offered_bps, from->offered_bps);
    SET_COUNT(wire, capped_bps, from->capped_bps);
    wire->congestion = text_copy(from->congestion);
    SET_NUMBER(wire, mss, from->mss);
    SET_NUMBER(wire, path_mtu, from->path_mtu);
    SET_NUMBER(wire, length, from->length);
    SET_NUMBER(wire, fragmented, from->fragmented);
    SET_REAL(wire, stalled_s, from->stalled_s);
    SET_REAL(wire, blocked_s, from->blocked_s);
    return wire;
}

static Mp__Packets *packets(const struct probe_receive *from)
{
    if (from->packets_expected == PROBE_ABSENT && from->packets_received == PROBE_ABSENT)
        return NULL;
    Mp__Packets *wire = zmalloc(sizeof *wire);
    mp__packets__init(wire);
    SET_COUNT(wire, sent, from->packets_expected);
    SET_COUNT(wire, received, from->packets_received);
    SET_COUNT(wire, lost_receiver, from->packets_lost_receiver);
    // The engine counts all that is absent; what the receiver's socket dropped is not the
    // network's.
    if (from->packets_lost != PROBE_ABSENT) {
        uint64_t here = from->packets_lost_receiver;
        here = here == PROBE_ABSENT ? 0 : here;
        wire->has_lost_network = true;
        wire->lost_network = from->packets_lost > here ? from->packets_lost - here : 0;
    }
    SET_COUNT(wire, lost_receiver_max, from->packets_lost_receiver_max);
    SET_COUNT(wire, reordered, from->reordered);
    SET_COUNT(wire, duplicate, from->duplicate);
    SET_COUNT(wire, reorder_extent, from->reorder_extent);
    SET_COUNT(wire, loss_bursts, from->loss_bursts);
    SET_COUNT(wire, loss_burst_longest, from->loss_burst_longest);
    if (wire->has_loss_bursts && wire->loss_bursts > 0 && from->packets_lost != PROBE_ABSENT)
        SET_REAL(wire, loss_burst_mean, (double)from->packets_lost / (double)wire->loss_bursts);
    return wire;
}

static Mp__ReceiveSide *receive_side(const struct probe_receive *from)
{
    Mp__ReceiveSide *wire = zmalloc(sizeof *wire);
    mp__receive_side__init(wire);
    SET_COUNT(wire, bytes, from->bytes);
    SET_REAL(wire, duration_s, from->duration_s);
    SET_REAL(wire, omitted_s, from->omitted_s);
    SET_REAL(wire, bandwidth_bps, from->bandwidth_bps);
    wire->packets = packets(from);
    SET_REAL(wire, jitter_s, from->jitter_s);
    SET_REAL(wire, jitter_rfc3550_s, from->jitter_rfc3550_s);
    wire->pdv = distribution(&from->pdv);
    wire->ipdv = distribution(&from->ipdv);
    wire->stamps = text_copy(from->stamps);
    SET_COUNT(wire, drained_bytes, from->drained_bytes);
    SET_NUMBER(wire, receive_buffer, from->receive_buffer);
    SET_REAL(wire, receive_queue_high, from->receive_queue_high);
    SET_COUNT(wire, segments, from->segments);
    SET_REAL(wire, wire_l3_bps, from->wire_l3_bps);
    SET_REAL(wire, wire_l2_bps, from->wire_l2_bps);
    SET_REAL(wire, wire_line_bps, from->wire_line_bps);
    SET_COUNT(wire, whole_bytes, from->whole_bytes);
    SET_REAL(wire, whole_s, from->whole_s);
    SET_NUMBER(wire, streams, from->streams);
    wire->convergence = convergence(&from->convergence);
    wire->bucket = bucket(&from->bucket);
    wire->n_intervals = from->interval_count;
    wire->intervals = zmalloc((from->interval_count + 1) * sizeof *wire->intervals);
    for (size_t i = 0; i < from->interval_count; i++) {
        wire->intervals[i] = zmalloc(sizeof **wire->intervals);
        interval_to_wire(&from->intervals[i], wire->intervals[i]);
    }
    return wire;
}

// ------------------------------------------------------------------------------------ too long

static void add(protobuf_c_boolean *has, uint64_t *sum, protobuf_c_boolean has_more, uint64_t more)
{
    *has = *has && has_more;
    *sum += more;
}

static void interval_merge(Mp__Interval *into, const Mp__Interval *next)
{
    double duration_s = into->duration_s + next->duration_s;
    if (into->has_bandwidth_bps && next->has_bandwidth_bps && duration_s > 0)
        into->bandwidth_bps =
            (into->bandwidth_bps * into->duration_s + next->bandwidth_bps * next->duration_s) /
            duration_s;
    else
        into->has_bandwidth_bps = false;
    if (into->has_jitter_s && next->has_jitter_s)
        into->jitter_s = (into->jitter_s + next->jitter_s) / 2;
    else
        into->has_jitter_s = false;
    into->duration_s = duration_s;
    add(&into->has_bytes, &into->bytes, next->has_bytes, next->bytes);
    add(&into->has_retransmits, &into->retransmits, next->has_retransmits, next->retransmits);
    add(&into->has_sent, &into->sent, next->has_sent, next->sent);
    add(&into->has_received, &into->received, next->has_received, next->received);
    add(&into->has_lost, &into->lost, next->has_lost, next->lost);
}

static void intervals_halve(Mp__ReceiveSide *wire)
{
    size_t kept = 0;
    for (size_t i = 0; i < wire->n_intervals; i += 2) {
        Mp__Interval *first = wire->intervals[i];
        if (i + 1 < wire->n_intervals) {
            interval_merge(first, wire->intervals[i + 1]);
            mp__interval__free_unpacked(wire->intervals[i + 1], NULL);
        }
        wire->intervals[kept++] = first;
    }
    wire->n_intervals = kept;
}

// ---------------------------------------------------------------------------------------- whole

// The engine's and the protocol's outcomes are the same words in another order of numbers.
static Mp__Outcome outcome_of(enum probe_outcome outcome)
{
    static const Mp__Outcome outcomes[] = {
        [PROBE_OK] = MP__OUTCOME__OUTCOME_OK,
        [PROBE_FAILED] = MP__OUTCOME__OUTCOME_FAILED,
        [PROBE_UNSUPPORTED] = MP__OUTCOME__OUTCOME_UNSUPPORTED,
        [PROBE_STOPPED] = MP__OUTCOME__OUTCOME_STOPPED,
        [PROBE_SKIPPED] = MP__OUTCOME__OUTCOME_SKIPPED,
    };
    return outcomes[outcome];
}

Mp__EndReport *report_refusal(Mp__Outcome outcome, bool retry, const char *reason)
{
    Mp__EndReport *wire = zmalloc(sizeof *wire);
    mp__end_report__init(wire);
    wire->outcome = outcome;
    wire->has_retry = wire->retry = retry;
    wire->reason = text_copy(reason);
    return wire;
}

Mp__EndReport *report_to_wire(const struct probe_report *report)
{
    Mp__EndReport *wire =
        report_refusal(outcome_of(report->outcome), report->retry, report->reason);
    if (report->has_send)
        wire->send = send_side(&report->send);
    if (report->has_receive)
        wire->receive = receive_side(&report->receive);
    wire->load = load_to_wire(&report->load);
    wire->record = record(&report->record, &report->load);
    wire->rtt_idle = distribution(&report->rtt_idle);
    wire->rtt_foreign = distribution(&report->rtt_foreign);
    wire->technique = text_copy(report->technique);
    wire->peer_seen = text_copy(report->peer_seen);
    SET_NUMBER(wire, family, report->family);
    SET_NUMBER(wire, source_port, report->source_port);
    SET_NUMBER(wire, destination_port, report->destination_port);
    while (wire->receive && wire->receive->n_intervals > 1 &&
           wire_packed_size(&wire->base) > WIRE_MESSAGE_MAX - MESSAGE_OVERHEAD)
        intervals_halve(wire->receive);
    return wire;
}

static Mp__LightOutcome *light_outcome_new(
    const uint8_t test_id[TICKET_ID_SIZE], enum probe_outcome outcome, const char *reason)
{
    Mp__LightOutcome *wire = zmalloc(sizeof *wire);
    mp__light_outcome__init(wire);
    wire->test_id.data = zmalloc(TICKET_ID_SIZE);
    wire->test_id.len = TICKET_ID_SIZE;
    memcpy(wire->test_id.data, test_id, TICKET_ID_SIZE);
    wire->outcome = outcome_of(outcome);
    wire->reason = text_copy(reason);
    return wire;
}

static void reach_near(const struct reach_outcome *outcome, Mp__LightOutcome *wire)
{
    const char *name = outcome->error ? strerrorname_np(outcome->error) : NULL;
    wire->has_observed = wire->has_probes = wire->has_time_s = true;
    wire->observed = outcome->observed;
    wire->probes = outcome->probes;
    wire->time_s = outcome->time_s > 0 ? outcome->time_s : 0;
    wire->error = name ? strdup(name) : NULL;
    wire->has_icmp_type = wire->has_icmp_code = outcome->has_icmp;
    wire->icmp_type = outcome->icmp_type;
    wire->icmp_code = outcome->icmp_code;
    wire->icmp_from = outcome->has_icmp ? text_copy(outcome->icmp_from) : NULL;
    wire->last_hop = text_copy(outcome->last_hop);
    wire->has_last_hop_ttl = wire->last_hop != NULL;
    wire->last_hop_ttl = outcome->last_hop_ttl;
    wire->has_alive = wire->alive = outcome->alive;
    wire->alive_how = text_copy(outcome->alive_how);
    wire->source_ports = zmalloc(TESTSPEC_ATTEMPTS_MAX * sizeof *wire->source_ports);
    for (; wire->n_source_ports < outcome->source_port_count; wire->n_source_ports++)
        wire->source_ports[wire->n_source_ports] = outcome->source_ports[wire->n_source_ports];
}

static void reach_far(const struct reach_outcome *outcome, Mp__LightOutcome *wire)
{
    wire->has_arrived = wire->has_listener = true;
    wire->arrived = outcome->arrived;
    wire->listener = outcome->listener;
    wire->seen_from = text_copy(outcome->seen_from);
    wire->half_open = zmalloc(REACH_CONTACTS * sizeof *wire->half_open);
    for (unsigned i = 0; i < outcome->contact_count; i++) {
        Mp__HalfOpen *contact = zmalloc(sizeof *contact);
        mp__half_open__init(contact);
        contact->seen_from = strdup(outcome->contacts[i].address);
        contact->port = outcome->contacts[i].port;
        contact->has_others = contact->others = outcome->contacts[i].others;
        wire->half_open[wire->n_half_open++] = contact;
    }
}

Mp__LightOutcome *reach_to_wire(
    const uint8_t test_id[TICKET_ID_SIZE], const struct reach_outcome *outcome, bool far)
{
    Mp__LightOutcome *wire = light_outcome_new(test_id, outcome->outcome, outcome->reason);
    wire->has_far = wire->far = far;
    if (far && outcome->outcome == PROBE_OK)
        reach_far(outcome, wire);
    if (!far && (outcome->outcome == PROBE_OK || outcome->outcome == PROBE_UNSUPPORTED))
        reach_near(outcome, wire);
    return wire;
}

static Mp__Hop *hop_to_wire(const struct path_hop *hop)
{
    Mp__Hop *wire = zmalloc(sizeof *wire);
    mp__hop__init(wire);
    wire->ttl = hop->ttl;
    wire->responder = text_copy(hop->address);
    wire->sent = hop->sent;
    wire->received = hop->received;
    wire->has_rtt_min_s = wire->has_rtt_mean_s = wire->has_rtt_max_s = hop->received > 0;
    wire->rtt_min_s = hop->rtt_min_s;
    wire->rtt_mean_s = hop->received ? hop->rtt_sum_s / hop->received : 0;
    wire->rtt_max_s = hop->rtt_max_s;
    SET_NUMBER(wire, mtu, hop->mtu);
    wire->has_final = wire->final = hop->final;
    return wire;
}

Mp__LightOutcome *path_to_wire(
    const uint8_t test_id[TICKET_ID_SIZE], const struct path_outcome *outcome)
{
    Mp__LightOutcome *wire = light_outcome_new(test_id, outcome->outcome, outcome->reason);
    wire->has_far = true;
    wire->far = false;
    if (outcome->outcome != PROBE_OK)
        return wire;
    wire->hops = zmalloc(TESTSPEC_HOPS_MAX * sizeof *wire->hops);
    for (; wire->n_hops < outcome->hop_count; wire->n_hops++)
        wire->hops[wire->n_hops] = hop_to_wire(&outcome->hops[wire->n_hops]);
    wire->has_reached = true;
    wire->reached = outcome->reached;
    SET_NUMBER(wire, path_mtu, outcome->path_mtu);
    wire->black_hole = text_copy(outcome->black_hole);
    return wire;
}

Mp__LightOutcome *light_to_wire(
    const uint8_t test_id[TICKET_ID_SIZE], const struct light_outcome *outcome)
{
    Mp__LightOutcome *wire = light_outcome_new(test_id, outcome->outcome, outcome->reason);
    if (outcome->outcome == PROBE_SKIPPED || outcome->outcome == PROBE_UNSUPPORTED)
        return wire;
    SET_COUNT(wire, sent, outcome->sent);
    SET_COUNT(wire, received, outcome->received);
    SET_COUNT(wire, duplicate, outcome->duplicate);
    SET_COUNT(wire, reordered, outcome->reordered);
    SET_REAL(wire, duration_s, outcome->duration_s);
    wire->rtt = distribution(&outcome->rtt);
    SET_REAL(wire, jitter_s, outcome->jitter_s);
    SET_NUMBER(wire, flows, outcome->flows);
    SET_REAL(wire, worst_flow_p50_s, outcome->worst_flow_p50_s);
    SET_REAL(wire, best_flow_p50_s, outcome->best_flow_p50_s);
    SET_NUMBER(wire, family, outcome->family);
    SET_COUNT(wire, far_spun, outcome->far_spun);
    wire->pdv_forward = distribution(&outcome->pdv_forward);
    wire->pdv_backward = distribution(&outcome->pdv_backward);
    wire->convergence = convergence(&outcome->convergence);
    if (outcome->one_way_bound_s > 0) {
        SET_REAL(wire, one_way_forward_s, outcome->one_way_forward_s);
        SET_REAL(wire, one_way_backward_s, outcome->one_way_backward_s);
        SET_REAL(wire, one_way_bound_s, outcome->one_way_bound_s);
    }
    return wire;
}
