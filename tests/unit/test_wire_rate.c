// Wire rates against packets counted by hand.

#include "meshtest.h"

#include <math.h>

#include "wire_rate.h"

static struct probe_receive rates(struct wire_traffic traffic, double seconds)
{
    struct probe_report report;
    probe_report_init(&report);
    wire_rates(&traffic, seconds, &report.receive);
    return report.receive;
}

static void full_segments_fill_a_link(void **state)
{
    (void)state;
    // 1000 segments of 1448 bytes with timestamps: 1500 at layer 3, 1514 at layer 2, 1538 on the
    // line.
    struct probe_receive receive =
        rates((struct wire_traffic){.payload_bytes = 1448000,
                  .packets = 1000,
                  .packet_bytes = WIRE_IPV4 + WIRE_TCP + WIRE_TCP_TIMESTAMPS},
            2);
    assert_true(fabs(receive.wire_l3_bps - 1500 * 8 * 500) < 1e-6);
    assert_true(fabs(receive.wire_l2_bps - 1514 * 8 * 500) < 1e-6);
    assert_true(fabs(receive.wire_line_bps - 1538 * 8 * 500) < 1e-6);
}

static void short_packets_are_padded_on_the_line_only(void **state)
{
    (void)state;
    struct probe_receive receive =
        rates((struct wire_traffic){.payload_bytes = 100, .packets = 100, .packet_bytes = 28}, 1);
    assert_true(fabs(receive.wire_l2_bps - 8 * 100 * 43) < 1e-6);
    assert_true(fabs(receive.wire_line_bps - 8 * 100 * 84) < 1e-6); // the least frame there is
}

static void nothing_counted_is_no_rate(void **state)
{
    (void)state;
    assert_true(isnan(rates((struct wire_traffic){.payload_bytes = 5}, 1).wire_l3_bps));
    assert_true(isnan(rates((struct wire_traffic){.packets = 5}, 0).wire_l3_bps));
}

static void datagrams_are_fragmented_as_the_kernel_does(void **state)
{
    (void)state;
    struct wire_traffic whole = wire_of_datagrams(10, 1472, 4, 1500);
    assert_int_equal(whole.packets, 10);
    assert_int_equal(whole.payload_bytes + whole.extra_bytes + 10 * whole.packet_bytes, 15000);
    // 4008 bytes of UDP in IPv4: 1480 + 1480 + 1048.
    struct wire_traffic three = wire_of_datagrams(1, 4000, 4, 1500);
    assert_int_equal(three.packets, 3);
    assert_int_equal(
        three.payload_bytes + three.extra_bytes + 3 * three.packet_bytes, 4000 + 8 + 3 * 20);
    // IPv6: 1448 a fragment, each with an extension header of 8.
    struct wire_traffic six = wire_of_datagrams(1, 4000, 6, 1500);
    assert_int_equal(six.packets, 3);
    assert_int_equal(six.payload_bytes + six.extra_bytes + 3 * six.packet_bytes, 4000 + 8 + 3 * 48);
    assert_int_equal(wire_of_datagrams(7, 9000, 4, 0).packets, 7);
}

static void chunks_bring_headers_padding_and_what_came_twice(void **state)
{
    (void)state;
    // 10 messages of 4001 bytes in three pieces each: 16 a piece, 3 bytes of padding a message.
    assert_int_equal(wire_of_chunks(40010, 30, 0, 4001), 30 * 16 + 10 * 3);
    assert_int_equal(wire_of_chunks(40000, 30, 0, 4000), 30 * 16);
    assert_int_equal(wire_of_chunks(40000, 30, 0, 0), 30 * 16);
    // Two pieces of 1333 bytes on average came again.
    assert_int_equal(wire_of_chunks(40000, 30, 2, 4000), 32 * 16 + 2 * 1333);
}

static void short_messages_share_packets_and_long_ones_do_not(void **state)
{
    (void)state;
    assert_int_equal(wire_packets_of_chunks(1200, 1452, 16384), 1200);
    // 1468 bytes hold 12 chunks of 100 + 16 bytes.
    assert_int_equal(wire_packets_of_chunks(1200, 1452, 100), 100);
    assert_int_equal(wire_packets_of_chunks(1201, 1452, 98), 101); // padded to 100
    assert_int_equal(wire_packets_of_chunks(7, 1452, 0), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_segments_fill_a_link),
        cmocka_unit_test(short_packets_are_padded_on_the_line_only),
        cmocka_unit_test(nothing_counted_is_no_rate),
        cmocka_unit_test(datagrams_are_fragmented_as_the_kernel_does),
        cmocka_unit_test(short_messages_share_packets_and_long_ones_do_not),
        cmocka_unit_test(chunks_bring_headers_padding_and_what_came_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
