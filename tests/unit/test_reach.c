// Both ends of port probes over loopback, and the bytes they speak.

#include "meshtest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "reach.h"

#define PATIENCE_NS (20 * NS_PER_S)

struct ends {
    reach_t *near, *far;
    struct testspec spec;
};

static void make_keys(struct ticket_keys *keys)
{
    uint8_t id[TICKET_ID_SIZE], key[TICKET_KEY_SIZE];
    ticket_random(id, sizeof id);
    ticket_random(key, sizeof key);
    ticket_derive(id, key, keys);
}

// A port that is free now, held by the returned socket (its address is bound, nobody listens).
static int bound(int type, struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &size), 0);
    return fd;
}

static uint16_t free_port(int type)
{
    struct sockaddr_in address;
    close(bound(type, &address));
    return ntohs(address.sin_port);
}

static struct reach_peer peer_at(Mp__Transport transport, uint16_t port)
{
    struct reach_peer peer = {.port = {transport, port}, .probes = true, .arm = true};
    make_keys(&peer.keys);
    strcpy(peer.local_address, "127.0.0.1");
    strcpy(peer.peer_address, "127.0.0.1");
    return peer;
}

static void open_ends(struct ends *it, const struct reach_peer *peers, size_t count)
{
    struct reach_peer mirrors[8];
    testspec_defaults(TEST_PORT, &it->spec);
    it->spec.attempts = 2;
    it->spec.timeout_ns = NS_PER_S / 5;
    for (size_t i = 0; i < count; i++) {
        mirrors[i] = peers[i];
        mirrors[i].probes = false;
    }
    it->near = reach_new(&it->spec, peers, count);
    it->far = reach_new(&it->spec, mirrors, count);
    assert_non_null(it->near);
    assert_non_null(it->far);
}

static void turn(struct ends *it)
{
    struct pollfd polled[] = {
        {.fd = reach_fd(it->near), .events = POLLIN}, {.fd = reach_fd(it->far), .events = POLLIN}};
    poll(polled, 2, 5);
    (void)reach_turn(it->far, clock_mono_ns());
    (void)reach_turn(it->near, clock_mono_ns());
}

static void probe(struct ends *it, const bool *services)
{
    int64_t deadline_ns = clock_mono_ns() + PATIENCE_NS;
    reach_go(it->near, services, clock_mono_ns());
    while (!reach_probed(it->near) && clock_mono_ns() < deadline_ns)
        turn(it);
    assert_true(reach_probed(it->near));
    (void)reach_turn(it->far, clock_mono_ns());
    reach_close(it->far, clock_mono_ns());
    assert_true(reach_closed(it->far));
}

static void close_ends(struct ends *it)
{
    reach_destroy(&it->near);
    reach_destroy(&it->far);
}

static void a_nonce_comes_back_over_tcp_and_udp(void **state)
{
    (void)state;
    struct reach_peer peers[] = {peer_at(MP__TRANSPORT__OVER_TCP, free_port(SOCK_STREAM)),
        peer_at(MP__TRANSPORT__OVER_UDP, free_port(SOCK_DGRAM))};
    struct ends it;
    open_ends(&it, peers, 2);
    reach_open(it.far, clock_mono_ns());
    probe(&it, NULL);
    for (size_t i = 0; i < 2; i++) {
        const struct reach_outcome *near = reach_outcome(it.near, i),
                                   *far = reach_outcome(it.far, i);
        assert_int_equal(near->observed, MP__OBSERVED__OBSERVED_OPEN);
        assert_int_equal(near->probes, 1);
        assert_int_equal(near->source_port_count, 1);
        assert_int_equal(far->arrived, MP__ARRIVED__ARRIVED_YES);
        assert_int_equal(far->listener, MP__LISTENER__LISTENER_AGENT);
        assert_string_equal(far->seen_from, "127.0.0.1");
    }
    close_ends(&it);
}

static void peers_share_the_listener_of_a_port(void **state)
{
    (void)state;
    struct reach_peer peers[4];
    uint16_t port = free_port(SOCK_STREAM);
    char text[PROBE_TEXT_SIZE];
    struct ends it;
    for (size_t i = 0; i < 4; i++)
        peers[i] = peer_at(MP__TRANSPORT__OVER_TCP, port);
    open_ends(&it, peers, 4);
    reach_open(it.far, clock_mono_ns());
    assert_true(reach_listener(it.far, 0, text));
    assert_false(reach_listener(it.far, 1, text));
    probe(&it, NULL);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(reach_outcome(it.far, i)->arrived, MP__ARRIVED__ARRIVED_YES);
    assert_false(reach_listener(it.far, 0, text)); // closed
    close_ends(&it);
}

