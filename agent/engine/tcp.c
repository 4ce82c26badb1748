typedef int tcp_pending;
