#include "meshtest.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "credentials.h"
#include "peek.h"
#include "sequences.h"

#define NOW (INT64_C(1000) * NS_PER_S)

static struct token *make(credentials_t *self, uint32_t uses, struct identity *key)
{
    struct token template = {.created_wall_ns = NOW,
        .expires_wall_ns = NOW + 60 * NS_PER_S,
        .uses = uses,
        .by = "admin"};
    return credentials_create_token(self, &template, key);
}

static void a_fresh_token_is_found_by_id_and_key_and_keeps_no_secret(void **state)
{
    (void)state;
    credentials_t *self = credentials_new();
    struct identity key;
    struct token *token = make(self, 1, &key);
    assert_non_null(token);
    assert_int_equal(strlen(token->id), 8);
    assert_int_equal(strspn(token->id, "0123456789abcdef"), 8);
    assert_ptr_equal(credentials_token_by_id(self, token->id), token);
    assert_ptr_equal(credentials_token_by_key(self, key.public_key), token);
    assert_null(memmem(token, sizeof *token, key.secret_key, sizeof key.secret_key));
    assert_null(token_fault(token, NOW));
    credentials_destroy(&self);
}

static void a_used_up_token_is_refused(void **state)
{
    (void)state;
    credentials_t *self = credentials_new();
    struct identity key;
    struct token *token = make(self, 2, &key);
    token->used = 1;
    assert_null(token_fault(token, NOW));
    token->used = 2;
    assert_string_equal(token_fault(token, NOW), "is used up");
    credentials_destroy(&self);
}

static void a_token_expires_at_its_moment(void **state)
{
    (void)state;
    credentials_t *self = credentials_new();
    struct identity key;
    struct token *token = make(self, 2, &key);
    assert_null(token_fault(token, NOW + 60 * NS_PER_S - 1));
    assert_string_equal(token_fault(token, NOW + 60 * NS_PER_S), "has expired");
    credentials_destroy(&self);
}

static void a_revoked_token_stays_revoked_after_restoring(void **state)
{
    (void)state;
    credentials_t *self = credentials_new(), *later = credentials_new();
    struct identity key;
    struct token *token = make(self, 2, &key);
    token->revoked = true;
    assert_string_equal(token_fault(token, NOW), "was revoked");
    struct token *restored = credentials_restore_token(later, token);
    assert_non_null(restored);
    assert_string_equal(token_fault(restored, NOW), "was revoked");
    assert_null(credentials_restore_token(later, token));
    credentials_destroy(&self);
    credentials_destroy(&later);
}

static void labels_of_a_token_are_its_own_copy(void **state)
{
    (void)state;
    credentials_t *self = credentials_new();
    struct label labels[1] = {{"zone", "x"}};
    struct token template = {.created_wall_ns = NOW,
        .expires_wall_ns = NOW + 1,
        .uses = 1,
        .labels = labels,
        .label_count = 1};
    struct identity key;
    struct token *token = credentials_create_token(self, &template, &key);
    strcpy(labels[0].value, "changed");
    assert_string_equal(token->labels[0].value, "x");
    credentials_destroy(&self);
}

static void two_operators_cannot_share_a_name_or_a_key(void **state)
{
    (void)state;
    credentials_t *self = credentials_new();
    struct operator_ first = {.name = "ann", .role = MP__ROLE__ADMIN, .public_key = {1}};
    struct operator_ same_name = {.name = "ann", .role = MP__ROLE__VIEWER, .public_key = {2}};
    struct operator_ same_key = {.name = "bob", .role = MP__ROLE__VIEWER, .public_key = {1}};
    assert_non_null(credentials_add_operator(self, &first));
    assert_null(credentials_add_operator(self, &same_name));
    assert_null(credentials_add_operator(self, &same_key));
    struct operator_ *ann = credentials_operator_by_key(self, first.public_key);
    assert_string_equal(ann->name, "ann");
    credentials_remove_operator(self, ann);
    assert_null(credentials_operator_by_name(self, "ann"));
    assert_int_equal(credentials_operator_count(self), 0);
    credentials_destroy(&self);
}

static void an_acknowledgement_stops_below_the_first_gap(void **state)
{
    (void)state;
    struct sequences self;
    sequences_reset(&self);
    for (uint64_t i = 1; i <= 3; i++)
        assert_int_equal(sequences_arrive(&self, i), SEQUENCE_FRESH);
    assert_false(sequences_done(&self, 2));
    assert_false(sequences_done(&self, 3));
    assert_int_equal(self.acknowledged, 0);
    assert_true(sequences_done(&self, 1));
    assert_int_equal(self.acknowledged, 3);
}

