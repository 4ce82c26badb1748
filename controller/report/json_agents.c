// Documents that are of no run: agents, and a plan.

#include <inttypes.h>

#include "json.h"
#include "report_parts.h"

static void capabilities(FILE *stream, const Mp__Capabilities *able)
{
    fprintf(stream, ",\"capabilities\":{\"tcp\":%s,\"udp\":%s,\"sctp\":%s,\"ipv6\":%s",
        able->tcp ? "true" : "false", able->udp ? "true" : "false", able->sctp ? "true" : "false",
        able->ipv6 ? "true" : "false");
    report_member_text(stream, "sctp_reason", able->sctp_reason);
    report_member_whole(stream, "cores", able->has_cores, able->cores);
    report_member_text(stream, "hostname", able->hostname);
    report_member_text(stream, "congestion", able->congestion);
    report_member_list(stream, "tests", able->tests, able->n_tests);
    report_member_text(stream, "guard", able->guard);
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
    report_json_text(stream, agent->n_addresses > 0 ? agent->addresses[0] : NULL);
    report_member_list(stream, "addresses", agent->addresses, agent->n_addresses);
    report_member_labels(stream, agent->labels, agent->n_labels);
    report_member_text(stream, "version", agent->software);
    if (agent->capabilities) {
        report_member_text(stream, "kernel", agent->capabilities->kernel);
        capabilities(stream, agent->capabilities);
    }
    report_member_text(stream, "boot_id", agent->boot_id);
    report_member_text(stream, "fingerprint", agent->fingerprint);
    report_member_text(stream, "token", agent->token);
    report_member_real(stream, "clock_offset_s", agent->has_clock_offset_s, agent->clock_offset_s);
    report_member_whole(stream, "data_port", agent->has_data_port, agent->data_port);
    report_member_whole(stream, "running", agent->has_running, agent->running);
    report_member_whole(stream, "spooled", agent->has_spooled, agent->spooled);
    if (agent->has_enrolled_wall_ns) {
        fputs(",\"enrolled\":", stream);
        report_json_time(stream, true, agent->enrolled_wall_ns);
    }
    if (agent->has_seen_wall_ns && agent->seen_wall_ns > 0) {
        fputs(",\"seen\":", stream);
        report_json_time(stream, true, agent->seen_wall_ns);
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
    report_member_real(stream, "expected_s", 1, plan->expected_s);
    report_member_real(stream, "expected_p95_s", 1, plan->expected_p95_s);
    report_member_real(stream, "lower_bound_s", 1, plan->lower_bound_s);
    report_member_true(
        stream, "unbounded_bytes", 1, plan->has_unbounded_bytes && plan->unbounded_bytes);
    report_member_text(stream, "bound_by", plan->bound_by);
    report_member_list(stream, "notes", plan->notes, plan->n_notes);
    fputs("}\n", stream);
}
