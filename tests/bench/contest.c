#include "contest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "meshtest.h"
#include "sniff.h"

#define SNIFF_S 20
#define LESS 0.85 // of a rate at which more was lost
#define TRIES 6

static const char topology[] = "subnet bench 10.97.1.0/24\nhost h1 bench\nhost h2 bench\n"
                               "host slow bench rate=100mbit\nhost far bench\n";

static double number_or_nan(json_t *object, const char *path)
{
    return has_number(object, path) ? number_at(object, path) : NAN;
}

static task_t *start_sniffing(mesh_t *mesh, const struct contestant *who)
{
    char self[4096] = "";
    if (!who->sniffed)
        return NULL;
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    return mesh_start(mesh, "$LAB exec h2 %s sniff direct %u", self, who->sniffed);
}

static double sniffed_error_s(task_t *task)
{
    if (!task)
        return NAN;
    struct outcome ended = task_wait(&task, SNIFF_S + 10);
    double packets = 0, mean_s = NAN, error_s = NAN;
    if (ended.status != 0 || sscanf(ended.out, "%lf %lf %lf", &packets, &mean_s, &error_s) != 3)
        fail_msg("sniffer: %s%s", ended.out, ended.err);
    outcome_release(&ended);
    return error_s;
}

// Drops every hundredth datagram on the bridge, where neither end sees it.
static void lose(mesh_t *mesh, bool begin)
{
    free(mesh_exec(mesh, "router", "%s",
        begin ? "nft 'table netdev bench { counter lost { } ; chain c { type filter hook egress "
                "device port3 priority 0; udp length 1008 numgen inc mod 100 == 0 counter name "
                "lost drop; }; }'"
              : "nft delete table netdev bench"));
}

static double lost(mesh_t *mesh)
{
    return mesh_packets(mesh, "router", "netdev bench lost");
}

static double error_of(const struct contestant *who, json_t *cell, double truth)
{
    if (strcmp(who->name, "loss") == 0)
        return fabs(number_at(cell, "packets.lost_network") - truth);
    if (strcmp(who->name, "shaped") == 0)
        return fabs(number_at(cell, "bandwidth_bps") / (CONTEST_SHAPED_BPS * 1448 / 1514) - 1);
    if (strcmp(who->name, "pace 100M") == 0)
        return fabs(number_at(cell, "bandwidth_bps") / 100e6 - 1);
    return NAN;
}

static struct figures measure_ours(mesh_t *mesh, const struct contestant *who)
{
    int status;
    bool loses = strcmp(who->name, "loss") == 0;
    const char *from = who->behind_bridge ? "far" : "h1", *to = who->behind_bridge ? "slow" : "h2";
    char kind[16] = "";
    (void)sscanf(who->arguments, "%15s", kind);
    if (loses)
        lose(mesh, true);
    json_t *run =
        mesh_json(mesh, &status, 60, "-q run %s -4 --from %s --to %s", who->arguments, from, to);
    double truth = loses ? lost(mesh) : NAN;
    if (loses)
        lose(mesh, false);
    json_t *cell = cell_of(run, kind, from, to);
    if (strcmp(text_at(cell, "state"), "ok") != 0)
        fail_msg("%s: %s", who->name, text_at(cell, "reason"));
    struct figures figures = {.bandwidth_bps = number_or_nan(cell, "bandwidth_bps"),
        .packets_per_s =
            number_or_nan(cell, "packets.received") / number_or_nan(cell, "duration_s"),
        .loss_ratio = number_or_nan(cell, "loss_ratio"),
        .sender_cores = number_or_nan(cell, "cpu.sender"),
        .rtt_s = number_or_nan(cell, "rtt_s.p50"),
        .gap_error_s = NAN,
        .error = error_of(who, cell, truth)};
    figures.cores = figures.sender_cores + number_or_nan(cell, "cpu.receiver");
    json_decref(run);
    return figures;
}

