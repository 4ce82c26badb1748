typedef int tcpinfo_pending;
