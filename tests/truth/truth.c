// Injected truth against what meshperf reports, a row each: what was put into the link, what came
// out of `meshperf run`, the error, the tolerance, and what another program saw on the same link
// (iperf3; a passive sniffer at both hosts; ping). A row outside its tolerance fails the program.
//
//     truth [--rates | --impairments | --short]
//
// Runs as it is on a machine with nftables (impairments by tests/testbed/impair), and in the guest
// (tests/testbed/guest, by netem) where there is SCTP as well; it finds out by itself. --rates and
// --impairments are halves of the whole table, which takes nine minutes in the guest. --short: the
// rows that every build can afford; in the guest, which may be held up at any time, what is
// counted.

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh.h"
#include "meshtest.h"

#define LENGTH 1400   // payload of a datagram of load
#define STILL_S 0.001 // what a delay may be off by, and 5 % of it
#define NOTHING NAN   // nobody else measures it
#define SAMPLES_MAX 20000

static enum { ALL, RATES, IMPAIRMENTS } part;
static bool shorter, guest;
static unsigned rows, failures;
static mesh_t *mesh;

static void row(const char *what, const char *unit, double injected, double reported,
    double tolerance, const char *whose, double theirs)
{
    bool holds = fabs(reported - injected) <= tolerance;
    char other[64] = "";
    if (!isnan(theirs))
        snprintf(other, sizeof other, "%s %.4g", whose, theirs);
    printf("| %-44s | %9.4g | %9.4g | %+9.3g | %8.3g | %-6s | %-18s |%s\n", what, injected,
        reported, reported - injected, tolerance, unit, other, holds ? "" : " OUTSIDE");
    fflush(stdout);
    rows++;
    failures += !holds;
}

static void shell(const char *command)
{
    struct outcome done = mesh_shell(mesh, 30, "%s", command);
    if (done.status != 0)
        fail_msg("%s: %s", command, done.err);
    outcome_release(&done);
}

static json_t *run(const char *test, const char *flags, const char *from, const char *to)
{
    int status;
    json_t *document =
        mesh_json(mesh, &status, 120, "-q run %s %s --from %s --to %s", test, flags, from, to);
    json_t *cell = json_incref(cell_of(document, test, from, to));
    if (status != 0)
        fail_msg("run %s %s: status %d: %s", test, flags, status, text_at(cell, "reason"));
    json_decref(document);
    return cell;
}

// ------------------------------------------------------------------ rates

// The link towards a host, at the router's port. Words after "htb" are its one class's.
static void shape(unsigned port, const char *qdisc)
{
    char command[256];
    bool htb = strncmp(qdisc, "htb ", 4) == 0;
    snprintf(command, sizeof command, "$LAB exec router tc qdisc replace dev port%u root %s", port,
        htb ? "handle 1: htb default 1" : qdisc);
    shell(command);
    if (!htb)
        return;
    snprintf(command, sizeof command,
        "$LAB exec router tc class add dev port%u parent 1: classid 1:1 %s", port, qdisc);
    shell(command);
}

static void unshape(unsigned port)
{
    char command[128];
    snprintf(command, sizeof command, "$LAB exec router tc qdisc del dev port%u root", port);
    shell(command);
}

static double iperf3_bps(const char *to, const char *flags)
{
    task_t *server = mesh_start(mesh, "$LAB exec b iperf3 -s -1 >/dev/null");
    mesh_wait_until(mesh, 10, "$LAB exec b ss -Hltn | grep -q ':5201'");
    struct outcome client =
        mesh_shell(mesh, 60, "$LAB exec a iperf3 -J -c %s -t %d %s", to, shorter ? 2 : 5, flags);
    struct outcome served = task_wait(&server, 10);
    json_t *document = json_loads(client.out, 0, NULL);
    double bps = NAN;
    if (client.status == 0 && document)
        bps = number_at(document, "end.sum_received.bits_per_second");
    json_decref(document);
    outcome_release(&client);
    outcome_release(&served);
    return bps;
}

