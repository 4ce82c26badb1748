// Pieces of JSON: what document, events and lists have in common.

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "ports.h"
#include "report_parts.h"

// -------------------------------------------------------------------------------------- values

// Length of the well-formed UTF-8 sequence at `c` (RFC 3629), 0 if there is none.
static size_t utf8_length(const unsigned char *c)
{
    static const struct {
        unsigned char first, last, low, high;
        size_t length;
    } forms[] = {{0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (*c < forms[i].first || *c > forms[i].last)
            continue;
        if (c[1] < forms[i].low || c[1] > forms[i].high)
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if ((c[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].length;
    }
    return 0;
}

void report_json_string(FILE *stream, const char *text)
{
    fputc('"', stream);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        size_t length;
        if (*c == '"' || *c == '\\') {
            fprintf(stream, "\\%c", *c);
        } else if (*c == '\n') {
            fputs("\\n", stream);
        } else if (*c == '\t') {
            fputs("\\t", stream);
        } else if (*c < 0x20 || *c == 0x7f) {
            fprintf(stream, "\\u%04x", *c);
        } else if (*c < 0x80) {
            fputc(*c, stream);
        } else if ((length = utf8_length(c)) > 0) {
            fwrite(c, 1, length, stream);
            c += length - 1;
        } else {
            fputs("\\ufffd", stream);
        }
    }
    fputc('"', stream);
}

void report_json_real(FILE *stream, double value)
{
    char text[40];
    if (!isfinite(value)) {
        fputs("null", stream);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fputs(text, stream);
}

void report_json_time(FILE *stream, int64_t wall_ns)
{
    char text[CLOCK_ISO_SIZE];
    clock_iso8601(wall_ns, text);
    report_json_string(stream, text);
}

void report_json_value(FILE *stream, const struct value *value)
{
    switch (value->type) {
    case VALUE_ABSENT:
        fputs("null", stream);
        break;
    case VALUE_REAL:
        report_json_real(stream, value->real);
        break;
    case VALUE_WHOLE:
        fprintf(stream, "%" PRIu64, value->whole);
        break;
    case VALUE_BOOL:
        fputs(value->whole ? "true" : "false", stream);
        break;
    case VALUE_TEXT:
        report_json_string(stream, value->text);
        break;
    case VALUE_TIME:
        report_json_time(stream, value->wall_ns);
        break;
    }
}

// --------------------------------------------------------------------------------------- cells

// Moves from the object that is open to the one that `path` is in; one level deep.
static void enter_group(FILE *stream, const char **open, const char *path)
{
    const char *dot = strchr(path, '.');
    size_t length = dot ? (size_t)(dot - path) : 0;
    bool same = *open && dot && strncmp(*open, path, length + 1) == 0;
    if (*open && !same)
        fputc('}', stream);
    if (same)
        fputc(',', stream);
    else if (dot)
        fprintf(stream, ",\"%.*s\":{", (int)length, path);
    else
        fputc(',', stream);
    *open = dot ? path : NULL;
}

static void member_real(FILE *stream, const char *name, int has, double value)
{
    if (!has || !isfinite(value))
        return;
    fprintf(stream, ",\"%s\":", name);
    report_json_real(stream, value);
}

static void member_whole(FILE *stream, const char *name, int has, uint64_t value)
{
    if (has)
        fprintf(stream, ",\"%s\":%" PRIu64, name, value);
}

static void member_text(FILE *stream, const char *name, const char *text)
{
    if (!text)
        return;
    fprintf(stream, ",\"%s\":", name);
    report_json_string(stream, text);
}

static void intervals_list(FILE *stream, const Mp__Cell *cell)
{
    fputs(",\"intervals\":[", stream);
    for (size_t i = 0; i < cell->n_intervals; i++) {
        fputs(i ? ",{" : "{", stream);
        report_json_interval(stream, cell->intervals[i]);
        fputc('}', stream);
    }
    fputc(']', stream);
}

static void hop_object(FILE *stream, const Mp__Hop *hop)
{
    fprintf(stream, "{\"ttl\":%u,\"address\":", hop->ttl);
    if (hop->responder)
        report_json_string(stream, hop->responder);
    else
        fputs("null", stream);
    fprintf(stream, ",\"sent\":%u,\"received\":%u", hop->sent, hop->received);
    if (hop->sent > 0 && hop->received <= hop->sent)
        member_real(stream, "loss_ratio", 1, (double)(hop->sent - hop->received) / hop->sent);
    if (hop->has_rtt_mean_s) {
        fputs(",\"rtt_s\":{\"min\":", stream);
        report_json_real(stream, hop->has_rtt_min_s ? hop->rtt_min_s : NAN);
        fputs(",\"mean\":", stream);
        report_json_real(stream, hop->rtt_mean_s);
        fputs(",\"max\":", stream);
        report_json_real(stream, hop->has_rtt_max_s ? hop->rtt_max_s : NAN);
        fputc('}', stream);
    }
    member_whole(stream, "mtu", hop->has_mtu, hop->mtu);
    fprintf(stream, ",\"final\":%s}", hop->has_final && hop->final ? "true" : "false");
}

static void hops_list(FILE *stream, const Mp__Cell *cell)
{
    fputs(",\"hops\":[", stream);
    for (size_t i = 0; i < cell->n_hops; i++) {
        fputs(i ? "," : "", stream);
        hop_object(stream, cell->hops[i]);
    }
    fputc(']', stream);
}

void report_json_fields(FILE *stream, const Mp__Cell *cell)
{
    size_t count;
    const struct field *fields = report_fields(&count);
    const char *open = NULL;
    for (size_t i = 0; i < count; i++) {
        struct value value = report_field(&fields[i], cell);
        if (value.type == VALUE_ABSENT && !fields[i].always)
            continue;
        enter_group(stream, &open, fields[i].path);
        const char *dot = strchr(fields[i].path, '.');
        fprintf(stream, "\"%s\":", dot ? dot + 1 : fields[i].path);
        report_json_value(stream, &value);
    }
    if (open)
        fputc('}', stream);
    report_json_passes(stream, cell);
    if (cell->n_intervals > 0)
        intervals_list(stream, cell);
    if (cell->n_hops > 0)
        hops_list(stream, cell);
}

static void member_true(FILE *stream, const char *name, int has, int value)
{
    if (has)
        fprintf(stream, ",\"%s\":%s", name, value ? "true" : "false");
}

void report_json_interval(FILE *stream, const Mp__Interval *interval)
{
    fputs("\"start_s\":", stream);
    report_json_real(stream, interval->start_s);
    fputs(",\"duration_s\":", stream);
    report_json_real(stream, interval->duration_s);
    member_real(stream, "bandwidth_bps", interval->has_bandwidth_bps, interval->bandwidth_bps);
    member_whole(stream, "bytes", interval->has_bytes, interval->bytes);
    member_whole(stream, "retransmits", interval->has_retransmits, interval->retransmits);
    member_whole(stream, "sent", interval->has_sent, interval->sent);
    member_whole(stream, "received", interval->has_received, interval->received);
    member_whole(stream, "lost", interval->has_lost, interval->lost);
    member_real(stream, "jitter_s", interval->has_jitter_s, interval->jitter_s);
}

// ----------------------------------------------------------------------------------------- run

static void member_list(FILE *stream, const char *name, char *const *texts, size_t count)
{
    if (count == 0)
        return;
    fprintf(stream, ",\"%s\":[", name);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? "," : "", stream);
        report_json_string(stream, texts[i]);
    }
    fputc(']', stream);
}

static double seconds_of(int64_t ns)
{
    return (double)ns / 1e9;
}

static void test_options(FILE *stream, const Mp__TestSpec *spec)
{
    fprintf(stream, "{\"test\":\"%s\"", report_kind_word(spec->kind));
    member_real(stream, "duration_s", 1, seconds_of(spec->duration_ns));
    member_real(stream, "omit_s", spec->has_omit_ns, seconds_of(spec->omit_ns));
    member_real(stream, "interval_s", 1, seconds_of(spec->interval_ns));
    member_whole(stream, "parallel", spec->has_parallel, spec->parallel);
    member_whole(stream, "bitrate_bps", spec->has_bitrate_bps, spec->bitrate_bps);
    member_true(stream, "bitrate_max", spec->has_bitrate_max, spec->bitrate_max);
    member_whole(stream, "length", spec->has_length, spec->length);
    member_whole(stream, "window", spec->has_window, spec->window);
    member_whole(stream, "family", spec->has_family, spec->family);
    member_whole(stream, "dscp", spec->has_dscp, spec->dscp);
    member_text(stream, "congestion", spec->congestion);
    member_whole(stream, "mss", spec->has_mss, spec->mss);
    member_true(stream, "reverse_connect", spec->has_reverse_connect, spec->reverse_connect);
    member_true(stream, "bidir", spec->has_bidir, spec->bidir);
    member_whole(stream, "flows", spec->has_flows, spec->flows);
    member_real(stream, "probe_rate", spec->has_probe_rate, spec->probe_rate);
    member_real(stream, "until", spec->has_until, spec->until);
    member_whole(stream, "streams", spec->has_streams, spec->streams);
    member_whole(stream, "attempts", spec->has_attempts, spec->attempts);
    member_real(stream, "timeout_s", spec->has_timeout_ns, seconds_of(spec->timeout_ns));
    member_real(stream, "rate", spec->has_agent_rate, spec->agent_rate);
    member_whole(stream, "from_port", spec->has_from_port, spec->from_port);
    member_text(stream, "via", spec->has_via ? transport_name(spec->via) : NULL);
    fputc('}', stream);
}

// What all tests of a run have in common stands once more beside them.
static void common_options(FILE *stream, const Mp__RunRequest *request)
{
    bool duration = request->n_tests > 0, interval = duration;
    for (size_t i = 1; i < request->n_tests; i++) {
        duration = duration && request->tests[i]->duration_ns == request->tests[0]->duration_ns;
        interval = interval && request->tests[i]->interval_ns == request->tests[0]->interval_ns;
    }
    if (duration)
        member_real(stream, "duration_s", 1, seconds_of(request->tests[0]->duration_ns));
    if (interval)
        member_real(stream, "interval_s", 1, seconds_of(request->tests[0]->interval_ns));
}

static void port_options(FILE *stream, const Mp__RunRequest *request)
{
    if (request->n_ports == 0)
        return;
    fputs(",\"ports\":[", stream);
    for (size_t i = 0; i < request->n_ports; i++) {
        const Mp__PortRange *range = request->ports[i];
        fprintf(stream, "%s\"%s/%u", i ? "," : "", transport_name(range->transport), range->first);
        if (range->last != range->first)
            fprintf(stream, "-%u", range->last);
        fputc('"', stream);
    }
    fputc(']', stream);
}

static void run_options(FILE *stream, const Mp__RunRequest *request)
{
    fputs("{\"tests\":[", stream);
    for (size_t i = 0; i < request->n_tests; i++) {
        fputs(i ? "," : "", stream);
        test_options(stream, request->tests[i]);
    }
    fputs("],\"pairs\":", stream);
    report_json_string(stream, request->pairs ? request->pairs : "full");
    common_options(stream, request);
    port_options(stream, request);
    member_list(stream, "from", request->from, request->n_from);
    member_list(stream, "to", request->to, request->n_to);
    member_list(stream, "both", request->both, request->n_both);
    member_whole(stream, "seed", request->has_seed, request->seed);
    member_text(stream, "mode", request->has_mode ? report_mode_word(request) : NULL);
    member_list(stream, "shared", request->shared, request->n_shared);
    member_true(stream, "machines_ignore", request->has_machines_ignore, request->machines_ignore);
    member_whole(stream, "retries", 1, request->has_retries ? request->retries : 1);
    member_whole(stream, "passes", request->has_passes, request->passes);
    member_text(stream, "name", request->name);
    member_text(stream, "command", request->command);
    fputc('}', stream);
}

static void run_times(FILE *stream, const Mp__RunInfo *info)
{
    static const char *const names[] = {"created", "started", "finished"};
    const struct {
        int has;
        int64_t wall_ns;
    } times[] = {{1, info->created_wall_ns}, {info->has_started_wall_ns, info->started_wall_ns},
        {info->has_finished_wall_ns, info->finished_wall_ns}};
    for (int i = 0; i < 3; i++) {
        fprintf(stream, ",\"%s\":", names[i]);
        if (times[i].has)
            report_json_time(stream, times[i].wall_ns);
        else
            fputs("null", stream);
    }
    fputs(",\"elapsed_s\":", stream);
    if (info->has_elapsed_s)
        report_json_real(stream, info->elapsed_s);
    else
        fputs("null", stream);
}

static void run_costs(FILE *stream, const Mp__RunInfo *info)
{
    member_real(stream, "eta_s", info->has_eta_s, info->eta_s);
    member_real(stream, "lower_bound_s", info->has_lower_bound_s, info->lower_bound_s);
    if (info->has_idle_turnaround_s || info->has_idle_tail_s || info->has_idle_blocked_s) {
        fputs(",\"idle_s\":{\"turnaround\":", stream);
        report_json_real(stream, info->has_idle_turnaround_s ? info->idle_turnaround_s : NAN);
        fputs(",\"tail\":", stream);
        report_json_real(stream, info->has_idle_tail_s ? info->idle_tail_s : NAN);
        fputs(",\"blocked\":", stream);
        report_json_real(stream, info->has_idle_blocked_s ? info->idle_blocked_s : NAN);
        fputc('}', stream);
    }
}

void report_json_run(FILE *stream, const Mp__RunInfo *info)
{
    const Mp__RunRequest *request = info->request;
    fputs("{\"id\":", stream);
    report_json_string(stream, info->id);
    fputs(",\"tests\":[", stream);
    for (size_t i = 0; i < request->n_tests; i++)
        fprintf(stream, "%s\"%s\"", i ? "," : "", report_kind_word(request->tests[i]->kind));
    fprintf(stream, "],\"state\":\"%s\"", report_run_state_word(info->state));
    run_times(stream, info);
    fputs(",\"options\":", stream);
    run_options(stream, request);
    member_text(stream, "mode", report_mode_word(request));
    member_text(stream, "name", request->name);
    member_text(stream, "by", info->by);
    fprintf(stream,
        ",\"counts\":{\"agents\":%u,\"cells\":%u,\"done\":%u,\"ok\":%u,\"failed\":%u,"
        "\"running\":%u",
        info->agents, info->cells, info->done, info->ok, info->failed, info->running);
    member_whole(stream, "results", info->has_results, info->results);
    fputc('}', stream);
    run_costs(stream, info);
    report_json_rechecks(stream, info);
    member_list(stream, "notes", info->notes, info->n_notes);
    fputc('}', stream);
}

static void agent_labels(FILE *stream, Mp__Label *const *labels, size_t count)
{
    fputs(",\"labels\":{", stream);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? "," : "", stream);
        report_json_string(stream, labels[i]->key);
        fputc(':', stream);
        report_json_string(stream, labels[i]->value);
    }
    fputc('}', stream);
}

