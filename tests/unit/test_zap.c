#include "meshtest.h"

#include <czmq.h>
#include <string.h>

#include "clock.h"
#include "zap.h"

// Speaks as libzmq does: a REQ socket at the handler's endpoint.
struct asker {
    zap_t *zap;
    zsock_t *socket;
};

static int set_up(void **state)
{
    static struct asker asker;
    zsys_init();
    zsys_handler_set(NULL);
    asker.zap = zap_new();
    asker.socket = zsock_new_req("inproc://zeromq.zap.01");
    zsock_set_rcvtimeo(asker.socket, 5000);
    *state = &asker;
    return asker.zap && asker.socket ? 0 : -1;
}

static int tear_down(void **state)
{
    struct asker *asker = *state;
    zsock_destroy(&asker->socket);
    zap_destroy(&asker->zap);
    return 0;
}

static void frame(zmsg_t *message, const char *text)
{
    zmsg_addmem(message, text, strlen(text));
}

// The status code; the User-Id into `user` (64 bytes) if not NULL.
static int judge_message(struct asker *asker, zmsg_t *question, char *user)
{
    assert_int_equal(zmsg_send(&question, asker->socket), 0);
    zmsg_t *answer = zmsg_recv(asker->socket);
    assert_non_null(answer);
    assert_int_equal(zmsg_size(answer), 6);
    char *version = zmsg_popstr(answer), *request = zmsg_popstr(answer),
         *code = zmsg_popstr(answer);
    char *text = zmsg_popstr(answer), *id = zmsg_popstr(answer);
    assert_string_equal(version, "1.0");
    int status = atoi(code);
    if (user)
        snprintf(user, 64, "%s", id);
    zstr_free(&version);
    zstr_free(&request);
    zstr_free(&code);
    zstr_free(&text);
    zstr_free(&id);
    zmsg_destroy(&answer);
    return status;
}

static zmsg_t *question(const char *version, const char *domain, const char *mechanism,
    const uint8_t *key, size_t key_size)
{
    zmsg_t *message = zmsg_new();
    frame(message, version);
    frame(message, "1");
    frame(message, domain);
    frame(message, "127.0.0.1");
    frame(message, "");
    frame(message, mechanism);
    zmsg_addmem(message, key, key_size);
    return message;
}

static int judge(struct asker *asker, const char *domain, const uint8_t key[IDENTITY_KEY_SIZE])
{
    return judge_message(asker, question("1.0", domain, "CURVE", key, IDENTITY_KEY_SIZE), NULL);
}

static struct zap_entry entry_of(uint8_t byte, enum wire_role role)
{
    struct zap_entry entry = {.role = role, .label = "someone"};
    memset(entry.key, byte, sizeof entry.key);
    return entry;
}

static void an_unknown_key_is_refused(void **state)
{
    uint8_t key[IDENTITY_KEY_SIZE] = {99};
    assert_int_equal(judge(*state, ZAP_DOMAIN_AGENTS, key), 400);
    assert_int_equal(judge(*state, ZAP_DOMAIN_OPERATORS, key), 400);
}

static void a_key_is_admitted_as_soon_as_the_call_returns_and_its_text_is_the_user(void **state)
{
    struct asker *asker = *state;
    struct zap_entry entry = entry_of(1, WIRE_AGENT);
    zap_put(asker->zap, &entry);
    char user[64], expected[IDENTITY_Z85_SIZE];
    assert_int_equal(
        judge_message(asker, question("1.0", ZAP_DOMAIN_AGENTS, "CURVE", entry.key, 32), user),
        200);
    identity_z85(entry.key, expected);
    assert_string_equal(user, expected);
    zap_drop(asker->zap, entry.key);
    assert_int_equal(judge(asker, ZAP_DOMAIN_AGENTS, entry.key), 400);
}

static void each_role_has_one_socket(void **state)
{
    struct asker *asker = *state;
    static const struct {
        enum wire_role role;
        int agents, operators;
    } cases[] = {{WIRE_ENROL, 200, 400}, {WIRE_AGENT, 200, 400}, {WIRE_VIEWER, 400, 200},
        {WIRE_OPERATOR, 400, 200}, {WIRE_ADMIN, 400, 200}};
    for (uint8_t i = 0; i < 5; i++) {
        struct zap_entry entry = entry_of((uint8_t)(10 + i), cases[i].role);
        zap_put(asker->zap, &entry);
        assert_int_equal(judge(asker, ZAP_DOMAIN_AGENTS, entry.key), cases[i].agents);
        assert_int_equal(judge(asker, ZAP_DOMAIN_OPERATORS, entry.key), cases[i].operators);
        assert_int_equal(judge(asker, "", entry.key), 400);
        assert_int_equal(judge(asker, "other", entry.key), 400);
    }
}

