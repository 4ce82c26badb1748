// The border of the control plane: who may say what, what is refused, and what a message may cost.

#include "meshtest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "wire_sample.h"

static const enum wire_role all_roles[] = {
    WIRE_ENROL, WIRE_AGENT, WIRE_VIEWER, WIRE_OPERATOR, WIRE_ADMIN, WIRE_CONTROLLER};
#define BODY_MAX 128

// Packs as it is, also what is wrong.
static int border(Mp__Envelope *envelope, enum wire_role sender, bool in_session, char text[256])
{
    size_t size;
    int error;
    uint8_t *bytes = wire_pack(envelope, &size);
    assert_non_null(bytes);
    Mp__Envelope *seen = wire_unpack(bytes, size, sender, in_session, &error, text);
    assert_true((seen == NULL) == (error != 0));
    wire_free(&seen);
    free(bytes);
    return error;
}

static enum wire_role some_sender(Mp__Envelope__BodyCase body)
{
    const struct wire_rule *rule = wire_rule(body);
    for (size_t i = 0; i < sizeof all_roles / sizeof *all_roles; i++)
        if (rule->roles & all_roles[i])
            return all_roles[i];
    fail_msg("%s: nobody may send it", rule->name);
    return WIRE_AGENT;
}

static void every_message_passes_from_those_who_may_and_from_nobody_else(void **state)
{
    (void)state;
    unsigned bodies = 0;
    for (int body = 1; body <= BODY_MAX; body++) {
        Mp__Envelope *sample = wire_sample((Mp__Envelope__BodyCase)body);
        const struct wire_rule *rule = wire_rule((Mp__Envelope__BodyCase)body);
        assert_true((sample == NULL) == (rule == NULL)); // a body without a rule is a hole
        if (!sample)
            continue;
        bodies++;
        for (size_t i = 0; i < 2 * sizeof all_roles / sizeof *all_roles; i++) {
            char text[256];
            enum wire_role role = all_roles[i / 2];
            bool inside = i % 2;
            bool may =
                (rule->roles & role) && (rule->states & (inside ? WIRE_INSIDE : WIRE_OUTSIDE));
            int error = border(sample, role, inside, text);
            if (error != (may ? 0 : MESH_E_FORBIDDEN))
                fail_msg("%s from %d: %d %s", rule->name, role, error, text);
        }
        wire_sample_free(&sample);
    }
    assert_int_equal(bodies, 58);
}

static void strangers_of_the_control_plane_have_one_word(void **state)
{
    (void)state;
    // A token enrols and does nothing else; an agent cannot start a run or make a token.
    for (int body = 1; body <= BODY_MAX; body++) {
        const struct wire_rule *rule = wire_rule((Mp__Envelope__BodyCase)body);
        if (!rule)
            continue;
        assert_true(!(rule->roles & WIRE_ENROL) || body == MP__ENVELOPE__BODY_ENROL);
        assert_true(!(rule->roles & WIRE_CONTROLLER) || rule->roles == WIRE_CONTROLLER);
        if (rule->mutates)
            assert_false(rule->roles & (WIRE_AGENT | WIRE_ENROL));
    }
    assert_int_equal(wire_rule(MP__ENVELOPE__BODY_TOKEN_CREATE)->roles, WIRE_ADMIN);
    assert_int_equal(wire_rule(MP__ENVELOPE__BODY_OPERATOR_ADD)->roles, WIRE_ADMIN);
    assert_int_equal(wire_rule(MP__ENVELOPE__BODY_RUN_CANCEL)->roles, WIRE_OPERATOR | WIRE_ADMIN);
}

static void other_versions_are_named(void **state)
{
    (void)state;
    char text[256];
    Mp__Envelope *sample = wire_sample(MP__ENVELOPE__BODY_HEARTBEAT);
    sample->version = PROTO_VERSION + 1;
    assert_int_equal(border(sample, WIRE_AGENT, true, text), MESH_E_VERSION);
    assert_non_null(strstr(text, "version 2"));
    wire_sample_free(&sample);
    // Who says hello with another version gets words, so the message itself is let through.
    sample = wire_sample(MP__ENVELOPE__BODY_HELLO);
    sample->version = 99;
    assert_int_equal(border(sample, WIRE_AGENT, false, text), 0);
    wire_sample_free(&sample);
}

