#include "verdict.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "units.h"

// Thresholds of docs/measurement.md, "Limiter".
#define REACHED 0.99      // of the rate asked for
#define IDLE_SHARE 0.2    // of the window: the sender had nothing to send
#define LIMITED_SHARE 0.2 // of the window: receive window, send buffer
#define NETWORK_SHARE 0.8
#define NETWORK_SHOWN 0.5 // the same where the path has left a sign of its own
#define LOSS_SHARE 0.001  // of the segments, repeated: a sign
#define THREAD_BUSY 0.9
#define CORE_BUSY 0.95
#define HOST_BUSY 0.6             // of a core: enough where nothing speaks of the path
#define WAIT_SHARE 0.2            // a thread that waited so long for a core came late
#define QUEUE_SHARE 0.5           // of the samples with a receive queue over half its buffer
#define SMALL_BUFFER (128 * 1024) // such a receive buffer is soon full, however fast it is read
#define QUEUE_DELAY 1.5           // smoothed over smallest RTT
#define QUEUE_LEAST_S 1e-3        // a queue that stands on the path, not one of a host
#define THROTTLED_SHARE 0.2       // of the window, by the control group's quota
#define CE_SHARE 0.01             // of the segments, marked by a queue that uses ECN

#define TEXT_SIZE 200

struct host_share {
    double thread, core, wait, throttled;
};

// Everything the rules look at, with what is absent counted as not limiting.
struct facts {
    double goodput_bps, asked_bps;
    bool tcp_shares; // busy and the limited shares are known
    bool small_window;
    double idle, window, buffer, network, blocked;
    struct host_share tx, rx;
    double queue_high;
    uint64_t softnet_dropped, interface_dropped, retransmits, segments, marked, allowance;
    double rtt_mean_s, rtt_median_s, rtt_min_s; // smoothed; the path's smallest
    double idle_s, loaded_s; // RTT of light probes, before the load and beside it; 0: unknown
    bool sctp;
    const char *capped_by;
    uint64_t capped_bps;
};

struct finding {
    const char *verdict, *subtype;
    char evidence[TEXT_SIZE];
};

static bool find(struct finding *finding, const char *verdict, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool find(struct finding *finding, const char *verdict, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(finding->evidence, sizeof finding->evidence, format, args);
    va_end(args);
    finding->verdict = verdict;
    finding->subtype = NULL;
    return true;
}

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
}

// Its thread did nothing but run or wait for a core, or the core had no time left.
static bool full(const struct host_share *share)
{
    return share->thread + share->wait >= THREAD_BUSY || share->core >= CORE_BUSY;
}

// What the kernel saw missing may be because this side came late.
static bool late(const struct host_share *share)
{
    return full(share) || share->wait >= WAIT_SHARE;
}

// A queue on the path stands before its slowest link most of the time. A host that comes late makes
// single round trips long: they are in the mean, and not in the median.
static bool queue_stands(const struct facts *facts)
{
    return facts->rtt_min_s > 0 && facts->rtt_median_s >= QUEUE_DELAY * facts->rtt_min_s &&
           facts->rtt_median_s - facts->rtt_min_s >= QUEUE_LEAST_S;
}

// A window that is full while what it let out stands in the path's queue, and is read in time,
// keeps nothing from going faster: the path does.
static void leave_window_to_the_path(struct facts *facts)
{
    if (facts->small_window || late(&facts->rx) || facts->queue_high >= QUEUE_SHARE ||
        !queue_stands(facts))
        return;
    facts->network += facts->window;
    facts->window = 0;
}

// The probes beside the load saw a queue that was not there before it.
static bool probes_queue(const struct facts *facts)
{
    return facts->idle_s > 0 && facts->loaded_s >= QUEUE_DELAY * facts->idle_s &&
           facts->loaded_s - facts->idle_s >= QUEUE_LEAST_S;
}

// The path has done something to the flow that no host does.
static bool path_shows(const struct facts *facts)
{
    double segments = (double)facts->segments;
    return facts->allowance > 0 || queue_stands(facts) || probes_queue(facts) ||
           (segments > 0 && ((double)facts->retransmits >= LOSS_SHARE * segments ||
                                (double)facts->marked >= CE_SHARE * segments));
}

