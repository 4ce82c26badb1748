#include "meshtest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "settings.h"

static char *no_environment[] = {NULL};

static int load(
    struct agent_settings *settings, char **environment, char *error, const char *a, const char *b)
{
    char *argv[] = {(char *)"meshperf-agent", (char *)a, (char *)b, NULL};
    return agent_settings_load(settings, 1 + (a != NULL) + (b != NULL), argv, environment, error);
}

static int load_file(struct agent_settings *settings, const char *text, char *error)
{
    char path[] = "/tmp/meshperf-agent-XXXXXX", option[64];
    int fd = mkstemp(path);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    snprintf(option, sizeof option, "--config=%s", path);
    int result = load(settings, no_environment, error, option, "--name=x");
    unlink(path);
    return result;
}

static void a_flag_beats_the_environment_and_that_beats_the_file(void **state)
{
    (void)state;
    char path[] = "/tmp/meshperf-agent-XXXXXX", error[OPTIONS_ERROR_SIZE], option[64];
    static const char text[] = "name: file\ndata-port: 1\nstate-dir: /file\nlabel: [a=1, b=2]\n";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    snprintf(option, sizeof option, "--config=%s", path);
    char *environment[] = {(char *)"MESHPERF_AGENT_DATA_PORT=2",
        (char *)"MESHPERF_AGENT_STATE_DIR=/environment", (char *)"MESHPERF_AGENT_LABEL=c=3", NULL};
    struct agent_settings settings;
    assert_int_equal(load(&settings, environment, error, option, "--data-port=3"), 0);
    assert_string_equal(settings.name, "file");
    assert_string_equal(settings.state_dir, "/environment");
    assert_int_equal(settings.data_port, 3);
    assert_int_equal(settings.label_count, 1);
    assert_string_equal(settings.labels[0].key, "c");
    unlink(path);
}

static void the_guard_comes_from_the_file(void **state)
{
    (void)state;
    struct agent_settings settings;
    char error[OPTIONS_ERROR_SIZE] = "";
    assert_int_equal(load_file(&settings,
                         "guard:\n  peers: [10.0.0.0/8, 'fd00::/8']\n  rate: 1G\n"
                         "  duration: 60s\n  bytes: 10G\n  tests: 4\n  spin: true\n",
                         error),
        0);
    assert_int_equal(settings.guard.peer_count, 2);
    assert_int_equal(settings.guard.rate_bps, 1000000000);
    assert_int_equal(settings.guard.duration_ns, 60 * NS_PER_S);
    assert_int_equal(settings.guard.bytes, UINT64_C(10) << 30);
    assert_int_equal(settings.guard.tests, 4);
    assert_true(settings.guard.spin);
    assert_int_equal(load_file(&settings, "guard: {spin: false}\n", error), 0);
    assert_false(settings.guard.spin);
    assert_int_equal(load_file(&settings, "guard: {tests: 4}\n", error), 0);
    assert_false(settings.guard.spin);
}

static void a_broken_guard_is_refused_with_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word, *place;
    } cases[] = {
        {"guard:\n  rate: fast\n", "fast", ":2:9:"},
        {"guard:\n  rate: 0\n", "0", ":2:9:"},
        {"guard:\n  tests: 0\n", "0", ":2:10:"},
        {"guard:\n  duration: 60\n", "60", ":2:13:"},
        {"guard:\n  peers:\n    - 10.0.0.0/8\n    - 10.0.0.0/33\n", "10.0.0.0/33", ":4:7:"},
        {"guard:\n  bytes: -1\n", "-1", ":2:10:"},
        {"guard:\n  spin: maybe\n", "maybe", ":2:9:"},
        {"guard:\n  speed: 1G\n", "speed", ":2:3:"},
        {"guard: 7\n", "guard", ":1:8:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct agent_settings settings;
        char error[OPTIONS_ERROR_SIZE] = "";
        if (load_file(&settings, cases[i].text, error) >= 0)
            fail_msg("accepted: %s", cases[i].text);
        if (!strstr(error, cases[i].word) || !strstr(error, cases[i].place))
            fail_msg("\"%s\" lacks %s or %s", error, cases[i].word, cases[i].place);
    }
}

