#include "fields.h"

#include "clock.h"

#define NO_PARENT SIZE_MAX

static struct value get_member(const struct field *self, const Mp__Cell *cell)
{
    struct value value = {.type = VALUE_ABSENT};
    const char *base = (const char *)cell;
    if (self->parent != NO_PARENT)
        base = *(const char *const *)(base + self->parent);
    if (!base)
        return value;
    const char *at = base + self->at;
    if (self->type == VALUE_TEXT) {
        value.text = *(const char *const *)at;
        value.type = value.text ? VALUE_TEXT : VALUE_ABSENT;
        return value;
    }
    if (self->has != NO_PARENT && !*(const protobuf_c_boolean *)(base + self->has))
        return value;
    value.type = self->type;
    if (self->type == VALUE_REAL)
        value.real = *(const double *)at;
    else if (self->type == VALUE_WHOLE)
        value.whole = *(const uint64_t *)at;
    else if (self->type == VALUE_TIME)
        value.wall_ns = *(const int64_t *)at;
    else
        value.whole = *(const protobuf_c_boolean *)at != 0;
    return value;
}

static struct value get_small(const struct field *self, const Mp__Cell *cell)
{
    struct value value = {.type = VALUE_ABSENT};
    const char *base = (const char *)cell;
    if (*(const protobuf_c_boolean *)(base + self->has)) {
        value.type = VALUE_WHOLE;
        value.whole = *(const uint32_t *)(base + self->at);
    }
    return value;
}

static struct value get_state(const struct field *self, const Mp__Cell *cell)
{
    (void)self;
    return (struct value){.type = VALUE_TEXT, .text = report_state_word(cell->state)};
}

static struct value state_of(const Mp__Pass *pass)
{
    if (!pass)
        return (struct value){.type = VALUE_ABSENT};
    return (struct value){.type = VALUE_TEXT, .text = report_state_word(pass->state)};
}

static struct value get_recheck_state(const struct field *self, const Mp__Cell *cell)
{
    (void)self;
    return state_of(cell->recheck);
}

static struct value get_flow_check_state(const struct field *self, const Mp__Cell *cell)
{
    (void)self;
    return state_of(cell->flow_check);
}

static struct value get_flow_check_streams(const struct field *self, const Mp__Cell *cell)
{
    (void)self;
    const Mp__Pass *pass = cell->flow_check;
    if (!pass || !pass->has_streams)
        return (struct value){.type = VALUE_ABSENT};
    return (struct value){.type = VALUE_WHOLE, .whole = pass->streams};
}

static struct value get_attempts(const struct field *self, const Mp__Cell *cell)
{
    (void)self;
    return (struct value){.type = VALUE_WHOLE, .whole = cell->has_attempts ? cell->attempts : 0};
}

