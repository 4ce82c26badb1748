// Keys on disk, join tokens, operator contexts, the state directory's lock.

#include "meshtest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "errors.h"
#include "identity.h"

static int make_directory(void **state)
{
    char *path = strdup("/tmp/meshperf-identity.XXXXXX");
    *state = mkdtemp(path);
    return *state ? 0 : -1;
}

static int remove_directory(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", (char *)*state);
    int result = system(command);
    free(*state);
    return result;
}

static const char *in(void **state, const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", (char *)*state, name);
    return path;
}

static void a_key_is_private_on_disk_and_comes_back(void **state)
{
    struct identity made, back;
    struct stat status;
    const char *path = in(state, "key");
    umask(0);
    assert_int_equal(identity_generate(&made), 0);
    assert_int_equal(identity_save(&made, path), 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(identity_load(&back, path), 0);
    assert_memory_equal(&made, &back, sizeof made);
    identity_wipe(&back);
    static const struct identity nothing;
    assert_memory_equal(&back, &nothing, sizeof back);
}

static void a_key_that_others_can_read_or_that_is_broken_is_refused(void **state)
{
    struct identity made, other, mixed, back;
    const char *path = in(state, "key");
    assert_int_equal(identity_generate(&made), 0);
    assert_int_equal(identity_generate(&other), 0);
    assert_int_equal(identity_load(&back, path), -ENOENT);
    assert_int_equal(identity_save(&made, path), 0);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(identity_load(&back, path), MESH_E_PERMISSIONS);
    assert_int_equal(chmod(path, 0602), 0);
    assert_int_equal(identity_load(&back, path), MESH_E_PERMISSIONS);
    mixed = made;
    memcpy(mixed.public_key, other.public_key, sizeof mixed.public_key);
    assert_int_equal(identity_save(&mixed, path), 0);
    assert_int_equal(identity_load(&back, path), MESH_E_SYNTAX);
    static const char *const broken[] = {"", "public: x\nsecret: y\n", "secret: a\npublic: b\n"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        assert_int_equal(file_write_atomic(path, broken[i], strlen(broken[i]), 0600), 0);
        assert_int_equal(identity_load(&back, path), MESH_E_SYNTAX);
    }
}

static struct join_token token_for(const char *endpoint)
{
    struct join_token token = {0};
    struct identity controller;
    assert_int_equal(identity_generate(&controller), 0);
    assert_int_equal(identity_generate(&token.key), 0);
    memcpy(token.controller_key, controller.public_key, IDENTITY_KEY_SIZE);
    snprintf(token.endpoint, sizeof token.endpoint, "%s", endpoint);
    return token;
}

static void a_join_token_carries_all_that_an_agent_needs(void **state)
{
    (void)state;
    static const char *const endpoints[] = {
        "tcp://10.0.0.1:5700", "tcp://[fd00::1]:5700", "tcp://a-host.example:1"};
    for (size_t i = 0; i < sizeof endpoints / sizeof *endpoints; i++) {
        char text[JOIN_TOKEN_TEXT_SIZE];
        struct join_token token = token_for(endpoints[i]), back;
        assert_int_equal(join_token_write(&token, text), 0);
        assert_int_equal(strncmp(text, "mp1_", 4), 0);
        assert_int_equal(join_token_read(text, &back), 0);
        assert_memory_equal(&token, &back, sizeof token);
    }
}

static void a_token_with_any_other_letter_is_refused(void **state)
{
    (void)state;
    char text[JOIN_TOKEN_TEXT_SIZE], longer[700];
    struct join_token token = token_for("tcp://10.0.0.1:5700"), back;
    assert_int_equal(join_token_write(&token, text), 0);
    size_t size = strlen(text);
    for (size_t i = 0; i < size; i++) {
        char before = text[i];
        text[i] = before == 'A' ? 'B' : 'A';
        assert_int_equal(join_token_read(text, &back), MESH_E_SYNTAX);
        text[i] = '%';
        assert_int_equal(join_token_read(text, &back), MESH_E_SYNTAX);
        text[i] = before;
    }
    for (size_t cut = 0; cut < size; cut++) {
        char part[JOIN_TOKEN_TEXT_SIZE];
        memcpy(part, text, cut);
        part[cut] = '\0';
        assert_int_equal(join_token_read(part, &back), MESH_E_SYNTAX);
    }
    memset(longer, 'A', sizeof longer);
    memcpy(longer, text, size);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(join_token_read(longer, &back), MESH_E_SYNTAX);
    assert_int_equal(join_token_read(text, &back), 0);
    snprintf(token.endpoint, sizeof token.endpoint, "http://10.0.0.1");
    assert_true(join_token_write(&token, text) < 0);
}

static void a_context_is_written_and_read_back(void **state)
{
    struct operator_context context = {.name = "ci", .endpoint = "ipc:///run/x/operator.sock"},
                            back;
    struct identity controller;
    char text[OPERATOR_CONTEXT_TEXT_SIZE];
    const char *path = in(state, "context");
    assert_int_equal(identity_generate(&controller), 0);
    assert_int_equal(identity_generate(&context.key), 0);
    memcpy(context.controller_key, controller.public_key, IDENTITY_KEY_SIZE);
    assert_int_equal(operator_context_write(&context, text), 0);
    assert_int_equal(operator_context_read(text, strlen(text), &back), 0);
    assert_memory_equal(&context, &back, sizeof context);
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0644), 0);
    assert_int_equal(operator_context_load(path, &back), MESH_E_PERMISSIONS);
    for (size_t cut = 0; cut + 2 < strlen(text); cut++)
        assert_int_equal(operator_context_read(text, cut, &back), MESH_E_SYNTAX);
    char twice[2 * OPERATOR_CONTEXT_TEXT_SIZE];
    snprintf(twice, sizeof twice, "%sname: \"eve\"\n", text);
    assert_int_equal(operator_context_read(twice, strlen(twice), &back), MESH_E_SYNTAX);
    snprintf(twice, sizeof twice, "%sunknown: \"x\"\n", text);
    assert_int_equal(operator_context_read(twice, strlen(twice), &back), MESH_E_SYNTAX);
}

