#include <stdlib.h>
#include <string.h>

#include "meshtest.h"
#include "verdict.h"

struct example {
    enum test_kind kind;
    double goodput_bps, asked_bps, capped_bps;
    double busy, window, buffer; // shares; busy 0: unknown
    double tx_thread, tx_core, tx_wait, rx_thread, rx_core, rx_wait, queue_high;
    double rtt_s, rtt_median_s, rtt_min_s; // 0: unknown, a median as the mean
    double probe_s, beside_s;              // light probes without and with load; 0: none
    uint64_t retransmits, softnet, ring;
    double offered_bps;
    uint64_t sent, received, lost_receiver;
    bool max, small_buffer;
    double blocked, tx_throttled, rx_throttled;
    uint64_t segments, marked, allowance;
    const char *verdict, *words, *subtype;
};

static void fill_load(Mp__HostLoad *load, double thread, double core, double wait)
{
    mp__host_load__init(load);
    load->has_busiest_thread = load->has_busiest_core = load->has_run_queue_wait = true;
    load->busiest_thread = thread;
    load->busiest_core = core;
    load->run_queue_wait = wait;
}

static Mp__Limiter *judge(const struct example *it)
{
    Mp__EndReport ends[2] = {MP__END_REPORT__INIT, MP__END_REPORT__INIT};
    Mp__SendSide send = MP__SEND_SIDE__INIT;
    Mp__ReceiveSide receive = MP__RECEIVE_SIDE__INIT;
    Mp__Packets packets = MP__PACKETS__INIT;
    Mp__HostLoad tx, rx;
    struct testspec spec;
    testspec_defaults(it->kind, &spec);
    spec.bitrate_bps = (uint64_t)it->asked_bps;
    spec.bitrate_max = it->max;
    fill_load(&tx, it->tx_thread, it->tx_core, it->tx_wait);
    fill_load(&rx, it->rx_thread, it->rx_core, it->rx_wait);
    tx.has_throttled = rx.has_throttled = rx.has_softnet_dropped = true;
    tx.throttled = it->tx_throttled;
    rx.throttled = it->rx_throttled;
    tx.has_allowance_exceeded = it->allowance > 0;
    tx.allowance_exceeded = it->allowance;
    rx.softnet_dropped = it->softnet;
    Mp__HostRecord record = MP__HOST_RECORD__INIT;
    record.has_interface_dropped = true;
    record.interface_dropped = it->ring;
    ends[1].record = &record;
    ends[0].load = &tx;
    ends[1].load = &rx;
    ends[0].send = &send;
    ends[1].receive = &receive;
    send.has_busy = send.has_receive_window_limited = send.has_send_buffer_limited = it->busy > 0;
    send.busy = it->busy;
    send.receive_window_limited = it->window;
    send.send_buffer_limited = it->buffer;
    send.has_retransmits = true;
    send.retransmits = it->retransmits;
    send.has_segments = send.has_delivered_ce = it->segments > 0;
    send.segments = it->segments;
    send.delivered_ce = it->marked;
    send.has_blocked_s = send.has_duration_s = true;
    send.duration_s = 4;
    send.blocked_s = 4 * it->blocked;
    send.has_offered_bps = it->offered_bps > 0;
    send.offered_bps = it->offered_bps;
    send.has_capped_bps = it->capped_bps > 0;
    send.capped_bps = (uint64_t)it->capped_bps;
    send.capped_by = (char *)"guard: rate 50M";
    receive.has_bandwidth_bps = true;
    receive.bandwidth_bps = it->goodput_bps;
    Mp__Distribution rtt = MP__DISTRIBUTION__INIT;
    rtt.has_mean = rtt.has_p50 = send.has_min_rtt_s = it->rtt_s > 0;
    rtt.mean = it->rtt_s;
    rtt.p50 = it->rtt_median_s > 0 ? it->rtt_median_s : it->rtt_s;
    send.min_rtt_s = it->rtt_min_s;
    send.rtt_loaded = it->rtt_s > 0 ? &rtt : NULL;
    Mp__Distribution idle = MP__DISTRIBUTION__INIT, beside = MP__DISTRIBUTION__INIT;
    idle.has_p50 = beside.has_p50 = true;
    idle.p50 = it->probe_s;
    beside.p50 = it->beside_s;
    beside.count = 50;
    ends[0].rtt_idle = it->probe_s > 0 ? &idle : NULL;
    ends[0].rtt_foreign = it->beside_s > 0 ? &beside : NULL;
    receive.has_receive_queue_high = true;
    receive.receive_queue_high = it->queue_high;
    receive.has_receive_buffer = true;
    receive.receive_buffer = it->small_buffer ? 16384 : 6291456;
    receive.packets = it->sent ? &packets : NULL;
    packets.has_sent = packets.has_received = packets.has_lost_receiver = true;
    packets.sent = it->sent;
    packets.received = it->received;
    packets.lost_receiver = it->lost_receiver;
    return verdict_new(&spec, &ends[0], &ends[1]);
}

