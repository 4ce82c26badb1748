#include "ticket.h"

#include <sodium.h>
#include <string.h>

static const uint8_t magic[4] = {'M', 'P', 'D', '1'};

// Where things stand in a handshake message.
enum { AT_TYPE = 4, AT_STREAM = 5, AT_ID = 8, AT_NONCE = 24, AT_MAC = 40 };

static void derive(uint8_t *out, size_t size, uint64_t number, const uint8_t key[TICKET_KEY_SIZE])
{
    uint8_t whole[TICKET_KEY_SIZE];
    crypto_kdf_derive_from_key(whole, sizeof whole, number, "meshperf", key);
    memcpy(out, whole, size);
    sodium_memzero(whole, sizeof whole);
}

void ticket_derive(
    const uint8_t id[TICKET_ID_SIZE], const uint8_t key[TICKET_KEY_SIZE], struct ticket_keys *keys)
{
    memcpy(keys->id, id, TICKET_ID_SIZE);
    derive(keys->handshake, sizeof keys->handshake, 1, key);
    derive(keys->control, sizeof keys->control, 2, key);
    derive(keys->light, sizeof keys->light, 3, key);
    derive(keys->load_tag[0], sizeof keys->load_tag[0], 4, key);
    derive(keys->load_tag[1], sizeof keys->load_tag[1], 5, key);
}

void ticket_wipe(struct ticket_keys *keys)
{
    sodium_memzero(keys, sizeof *keys);
}

void ticket_random(void *bytes, size_t size)
{
    randombytes_buf(bytes, size);
}

static size_t size_of(unsigned type)
{
    return type == TICKET_OPEN ? TICKET_OPEN_SIZE : TICKET_ANSWER_SIZE;
}

int ticket_peek(const uint8_t *bytes, size_t size, const uint8_t **id, uint8_t *stream)
{
    if (size < TICKET_ANSWER_SIZE || memcmp(bytes, magic, sizeof magic) != 0)
        return 0;
    unsigned type = bytes[AT_TYPE];
    if (type < TICKET_OPEN || type > TICKET_PROOF || size < size_of(type))
        return 0;
    if (id)
        *id = bytes + AT_ID;
    if (stream)
        *stream = bytes[AT_STREAM];
    return (int)type;
}

// The MAC covers the header with id and nonce, then the other end's nonce where there is one.
static void handshake_mac(const struct ticket_keys *keys, const uint8_t *message,
    const uint8_t *other_nonce, uint8_t mac[TICKET_MAC_SIZE])
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, keys->handshake, TICKET_KEY_SIZE, TICKET_MAC_SIZE);
    crypto_generichash_update(&state, message, AT_MAC);
    if (other_nonce)
        crypto_generichash_update(&state, other_nonce, TICKET_NONCE_SIZE);
    crypto_generichash_final(&state, mac, TICKET_MAC_SIZE);
}

static void make(const struct ticket_keys *keys, unsigned type, uint8_t stream,
    const uint8_t *nonce, const uint8_t *other_nonce, uint8_t *out)
{
    memset(out, 0, size_of(type));
    memcpy(out, magic, sizeof magic);
    out[AT_TYPE] = (uint8_t)type;
    out[AT_STREAM] = stream;
    memcpy(out + AT_ID, keys->id, TICKET_ID_SIZE);
    memcpy(out + AT_NONCE, nonce, TICKET_NONCE_SIZE);
    handshake_mac(keys, out, other_nonce, out + AT_MAC);
}

static bool check(const struct ticket_keys *keys, int type, const uint8_t *bytes, size_t size,
    const uint8_t *other_nonce)
{
    if (ticket_peek(bytes, size, NULL, NULL) != type || size != size_of((unsigned)type))
        return false;
    if (bytes[6] || bytes[7] || sodium_memcmp(bytes + AT_ID, keys->id, TICKET_ID_SIZE) != 0)
        return false;
    uint8_t mac[TICKET_MAC_SIZE];
    handshake_mac(keys, bytes, other_nonce, mac);
    return ticket_mac_equal(mac, bytes + AT_MAC);
}

void ticket_make_open(const struct ticket_keys *keys, uint8_t stream,
    const uint8_t nonce_c[TICKET_NONCE_SIZE], uint8_t out[TICKET_OPEN_SIZE])
{
    make(keys, TICKET_OPEN, stream, nonce_c, NULL, out);
}

bool ticket_check_open(const struct ticket_keys *keys, const uint8_t *bytes, size_t size,
    uint8_t nonce_c[TICKET_NONCE_SIZE])
{
    if (!check(keys, TICKET_OPEN, bytes, size, NULL))
        return false;
    memcpy(nonce_c, bytes + AT_NONCE, TICKET_NONCE_SIZE);
    return true;
}

void ticket_make_answer(const struct ticket_keys *keys, uint8_t stream,
    const uint8_t nonce_c[TICKET_NONCE_SIZE], const uint8_t nonce_l[TICKET_NONCE_SIZE],
    uint8_t out[TICKET_ANSWER_SIZE])
{
    make(keys, TICKET_ANSWER, stream, nonce_l, nonce_c, out);
}

bool ticket_check_answer(const struct ticket_keys *keys, const uint8_t *bytes, size_t size,
    uint8_t stream, const uint8_t nonce_c[TICKET_NONCE_SIZE], uint8_t nonce_l[TICKET_NONCE_SIZE])
{
    if (!check(keys, TICKET_ANSWER, bytes, size, nonce_c) || bytes[AT_STREAM] != stream)
        return false;
    memcpy(nonce_l, bytes + AT_NONCE, TICKET_NONCE_SIZE);
    return true;
}

void ticket_make_proof(const struct ticket_keys *keys, uint8_t stream,
    const uint8_t nonce_c[TICKET_NONCE_SIZE], const uint8_t nonce_l[TICKET_NONCE_SIZE],
    uint8_t out[TICKET_PROOF_SIZE])
{
    make(keys, TICKET_PROOF, stream, nonce_l, nonce_c, out);
}

bool ticket_check_proof(const struct ticket_keys *keys, const uint8_t *bytes, size_t size,
    uint8_t stream, const uint8_t nonce_c[TICKET_NONCE_SIZE],
    const uint8_t nonce_l[TICKET_NONCE_SIZE])
{
    return check(keys, TICKET_PROOF, bytes, size, nonce_c) && bytes[AT_STREAM] == stream &&
           sodium_memcmp(bytes + AT_NONCE, nonce_l, TICKET_NONCE_SIZE) == 0;
}

void ticket_mac(const uint8_t key[TICKET_KEY_SIZE], const void *bytes, size_t size,
    uint8_t mac[TICKET_MAC_SIZE])
{
    crypto_generichash(mac, TICKET_MAC_SIZE, bytes, size, key, TICKET_KEY_SIZE);
}

bool ticket_mac_equal(const uint8_t a[TICKET_MAC_SIZE], const uint8_t b[TICKET_MAC_SIZE])
{
    return sodium_memcmp(a, b, TICKET_MAC_SIZE) == 0;
}
