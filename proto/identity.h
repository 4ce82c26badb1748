#ifndef MESHPERF_IDENTITY_H
#define MESHPERF_IDENTITY_H

// Who is who: CURVE key pairs on disk, their fingerprints, join tokens and operator contexts.
// Functions return 0 or a negative error; secrets are wiped by the _destroy functions.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IDENTITY_KEY_SIZE 32
#define IDENTITY_Z85_SIZE 41           // with the final NUL
#define IDENTITY_FINGERPRINT_SIZE 17   // 16 hex digits of BLAKE2b over the public key, and NUL
#define IDENTITY_ENDPOINT_SIZE 256
#define IDENTITY_NAME_SIZE 64

struct identity {
    uint8_t public_key[IDENTITY_KEY_SIZE];
    uint8_t secret_key[IDENTITY_KEY_SIZE];
};

int identity_generate(struct identity *identity) __attribute__((warn_unused_result));
void identity_wipe(struct identity *identity);

// The file is created with mode 0600, written whole, synced and renamed. Loading refuses a file
// that group or others can read or write (MESH_E_PERMISSIONS), a wrong form (MESH_E_SYNTAX), a
// missing file (-ENOENT), and a public key that does not belong to the secret one.
int identity_save(const struct identity *identity, const char *path)
    __attribute__((warn_unused_result));
int identity_load(struct identity *identity, const char *path) __attribute__((warn_unused_result));

void identity_z85(const uint8_t key[IDENTITY_KEY_SIZE], char text[IDENTITY_Z85_SIZE]);
int identity_from_z85(const char *text, uint8_t key[IDENTITY_KEY_SIZE])
    __attribute__((warn_unused_result));
void identity_fingerprint(
    const uint8_t public_key[IDENTITY_KEY_SIZE], char text[IDENTITY_FINGERPRINT_SIZE]);

// A name for agents and operators: [A-Za-z0-9][A-Za-z0-9._-]{0,62}.
bool identity_name_valid(const char *name);
// A label's key and value: 1 to 63 of [A-Za-z0-9._/-], the value also ":" and may not be empty.
bool identity_label_valid(const char *key, const char *value);

// A join token: everything an agent needs to enrol. Text form "mp1_" + base64url without padding of
// endpoint, the controller's public key, the token's secret key and a checksum.
struct join_token {
    char endpoint[IDENTITY_ENDPOINT_SIZE];
    uint8_t controller_key[IDENTITY_KEY_SIZE];
    struct identity key;
};
#define JOIN_TOKEN_TEXT_SIZE 640
int join_token_write(const struct join_token *token, char text[JOIN_TOKEN_TEXT_SIZE])
    __attribute__((warn_unused_result));
int join_token_read(const char *text, struct join_token *token) __attribute__((warn_unused_result));

// An operator's context: the one file that the command line needs. Lines "key: value" (YAML).
struct operator_context {
    char endpoint[IDENTITY_ENDPOINT_SIZE];
    char name[IDENTITY_NAME_SIZE];
    uint8_t controller_key[IDENTITY_KEY_SIZE];
    struct identity key;
};
#define OPERATOR_CONTEXT_TEXT_SIZE 1024
int operator_context_write(
    const struct operator_context *context, char text[OPERATOR_CONTEXT_TEXT_SIZE])
    __attribute__((warn_unused_result));
int operator_context_read(const char *text, size_t size, struct operator_context *context)
    __attribute__((warn_unused_result));
int operator_context_load(const char *path, struct operator_context *context)
    __attribute__((warn_unused_result));

// Writes a whole file atomically (temporary name, fsync, rename) with `mode`.
int file_write_atomic(const char *path, const void *data, size_t size, unsigned mode)
    __attribute__((warn_unused_result));
// Reads a file of at most `maximum` bytes; the caller frees *data, which ends with a NUL beyond size.
int file_read(const char *path, size_t maximum, char **data, size_t *size)
    __attribute__((warn_unused_result));

// Creates the state directory (mode 0700, parents too) and locks it until the process ends.
// Returns a descriptor that holds the lock, MESH_E_LOCKED if another process has it, or -errno.
int state_dir_lock(const char *path) __attribute__((warn_unused_result));

#endif