// ------------------------------------------------------------------------- bad examples

#define BAD(function, body, member, statement)                                                     \
    static void function(Mp__Envelope *envelope)                                                   \
    {                                                                                              \
        __typeof__(envelope->member) m = envelope->member;                                         \
        statement;                                                                                 \
    }

static char control_text[] = "bell\a", broken_text[] = "\xc3", no_address[] = "10.0.0",
            no_name[] = "-x", empty[] = "", two_words[] = "a b";
static char long_text[1100];

BAD(no_port, HELLO, hello, m->data_port = 0)
BAD(large_port, HELLO, hello, m->data_port = 65536)
BAD(empty_range, HELLO, hello, m->version_min = 2)
BAD(control_character, HELLO, hello, free(m->boot_id); m->boot_id = strdup(control_text))
BAD(half_a_character, HELLO, hello, free(m->software); m->software = strdup(broken_text))
BAD(long_boot_id, HELLO, hello, free(m->boot_id); m->boot_id = strndup(long_text, 40))
BAD(short_instance, HELLO, hello, m->instance.len = 15)
BAD(no_such_address, HELLO, hello, free(m->addresses[0]); m->addresses[0] = strdup(no_address))
BAD(bad_label, HELLO, hello, free(m->labels[0]->key); m->labels[0]->key = strdup(two_words))
BAD(bad_agent_name, ENROL, enrol, free(m->name); m->name = strdup(no_name))
BAD(short_key, ENROL, enrol, m->public_key.len = 31)
BAD(long_words, GOODBYE, goodbye, free(m->text); m->text = strdup(long_text))
BAD(no_session_id, HEARTBEAT, heartbeat, (void)m; envelope->session.len = 3)
BAD(negative_time, PREPARE, prepare, m->ticket->limit_ns = -1)
BAD(no_limit, PREPARE, prepare, m->ticket->limit_ns = 0)
BAD(no_expiry, PREPARE, prepare, m->ticket->expiry_ns = 0)
BAD(no_direction, PREPARE, prepare, m->ticket->sends = m->ticket->receives = 0)
BAD(no_peer_port, START, start, m->ticket->peer_port = 0)
BAD(no_peer_name, START, start, free(m->ticket->peer_name); m->ticket->peer_name = strdup(empty))
BAD(short_secret, START, start, m->ticket->key.len = 16)
BAD(too_short, START, start, m->spec->duration_ns = 99999999)
BAD(too_many_streams, START, start, m->spec->parallel = 129)
BAD(strange_kind, START, start, m->spec->kind = 99)
BAD(no_number, PROGRESS, progress, m->interval->start_s = NAN)
BAD(endless, PROGRESS, progress, m->interval->bandwidth_bps = INFINITY)
BAD(below_zero, PROGRESS, progress, m->interval->duration_s = -1)
BAD(no_sequence, RESULT, result, m->sequence = 0)
BAD(strange_outcome, RESULT, result, m->report->outcome = 17)
BAD(part_beyond, LIGHT_RESULT, light_result, m->part = m->parts)
BAD(no_parts, LIGHT_ARM, light_arm, m->parts = 0)
BAD(no_probe_port, LIGHT_ARM, light_arm, m->peers[0]->peer_port = 0)
BAD(no_tests, RUN_REQUEST, run_request, mp__test_spec__free_unpacked(m->tests[0], NULL);
    m->n_tests = 0)
BAD(many_retries, RUN_REQUEST, run_request, m->retries = 101)
BAD(never_valid, TOKEN_CREATE, token_create, m->uses = 0)
BAD(expired, TOKEN_CREATE, token_create, m->expires_ns = -5)
BAD(bad_operator, OPERATOR_ADD, operator_add, free(m->name); m->name = strdup(no_name))

