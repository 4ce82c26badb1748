#include "meshtest.h"

#include <arpa/inet.h>
#include <czmq.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "gateway.h"
#include "zap.h"

// A gateway that echoes what it hears, and records.
struct bench {
    char dir[64];
    struct identity key;
    zap_t *zap;
    gateway_t *gateway;
    struct peer_ref last;
    uint8_t last_key[IDENTITY_KEY_SIZE];
    enum gateway_side last_side;
    uint64_t heard, gone;
    char reason[96];
    bool echo, cut;
};

static bool on_message(void *ctx, struct peer *peer, const void *bytes, size_t size)
{
    struct bench *bench = ctx;
    bench->heard++;
    bench->last = peer->ref;
    bench->last_side = peer->side;
    memcpy(bench->last_key, peer->key, sizeof bench->last_key);
    if (bench->echo)
        (void)!gateway_send(bench->gateway, peer, bytes, size);
    return !bench->cut;
}

static void on_gone(void *ctx, struct peer *peer, const char *reason)
{
    struct bench *bench = ctx;
    (void)peer;
    bench->gone++;
    snprintf(bench->reason, sizeof bench->reason, "%s", reason);
}

static int set_up(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    zsys_init();
    zsys_handler_set(NULL);
    strcpy(bench->dir, "/tmp/meshperf-gateway-XXXXXX");
    assert_non_null(mkdtemp(bench->dir));
    assert_int_equal(identity_generate(&bench->key), 0);
    bench->zap = zap_new();
    assert_non_null(bench->zap);
    struct gateway_ops ops = {.ctx = bench, .message = on_message, .gone = on_gone};
    char error[512], local[128];
    snprintf(local, sizeof local, "ipc://%s/operator.sock", bench->dir);
    bench->gateway =
        gateway_new("tcp://127.0.0.1:*", local, &bench->key, &clock_system, &ops, error);
    assert_non_null(bench->gateway);
    bench->echo = true;
    *state = bench;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    char path[128];
    gateway_destroy(&bench->gateway);
    zap_destroy(&bench->zap);
    snprintf(path, sizeof path, "%s/operator.sock", bench->dir);
    unlink(path);
    rmdir(bench->dir);
    free(bench);
    return 0;
}

static void turn(struct bench *bench)
{
    zmq_pollitem_t items[2];
    for (int i = 0; i < 2; i++)
        items[i] = (zmq_pollitem_t){
            .socket = zsock_resolve(gateway_socket(bench->gateway, (enum gateway_side)i)),
            .events = ZMQ_POLLIN};
    zmq_poll(items, 2, 5);
    for (int i = 0; i < 2; i++)
        if (items[i].revents)
            gateway_read(bench->gateway, (enum gateway_side)i);
    gateway_turn(bench->gateway);
}

static zsock_t *client(struct bench *bench, enum gateway_side side, const struct identity *own)
{
    zsock_t *socket = zsock_new(ZMQ_DEALER);
    zsock_set_linger(socket, 0);
    zsock_set_curve_serverkey_bin(socket, bench->key.public_key);
    zsock_set_curve_publickey_bin(socket, own->public_key);
    zsock_set_curve_secretkey_bin(socket, own->secret_key);
    zsock_set_sndhwm(socket, 0);
    assert_int_equal(zmq_connect(zsock_resolve(socket), gateway_endpoint(bench->gateway, side)), 0);
    return socket;
}

static struct identity known(struct bench *bench, enum wire_role role)
{
    struct identity identity;
    assert_int_equal(identity_generate(&identity), 0);
    struct zap_entry entry = {.role = role, .label = "known"};
    memcpy(entry.key, identity.public_key, sizeof entry.key);
    zap_put(bench->zap, &entry);
    return identity;
}

#define UNTIL(condition, seconds)                                                                  \
    for (int64_t until_ns = clock_mono_ns() + (seconds)*NS_PER_S;                                  \
         !(condition) && clock_mono_ns() < until_ns; turn(bench))