void report_json_agents(FILE *stream, Mp__RunAgent *const *agents, size_t count)
{
    fputc('[', stream);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? ",\n  {\"name\":" : "\n  {\"name\":", stream);
        report_json_string(stream, agents[i]->name);
        fputs(",\"address\":", stream);
        if (agents[i]->address)
            report_json_string(stream, agents[i]->address);
        else
            fputs("null", stream);
        agent_labels(stream, agents[i]->labels, agents[i]->n_labels);
        member_text(stream, "boot_id", agents[i]->boot_id);
        member_text(stream, "kernel", agents[i]->kernel);
        member_text(stream, "version", agents[i]->software);
        member_whole(stream, "cores", agents[i]->has_cores, agents[i]->cores);
        member_list(stream, "addresses", agents[i]->addresses, agents[i]->n_addresses);
        if (agents[i]->has_target && agents[i]->target)
            fputs(",\"target\":true", stream);
        fputc('}', stream);
    }
    fputc(']', stream);
}

// -------------------------------------------------------------------------- documents, no runs

static void capabilities(FILE *stream, const Mp__Capabilities *able)
{
    fprintf(stream, ",\"capabilities\":{\"tcp\":%s,\"udp\":%s,\"sctp\":%s,\"ipv6\":%s",
        able->tcp ? "true" : "false", able->udp ? "true" : "false", able->sctp ? "true" : "false",
        able->ipv6 ? "true" : "false");
    member_text(stream, "sctp_reason", able->sctp_reason);
    member_whole(stream, "cores", able->has_cores, able->cores);
    member_text(stream, "hostname", able->hostname);
    member_text(stream, "congestion", able->congestion);
    member_list(stream, "tests", able->tests, able->n_tests);
    member_text(stream, "guard", able->guard);
    fputc('}', stream);
}