// One shaped link: goodput against the payload's share of what the shaper lets through.
static void rate(const char *test, const char *qdisc, double link_bps, bool six)
{
    char what[80], flags[80];
    bool sctp = strcmp(test, "sctp") == 0, udp = strcmp(test, "udp") == 0;
    double frame = 14 + (six ? 40 : 20), share;
    if (udp)
        share = LENGTH / (LENGTH + 8 + frame);
    else if (sctp) // a message of 64 KB takes 46 packets
        share = 65536 / (65536 + 46 * (28 + frame));
    else
        share = (1514 - frame - 32) / 1514;
    shape(2, qdisc);
    snprintf(flags, sizeof flags, "-%d -t %ds %s", six ? 6 : 4, shorter ? 2 : 5,
        udp ? "-b 16M" : "-O 1s");
    json_t *cell = run(test, flags, "a", "b");
    snprintf(what, sizeof what, "%s goodput, %.40s, IPv%d", test, qdisc, six ? 6 : 4);
    double theirs = iperf3_bps(six ? "fd84:1::2" : "10.84.1.2", sctp  ? "--sctp -O 1"
                                                                : udp ? "-u -b 16M -l 1400"
                                                                      : "-O 1");
    row(what, "Mbit/s", link_bps * share / 1e6, number_at(cell, "bandwidth_bps") / 1e6,
        0.03 * link_bps / 1e6, "iperf3", theirs / 1e6);
    unshape(2);
    json_decref(cell);
}

static void asymmetric(void)
{
    shape(2, "tbf rate 30mbit burst 32k latency 50ms");
    shape(1, "tbf rate 6mbit burst 32k latency 50ms");
    json_t *there = run("tcp", "-4 -t 2s -O 1s", "a", "b"),
           *back = run("tcp", "-4 -t 2s -O 1s", "b", "a");
    row("tcp, 30 Mbit/s there", "Mbit/s", 30 * 1448. / 1514,
        number_at(there, "bandwidth_bps") / 1e6, 0.9, "", NOTHING);
    row("tcp, 6 Mbit/s back", "Mbit/s", 6 * 1448. / 1514, number_at(back, "bandwidth_bps") / 1e6,
        0.18, "", NOTHING);
    unshape(2);
    unshape(1);
    json_decref(there);
    json_decref(back);
}

// ------------------------------------------------------------------ impairments

// What the link dropped, probes and replies to them included, against the chunks that were sent
// again: a repeated chunk that is lost takes a timeout, which may repeat some that were not.
static void sctp_loss(void)
{
    shape(2, "netem rate 10mbit delay 3ms loss 1% limit 1000");
    json_t *cell = run("sctp", "-4 -O 0s -t 10s", "a", "b");
    struct outcome seen = mesh_shell(mesh, 10, "$LAB exec router tc -s qdisc show dev port2");
    const char *at = strstr(seen.out, "dropped ");
    double dropped = at ? atof(at + strlen("dropped ")) : NAN;
    outcome_release(&seen);
    unshape(2);
    row("sctp chunks sent again, 1 % loss", "count", dropped, number_at(cell, "retransmits"),
        0.25 * dropped + 10, "", NOTHING);
    json_decref(cell);
}

// What leaves for b is impaired on its way, where neither host sees it.
static task_t *impaired(const char *emulated, const char *netem)
{
    if (guest) {
        shape(2, netem);
        return NULL;
    }
    shell("$LAB exec router sh -c 'ip link add mid0 type veth peer name mid1; ip link set port2 "
          "nomaster;"
          " ip link set mid1 master br1; ip link set mid0 up; ip link set mid1 up'");
    task_t *task = mesh_start(mesh,
        "exec $LAB exec router sh -c 'echo $$ >$DIR/impair.pid; exec " TOOLS
        "/impair mid0 port2 %s'",
        emulated);
    mesh_wait_until(mesh, 10, "$LAB exec a ping -c1 -W1 10.84.1.2 >/dev/null");
    return task;
}