// True if an echo of `text` comes back.
static bool echoes(struct bench *bench, zsock_t *socket, const char *text)
{
    zmq_send(zsock_resolve(socket), text, strlen(text), ZMQ_DONTWAIT);
    char got[64] = "";
    int size = -1;
    UNTIL(size >= 0, 5)
    size = zmq_recv(zsock_resolve(socket), got, sizeof got - 1, ZMQ_DONTWAIT);
    return size == (int)strlen(text) && memcmp(got, text, strlen(text)) == 0;
}

static void a_known_key_is_heard_under_its_key_and_answered(void **state)
{
    struct bench *bench = *state;
    struct identity own = known(bench, WIRE_AGENT);
    zsock_t *socket = client(bench, GATEWAY_AGENTS, &own);
    assert_true(echoes(bench, socket, "hello"));
    assert_memory_equal(bench->last_key, own.public_key, IDENTITY_KEY_SIZE);
    assert_int_equal(bench->last_side, GATEWAY_AGENTS);
    assert_non_null(gateway_find(bench->gateway, &bench->last));
    zsock_destroy(&socket);
}

static void an_operator_is_heard_at_the_local_socket_that_others_cannot_open(void **state)
{
    struct bench *bench = *state;
    struct identity own = known(bench, WIRE_ADMIN);
    zsock_t *socket = client(bench, GATEWAY_OPERATORS, &own);
    assert_true(echoes(bench, socket, "status"));
    assert_int_equal(bench->last_side, GATEWAY_OPERATORS);
    struct stat info;
    assert_int_equal(stat(gateway_endpoint(bench->gateway, GATEWAY_OPERATORS) + 6, &info), 0);
    assert_int_equal(info.st_mode & 077, 0);
    zsock_destroy(&socket);
}

// True if the handshake was refused and nothing was heard.
static bool is_refused(struct bench *bench, enum gateway_side side, const struct identity *own)
{
    uint64_t before = zap_count(bench->zap).refused, heard = bench->heard;
    zsock_t *socket = client(bench, side, own);
    zmq_send(zsock_resolve(socket), "hello", 5, ZMQ_DONTWAIT);
    UNTIL(zap_count(bench->zap).refused > before, 5);
    bool refused = zap_count(bench->zap).refused > before;
    zsock_destroy(&socket);
    return refused && bench->heard == heard;
}

static void an_unknown_key_is_never_heard(void **state)
{
    struct bench *bench = *state;
    struct identity stranger;
    assert_int_equal(identity_generate(&stranger), 0);
    assert_true(is_refused(bench, GATEWAY_AGENTS, &stranger));
    assert_true(is_refused(bench, GATEWAY_OPERATORS, &stranger));
}

static void an_agents_key_does_not_open_the_operators_socket_nor_the_reverse(void **state)
{
    struct bench *bench = *state;
    struct identity agent = known(bench, WIRE_AGENT), admin = known(bench, WIRE_ADMIN);
    assert_true(is_refused(bench, GATEWAY_OPERATORS, &agent));
    assert_true(is_refused(bench, GATEWAY_AGENTS, &admin));
}

static void a_message_of_several_parts_ends_the_connection(void **state)
{
    struct bench *bench = *state;
    struct identity own = known(bench, WIRE_AGENT), other = known(bench, WIRE_AGENT);
    zsock_t *socket = client(bench, GATEWAY_AGENTS, &own);
    zsock_t *quiet = client(bench, GATEWAY_AGENTS, &other);
    assert_true(echoes(bench, quiet, "before"));
    void *raw = zsock_resolve(socket);
    for (int i = 0; i < 200; i++)
        zmq_send(raw, "part", 4, ZMQ_SNDMORE);
    zmq_send(raw, "last", 4, 0);
    UNTIL(bench->gone > 0, 5);
    assert_int_equal(bench->gone, 1);
    assert_string_equal(bench->reason, "it sent a message of several parts");
    assert_true(echoes(bench, quiet, "after"));
    zsock_destroy(&socket);
    zsock_destroy(&quiet);
}