static void agent_object(FILE *stream, const Mp__AgentInfo *agent)
{
    static const char *const states[] = {[MP__AGENT_STATE__READY] = "ready",
        [MP__AGENT_STATE__AGENT_BUSY] = "busy",
        [MP__AGENT_STATE__AGENT_LOST] = "lost",
        [MP__AGENT_STATE__DRAINING] = "draining"};
    fputs("{\"name\":", stream);
    report_json_string(stream, agent->name);
    bool known =
        agent->state >= MP__AGENT_STATE__READY && agent->state <= MP__AGENT_STATE__DRAINING;
    fprintf(stream, ",\"state\":\"%s\",\"address\":", known ? states[agent->state] : "unknown");
    if (agent->n_addresses > 0)
        report_json_string(stream, agent->addresses[0]);
    else
        fputs("null", stream);
    member_list(stream, "addresses", agent->addresses, agent->n_addresses);
    agent_labels(stream, agent->labels, agent->n_labels);
    member_text(stream, "version", agent->software);
    if (agent->capabilities) {
        member_text(stream, "kernel", agent->capabilities->kernel);
        capabilities(stream, agent->capabilities);
    }
    member_text(stream, "boot_id", agent->boot_id);
    member_text(stream, "fingerprint", agent->fingerprint);
    member_text(stream, "token", agent->token);
    member_real(stream, "clock_offset_s", agent->has_clock_offset_s, agent->clock_offset_s);
    member_whole(stream, "data_port", agent->has_data_port, agent->data_port);
    member_whole(stream, "running", agent->has_running, agent->running);
    member_whole(stream, "spooled", agent->has_spooled, agent->spooled);
    if (agent->has_enrolled_wall_ns) {
        fputs(",\"enrolled\":", stream);
        report_json_time(stream, agent->enrolled_wall_ns);
    }
    if (agent->has_seen_wall_ns && agent->seen_wall_ns > 0) {
        fputs(",\"seen\":", stream);
        report_json_time(stream, agent->seen_wall_ns);
    }
    fputc('}', stream);
}

