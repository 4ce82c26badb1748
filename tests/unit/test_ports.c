// Ports in words.

#include "meshtest.h"

#include <string.h>

#include "errors.h"
#include "ports.h"

static void ports_and_ranges_are_read_and_written(void **state)
{
    (void)state;
    struct port_range range;
    struct port port;
    char error[256], text[PORT_TEXT_SIZE];
    assert_int_equal(port_range_parse("tcp/443", &range, error), 0);
    assert_int_equal(range.transport, MP__TRANSPORT__OVER_TCP);
    assert_int_equal(range.first, 443);
    assert_int_equal(range.last, 443);
    assert_int_equal(port_range_parse("sctp/9000-65535", &range, error), 0);
    assert_int_equal(range.transport, MP__TRANSPORT__OVER_SCTP);
    assert_int_equal(range.first, 9000);
    assert_int_equal(range.last, 65535);
    assert_int_equal(port_parse("udp/53", &port, error), 0);
    assert_string_equal(port_format(&port, text), "udp/53");
    port = (struct port){MP__TRANSPORT__OVER_SCTP, 65535};
    assert_string_equal(port_format(&port, text), "sctp/65535");
}

static void what_is_no_port_is_refused_and_quoted(void **state)
{
    (void)state;
    static const char *const words[] = {"", "443", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/-1",
        "tcp/22-", "tcp/23-22", "tcp/22-23-24", "icmp/8", "TCP/22", "xxxxxxxxxxxxx/1", "tcp/ 22",
        "tcp/000000000000022", "tcp/22:22"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct port_range range;
        char error[256] = "";
        assert_int_equal(port_range_parse(words[i], &range, error), MESH_E_SYNTAX);
        assert_non_null(strstr(error, words[i]));
        assert_non_null(strstr(error, "tcp/443"));
    }
    struct port port;
    char error[256] = "";
    assert_int_equal(port_parse("tcp/22-23", &port, error), MESH_E_SYNTAX);
    assert_non_null(strstr(error, "tcp/22-23"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_and_ranges_are_read_and_written),
        cmocka_unit_test(what_is_no_port_is_refused_and_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
