typedef int udp_pending;
