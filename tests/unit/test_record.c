// What a host says of itself, against what the system's files and loopback are known to be.

#include "meshtest.h"

#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "record.h"

static void loopback_is_known(void **state)
{
    (void)state;
    struct probe_record record;
    struct utsname name;
    record_read("127.0.0.1", &record);
    assert_string_equal(record.interface, "lo");
    assert_int_equal(record.mtu, 65536);
    assert_true(*record.qdisc);
    assert_true(record.moved_bytes != PROBE_ABSENT);
    assert_int_equal(uname(&name), 0);
    assert_non_null(strstr(name.release, record.kernel));
    assert_true(record.cores >= 1);
    assert_true(record.rmem_max > 0 && record.wmem_max > 0);
    assert_int_equal(strlen(record.boot_id), 36);
    assert_true(*record.congestion && *record.virtualization);
}

static void bytes_are_counted_from_before(void **state)
{
    (void)state;
    struct probe_record before, after;
    record_read("127.0.0.1", &before);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof own;
    char payload[1000] = "";
    assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof own), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &size), 0);
    assert_int_equal(sendto(fd, payload, 1000, 0, (struct sockaddr *)&own, size), 1000);
    close(fd);
    record_read("127.0.0.1", &after);
    assert_true(after.moved_bytes >= before.moved_bytes + 2000); // sent and received
}

static void an_address_of_nobody_leaves_the_interface_out(void **state)
{
    (void)state;
    struct probe_record record;
    record_read("192.0.2.77", &record);
    assert_string_equal(record.interface, "");
    assert_int_equal(record.mtu, 0);
    assert_int_equal(record.moved_bytes, PROBE_ABSENT);
    assert_true(*record.kernel);
    assert_int_equal(record_allowance_exceeded(""), PROBE_ABSENT);
    assert_int_equal(record_allowance_exceeded("lo"), PROBE_ABSENT);
    assert_int_equal(record_interface_dropped(""), PROBE_ABSENT);
    assert_int_not_equal(record_interface_dropped("lo"), PROBE_ABSENT);
}

// Needs a place where control groups can be made; version 1 and 2 name their files differently.
static bool make_group(char directory[128])
{
    static const char *const roots[] = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup"};
    for (size_t i = 0; i < 2; i++) {
        char setting[256];
        snprintf(directory, 128, "%s/meshperf-test-%d", roots[i], (int)getpid());
        if (mkdir(directory, 0755) < 0)
            continue;
        snprintf(setting, sizeof setting, "echo %s >%s/%s 2>/dev/null",
            i == 0 ? "5000" : "\"5000 20000\"", directory, i == 0 ? "cpu.cfs_quota_us" : "cpu.max");
        char period[256];
        snprintf(period, sizeof period, "echo 20000 >%s/cpu.cfs_period_us", directory);
        if ((i == 1 || system(period) == 0) && system(setting) == 0)
            return true;
        rmdir(directory);
    }
    return false;
}

static void a_quota_and_its_throttling_are_seen(void **state)
{
    (void)state;
    char directory[128], command[256];
    if (!make_group(directory))
        skip();
    pid_t child = fork();
    if (child == 0) {
        struct cgroup_cpu before, after;
        snprintf(command, sizeof command, "echo %d >%s/cgroup.procs", (int)getpid(), directory);
        if (system(command) != 0)
            _exit(10);
        cgroup_cpu_read(&before);
        for (volatile unsigned i = 0; i < 200000000u; i++)
            continue;
        cgroup_cpu_read(&after);
        _exit(fabs(after.quota_cores - 0.25) > 1e-9       ? 11
              : after.throttled_ns <= before.throttled_ns ? 12
                                                          : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    rmdir(directory);
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loopback_is_known),
        cmocka_unit_test(bytes_are_counted_from_before),
        cmocka_unit_test(an_address_of_nobody_leaves_the_interface_out),
        cmocka_unit_test(a_quota_and_its_throttling_are_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
