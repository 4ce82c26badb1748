// Words for quantities: exactly the documented forms, and back.

#include "meshtest.h"

#include <math.h>

#include "errors.h"
#include "units.h"

static void durations_have_a_unit_and_are_nanoseconds(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        int64_t ns;
    } good[] = {{"500ms", 500000000}, {"10s", 10000000000}, {"5m", 300000000000},
        {"1h", 3600000000000}, {"250us", 250000}, {"1.5s", 1500000000}, {"0s", 0}, {"7ns", 7},
        {"0.1ms", 100000}, {"1d", 86400000000000}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t ns = -1;
        assert_int_equal(units_duration_ns(good[i].word, &ns), 0);
        assert_int_equal(ns, good[i].ns);
    }
}

static void rates_count_in_thousands_and_sizes_in_1024s(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        uint64_t value;
    } rates[] = {{"9600", 9600}, {"100M", 100000000}, {"100m", 100000000}, {"2.5G", 2500000000},
        {"64k", 64000}, {"100Mbit/s", 100000000}, {"1gbit/s", 1000000000}, {"1T", 1000000000000},
        {"33.3M", 33300000}, {"8bit/s", 8}},
      sizes[] = {{"1400", 1400}, {"64K", 65536}, {"64k", 65536}, {"1.5M", 1572864},
          {"10G", UINT64_C(10737418240)}};
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        assert_int_equal(units_rate_bps(rates[i].word, &value), 0);
        assert_int_equal(value, rates[i].value);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(units_size_bytes(sizes[i].word, &value), 0);
        assert_int_equal(value, sizes[i].value);
    }
}

static void anything_else_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {"", " ", "-1s", "+1s", "1 s", " 1s", "1s ", "1e3s", "0x10s",
        ".5s", "1.s", "1,5s", "s", "1S", "1sec", "1.2.3s", "nan", "inf", "1Mb", "1Mbps", "1KiB",
        "1MB", "1%%", "%", "-5%", "1234567890123456789012345s", "1M/s"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t ns = 42;
        uint64_t value = 42;
        double ratio = 42;
        assert_true(units_duration_ns(bad[i], &ns) < 0);
        assert_true(units_rate_bps(bad[i], &value) < 0);
        assert_true(units_size_bytes(bad[i], &value) < 0);
        assert_true(units_percent(bad[i], &ratio) < 0);
        assert_int_equal(ns, 42);
        assert_int_equal(value, 42);
        assert_true(ratio == 42);
    }
    int64_t ns;
    uint64_t value;
    assert_int_equal(units_duration_ns("10", &ns), MESH_E_SYNTAX);
    assert_int_equal(units_duration_ns("99999999999h", &ns), MESH_E_RANGE);
    assert_int_equal(units_rate_bps("9999999999T", &value), MESH_E_RANGE);
    assert_int_equal(units_size_bytes("99999999999T", &value), MESH_E_RANGE);
}

static void a_percentage_is_a_ratio(void **state)
{
    (void)state;
    double ratio;
    assert_int_equal(units_percent("5%", &ratio), 0);
    assert_true(fabs(ratio - 0.05) < 1e-12);
    assert_int_equal(units_percent("0.1%", &ratio), 0);
    assert_true(fabs(ratio - 0.001) < 1e-12);
    assert_true(units_percent("5", &ratio) < 0);
}

static void counts_have_limits(void **state)
{
    (void)state;
    uint64_t count = 0;
    assert_int_equal(units_count("128", 1, 128, &count), 0);
    assert_int_equal(count, 128);
    assert_int_equal(units_count("129", 1, 128, &count), MESH_E_RANGE);
    assert_int_equal(units_count("0", 1, 128, &count), MESH_E_RANGE);
    assert_int_equal(units_count("99999999999999999999", 0, UINT64_MAX, &count), MESH_E_RANGE);
    assert_int_equal(units_count("1.0", 0, 9, &count), MESH_E_SYNTAX);
    assert_int_equal(units_count("", 0, 9, &count), MESH_E_SYNTAX);
    assert_int_equal(count, 128);
}

static void people_read_three_digits(void **state)
{
    (void)state;
    char text[UNITS_TEXT_SIZE];
    assert_string_equal(units_format_rate(94137000, text), "94.1 Mbit/s");
    assert_string_equal(units_format_rate(999960, text), "1 Mbit/s");
    assert_string_equal(units_format_rate(1e9, text), "1 Gbit/s");
    assert_string_equal(units_format_rate(0, text), "0 bit/s");
    assert_string_equal(units_format_rate(NAN, text), "-");
    assert_string_equal(units_format_seconds(0.00125, text), "1.25 ms");
    assert_string_equal(units_format_seconds(90, text), "1.5 min");
    assert_string_equal(units_format_bytes(10800332, text), "10.3 MiB");
    assert_string_equal(units_format_ratio(0.001, text), "0.1 %");
    assert_string_equal(units_format_ratio(0.00001, text), "<0.01 %");
    assert_string_equal(units_format_ratio(0, text), "0 %");
}

static void exact_words_are_read_back(void **state)
{
    (void)state;
    char text[UNITS_TEXT_SIZE];
    static const int64_t durations[] = {1, 1500, 1000000, 1500000000, 10000000000, 60000000000,
        3600000000000, INT64_C(86400000000000), 123456789};
    static const uint64_t rates[] = {1, 999, 1000, 1500000, 100000000, UINT64_C(2500000000)};
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        int64_t back = 0;
        assert_int_equal(units_duration_ns(units_word_duration(durations[i], text), &back), 0);
        assert_int_equal(back, durations[i]);
    }
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        uint64_t back = 0;
        assert_int_equal(units_rate_bps(units_word_rate(rates[i], text), &back), 0);
        assert_int_equal(back, rates[i]);
    }
    assert_string_equal(units_word_duration(1500000000, text), "1500ms");
    assert_string_equal(units_word_rate(100000000, text), "100M");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_have_a_unit_and_are_nanoseconds),
        cmocka_unit_test(rates_count_in_thousands_and_sizes_in_1024s),
        cmocka_unit_test(anything_else_is_refused_and_changes_nothing),
        cmocka_unit_test(a_percentage_is_a_ratio),
        cmocka_unit_test(counts_have_limits),
        cmocka_unit_test(people_read_three_digits),
        cmocka_unit_test(exact_words_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
