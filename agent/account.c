#include "account.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "errors.h"

#define FILE_BYTES_MAX 4096
#define PATH_SIZE 640

static void path_in(const char *state_dir, const char *name, char path[PATH_SIZE])
{
    snprintf(path, PATH_SIZE, "%s/%s", state_dir, name);
}

// The rest of the line "KEY: ..." or NULL. Cuts the text into lines.
static const char *value_of(char *text, const char *key)
{
    size_t size = strlen(key);
    for (char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, key, size) == 0 && strncmp(line + size, ": ", 2) == 0)
            return line + size + 2;
    return NULL;
}

static bool take(char *text, const char *key, char *out, size_t room)
{
    const char *value = value_of(text, key);
    size_t size = value ? strcspn(value, "\n") : 0;
    if (size == 0 || size >= room)
        return false;
    memcpy(out, value, size);
    out[size] = '\0';
    return true;
}

static bool parse(struct account *account, char *text)
{
    char controller[IDENTITY_Z85_SIZE], own[IDENTITY_Z85_SIZE];
    uint8_t key[IDENTITY_KEY_SIZE];
    return take(text, "endpoint", account->endpoint, sizeof account->endpoint) &&
           take(text, "name", account->name, sizeof account->name) &&
           take(text, "controller", controller, sizeof controller) &&
           take(text, "key", own, sizeof own) && identity_name_valid(account->name) &&
           identity_from_z85(controller, account->controller_key) == 0 &&
           identity_from_z85(own, key) == 0 &&
           memcmp(key, account->key.public_key, sizeof key) == 0;
}

static int load_enrolment(struct account *account, const char *path)
{
    char *text;
    size_t size;
    int result = file_read(path, FILE_BYTES_MAX, &text, &size);
    if (result)
        return result == -ENOENT ? 0 : result;
    account->enrolled = strlen(text) == size && parse(account, text);
    free(text);
    return account->enrolled ? 0 : MESH_E_SYNTAX;
}

bool account_exists(const char *state_dir)
{
    char path[PATH_SIZE];
    path_in(state_dir, "identity.key", path);
    if (access(path, F_OK) != 0)
        return false;
    path_in(state_dir, "enrolment", path);
    return access(path, F_OK) == 0;
}

static int load_key(struct account *account, const char *path)
{
    int result = identity_load(&account->key, path);
    if (result != -ENOENT)
        return result;
    result = identity_generate(&account->key);
    return result ? result : identity_save(&account->key, path);
}

int account_load(struct account *account, const char *state_dir, bool rejoin, char *error)
{
    char path[PATH_SIZE];
    memset(account, 0, sizeof *account);
    account->renewed = rejoin;
    path_in(state_dir, rejoin ? "identity.key.new" : "identity.key", path);
    int result = load_key(account, path);
    if (result == 0 && !rejoin) {
        path_in(state_dir, "enrolment", path);
        result = load_enrolment(account, path);
    }
    if (result)
        snprintf(error, ACCOUNT_ERROR_SIZE, "%.400s: %s", path, mesh_strerror(result));
    return result;
}

int account_enrol(struct account *account, const char *state_dir)
{
    char path[PATH_SIZE], fresh[PATH_SIZE], text[FILE_BYTES_MAX];
    char controller[IDENTITY_Z85_SIZE], own[IDENTITY_Z85_SIZE];
    path_in(state_dir, "identity.key", path);
    path_in(state_dir, "identity.key.new", fresh);
    // The old enrolment would not belong to the new key.
    if (account->renewed && rename(fresh, path) < 0)
        return -errno;
    account->renewed = false;
    identity_z85(account->controller_key, controller);
    identity_z85(account->key.public_key, own);
    int size = snprintf(text, sizeof text, "endpoint: %s\ncontroller: %s\nname: %s\nkey: %s\n",
        account->endpoint, controller, account->name, own);
    path_in(state_dir, "enrolment", path);
    int result = file_write_atomic(path, text, (size_t)size, 0600);
    account->enrolled = result == 0;
    return result;
}
