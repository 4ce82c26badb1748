#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "clock.h"
#include "report.h"
#include "units.h"
#include "wire.h"

void agents_release(struct agent_pages *pages)
{
    for (size_t i = 0; i < pages->part_count; i++)
        wire_free(&pages->parts[i]);
    free(pages->parts);
    free(pages->agents);
    memset(pages, 0, sizeof *pages);
}

int agents_fetch(struct cli *cli, const char *name, struct agent_pages *pages)
{
    memset(pages, 0, sizeof *pages);
    for (;;) {
        Mp__AgentsQuery query = MP__AGENTS_QUERY__INIT;
        query.name = (char *)name;
        query.has_offset = true;
        query.offset = (uint32_t)pages->count;
        Mp__Envelope question = MP__ENVELOPE__INIT;
        question.body_case = MP__ENVELOPE__BODY_AGENTS_QUERY;
        question.agents_query = &query;
        int status;
        Mp__Envelope *part = cli_ask(cli, &question, MP__ENVELOPE__BODY_AGENTS_ANSWER, &status);
        if (!part) {
            agents_release(pages);
            return status;
        }
        const Mp__AgentsAnswer *answer = part->agents_answer;
        pages->parts = realloc(pages->parts, (pages->part_count + 1) * sizeof *pages->parts);
        pages->agents =
            realloc(pages->agents, (pages->count + answer->n_agents + 1) * sizeof *pages->agents);
        if (!pages->parts || !pages->agents)
            abort();
        pages->parts[pages->part_count++] = part;
        memcpy(
            pages->agents + pages->count, answer->agents, answer->n_agents * sizeof *pages->agents);
        pages->count += answer->n_agents;
        if (answer->n_agents == 0 || pages->count >= answer->total)
            return 0;
    }
}

static const char *state_name(Mp__AgentState state)
{
    static const char *const names[] = {"", "ready", "busy", "lost", "draining"};
    return names[state];
}

static void join_labels(const Mp__AgentInfo *agent, char *text, size_t size)
{
    size_t at = 0;
    *text = '\0';
    for (size_t i = 0; i < agent->n_labels && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s=%s", i ? " " : "", agent->labels[i]->key,
            agent->labels[i]->value);
}