#define OWN(path, member, type)                                                                    \
    {                                                                                              \
        path, false, get_member, NO_PARENT, offsetof(Mp__Cell, has_##member),                      \
            offsetof(Mp__Cell, member), type                                                       \
    }
#define REAL(path, member) OWN(path, member, VALUE_REAL)
#define WHOLE(path, member) OWN(path, member, VALUE_WHOLE)
#define SMALL(path, member)                                                                        \
    {                                                                                              \
        path, false, get_small, NO_PARENT, offsetof(Mp__Cell, has_##member),                       \
            offsetof(Mp__Cell, member), VALUE_WHOLE                                                \
    }
#define TEXT(path, member, always)                                                                 \
    {                                                                                              \
        path, always, get_member, NO_PARENT, NO_PARENT, offsetof(Mp__Cell, member), VALUE_TEXT     \
    }
#define PART(path, part, message, member, type)                                                    \
    {                                                                                              \
        path, false, get_member, offsetof(Mp__Cell, part), offsetof(message, has_##member),        \
            offsetof(message, member), type                                                        \
    }
// A member that the part always has.
#define PART_FIXED(path, part, message, member, type)                                              \
    {                                                                                              \
        path, false, get_member, offsetof(Mp__Cell, part), NO_PARENT, offsetof(message, member),   \
            type                                                                                   \
    }
#define PART_TEXT(path, part, message, member) PART_FIXED(path, part, message, member, VALUE_TEXT)
#define SPREAD(path, part)                                                                         \
    PART(path ".min", part, Mp__Distribution, min, VALUE_REAL),                                    \
        PART(path ".mean", part, Mp__Distribution, mean, VALUE_REAL),                              \
        PART(path ".p50", part, Mp__Distribution, p50, VALUE_REAL),                                \
        PART(path ".p90", part, Mp__Distribution, p90, VALUE_REAL),                                \
        PART(path ".p99", part, Mp__Distribution, p99, VALUE_REAL),                                \
        PART(path ".p999", part, Mp__Distribution, p999, VALUE_REAL),                              \
        PART(path ".max", part, Mp__Distribution, max, VALUE_REAL),                                \
        PART_FIXED(path ".count", part, Mp__Distribution, count, VALUE_WHOLE)
#define LIMITER(member) PART("limiter." #member, limiter, Mp__Limiter, member, VALUE_REAL)
// Both hosts have the same values.
#define RECORD(path, part)                                                                         \
    PART_TEXT(path ".kernel", part, Mp__HostRecord, kernel),                                       \
        PART_TEXT(path ".interface", part, Mp__HostRecord, interface),                             \
        PART_TEXT(path ".driver", part, Mp__HostRecord, driver),                                   \
        PART(path ".link_bps", part, Mp__HostRecord, link_bps, VALUE_WHOLE),                       \
        PART(path ".mtu", part, Mp__HostRecord, mtu, VALUE_WHOLE),                                 \
        PART_TEXT(path ".offloads", part, Mp__HostRecord, offloads),                               \
        PART_TEXT(path ".qdisc", part, Mp__HostRecord, qdisc),                                     \
        PART_TEXT(path ".congestion", part, Mp__HostRecord, congestion),                           \
        PART(path ".rmem_max", part, Mp__HostRecord, rmem_max, VALUE_WHOLE),                       \
        PART(path ".wmem_max", part, Mp__HostRecord, wmem_max, VALUE_WHOLE),                       \
        PART(path ".cores", part, Mp__HostRecord, cores, VALUE_WHOLE),                             \
        PART(path ".quota_cores", part, Mp__HostRecord, quota_cores, VALUE_REAL),                  \
        PART_TEXT(path ".virtualization", part, Mp__HostRecord, virtualization),                   \
        PART_TEXT(path ".boot_id", part, Mp__HostRecord, boot_id),                                 \
        PART(path ".moved_bytes", part, Mp__HostRecord, moved_bytes, VALUE_WHOLE),                 \
        PART(path ".interface_dropped", part, Mp__HostRecord, interface_dropped, VALUE_WHOLE),     \
        PART(path ".softnet_dropped", part, Mp__HostRecord, softnet_dropped, VALUE_WHOLE)
#define PACKETS(path, member) PART("packets." path, packets, Mp__Packets, member, VALUE_WHOLE)

static const struct field fields[] = {
    TEXT("port", port, false),
    {"state", true, get_state, NO_PARENT, NO_PARENT, 0, VALUE_TEXT},
    TEXT("reason", reason, true),
    {"started", true, get_member, NO_PARENT, offsetof(Mp__Cell, has_started_wall_ns),
        offsetof(Mp__Cell, started_wall_ns), VALUE_TIME},
    {"attempts", true, get_attempts, NO_PARENT, NO_PARENT, 0, VALUE_WHOLE},
    TEXT("technique", technique, true),
    REAL("bandwidth_bps", bandwidth_bps),
    WHOLE("bytes", bytes),
    REAL("duration_s", duration_s),
    REAL("omitted_s", omitted_s),
    WHOLE("retransmits", retransmits),
    SPREAD("rtt_s", rtt),
    SPREAD("rtt_loaded_s", rtt_loaded),
    SPREAD("rtt_self_s", rtt_self),
    REAL("rtt_added_s.p50", rtt_added_p50_s),
    REAL("rtt_added_s.p99", rtt_added_p99_s),
    REAL("wire_bps.l3", wire_l3_bps),
    REAL("wire_bps.l2", wire_l2_bps),
    REAL("wire_bps.line", wire_line_bps),
    REAL("jitter_s", jitter_s),
    REAL("jitter_rfc3550_s", jitter_rfc3550_s),
    SPREAD("pdv_s", pdv),
    SPREAD("pdv_backward_s", pdv_backward),
    SPREAD("ipdv_s", ipdv),
    REAL("one_way_s.forward", one_way_forward_s),
    REAL("one_way_s.backward", one_way_backward_s),
    REAL("one_way_s.bound", one_way_bound_s),
    REAL("loss_ratio", loss_ratio),
    PACKETS("sent", sent),
    PACKETS("received", received),
    PACKETS("lost_network", lost_network),
    PACKETS("lost_receiver", lost_receiver),
    PACKETS("lost_receiver_max", lost_receiver_max),
    PACKETS("lost_sender", lost_sender),
    PACKETS("reordered", reordered),
    PACKETS("duplicate", duplicate),
    PACKETS("reorder_extent", reorder_extent),
    PACKETS("loss_bursts", loss_bursts),
    PACKETS("loss_burst_longest", loss_burst_longest),
    PART("packets.loss_burst_mean", packets, Mp__Packets, loss_burst_mean, VALUE_REAL),
    PART_TEXT("limiter.verdict", limiter, Mp__Limiter, verdict),
    PART_TEXT("limiter.subtype", limiter, Mp__Limiter, subtype),
    PART_TEXT("limiter.evidence", limiter, Mp__Limiter, evidence),
    PART_TEXT("limiter.runner_up", limiter, Mp__Limiter, runner_up),
    PART("limiter.margin", limiter, Mp__Limiter, margin, VALUE_REAL),
    LIMITER(busy),
    LIMITER(receive_window_limited),
    LIMITER(send_buffer_limited),
    LIMITER(receive_queue_high),
    LIMITER(sender_thread),
    LIMITER(sender_core),
    LIMITER(sender_wait),
    LIMITER(sender_throttled),
    LIMITER(receiver_thread),
    LIMITER(receiver_core),
    LIMITER(receiver_wait),
    LIMITER(receiver_throttled),
    REAL("cpu.sender", cpu_sender),
    REAL("cpu.receiver", cpu_receiver),
    REAL("stalled_s", stalled_s),
    REAL("blocked_s", blocked_s),
    REAL("offered_bps", offered_bps),
    WHOLE("drained_bytes", drained_bytes),
    TEXT("stamps", stamps, false),
    SMALL("family", family),
    TEXT("congestion", congestion, false),
    SMALL("mss", mss),
    SMALL("path_mtu", path_mtu),
    SMALL("length", length),
    OWN("fragmented", fragmented, VALUE_BOOL),
    TEXT("translated", translated, false),
    SMALL("streams", streams),
    WHOLE("segments", segments),
    WHOLE("cwnd_max", cwnd_max),
    SMALL("flows", flows),
    REAL("worst_flow_p50_s", worst_flow_p50_s),
    REAL("best_flow_p50_s", best_flow_p50_s),
    SMALL("source_port", source_port),
    SMALL("destination_port", destination_port),
    PART_FIXED("until.target", convergence, Mp__Convergence, target, VALUE_REAL),
    PART_FIXED("until.reached", convergence, Mp__Convergence, reached, VALUE_BOOL),
    PART("until.half_width", convergence, Mp__Convergence, half_width, VALUE_REAL),
    PART("until.samples", convergence, Mp__Convergence, samples, VALUE_WHOLE),
    PART("until.looks", convergence, Mp__Convergence, looks, VALUE_WHOLE),
    PART("until.autocorrelation", convergence, Mp__Convergence, autocorrelation, VALUE_REAL),
    PART_TEXT("until.why", convergence, Mp__Convergence, why),
    PART_FIXED("bucket.at_s", bucket, Mp__Bucket, at_s, VALUE_REAL),
    PART_FIXED("bucket.before_bps", bucket, Mp__Bucket, before_bps, VALUE_REAL),
    PART_FIXED("bucket.after_bps", bucket, Mp__Bucket, after_bps, VALUE_REAL),
    PART_FIXED("bucket.bytes", bucket, Mp__Bucket, bytes, VALUE_WHOLE),
    WHOLE("valid_for.bytes", valid_bytes),
    REAL("valid_for.duration_s", valid_s),
    SMALL("pass", pass),
    PART("spread.bandwidth", spread, Mp__Spread, bandwidth, VALUE_REAL),
    PART("spread.jitter", spread, Mp__Spread, jitter, VALUE_REAL),
    PART("spread.rtt_p50", spread, Mp__Spread, rtt_p50, VALUE_REAL),
    PART("spread.loss", spread, Mp__Spread, loss, VALUE_REAL),
    {"recheck.state", false, get_recheck_state, NO_PARENT, NO_PARENT, 0, VALUE_TEXT},
    PART_TEXT("recheck.reason", recheck, Mp__Pass, reason),
    PART("recheck.started", recheck, Mp__Pass, started_wall_ns, VALUE_TIME),
    PART("recheck.sampled", recheck, Mp__Pass, sampled, VALUE_BOOL),
    PART("recheck.bandwidth_bps", recheck, Mp__Pass, bandwidth_bps, VALUE_REAL),
    PART("recheck.bias", recheck, Mp__Pass, bias, VALUE_REAL),
    PART("recheck.jitter_s", recheck, Mp__Pass, jitter_s, VALUE_REAL),
    PART("recheck.loss_ratio", recheck, Mp__Pass, loss_ratio, VALUE_REAL),
    PART("recheck.bias_loss", recheck, Mp__Pass, bias_loss, VALUE_REAL),
    PART("recheck.retransmits", recheck, Mp__Pass, retransmits, VALUE_WHOLE),
    PART("recheck.duration_s", recheck, Mp__Pass, duration_s, VALUE_REAL),
    PART_TEXT("recheck.limiter", recheck, Mp__Pass, limiter),
    {"flow_check.state", false, get_flow_check_state, NO_PARENT, NO_PARENT, 0, VALUE_TEXT},
    PART_TEXT("flow_check.reason", flow_check, Mp__Pass, reason),
    PART("flow_check.started", flow_check, Mp__Pass, started_wall_ns, VALUE_TIME),
    {"flow_check.streams", false, get_flow_check_streams, NO_PARENT, NO_PARENT, 0, VALUE_WHOLE},
    PART("flow_check.bandwidth_bps", flow_check, Mp__Pass, bandwidth_bps, VALUE_REAL),
    PART("flow_check.gain", flow_check, Mp__Pass, gain, VALUE_REAL),
    PART("flow_check.retransmits", flow_check, Mp__Pass, retransmits, VALUE_WHOLE),
    PART("flow_check.duration_s", flow_check, Mp__Pass, duration_s, VALUE_REAL),
    PART_TEXT("flow_check.limiter", flow_check, Mp__Pass, limiter),
    RECORD("host_sender", record_sender),
    RECORD("host_receiver", record_receiver),
    TEXT("observed", observed, false),
    TEXT("arrived", arrived, false),
    TEXT("listener", listener, false),
    TEXT("evidence", evidence, false),
    TEXT("error", error, false),
    SMALL("icmp.type", icmp_type),
    SMALL("icmp.code", icmp_code),
    TEXT("icmp.from", icmp_from, false),
    SMALL("probes", probes),
    REAL("time_s", time_s),
    TEXT("seen_from", seen_from, false),
    OWN("alive", alive, VALUE_BOOL),
    TEXT("alive_how", alive_how, false),
    TEXT("last_hop", last_hop, false),
    TEXT("via", via, false),
    OWN("reached", reached, VALUE_BOOL),
    TEXT("black_hole", black_hole, false),
};

const struct field *report_fields(size_t *count)
{
    *count = sizeof fields / sizeof *fields;
    return fields;
}

struct value report_field(const struct field *field, const Mp__Cell *cell)
{
    struct value value = field->get(field, cell);
    // A number that is none is not a measurement.
    if (value.type == VALUE_REAL && !(value.real - value.real == 0))
        value.type = VALUE_ABSENT;
    return value;
}

// --------------------------------------------------------------------------------------- words

static const char *word_of(const char *const *words, size_t count, int value)
{
    return value >= 0 && (size_t)value < count && words[value] ? words[value] : "unknown";
}

const char *report_state_word(Mp__CellState state)
{
    static const char *const words[] = {[MP__CELL_STATE__PENDING] = "pending",
        [MP__CELL_STATE__CELL_RUNNING] = "running",
        [MP__CELL_STATE__OK] = "ok",
        [MP__CELL_STATE__FAILED] = "failed",
        [MP__CELL_STATE__UNSUPPORTED] = "unsupported",
        [MP__CELL_STATE__CELL_CANCELLED] = "cancelled",
        [MP__CELL_STATE__LOST] = "lost",
        [MP__CELL_STATE__SKIPPED] = "skipped"};
    return word_of(words, sizeof words / sizeof *words, (int)state);
}

const char *report_run_state_word(Mp__RunState state)
{
    static const char *const words[] = {[MP__RUN_STATE__QUEUED] = "queued",
        [MP__RUN_STATE__RUNNING] = "running",
        [MP__RUN_STATE__FINISHED] = "finished",
        [MP__RUN_STATE__CANCELLED] = "cancelled"};
    return word_of(words, sizeof words / sizeof *words, (int)state);
}

const char *report_kind_word(Mp__TestKind kind)
{
    static const char *const words[] = {[MP__TEST_KIND__TCP] = "tcp",
        [MP__TEST_KIND__UDP] = "udp",
        [MP__TEST_KIND__SCTP] = "sctp",
        [MP__TEST_KIND__LATENCY] = "latency",
        [MP__TEST_KIND__PATH] = "path",
        [MP__TEST_KIND__PORT] = "port"};
    return word_of(words, sizeof words / sizeof *words, (int)kind);
}

// The default mode of a run is that of its bandwidth tests, if it has any.
const char *report_mode_word(const Mp__RunRequest *request)
{
    static const char *const words[] = {[MP__MODE__ISOLATED] = "isolated",
        [MP__MODE__DUPLEX] = "duplex",
        [MP__MODE__CONCURRENT] = "concurrent"};
    if (request->has_mode)
        return word_of(words, sizeof words / sizeof *words, (int)request->mode);
    for (size_t i = 0; i < request->n_tests; i++)
        if (request->tests[i]->kind <= MP__TEST_KIND__SCTP)
            return "isolated";
    return "concurrent";
}
