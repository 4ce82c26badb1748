#include "meshtest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "advertise.h"
#include "identity.h"
#include "settings.h"

static char *no_environment[] = {NULL};

static int load(struct controller_settings *settings, char **environment, char *error,
    const char *a, const char *b)
{
    char *argv[] = {(char *)"meshperf-controller", (char *)a, (char *)b, NULL};
    int argc = 1 + (a != NULL) + (b != NULL);
    return controller_settings_load(settings, argc, argv, environment, error);
}

static void a_flag_beats_the_environment_and_that_beats_the_file(void **state)
{
    (void)state;
    char path[] = "/tmp/meshperf-settings-XXXXXX", error[OPTIONS_ERROR_SIZE];
    int fd = mkstemp(path);
    static const char text[] = "state-dir: /from/file\nlog-level: debug\nlisten: tcp://*:1\n";
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    char config[64];
    snprintf(config, sizeof config, "--config=%s", path);
    char *environment[] = {(char *)"MESHPERF_CONTROLLER_STATE_DIR=/from/environment",
        (char *)"MESHPERF_CONTROLLER_LISTEN=tcp://*:2", NULL};
    struct controller_settings settings;
    assert_int_equal(load(&settings, environment, error, config, "--listen=tcp://*:3"), 0);
    assert_string_equal(settings.listen, "tcp://*:3");
    assert_string_equal(settings.state_dir, "/from/environment");
    assert_int_equal(settings.daemon.log_level, LOG_DEBUG);
    unlink(path);
}

static void a_config_named_but_missing_is_an_error_that_quotes_it(void **state)
{
    (void)state;
    struct controller_settings settings;
    char error[OPTIONS_ERROR_SIZE];
    assert_true(load(&settings, no_environment, error, "--config", "/nowhere/c.yaml") < 0);
    assert_non_null(strstr(error, "/nowhere/c.yaml"));
}

static void wrong_words_are_quoted(void **state)
{
    (void)state;
    static const char *const cases[] = {"--listen=udp://x:1", "--advertise=tcp://*:5700",
        "--advertise=tcp://host", "--operator-listen=host:1", "--log-level=loud",
        "--log-format=xml", "stray"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct controller_settings settings;
        char error[OPTIONS_ERROR_SIZE] = "";
        assert_true(load(&settings, no_environment, error, cases[i], NULL) < 0);
        const char *word = strchr(cases[i], '=');
        word = word ? word + 1 : cases[i];
        if (!strstr(error, word))
            fail_msg("\"%s\" does not quote %s", error, word);
    }
}

static void help_wins_over_what_else_is_wrong_in_the_file(void **state)
{
    (void)state;
    struct controller_settings settings;
    char error[OPTIONS_ERROR_SIZE];
    assert_int_equal(load(&settings, no_environment, error, "--help", "--config=/nowhere"), 0);
    assert_true(settings.daemon.help);
}

static void an_endpoint_to_advertise_has_a_host_and_a_port(void **state)
{
    (void)state;
    assert_true(advertise_valid("tcp://10.0.0.1:5700"));
    assert_true(advertise_valid("tcp://mesh.example.net:1"));
    assert_true(advertise_valid("tcp://[fd00::1]:65535"));
    assert_false(advertise_valid("tcp://[::]:5700"));
    assert_false(advertise_valid("tcp://0.0.0.0:5700"));
    assert_false(advertise_valid("tcp://*:5700"));
    assert_false(advertise_valid("tcp://host:0"));
    assert_false(advertise_valid("tcp://host:65536"));
    assert_false(advertise_valid("tcp://:5700"));
    assert_false(advertise_valid("ipc:///tmp/x"));
}

static void a_bound_address_is_advertised_as_it_is_and_a_wildcard_never(void **state)
{
    (void)state;
    char endpoint[IDENTITY_ENDPOINT_SIZE];
    advertise_endpoint("tcp://127.0.0.1:4711", endpoint);
    assert_string_equal(endpoint, "tcp://127.0.0.1:4711");
    advertise_endpoint("ipc:///run/x.sock", endpoint);
    assert_string_equal(endpoint, "ipc:///run/x.sock");
    advertise_endpoint("tcp://[::]:5700", endpoint);
    assert_true(advertise_valid(endpoint));
    assert_string_equal(strrchr(endpoint, ':'), ":5700");
    advertise_endpoint("tcp://0.0.0.0:5700", endpoint);
    assert_true(advertise_valid(endpoint));
}

// Every option is described in the manual, and the manual describes no other.
static void the_manual_lists_exactly_the_options(void **state)
{
    (void)state;
    char *text;
    size_t size;
    assert_int_equal(file_read(MANUAL, 1 << 20, &text, &size), 0);
    char *from = strstr(text, ".SH OPTIONS"), *to = strstr(text, ".SH FILES");
    assert_true(from && to && from < to);
    *to = 0;
    for (size_t i = 0; i < controller_options.count; i++) {
        char word[64] = " \\-\\-";
        for (const char *c = controller_options.specs[i].name; *c; c++)
            strncat(word, *c == '-' ? "\\-" : (char[]){*c, 0}, 8);
        if (!strstr(from, word))
            fail_msg("the manual lacks --%s", controller_options.specs[i].name);
    }
    size_t listed = 0;
    for (char *at = from; (at = strstr(at, ".TP\n")); at++)
        listed++;
    assert_int_equal(listed, controller_options.count);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flag_beats_the_environment_and_that_beats_the_file),
        cmocka_unit_test(a_config_named_but_missing_is_an_error_that_quotes_it),
        cmocka_unit_test(wrong_words_are_quoted),
        cmocka_unit_test(help_wins_over_what_else_is_wrong_in_the_file),
        cmocka_unit_test(an_endpoint_to_advertise_has_a_host_and_a_port),
        cmocka_unit_test(a_bound_address_is_advertised_as_it_is_and_a_wildcard_never),
        cmocka_unit_test(the_manual_lists_exactly_the_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