static double repaired(task_t *task, const char *word)
{
    if (guest) {
        unshape(2);
        return NAN;
    }
    shell("$LAB exec router sh -c 'kill $(cat $DIR/impair.pid)'");
    struct outcome ended = task_wait(&task, 10);
    const char *at = strstr(ended.out, word);
    double count = at ? atof(at + strlen(word)) : NAN;
    outcome_release(&ended);
    shell("$LAB exec router sh -c 'ip link del mid0; ip link set port2 master br1'");
    return count;
}

struct sighting {
    int64_t at_ns;
    uint64_t which;
};

static size_t read_sightings(const char *name, struct sighting *list)
{
    char path[128];
    size_t count = 0;
    snprintf(path, sizeof path, "%s/%s", mesh_dir(mesh), name);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    while (count < SAMPLES_MAX &&
           fscanf(file, "%" SCNd64 " %" SCNx64, &list[count].at_ns, &list[count].which) == 2)
        count++;
    fclose(file);
    return count;
}

struct seen {
    double sent, lost, duplicate, reordered, jitter_s;
};

// What two sniffers saw: computed from their files, by definition and independent of meshperf.
static struct seen compare(void)
{
    static struct sighting out[SAMPLES_MAX], in[SAMPLES_MAX];
    static bool came[SAMPLES_MAX];
    size_t sent = read_sightings("a.seen", out), arrived = read_sightings("b.seen", in);
    struct seen seen = {.sent = (double)sent};
    int64_t before_in = 0, before_out = 0;
    size_t next = 0, pairs = 0, distinct = 0;
    memset(came, 0, sizeof came);
    for (size_t i = 0; i < arrived; i++) {
        size_t k = 0;
        while (k < sent && out[k].which != in[i].which)
            k++;
        if (k == sent || came[k]) {
            seen.duplicate += k < sent;
            continue;
        }
        came[k] = true;
        seen.reordered += k < next;
        next = k >= next ? k + 1 : next;
        if (distinct++ > 0 && ++pairs)
            seen.jitter_s +=
                fabs((double)((in[i].at_ns - before_in) - (out[k].at_ns - before_out))) * 1e-9;
        before_in = in[i].at_ns;
        before_out = out[k].at_ns;
    }
    seen.lost = seen.sent - (double)distinct;
    seen.jitter_s /= pairs ? (double)pairs : 1;
    return seen;
}

// 100 datagrams a second, so that they are further apart than six deviations.
static json_t *sniffed_udp(const char *flags, struct seen *seen)
{
    task_t *sniffers[2] = {mesh_start(mesh,
                               "$LAB exec a sh -c 'echo $$ >$DIR/sniff-a; exec " TOOLS
                               "/sniff eth0 %d out $DIR/a.seen'",
                               LENGTH),
        mesh_start(mesh,
            "$LAB exec b sh -c 'echo $$ >$DIR/sniff-b; exec " TOOLS
            "/sniff eth0 %d in $DIR/b.seen'",
            LENGTH)};
    mesh_wait_until(
        mesh, 10, "test -s $DIR/sniff-a -a -s $DIR/sniff-b -a -e $DIR/a.seen -a -e $DIR/b.seen");
    json_t *cell = run("udp", flags, "a", "b");
    shell("for i in a b; do $LAB exec $i sh -c \"kill $(cat $DIR/sniff-$i)\"; done");
    for (int i = 0; i < 2; i++) {
        struct outcome ended = task_wait(&sniffers[i], 10);
        outcome_release(&ended);
    }
    *seen = compare();
    shell("rm -f $DIR/sniff-? $DIR/?.seen");
    return cell;
}