static void wrong_words_are_quoted(void **state)
{
    (void)state;
    static const char *const cases[] = {"--name=-x", "--label=zone", "--label==b",
        "--label=a=", "--address=10.0.0", "--data-port=0", "--data-port=65536", "--log-level=loud",
        "--log-format=xml", "--guard=none", "--nam=x", "stray"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct agent_settings settings;
        char error[OPTIONS_ERROR_SIZE] = "";
        if (load(&settings, no_environment, error, cases[i], NULL) >= 0)
            fail_msg("%s is accepted", cases[i]);
        const char *word = strchr(cases[i], '=');
        word = word && strncmp(cases[i], "--guard", 7) != 0 && strncmp(cases[i], "--nam=", 6) != 0
                   ? word + 1
                   : cases[i];
        if (!strstr(error, word))
            fail_msg("\"%s\" does not quote %s", error, word);
    }
}

static void a_wrong_token_is_not_repeated(void **state)
{
    (void)state;
    struct agent_settings settings;
    char error[OPTIONS_ERROR_SIZE] = "";
    assert_true(load(&settings, no_environment, error, "--join=mp1_secretsecret", NULL) < 0);
    assert_null(strstr(error, "secret"));
    assert_non_null(strstr(error, "--join"));
}

static void one_address_of_each_family_can_be_given(void **state)
{
    (void)state;
    struct agent_settings settings;
    char error[OPTIONS_ERROR_SIZE] = "";
    assert_int_equal(
        load(&settings, no_environment, error, "--address=fd00::1", "--address=10.0.0.1"), 0);
    assert_string_equal(settings.addresses[0], "10.0.0.1");
    assert_string_equal(settings.addresses[1], "fd00::1");
    assert_true(
        load(&settings, no_environment, error, "--address=10.0.0.2", "--address=10.0.0.1") < 0);
    assert_non_null(strstr(error, "10.0.0.1"));
}

static void a_token_comes_from_a_file(void **state)
{
    (void)state;
    char path[] = "/tmp/meshperf-token-XXXXXX", text[JOIN_TOKEN_TEXT_SIZE], option[64];
    char back[JOIN_TOKEN_TEXT_SIZE], error[OPTIONS_ERROR_SIZE];
    struct join_token token = {.endpoint = "tcp://127.0.0.1:5700"};
    assert_int_equal(identity_generate(&token.key), 0);
    memcpy(token.controller_key, token.key.public_key, IDENTITY_KEY_SIZE);
    assert_int_equal(join_token_write(&token, text), 0);
    int fd = mkstemp(path);
    assert_true(dprintf(fd, "\n %s \n", text) > 0);
    close(fd);
    snprintf(option, sizeof option, "--join-file=%s", path);
    struct agent_settings settings;
    assert_int_equal(load(&settings, no_environment, error, option, NULL), 0);
    assert_int_equal(agent_settings_token(&settings, back, error), 1);
    assert_string_equal(back, text);
    unlink(path);
    assert_true(agent_settings_token(&settings, back, error) < 0);
    assert_non_null(strstr(error, path));
}

// Every option is described in the manual, and the manual describes no other.
static void the_manual_lists_exactly_the_options(void **state)
{
    (void)state;
    char *text;
    size_t size, listed = 0;
    assert_int_equal(file_read(MANUAL, 1 << 20, &text, &size), 0);
    char *from = strstr(text, ".SH OPTIONS"), *to = strstr(text, ".SH GUARD");
    assert_true(from && to && from < to);
    *to = 0;
    for (size_t i = 0; i < agent_options.count; i++) {
        char word[64] = " \\-\\-";
        for (const char *c = agent_options.specs[i].name; *c; c++)
            strncat(word, *c == '-' ? "\\-" : (char[]){*c, 0}, 8);
        strcat(word, agent_options.specs[i].argument ? " \"" : "\n");
        if (!strstr(from, word))
            fail_msg("the manual lacks --%s", agent_options.specs[i].name);
    }
    for (char *at = from; (at = strstr(at, ".TP\n")); at++)
        listed++;
    assert_int_equal(listed, agent_options.count);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flag_beats_the_environment_and_that_beats_the_file),
        cmocka_unit_test(the_guard_comes_from_the_file),
        cmocka_unit_test(a_broken_guard_is_refused_with_line_and_column),
        cmocka_unit_test(wrong_words_are_quoted),
        cmocka_unit_test(a_wrong_token_is_not_repeated),
        cmocka_unit_test(one_address_of_each_family_can_be_given),
        cmocka_unit_test(a_token_comes_from_a_file),
        cmocka_unit_test(the_manual_lists_exactly_the_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
