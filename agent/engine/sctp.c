#include "sctp.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

// Needs the sockets' headers before it.
#include <linux/sctp.h>

#include "clock.h"
#include "kinds.h"
#include "tcp_crew.h"
#include "tcp_parts.h"

#define RTT_TICKS_MIN 8 // see sctp.h

// ------------------------------------------------------------------ options

int sctp_ask_streams(int fd, unsigned streams)
{
    struct sctp_initmsg ask = {
        .sinit_num_ostreams = (uint16_t)streams, .sinit_max_instreams = (uint16_t)streams};
    return setsockopt(fd, IPPROTO_SCTP, SCTP_INITMSG, &ask, sizeof ask) < 0 ? -errno : 0;
}

static bool status_of(int fd, struct sctp_status *status)
{
    socklen_t size = sizeof *status;
    memset(status, 0, sizeof *status);
    return getsockopt(fd, IPPROTO_SCTP, SCTP_STATUS, status, &size) == 0;
}

unsigned sctp_streams_granted(int fd)
{
    struct sctp_status status;
    return status_of(fd, &status) ? status.sstat_outstrms : 0;
}

void sctp_abort_on_close(int fd)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

void sctp_hurry(int fd)
{
    struct sctp_rtoinfo info = {.srto_initial = 1000}; // ms; 0 leaves the others as they are
    setsockopt(fd, IPPROTO_SCTP, SCTP_RTOINFO, &info, sizeof info);
}

void sctp_tell_streams(int fd)
{
    int yes = 1;
    setsockopt(fd, IPPROTO_SCTP, SCTP_RECVRCVINFO, &yes, sizeof yes);
}

unsigned sctp_send_buffer(int fd)
{
    int bytes = 0;
    socklen_t size = sizeof bytes;
    return getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &size) == 0 && bytes > 0 ? (unsigned)bytes
                                                                                  : 0;
}

// ------------------------------------------------------------------ messages

unsigned sctp_message_default(int fd, uint64_t rate_bps)
{
    unsigned half = sctp_send_buffer(fd) / 2, length = TESTSPEC_LENGTH_SCTP_MAX;
    if (rate_bps)
        length = (unsigned)tcp_quantum(rate_bps, length);
    if (half >= TESTSPEC_LENGTH_MIN && half < length)
        length = half;
    return length / 4 * 4; // whole words, so that nothing is padded on the wire
}

ssize_t sctp_put(int fd, const void *bytes, size_t size, unsigned stream)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(struct sctp_sndinfo))];
    } control = {.head = {.cmsg_len = CMSG_LEN(sizeof(struct sctp_sndinfo)),
                     .cmsg_level = IPPROTO_SCTP,
                     .cmsg_type = SCTP_SNDINFO}};
    struct iovec piece = {(void *)bytes, size};
    struct msghdr message = {.msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control};
    struct sctp_sndinfo info = {.snd_sid = (uint16_t)stream};
    memcpy(CMSG_DATA(&control.head), &info, sizeof info);
    return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t sctp_take(int fd, void *bytes, size_t size, unsigned *stream)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(struct sctp_rcvinfo))];
    } control;
    struct iovec piece = {bytes, size};
    struct msghdr message = {.msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
    struct cmsghdr *head = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (head && head->cmsg_level == IPPROTO_SCTP && head->cmsg_type == SCTP_RCVINFO &&
        head->cmsg_len >= CMSG_LEN(sizeof(struct sctp_rcvinfo))) {
        struct sctp_rcvinfo info;
        memcpy(&info, CMSG_DATA(head), sizeof info);
        *stream = info.rcv_sid;
    }
    return got;
}

// ------------------------------------------------------------------ counters

int64_t sctp_tick_ns(void)
{
    struct timespec tick = {.tv_nsec = 4 * NS_PER_MS};
    clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
    return tick.tv_sec * NS_PER_S + tick.tv_nsec;
}