static struct facts gather(
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

// "thread 40 %, waiting 50 %, core 90 %"
static const char *words_of(const struct host_share *share, char words[80])
{
    snprintf(words, 80, "thread ran %.0f %%, waited for a core %.0f %%, core %.0f %%",
        100 * share->thread, 100 * share->wait, 100 * share->core);
    return words;
}

static bool found_bitrate(const struct facts *facts, struct finding *finding)
{
    char got[UNITS_TEXT_SIZE], limit[UNITS_TEXT_SIZE];
    units_format_rate(facts->goodput_bps, got);
    if (facts->capped_bps && facts->goodput_bps >= REACHED * (double)facts->capped_bps) {
        units_format_rate((double)facts->capped_bps, limit);
        return find(
            finding, "bitrate", "%s of the %s that %.100s allows", got, limit, facts->capped_by);
    }
    if (facts->asked_bps == 0 || facts->goodput_bps < REACHED * facts->asked_bps)
        return false;
    units_format_rate(facts->asked_bps, limit);
    return find(finding, "bitrate", "%s of the %s asked for", got, limit);
}

static bool found_idle(const struct facts *facts, struct finding *finding)
{
    char words[80];
    if (facts->idle < IDLE_SHARE)
        return false;
    // A sender that comes late now and then follows a receiver that always does.
    if (full(&facts->rx) && !full(&facts->tx))
        return find(finding, "receiver_cpu", "sender idle %.0f %%, receiver's %s",
            100 * facts->idle, words_of(&facts->rx, words));
    if (late(&facts->tx))
        return find(finding, "sender_cpu", "idle %.0f %%, sender's %s", 100 * facts->idle,
            words_of(&facts->tx, words));
    // There is always more to send: the buffer was full, and empty before it could be filled again.
    if (facts->blocked >= IDLE_SHARE)
        return find(finding, "send_buffer",
            "nothing was queued %.0f %% of the time, the send buffer was full %.0f %%",
            100 * facts->idle, 100 * facts->blocked);
    return find(finding, "unknown", "the sender had nothing to send %.0f %% of the time",
        100 * facts->idle);
}

// A quota that is used up limits, whatever else is short of its threshold.
static bool found_quota(const struct facts *facts, struct finding *finding)
{
    double tx = facts->tx.throttled, rx = facts->rx.throttled;
    if (tx < THROTTLED_SHARE && rx < THROTTLED_SHARE)
        return false;
    return find(finding, tx >= rx ? "sender_cpu" : "receiver_cpu",
        "the %s's control group was out of its CPU quota %.0f %% of the time",
        tx >= rx ? "sender" : "receiver", 100 * (tx >= rx ? tx : rx));
}

// What fills an association's window stands in a queue of the path: a larger one would only make
// that longer. The kernel tells an association's RTT too coarsely; the probes beside it do not.
static bool found_queued_window(const struct facts *facts, struct finding *finding)
{
    if (!facts->sctp || !probes_queue(facts))
        return false;
    find(finding, "network",
        "queue: it holds what fills the receive window %.0f %% of the time, RTT %.1f ms under "
        "load, "
        "%.1f ms without",
        100 * facts->window, 1e3 * facts->loaded_s, 1e3 * facts->idle_s);
    finding->subtype = "queue";
    return true;
}

// A small window keeps its reader busy, too, with waking up for little: it comes first.
static bool found_window(const struct facts *facts, struct finding *finding)
{
    char words[80];
    if (facts->window < LIMITED_SHARE)
        return false;
    if (!facts->small_window && (late(&facts->rx) || facts->queue_high >= QUEUE_SHARE))
        return find(finding, "receiver_cpu",
            "receive window full %.0f %%, receive queue high %.0f %%, receiver's %s",
            100 * facts->window, 100 * facts->queue_high, words_of(&facts->rx, words));
    if (found_queued_window(facts, finding))
        return true;
    return find(
        finding, "receive_window", "receive window full %.0f %% of the time", 100 * facts->window);
}

static bool found_buffer(const struct facts *facts, struct finding *finding)
{
    return facts->buffer >= LIMITED_SHARE &&
           find(
               finding, "send_buffer", "send buffer full %.0f %% of the time", 100 * facts->buffer);
}

static double need(const struct host_share *share)
{
    return share->thread + share->wait;
}

static bool path_queue(const struct facts *facts)
{
    return facts->network >= NETWORK_SHARE && queue_stands(facts);
}

// Of a thread that only ever waits for its core nothing is known but that it comes late.
static bool worked(const struct host_share *share)
{
    return share->core >= CORE_BUSY || share->thread >= THREAD_BUSY / 2;
}

// Hosts of one machine have the same cores: the busier thread tells whose they were.
static bool found_core(const struct facts *facts, struct finding *finding)
{
    char words[80];
    bool queue = path_queue(facts);
    bool tx = full(&facts->tx) && (worked(&facts->tx) || !queue);
    bool rx = full(&facts->rx) && (worked(&facts->rx) || !queue);
    if (rx && !(tx && need(&facts->tx) > need(&facts->rx)))
        return find(finding, "receiver_cpu", "receiver's %s", words_of(&facts->rx, words));
    if (facts->softnet_dropped > 0)
        return find(finding, "receiver_cpu", "the receiver's kernel dropped %llu packets",
            (unsigned long long)facts->softnet_dropped);
    return tx && find(finding, "sender_cpu", "sender's %s", words_of(&facts->tx, words));
}

// Nobody is full, and the path has done nothing: hosts that take turns on few cores, beside others.
static bool found_busy_host(const struct facts *facts, struct finding *finding)
{
    char words[80];
    double tx = fmax(need(&facts->tx), facts->tx.core);
    double rx = fmax(need(&facts->rx), facts->rx.core);
    if (path_shows(facts) || fmax(tx, rx) < HOST_BUSY)
        return false;
    return find(finding, tx >= rx ? "sender_cpu" : "receiver_cpu", "nothing on the path, %s's %s",
        tx >= rx ? "sender" : "receiver", words_of(tx >= rx ? &facts->tx : &facts->rx, words));
}

// An association has no busy times: only that its buffers were full, of neither host's doing, while
// the path lost what it carried.
static bool found_sctp_loss(const struct facts *facts, struct finding *finding)
{
    if (facts->blocked < NETWORK_SHARE || facts->retransmits == 0)
        return false;
    find(finding, "network", "loss: %llu retransmits, the send buffer full %.0f %% of the time",
        (unsigned long long)facts->retransmits, 100 * facts->blocked);
    finding->subtype = "loss";
    return true;
}

// The subtype is what the path did to the flow; the first that can be shown.
static bool found_network(const struct facts *facts, struct finding *finding)
{
    double limited = 100 * facts->network;
    if (!facts->tcp_shares)
        return found_sctp_loss(facts, finding);
    if (facts->network < (path_shows(facts) ? NETWORK_SHOWN : NETWORK_SHARE))
        return false;
    if (facts->allowance > 0) {
        find(finding, "network", "the provider's allowance held back %llu packets, limited %.0f %%",
            (unsigned long long)facts->allowance, limited);
        finding->subtype = "provider_cap";
    } else if (facts->segments > 0 && (double)facts->marked >= CE_SHARE * (double)facts->segments) {
        find(finding, "network", "ecn: %llu of %llu segments marked, limited %.0f %%",
            (unsigned long long)facts->marked, (unsigned long long)facts->segments, limited);
        finding->subtype = "ecn";
    } else if (facts->retransmits > 0) {
        find(finding, "network", "loss: %llu retransmits, network-limited %.0f %%",
            (unsigned long long)facts->retransmits, limited);
        finding->subtype = "loss";
    } else if (facts->rtt_min_s > 0 && facts->rtt_mean_s >= QUEUE_DELAY * facts->rtt_min_s) {
        find(finding, "network", "queue: RTT %.2f times its smallest, limited %.0f %%",
            facts->rtt_mean_s / facts->rtt_min_s, limited);
        finding->subtype = "queue";
    } else {
        find(finding, "network", "network-limited %.0f %% of the time", limited);
    }
    return true;
}

typedef bool rule(const struct facts *facts, struct finding *finding);

static rule *const stream_rules[] = {found_bitrate, found_quota, found_idle, found_window,
    found_buffer, found_core, found_busy_host, found_network};

static struct finding judge_stream(const struct facts *facts)
{
    struct finding finding;
    for (size_t i = 0; i < sizeof stream_rules / sizeof *stream_rules; i++)
        if (stream_rules[i](facts, &finding))
            return finding;
    find(&finding, "unknown", "no rule of the limiter applies");
    return finding;
}

// ------------------------------------------------------------------------------------------- udp

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

static struct finding judge_udp(const struct testspec *spec, const struct facts *facts,
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
    if (short_of && !mostly_offered && late(&facts->tx)) {
        find(&finding, "sender_cpu", "%.0f %% of the rate offered, sender's %s",
            100 * send->offered_bps / asked, words_of(&facts->tx, words));
        return finding;
    }
    if (udp_loss(facts, packets, &finding))
        return finding;
    if (spec->bitrate_max && full(&facts->tx))
        find(&finding, "sender_cpu", "sender's %s", words_of(&facts->tx, words));
    else if (spec->bitrate_max && full(&facts->rx))
        find(&finding, "receiver_cpu", "receiver's %s", words_of(&facts->rx, words));
    else if (send->has_blocked_s && send->has_duration_s && send->duration_s > 0 &&
             send->blocked_s >= LIMITED_SHARE * send->duration_s)
        find(&finding, "network", "the sender's queue was full %.0f %% of the time",
            100 * send->blocked_s / send->duration_s);
    else if (short_of)
        find(&finding, "unknown", "%.0f %% of the rate offered although the sender was not busy",
            100 * send->offered_bps / asked);
    else
        find(&finding, "unknown", "no rule of the limiter applies");
    return finding;
}

// -------------------------------------------------------------------------------------- runner-up

struct contender {
    const char *verdict;
    double share; // of its threshold; 1 = it would have matched
};

static double fullness(const struct host_share *share)
{
    double by_core = share->core / CORE_BUSY, by_thread = need(share) / THREAD_BUSY;
    return by_core > by_thread ? by_core : by_thread;
}

static struct contender second_best(const struct facts *facts, const char *verdict)
{
    const struct contender all[] = {
        {"bitrate", facts->asked_bps > 0 ? facts->goodput_bps / facts->asked_bps / REACHED : 0},
        {"receive_window", facts->window / LIMITED_SHARE},
        {"send_buffer", facts->buffer / LIMITED_SHARE},
        {"receiver_cpu", fullness(&facts->rx)},
        {"sender_cpu", fullness(&facts->tx)},
        {"network", facts->network / NETWORK_SHARE},
    };
    struct contender best = {0};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].verdict, verdict) != 0 && all[i].share > best.share)
            best = all[i];
    return best;
}