static void every_rule_of_the_validators_refuses_its_bad_example(void **state)
{
    (void)state;
    static const struct {
        Mp__Envelope__BodyCase body;
        void (*spoil)(Mp__Envelope *envelope);
        const char *words;
    } rows[] = {{MP__ENVELOPE__BODY_HELLO, no_port, "port"},
        {MP__ENVELOPE__BODY_HELLO, large_port, "port"},
        {MP__ENVELOPE__BODY_HELLO, empty_range, "version range"},
        {MP__ENVELOPE__BODY_HELLO, control_character, "boot_id"},
        {MP__ENVELOPE__BODY_HELLO, half_a_character, "software"},
        {MP__ENVELOPE__BODY_HELLO, long_boot_id, "boot id"},
        {MP__ENVELOPE__BODY_HELLO, short_instance, "instance"},
        {MP__ENVELOPE__BODY_HELLO, no_such_address, "addresses"},
        {MP__ENVELOPE__BODY_HELLO, bad_label, "label"},
        {MP__ENVELOPE__BODY_ENROL, bad_agent_name, "name"},
        {MP__ENVELOPE__BODY_ENROL, short_key, "public_key"},
        {MP__ENVELOPE__BODY_GOODBYE, long_words, "text"},
        {MP__ENVELOPE__BODY_HEARTBEAT, no_session_id, "session"},
        {MP__ENVELOPE__BODY_PREPARE, negative_time, "limit_ns"},
        {MP__ENVELOPE__BODY_PREPARE, no_limit, "limits"},
        {MP__ENVELOPE__BODY_PREPARE, no_expiry, "limits"},
        {MP__ENVELOPE__BODY_PREPARE, no_direction, "neither"},
        {MP__ENVELOPE__BODY_START, no_peer_port, "port"},
        {MP__ENVELOPE__BODY_START, no_peer_name, "peer_name"},
        {MP__ENVELOPE__BODY_START, short_secret, "key"},
        {MP__ENVELOPE__BODY_START, too_short, "100ms"},
        {MP__ENVELOPE__BODY_START, too_many_streams, "128"},
        {MP__ENVELOPE__BODY_START, strange_kind, "kind"},
        {MP__ENVELOPE__BODY_PROGRESS, no_number, "start_s"},
        {MP__ENVELOPE__BODY_PROGRESS, endless, "bandwidth_bps"},
        {MP__ENVELOPE__BODY_PROGRESS, below_zero, "duration_s"},
        {MP__ENVELOPE__BODY_RESULT, no_sequence, "sequence"},
        {MP__ENVELOPE__BODY_RESULT, strange_outcome, "outcome"},
        {MP__ENVELOPE__BODY_LIGHT_RESULT, part_beyond, "part"},
        {MP__ENVELOPE__BODY_LIGHT_ARM, no_parts, "part"},
        {MP__ENVELOPE__BODY_LIGHT_ARM, no_probe_port, "port"},
        {MP__ENVELOPE__BODY_RUN_REQUEST, no_tests, "test"},
        {MP__ENVELOPE__BODY_RUN_REQUEST, many_retries, "retries"},
        {MP__ENVELOPE__BODY_TOKEN_CREATE, never_valid, "never valid"},
        {MP__ENVELOPE__BODY_TOKEN_CREATE, expired, "expires_ns"},
        {MP__ENVELOPE__BODY_OPERATOR_ADD, bad_operator, "name"}};
    memset(long_text, 'x', sizeof long_text - 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[256] = "";
        Mp__Envelope *sample = wire_sample(rows[i].body);
        rows[i].spoil(sample);
        bool inside = wire_rule(rows[i].body)->states & WIRE_INSIDE;
        int error = border(sample, some_sender(rows[i].body), inside, text);
        if (error != MESH_E_INVALID || !strstr(text, rows[i].words))
            fail_msg("row %zu (%s): %d %s", i, rows[i].words, error, text);
        wire_sample_free(&sample);
    }
}

// ----------------------------------------------------------------------------------- cost

static void a_message_over_the_cap_is_refused_unread(void **state)
{
    (void)state;
    int error;
    uint8_t *bytes = calloc(1, WIRE_MESSAGE_MAX + 1);
    assert_null(wire_unpack(bytes, WIRE_MESSAGE_MAX + 1, WIRE_AGENT, true, &error, NULL));
    assert_int_equal(error, MESH_E_TOO_LARGE);
    free(bytes);
}

