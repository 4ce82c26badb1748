#include "sctp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// Needs the sockets' headers before it.
#include <linux/sctp.h>

#include "kinds.h"
#include "tcp_parts.h"

bool sctpinfo_read(int fd, struct tcp_counters *counters)
{
    struct sctp_status status = {0};
    struct sctp_assoc_stats stats = {0};
    socklen_t status_size = sizeof status, stats_size = sizeof stats;
    if (getsockopt(fd, IPPROTO_SCTP, SCTP_STATUS, &status, &status_size) < 0 ||
        getsockopt(fd, IPPROTO_SCTP, SCTP_GET_ASSOC_STATS, &stats, &stats_size) < 0)
        return false;
    const struct sctp_paddrinfo *path = &status.sstat_primary;
    *counters = (struct tcp_counters){
        .segments_in = stats.sas_iodchunks + stats.sas_iuodchunks,
        .segments_out = stats.sas_oodchunks + stats.sas_ouodchunks,
        .retransmits = stats.sas_rtxchunks,
        .packets_in = stats.sas_ipackets,
        .rtt_us = path->spinfo_srtt * 1000,
        .cwnd = path->spinfo_mtu ? path->spinfo_cwnd / path->spinfo_mtu : 0,
        .mss = status.sstat_fragmentation_point,
        .path_mtu = path->spinfo_mtu,
    };
    return true;
}

static const char *words(int error)
{
    static const struct {
        int error;
        const char *words;
    } table[] = {
        {EPROTONOSUPPORT, "the kernel has no SCTP (module sctp is missing or not loaded)"},
        {ESOCKTNOSUPPORT, "the kernel has no SCTP (module sctp is missing or not loaded)"},
        {EACCES, "SCTP sockets are forbidden here"},
        {EPERM, "SCTP sockets are forbidden here"},
        {ENOSYS, "the kernel lacks the HMAC that SCTP's cookies need"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].error == error)
            return table[i].words;
    return strerror(error);
}

// listen() too: a kernel without the cookie's HMAC fails only there.
bool sctp_supported(char *reason, size_t size)
{
    struct sockaddr_in loopback = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP);
    bool works = fd >= 0 && bind(fd, (struct sockaddr *)&loopback, sizeof loopback) == 0 &&
                 listen(fd, 1) == 0;
    *reason = '\0';
    if (!works)
        snprintf(reason, size, "%s", words(errno));
    if (fd >= 0)
        close(fd);
    return works;
}

static bool supported(char *reason)
{
    return sctp_supported(reason, PROBE_TEXT_SIZE);
}

static void run(const struct probe_order *order, dataport_t *port, const struct probe_hooks *hooks,
    struct probe_report *report)
{
    tcp_run(order, port, hooks, report, DATAPORT_SCTP);
}

const struct probe_kind probe_sctp = {
    .kind = TEST_SCTP, .name = "sctp", .supported = supported, .run = run};
