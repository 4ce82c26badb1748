// The sending half of a UDP test, but for the load itself: consent, the final count, the report.

#include "udp_parts.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"

#define FINAL_AGAIN_NS (50 * NS_PER_MS)
#define FINAL_PATIENCE_NS (1500 * NS_PER_MS)
#define FINALS_LEAST 25 // however long this host slept meanwhile

static uint64_t least(uint64_t a, uint64_t b)
{
    return a == 0 ? b : b == 0 ? a : a < b ? a : b;
}

static void set_int(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

void udp_set_fragments(int fd, bool allowed)
{
    if (udp_is_six(fd))
        set_int(
            fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, allowed ? IPV6_PMTUDISC_DONT : IPV6_PMTUDISC_DO);
    else
        set_int(fd, IPPROTO_IP, IP_MTU_DISCOVER, allowed ? IP_PMTUDISC_DONT : IP_PMTUDISC_DO);
}

static void fit_length(struct udp_sender *sender)
{
    bool six = udp_is_six(sender->fds[0]);
    unsigned headers = six ? 48 : 28, asked = sender->order->spec.length;
    sender->path_mtu = udp_route_mtu(sender->fds[0]);
    unsigned room = sender->path_mtu > headers + UDP_HEADER ? sender->path_mtu - headers : 0;
    sender->length = asked ? asked : TESTSPEC_LENGTH_DEFAULT;
    if (!asked && room && room < sender->length)
        sender->length = room;
    sender->fragmented = asked && room && asked > room;
    for (unsigned i = 0; i < sender->streams; i++) {
        udp_set_fragments(sender->fds[i], sender->fragmented);
        // Without it the kernel reports local queue drops as success.
        set_int(
            sender->fds[i], six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVERR : IP_RECVERR, 1);
    }
}

void udp_sender_prepare(struct udp_sender *sender)
{
    const struct probe_order *order = sender->order;
    uint64_t asked = order->spec.bitrate_max ? 0 : order->spec.bitrate_bps;
    sender->rate_bps = least(asked, least(order->limit_bps, order->cap_bps));
    fit_length(sender);
}

void udp_sender_feedback(struct udp_test *test, const struct control *message, int64_t now)
{
    struct udp_sender *sender = test->sender;
    sender->feedback_ns = now;
    atomic_store(&sender->link.drops_receiver, message->drops_receiver);
    atomic_store(&sender->link.full, message->full);
    if (message->bytes > 0)
        atomic_store(&sender->link.arrived, true);
    if (!sender->running && !sender->joined && !udp_load_start(sender))
        udp_fail(test, true, "no thread for the load");
    if (sender->hold_since_ns) {
        sender->held_ns += now - sender->hold_since_ns;
        sender->hold_since_ns = 0;
        atomic_store(&sender->link.hold, false);
    }
    if (message->final_seen)
        sender->final_seen = true;
    if (message->phase == CONTROL_DONE && sender->order->spec.until > 0)
        atomic_store(&sender->link.enough, true);
    if (message->phase != CONTROL_WINDOW)
        return;
    if (!sender->window_heard)
        sender->window_base_bytes = message->bytes;
    sender->window_heard = true;
    if (!sender->joined)
        beside_goodput(test->beside, message->bytes - sender->window_base_bytes);
}

static void say_final(struct udp_test *test, int64_t now)
{
    struct udp_sender *sender = test->sender;
    struct control final = {.type = CONTROL_FINAL,
        .packets = sender->packets,
        .bytes = sender->bytes,
        .end_sequence = sender->packets,
        .lost_sender = sender->lost_sender,
        .window_ns = sender->window_ns,
        .path_mtu = sender->path_mtu};
    udp_say(test, &final);
    sender->finals_said++;
    sender->next_final_ns = now + FINAL_AGAIN_NS;
}

void udp_sender_end(struct udp_test *test)
{
    struct udp_sender *sender = test->sender;
    if (!sender || !sender->running)
        return;
    udp_measure(test, false);
    udp_load_end(sender);
}

static void watch_consent(struct udp_test *test, int64_t now)
{
    struct udp_sender *sender = test->sender;
    int64_t silence = now - sender->feedback_ns;
    if (!sender->running && silence > PROBE_HANDSHAKE_NS) {
        udp_fail(test, true, "the receiver did not ask for load within 3 s");
    } else if (silence > CONTROL_GIVE_UP_NS + CONTROL_SILENCE_NS) {
        udp_fail(test, true, "no feedback from the receiver for over 5 s");
    } else if (sender->running && silence > CONTROL_SILENCE_NS && !sender->hold_since_ns) {
        sender->hold_since_ns = now;
        atomic_store(&sender->link.hold, true);
    }
}

void udp_sender_tick(struct udp_test *test, int64_t now)
{
    struct udp_sender *sender = test->sender;
    if (sender->running && atomic_load(&sender->in_window))
        udp_measure(test, true);
    if (sender->running && atomic_load(&sender->finished)) {
        beside_pause(test->beside);
        udp_sender_end(test);
        sender->final_since_ns = now;
    }
    if (!sender->joined)
        watch_consent(test, now);
    else if (now >= sender->next_final_ns && !sender->final_seen)
        say_final(test, now);
    // The receiver will not answer any more; what was sent was sent.
    if (sender->joined && now - sender->final_since_ns > FINAL_PATIENCE_NS &&
        sender->finals_said >= FINALS_LEAST)
        sender->final_seen = true;
}

void udp_sender_report(struct udp_test *test)
{
    const struct udp_sender *sender = test->sender;
    struct probe_send *out = &test->report->send;
    test->report->has_send = true;
    out->length = sender->length;
    out->path_mtu = sender->path_mtu;
    out->fragmented = sender->fragmented;
    if (!sender->joined)
        return;
    out->bytes = sender->bytes;
    out->duration_s = (double)sender->window_ns / 1e9;
    out->packets_sent = sender->packets - sender->lost_sender;
    out->packets_lost_sender = sender->lost_sender;
    if (sender->window_ns > 0)
        out->offered_bps = (double)sender->bytes * 8 / out->duration_s;
    if (sender->held_ns > 0)
        out->stalled_s = (double)sender->held_ns / 1e9;
    out->blocked_s = (double)sender->blocked_ns / 1e9;
    if (sender->rate_bps && sender->rate_bps != sender->order->spec.bitrate_bps)
        out->capped_bps = sender->rate_bps;
}

static const char *pace_words(enum udp_pace pace)
{
    static const char *const words[] = {[UDP_SLEEP] = "one datagram a packet, each slept for",
        [UDP_SPIN] = "one datagram a packet, each spun for",
        [UDP_QUANTA] = "quanta of 250 us"};
    return words[pace];
}

void udp_sender_technique(const struct udp_sender *sender, char *text, size_t size)
{
    char offload[48] = "", before[96] = "", flood[32] = "flood";
    if (sender->loader_count > 1)
        snprintf(flood, sizeof flood, "flood by %u threads", sender->loader_count);
    if (sender->pace == UDP_QUANTA && sender->segments > 1)
        snprintf(offload, sizeof offload, ", UDP_SEGMENT of up to %u", sender->segments);
    else if (sender->pace == UDP_QUANTA)
        snprintf(offload, sizeof offload, ", one datagram a call (no UDP_SEGMENT here)");
    else if (sender->urgent)
        snprintf(offload, sizeof offload, ", by a thread of real-time priority");
    if (sender->pace != sender->pace_first)
        snprintf(before, sizeof before, ", after %s fell behind", pace_words(sender->pace_first));
    snprintf(
        text, size, "%s%s%s", sender->flood ? flood : pace_words(sender->pace), offload, before);
}
