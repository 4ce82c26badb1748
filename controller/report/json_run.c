// A run as JSON: its options, times and agents as they were.

#include <math.h>

#include "json.h"
#include "ports.h"
#include "report_parts.h"

static double seconds_of(int64_t ns)
{
    return (double)ns / 1e9;
}

static void test_options(FILE *stream, const Mp__TestSpec *spec)
{
    fprintf(stream, "{\"test\":\"%s\"", report_kind_word(spec->kind));
    report_member_real(stream, "duration_s", 1, seconds_of(spec->duration_ns));
    report_member_real(stream, "omit_s", spec->has_omit_ns, seconds_of(spec->omit_ns));
    report_member_real(stream, "interval_s", 1, seconds_of(spec->interval_ns));
    report_member_whole(stream, "parallel", spec->has_parallel, spec->parallel);
    report_member_whole(stream, "bitrate_bps", spec->has_bitrate_bps, spec->bitrate_bps);
    report_member_true(stream, "bitrate_max", spec->has_bitrate_max, spec->bitrate_max);
    report_member_whole(stream, "length", spec->has_length, spec->length);
    report_member_whole(stream, "window", spec->has_window, spec->window);
    report_member_whole(stream, "family", spec->has_family, spec->family);
    report_member_whole(stream, "dscp", spec->has_dscp, spec->dscp);
    report_member_text(stream, "congestion", spec->congestion);
    report_member_whole(stream, "mss", spec->has_mss, spec->mss);
    report_member_true(stream, "reverse_connect", spec->has_reverse_connect, spec->reverse_connect);
    report_member_true(stream, "bidir", spec->has_bidir, spec->bidir);
    report_member_whole(stream, "flows", spec->has_flows, spec->flows);
    report_member_real(stream, "probe_rate", spec->has_probe_rate, spec->probe_rate);
    report_member_real(stream, "until", spec->has_until, spec->until);
    report_member_whole(stream, "streams", spec->has_streams, spec->streams);
    report_member_whole(stream, "attempts", spec->has_attempts, spec->attempts);
    report_member_real(stream, "timeout_s", spec->has_timeout_ns, seconds_of(spec->timeout_ns));
    report_member_real(stream, "rate", spec->has_agent_rate, spec->agent_rate);
    report_member_whole(stream, "from_port", spec->has_from_port, spec->from_port);
    report_member_text(stream, "via", spec->has_via ? transport_name(spec->via) : NULL);
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
        report_member_real(stream, "duration_s", 1, seconds_of(request->tests[0]->duration_ns));
    if (interval)
        report_member_real(stream, "interval_s", 1, seconds_of(request->tests[0]->interval_ns));
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
    report_member_list(stream, "from", request->from, request->n_from);
    report_member_list(stream, "to", request->to, request->n_to);
    report_member_list(stream, "both", request->both, request->n_both);
    report_member_whole(stream, "seed", request->has_seed, request->seed);
    report_member_text(stream, "mode", request->has_mode ? report_mode_word(request) : NULL);
    report_member_list(stream, "shared", request->shared, request->n_shared);
    report_member_true(
        stream, "machines_ignore", request->has_machines_ignore, request->machines_ignore);
    report_member_whole(stream, "retries", 1, request->has_retries ? request->retries : 1);
    report_member_whole(stream, "passes", request->has_passes, request->passes);
    report_member_true(stream, "flow_check", request->has_flow_check, request->flow_check);
    report_member_text(stream, "name", request->name);
    report_member_text(stream, "command", request->command);
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
        report_json_time(stream, times[i].has, times[i].wall_ns);
    }
    fputs(",\"elapsed_s\":", stream);
    report_json_real(stream, info->has_elapsed_s ? info->elapsed_s : NAN);
}

static void run_costs(FILE *stream, const Mp__RunInfo *info)
{
    report_member_real(stream, "eta_s", info->has_eta_s, info->eta_s);
    report_member_real(stream, "lower_bound_s", info->has_lower_bound_s, info->lower_bound_s);
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
    report_member_text(stream, "mode", report_mode_word(request));
    report_member_text(stream, "name", request->name);
    report_member_text(stream, "by", info->by);
    fprintf(stream,
        ",\"counts\":{\"agents\":%u,\"cells\":%u,\"done\":%u,\"ok\":%u,\"failed\":%u,"
        "\"running\":%u",
        info->agents, info->cells, info->done, info->ok, info->failed, info->running);
    report_member_whole(stream, "results", info->has_results, info->results);
    fputc('}', stream);
    run_costs(stream, info);
    report_json_rechecks(stream, info);
    report_member_list(stream, "notes", info->notes, info->n_notes);
    fputc('}', stream);
}

void report_json_agents(FILE *stream, Mp__RunAgent *const *agents, size_t count)
{
    fputc('[', stream);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? ",\n  {\"name\":" : "\n  {\"name\":", stream);
        report_json_string(stream, agents[i]->name);
        fputs(",\"address\":", stream);
        report_json_text(stream, agents[i]->address);
        report_member_labels(stream, agents[i]->labels, agents[i]->n_labels);
        report_member_text(stream, "boot_id", agents[i]->boot_id);
        report_member_text(stream, "kernel", agents[i]->kernel);
        report_member_text(stream, "version", agents[i]->software);
        report_member_whole(stream, "cores", agents[i]->has_cores, agents[i]->cores);
        report_member_list(stream, "addresses", agents[i]->addresses, agents[i]->n_addresses);
        if (agents[i]->has_target && agents[i]->target)
            fputs(",\"target\":true", stream);
        fputc('}', stream);
    }
    fputc(']', stream);
}