static void a_result_that_came_twice_is_handed_on_once(void **state)
{
    (void)state;
    struct sequences self;
    sequences_reset(&self);
    assert_int_equal(sequences_arrive(&self, 1), SEQUENCE_FRESH);
    assert_int_equal(sequences_arrive(&self, 1), SEQUENCE_DUPLICATE);
    assert_true(sequences_done(&self, 1));
    assert_int_equal(sequences_arrive(&self, 1), SEQUENCE_SAFE);
    assert_false(sequences_done(&self, 1));
}

static void a_restarted_controller_begins_where_the_agent_is(void **state)
{
    (void)state;
    struct sequences self;
    sequences_reset(&self);
    assert_int_equal(sequences_arrive(&self, 57), SEQUENCE_FRESH);
    assert_true(sequences_done(&self, 57));
    assert_int_equal(self.acknowledged, 57);
}

static void a_result_far_ahead_is_not_taken(void **state)
{
    (void)state;
    struct sequences self;
    sequences_reset(&self);
    assert_int_equal(sequences_arrive(&self, 1), SEQUENCE_FRESH);
    assert_int_equal(sequences_arrive(&self, SEQUENCES_WINDOW), SEQUENCE_FRESH);
    assert_int_equal(sequences_arrive(&self, SEQUENCES_WINDOW + 1), SEQUENCE_BEYOND);
    assert_int_equal(sequences_arrive(&self, 0), SEQUENCE_BEYOND);
    assert_int_equal(sequences_arrive(&self, UINT64_MAX), SEQUENCE_BEYOND);
    assert_false(sequences_done(&self, UINT64_MAX));
}

static void the_window_goes_round_many_times(void **state)
{
    (void)state;
    struct sequences self;
    sequences_reset(&self);
    for (uint64_t i = 1; i <= 5 * SEQUENCES_WINDOW; i++) {
        assert_int_equal(sequences_arrive(&self, i), SEQUENCE_FRESH);
        assert_true(sequences_done(&self, i));
    }
    assert_int_equal(self.acknowledged, 5 * SEQUENCES_WINDOW);
}

static void the_number_of_a_request_is_found_without_unpacking(void **state)
{
    (void)state;
    // version 1, 3 bytes of field 2, request 300, then field 80.
    static const uint8_t bytes[] = {8, 1, 18, 3, 'a', 'b', 'c', 24, 0xac, 2, 0x82, 5, 0};
    uint64_t request = 0;
    assert_true(peek_request(bytes, sizeof bytes, &request));
    assert_int_equal(request, 300);
}

static void bytes_that_end_early_have_no_number(void **state)
{
    (void)state;
    static const uint8_t whole[] = {8, 1, 18, 3, 'a', 'b', 'c', 24, 0xac, 2};
    for (size_t size = 0; size < sizeof whole; size++) {
        uint64_t request = 42;
        uint8_t *copy = malloc(size + 1);
        memcpy(copy, whole, size);
        assert_false(peek_request(copy, size, &request));
        assert_int_equal(request, 42);
        free(copy);
    }
    static const uint8_t long_field[] = {
        18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1};
    static const uint8_t endless[] = {
        0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0};
    static const uint8_t group[] = {27, 24, 1};
    uint64_t request;
    assert_false(peek_request(long_field, sizeof long_field, &request));
    assert_false(peek_request(endless, sizeof endless, &request));
    assert_false(peek_request(group, sizeof group, &request));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_token_is_found_by_id_and_key_and_keeps_no_secret),
        cmocka_unit_test(a_used_up_token_is_refused),
        cmocka_unit_test(a_token_expires_at_its_moment),
        cmocka_unit_test(a_revoked_token_stays_revoked_after_restoring),
        cmocka_unit_test(labels_of_a_token_are_its_own_copy),
        cmocka_unit_test(two_operators_cannot_share_a_name_or_a_key),
        cmocka_unit_test(an_acknowledgement_stops_below_the_first_gap),
        cmocka_unit_test(a_result_that_came_twice_is_handed_on_once),
        cmocka_unit_test(a_restarted_controller_begins_where_the_agent_is),
        cmocka_unit_test(a_result_far_ahead_is_not_taken),
        cmocka_unit_test(the_window_goes_round_many_times),
        cmocka_unit_test(the_number_of_a_request_is_found_without_unpacking),
        cmocka_unit_test(bytes_that_end_early_have_no_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