static void check(const struct example *examples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        Mp__Limiter *limiter = judge(&examples[i]);
        if (strcmp(limiter->verdict, examples[i].verdict) != 0 ||
            (examples[i].words && !strstr(limiter->evidence, examples[i].words)))
            fail_msg("example %zu: %s (%s) instead of %s", i, limiter->verdict, limiter->evidence,
                examples[i].verdict);
        if (examples[i].subtype)
            assert_string_equal(limiter->subtype, examples[i].subtype);
        mp__limiter__free_unpacked(limiter, NULL);
    }
}

static void hosts_that_take_turns_are_no_network(void **state)
{
    (void)state;
    static const struct example examples[] = {
        // Beside two hogs: the sender had its core to itself, and the rate fell from 44 to 17
        // Gbit/s.
        {.kind = TEST_TCP,
            .busy = 1,
            .tx_thread = 0.63,
            .tx_wait = 0.03,
            .tx_core = 0.66,
            .rx_thread = 0.09,
            .rx_wait = 0.33,
            .rx_core = 0.34,
            .verdict = "receiver_cpu"},
        // nobody is full, and a few repeats in a million segments are no sign of the path
        {.kind = TEST_TCP,
            .goodput_bps = 23e9,
            .busy = 0.95,
            .tx_thread = 0.73,
            .tx_wait = 0.15,
            .tx_core = 0.81,
            .rx_thread = 0.4,
            .retransmits = 900,
            .segments = 2000000,
            .verdict = "sender_cpu",
            .words = "nothing on the path"},
        {.kind = TEST_TCP,
            .goodput_bps = 20e9,
            .busy = 0.9,
            .tx_thread = 0.5,
            .rx_thread = 0.6,
            .rx_core = 0.7,
            .verdict = "receiver_cpu"},
        // the path has lost a segment of a hundred
        {.kind = TEST_TCP,
            .goodput_bps = 3e9,
            .busy = 0.95,
            .tx_thread = 0.73,
            .retransmits = 3000,
            .segments = 300000,
            .verdict = "network",
            .subtype = "loss"},
        // its queue stands, by the flow's own round trips or the probes'
        {.kind = TEST_TCP,
            .goodput_bps = 1e9,
            .busy = 1,
            .tx_thread = 0.7,
            .rtt_s = 5e-3,
            .rtt_min_s = 1e-3,
            .verdict = "network",
            .subtype = "queue"},
        {.kind = TEST_TCP,
            .goodput_bps = 1e9,
            .busy = 1,
            .tx_thread = 0.7,
            .probe_s = 1e-3,
            .beside_s = 9e-3,
            .verdict = "network"},
        // a slow path that shows nothing leaves its hosts alone
        {.kind = TEST_TCP, .goodput_bps = 1e9, .busy = 1, .tx_thread = 0.3, .verdict = "network"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void half_of_the_time_is_enough_where_the_path_shows_it(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {.kind = TEST_TCP,
            .goodput_bps = 2e8,
            .busy = 0.82,
            .window = 0.08,
            .buffer = 0.08,
            .retransmits = 2000,
            .segments = 80000,
            .verdict = "network",
            .subtype = "loss"},
        {.kind = TEST_TCP,
            .goodput_bps = 2e8,
            .busy = 0.82,
            .window = 0.08,
            .buffer = 0.08,
            .retransmits = 2,
            .segments = 80000,
            .verdict = "unknown"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void streams_are_judged_by_the_first_rule_that_matches(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {.kind = TEST_TCP,
            .goodput_bps = 99.5e6,
            .asked_bps = 100e6,
            .busy = 0.3,
            .verdict = "bitrate",
            .words = "100 Mbit/s"},
        {.kind = TEST_TCP,
            .goodput_bps = 50e6,
            .capped_bps = 50e6,
            .busy = 0.4,
            .verdict = "bitrate",
            .words = "guard: rate 50M"},
        {.kind = TEST_TCP,
            .goodput_bps = 1e9,
            .busy = 0.7,
            .tx_thread = 0.95,
            .verdict = "sender_cpu"},
        {.kind = TEST_TCP,
            .goodput_bps = 1e9,
            .busy = 0.7,
            .tx_thread = 0.5,
            .tx_wait = 0.3,
            .verdict = "sender_cpu"},
        {.kind = TEST_TCP, .goodput_bps = 1e9, .busy = 0.7, .tx_thread = 0.5, .verdict = "unknown"},
        {.kind = TEST_TCP,
            .goodput_bps = 1e9,
            .busy = 1,
            .window = 0.5,
            .rx_thread = 0.97,
            .verdict = "receiver_cpu"},
        {.kind = TEST_TCP,
            .goodput_bps = 1e9,
            .busy = 1,
            .window = 0.5,
            .queue_high = 0.6,
            .verdict = "receiver_cpu"},
        {.kind = TEST_TCP,
            .goodput_bps = 1e9,
            .busy = 1,
            .window = 0.5,
            .verdict = "receive_window"},
        {.kind = TEST_TCP, .goodput_bps = 1e9, .busy = 1, .buffer = 0.5, .verdict = "send_buffer"},
        {.kind = TEST_TCP,
            .goodput_bps = 1e9,
            .busy = 1,
            .rx_core = 0.99,
            .verdict = "receiver_cpu"},
        {.kind = TEST_TCP, .goodput_bps = 1e9, .busy = 1, .softnet = 5, .verdict = "receiver_cpu"},
        {.kind = TEST_TCP, .goodput_bps = 1e9, .busy = 1, .tx_core = 0.99, .verdict = "sender_cpu"},
        {.kind = TEST_TCP,
            .goodput_bps = 1e8,
            .busy = 1,
            .retransmits = 7,
            .verdict = "network",
            .words = "7 retransmits"},
        {.kind = TEST_TCP, .goodput_bps = 1e8, .busy = 0.95, .window = 0.18, .verdict = "unknown"},
        {.kind = TEST_TCP, .goodput_bps = 1e8, .verdict = "unknown"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void threads_that_come_late_are_told_from_threads_that_have_no_time(void **state)
{
    (void)state;
    static const struct example examples[] = {
        // It ran or waited all the time, and no queue stands on the path.
        {.kind = TEST_TCP,
            .busy = 1,
            .rx_thread = 0.1,
            .rx_wait = 0.85,
            .rtt_s = 40e-6,
            .rtt_min_s = 10e-6,
            .verdict = "receiver_cpu"},
        // Single round trips were long.
        {.kind = TEST_TCP,
            .busy = 1,
            .rx_thread = 0.1,
            .rx_wait = 0.85,
            .retransmits = 98,
            .rtt_s = 1.27e-3,
            .rtt_median_s = 200e-6,
            .rtt_min_s = 51e-6,
            .verdict = "receiver_cpu"},
        // As late, but the path had a queue all the while.
        {.kind = TEST_TCP,
            .busy = 1,
            .rx_thread = 0.1,
            .rx_wait = 0.85,
            .rtt_s = 20e-3,
            .rtt_min_s = 1e-3,
            .verdict = "network",
            .subtype = "queue"},
        {.kind = TEST_TCP,
            .busy = 1,
            .rx_thread = 0.95,
            .rtt_s = 20e-3,
            .rtt_min_s = 1e-3,
            .verdict = "receiver_cpu"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void a_queue_that_only_a_late_host_made_is_not_the_paths(void **state)
{
    (void)state;
    static const struct example examples[] = {
        // Beside twelve hogs: acknowledgements waited at the sender, nothing did on the path.
        {.kind = TEST_TCP,
            .busy = 0.841,
            .tx_thread = 0.072,
            .tx_wait = 0.975,
            .rtt_s = 20e-3,
            .rtt_min_s = 22e-6,
            .probe_s = 40e-6,
            .beside_s = 45e-6,
            .verdict = "sender_cpu"},
        {.kind = TEST_TCP,
            .busy = 1,
            .tx_thread = 0.072,
            .tx_wait = 0.975,
            .rtt_s = 20e-3,
            .rtt_min_s = 22e-6,
            .probe_s = 40e-6,
            .beside_s = 12e-3,
            .verdict = "network"},
        // Beside three hogs: neither host needs much, but one waits half of the time.
        {.kind = TEST_TCP,
            .busy = 1,
            .tx_thread = 0.457,
            .rx_thread = 0.1,
            .rx_wait = 0.47,
            .segments = 1200000,
            .retransmits = 676,
            .verdict = "receiver_cpu"},
        {.kind = TEST_TCP,
            .busy = 1,
            .tx_thread = 0.457,
            .rx_thread = 0.1,
            .rx_wait = 0.22,
            .verdict = "network"},
        // Beside two hogs: late, not full, and what waited did so in the receiver.
        {.kind = TEST_TCP,
            .busy = 1,
            .rx_thread = 0.3,
            .rx_wait = 0.5,
            .rtt_s = 6e-3,
            .rtt_min_s = 22e-6,
            .probe_s = 40e-6,
            .beside_s = 45e-6,
            .verdict = "receiver_cpu"},
        {.kind = TEST_TCP,
            .busy = 1,
            .rx_thread = 0.3,
            .rx_wait = 0.5,
            .rtt_s = 6e-3,
            .rtt_min_s = 22e-6,
            .probe_s = 40e-6,
            .beside_s = 5e-3,
            .verdict = "network"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void a_thread_without_time_is_named_at_its_own_end(void **state)
{
    (void)state;
    static const struct example examples[] = {
        // The sender waits for a receiver that has no time.
        {.kind = TEST_TCP,
            .busy = 0.76,
            .tx_wait = 0.21,
            .rx_thread = 0.1,
            .rx_wait = 0.85,
            .verdict = "receiver_cpu"},
        {.kind = TEST_TCP, .busy = 0.66, .tx_wait = 0.41, .verdict = "sender_cpu"},
        // A small window makes its reader work.
        {.kind = TEST_TCP,
            .busy = 1,
            .window = 0.8,
            .small_buffer = true,
            .rx_thread = 0.9,
            .rx_wait = 0.1,
            .rx_core = 1,
            .verdict = "receive_window"},
        // Most was offered; what was lost weighs more.
        {.kind = TEST_UDP,
            .goodput_bps = 1e9,
            .asked_bps = 2e9,
            .offered_bps = 1.97e9,
            .tx_thread = 0.9,
            .tx_wait = 0.1,
            .sent = 1000,
            .received = 500,
            .lost_receiver = 450,
            .verdict = "receiver_cpu"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void an_association_is_judged_without_busy_times(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {.kind = TEST_SCTP,
            .blocked = 0.9,
            .retransmits = 20,
            .verdict = "network",
            .subtype = "loss"},
        {.kind = TEST_SCTP, .blocked = 0.9, .verdict = "unknown"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void a_window_that_stands_in_a_queue_is_the_networks(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {.kind = TEST_SCTP,
            .busy = 1,
            .window = 0.9,
            .probe_s = 7e-3,
            .beside_s = 80e-3,
            .verdict = "network",
            .words = "80.0 ms",
            .subtype = "queue"},
        // A long path that holds no more: no queue.
        {.kind = TEST_SCTP,
            .busy = 1,
            .window = 0.9,
            .probe_s = 50e-3,
            .beside_s = 51e-3,
            .verdict = "receive_window"},
        {.kind = TEST_SCTP, .busy = 1, .window = 0.9, .verdict = "receive_window"},
        // The hosts' own delay is no queue of the path.
        {.kind = TEST_SCTP,
            .busy = 1,
            .window = 0.9,
            .probe_s = 30e-6,
            .beside_s = 300e-6,
            .verdict = "receive_window"},
        {.kind = TEST_SCTP,
            .busy = 1,
            .window = 0.9,
            .probe_s = 7e-3,
            .beside_s = 80e-3,
            .rx_thread = 0.97,
            .verdict = "receiver_cpu"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

// 15 ms, 2 % loss and 3 % out of order: what had come waited for chunks that had to come again.
static void a_window_that_waits_for_lost_chunks_is_the_networks(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {.kind = TEST_SCTP,
            .busy = 1,
            .window = 0.5,
            .segments = 2000,
            .retransmits = 40,
            .verdict = "network",
            .words = "40 of 2000 chunks",
            .subtype = "loss"},
        // One chunk in a thousand leaves the window what it is.
        {.kind = TEST_SCTP,
            .busy = 1,
            .window = 0.9,
            .segments = 20000,
            .retransmits = 20,
            .verdict = "receive_window"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

// 30 ms, 1 % loss, bbr: neither buffer alone for a fifth of the time, and 7 times as much with both
// raised.
static void two_buffers_that_take_turns_limit_together(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {.kind = TEST_TCP,
            .busy = 1,
            .buffer = 0.157,
            .window = 0.053,
            .retransmits = 1567,
            .verdict = "send_buffer",
            .words = "receive window 5 %"},
        {.kind = TEST_TCP, .busy = 1, .buffer = 0.1, .window = 0.15, .verdict = "receive_window"},
        {.kind = TEST_TCP,
            .busy = 1,
            .buffer = 0.1,
            .window = 0.05,
            .retransmits = 1567,
            .verdict = "network"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void a_quota_is_told_from_a_busy_path(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {.kind = TEST_TCP,
            .goodput_bps = 1e9,
            .busy = 0.99,
            .retransmits = 5,
            .rx_throttled = 0.8,
            .tx_throttled = 0.1,
            .verdict = "receiver_cpu",
            .words = "quota 80 %"},
        {.kind = TEST_TCP,
            .goodput_bps = 1e9,
            .busy = 0.83,
            .tx_throttled = 0.7,
            .rx_throttled = 0.3,
            .verdict = "sender_cpu",
            .words = "the sender's control group"},
        {.kind = TEST_TCP, .busy = 1, .tx_throttled = 0.19, .verdict = "network"},
        // nine tenths of the rate were offered, and half of them lost: the quota is not what limits
        {.kind = TEST_UDP,
            .asked_bps = 100e6,
            .offered_bps = 91e6,
            .goodput_bps = 42e6,
            .sent = 8093,
            .received = 3901,
            .tx_throttled = 0.6,
            .verdict = "network"},
        {.kind = TEST_UDP,
            .goodput_bps = 1e8,
            .asked_bps = 1e9,
            .offered_bps = 1e8,
            .tx_throttled = 0.5,
            .verdict = "sender_cpu"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void a_full_window_is_told_by_what_filled_it(void **state)
{
    (void)state;
    static const struct example examples[] = {
        // A small buffer is half full whoever reads it.
        {.kind = TEST_TCP,
            .busy = 1,
            .window = 0.5,
            .queue_high = 0.9,
            .small_buffer = true,
            .rx_thread = 0.6,
            .verdict = "receive_window"},
        // The window is full of what stands in the path's queue.
        {.kind = TEST_TCP,
            .busy = 1,
            .window = 0.3,
            .rtt_s = 300e-3,
            .rtt_min_s = 1e-3,
            .verdict = "network",
            .subtype = "queue"},
        {.kind = TEST_TCP,
            .busy = 1,
            .window = 0.3,
            .rx_wait = 0.3,
            .rtt_s = 300e-3,
            .rtt_min_s = 1e-3,
            .verdict = "receiver_cpu"},
        {.kind = TEST_TCP,
            .busy = 1,
            .window = 0.9,
            .rtt_s = 21e-3,
            .rtt_min_s = 20e-3,
            .verdict = "receive_window"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void what_each_host_was_short_of_is_told_apart(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {.kind = TEST_TCP, .busy = 0.7, .blocked = 0.6, .verdict = "send_buffer"},
        {.kind = TEST_TCP, .busy = 0.7, .blocked = 0.6, .tx_thread = 0.95, .verdict = "sender_cpu"},
        // Both hosts on one machine.
        {.kind = TEST_TCP,
            .busy = 1,
            .tx_core = 1,
            .rx_core = 1,
            .tx_thread = 0.98,
            .rx_thread = 0.1,
            .verdict = "sender_cpu"},
        {.kind = TEST_TCP,
            .busy = 1,
            .tx_core = 1,
            .rx_core = 1,
            .tx_thread = 0.3,
            .rx_thread = 0.8,
            .verdict = "receiver_cpu"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void the_network_s_limit_has_a_kind(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {.kind = TEST_TCP, .busy = 1, .retransmits = 1, .verdict = "network", .subtype = "loss"},
        {.kind = TEST_TCP,
            .busy = 1,
            .retransmits = 1,
            .allowance = 9,
            .verdict = "network",
            .subtype = "provider_cap",
            .words = "held back 9 packets"},
        {.kind = TEST_TCP,
            .busy = 1,
            .segments = 1000,
            .marked = 10,
            .verdict = "network",
            .subtype = "ecn"},
        {.kind = TEST_TCP,
            .busy = 1,
            .retransmits = 2,
            .segments = 1000,
            .marked = 9,
            .verdict = "network",
            .subtype = "loss"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static Mp__Cell *limited_cell(const char *verdict, const char *subtype)
{
    Mp__Cell *cell = calloc(1, sizeof *cell);
    mp__cell__init(cell);
    cell->state = MP__CELL_STATE__OK;
    cell->has_bandwidth_bps = true;
    cell->bandwidth_bps = 40e6;
    cell->limiter = calloc(1, sizeof *cell->limiter);
    mp__limiter__init(cell->limiter);
    cell->limiter->verdict = strdup(verdict);
    cell->limiter->subtype = subtype ? strdup(subtype) : NULL;
    cell->limiter->evidence = strdup("loss: 9 retransmits, network-limited 98 %");
    return cell;
}

static void eight_streams_that_carry_half_as_much_again_show_a_cap_on_each(void **state)
{
    (void)state;
    static const struct {
        double bps;
        bool capped;
    } cases[] = {{59e6, false}, {61e6, true}, {320e6, true}, {10e6, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Mp__Cell *cell = limited_cell("network", "loss");
        assert_int_equal(verdict_flows(cell->limiter, 8, 40e6, cases[i].bps), cases[i].capped);
        assert_string_equal(cell->limiter->verdict, "network");
        assert_string_equal(cell->limiter->subtype, cases[i].capped ? "flow_cap" : "loss");
        assert_non_null(strstr(cell->limiter->evidence, "9 retransmits"));
        assert_int_equal(!!strstr(cell->limiter->evidence, "one 40"), cases[i].capped);
        mp__cell__free_unpacked(cell, NULL);
    }
}

static void a_second_test_is_for_cells_that_the_network_limits(void **state)
{
    (void)state;
    Mp__Cell *cell = limited_cell("network", NULL);
    assert_true(verdict_flows_open(cell));
    assert_true(verdict_flows_one_bps(cell) == 40e6);
    // The burst may be there again when several streams are tried.
    cell->bucket = calloc(1, sizeof *cell->bucket);
    mp__bucket__init(cell->bucket);
    cell->bucket->before_bps = 90e6;
    assert_true(verdict_flows_open(cell));
    assert_true(verdict_flows_one_bps(cell) == 90e6);
    mp__cell__free_unpacked(cell, NULL);
    cell = limited_cell("receive_window", NULL);
    assert_false(verdict_flows_open(cell));
    mp__cell__free_unpacked(cell, NULL);
    cell = limited_cell("network", "queue");
    cell->state = MP__CELL_STATE__FAILED;
    assert_false(verdict_flows_open(cell));
    mp__cell__free_unpacked(cell, NULL);
}

static void datagrams_are_judged_by_where_they_went(void **state)
{
    (void)state;
    static const struct example examples[] = {
        // A sender that paused at the end of its time made up for it.
        {.kind = TEST_UDP,
            .goodput_bps = 1.9788e9,
            .asked_bps = 2e9,
            .offered_bps = 2e9,
            .sent = 178572,
            .received = 178572,
            .tx_wait = 0.14,
            .verdict = "bitrate",
            .words = "was sent"},
        {.kind = TEST_UDP,
            .goodput_bps = 0.995e6,
            .asked_bps = 1e6,
            .offered_bps = 1e6,
            .sent = 1000,
            .received = 995,
            .verdict = "bitrate"},
        {.kind = TEST_UDP,
            .goodput_bps = 0.9e6,
            .asked_bps = 1e6,
            .offered_bps = 1e6,
            .sent = 1000,
            .received = 900,
            .verdict = "network",
            .words = "10.0 %"},
        {.kind = TEST_UDP,
            .goodput_bps = 0.9e6,
            .asked_bps = 1e6,
            .offered_bps = 1e6,
            .sent = 1000,
            .received = 900,
            .lost_receiver = 80,
            .verdict = "receiver_cpu"},
        // Its interface may have lost most of it, so the network is not blamed.
        {.kind = TEST_UDP,
            .goodput_bps = 0.9e6,
            .asked_bps = 1e6,
            .offered_bps = 1e6,
            .sent = 1000,
            .received = 900,
            .ring = 60,
            .verdict = "receiver_cpu",
            .words = "receiver's interface"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

static void datagrams_that_were_not_offered_are_the_senders(void **state)
{
    (void)state;
    static const struct example examples[] = {
        {.kind = TEST_UDP,
            .goodput_bps = 0.5e9,
            .asked_bps = 1e9,
            .offered_bps = 0.5e9,
            .tx_thread = 0.99,
            .sent = 1000,
            .received = 1000,
            .verdict = "sender_cpu"},
        {.kind = TEST_UDP,
            .goodput_bps = 0.5e9,
            .asked_bps = 1e9,
            .offered_bps = 0.5e9,
            .sent = 1000,
            .received = 1000,
            .verdict = "unknown"},
        {.kind = TEST_UDP,
            .goodput_bps = 2e9,
            .max = true,
            .offered_bps = 2e9,
            .tx_thread = 0.99,
            .sent = 1000,
            .received = 1000,
            .verdict = "sender_cpu"},
    };
    check(examples, sizeof examples / sizeof *examples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_that_take_turns_are_no_network),
        cmocka_unit_test(half_of_the_time_is_enough_where_the_path_shows_it),
        cmocka_unit_test(streams_are_judged_by_the_first_rule_that_matches),
        cmocka_unit_test(threads_that_come_late_are_told_from_threads_that_have_no_time),
        cmocka_unit_test(a_queue_that_only_a_late_host_made_is_not_the_paths),
        cmocka_unit_test(a_thread_without_time_is_named_at_its_own_end),
        cmocka_unit_test(an_association_is_judged_without_busy_times),
        cmocka_unit_test(a_window_that_stands_in_a_queue_is_the_networks),
        cmocka_unit_test(a_window_that_waits_for_lost_chunks_is_the_networks),
        cmocka_unit_test(two_buffers_that_take_turns_limit_together),
        cmocka_unit_test(a_quota_is_told_from_a_busy_path),
        cmocka_unit_test(a_full_window_is_told_by_what_filled_it),
        cmocka_unit_test(what_each_host_was_short_of_is_told_apart),
        cmocka_unit_test(the_network_s_limit_has_a_kind),
        cmocka_unit_test(eight_streams_that_carry_half_as_much_again_show_a_cap_on_each),
        cmocka_unit_test(a_second_test_is_for_cells_that_the_network_limits),
        cmocka_unit_test(datagrams_are_judged_by_where_they_went),
        cmocka_unit_test(datagrams_that_were_not_offered_are_the_senders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
