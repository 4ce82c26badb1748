#include "meshtest.h"

#include <string.h>

#include "control.h"

static struct ticket_keys keys_of(uint8_t fill)
{
    uint8_t id[TICKET_ID_SIZE], key[TICKET_KEY_SIZE];
    struct ticket_keys keys;
    memset(id, 7, sizeof id);
    memset(key, fill, sizeof key);
    ticket_derive(id, key, &keys);
    return keys;
}

static const struct control sample = {.type = CONTROL_FINAL,
    .phase = CONTROL_DONE,
    .final_seen = true,
    .full = true,
    .sequence = 0x01020304,
    .bytes = UINT64_MAX,
    .packets = 2,
    .first_sequence = 3,
    .end_sequence = 4,
    .lost_sender = 5,
    .drops_receiver = 6,
    .window_ns = -7,
    .missing = 8,
    .path_mtu = 9};

static void a_message_comes_back_as_it_was(void **state)
{
    (void)state;
    struct ticket_keys keys = keys_of(1);
    uint8_t bytes[CONTROL_SIZE];
    struct control back;
    control_pack(&sample, &keys, 1, bytes);
    assert_true(control_unpack(bytes, sizeof bytes, &keys, 1, &back));
    assert_int_equal(back.type, sample.type);
    assert_int_equal(back.phase, sample.phase);
    assert_true(back.final_seen && back.full);
    assert_int_equal(back.sequence, sample.sequence);
    assert_true(back.bytes == sample.bytes && back.packets == 2);
    assert_true(back.first_sequence == 3 && back.end_sequence == 4 && back.lost_sender == 5);
    assert_true(back.drops_receiver == 6 && back.window_ns == -7 && back.missing == 8);
    assert_true(back.path_mtu == 9);
}

static void what_is_told_of_a_path_comes_back_as_it_was(void **state)
{
    (void)state;
    struct ticket_keys keys = keys_of(1);
    uint8_t bytes[CONTROL_SIZE];
    struct control back, path = {.type = CONTROL_PATH,
                             .phase = CONTROL_WINDOW,
                             .sequence = 9,
                             .retransmits = 1,
                             .falls = 2,
                             .sawtooth_ns = 3,
                             .rtt_ns = INT64_MAX};
    control_pack(&path, &keys, 0, bytes);
    assert_true(control_unpack(bytes, sizeof bytes, &keys, 0, &back));
    assert_int_equal(back.type, CONTROL_PATH);
    assert_true(back.retransmits == 1 && back.falls == 2);
    assert_true(back.sawtooth_ns == 3 && back.rtt_ns == INT64_MAX);
    assert_true(back.bytes == 0 && back.missing == 0);
}

static void a_reflected_message_is_refused(void **state)
{
    (void)state;
    struct ticket_keys keys = keys_of(1);
    uint8_t bytes[CONTROL_SIZE];
    struct control back;
    control_pack(&sample, &keys, 0, bytes);
    assert_false(control_unpack(bytes, sizeof bytes, &keys, 1, &back));
}

static void another_test_s_key_is_refused(void **state)
{
    (void)state;
    struct ticket_keys keys = keys_of(1), others = keys_of(2);
    uint8_t bytes[CONTROL_SIZE];
    struct control back;
    control_pack(&sample, &keys, 0, bytes);
    assert_false(control_unpack(bytes, sizeof bytes, &others, 0, &back));
}

static void every_changed_bit_and_every_other_size_is_refused(void **state)
{
    (void)state;
    struct ticket_keys keys = keys_of(1);
    uint8_t bytes[CONTROL_SIZE + 1] = {0};
    struct control back;
    control_pack(&sample, &keys, 0, bytes);
    for (size_t bit = 0; bit < 8 * CONTROL_SIZE; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(control_unpack(bytes, CONTROL_SIZE, &keys, 0, &back));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t size = 0; size <= sizeof bytes; size++)
        assert_int_equal(control_unpack(bytes, size, &keys, 0, &back), size == CONTROL_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_comes_back_as_it_was),
        cmocka_unit_test(what_is_told_of_a_path_comes_back_as_it_was),
        cmocka_unit_test(a_reflected_message_is_refused),
        cmocka_unit_test(another_test_s_key_is_refused),
        cmocka_unit_test(every_changed_bit_and_every_other_size_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