static void a_port_without_a_listener_is_refused_by_icmp_or_reset(void **state)
{
    (void)state;
    struct reach_peer peers[] = {peer_at(MP__TRANSPORT__OVER_TCP, free_port(SOCK_STREAM)),
        peer_at(MP__TRANSPORT__OVER_UDP, free_port(SOCK_DGRAM))};
    struct ends it;
    open_ends(&it, peers, 2);
    reach_go(it.near, NULL, clock_mono_ns());
    while (!reach_probed(it.near))
        turn(&it);
    const struct reach_outcome *tcp = reach_outcome(it.near, 0), *udp = reach_outcome(it.near, 1);
    assert_int_equal(tcp->observed, MP__OBSERVED__OBSERVED_REFUSED);
    assert_int_equal(tcp->error, ECONNREFUSED);
    assert_false(tcp->has_icmp);
    assert_true(udp->has_icmp);
    assert_int_equal(udp->icmp_type, 3);
    assert_int_equal(udp->icmp_code, 3);
    assert_string_equal(udp->icmp_from, "127.0.0.1");
    close_ends(&it);
}

static void a_service_keeps_its_port_and_is_not_spoken_to(void **state)
{
    (void)state;
    struct sockaddr_in address;
    int service = bound(SOCK_STREAM, &address);
    assert_int_equal(listen(service, 4), 0);
    struct reach_peer peer = peer_at(MP__TRANSPORT__OVER_TCP, ntohs(address.sin_port));
    char text[PROBE_TEXT_SIZE];
    struct ends it;
    open_ends(&it, &peer, 1);
    reach_open(it.far, clock_mono_ns());
    assert_true(reach_service(it.far, 0));
    assert_false(reach_listener(it.far, 0, text));
    probe(&it, (const bool[]){true});
    assert_int_equal(reach_outcome(it.near, 0)->observed, MP__OBSERVED__OBSERVED_ACCEPTED);
    assert_int_equal(reach_outcome(it.far, 0)->listener, MP__LISTENER__LISTENER_SERVICE);
    // No half-open connection: what the service took is for both ends' findings to say.
    assert_int_equal(reach_outcome(it.far, 0)->arrived, MP__ARRIVED__ARRIVED_NO);
    int connection = accept(service, NULL, NULL);
    char bytes[64];
    assert_true(connection >= 0);
    assert_true(recv(connection, bytes, sizeof bytes, 0) <= 0); // reset, and no nonce before it
    close(connection);
    close(service);
    close_ends(&it);
}

static void a_udp_service_is_not_robbed_of_its_port(void **state)
{
    (void)state;
    struct sockaddr_in address;
    int service = bound(SOCK_DGRAM, &address);
    struct reach_peer peer = peer_at(MP__TRANSPORT__OVER_UDP, ntohs(address.sin_port));
    struct ends it;
    open_ends(&it, &peer, 1);
    reach_open(it.far, clock_mono_ns());
    assert_true(reach_service(it.far, 0));
    probe(&it, NULL);
    char bytes[128];
    assert_int_equal(recv(service, bytes, sizeof bytes, MSG_DONTWAIT), REACH_SIZE);
    assert_int_equal(reach_outcome(it.near, 0)->observed, MP__OBSERVED__OBSERVED_FILTERED);
    assert_int_equal(reach_outcome(it.near, 0)->probes, 2);
    close(service);
    close_ends(&it);
}

static void somebody_who_answers_without_the_key_is_accepted_not_open(void **state)
{
    (void)state;
    struct sockaddr_in address;
    int service = bound(SOCK_STREAM, &address);
    assert_int_equal(listen(service, 4), 0);
    struct reach_peer peer = peer_at(MP__TRANSPORT__OVER_TCP, ntohs(address.sin_port));
    struct ends it;
    open_ends(&it, &peer, 1);
    reach_go(it.near, NULL, clock_mono_ns()); // nobody told of a service
    while (!reach_probed(it.near))
        turn(&it);
    assert_int_equal(reach_outcome(it.near, 0)->observed, MP__OBSERVED__OBSERVED_ACCEPTED);
    close(service);
    close_ends(&it);
}