static void names_and_labels_have_one_form(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "web-1.example_x", "0"};
    static const char *const bad[] = {"", ".a", "-a", "_a", "a b", "a/b", "a\n", "\xc3\xa4",
        "a234567890123456789012345678901234567890123456789012345678901234"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(identity_name_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(identity_name_valid(bad[i]));
    assert_true(identity_label_valid("topology/zone", "eu-1:a"));
    assert_false(identity_label_valid("zone", ""));
    assert_false(identity_label_valid("", "a"));
    assert_false(identity_label_valid("zo:ne", "a"));
    assert_false(identity_label_valid("zone", "a b"));
}

static void a_state_directory_belongs_to_one_process(void **state)
{
    const char *path = in(state, "deep/down/state");
    struct stat status;
    int fd = state_dir_lock(path);
    assert_true(fd >= 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(state_dir_lock(path) == MESH_E_LOCKED ? 0 : 1);
    int ended;
    assert_int_equal(waitpid(pid, &ended, 0), pid);
    assert_int_equal(ended, 0);
    close(fd);
    fd = state_dir_lock(path);
    assert_true(fd >= 0);
    close(fd);
}

static void files_are_replaced_whole_and_read_with_a_cap(void **state)
{
    const char *path = in(state, "file");
    char *data;
    size_t size;
    assert_int_equal(file_write_atomic(path, "one", 3, 0600), 0);
    assert_int_equal(file_write_atomic(path, "three", 5, 0600), 0);
    assert_int_equal(file_read(path, 5, &data, &size), 0);
    assert_int_equal(size, 5);
    assert_string_equal(data, "three");
    free(data);
    assert_int_equal(file_read(path, 4, &data, &size), MESH_E_TOO_LARGE);
    assert_true(file_write_atomic("/nowhere/file", "x", 1, 0600) < 0);
    assert_true(file_read((char *)*state, 100, &data, &size) < 0); // a directory
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_key_is_private_on_disk_and_comes_back),
        TEST(a_key_that_others_can_read_or_that_is_broken_is_refused),
        TEST(a_join_token_carries_all_that_an_agent_needs),
        TEST(a_token_with_any_other_letter_is_refused),
        TEST(a_context_is_written_and_read_back),
        TEST(names_and_labels_have_one_form),
        TEST(a_state_directory_belongs_to_one_process),
        TEST(files_are_replaced_whole_and_read_with_a_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