static void one_that_floods_is_cut_off_and_others_are_not(void **state)
{
    struct bench *bench = *state;
    struct identity own = known(bench, WIRE_AGENT), other = known(bench, WIRE_AGENT);
    zsock_t *flood = client(bench, GATEWAY_AGENTS, &own);
    zsock_t *quiet = client(bench, GATEWAY_AGENTS, &other);
    assert_true(echoes(bench, quiet, "before"));
    bench->echo = false;
    for (int64_t until_ns = clock_mono_ns() + 20 * NS_PER_S;
         bench->gone == 0 && clock_mono_ns() < until_ns; turn(bench))
        for (int i = 0; i < 1000; i++)
            zmq_send(zsock_resolve(flood), "x", 1, ZMQ_DONTWAIT);
    assert_string_equal(bench->reason, "it sent too many messages");
    uint64_t heard = bench->heard;
    assert_true(heard < 3 * GATEWAY_AGENT_RATE + 5 * GATEWAY_AGENT_RATE);
    zsock_destroy(&flood);
    bench->echo = true;
    assert_true(echoes(bench, quiet, "after"));
    zsock_destroy(&quiet);
}

static void one_that_never_reads_is_cut_off_when_its_queue_is_full(void **state)
{
    struct bench *bench = *state;
    struct identity own = known(bench, WIRE_AGENT);
    zsock_t *socket = zsock_new(ZMQ_DEALER);
    zsock_set_linger(socket, 0);
    zsock_set_rcvhwm(socket, 1);
    zsock_set_rcvbuf(socket, 4096);
    zsock_set_curve_serverkey_bin(socket, bench->key.public_key);
    zsock_set_curve_publickey_bin(socket, own.public_key);
    zsock_set_curve_secretkey_bin(socket, own.secret_key);
    assert_int_equal(
        zmq_connect(zsock_resolve(socket), gateway_endpoint(bench->gateway, GATEWAY_AGENTS)), 0);
    bench->echo = false;
    zmq_send(zsock_resolve(socket), "x", 1, 0);
    UNTIL(bench->heard > 0, 5);
    assert_int_equal(bench->heard, 1);

    size_t size = 128 * 1024;
    char *bytes = calloc(1, size);
    int rc = 0;
    for (int i = 0; i < 100000 && rc == 0; i++) {
        struct peer *peer = gateway_find(bench->gateway, &bench->last);
        assert_non_null(peer);
        rc = gateway_send(bench->gateway, peer, bytes, size);
    }
    assert_int_equal(rc, -EAGAIN);
    assert_null(gateway_find(bench->gateway, &bench->last));
    gateway_turn(bench->gateway);
    assert_int_equal(bench->gone, 1);
    assert_string_equal(bench->reason, "it does not read what is sent to it");
    free(bytes);
    zsock_destroy(&socket);
}

static void sending_to_one_that_went_away_fails_and_says_so(void **state)
{
    struct bench *bench = *state;
    struct identity own = known(bench, WIRE_AGENT);
    zsock_t *socket = client(bench, GATEWAY_AGENTS, &own);
    assert_true(echoes(bench, socket, "hello"));
    zsock_destroy(&socket);
    int rc = 0;
    UNTIL(rc != 0, 5)
    {
        struct peer *peer = gateway_find(bench->gateway, &bench->last);
        rc = peer ? gateway_send(bench->gateway, peer, "x", 1) : MESH_E_NOT_FOUND;
    }
    assert_int_equal(rc, MESH_E_NOT_FOUND);
    turn(bench);
    assert_int_equal(bench->gone, 1);
}