bool sctpinfo_read(int fd, struct tcp_counters *counters)
{
    struct sctp_status status;
    struct sctp_assoc_stats stats = {0};
    socklen_t size = sizeof stats;
    if (!status_of(fd, &status) ||
        getsockopt(fd, IPPROTO_SCTP, SCTP_GET_ASSOC_STATS, &stats, &size) < 0)
        return false;
    const struct sctp_paddrinfo *path = &status.sstat_primary;
    uint32_t ticks = path->spinfo_srtt;
    *counters = (struct tcp_counters){
        .segments_in = stats.sas_iodchunks + stats.sas_iuodchunks,
        .segments_out = stats.sas_oodchunks + stats.sas_ouodchunks,
        .retransmits = stats.sas_rtxchunks,
        .duplicates_in = stats.sas_idupchunks,
        .out_of_order_in = stats.sas_outofseqtsns,
        .packets_in = stats.sas_ipackets,
        .rtt_us = ticks < RTT_TICKS_MIN ? 0 : (uint32_t)(ticks * sctp_tick_ns() / NS_PER_US),
        .cwnd = path->spinfo_mtu ? path->spinfo_cwnd / path->spinfo_mtu : 0,
        .mss = status.sstat_fragmentation_point,
        .path_mtu = path->spinfo_mtu,
    };
    return true;
}

bool sctp_standing_read(int fd, unsigned message, struct sctp_standing *standing)
{
    struct sctp_status status;
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof memory;
    if (!status_of(fd, &status) || getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size) < 0)
        return false;
    *standing = (struct sctp_standing){
        .peer_window = status.sstat_rwnd,
        .unacked = status.sstat_unackdata,
        .cwnd_bytes = status.sstat_primary.spinfo_cwnd,
        .fragment_bytes = status.sstat_fragmentation_point,
        .mtu_bytes = status.sstat_primary.spinfo_mtu,
        .message_bytes = message,
        .queued_bytes = memory[SK_MEMINFO_WMEM_QUEUED],
        .buffer_bytes = memory[SK_MEMINFO_SNDBUF],
    };
    return true;
}

// ------------------------------------------------------------------ the kind of test

// The kernel would have loaded a module that it finds and may load.
static bool module_exists(const char *modules)
{
    static const char *const endings[] = {"", ".xz", ".zst", ".gz"};
    char path[256];
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        snprintf(path, sizeof path, "%.200s/kernel/net/sctp/sctp.ko%s", modules, endings[i]);
        if (access(path, F_OK) == 0)
            return true;
    }
    return false;
}

const char *sctp_why_not(int error, const char *modules)
{
    switch (error) {
    case EPROTONOSUPPORT:
    case ESOCKTNOSUPPORT:
        return module_exists(modules)
                   ? "the kernel has no SCTP: module sctp exists but does not load (forbidden?)"
                   : "the kernel has no SCTP: module sctp is missing";
    case EACCES:
    case EPERM:
        return "SCTP sockets are forbidden to this process";
    case ENOSYS:
        return "half an SCTP: the kernel lacks the HMAC that its cookies need (module hmac)";
    case EADDRNOTAVAIL:
        return "SCTP cannot be tried here: the host has no 127.0.0.1";
    default:
        return strerror(error);
    }
}

// listen() too: a kernel without the cookie's HMAC fails only there.
bool sctp_supported(char *reason, size_t size)
{
    struct sockaddr_in loopback = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP);
    bool works = fd >= 0 && bind(fd, (struct sockaddr *)&loopback, sizeof loopback) == 0 &&
                 listen(fd, 1) == 0;
    int error = errno;
    *reason = '\0';
    if (!works) {
        struct utsname system;
        char modules[80] = "";
        if (uname(&system) == 0)
            snprintf(modules, sizeof modules, "/lib/modules/%.64s", system.release);
        snprintf(reason, size, "%s", sctp_why_not(error, modules));
    }
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
