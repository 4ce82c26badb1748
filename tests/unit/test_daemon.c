#include "daemon.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "meshtest.h"

static long resident_pages_of_files(void)
{
    long size, resident, shared = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    assert_non_null(statm);
    assert_int_equal(fscanf(statm, "%ld %ld %ld", &size, &resident, &shared), 3);
    fclose(statm);
    return shared;
}

static void code_that_only_the_start_needed_leaves_memory(void **state)
{
    (void)state;
    long before = resident_pages_of_files();
    daemon_shed_start();
    long after = resident_pages_of_files();
    assert_true(after < before);
    // What left is read again when it is needed.
    daemon_shed_start();
    assert_true(daemon_raise_file_limit() > 0);
}

static void the_service_manager_hears_the_very_words(void **state)
{
    (void)state;
    char directory[] = "/tmp/meshperf-notify.XXXXXX", heard[32] = "";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_non_null(mkdtemp(directory));
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", directory);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    daemon_notify("READY=1");
    assert_int_equal(recv(fd, heard, sizeof heard - 1, MSG_DONTWAIT), 7);
    assert_string_equal(heard, "READY=1");
    // Nobody listens, or the path makes no sense: not the daemon's trouble.
    close(fd);
    unlink(address.sun_path);
    daemon_notify("READY=1");
    setenv("NOTIFY_SOCKET", "relative", 1);
    daemon_notify("READY=1");
    unsetenv("NOTIFY_SOCKET");
    rmdir(directory);
}

static void the_limit_of_open_files_is_raised_to_the_hard_one(void **state)
{
    (void)state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 64 < limit.rlim_max ? 64 : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(daemon_raise_file_limit(), (long long)limit.rlim_max);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(code_that_only_the_start_needed_leaves_memory),
        cmocka_unit_test(the_service_manager_hears_the_very_words),
        cmocka_unit_test(the_limit_of_open_files_is_raised_to_the_hard_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