static void expired_revoked_and_used_up_tokens_are_refused(void **state)
{
    struct asker *asker = *state;
    struct zap_entry entry = entry_of(20, WIRE_ENROL);
    entry.expires_wall_ns = clock_wall_ns() + 60 * NS_PER_S;
    zap_put(asker->zap, &entry);
    assert_int_equal(judge(asker, ZAP_DOMAIN_AGENTS, entry.key), 200);
    entry.expires_wall_ns = clock_wall_ns() - 1;
    zap_put(asker->zap, &entry);
    assert_int_equal(judge(asker, ZAP_DOMAIN_AGENTS, entry.key), 400);
    entry.expires_wall_ns = 0;
    entry.standing = ZAP_REVOKED;
    zap_put(asker->zap, &entry);
    assert_int_equal(judge(asker, ZAP_DOMAIN_AGENTS, entry.key), 400);
    entry.standing = ZAP_USED_UP;
    zap_put(asker->zap, &entry);
    assert_int_equal(judge(asker, ZAP_DOMAIN_AGENTS, entry.key), 400);
}

static void a_question_of_another_form_is_refused_and_the_handler_goes_on(void **state)
{
    struct asker *asker = *state;
    struct zap_entry entry = entry_of(30, WIRE_AGENT);
    zap_put(asker->zap, &entry);
    uint8_t *key = entry.key;
    assert_int_equal(
        judge_message(asker, question("2.0", ZAP_DOMAIN_AGENTS, "CURVE", key, 32), NULL), 400);
    assert_int_equal(
        judge_message(asker, question("1.0", ZAP_DOMAIN_AGENTS, "NULL", key, 32), NULL), 400);
    assert_int_equal(
        judge_message(asker, question("1.0", ZAP_DOMAIN_AGENTS, "CURVE", key, 31), NULL), 400);
    char domain[400];
    memset(domain, 'a', sizeof domain - 1);
    domain[sizeof domain - 1] = 0;
    assert_int_equal(judge_message(asker, question("1.0", domain, "CURVE", key, 32), NULL), 400);
    zmsg_t *longer = question("1.0", ZAP_DOMAIN_AGENTS, "CURVE", key, 32);
    frame(longer, "more");
    assert_int_equal(judge_message(asker, longer, NULL), 400);
    zmsg_t *shorter = zmsg_new();
    frame(shorter, "1.0");
    assert_int_equal(judge_message(asker, shorter, NULL), 400);
    assert_int_equal(judge(asker, ZAP_DOMAIN_AGENTS, key), 200);
}

static void a_flood_of_joining_hosts_is_shed_and_agents_are_not(void **state)
{
    struct asker *asker = *state;
    struct zap_entry token = entry_of(40, WIRE_ENROL), agent = entry_of(41, WIRE_AGENT);
    zap_put(asker->zap, &token);
    zap_put(asker->zap, &agent);
    bool shed = false;
    for (int i = 0; i < 20000 && !shed; i++)
        shed = judge(asker, ZAP_DOMAIN_AGENTS, token.key) == 300;
    assert_true(shed);
    assert_int_equal(judge(asker, ZAP_DOMAIN_AGENTS, agent.key), 200);
    assert_true(zap_count(asker->zap).shed > 0);
}

static void a_second_handler_in_a_process_is_refused(void **state)
{
    (void)state;
    assert_null(zap_new());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_key_is_refused),
        cmocka_unit_test(a_key_is_admitted_as_soon_as_the_call_returns_and_its_text_is_the_user),
        cmocka_unit_test(each_role_has_one_socket),
        cmocka_unit_test(expired_revoked_and_used_up_tokens_are_refused),
        cmocka_unit_test(a_question_of_another_form_is_refused_and_the_handler_goes_on),
        cmocka_unit_test(a_flood_of_joining_hosts_is_shed_and_agents_are_not),
        cmocka_unit_test(a_second_handler_in_a_process_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
