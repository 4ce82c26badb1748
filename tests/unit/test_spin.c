// Who may spin, and for how long: states and words, never times.

#include "meshtest.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"
#include "dataport.h"
#include "light_parts.h"
#include "spin.h"

#define PATIENCE_NS (30 * NS_PER_S)
#define CORES_MAX 1024

static bool gets_leave(spin_t *spin)
{
    struct spinner one = {0};
    bool leave = spinner_turn(&one, spin, true, clock_mono_ns());
    (void)spinner_turn(&one, spin, false, 0);
    return leave;
}

static bool has_a_spare_core(void)
{
    return cgroup_cores() >= 2;
}

static void nobody_spins_unless_the_owner_allows_it(void **state)
{
    (void)state;
    spin_t *spin = spin_new(false);
    assert_false(gets_leave(spin));
    assert_false(gets_leave(NULL));
    spin_destroy(&spin);
    spin = spin_new(true);
    assert_int_equal(gets_leave(spin), has_a_spare_core());
    spin_destroy(&spin);
}

static void one_core_always_stays_free(void **state)
{
    (void)state;
    static struct spinner spinners[CORES_MAX];
    spin_t *spin = spin_new(true);
    int spinning = 0;
    for (int i = 0; i < CORES_MAX; i++)
        spinning += spinner_turn(&spinners[i], spin, true, 0);
    assert_int_equal(spinning, (int)cgroup_cores() < 1 ? 0 : (int)cgroup_cores() - 1);
    for (int i = 0; i < CORES_MAX; i++)
        assert_false(spinner_turn(&spinners[i], spin, false, 0));
    assert_int_equal(gets_leave(spin), has_a_spare_core());
    spin_destroy(&spin);
}

static void on_a_single_core_nobody_spins(void **state)
{
    (void)state;
    cpu_set_t before, one;
    spin_t *spin = spin_new(true);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_false(gets_leave(spin));
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    spin_destroy(&spin);
}

static void whoever_spins_stops_when_a_bandwidth_test_begins(void **state)
{
    (void)state;
    struct spinner one = {0};
    spin_t *spin = spin_new(true);
    assert_int_equal(spinner_turn(&one, spin, true, 0), has_a_spare_core());
    spin_load(spin, 1);
    assert_false(spinner_turn(&one, spin, true, 1));
    assert_false(gets_leave(spin));
    spin_load(spin, 0);
    // Not asked for again within the second.
    assert_false(spinner_turn(&one, spin, true, NS_PER_S - 1));
    assert_int_equal(spinner_turn(&one, spin, true, NS_PER_S), has_a_spare_core());
    assert_false(spinner_turn(&one, spin, false, NS_PER_S));
    spin_destroy(&spin);
}

// ------------------------------------------------------------------ the end that answers

struct reflector {
    spin_t *spin;
    dataport_t *port;
    struct ticket_keys keys;
    int fd; // a prober's socket
    uint64_t asked;
};

static void make_keys(struct ticket_keys *keys)
{
    uint8_t id[TICKET_ID_SIZE], key[TICKET_KEY_SIZE];
    ticket_random(id, sizeof id);
    ticket_random(key, sizeof key);
    ticket_derive(id, key, keys);
}

static void reflect(struct reflector *self, int64_t spin_ns)
{
    int error;
    self->spin = spin_new(true);
    self->port = dataport_new(0, self->spin, &error);
    assert_non_null(self->port);
    make_keys(&self->keys);
    assert_int_equal(dataport_reflect(self->port, &self->keys, "127.0.0.1",
                         clock_mono_ns() + 10 * PATIENCE_NS, spin_ns),
        0);
    struct sockaddr_in address = {.sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons(dataport_number(self->port))};
    self->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(self->fd, (struct sockaddr *)&address, sizeof address), 0);
}

static void reflect_no_more(struct reflector *self)
{
    close(self->fd);
    dataport_destroy(&self->port);
    spin_destroy(&self->spin);
}

// Whether it was spinning when this question came.
static bool spun(struct reflector *self)
{
    struct light_datagram question = {.type = LIGHT_ASK, .number = self->asked++}, answer;
    uint8_t bytes[LIGHT_SIZE + 1];
    light_pack(&question, &self->keys, bytes);
    assert_int_equal(send(self->fd, bytes, LIGHT_SIZE, 0), LIGHT_SIZE);
    struct pollfd polled = {.fd = self->fd, .events = POLLIN};
    assert_int_equal(poll(&polled, 1, (int)(PATIENCE_NS / NS_PER_MS)), 1);
    ssize_t got = recv(self->fd, bytes, sizeof bytes, 0);
    assert_true(got == LIGHT_SIZE && light_unpack(bytes, LIGHT_SIZE, &self->keys, &answer));
    return answer.flags & LIGHT_FLAG_SPUN;
}

static bool comes_to_spin(struct reflector *self)
{
    int64_t end = clock_mono_ns() + PATIENCE_NS;
    while (!spun(self))
        if (clock_mono_ns() > end)
            return false;
    return true;
}

