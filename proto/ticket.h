#ifndef MESHPERF_TICKET_H
#define MESHPERF_TICKET_H

// The data plane's keyed handshake: pure arithmetic on bytes, no sockets. Both ends hold the test's
// id and 256-bit key from the controller. Three messages with nonces and no clocks:
//
//   OPEN    connecting end -> listening end   id, stream, nonce_c, MAC
//   ANSWER  listening end -> connecting end   id, stream, nonce_l, MAC over nonce_c and nonce_l
//   PROOF   connecting end -> listening end   id, stream, MAC over nonce_l and nonce_c
//
// OPEN is padded so that ANSWER is never the longer one. After ANSWER the connecting end knows that
// its peer holds the key now; after PROOF the listening end does: a replayed OPEN gets at most an
// ANSWER and never a connection. MACs are keyed BLAKE2b-128 (libsodium crypto_generichash) under a
// key derived from the test's key for one purpose (crypto_kdf), compared in constant time.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TICKET_ID_SIZE 16
#define TICKET_KEY_SIZE 32
#define TICKET_NONCE_SIZE 16
#define TICKET_MAC_SIZE 16

#define TICKET_OPEN_SIZE 72    // magic 4, type 1, stream 1, reserved 2, id 16, nonce 16, MAC 16, pad 16
#define TICKET_ANSWER_SIZE 56  // the same without the pad
#define TICKET_PROOF_SIZE 56   // magic, type, stream, reserved, id, nonce_l, MAC

enum ticket_message { TICKET_OPEN = 1, TICKET_ANSWER = 2, TICKET_PROOF = 3 };

// Keys derived from one test's key, each for one use. Plain data; wipe with ticket_wipe.
struct ticket_keys {
    uint8_t id[TICKET_ID_SIZE];
    uint8_t handshake[TICKET_KEY_SIZE];
    uint8_t control[TICKET_KEY_SIZE];      // feedback, final counts, stop
    uint8_t light[TICKET_KEY_SIZE];        // light probes' MACs
    uint8_t load_tag[2][12];               // constant tag of load datagrams: [0] connecting end sends, [1] listening end
};

void ticket_derive(const uint8_t id[TICKET_ID_SIZE], const uint8_t key[TICKET_KEY_SIZE],
    struct ticket_keys *keys);
void ticket_wipe(struct ticket_keys *keys);
void ticket_random(void *bytes, size_t size);

// The type of a handshake message that begins at `bytes`, or 0 if it is none. Does not verify.
// `id` and `stream` (may be NULL) are where to look the ticket up.
int ticket_peek(const uint8_t *bytes, size_t size, const uint8_t **id, uint8_t *stream);

void ticket_make_open(const struct ticket_keys *keys, uint8_t stream,
    const uint8_t nonce_c[TICKET_NONCE_SIZE], uint8_t out[TICKET_OPEN_SIZE]);
bool ticket_check_open(const struct ticket_keys *keys, const uint8_t *bytes, size_t size,
    uint8_t nonce_c[TICKET_NONCE_SIZE]);

void ticket_make_answer(const struct ticket_keys *keys, uint8_t stream,
    const uint8_t nonce_c[TICKET_NONCE_SIZE], const uint8_t nonce_l[TICKET_NONCE_SIZE],
    uint8_t out[TICKET_ANSWER_SIZE]);
bool ticket_check_answer(const struct ticket_keys *keys, const uint8_t *bytes, size_t size,
    uint8_t stream, const uint8_t nonce_c[TICKET_NONCE_SIZE], uint8_t nonce_l[TICKET_NONCE_SIZE]);

void ticket_make_proof(const struct ticket_keys *keys, uint8_t stream,
    const uint8_t nonce_c[TICKET_NONCE_SIZE], const uint8_t nonce_l[TICKET_NONCE_SIZE],
    uint8_t out[TICKET_PROOF_SIZE]);
bool ticket_check_proof(const struct ticket_keys *keys, const uint8_t *bytes, size_t size,
    uint8_t stream, const uint8_t nonce_c[TICKET_NONCE_SIZE],
    const uint8_t nonce_l[TICKET_NONCE_SIZE]);

// Keyed MAC over a message of the test's control channel or of a light probe.
void ticket_mac(const uint8_t key[TICKET_KEY_SIZE], const void *bytes, size_t size,
    uint8_t mac[TICKET_MAC_SIZE]);
bool ticket_mac_equal(const uint8_t a[TICKET_MAC_SIZE], const uint8_t b[TICKET_MAC_SIZE]);

#endif
