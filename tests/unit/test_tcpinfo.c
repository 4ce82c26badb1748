#include "meshtest.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tcpinfo.h"

static void bytes_count_before_anybody_has_read_them(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int door = socket(AF_INET, SOCK_STREAM, 0), out = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(door, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(door, 1), 0);
    getsockname(door, (struct sockaddr *)&address, &size);
    assert_int_equal(connect(out, (struct sockaddr *)&address, size), 0);
    int in = accept(door, NULL, NULL);
    char bytes[1000] = {0}, one;
    assert_int_equal(send(out, bytes, sizeof bytes, 0), (int)sizeof bytes);
    assert_int_equal(recv(in, &one, 1, MSG_PEEK), 1);
    struct tcp_counters receiver, sender;
    assert_true(tcpinfo_read(in, &receiver) && tcpinfo_read(out, &sender));
    assert_int_equal(receiver.bytes_received, sizeof bytes);
    assert_int_equal(receiver.segments_in, 1);
    assert_int_equal(sender.segments_out, 1);
    assert_true(sender.mss > 0 && sender.cwnd > 0 && sender.rtt_us > 0);
    close(in);
    close(out);
    close(door);
}

static void a_socket_that_is_not_tcp_is_refused(void **state)
{
    (void)state;
    struct tcp_counters counters = {.bytes_received = 7};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    assert_false(tcpinfo_read(fd, &counters));
    assert_int_equal(counters.bytes_received, 7);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_count_before_anybody_has_read_them),
        cmocka_unit_test(a_socket_that_is_not_tcp_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
