// What the rules look at, from both ends' reports.

#include "verdict_parts.h"

#include <stdio.h>

static struct host_share host_share(const Mp__HostLoad *load)
{
    struct host_share share = {0};
    if (!load)
        return share;
    share.thread = load->has_busiest_thread ? load->busiest_thread : 0;
    share.core = load->has_busiest_core ? load->busiest_core : 0;
    share.wait = load->has_run_queue_wait ? load->run_queue_wait : 0;
    share.throttled = load->has_throttled ? load->throttled : 0;
    return share;
}

static double at_least_0(double value)
{
    return value > 0 ? value : 0;
}

// Whichever end connected has probed.
static void gather_probes(const Mp__EndReport *end, struct facts *facts)
{
    if (!end->rtt_idle || !end->rtt_foreign || !end->rtt_idle->has_p50 ||
        !end->rtt_foreign->has_p50)
        return;
    facts->idle_s = end->rtt_idle->p50;
    facts->loaded_s = end->rtt_foreign->p50;
    facts->probes = end->rtt_foreign->count;
}

double host_need(const struct host_share *share)
{
    return share->thread + share->wait;
}

bool host_full(const struct host_share *share)
{
    return host_need(share) >= THREAD_BUSY || share->core >= CORE_BUSY;
}

bool host_late(const struct host_share *share)
{
    return host_full(share) || share->wait >= WAIT_SHARE;
}

bool queue_stands(const struct facts *facts)
{
    return facts->rtt_min_s > 0 && facts->rtt_median_s >= QUEUE_DELAY * facts->rtt_min_s &&
           facts->rtt_median_s - facts->rtt_min_s >= QUEUE_LEAST_S;
}

// A window that is full while what it let out stands in the path's queue, and is read in time,
// keeps nothing from going faster: the path does.
static void leave_window_to_the_path(struct facts *facts)
{
    if (facts->small_window || host_late(&facts->rx) || facts->queue_high >= QUEUE_SHARE ||
        !queue_stands(facts))
        return;
    facts->network += facts->window;
    facts->window = 0;
}

bool probes_queue(const struct facts *facts)
{
    return facts->idle_s > 0 && facts->loaded_s >= QUEUE_DELAY * facts->idle_s &&
           facts->loaded_s - facts->idle_s >= QUEUE_LEAST_S;
}

bool path_queue(const struct facts *facts)
{
    bool late = host_late(&facts->tx) || host_late(&facts->rx);
    bool contradicted = late && facts->probes >= PROBES_LEAST && !probes_queue(facts);
    return queue_stands(facts) && !contradicted;
}

bool path_shows(const struct facts *facts)
{
    double segments = (double)facts->segments;
    return facts->allowance > 0 || path_queue(facts) || probes_queue(facts) ||
           (segments > 0 && ((double)facts->retransmits >= LOSS_SHARE * segments ||
                                (double)facts->marked >= CE_SHARE * segments));
}

struct facts facts_gather(
    const struct testspec *spec, const Mp__EndReport *sender, const Mp__EndReport *receiver)
{
    const Mp__SendSide *send = sender->send;
    const Mp__ReceiveSide *receive = receiver->receive;
    struct facts facts = {.tx = host_share(sender->load), .rx = host_share(receiver->load)};
    facts.goodput_bps = receive->bandwidth_bps;
    facts.asked_bps = testspec_rate_stated(spec) ? (double)spec->bitrate_bps : 0;
    if (send->has_capped_bps && send->capped_bps > 0 &&
        (facts.asked_bps == 0 || (double)send->capped_bps < facts.asked_bps)) {
        facts.capped_bps = send->capped_bps;
        facts.capped_by = send->capped_by ? send->capped_by : "a limit";
    }
    facts.tcp_shares = send->has_busy;
    facts.idle = send->has_busy ? at_least_0(1 - send->busy) : 0;
    facts.window = send->has_receive_window_limited ? send->receive_window_limited : 0;
    facts.buffer = send->has_send_buffer_limited ? send->send_buffer_limited : 0;
    facts.network = send->has_busy ? at_least_0(send->busy - facts.window - facts.buffer) : 0;
    facts.small_window = receive->has_receive_buffer && receive->receive_buffer < SMALL_BUFFER;
    if (receive->has_receive_queue_high && !facts.small_window)
        facts.queue_high = receive->receive_queue_high;
    if (send->has_blocked_s && send->has_duration_s && send->duration_s > 0)
        facts.blocked = send->blocked_s / send->duration_s;
    if (receiver->load && receiver->load->has_softnet_dropped)
        facts.softnet_dropped = receiver->load->softnet_dropped;
    if (receiver->record && receiver->record->has_interface_dropped)
        facts.interface_dropped = receiver->record->interface_dropped;
    facts.retransmits = send->has_retransmits ? send->retransmits : 0;
    facts.segments = send->has_segments ? send->segments : 0;
    facts.marked = send->has_delivered_ce ? send->delivered_ce : 0;
    if (sender->load && sender->load->has_allowance_exceeded)
        facts.allowance += sender->load->allowance_exceeded;
    if (receiver->load && receiver->load->has_allowance_exceeded)
        facts.allowance += receiver->load->allowance_exceeded;
    if (send->rtt_loaded && send->rtt_loaded->has_mean)
        facts.rtt_mean_s = send->rtt_loaded->mean;
    if (send->rtt_loaded && send->rtt_loaded->has_p50)
        facts.rtt_median_s = send->rtt_loaded->p50;
    if (send->has_min_rtt_s)
        facts.rtt_min_s = send->min_rtt_s;
    facts.sctp = spec->kind == TEST_SCTP;
    gather_probes(sender, &facts);
    gather_probes(receiver, &facts);
    leave_window_to_the_path(&facts);
    return facts;
}

const char *host_words(const struct host_share *share, char words[80])
{
    snprintf(words, 80, "thread ran %.0f %%, waited for a core %.0f %%, core %.0f %%",
        100 * share->thread, 100 * share->wait, 100 * share->core);
    return words;
}