// The deviation is known, and so is what |D| is on average. Where the link was held up and did not
// keep its law, by the sniffers' word, it is tried again.
static void jitter(const char *shape_name, double expected_ms)
{
    char emulated[96], netem[96], what[64], flags[64];
    struct seen seen = {0};
    json_t *cell = NULL;
    snprintf(
        emulated, sizeof emulated, "delay=8 jitter=1 shape=%s only=%d seed=7", shape_name, LENGTH);
    snprintf(netem, sizeof netem, "netem delay 8ms 1ms distribution %s", shape_name);
    if (strcmp(shape_name, "uniform") == 0)
        snprintf(netem, sizeof netem, "netem delay 8ms 1ms");
    snprintf(flags, sizeof flags, "-4 -b 1120k --length %d -t %ds", LENGTH, shorter ? 4 : 12);
    bool lawful = false;
    for (int round = 0; round < 3 && !lawful; round++) {
        json_decref(cell);
        task_t *link = impaired(emulated, netem);
        cell = sniffed_udp(flags, &seen);
        repaired(link, "seen");
        lawful = shorter || fabs(seen.jitter_s * 1e3 - expected_ms) < 0.1;
    }
    double ours = number_at(cell, "jitter_s") * 1e3, count = number_at(cell, "packets.received");
    snprintf(what, sizeof what, "udp jitter, %s of 1 ms, by the law", shape_name);
    // 4 sigma of the mean of count values, and the machine's own: not for a build on a busy one.
    if (!shorter)
        row(what, "ms", expected_ms, ours, 4 * 1.1 / sqrt(count) + 0.1, "sniffer",
            seen.jitter_s * 1e3);
    snprintf(what, sizeof what, "udp jitter, %s of 1 ms, by the sniffer", shape_name);
    row(what, "ms", seen.jitter_s * 1e3, ours, 0.05 * seen.jitter_s * 1e3 + 0.05, "law",
        expected_ms);
    json_decref(cell);
}

static void loss_duplicates_order(const char *family)
{
    char emulated[128], what[80], flags[64];
    struct seen seen;
    snprintf(
        emulated, sizeof emulated, "delay=12 loss=3 duplicate=2 reorder=2 only=%d seed=5", LENGTH);
    task_t *link = impaired(emulated, "netem delay 12ms loss 3% duplicate 2% reorder 2%");
    snprintf(
        flags, sizeof flags, "%s -b 2240k --length %d -t %ds", family, LENGTH, shorter ? 3 : 12);
    json_t *cell = sniffed_udp(flags, &seen);
    double lost = repaired(link, "lost");
    snprintf(what, sizeof what, "udp lost, 3 %% injected, %s", family);
    row(what, "count", guest ? seen.lost : lost, number_at(cell, "packets.lost_network"), 0,
        "sniffer", seen.lost);
    snprintf(what, sizeof what, "udp duplicates, 2 %% injected, %s", family);
    row(what, "count", seen.duplicate, number_at(cell, "packets.duplicate"), 0, "sniffer",
        seen.duplicate);
    snprintf(what, sizeof what, "udp reordered, 2 %% ahead, %s", family);
    row(what, "count", seen.reordered, number_at(cell, "packets.reordered"), 0, "sniffer",
        seen.reordered);
    json_decref(cell);
}

static double ping_mean_ms(const char *address)
{
    char *said = mesh_exec(mesh, "a", "ping -q -c 10 -i 0.2 %s", address);
    const char *at = strstr(said, "mdev = ");
    double least, mean = NAN;
    if (at)
        (void)sscanf(at, "mdev = %lf/%lf/", &least, &mean);
    free(said);
    return mean;
}

// Where the link was held up and did not keep its delay, by ping's word, it is tried again.
static void delay(double ms, const char *family)
{
    const char *address = strcmp(family, "-6") == 0 ? "fd84:1::2" : "10.84.1.2";
    char emulated[64], netem[64], what[64], flags[64];
    snprintf(emulated, sizeof emulated, "delay=%g", ms);
    snprintf(netem, sizeof netem, "netem delay %gms", ms);
    snprintf(flags, sizeof flags, "%s -t %ds", family, shorter ? 1 : 3);
    snprintf(what, sizeof what, "latency RTT p50, %g ms one way, %s", ms, family);
    double tolerance_ms = STILL_S * 1e3 + 0.05 * ms, injected_ms, reported_ms, mean_ms;
    bool lawful = false;
    for (int round = 0; round < 6 && !lawful; round++) {
        json_t *bare = run("latency", "-t 1s", "a", "b");
        task_t *link = impaired(emulated, netem);
        json_t *cell = run("latency", flags, "a", "b");
        injected_ms = ms + number_at(bare, "rtt_s.p50") * 1e3;
        reported_ms = number_at(cell, "rtt_s.p50") * 1e3;
        mean_ms = ping_mean_ms(address);
        lawful = fabs(mean_ms - injected_ms) < tolerance_ms;
        repaired(link, "seen");
        json_decref(bare);
        json_decref(cell);
    }
    row(what, "ms", injected_ms, reported_ms, tolerance_ms, "ping", mean_ms);
}