static void join_addresses(const Mp__AgentInfo *agent, char *text, size_t size)
{
    size_t at = 0;
    *text = '\0';
    for (size_t i = 0; i < agent->n_addresses && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s", i ? " " : "", agent->addresses[i]);
}

static void print_agents(struct cli *cli, const struct agent_pages *pages)
{
    static const struct report_column columns[] = {{"AGENT", "name"}, {"STATE", "state"},
        {"ADDRESS", "address"}, {"LABELS", "labels"}, {"VERSION", "version"}, {"KERNEL", "kernel"}};
    if (strncmp(cli->flags.format, "json", 4) == 0) {
        report_agents_json(stdout, pages->agents, pages->count);
        return;
    }
    report_list_t *list = report_list_new(cli->flags.format, "meshperf.agents/1", "agents", columns,
        sizeof columns / sizeof *columns, stdout);
    for (size_t i = 0; i < pages->count; i++) {
        const Mp__AgentInfo *agent = pages->agents[i];
        char labels[1024], addresses[128];
        join_labels(agent, labels, sizeof labels);
        join_addresses(agent, addresses, sizeof addresses);
        const char *kernel =
            agent->capabilities && agent->capabilities->kernel ? agent->capabilities->kernel : "";
        const char *texts[] = {agent->name, state_name(agent->state), addresses, labels,
            agent->software ? agent->software : "", kernel};
        report_list_row(list, texts);
    }
    report_list_destroy(&list);
}

int cmd_agent_list(struct cli *cli)
{
    struct agent_pages pages;
    int status = agents_fetch(cli, NULL, &pages);
    if (status)
        return status;
    print_agents(cli, &pages);
    agents_release(&pages);
    return EXIT_FINE;
}

// ------------------------------------------------------------------------------- agent show

static void line(const char *key, const char *value)
{
    if (value && *value)
        printf("%-14s %s\n", key, value);
}

static void show_capabilities(const Mp__Capabilities *can)
{
    char text[512];
    snprintf(text, sizeof text, "tcp %s, udp %s, sctp %s%s%s%s, ipv6 %s", can->tcp ? "yes" : "no",
        can->udp ? "yes" : "no", can->sctp ? "yes" : "no", can->sctp_reason ? " (" : "",
        can->sctp_reason ? can->sctp_reason : "", can->sctp_reason ? ")" : "",
        can->ipv6 ? "yes" : "no");
    line("capabilities", text);
    line("kernel", can->kernel);
    line("hostname", can->hostname);
    snprintf(text, sizeof text, "%u", can->cores);
    line("cores", can->has_cores ? text : "");
    line("congestion", can->congestion);
    line("guard", can->guard);
}

static void show_agent(const Mp__AgentInfo *agent)
{
    char text[1024], time[CLOCK_ISO_SIZE];
    line("name", agent->name);
    line("state", state_name(agent->state));
    join_addresses(agent, text, sizeof text);
    line("addresses", text);
    snprintf(text, sizeof text, "%u", agent->data_port);
    line("data port", agent->has_data_port ? text : "");
    join_labels(agent, text, sizeof text);
    line("labels", text);
    line("version", agent->software);
    if (agent->capabilities)
        show_capabilities(agent->capabilities);
    line("boot id", agent->boot_id);
    line("key", agent->fingerprint);
    line("token", agent->token);
    clock_iso8601(agent->enrolled_wall_ns, time);
    line("enrolled", agent->has_enrolled_wall_ns ? time : "");
    clock_iso8601(agent->seen_wall_ns, time);
    line("seen", agent->has_seen_wall_ns ? time : "");
    snprintf(text, sizeof text, "%+.3f s", agent->clock_offset_s);
    line("clock", agent->has_clock_offset_s ? text : "");
}

int cmd_agent_show(struct cli *cli)
{
    struct agent_pages pages;
    int status = agents_fetch(cli, cli->words[0], &pages);
    if (status)
        return status;
    if (pages.count == 0)
        status = cli_usage("there is no agent '%s'", cli->words[0]);
    else if (strcmp(cli->flags.format, "table") == 0 || strcmp(cli->flags.format, "wide") == 0)
        show_agent(pages.agents[0]);
    else
        print_agents(cli, &pages);
    agents_release(&pages);
    return status;
}

// ---------------------------------------------------------------------------------- doctor

#define FINDINGS_MAX 1000
#define CLOCK_LIMIT_S 1.0

struct findings {
    char text[FINDINGS_MAX][192];
    unsigned count;
};

static void find(struct findings *findings, const char *name, const char *what)
{
    if (findings->count < FINDINGS_MAX)
        snprintf(findings->text[findings->count++], sizeof findings->text[0], "%s: %s", name, what);
}

static void examine(
    const Mp__AgentInfo *agent, const Mp__StatusAnswer *controller, struct findings *findings)
{
    char text[160];
    if (agent->state == MP__AGENT_STATE__AGENT_LOST)
        find(findings, agent->name, "is lost");
    if (agent->has_clock_offset_s && fabs(agent->clock_offset_s) > CLOCK_LIMIT_S) {
        snprintf(text, sizeof text, "its clock is %+.1f s off the controller's (harmless to tests)",
            agent->clock_offset_s);
        find(findings, agent->name, text);
    }
    if (agent->software && strcmp(agent->software, controller->software) != 0) {
        snprintf(text, sizeof text, "runs version %s, the controller %s", agent->software,
            controller->software);
        find(findings, agent->name, text);
    }
    if (agent->has_spooled && agent->spooled > 0) {
        snprintf(text, sizeof text, "keeps %u results until they can be stored", agent->spooled);
        find(findings, agent->name, text);
    }
    if (agent->capabilities && !agent->capabilities->sctp && agent->capabilities->sctp_reason) {
        snprintf(text, sizeof text, "no sctp: %.120s", agent->capabilities->sctp_reason);
        find(findings, agent->name, text);
    }
    if (agent->capabilities && agent->capabilities->guard && *agent->capabilities->guard) {
        snprintf(text, sizeof text, "guard: %.140s", agent->capabilities->guard);
        find(findings, agent->name, text);
    }
}

static void doctor_table(
    const Mp__StatusAnswer *controller, const char *endpoint, const struct findings *findings)
{
    char memory[UNITS_TEXT_SIZE], uptime[UNITS_TEXT_SIZE];
    printf("controller  %s at %s, operators at %s\n", controller->software, controller->endpoint,
        endpoint);
    printf("            up %s, %.2f s of CPU, %s resident, %llu tests done\n",
        units_format_seconds((double)controller->uptime_ns / 1e9, uptime), controller->cpu_s,
        units_format_bytes((double)controller->resident_bytes, memory),
        (unsigned long long)controller->tests_done);
    printf("storage     %s\n", controller->storage ? controller->storage : "ok");
    printf("agents      %u, %u connected\nruns        %u active\n", controller->agents,
        controller->connected, controller->runs_active);
    for (unsigned i = 0; i < findings->count; i++)
        printf("note        %s\n", findings->text[i]);
}

static void doctor_json(const Mp__StatusAnswer *controller, const struct findings *findings)
{
    printf("{\"schema\":\"meshperf.doctor/1\",\"controller\":{\"version\":");
    report_json_string(stdout, controller->software);
    printf(",\"protocol\":%u,\"epoch\":%llu,\"endpoint\":", controller->version,
        (unsigned long long)controller->epoch);
    report_json_string(stdout, controller->endpoint);
    printf(
        ",\"agents\":%u,\"connected\":%u,\"runs_active\":%u,\"resident_bytes\":%llu,\"cpu_s\":%.6f,"
        "\"uptime_s\":%.3f,\"tests_done\":%llu,\"storage\":",
        controller->agents, controller->connected, controller->runs_active,
        (unsigned long long)controller->resident_bytes, controller->cpu_s,
        (double)controller->uptime_ns / 1e9, (unsigned long long)controller->tests_done);
    report_json_string(stdout, controller->storage ? controller->storage : "ok");
    printf("},\"findings\":[");
    for (unsigned i = 0; i < findings->count; i++) {
        printf("%s", i ? "," : "");
        report_json_string(stdout, findings->text[i]);
    }
    printf("]}\n");
}

int cmd_doctor(struct cli *cli)
{
    Mp__StatusQuery query = MP__STATUS_QUERY__INIT;
    Mp__Envelope question = MP__ENVELOPE__INIT;
    question.body_case = MP__ENVELOPE__BODY_STATUS_QUERY;
    question.status_query = &query;
    struct agent_pages pages;
    int status;
    Mp__Envelope *answer = cli_ask(cli, &question, MP__ENVELOPE__BODY_STATUS_ANSWER, &status);
    if (!answer)
        return status;
    status = agents_fetch(cli, NULL, &pages);
    if (!status) {
        struct findings *findings = calloc(1, sizeof *findings);
        if (!findings)
            abort();
        for (size_t i = 0; i < pages.count; i++)
            examine(pages.agents[i], answer->status_answer, findings);
        if (strncmp(cli->flags.format, "json", 4) == 0)
            doctor_json(answer->status_answer, findings);
        else
            doctor_table(answer->status_answer, cli->endpoint, findings);
        free(findings);
        agents_release(&pages);
    }
    wire_free(&answer);
    return status;
}
