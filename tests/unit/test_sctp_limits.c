// What holds a sender of SCTP back: moments as a kernel showed them on links where the limit is
// known.

#include "meshtest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sctp.h"
#include "sctp_limits.h"

// A path of 1500 bytes, messages of 16384, the default buffers.
#define MOMENT(window, chunks, cwnd, queued)                                                       \
    ((struct sctp_standing){.peer_window = (window),                                               \
        .unacked = (chunks),                                                                       \
        .cwnd_bytes = (cwnd),                                                                      \
        .fragment_bytes = 1452,                                                                    \
        .mtu_bytes = 1500,                                                                         \
        .message_bytes = 16384,                                                                    \
        .queued_bytes = (queued),                                                                  \
        .buffer_bytes = 212992})

static void every_moment_is_told_by_what_was_full(void **state)
{
    (void)state;
    static const struct {
        const char *where;
        struct sctp_standing moment;
        enum sctp_limit limit;
    } rows[] = {
        {"8 Mbit/s shaped", MOMENT(52988, 38, 51800, 237568), SCTP_LIMIT_NETWORK},
        {"50 ms and 1 % lost", MOMENT(81400, 9, 11832, 237568), SCTP_LIMIT_NETWORK},
        {"after a loss", MOMENT(932, 24, 32075, 207872), SCTP_LIMIT_NETWORK},
        {"a reader that sleeps", MOMENT(0, 1, 47784, 207872), SCTP_LIMIT_WINDOW},
        {"a reader that wakes", MOMENT(520, 1, 47784, 237568), SCTP_LIMIT_WINDOW},
        {"a long path, small window", MOMENT(3836, 70, 106696, 207872), SCTP_LIMIT_WINDOW},
        {"a long path, small send buffer", MOMENT(80000, 10, 106696, 212000), SCTP_LIMIT_BUFFER},
        {"nothing to send", MOMENT(106496, 0, 106696, 0), SCTP_LIMIT_IDLE},
        {"half a buffer on its way", MOMENT(50000, 20, 106696, 90000), SCTP_LIMIT_NONE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (sctp_limit_of(&rows[i].moment) != rows[i].limit)
            fail_msg("%s: %d instead of %d", rows[i].where, sctp_limit_of(&rows[i].moment),
                rows[i].limit);
}

static void shares_are_of_all_samples_and_absent_without(void **state)
{
    (void)state;
    struct sctp_shares shares = {0};
    assert_true(isnan(sctp_share(&shares, SCTP_LIMIT_IDLE)));
    struct sctp_standing idle = MOMENT(106496, 0, 106696, 0), full = MOMENT(0, 1, 47784, 207872);
    sctp_shares_add(&shares, &idle);
    for (int i = 0; i < 3; i++)
        sctp_shares_add(&shares, &full);
    assert_true(sctp_share(&shares, SCTP_LIMIT_IDLE) == 0.25);
    assert_true(sctp_share(&shares, SCTP_LIMIT_WINDOW) == 0.75);
    assert_true(sctp_share(&shares, SCTP_LIMIT_BUFFER) == 0);
}

static void short_messages_are_counted_as_they_are(void **state)
{
    (void)state;
    struct sctp_standing moment = MOMENT(50000, 100, 20000, 200000);
    moment.message_bytes = 100; // 10,000 bytes are on their way, not 145,200
    assert_int_equal(sctp_limit_of(&moment), SCTP_LIMIT_BUFFER);
}

static void a_missing_a_forbidden_and_a_halved_module_are_told_apart(void **state)
{
    (void)state;
    char root[] = "/tmp/meshperf-modules.XXXXXX", command[256];
    assert_non_null(mkdtemp(root));
    assert_non_null(strstr(sctp_why_not(EPROTONOSUPPORT, root), "is missing"));
    assert_non_null(strstr(sctp_why_not(ESOCKTNOSUPPORT, root), "is missing"));
    snprintf(command, sizeof command,
        "mkdir -p %s/kernel/net/sctp && touch %s/kernel/net/sctp/sctp.ko.xz", root, root);
    assert_int_equal(system(command), 0);
    assert_non_null(strstr(sctp_why_not(EPROTONOSUPPORT, root), "forbidden"));
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
    assert_non_null(strstr(sctp_why_not(EACCES, root), "forbidden"));
    assert_non_null(strstr(sctp_why_not(ENOSYS, root), "hmac"));
    assert_string_equal(sctp_why_not(EADDRINUSE, root), strerror(EADDRINUSE));
}

// 64 KB in 45 pieces of 1452 bytes and one of 196.
static void what_has_arrived_is_finer_than_messages(void **state)
{
    (void)state;
    const unsigned message = 65536, piece = 1452;
    const uint64_t most = 212992;
    assert_int_equal(sctp_arrived(0, 0, 0, piece, most), 0);
    assert_int_equal(sctp_arrived(0, 10, 0, piece, most), 14520); // the first is not whole yet
    assert_int_equal(sctp_arrived(message, 46, message, piece, most), message);
    assert_int_equal(
        sctp_arrived(2 * message, 115, message, piece, most), 2 * message + message / 2);
    // One that was read in parts, and one that waits whole.
    assert_int_equal(sctp_arrived(30000, 92, message, piece, most), 2 * message);
    // Cut otherwise than we think, or counters that are gone with the association.
    assert_int_equal(sctp_arrived(2 * message, 1000, message, piece, most), 2 * message);
    assert_int_equal(sctp_arrived(2 * message, 80, message, piece, most), 2 * message);
    assert_int_equal(sctp_arrived(2 * message, 115, message, 0, most), 2 * message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_has_arrived_is_finer_than_messages),
        cmocka_unit_test(every_moment_is_told_by_what_was_full),
        cmocka_unit_test(shares_are_of_all_samples_and_absent_without),
        cmocka_unit_test(short_messages_are_counted_as_they_are),
        cmocka_unit_test(a_missing_a_forbidden_and_a_halved_module_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