// ------------------------------------------------------------------ all of them

static void rates(void)
{
    static const struct {
        const char *test, *qdisc;
        double link_bps;
        bool six, in_short;
    } links[] = {
        {"tcp", "tbf rate 20mbit burst 32k latency 50ms", 20e6, false, true},
        {"tcp", "tbf rate 5mbit burst 16k latency 50ms", 5e6, true, false},
        {"tcp", "htb rate 14mbit burst 16k", 14e6, false, false},
        {"tcp", "htb rate 40mbit burst 32k", 40e6, true, false},
        {"udp", "tbf rate 11mbit burst 16k latency 50ms", 11e6, true, true},
        {"udp", "tbf rate 5mbit burst 16k latency 50ms", 5e6, false, false},
        {"udp", "htb rate 9mbit burst 16k", 9e6, false, false},
        {"sctp", "tbf rate 23mbit burst 32k latency 60ms", 23e6, false, true},
        {"sctp", "tbf rate 31mbit burst 32k latency 60ms", 31e6, true, false},
        {"sctp", "htb rate 17mbit burst 16k", 17e6, false, false},
        {"sctp", "htb rate 6mbit burst 16k", 6e6, true, false},
    };
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if ((!shorter || links[i].in_short) && (guest || strcmp(links[i].test, "sctp") != 0))
            rate(links[i].test, links[i].qdisc, links[i].link_bps, links[i].six);
    if (shorter)
        return;
    if (!guest)
        rate("tcp", "tbf rate 150mbit burst 64k latency 20ms", 150e6, false);
    asymmetric();
}

static void impairments(void)
{
    jitter("uniform", 2. / 3);
    loss_duplicates_order("-4");
    delay(13, "-4");
    if (shorter)
        return;
    jitter("normal", 1.128);
    loss_duplicates_order("-6");
    delay(3, "-6");
    delay(80, "-4");
    if (guest)
        sctp_loss();
}

static void all_rows(void **state)
{
    (void)state;
    mesh = mesh_up("subnet one 10.84.1.0/24 fd84:1::/64\nhost a one\nhost b one\n", "");
    // Single packets, not super-packets, so that each meets its own fate.
    shell("for i in a b; do $LAB exec $i ip link set eth0 gso_max_segs 1; done");
    struct outcome netem = mesh_shell(mesh, 10,
        "$LAB exec router tc qdisc add dev port2 root netem && $LAB exec router tc qdisc del dev "
        "port2 root");
    guest = netem.status == 0;
    outcome_release(&netem);
    printf("| %-44s | %9s | %9s | %9s | %8s | %-6s | %-18s |\n|---|---|---|---|---|---|---|\n",
        guest ? "in the guest, netem" : "on this machine, impair", "injected", "reported", "error",
        "tolerance", "unit", "another saw");
    if (guest && shorter) {
        loss_duplicates_order("-6"); // and -4 on the machine itself
    } else {
        if (part != IMPAIRMENTS)
            rates();
        if (part != RATES)
            impairments();
    }
    mesh_down(&mesh);
    printf("%u rows, %u outside their tolerance\n", rows, failures);
    assert_int_equal(failures, 0);
}

int main(int argc, char **argv)
{
    const char *word = argc == 2 ? argv[1] : "";
    shorter = strcmp(word, "--short") == 0;
    part = strcmp(word, "--rates") == 0         ? RATES
           : strcmp(word, "--impairments") == 0 ? IMPAIRMENTS
                                                : ALL;
    if (argc > 1 && !shorter && part == ALL) {
        fprintf(stderr, "usage: truth [--rates | --impairments | --short]\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
