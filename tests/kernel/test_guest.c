// The test bed itself, and what an agent finds in kernels with, without and with half an SCTP.

#include "meshtest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PACKAGES_MISSING 77

// Runs a shell command with its two outputs in one text; its exit status.
static int shell(char *text, size_t size, const char *command)
{
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t have = fread(text, 1, size - 1, pipe);
    text[have] = '\0';
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void output_and_exit_status_come_back_and_errors_apart(void **state)
{
    (void)state;
    char text[4096];
    assert_int_equal(shell(text, sizeof text,
                         GUEST " -t 60 sh -c 'echo \"$0\"; echo err >&2; exit 7' 'two  words' "
                               "2>/dev/null"),
        7);
    assert_string_equal(text, "two  words\n");
}

static void a_guest_that_takes_too_long_is_ended(void **state)
{
    (void)state;
    char text[4096];
    assert_int_equal(
        shell(text, sizeof text, GUEST " -t 6 sh -c 'echo begun; sleep 60' 2>&1"), 124);
    assert_non_null(strstr(text, "begun"));
    assert_non_null(strstr(text, "time was up after 6 s"));
}

static void a_module_that_is_not_there_is_named(void **state)
{
    (void)state;
    char text[4096];
    assert_int_equal(shell(text, sizeof text, GUEST " -m no_such_thing true 2>&1"), 2);
    assert_non_null(strstr(text, "no_such_thing"));
}

static void only_the_named_directory_can_be_written(void **state)
{
    (void)state;
    char text[4096], command[512], directory[] = "/var/tmp/meshperf-writable.XXXXXX";
    assert_non_null(mkdtemp(directory));
    snprintf(command, sizeof command,
        GUEST " -t 60 -w %s sh -c 'echo here >%s/file; echo there >%s.other'", directory, directory,
        directory);
    int status = shell(text, sizeof text, command);
    snprintf(command, sizeof command, "cat %s/file; rm -r %s; ls %s.other 2>/dev/null", directory,
        directory, directory);
    shell(text, sizeof text, command);
    assert_int_not_equal(status, 0);
    assert_string_equal(text, "here\n");
}

// The guest has a /tmp of its own; a checkout there must stay in sight.
static void a_directory_in_tmp_is_seen_and_cannot_be_written(void **state)
{
    (void)state;
    char text[4096], command[512], directory[] = "/tmp/meshperf-checkout.XXXXXX";
    assert_non_null(mkdtemp(directory));
    snprintf(command, sizeof command,
        "mkdir %s/sub && echo here >%s/file && cd %s/sub && " GUEST
        " -t 60 sh -c 'cat ../file; echo no >new || echo refused; echo yes >/tmp/own' 2>/dev/null",
        directory, directory, directory);
    int status = shell(text, sizeof text, command);
    char removal[128], rest[16];
    snprintf(removal, sizeof removal, "rm -r %s", directory);
    shell(rest, sizeof rest, removal);
    assert_int_equal(status, 0);
    assert_string_equal(text, "here\nrefused\n");
}

// test_capability compares what it found with MESHPERF_EXPECT_SCTP.

static void a_guest_has_netem_that_keeps_its_delay_and_sctp_that_the_agent_finds(void **state)
{
    (void)state;
    char text[8192];
    assert_int_equal(shell(text, sizeof text,
                         GUEST " -t 60 sh -c 'tc qdisc add dev lo root netem delay 15ms && "
                               "ping -c 9 -i 0.2 127.0.0.1 && "
                               "MESHPERF_EXPECT_SCTP=yes " UNIT_TESTS "/test_capability' 2>&1"),
        0);
    const char *summary = strstr(text, "min/avg/max/mdev = ");
    assert_non_null(summary);
    double least, mean;
    assert_int_equal(sscanf(summary, "min/avg/max/mdev = %lf/%lf/", &least, &mean), 2);
    // Both directions pass the queue. The guest's timers add up to some milliseconds.
    assert_true(least >= 30.0 && least < 36.0);
    assert_non_null(strstr(text, "PASSED"));
}

static void a_kernel_without_the_module_is_told_apart(void **state)
{
    (void)state;
    char text[8192];
    assert_int_equal(
        shell(text, sizeof text,
            GUEST " -m '' -t 60 env MESHPERF_EXPECT_SCTP='module sctp is missing' " UNIT_TESTS
                  "/test_capability 2>&1"),
        0);
}

static void a_module_that_is_half_there_is_told_apart(void **state)
{
    (void)state;
    char text[8192];
    assert_int_equal(
        shell(text, sizeof text,
            GUEST " -m sctp -t 60 env MESHPERF_EXPECT_SCTP='lacks the HMAC' " UNIT_TESTS
                  "/test_capability 2>&1"),
        0);
}

int main(void)
{
    // Refused for its module without a boot where there is a guest at all; otherwise it says so.
    if (system(GUEST " -m no_such_thing true 2>/dev/null") == PACKAGES_MISSING << 8)
        return WEXITSTATUS(system(GUEST " true"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_and_exit_status_come_back_and_errors_apart),
        cmocka_unit_test(a_guest_that_takes_too_long_is_ended),
        cmocka_unit_test(a_module_that_is_not_there_is_named),
        cmocka_unit_test(only_the_named_directory_can_be_written),
        cmocka_unit_test(a_directory_in_tmp_is_seen_and_cannot_be_written),
        cmocka_unit_test(a_guest_has_netem_that_keeps_its_delay_and_sctp_that_the_agent_finds),
        cmocka_unit_test(a_kernel_without_the_module_is_told_apart),
        cmocka_unit_test(a_module_that_is_half_there_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
