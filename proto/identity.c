#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "errors.h"

#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
#define BASE64_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
#define TOKEN_PREFIX "mp1_"
#define TOKEN_CHECK_SIZE 4
#define CONTEXT_BYTES_MAX 4096

// ------------------------------------------------------------------------------- files

int file_read(const char *path, size_t maximum, char **data, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -errno;
    char *bytes = malloc(maximum + 2);
    if (!bytes)
        abort();
    size_t have = 0;
    ssize_t got = 1;
    int result = 0;
    while (have <= maximum && (got = read(fd, bytes + have, maximum + 1 - have)) > 0)
        have += (size_t)got;
    if (got < 0)
        result = -errno;
    else if (have > maximum)
        result = MESH_E_TOO_LARGE;
    close(fd);
    if (result) {
        free(bytes);
        return result;
    }
    bytes[have] = '\0';
    *data = bytes;
    *size = have;
    return 0;
}

static int write_whole(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t put = write(fd, data, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        data += put;
        size -= (size_t)put;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static void sync_directory_of(const char *path)
{
    char directory[4096];
    snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    if (!slash)
        snprintf(directory, sizeof directory, ".");
    else
        slash[slash == directory] = '\0';
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

int file_write_atomic(const char *path, const void *data, size_t size, unsigned mode)
{
    char temporary[4096];
    int length = snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return -ENAMETOOLONG;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = write_whole(fd, data, size);
    if (!result && fchmod(fd, mode) < 0)
        result = -errno;
    if (close(fd) < 0 && !result)
        result = -errno;
    if (!result && rename(temporary, path) < 0)
        result = -errno;
    if (result)
        unlink(temporary);
    else
        sync_directory_of(path);
    return result;
}

static int make_directories(const char *path)
{
    char part[4096];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return -ENAMETOOLONG;
    for (char *c = part + 1; *c; c++) {
        if (*c != '/')
            continue;
        *c = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST && errno != EROFS)
            return -errno;
        *c = '/';
    }
    return mkdir(part, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int state_dir_lock(const char *path)
{
    int result = make_directories(path);
    if (result)
        return result;
    // The directory itself is locked, so that a read-only one can be too.
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        result = errno == EWOULDBLOCK ? MESH_E_LOCKED : -errno;
        close(fd);
        return result;
    }
    return fd;
}

// -------------------------------------------------------------------------------- keys

int identity_generate(struct identity *identity)
{
    if (sodium_init() < 0)
        return MESH_E_UNSUPPORTED;
    return crypto_box_keypair(identity->public_key, identity->secret_key) ? MESH_E_UNSUPPORTED : 0;
}

void identity_wipe(struct identity *identity)
{
    sodium_memzero(identity, sizeof *identity);
}

void identity_z85(const uint8_t key[IDENTITY_KEY_SIZE], char text[IDENTITY_Z85_SIZE])
{
    zmq_z85_encode(text, key, IDENTITY_KEY_SIZE);
}

int identity_from_z85(const char *text, uint8_t key[IDENTITY_KEY_SIZE])
{
    uint8_t bytes[IDENTITY_KEY_SIZE];
    if (strlen(text) != IDENTITY_Z85_SIZE - 1 || !zmq_z85_decode(bytes, text))
        return MESH_E_SYNTAX;
    memcpy(key, bytes, sizeof bytes);
    return 0;
}

void identity_fingerprint(
    const uint8_t public_key[IDENTITY_KEY_SIZE], char text[IDENTITY_FINGERPRINT_SIZE])
{
    uint8_t hash[crypto_generichash_BYTES];
    crypto_generichash(hash, sizeof hash, public_key, IDENTITY_KEY_SIZE, NULL, 0);
    sodium_bin2hex(text, IDENTITY_FINGERPRINT_SIZE, hash, (IDENTITY_FINGERPRINT_SIZE - 1) / 2);
}

static bool keys_belong_together(const struct identity *identity)
{
    uint8_t public_key[IDENTITY_KEY_SIZE];
    return crypto_scalarmult_base(public_key, identity->secret_key) == 0 &&
           sodium_memcmp(public_key, identity->public_key, sizeof public_key) == 0;
}

int identity_save(const struct identity *identity, const char *path)
{
    char public_text[IDENTITY_Z85_SIZE], secret_text[IDENTITY_Z85_SIZE], text[160];
    identity_z85(identity->public_key, public_text);
    identity_z85(identity->secret_key, secret_text);
    int size = snprintf(text, sizeof text, "public: %s\nsecret: %s\n", public_text, secret_text);
    int result = file_write_atomic(path, text, (size_t)size, 0600);
    sodium_memzero(secret_text, sizeof secret_text);
    sodium_memzero(text, sizeof text);
    return result;
}

// Refuses a secret that others could have read or replaced.
static int read_secret(const char *path, size_t maximum, char **data, size_t *size)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return -errno;
    if (status.st_mode & (S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH))
        return MESH_E_PERMISSIONS;
    return file_read(path, maximum, data, size);
}

static void forget(char *data, size_t size)
{
    sodium_memzero(data, size);
    free(data);
}

int identity_load(struct identity *identity, const char *path)
{
    char *data;
    size_t size;
    int result = read_secret(path, 1024, &data, &size);
    if (result)
        return result;
    char public_text[48], secret_text[48], extra;
    struct identity made;
    result = MESH_E_SYNTAX;
    if (strlen(data) == size &&
        sscanf(data, "public: %47s secret: %47s %c", public_text, secret_text, &extra) == 2 &&
        identity_from_z85(public_text, made.public_key) == 0 &&
        identity_from_z85(secret_text, made.secret_key) == 0 && keys_belong_together(&made)) {
        *identity = made;
        result = 0;
    }
    forget(data, size);
    sodium_memzero(secret_text, sizeof secret_text);
    identity_wipe(&made);
    return result;
}

bool identity_name_valid(const char *name)
{
    size_t size = strlen(name);
    return size >= 1 && size <= 63 && strspn(name, NAME_CHARACTERS) == size &&
           !strchr("._-", *name);
}

bool identity_label_valid(const char *key, const char *value)
{
    size_t key_size = strlen(key), value_size = strlen(value);
    return key_size >= 1 && key_size <= 63 && strspn(key, NAME_CHARACTERS "/") == key_size &&
           value_size >= 1 && value_size <= 63 && strspn(value, NAME_CHARACTERS "/:") == value_size;
}

// ------------------------------------------------------------------------------ tokens

static bool endpoint_valid(const char *endpoint)
{
    size_t size = strlen(endpoint);
    if (size < 8 || size >= IDENTITY_ENDPOINT_SIZE)
        return false;
    if (strncmp(endpoint, "tcp://", 6) != 0 && strncmp(endpoint, "ipc://", 6) != 0)
        return false;
    for (const char *c = endpoint; *c; c++)
        if (*c <= ' ' || *c >= 0x7f)
            return false;
    return true;
}

static void token_check(const uint8_t *bytes, size_t size, uint8_t check[TOKEN_CHECK_SIZE])
{
    uint8_t hash[crypto_generichash_BYTES];
    crypto_generichash(hash, sizeof hash, bytes, size, NULL, 0);
    memcpy(check, hash, TOKEN_CHECK_SIZE);
}

// Binary form: controller key, secret key, endpoint, checksum. The public key follows from the
// secret one.
int join_token_write(const struct join_token *token, char text[JOIN_TOKEN_TEXT_SIZE])
{
    if (!endpoint_valid(token->endpoint))
        return MESH_E_SYNTAX;
    uint8_t bytes[2 * IDENTITY_KEY_SIZE + IDENTITY_ENDPOINT_SIZE + TOKEN_CHECK_SIZE];
    size_t endpoint = strlen(token->endpoint), size = 2 * IDENTITY_KEY_SIZE + endpoint;
    memcpy(bytes, token->controller_key, IDENTITY_KEY_SIZE);
    memcpy(bytes + IDENTITY_KEY_SIZE, token->key.secret_key, IDENTITY_KEY_SIZE);
    memcpy(bytes + 2 * IDENTITY_KEY_SIZE, token->endpoint, endpoint);
    token_check(bytes, size, bytes + size);
    memcpy(text, TOKEN_PREFIX, strlen(TOKEN_PREFIX));
    sodium_bin2base64(text + strlen(TOKEN_PREFIX), JOIN_TOKEN_TEXT_SIZE - strlen(TOKEN_PREFIX),
        bytes, size + TOKEN_CHECK_SIZE, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_memzero(bytes, sizeof bytes);
    return 0;
}

static int token_from_bytes(const uint8_t *bytes, size_t size, struct join_token *token)
{
    uint8_t check[TOKEN_CHECK_SIZE];
    if (size < 2 * IDENTITY_KEY_SIZE + TOKEN_CHECK_SIZE + 8)
        return MESH_E_SYNTAX;
    size_t body = size - TOKEN_CHECK_SIZE, endpoint = body - 2 * IDENTITY_KEY_SIZE;
    token_check(bytes, body, check);
    if (memcmp(check, bytes + body, sizeof check) != 0 || endpoint >= IDENTITY_ENDPOINT_SIZE)
        return MESH_E_SYNTAX;
    struct join_token made = {0};
    memcpy(made.controller_key, bytes, IDENTITY_KEY_SIZE);
    memcpy(made.key.secret_key, bytes + IDENTITY_KEY_SIZE, IDENTITY_KEY_SIZE);
    memcpy(made.endpoint, bytes + 2 * IDENTITY_KEY_SIZE, endpoint);
    if (strlen(made.endpoint) != endpoint || !endpoint_valid(made.endpoint) ||
        crypto_scalarmult_base(made.key.public_key, made.key.secret_key) != 0)
        return MESH_E_SYNTAX;
    *token = made;
    sodium_memzero(&made, sizeof made);
    return 0;
}

int join_token_read(const char *text, struct join_token *token)
{
    size_t prefix = strlen(TOKEN_PREFIX);
    uint8_t bytes[JOIN_TOKEN_TEXT_SIZE];
    size_t size;
    if (strlen(text) >= JOIN_TOKEN_TEXT_SIZE || strncmp(text, TOKEN_PREFIX, prefix) != 0)
        return MESH_E_SYNTAX;
    // The decoder takes some bytes above 127 for letters.
    if (strspn(text + prefix, BASE64_CHARACTERS) != strlen(text + prefix) ||
        sodium_base642bin(bytes, sizeof bytes, text + prefix, strlen(text + prefix), NULL, &size,
            NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
        return MESH_E_SYNTAX;
    int result = token_from_bytes(bytes, size, token);
    sodium_memzero(bytes, sizeof bytes);
    return result;
}

// ---------------------------------------------------------------------------- contexts

int operator_context_write(
    const struct operator_context *context, char text[OPERATOR_CONTEXT_TEXT_SIZE])
{
    char controller[IDENTITY_Z85_SIZE], public_text[IDENTITY_Z85_SIZE], secret[IDENTITY_Z85_SIZE];
    if (!endpoint_valid(context->endpoint) || !identity_name_valid(context->name))
        return MESH_E_SYNTAX;
    identity_z85(context->controller_key, controller);
    identity_z85(context->key.public_key, public_text);
    identity_z85(context->key.secret_key, secret);
    snprintf(text, OPERATOR_CONTEXT_TEXT_SIZE,
        "# meshperf operator context: keep it secret\n"
        "endpoint: \"%s\"\nname: \"%s\"\ncontroller: \"%s\"\npublic: \"%s\"\nsecret: \"%s\"\n",
        context->endpoint, context->name, controller, public_text, secret);
    sodium_memzero(secret, sizeof secret);
    return 0;
}

struct context_field {
    const char *key;
    char *text;
    size_t size;
    bool seen;
};

// One line `key: "value"`; false if it has another form or a key that is unknown or repeated.
static bool context_line(char *line, struct context_field *fields, size_t count)
{
    char *colon = strchr(line, ':');
    if (!colon)
        return false;
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " ");
    size_t size = strlen(value);
    if (size >= 2 && value[0] == '"' && value[size - 1] == '"') {
        value[size - 1] = '\0';
        value++;
        size -= 2;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(fields[i].key, line) != 0)
            continue;
        if (fields[i].seen || size >= fields[i].size)
            return false;
        memcpy(fields[i].text, value, size + 1);
        return fields[i].seen = true;
    }
    return false;
}

int operator_context_read(const char *text, size_t size, struct operator_context *context)
{
    if (size > CONTEXT_BYTES_MAX || memchr(text, '\0', size))
        return MESH_E_SYNTAX;
    struct operator_context made = {0};
    char controller[48], public_text[48], secret[48], copy[CONTEXT_BYTES_MAX + 1];
    struct context_field fields[] = {{"endpoint", made.endpoint, sizeof made.endpoint, false},
        {"name", made.name, sizeof made.name, false}, {"controller", controller, 48, false},
        {"public", public_text, 48, false}, {"secret", secret, 48, false}};
    size_t count = sizeof fields / sizeof *fields;
    memcpy(copy, text, size);
    copy[size] = '\0';
    char *rest = copy, *line;
    bool good = true;
    while (good && (line = strsep(&rest, "\n")))
        good = !*line || *line == '#' || context_line(line, fields, count);
    for (size_t i = 0; i < count; i++)
        good = good && fields[i].seen;
    good = good && endpoint_valid(made.endpoint) && identity_name_valid(made.name) &&
           identity_from_z85(controller, made.controller_key) == 0 &&
           identity_from_z85(public_text, made.key.public_key) == 0 &&
           identity_from_z85(secret, made.key.secret_key) == 0 && keys_belong_together(&made.key);
    if (good)
        *context = made;
    sodium_memzero(copy, sizeof copy);
    sodium_memzero(secret, sizeof secret);
    sodium_memzero(&made, sizeof made);
    return good ? 0 : MESH_E_SYNTAX;
}

int operator_context_load(const char *path, struct operator_context *context)
{
    char *data;
    size_t size;
    int result = read_secret(path, CONTEXT_BYTES_MAX, &data, &size);
    if (result)
        return result;
    result = operator_context_read(data, size, context);
    forget(data, size);
    return result;
}
