// The test bed itself. Kernels without and with half an SCTP are in test_sctp_mesh.

#include "meshtest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PACKAGES_MISSING 77

// Begun before the other tests, which meanwhile have guests of their own.
static int begin_what_takes_too_long(void **state)
{
    *state = popen(GUEST " -t 6 sh -c 'echo begun; sleep 60' 2>&1", "r");
    return *state ? 0 : -1;
}

static int end(FILE *pipe, char *text, size_t size)
{
    size_t have = fread(text, 1, size - 1, pipe);
    text[have] = '\0';
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

// Runs a shell command; its exit status and output.
static int shell(char *text, size_t size, const char *command)
{
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    return end(pipe, text, size);
}

// The guest has a /tmp of its own; a checkout there must stay in sight.
static void a_command_sees_its_directory_writes_where_it_may_and_says_what_came_of_it(void **state)
{
    (void)state;
    char text[4096], command[1024];
    char checkout[] = "/tmp/meshperf-checkout.XXXXXX",
         writable[] = "/var/tmp/meshperf-writable.XXXXXX";
    assert_non_null(mkdtemp(checkout));
    assert_non_null(mkdtemp(writable));
    snprintf(command, sizeof command,
        "mkdir %s/sub && echo seen >%s/file && cd %s/sub && " GUEST
        " -t 60 -w %s sh -c 'echo \"$0\"; echo err >&2; cat ../file; echo own >/tmp/own;"
        " echo no >new || echo refused; echo here >%s/file; echo no >%s.other || echo refused;"
        " exit 7' 'two  words' 2>/dev/null",
        checkout, checkout, checkout, writable, writable, writable);
    int status = shell(text, sizeof text, command);
    char left[128];
    snprintf(command, sizeof command,
        "cat %s/file; ls %s/sub; rm -r %s %s; ls -d %s.other 2>/dev/null", writable, checkout,
        checkout, writable, writable);
    shell(left, sizeof left, command);
    assert_int_equal(status, 7);
    assert_string_equal(text, "two  words\nseen\nrefused\nrefused\n");
    assert_string_equal(left, "here\n");
}

static void a_module_that_is_not_there_is_named(void **state)
{
    (void)state;
    char text[4096];
    assert_int_equal(shell(text, sizeof text, GUEST " -m no_such_thing true 2>&1"), 2);
    assert_non_null(strstr(text, "no_such_thing"));
}

static void a_guest_that_takes_too_long_is_ended(void **state)
{
    char text[4096];
    assert_int_equal(end(*state, text, sizeof text), 124);
    assert_non_null(strstr(text, "begun"));
    assert_non_null(strstr(text, "time was up after 6 s"));
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

int main(void)
{
    // Refused for its module without a boot where there is a guest at all; otherwise it says so.
    if (system(GUEST " -m no_such_thing true 2>/dev/null") == PACKAGES_MISSING << 8)
        return WEXITSTATUS(system(GUEST " true"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_sees_its_directory_writes_where_it_may_and_says_what_came_of_it),
        cmocka_unit_test(a_module_that_is_not_there_is_named),
        cmocka_unit_test(a_guest_has_netem_that_keeps_its_delay_and_sctp_that_the_agent_finds),
        cmocka_unit_test(a_guest_that_takes_too_long_is_ended),
    };
    return cmocka_run_group_tests(tests, begin_what_takes_too_long, NULL);
}