static void a_small_message_that_unpacks_to_much_is_refused(void **state)
{
    (void)state;
    // A HELLO whose list of labels has 100,000 empty entries of two bytes each: over 5 MB unpacked.
    static const size_t entries = 100000;
    uint8_t *bytes = malloc(2 * entries + 16), *at = bytes;
    int error;
    *at++ = 0x08; // version
    *at++ = 1;
    *at++ = 0xa2; // field 20, length-delimited
    *at++ = 0x01;
    size_t inner = 2 * entries;
    *at++ = (uint8_t)(inner | 0x80);
    *at++ = (uint8_t)(inner >> 7 | 0x80);
    *at++ = (uint8_t)(inner >> 14);
    for (size_t i = 0; i < entries; i++) {
        *at++ = 11 << 3 | 2; // labels
        *at++ = 0;
    }
    assert_null(wire_unpack(bytes, (size_t)(at - bytes), WIRE_AGENT, false, &error, NULL));
    assert_int_equal(error, MESH_E_DECODE);
    free(bytes);
}

static void no_prefix_and_no_noise_is_a_message(void **state)
{
    (void)state;
    size_t size;
    int error;
    Mp__Envelope *sample = wire_sample(MP__ENVELOPE__BODY_HELLO);
    uint8_t *bytes = wire_pack(sample, &size);
    for (size_t cut = 0; cut < size; cut++) {
        Mp__Envelope *seen = wire_unpack(bytes, cut, WIRE_AGENT, false, &error, NULL);
        assert_null(seen);
    }
    free(bytes);
    wire_sample_free(&sample);
}

static void fields_of_later_versions_are_dropped_at_the_border(void **state)
{
    (void)state;
    // A GOODBYE with a field to come, and one beside the impossible number 0, which the decoder
    // takes in two bytes and would refuse in the one byte that it packs it in.
    static const uint8_t bytes[] = {0x08, 1, 0xe2, 0x01, 3, 0x7a, 1, 'x'};
    int error;
    Mp__Envelope *seen = wire_unpack(bytes, sizeof bytes, WIRE_AGENT, true, &error, NULL);
    assert_non_null(seen);
    assert_int_equal(seen->goodbye->base.n_unknown_fields, 0);
    wire_free(&seen);
    static const uint8_t zero[] = {0x80, 0x00, 0x00, 0x08, 1, 0xe2, 0x01, 0};
    seen = wire_unpack(zero, sizeof zero, WIRE_AGENT, true, &error, NULL);
    assert_non_null(seen);
    ProtobufCMessage *copy = wire_copy(&seen->base); // aborts if the copy cannot be read
    protobuf_c_message_free_unpacked(copy, NULL);
    wire_free(&seen);
}

static void stored_cells_are_checked_as_well(void **state)
{
    (void)state;
    Mp__Cell cell = MP__CELL__INIT;
    uint8_t bytes[128];
    cell.kind = MP__TEST_KIND__TCP;
    cell.state = MP__CELL_STATE__OK;
    size_t size = mp__cell__pack(&cell, bytes);
    Mp__Cell *seen = wire_cell_unpack(bytes, size);
    assert_non_null(seen);
    mp__cell__free_unpacked(seen, NULL);
    assert_null(wire_cell_unpack(bytes, size - 1));
    cell.has_bandwidth_bps = true;
    cell.bandwidth_bps = NAN;
    size = mp__cell__pack(&cell, bytes);
    assert_null(wire_cell_unpack(bytes, size));
}

static void a_message_that_cannot_be_sent_is_not_packed(void **state)
{
    (void)state;
    size_t size;
    Mp__Envelope *sample = wire_sample(MP__ENVELOPE__BODY_GOODBYE);
    free(sample->goodbye->text);
    sample->goodbye->text = malloc(WIRE_MESSAGE_MAX + 1);
    memset(sample->goodbye->text, 'x', WIRE_MESSAGE_MAX);
    sample->goodbye->text[WIRE_MESSAGE_MAX] = '\0';
    assert_null(wire_pack(sample, &size));
    wire_sample_free(&sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_passes_from_those_who_may_and_from_nobody_else),
        cmocka_unit_test(strangers_of_the_control_plane_have_one_word),
        cmocka_unit_test(other_versions_are_named),
        cmocka_unit_test(every_rule_of_the_validators_refuses_its_bad_example),
        cmocka_unit_test(a_message_over_the_cap_is_refused_unread),
        cmocka_unit_test(a_small_message_that_unpacks_to_much_is_refused),
        cmocka_unit_test(no_prefix_and_no_noise_is_a_message),
        cmocka_unit_test(fields_of_later_versions_are_dropped_at_the_border),
        cmocka_unit_test(stored_cells_are_checked_as_well),
        cmocka_unit_test(a_message_that_cannot_be_sent_is_not_packed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
