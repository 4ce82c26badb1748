// The data port against peers, strangers and replays, over loopback.

#include "meshtest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "dataport.h"
#include "errors.h"

struct scene {
    dataport_t *port;
    struct ticket_keys keys;
};

static struct ticket_keys new_keys(void)
{
    uint8_t id[TICKET_ID_SIZE], key[TICKET_KEY_SIZE];
    struct ticket_keys keys;
    ticket_random(id, sizeof id);
    ticket_random(key, sizeof key);
    ticket_derive(id, key, &keys);
    return keys;
}

static int set_up(void **state)
{
    static struct scene scene;
    int error;
    scene.port = dataport_new(0, NULL, &error);
    scene.keys = new_keys();
    *state = &scene;
    return scene.port ? 0 : -1;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;
    dataport_destroy(&scene->port);
    return 0;
}

static admission_t *admit(
    struct scene *scene, enum dataport_protocol protocol, const char *address, unsigned streams)
{
    int error;
    admission_t *admission =
        dataport_admit(scene->port, protocol, &scene->keys, address, streams, &error);
    assert_int_equal(error, 0);
    assert_non_null(admission);
    return admission;
}

static int open_stream(struct scene *scene, enum dataport_protocol protocol, const char *address,
    const struct ticket_keys *keys, uint8_t stream, int64_t patience_ns)
{
    struct dataport_target target = {.protocol = protocol,
        .peer_address = address,
        .peer_port = dataport_number(scene->port),
        .deadline_mono_ns = clock_mono_ns() + patience_ns,
        .stop_fd = -1};
    return dataport_connect(&target, keys, stream);
}

static struct admitted take(admission_t *admission)
{
    struct admitted admitted;
    struct pollfd ready = {.fd = admission_fd(admission), .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 3000), 1);
    assert_int_equal(admission_take(admission, &admitted), 0);
    return admitted;
}

static void expect_bytes(int from, int to)
{
    char text[8] = {0};
    struct pollfd ready = {.fd = to, .events = POLLIN};
    assert_int_equal(send(from, "hello", 5, MSG_NOSIGNAL), 5);
    // Receipts of the handshake may come first on UDP.
    do {
        assert_int_equal(poll(&ready, 1, 3000), 1);
    } while (recv(to, text, sizeof text, 0) != 5);
    assert_memory_equal(text, "hello", 5);
}

static void prove(struct scene *scene, enum dataport_protocol protocol, const char *address)
{
    admission_t *admission = admit(scene, protocol, address, 3);
    for (uint8_t stream = 0; stream < 3; stream++) {
        int fd = open_stream(scene, protocol, address, &scene->keys, stream, 3 * NS_PER_S);
        assert_true(fd >= 0);
        struct admitted admitted = take(admission);
        assert_int_equal(admitted.stream, stream);
        expect_bytes(fd, admitted.fd);
        expect_bytes(admitted.fd, fd);
        close(fd);
        close(admitted.fd);
    }
    struct dataport_counters counters;
    dataport_counters(scene->port, &counters);
    assert_int_equal(counters.proven, 3);
    assert_int_equal(counters.forged, 0);
    dataport_dismiss(scene->port, &admission);
}

static void tcp_streams_are_proven_and_handed_on(void **state)
{
    prove(*state, DATAPORT_TCP, "127.0.0.1");
}

static void udp_streams_are_proven_and_handed_on(void **state)
{
    prove(*state, DATAPORT_UDP, "127.0.0.1");
}

static void ipv6_streams_are_proven_too(void **state)
{
    prove(*state, DATAPORT_TCP, "::1");
}

static void ipv6_datagrams_are_proven_too(void **state)
{
    prove(*state, DATAPORT_UDP, "::1");
}

static void a_ticket_for_a_translated_address_listens_on_the_wildcard(void **state)
{
    struct scene *scene = *state;
    for (int i = 0; i < 2; i++) {
        enum dataport_protocol protocol = i ? DATAPORT_UDP : DATAPORT_TCP;
        admission_t *admission = admit(scene, protocol, "203.0.113.9", 1);
        int fd = open_stream(scene, protocol, "127.0.0.7", &scene->keys, 0, 3 * NS_PER_S);
        assert_true(fd >= 0);
        struct admitted admitted = take(admission);
        expect_bytes(admitted.fd, fd);
        expect_bytes(fd, admitted.fd);
        close(fd);
        close(admitted.fd);
        dataport_dismiss(scene->port, &admission);
    }
}

