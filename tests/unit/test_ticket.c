// The keyed handshake of the data plane.

#include "meshtest.h"

#include "ticket.h"

struct parties {
    struct ticket_keys keys, others;
    uint8_t nonce_c[TICKET_NONCE_SIZE], nonce_l[TICKET_NONCE_SIZE];
};

static void meet(struct parties *parties)
{
    uint8_t id[TICKET_ID_SIZE] = {1, 2, 3}, key[TICKET_KEY_SIZE] = {4, 5, 6};
    ticket_derive(id, key, &parties->keys);
    key[31] ^= 1;
    ticket_derive(id, key, &parties->others);
    ticket_random(parties->nonce_c, TICKET_NONCE_SIZE);
    ticket_random(parties->nonce_l, TICKET_NONCE_SIZE);
}

static void both_ends_prove_that_they_hold_the_key(void **state)
{
    (void)state;
    struct parties p;
    uint8_t open[TICKET_OPEN_SIZE], answer[TICKET_ANSWER_SIZE], proof[TICKET_PROOF_SIZE];
    uint8_t seen_c[TICKET_NONCE_SIZE], seen_l[TICKET_NONCE_SIZE], stream;
    const uint8_t *id;
    meet(&p);
    ticket_make_open(&p.keys, 3, p.nonce_c, open);
    assert_int_equal(ticket_peek(open, sizeof open, &id, &stream), TICKET_OPEN);
    assert_memory_equal(id, p.keys.id, TICKET_ID_SIZE);
    assert_int_equal(stream, 3);
    assert_true(ticket_check_open(&p.keys, open, sizeof open, seen_c));
    assert_memory_equal(seen_c, p.nonce_c, TICKET_NONCE_SIZE);
    ticket_make_answer(&p.keys, 3, seen_c, p.nonce_l, answer);
    assert_true(ticket_check_answer(&p.keys, answer, sizeof answer, 3, p.nonce_c, seen_l));
    assert_memory_equal(seen_l, p.nonce_l, TICKET_NONCE_SIZE);
    ticket_make_proof(&p.keys, 3, p.nonce_c, seen_l, proof);
    assert_true(ticket_check_proof(&p.keys, proof, sizeof proof, 3, seen_c, p.nonce_l));
}

static void every_bit_and_byte_counts(void **state)
{
    (void)state;
    struct parties p;
    uint8_t open[TICKET_OPEN_SIZE], answer[TICKET_ANSWER_SIZE], proof[TICKET_PROOF_SIZE];
    uint8_t nonce[TICKET_NONCE_SIZE];
    meet(&p);
    ticket_make_open(&p.keys, 0, p.nonce_c, open);
    ticket_make_answer(&p.keys, 0, p.nonce_c, p.nonce_l, answer);
    ticket_make_proof(&p.keys, 0, p.nonce_c, p.nonce_l, proof);
    // The pad of OPEN carries nothing.
    for (size_t bit = 0; bit < 8 * TICKET_ANSWER_SIZE; bit++) {
        open[bit / 8] ^= 1 << bit % 8;
        answer[bit / 8] ^= 1 << bit % 8;
        proof[bit / 8] ^= 1 << bit % 8;
        assert_false(ticket_check_open(&p.keys, open, sizeof open, nonce));
        assert_false(ticket_check_answer(&p.keys, answer, sizeof answer, 0, p.nonce_c, nonce));
        assert_false(ticket_check_proof(&p.keys, proof, sizeof proof, 0, p.nonce_c, p.nonce_l));
        open[bit / 8] ^= 1 << bit % 8;
        answer[bit / 8] ^= 1 << bit % 8;
        proof[bit / 8] ^= 1 << bit % 8;
    }
    for (size_t size = 0; size < TICKET_ANSWER_SIZE; size++) {
        assert_false(ticket_check_open(&p.keys, open, size, nonce));
        assert_false(ticket_check_answer(&p.keys, answer, size, 0, p.nonce_c, nonce));
        assert_false(ticket_check_proof(&p.keys, proof, size, 0, p.nonce_c, p.nonce_l));
    }
    assert_true(ticket_check_open(&p.keys, open, sizeof open, nonce));
}

static void another_key_stream_or_nonce_proves_nothing(void **state)
{
    (void)state;
    struct parties p;
    uint8_t answer[TICKET_ANSWER_SIZE], proof[TICKET_PROOF_SIZE], open[TICKET_OPEN_SIZE];
    uint8_t nonce[TICKET_NONCE_SIZE], old[TICKET_NONCE_SIZE] = {9};
    meet(&p);
    ticket_make_open(&p.others, 0, p.nonce_c, open);
    assert_false(ticket_check_open(&p.keys, open, sizeof open, nonce));
    ticket_make_answer(&p.keys, 0, old, p.nonce_l, answer); // an answer to an earlier question
    assert_false(ticket_check_answer(&p.keys, answer, sizeof answer, 0, p.nonce_c, nonce));
    ticket_make_answer(&p.keys, 1, p.nonce_c, p.nonce_l, answer);
    assert_false(ticket_check_answer(&p.keys, answer, sizeof answer, 0, p.nonce_c, nonce));
    ticket_make_proof(&p.keys, 0, p.nonce_c, old, proof); // a replay against a fresh nonce
    assert_false(ticket_check_proof(&p.keys, proof, sizeof proof, 0, p.nonce_c, p.nonce_l));
    ticket_make_proof(&p.others, 0, p.nonce_c, p.nonce_l, proof);
    assert_false(ticket_check_proof(&p.keys, proof, sizeof proof, 0, p.nonce_c, p.nonce_l));
    // An answer sent back is no proof, whatever its form.
    ticket_make_answer(&p.keys, 0, p.nonce_c, p.nonce_l, answer);
    assert_false(ticket_check_proof(&p.keys, answer, sizeof answer, 0, p.nonce_c, p.nonce_l));
}

static void no_answer_is_longer_than_its_question(void **state)
{
    (void)state;
    assert_true(TICKET_ANSWER_SIZE <= TICKET_OPEN_SIZE);
    assert_true(TICKET_ANSWER_SIZE <= TICKET_PROOF_SIZE); // the receipt
}

static void each_use_has_a_key_of_its_own(void **state)
{
    (void)state;
    struct parties p;
    meet(&p);
    assert_memory_not_equal(p.keys.handshake, p.keys.control, TICKET_KEY_SIZE);
    assert_memory_not_equal(p.keys.control, p.keys.light, TICKET_KEY_SIZE);
    assert_memory_not_equal(p.keys.load_tag[0], p.keys.load_tag[1], 12);
    assert_memory_not_equal(p.keys.handshake, p.others.handshake, TICKET_KEY_SIZE);
    assert_memory_not_equal(p.keys.load_tag[0], p.others.load_tag[0], 12);
    ticket_wipe(&p.keys);
    static const struct ticket_keys nothing;
    assert_memory_equal(&p.keys, &nothing, sizeof nothing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_prove_that_they_hold_the_key),
        cmocka_unit_test(every_bit_and_byte_counts),
        cmocka_unit_test(another_key_stream_or_nonce_proves_nothing),
        cmocka_unit_test(no_answer_is_longer_than_its_question),
        cmocka_unit_test(each_use_has_a_key_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