static void a_reflector_spins_until_it_is_told_to_end(void **state)
{
    (void)state;
    struct reflector reflector = {0};
    reflect(&reflector, 10 * PATIENCE_NS);
    if (has_a_spare_core()) {
        assert_true(comes_to_spin(&reflector));
        // Another ticket does not make it spin for longer than its own.
        dataport_unreflect(reflector.port, reflector.keys.id);
        assert_int_equal(dataport_reflect(reflector.port, &reflector.keys, "127.0.0.1",
                             clock_mono_ns() + 10 * PATIENCE_NS, 0),
            0);
        int64_t end = clock_mono_ns() + PATIENCE_NS;
        while (spun(&reflector))
            assert_true(clock_mono_ns() < end);
    } else {
        for (int i = 0; i < 10; i++)
            assert_false(spun(&reflector));
    }
    reflect_no_more(&reflector);
}

static void a_reflector_spins_no_longer_than_its_test_however_often_it_is_asked(void **state)
{
    (void)state;
    struct reflector reflector = {0};
    reflect(&reflector, 300 * NS_PER_MS);
    int64_t end = clock_mono_ns() + PATIENCE_NS;
    (void)spun(&reflector);
    for (int asleep = 0; asleep < 100; asleep = spun(&reflector) ? 0 : asleep + 1)
        assert_true(clock_mono_ns() < end);
    reflect_no_more(&reflector);
}

static void a_reflector_whose_peer_is_gone_gives_its_core_back(void **state)
{
    (void)state;
    struct reflector reflector = {0};
    struct spinner others[CORES_MAX] = {0};
    reflect(&reflector, 10 * PATIENCE_NS);
    if (has_a_spare_core()) {
        assert_true(comes_to_spin(&reflector));
        for (int i = 0; i < CORES_MAX; i++)
            (void)spinner_turn(&others[i], reflector.spin, true, 0);
        int64_t end = clock_mono_ns() + PATIENCE_NS;
        while (!gets_leave(reflector.spin)) {
            assert_true(clock_mono_ns() < end);
            poll(NULL, 0, 10);
        }
    }
    assert_false(spun(&reflector));
    reflect_no_more(&reflector);
}

static void strangers_do_not_make_it_spin(void **state)
{
    (void)state;
    struct reflector reflector = {0};
    struct ticket_keys own;
    uint8_t bytes[LIGHT_SIZE];
    struct light_datagram question = {.type = LIGHT_ASK};
    reflect(&reflector, 10 * PATIENCE_NS);
    own = reflector.keys;
    make_keys(&reflector.keys);                       // another key,
    memcpy(reflector.keys.id, own.id, sizeof own.id); // the same id
    light_pack(&question, &reflector.keys, bytes);
    for (int i = 0; i < 100; i++)
        assert_int_equal(send(reflector.fd, bytes, sizeof bytes, 0), sizeof bytes);
    reflector.keys = own;
    assert_false(spun(&reflector));
    reflect_no_more(&reflector);
}

// ------------------------------------------------------------------ both ends

static void each_end_says_whether_it_spun(void **state)
{
    (void)state;
    struct reflector reflector = {0};
    struct light_peer peer = {.peer_address = "127.0.0.1", .local_address = "127.0.0.1"};
    struct light_outcome outcome;
    struct light_summary summary;
    struct testspec spec;
    spin_t *own = spin_new(true); // of another host
    int stop[2];
    assert_int_equal(pipe(stop), 0);
    reflect(&reflector, PATIENCE_NS);
    testspec_defaults(TEST_LATENCY, &spec);
    spec.duration_ns = 300 * NS_PER_MS;
    spec.probe_rate = 100;
    peer.keys = reflector.keys;
    peer.peer_port = dataport_number(reflector.port);
    int tries = 0; // the machine may stand still, and then all questions come at once
    do {
        light_run(&spec, &peer, 1, own, stop[0], &outcome, &summary);
        assert_int_equal(outcome.outcome, PROBE_OK);
        assert_int_equal(outcome.received, outcome.sent);
        assert_int_equal(outcome.duplicate, 0);
    } while (has_a_spare_core() && outcome.far_spun == 0 && ++tries < 10);
    assert_int_equal(outcome.far_spun > 0, has_a_spare_core());
    assert_true(outcome.far_spun <= outcome.received);
    assert_non_null(
        strstr(summary.technique, has_a_spare_core() ? "prober spins" : "prober sleeps"));
    assert_int_equal(gets_leave(own), has_a_spare_core());
    light_run(&spec, &peer, 1, NULL, stop[0], &outcome, &summary);
    assert_non_null(strstr(summary.technique, "prober sleeps"));
    close(stop[0]);
    close(stop[1]);
    reflect_no_more(&reflector);
    spin_destroy(&own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_spins_unless_the_owner_allows_it),
        cmocka_unit_test(one_core_always_stays_free),
        cmocka_unit_test(on_a_single_core_nobody_spins),
        cmocka_unit_test(whoever_spins_stops_when_a_bandwidth_test_begins),
        cmocka_unit_test(a_reflector_spins_until_it_is_told_to_end),
        cmocka_unit_test(a_reflector_spins_no_longer_than_its_test_however_often_it_is_asked),
        cmocka_unit_test(a_reflector_whose_peer_is_gone_gives_its_core_back),
        cmocka_unit_test(strangers_do_not_make_it_spin),
        cmocka_unit_test(each_end_says_whether_it_spun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
