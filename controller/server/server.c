typedef int server_pending;
