#include "probe.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "kinds.h"

static const struct probe_kind *const all_kinds[] = {&probe_tcp, &probe_udp, &probe_sctp};

#define KIND_COUNT (sizeof all_kinds / sizeof all_kinds[0])

const struct probe_kind *probe_find(enum test_kind kind)
{
    for (size_t i = 0; i < KIND_COUNT; i++)
        if (all_kinds[i]->kind == kind)
            return all_kinds[i];
    return NULL;
}

size_t probe_kinds(const struct probe_kind *const **kinds)
{
    *kinds = all_kinds;
    return KIND_COUNT;
}

static struct probe_send absent_send(void)
{
    return (struct probe_send){.bytes = PROBE_ABSENT,
        .duration_s = NAN,
        .retransmits = PROBE_ABSENT,
        .segments = PROBE_ABSENT,
        .min_rtt_s = NAN,
        .busy = NAN,
        .receive_window_limited = NAN,
        .send_buffer_limited = NAN,
        .cwnd_max = PROBE_ABSENT,
        .delivered_ce = PROBE_ABSENT,
        .packets_sent = PROBE_ABSENT,
        .packets_lost_sender = PROBE_ABSENT,
        .offered_bps = NAN,
        .capped_bps = PROBE_ABSENT,
        .stalled_s = NAN,
        .blocked_s = NAN};
}

static struct probe_receive absent_receive(void)
{
    return (struct probe_receive){.bytes = PROBE_ABSENT,
        .duration_s = NAN,
        .omitted_s = NAN,
        .bandwidth_bps = NAN,
        .packets_expected = PROBE_ABSENT,
        .packets_received = PROBE_ABSENT,
        .packets_lost = PROBE_ABSENT,
        .packets_lost_receiver = PROBE_ABSENT,
        .reordered = PROBE_ABSENT,
        .duplicate = PROBE_ABSENT,
        .reorder_extent = PROBE_ABSENT,
        .loss_bursts = PROBE_ABSENT,
        .loss_burst_longest = PROBE_ABSENT,
        .jitter_s = NAN,
        .jitter_rfc3550_s = NAN,
        .drained_bytes = PROBE_ABSENT,
        .segments = PROBE_ABSENT,
        .packets_lost_receiver_max = PROBE_ABSENT,
        .receive_queue_high = NAN,
        .wire_l3_bps = NAN,
        .wire_l2_bps = NAN,
        .wire_line_bps = NAN,
        .whole_bytes = PROBE_ABSENT,
        .whole_s = NAN};
}

void probe_report_init(struct probe_report *report)
{
    *report = (struct probe_report){.outcome = PROBE_FAILED,
        .send = absent_send(),
        .receive = absent_receive(),
        .load = {.cores = NAN,
            .busiest_thread = NAN,
            .busiest_core = NAN,
            .run_queue_wait = NAN,
            .softnet_dropped = PROBE_ABSENT,
            .interface_dropped = PROBE_ABSENT,
            .allowance_exceeded = PROBE_ABSENT,
            .throttled = NAN,
            .steal = NAN},
        .record = {.moved_bytes = PROBE_ABSENT, .quota_cores = NAN}};
}

void probe_report_release(struct probe_report *report)
{
    free(report->receive.intervals);
    report->receive.intervals = NULL;
    report->receive.interval_count = 0;
}

void probe_report_fail(
    struct probe_report *report, enum probe_outcome outcome, bool retry, const char *format, ...)
{
    if (report->outcome != PROBE_OK && report->reason[0] != '\0')
        return;
    report->outcome = outcome;
    report->retry = retry;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->reason, sizeof report->reason, format, arguments);
    va_end(arguments);
}

void probe_distribution_of(const histogram_t *histogram, struct probe_distribution *out)
{
    *out = (struct probe_distribution){.count = histogram_count(histogram),
        .min_s = (double)histogram_min(histogram) * 1e-9,
        .mean_s = histogram_mean(histogram) * 1e-9,
        .p50_s = histogram_quantile(histogram, 0.5) * 1e-9,
        .p90_s = histogram_quantile(histogram, 0.9) * 1e-9,
        .p99_s = histogram_quantile(histogram, 0.99) * 1e-9,
        .p999_s = histogram_quantile(histogram, 0.999) * 1e-9,
        .max_s = (double)histogram_max(histogram) * 1e-9};
}