static void nothing_listens_without_a_ticket(void **state)
{
    struct scene *scene = *state;
    admission_t *admission = admit(scene, DATAPORT_TCP, "127.0.0.1", 1);
    dataport_dismiss(scene->port, &admission);
    assert_int_equal(open_stream(scene, DATAPORT_TCP, "127.0.0.1", &scene->keys, 0, NS_PER_S / 4),
        -ECONNREFUSED);
}

static void a_wrong_key_gets_no_answer(void **state)
{
    struct scene *scene = *state;
    struct ticket_keys wrong = scene->keys;
    struct dataport_counters counters;
    wrong.handshake[5] ^= 1;
    for (int i = 0; i < 2; i++) {
        enum dataport_protocol protocol = i ? DATAPORT_UDP : DATAPORT_TCP;
        admission_t *admission = admit(scene, protocol, "127.0.0.1", 1);
        int rc = open_stream(scene, protocol, "127.0.0.1", &wrong, 0, NS_PER_S / 2);
        assert_int_equal(rc, i ? MESH_E_TIMEOUT : -ECONNRESET);
        struct admitted admitted;
        assert_int_equal(admission_take(admission, &admitted), -EAGAIN);
        dataport_dismiss(scene->port, &admission);
    }
    dataport_counters(scene->port, &counters);
    assert_true(counters.forged >= 2);
    assert_int_equal(counters.proven, 0);
}