void report_agents_json(FILE *stream, Mp__AgentInfo *const *agents, size_t count)
{
    fputs("{\"schema\":\"meshperf.agents/1\",\"agents\":[", stream);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? ",\n " : "\n ", stream);
        agent_object(stream, agents[i]);
    }
    fputs("]}\n", stream);
}

void report_plan_json(FILE *stream, const Mp__PlanAnswer *plan)
{
    fprintf(stream,
        "{\"schema\":\"meshperf.plan/1\",\"pairs\":%" PRIu64 ",\"tests\":%" PRIu64
        ",\"bytes_max\":",
        plan->pairs, plan->tests);
    if (plan->has_unbounded_bytes && plan->unbounded_bytes)
        fputs("null", stream);
    else
        fprintf(stream, "%" PRIu64, plan->bytes_max);
    member_real(stream, "expected_s", 1, plan->expected_s);
    member_real(stream, "expected_p95_s", 1, plan->expected_p95_s);
    member_real(stream, "lower_bound_s", 1, plan->lower_bound_s);
    member_true(stream, "unbounded_bytes", 1, plan->has_unbounded_bytes && plan->unbounded_bytes);
    member_text(stream, "bound_by", plan->bound_by);
    member_list(stream, "notes", plan->notes, plan->n_notes);
    fputs("}\n", stream);
}