static void one_that_is_cut_off_loses_its_connection(void **state)
{
    struct bench *bench = *state;
    struct identity own = known(bench, WIRE_AGENT);
    zsock_t *socket = client(bench, GATEWAY_AGENTS, &own);
    zactor_t *monitor = zactor_new(zmonitor, socket);
    zstr_sendx(monitor, "LISTEN", "DISCONNECTED", NULL);
    zstr_sendx(monitor, "START", NULL);
    zsock_wait(monitor);
    assert_true(echoes(bench, socket, "hello"));
    bench->cut = true;
    zmq_send(zsock_resolve(socket), "x", 1, ZMQ_DONTWAIT);
    zpoller_t *poller = zpoller_new(monitor, NULL);
    bool disconnected = false;
    UNTIL(disconnected, 5)
    disconnected = zpoller_wait(poller, 1) != NULL;
    assert_true(disconnected);
    zpoller_destroy(&poller);
    zactor_destroy(&monitor);
    zsock_destroy(&socket);
}

static int connect_raw(const char *endpoint)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strrchr(endpoint, ':') + 1))};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    (void)!connect(fd, (struct sockaddr *)&address, sizeof address);
    return fd;
}

static void strangers_with_random_bytes_and_half_greetings_change_nothing(void **state)
{
    struct bench *bench = *state;
    struct identity own = known(bench, WIRE_AGENT);
    zsock_t *socket = client(bench, GATEWAY_AGENTS, &own);
    assert_true(echoes(bench, socket, "before"));
    static const uint8_t greeting[] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1, 'C', 'U', 'R'};
    int fds[200];
    for (int i = 0; i < 200; i++) {
        fds[i] = connect_raw(gateway_endpoint(bench->gateway, GATEWAY_AGENTS));
        turn(bench);
        uint8_t noise[512];
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (uint8_t)((k * 7919u + (unsigned)i * 104729u) >> 3);
        if (i % 3 == 0)
            (void)!send(fds[i], noise, sizeof noise, MSG_NOSIGNAL);
        else if (i % 3 == 1)
            (void)!send(fds[i], greeting, sizeof greeting, MSG_NOSIGNAL);
    }
    assert_true(echoes(bench, socket, "after"));
    assert_int_equal(bench->heard, 2);
    for (int i = 0; i < 200; i++)
        close(fds[i]);
    zsock_destroy(&socket);
}

static void a_path_over_a_hundred_bytes_is_refused_with_words(void **state)
{
    struct bench *bench = *state;
    struct gateway_ops ops = {.ctx = bench, .message = on_message, .gone = on_gone};
    char endpoint[200] = "ipc:///tmp/", error[512] = "";
    memset(endpoint + 11, 'a', 150);
    gateway_t *gateway =
        gateway_new("tcp://127.0.0.1:*", endpoint, &bench->key, &clock_system, &ops, error);
    assert_null(gateway);
    assert_non_null(strstr(error, "155 bytes"));
    assert_non_null(strstr(error, "--state-dir"));
}

static void a_port_in_use_is_named_in_the_refusal(void **state)
{
    struct bench *bench = *state;
    struct gateway_ops ops = {.ctx = bench, .message = on_message, .gone = on_gone};
    char error[512] = "", local[128];
    snprintf(local, sizeof local, "ipc://%s/other.sock", bench->dir);
    const char *taken = gateway_endpoint(bench->gateway, GATEWAY_AGENTS);
    assert_null(gateway_new(taken, local, &bench->key, &clock_system, &ops, error));
    assert_non_null(strstr(error, taken));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_known_key_is_heard_under_its_key_and_answered),
        TEST(an_operator_is_heard_at_the_local_socket_that_others_cannot_open),
        TEST(an_unknown_key_is_never_heard),
        TEST(an_agents_key_does_not_open_the_operators_socket_nor_the_reverse),
        TEST(a_message_of_several_parts_ends_the_connection),
        TEST(one_that_floods_is_cut_off_and_others_are_not),
        TEST(one_that_never_reads_is_cut_off_when_its_queue_is_full),
        TEST(sending_to_one_that_went_away_fails_and_says_so),
        TEST(one_that_is_cut_off_loses_its_connection),
        TEST(strangers_with_random_bytes_and_half_greetings_change_nothing),
        TEST(a_path_over_a_hundred_bytes_is_refused_with_words),
        TEST(a_port_in_use_is_named_in_the_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
