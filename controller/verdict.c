#include "verdict_parts.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "units.h"

bool find(struct finding *finding, const char *verdict, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(finding->evidence, sizeof finding->evidence, format, args);
    va_end(args);
    finding->verdict = verdict;
    finding->subtype = NULL;
    return true;
}

bool found_bitrate(const struct facts *facts, struct finding *finding)
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
    if (host_full(&facts->rx) && !host_full(&facts->tx))
        return find(finding, "receiver_cpu", "sender idle %.0f %%, receiver's %s",
            100 * facts->idle, host_words(&facts->rx, words));
    if (host_late(&facts->tx))
        return find(finding, "sender_cpu", "idle %.0f %%, sender's %s", 100 * facts->idle,
            host_words(&facts->tx, words));
    // There is always more to send: the buffer was full, and empty before it could be filled again.
    if (facts->blocked >= IDLE_SHARE)
        return find(finding, "send_buffer",
            "nothing was queued %.0f %% of the time, the send buffer was full %.0f %%",
            100 * facts->idle, 100 * facts->blocked);
    return find(finding, "unknown", "the sender had nothing to send %.0f %% of the time",
        100 * facts->idle);
}

// A quota that is used up limits, whatever else is short of its threshold.
bool found_quota(const struct facts *facts, struct finding *finding)
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
        "load, %.1f ms without",
        100 * facts->window, 1e3 * facts->loaded_s, 1e3 * facts->idle_s);
    finding->subtype = "queue";
    return true;
}

// What arrived behind a lost chunk fills the window until that has been repeated, which takes an
// association a second at times: a larger window would only hold more of it.
static bool found_torn_window(const struct facts *facts, struct finding *finding)
{
    if (!facts->sctp || facts->segments == 0 ||
        (double)facts->retransmits < TORN_SHARE * (double)facts->segments)
        return false;
    find(finding, "network",
        "loss: %llu of %llu chunks repeated, receive window full %.0f %% of the time",
        (unsigned long long)facts->retransmits, (unsigned long long)facts->segments,
        100 * facts->window);
    finding->subtype = "loss";
    return true;
}

// A path that holds more than both buffers is limited by now this one, now that one: the more
// frequent of them is named.
static bool buffers_limit(const struct facts *facts)
{
    return facts->window + facts->buffer >= LIMITED_SHARE;
}

// A small window keeps its reader busy, too, with waking up for little: it comes first.
static bool found_window(const struct facts *facts, struct finding *finding)
{
    char words[80];
    if (facts->window < LIMITED_SHARE && !(buffers_limit(facts) && facts->window > facts->buffer))
        return false;
    if (!facts->small_window && (host_late(&facts->rx) || facts->queue_high >= QUEUE_SHARE))
        return find(finding, "receiver_cpu",
            "receive window full %.0f %%, receive queue high %.0f %%, receiver's %s",
            100 * facts->window, 100 * facts->queue_high, host_words(&facts->rx, words));
    if (found_torn_window(facts, finding) || found_queued_window(facts, finding))
        return true;
    return find(
        finding, "receive_window", "receive window full %.0f %% of the time", 100 * facts->window);
}

static bool found_buffer(const struct facts *facts, struct finding *finding)
{
    if (!buffers_limit(facts))
        return false;
    if (facts->buffer >= LIMITED_SHARE)
        return find(
            finding, "send_buffer", "send buffer full %.0f %% of the time", 100 * facts->buffer);
    return find(finding, "send_buffer",
        "send buffer full %.0f %% of the time, receive window %.0f %%", 100 * facts->buffer,
        100 * facts->window);
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
    bool queue = facts->network >= NETWORK_SHARE && path_queue(facts);
    bool tx = host_full(&facts->tx) && (worked(&facts->tx) || !queue);
    bool rx = host_full(&facts->rx) && (worked(&facts->rx) || !queue);
    if (rx && !(tx && host_need(&facts->tx) > host_need(&facts->rx)))
        return find(finding, "receiver_cpu", "receiver's %s", host_words(&facts->rx, words));
    if (facts->softnet_dropped > 0)
        return find(finding, "receiver_cpu", "the receiver's kernel dropped %llu packets",
            (unsigned long long)facts->softnet_dropped);
    return tx && find(finding, "sender_cpu", "sender's %s", host_words(&facts->tx, words));
}

// Nobody is full, and the path has done nothing: hosts that take turns on few cores, beside others.
// One that comes late holds up one that has its core whenever it wants it, however long that runs.
static bool found_busy_host(const struct facts *facts, struct finding *finding)
{
    char words[80];
    double tx = fmax(host_need(&facts->tx), facts->tx.core);
    double rx = fmax(host_need(&facts->rx), facts->rx.core);
    bool busy = fmax(tx, rx) >= HOST_BUSY || fmax(facts->tx.wait, facts->rx.wait) >= WAIT_LONG;
    if (path_shows(facts) || !busy)
        return false;
    bool tx_late = host_late(&facts->tx), rx_late = host_late(&facts->rx);
    bool sender = tx_late != rx_late ? tx_late : tx >= rx;
    return find(finding, sender ? "sender_cpu" : "receiver_cpu", "nothing on the path, %s's %s",
        sender ? "sender" : "receiver", host_words(sender ? &facts->tx : &facts->rx, words));
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

// -------------------------------------------------------------------------------------- runner-up

struct contender {
    const char *verdict;
    double share; // of its threshold; 1 = it would have matched
};

static double fullness(const struct host_share *share)
{
    double by_core = share->core / CORE_BUSY, by_thread = host_need(share) / THREAD_BUSY;
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
    struct facts facts = facts_gather(spec, sender, receiver);
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