static struct figures iperf3_once(mesh_t *mesh, const char *iperf3, const char *arguments)
{
    task_t *server = mesh_start(mesh, "$LAB exec h2 %s -s -1", iperf3);
    mesh_wait_until(mesh, 10, "$LAB exec h2 ss -Hltn | grep -q :5201");
    char *text = mesh_exec(mesh, "h1", "%s -J -c 10.98.0.2 %s", iperf3, arguments);
    struct outcome ended = task_wait(&server, 20);
    json_t *document = json_loads(text, 0, NULL);
    assert_non_null(document);
    struct figures figures = {
        .sender_cores = number_at(document, "end.cpu_utilization_percent.host_total") / 100,
        .packets_per_s = NAN,
        .gap_error_s = NAN,
        .rtt_s = NAN,
        .error = NAN};
    figures.cores = figures.sender_cores +
                    number_at(document, "end.cpu_utilization_percent.remote_total") / 100;
    if (strstr(arguments, "-u ")) {
        figures.loss_ratio = number_at(document, "end.sum.lost_percent") / 100;
        double share = 1 - figures.loss_ratio, seconds = number_at(document, "end.sum.seconds");
        figures.packets_per_s = number_at(document, "end.sum.packets") / seconds * share;
        figures.bandwidth_bps = number_at(document, "end.sum.bits_per_second") * share;
    } else {
        figures.bandwidth_bps = number_at(document, "end.sum_received.bits_per_second");
    }
    json_decref(document);
    outcome_release(&ended);
    free(text);
    return figures;
}

// One that is held begins without a limit, or in later rounds with more than it could carry before.
static struct figures measure_theirs(
    mesh_t *mesh, const struct contestant *who, const char *iperf3, double *asked_bps)
{
    if (*asked_bps > 0)
        *asked_bps /= LESS;
    for (unsigned tries = 1;; tries++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "%s -b %.0f", who->arguments, *asked_bps);
        struct figures figures = iperf3_once(mesh, iperf3, who->held ? arguments : who->arguments);
        if (!who->held || figures.loss_ratio < CONTEST_LOSS_MAX || tries == TRIES)
            return figures;
        *asked_bps = (*asked_bps > 0 ? *asked_bps : figures.bandwidth_bps) * LESS;
    }
}

static void place_agent(mesh_t *mesh, const char *host, const char *address, const char *under)
{
    struct outcome placed =
        mesh_shell(mesh, 30, "$LAB kill %s TERM; LAB_AGENT_UNDER=\"%s\" $LAB agent %s --address %s",
            host, under, host, address);
    if (placed.status != 0)
        fail_msg("agent %s: %s%s", host, placed.out, placed.err);
    outcome_release(&placed);
    mesh_wait_until(mesh, 10, "$LAB meshperf agent list | grep -q '%s .*ready'", host);
}

struct figures contest_measure(
    mesh_t *mesh, const struct contestant *who, const char *iperf3, double *asked_bps)
{
    task_t *sniffer = start_sniffing(mesh, who);
    if (who->under)
        place_agent(mesh, "h1", "10.98.0.1", who->under);
    struct figures figures =
        who->maker == OURS ? measure_ours(mesh, who) : measure_theirs(mesh, who, iperf3, asked_bps);
    if (who->under)
        place_agent(mesh, "h1", "10.98.0.1", "");
    figures.gap_error_s = sniffed_error_s(sniffer);
    return figures;
}

bool contest_able(const struct contestant *who, const char *iperf3)
{
    char command[512];
    if (!who->needs)
        return true;
    snprintf(command, sizeof command, "%s --help 2>&1 | grep -q -- '%s'", iperf3, who->needs);
    return system(command) == 0;
}

mesh_t *contest_up(void)
{
    mesh_t *mesh = mesh_up(topology, "");
    free(mesh_exec(mesh, "router", "ip -n h1 link add direct type veth peer name direct netns h2"));
    free(mesh_exec(
        mesh, "h1", "sh -c 'ip addr add 10.98.0.1/24 dev direct; ip link set direct up'"));
    free(mesh_exec(
        mesh, "h2", "sh -c 'ip addr add 10.98.0.2/24 dev direct; ip link set direct up'"));
    place_agent(mesh, "h1", "10.98.0.1", "");
    place_agent(mesh, "h2", "10.98.0.2", "");
    return mesh;
}

int contest_sniff(const char *interface, const char *payload)
{
    struct sniffed sniffed;
    int rc = sniff(interface, (unsigned)atoi(payload), SNIFF_S, &sniffed);
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", interface, strerror(-rc));
        return 1;
    }
    printf(
        "%lu %.9f %.9f\n", (unsigned long)sniffed.packets, sniffed.mean_gap_s, sniffed.p99_error_s);
    return 0;
}
