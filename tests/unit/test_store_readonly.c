// The store on a read-only file system. Permissions do not bind root, so the directory is mounted
// read-only over itself in a mount namespace of our own; where that is forbidden, the test says so
// and ends with 77.

#include "meshtest.h"

#include <czmq.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "clock.h"
#include "store.h"

static char dir[] = "/tmp/test-store-ro-XXXXXX";
static char path[64];

static bool own_namespace(void)
{
    int flags = geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS;
    return unshare(flags) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount(dir, dir, NULL, MS_BIND, NULL) == 0;
}

static void set_read_only(bool read_only)
{
    unsigned long flags = MS_REMOUNT | MS_BIND | (read_only ? MS_RDONLY : 0ul);
    assert_int_equal(mount(NULL, dir, NULL, flags, NULL), 0);
}

static void count_operator(void *ctx, const struct stored_operator *operator_)
{
    assert_string_equal(operator_->name, "ci");
    ++*(unsigned *)ctx;
}

struct outcome {
    int error;
    bool ended;
};

static void on_done(void *ctx, int error)
{
    *(struct outcome *)ctx = (struct outcome){error, true};
}

static int put_operator(store_t *store, const char *name)
{
    uint8_t key[32] = {1};
    struct stored_operator ci = {.name = name, .role = MP__ROLE__VIEWER, .public_key = key};
    struct outcome outcome = {0, false};
    store_put_operator(store, &ci, on_done, &outcome);
    int64_t deadline_ns = clock_mono_ns() + 20 * NS_PER_S;
    while (!outcome.ended && clock_mono_ns() < deadline_ns) {
        zmq_pollitem_t item = {.socket = zsock_resolve(store_socket(store)), .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, 100);
        store_dispatch(store);
    }
    assert_true(outcome.ended);
    return outcome.error;
}

static store_t *opened(void)
{
    char error[512] = "";
    store_t *store = store_new(path, error);
    if (!store)
        fail_msg("%s", error);
    return store;
}

static void what_was_stored_is_read_and_writes_are_refused_with_words(void **state)
{
    (void)state;
    store_t *store = opened();
    store_start(store);
    assert_int_equal(put_operator(store, "ci"), 0);
    store_destroy(&store);

    set_read_only(true);
    store = opened();
    unsigned count = 0;
    assert_int_equal(store_load_operators(store, count_operator, &count), 0);
    assert_int_equal(count, 1);
    uint64_t epoch;
    assert_int_equal(store_next_epoch(store, &epoch), -EROFS);
    store_start(store);
    assert_int_equal(put_operator(store, "other"), -EROFS);
    assert_non_null(store_trouble(store));
    assert_non_null(strstr(store_trouble(store), "Read-only"));
    store_destroy(&store);

    set_read_only(false);
    store = opened();
    assert_int_equal(store_next_epoch(store, &epoch), 0);
    store_destroy(&store);
}

int main(void)
{
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/meshperf.db", dir);
    if (!own_namespace()) {
        fprintf(stderr, "SKIPPED: no mount namespace of our own here (%s)\n", strerror(errno));
        rmdir(dir);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_stored_is_read_and_writes_are_refused_with_words),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    umount2(dir, MNT_DETACH);
    unlink(path);
    rmdir(dir);
    return failed;
}
