#include "tcpinfo.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "wire_rate.h"

bool tcpinfo_read(int fd, struct tcp_counters *counters)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
        return false;
    bool timestamps = info.tcpi_options & TCPI_OPT_TIMESTAMPS;
    *counters = (struct tcp_counters){
        .bytes_received = info.tcpi_bytes_received,
        .bytes_acked = info.tcpi_bytes_acked,
        .busy_us = info.tcpi_busy_time,
        .rwnd_limited_us = info.tcpi_rwnd_limited,
        .sndbuf_limited_us = info.tcpi_sndbuf_limited,
        .segments_in = info.tcpi_data_segs_in,
        .segments_out = info.tcpi_data_segs_out,
        .retransmits = info.tcpi_total_retrans,
        .packets_in = info.tcpi_data_segs_in,
        .out_of_order_in = info.tcpi_rcv_ooopack,
        .delivered_ce = info.tcpi_delivered_ce,
        .timestamps = timestamps,
        .rtt_us = info.tcpi_rtt,
        .min_rtt_us = info.tcpi_min_rtt,
        .cwnd = info.tcpi_snd_cwnd,
        .mss = info.tcpi_snd_mss,
        .path_mtu = info.tcpi_pmtu,
        .in_flight = info.tcpi_unacked,
        .behind_hole = info.tcpi_sacked + info.tcpi_lost,
        .unsent_bytes = info.tcpi_notsent_bytes,
        .payload_max = info.tcpi_advmss - (timestamps ? WIRE_TCP_TIMESTAMPS : 0),
    };
    return true;
}