static void a_listener_outlives_neither_its_time_nor_claims_to_have_heard_all(void **state)
{
    (void)state;
    struct reach_peer peer = peer_at(MP__TRANSPORT__OVER_UDP, free_port(SOCK_DGRAM));
    struct ends it;
    char text[PROBE_TEXT_SIZE];
    open_ends(&it, &peer, 1);
    int64_t now = clock_mono_ns(), end = now + testspec_listen_ns(&it.spec);
    reach_open(it.far, now);
    assert_true(reach_turn(it.far, end - 1) <= end);
    assert_true(reach_listener(it.far, 0, text));
    (void)reach_turn(it.far, end);
    assert_true(reach_closed(it.far));
    assert_false(reach_listener(it.far, 0, text));
    assert_int_equal(reach_outcome(it.far, 0)->arrived, MP__ARRIVED__ARRIVED_UNKNOWN);
    close_ends(&it);
}

// As a translation in the network does: the question meant for one port is sent to another.
static void a_question_that_comes_to_another_port_has_arrived_and_gets_no_answer(void **state)
{
    (void)state;
    struct reach_peer peers[] = {peer_at(MP__TRANSPORT__OVER_UDP, free_port(SOCK_DGRAM)),
        peer_at(MP__TRANSPORT__OVER_UDP, free_port(SOCK_DGRAM))};
    struct reach_peer asked = peers[0];
    char text[PROBE_TEXT_SIZE], port[PORT_TEXT_SIZE];
    struct ends it;
    open_ends(&it, peers, 2);
    reach_destroy(&it.near);
    asked.port = peers[1].port;
    it.near = reach_new(&it.spec, &asked, 1);
    reach_open(it.far, clock_mono_ns());
    probe(&it, NULL);
    assert_int_equal(reach_outcome(it.near, 0)->observed, MP__OBSERVED__OBSERVED_FILTERED);
    assert_int_equal(reach_outcome(it.far, 0)->arrived, MP__ARRIVED__ARRIVED_YES);
    assert_int_equal(reach_outcome(it.far, 1)->arrived, MP__ARRIVED__ARRIVED_NO);
    snprintf(text, sizeof text, "translated to %s", port_format(&peers[1].port, port));
    assert_string_equal(reach_outcome(it.far, 0)->reason, text);
    close_ends(&it);
}

static bool nobody(const void *ctx, const char *address)
{
    (void)ctx;
    (void)address;
    return false;
}

static void whom_the_owner_forbids_gets_no_answer(void **state)
{
    (void)state;
    struct reach_peer peer = peer_at(MP__TRANSPORT__OVER_UDP, free_port(SOCK_DGRAM));
    struct ends it;
    open_ends(&it, &peer, 1);
    reach_set_guard(it.far, nobody, NULL);
    reach_open(it.far, clock_mono_ns());
    probe(&it, NULL);
    assert_int_equal(reach_outcome(it.near, 0)->observed, MP__OBSERVED__OBSERVED_FILTERED);
    close_ends(&it);
}

static void only_whole_messages_of_their_kind_and_key_are_taken(void **state)
{
    (void)state;
    struct ticket_keys keys, others;
    uint8_t nonce[16] = {1, 2, 3}, seen[16], bytes[REACH_SIZE];
    make_keys(&keys);
    make_keys(&others);
    reach_pack(&keys, REACH_ASK, nonce, bytes);
    assert_true(reach_unpack(&keys, REACH_ASK, bytes, sizeof bytes, seen));
    assert_memory_equal(nonce, seen, sizeof nonce);
    assert_false(reach_unpack(&keys, REACH_REPLY, bytes, sizeof bytes, seen));
    assert_false(reach_unpack(&others, REACH_ASK, bytes, sizeof bytes, seen));
    for (size_t size = 0; size < sizeof bytes; size++)
        assert_false(reach_unpack(&keys, REACH_ASK, bytes, size, seen));
    for (size_t i = 0; i < 8 * sizeof bytes; i++) {
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_false(reach_unpack(&keys, REACH_ASK, bytes, sizeof bytes, seen));
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_nonce_comes_back_over_tcp_and_udp),
        cmocka_unit_test(peers_share_the_listener_of_a_port),
        cmocka_unit_test(a_port_without_a_listener_is_refused_by_icmp_or_reset),
        cmocka_unit_test(a_service_keeps_its_port_and_is_not_spoken_to),
        cmocka_unit_test(a_udp_service_is_not_robbed_of_its_port),
        cmocka_unit_test(somebody_who_answers_without_the_key_is_accepted_not_open),
        cmocka_unit_test(a_listener_outlives_neither_its_time_nor_claims_to_have_heard_all),
        cmocka_unit_test(a_question_that_comes_to_another_port_has_arrived_and_gets_no_answer),
        cmocka_unit_test(whom_the_owner_forbids_gets_no_answer),
        cmocka_unit_test(only_whole_messages_of_their_kind_and_key_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