#define KEEP(name, part, member)                                                                   \
    do {                                                                                           \
        limiter->has_##name = (part) && (part)->has_##member;                                      \
        limiter->name = limiter->has_##name ? (part)->member : 0;                                  \
    } while (0)

// The numbers stay beside the verdict, so that another rule can be tried on them later.
static void keep_facts(
    const Mp__EndReport *sender, const Mp__EndReport *receiver, Mp__Limiter *limiter)
{
    const Mp__HostLoad *tx = sender->load, *rx = receiver->load;
    KEEP(busy, sender->send, busy);
    KEEP(receive_window_limited, sender->send, receive_window_limited);
    KEEP(send_buffer_limited, sender->send, send_buffer_limited);
    KEEP(receive_queue_high, receiver->receive, receive_queue_high);
    KEEP(sender_thread, tx, busiest_thread);
    KEEP(sender_core, tx, busiest_core);
    KEEP(sender_wait, tx, run_queue_wait);
    KEEP(sender_throttled, tx, throttled);
    KEEP(receiver_thread, rx, busiest_thread);
    KEEP(receiver_core, rx, busiest_core);
    KEEP(receiver_wait, rx, run_queue_wait);
    KEEP(receiver_throttled, rx, throttled);
}

Mp__Limiter *verdict_new(
    const struct testspec *spec, const Mp__EndReport *sender, const Mp__EndReport *receiver)
{
    struct facts facts = gather(spec, sender, receiver);
    struct finding finding = spec->kind == TEST_UDP
                                 ? judge_udp(spec, &facts, sender->send, receiver->receive->packets)
                                 : judge_stream(&facts);
    Mp__Limiter *limiter = malloc(sizeof *limiter);
    if (!limiter)
        abort();
    mp__limiter__init(limiter);
    limiter->verdict = strdup(finding.verdict);
    limiter->evidence = strdup(finding.evidence);
    limiter->subtype = finding.subtype ? strdup(finding.subtype) : NULL;
    keep_facts(sender, receiver, limiter);
    struct contender second = second_best(&facts, finding.verdict);
    // The margin says how far the runner-up stays below its own threshold; below 0: it is above,
    // and an earlier rule went before it.
    if (second.verdict && second.share >= 0.5) {
        limiter->runner_up = strdup(second.verdict);
        limiter->has_margin = true;
        limiter->margin = 1 - second.share;
    }
    return limiter;
}