// A plain socket to the port, as a stranger has it.
static int stranger(struct scene *scene, int type)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
        .sin_port = htons(dataport_number(scene->port)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void bytes_that_are_no_greeting_close_the_connection(void **state)
{
    struct scene *scene = *state;
    admission_t *admission = admit(scene, DATAPORT_TCP, "127.0.0.1", 1);
    char noise[TICKET_OPEN_SIZE] = "GET / HTTP/1.1";
    int fd = stranger(scene, SOCK_STREAM);
    assert_int_equal(send(fd, noise, sizeof noise, MSG_NOSIGNAL), (int)sizeof noise);
    assert_int_equal(recv(fd, noise, sizeof noise, 0), 0);
    close(fd);
    dataport_dismiss(scene->port, &admission);
}

static void half_a_greeting_is_closed_after_three_seconds(void **state)
{
    struct scene *scene = *state;
    admission_t *admission = admit(scene, DATAPORT_TCP, "127.0.0.1", 1);
    uint8_t open[TICKET_OPEN_SIZE], nonce[TICKET_NONCE_SIZE] = {0};
    char byte;
    ticket_make_open(&scene->keys, 0, nonce, open);
    int fd = stranger(scene, SOCK_STREAM);
    int64_t begin = clock_mono_ns();
    assert_int_equal(send(fd, open, sizeof open - 1, MSG_NOSIGNAL), (int)sizeof open - 1);
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    int64_t took = clock_mono_ns() - begin;
    assert_true(took > 2900 * NS_PER_MS && took < 4 * NS_PER_S);
    close(fd);
    dataport_dismiss(scene->port, &admission);
}

static void the_oldest_of_too_many_mute_connections_goes_first(void **state)
{
    struct scene *scene = *state;
    admission_t *admission = admit(scene, DATAPORT_TCP, "127.0.0.1", 1);
    int fds[300];
    for (int i = 0; i < 300; i++)
        fds[i] = stranger(scene, SOCK_STREAM);
    int fd = open_stream(scene, DATAPORT_TCP, "127.0.0.1", &scene->keys, 0, 3 * NS_PER_S);
    assert_true(fd >= 0);
    char byte;
    assert_true(recv(fds[0], &byte, 1, MSG_DONTWAIT) == 0);
    assert_int_equal(recv(fds[299], &byte, 1, MSG_DONTWAIT), -1);
    for (int i = 0; i < 300; i++)
        close(fds[i]);
    close(fd);
    dataport_dismiss(scene->port, &admission);
}

static void a_stream_comes_only_once(void **state)
{
    struct scene *scene = *state;
    admission_t *admission = admit(scene, DATAPORT_TCP, "127.0.0.1", 1);
    int fd = open_stream(scene, DATAPORT_TCP, "127.0.0.1", &scene->keys, 0, 3 * NS_PER_S);
    struct admitted admitted = take(admission);
    assert_int_equal(
        open_stream(scene, DATAPORT_TCP, "127.0.0.1", &scene->keys, 0, NS_PER_S), -ECONNRESET);
    struct dataport_counters counters;
    dataport_counters(scene->port, &counters);
    assert_int_equal(counters.replayed, 1);
    close(fd);
    close(admitted.fd);
    dataport_dismiss(scene->port, &admission);
}

static void a_replayed_open_gets_an_answer_no_longer_than_it_and_no_stream(void **state)
{
    struct scene *scene = *state;
    admission_t *admission = admit(scene, DATAPORT_UDP, "127.0.0.1", 1);
    uint8_t open[TICKET_OPEN_SIZE], nonce[TICKET_NONCE_SIZE] = {9}, nonce_l[TICKET_NONCE_SIZE];
    uint8_t first[128], second[128];
    struct admitted admitted;
    ticket_make_open(&scene->keys, 0, nonce, open);
    int fd = stranger(scene, SOCK_DGRAM);
    assert_int_equal(send(fd, open, sizeof open, 0), (int)sizeof open);
    ssize_t size = recv(fd, first, sizeof first, 0);
    assert_int_equal(size, TICKET_ANSWER_SIZE);
    assert_true(ticket_check_answer(&scene->keys, first, (size_t)size, 0, nonce, nonce_l));
    assert_int_equal(send(fd, open, sizeof open, 0), (int)sizeof open);
    assert_int_equal(recv(fd, second, sizeof second, 0), TICKET_ANSWER_SIZE);
    assert_memory_equal(first, second, TICKET_ANSWER_SIZE);
    assert_int_equal(admission_take(admission, &admitted), -EAGAIN);
    close(fd);
    dataport_dismiss(scene->port, &admission);
}

static void a_thousand_reflections_come_and_go(void **state)
{
    struct scene *scene = *state;
    static struct ticket_keys keys[1000];
    for (int i = 0; i < 1000; i++) {
        keys[i] = new_keys();
        assert_int_equal(
            dataport_reflect(scene->port, &keys[i], "127.0.0.1", clock_mono_ns() + 60 * NS_PER_S, 0),
            0);
    }
    for (int i = 0; i < 1000; i++)
        dataport_unreflect(scene->port, keys[i].id);
    // The last one closed the socket: a datagram is refused by the kernel.
    char byte = 0;
    int fd = stranger(scene, SOCK_DGRAM);
    assert_int_equal(send(fd, &byte, 1, 0), 1);
    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(fd);
}

static void a_stop_ends_a_silent_handshake(void **state)
{
    struct scene *scene = *state;
    int stop[2], mute = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(mute, (struct sockaddr *)&address, size), 0);
    getsockname(mute, (struct sockaddr *)&address, &size);
    assert_int_equal(pipe(stop), 0);
    assert_int_equal(write(stop[1], "", 1), 1);
    struct dataport_target target = {.protocol = DATAPORT_UDP,
        .peer_address = "127.0.0.1",
        .peer_port = ntohs(address.sin_port),
        .deadline_mono_ns = clock_mono_ns() + 3 * NS_PER_S,
        .stop_fd = stop[0]};
    assert_int_equal(dataport_connect(&target, &scene->keys, 0), MESH_E_STOPPED);
    close(stop[0]);
    close(stop[1]);
    close(mute);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(tcp_streams_are_proven_and_handed_on),
        SCENE(udp_streams_are_proven_and_handed_on),
        SCENE(ipv6_streams_are_proven_too),
        SCENE(ipv6_datagrams_are_proven_too),
        SCENE(a_ticket_for_a_translated_address_listens_on_the_wildcard),
        SCENE(nothing_listens_without_a_ticket),
        SCENE(a_wrong_key_gets_no_answer),
        SCENE(bytes_that_are_no_greeting_close_the_connection),
        SCENE(half_a_greeting_is_closed_after_three_seconds),
        SCENE(the_oldest_of_too_many_mute_connections_goes_first),
        SCENE(a_stream_comes_only_once),
        SCENE(a_replayed_open_gets_an_answer_no_longer_than_it_and_no_stream),
        SCENE(a_thousand_reflections_come_and_go),
        SCENE(a_stop_ends_a_silent_handshake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
