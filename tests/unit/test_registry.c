#include "meshtest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "registry.h"
#include "wire.h"

static void key_of(uint8_t key[IDENTITY_KEY_SIZE], uint8_t byte)
{
    memset(key, byte, IDENTITY_KEY_SIZE);
}

static struct agent *add(registry_t *registry, uint32_t id, const char *name, uint8_t byte)
{
    uint8_t key[IDENTITY_KEY_SIZE];
    key_of(key, byte);
    return registry_add(registry, id, name, key);
}

static void an_agent_is_found_by_id_name_and_key(void **state)
{
    (void)state;
    registry_t *registry = registry_new();
    struct agent *agent = add(registry, 0, "alpha", 1);
    assert_non_null(agent);
    assert_int_equal(agent->id, 1);
    assert_ptr_equal(registry_by_id(registry, 1), agent);
    assert_ptr_equal(registry_by_name(registry, "alpha"), agent);
    assert_ptr_equal(registry_by_key(registry, agent->key), agent);
    assert_null(registry_by_id(registry, 2));
    assert_null(registry_by_name(registry, "Alpha"));
    registry_destroy(&registry);
    assert_null(registry);
}

static void a_name_or_key_or_id_in_use_is_refused(void **state)
{
    (void)state;
    registry_t *registry = registry_new();
    assert_non_null(add(registry, 7, "alpha", 1));
    assert_null(add(registry, 0, "alpha", 2));
    assert_null(add(registry, 0, "beta", 1));
    assert_null(add(registry, 7, "beta", 2));
    assert_int_equal(registry_count(registry), 1);
    registry_destroy(&registry);
}

static void an_id_is_never_given_twice(void **state)
{
    (void)state;
    registry_t *registry = registry_new();
    assert_int_equal(add(registry, 41, "old", 1)->id, 41);
    assert_int_equal(add(registry, 0, "next", 2)->id, 42);
    registry_remove(registry, 42);
    assert_null(registry_by_name(registry, "next"));
    assert_int_equal(add(registry, 0, "next", 2)->id, 43);
    registry_destroy(&registry);
}

static void walking_goes_by_rising_id_whatever_the_order_of_adding(void **state)
{
    (void)state;
    registry_t *registry = registry_new();
    static const uint32_t ids[] = {30, 10, 20, 50, 40};
    for (uint8_t i = 0; i < 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "n%u", ids[i]);
        assert_non_null(add(registry, ids[i], name, (uint8_t)(i + 1)));
    }
    registry_remove(registry, 30);
    uint32_t seen[5] = {0};
    size_t count = 0;
    for (struct agent *agent = registry_next(registry, 0); agent;
         agent = registry_next(registry, agent->id))
        seen[count++] = agent->id;
    assert_int_equal(count, 4);
    static const uint32_t expected[] = {10, 20, 40, 50};
    assert_memory_equal(seen, expected, sizeof expected);
    assert_null(registry_next(registry, UINT32_MAX));
    registry_destroy(&registry);
}

static void pointers_survive_the_growth_of_the_table(void **state)
{
    (void)state;
    registry_t *registry = registry_new();
    struct agent *first = add(registry, 0, "first", 0);
    for (unsigned i = 1; i < 200; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%u", i);
        assert_non_null(add(registry, 0, name, (uint8_t)i));
    }
    assert_ptr_equal(registry_by_id(registry, 1), first);
    assert_string_equal(first->name, "first");
    registry_destroy(&registry);
}

static void an_agent_that_never_spoke_is_lost(void **state)
{
    (void)state;
    registry_t *registry = registry_new();
    struct agent *agent = add(registry, 0, "alpha", 1);
    assert_false(agent_connected(agent));
    assert_int_equal(agent_state(agent, false), MP__AGENT_STATE__AGENT_LOST);
    agent->seen_mono_ns = 5;
    assert_int_equal(agent_state(agent, false), MP__AGENT_STATE__READY);
    assert_int_equal(agent_state(agent, true), MP__AGENT_STATE__AGENT_BUSY);
    agent->draining = true;
    assert_int_equal(agent_state(agent, true), MP__AGENT_STATE__DRAINING);
    agent->lost_mono_ns = 9;
    assert_int_equal(agent_state(agent, true), MP__AGENT_STATE__AGENT_LOST);
    registry_destroy(&registry);
}

static void an_agent_says_why_it_cannot_run_a_test(void **state)
{
    (void)state;
    registry_t *registry = registry_new();
    struct agent *agent = add(registry, 0, "alpha", 1);
    char text[256];
    assert_non_null(strstr(agent_cannot(agent, MP__TEST_KIND__TCP, text), "alpha"));

    char *tests[] = {(char *)"tcp", (char *)"udp", (char *)"sctp"};
    Mp__Capabilities can = MP__CAPABILITIES__INIT;
    can.tcp = can.udp = true;
    can.sctp = false;
    can.sctp_reason = (char *)"module missing";
    can.tests = tests;
    can.n_tests = 3;
    agent->capabilities = (Mp__Capabilities *)wire_copy(&can.base);
    assert_null(agent_cannot(agent, MP__TEST_KIND__TCP, text));
    assert_null(agent_cannot(agent, MP__TEST_KIND__UDP, text));
    assert_non_null(strstr(agent_cannot(agent, MP__TEST_KIND__SCTP, text), "module missing"));
    assert_non_null(strstr(agent_cannot(agent, MP__TEST_KIND__PATH, text), "path"));
    registry_destroy(&registry);
}

static void the_wire_form_carries_labels_addresses_and_fingerprint(void **state)
{
    (void)state;
    registry_t *registry = registry_new();
    struct agent *agent = add(registry, 0, "alpha", 1);
    agent->labels = calloc(2, sizeof *agent->labels);
    strcpy(agent->labels[0].key, "rack");
    strcpy(agent->labels[0].value, "r1");
    strcpy(agent->labels[1].key, "zone");
    strcpy(agent->labels[1].value, "x");
    agent->label_count = 2;
    strcpy(agent->addresses[0], "10.0.0.1");
    agent->address_count = 1;
    assert_string_equal(agent_label(agent, "zone"), "x");
    assert_null(agent_label(agent, "row"));

    Mp__AgentInfo info;
    agent_info_fill(agent, false, &info);
    assert_string_equal(info.name, "alpha");
    assert_int_equal(info.n_labels, 2);
    assert_string_equal(info.labels[1]->value, "x");
    assert_int_equal(info.n_addresses, 1);
    assert_int_equal(strlen(info.fingerprint), IDENTITY_FINGERPRINT_SIZE - 1);
    assert_false(info.has_clock_offset_s);
    agent_info_release(&info);
    assert_null(info.labels);
    registry_destroy(&registry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_agent_is_found_by_id_name_and_key),
        cmocka_unit_test(a_name_or_key_or_id_in_use_is_refused),
        cmocka_unit_test(an_id_is_never_given_twice),
        cmocka_unit_test(walking_goes_by_rising_id_whatever_the_order_of_adding),
        cmocka_unit_test(pointers_survive_the_growth_of_the_table),
        cmocka_unit_test(an_agent_that_never_spoke_is_lost),
        cmocka_unit_test(an_agent_says_why_it_cannot_run_a_test),
        cmocka_unit_test(the_wire_form_carries_labels_addresses_and_fingerprint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
