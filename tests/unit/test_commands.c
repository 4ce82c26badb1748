// The tables of the command line: what options become, which tests know them, and whether the
// manual tells of exactly what there is.

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "identity.h"

#include "meshtest.h"

static int parse(struct flags *flags, int argc, const char *const *argv, char *error)
{
    const char *words[32];
    char *copy[32];
    size_t count;
    for (int i = 0; i < argc; i++)
        copy[i] = (char *)argv[i];
    flags_init(flags);
    return options_parse_argv(&cli_options, argc, copy, flags, words, &count, error);
}

#define PARSE(flags, error, ...)                                                                   \
    parse(flags, (int)(sizeof((const char *[]){"meshperf", __VA_ARGS__}) / sizeof(char *)),        \
        (const char *const[]){"meshperf", __VA_ARGS__}, error)

static void wrong_words_are_quoted_as_typed(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {{"--time", "10"}, {"--time", "10x"}, {"--time", "1ms"},
        {"--time", "25h"}, {"--bitrate", "fast"}, {"--bitrate", "-5M"}, {"--parallel", "0"},
        {"--mode", "fasst"}, {"--pairs", "some"}, {"--pairs", "sample=0"}, {"--shared", "zone"},
        {"--dscp", "64"}, {"--metric", "beauty"}, {"--uses", "0"}, {"--role", "king"},
        {"--output", "yaml"}, {"--color", "blue"}, {"--connect-timeout", "5"}, {"--dur", "5s"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct flags flags;
        char error[OPTIONS_ERROR_SIZE] = "";
        const char *quoted = strcmp(wrong[i][0], "--dur") ? wrong[i][1] : "--dur";
        assert_int_not_equal(PARSE(&flags, error, wrong[i][0], wrong[i][1]), 0);
        if (!strstr(error, quoted))
            fail_msg("%s %s: \"%s\" does not quote it", wrong[i][0], wrong[i][1], error);
    }
}

static void a_number_after_the_letter_l_asks_for_length(void **state)
{
    (void)state;
    struct flags flags;
    char error[OPTIONS_ERROR_SIZE];
    assert_int_not_equal(PARSE(&flags, error, "-l", "1400"), 0);
    assert_non_null(strstr(error, "did you mean --length"));
}

static void an_option_reaches_those_tests_that_know_it(void **state)
{
    (void)state;
    struct flags flags;
    struct testspec tcp, udp;
    char error[OPTIONS_ERROR_SIZE];
    const enum test_kind both[] = {TEST_TCP, TEST_UDP}, one[] = {TEST_TCP};
    assert_int_equal(PARSE(&flags, error, "-t", "2s", "--length=900", "-C", "reno", "-b", "3M"), 0);
    assert_null(flag_refused_by_tests(&flags, both, 2));
    assert_string_equal(flag_refused_by_tests(&flags, one, 1), "--length");
    testspec_defaults(TEST_TCP, &tcp);
    testspec_defaults(TEST_UDP, &udp);
    flags_to_spec(&flags, &tcp);
    flags_to_spec(&flags, &udp);
    assert_int_equal(tcp.duration_ns, 2000000000);
    assert_int_equal(udp.duration_ns, 2000000000);
    assert_int_equal(tcp.bitrate_bps, 3000000);
    assert_int_equal(udp.length, 900);
    assert_int_equal(tcp.length, 0);
    assert_string_equal(tcp.congestion, "reno");
    assert_string_equal(udp.congestion, "");
}

static void a_bitrate_of_max_lifts_the_default_of_udp(void **state)
{
    (void)state;
    struct flags flags;
    struct testspec udp, plain;
    char error[OPTIONS_ERROR_SIZE];
    testspec_defaults(TEST_UDP, &udp);
    plain = udp;
    assert_int_equal(PARSE(&flags, error, "--quiet"), 0);
    flags_to_spec(&flags, &plain);
    assert_int_equal(plain.bitrate_bps, TESTSPEC_UDP_BITRATE_DEFAULT);
    assert_int_equal(PARSE(&flags, error, "-bmax"), 0);
    flags_to_spec(&flags, &udp);
    assert_true(udp.bitrate_max);
    assert_int_equal(udp.bitrate_bps, 0);
}

// ------------------------------------------------------------------------------ the manual

// `text` as the manual writes it: a dash is "\-".
static void roff(const char *text, char out[256])
{
    size_t at = 0;
    for (; *text && at < 250; text++) {
        if (*text == '-')
            out[at++] = '\\';
        out[at++] = *text;
    }
    out[at] = 0;
}

// The section between two headings, cut out of `text`.
static char *section(char *text, const char *heading)
{
    char *from = strstr(text, heading);
    assert_non_null(from);
    from += strlen(heading);
    char *end = strstr(from, "\n.SH ");
    return end ? strndup(from, (size_t)(end - from)) : strdup(from);
}

static size_t entries(const char *text)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, ".TP\n")); at++)
        count++;
    return count;
}

static void the_manual_lists_exactly_the_commands(void **state)
{
    (void)state;
    char *text, line[600], words[256], arguments[256];
    size_t size, count;
    assert_int_equal(file_read(MANUAL, 1 << 20, &text, &size), 0);
    char *part = section(text, ".SH COMMANDS");
    const struct command *all = commands(&count);
    for (size_t i = 0; i < count; i++) {
        roff(all[i].words, words);
        roff(all[i].arguments, arguments);
        snprintf(line, sizeof line, ".TP\n\\fBmeshperf %s\\fR%s%s\n", words, *arguments ? " " : "",
            arguments);
        if (!strstr(part, line))
            fail_msg("the manual lacks: %s", line);
    }
    assert_int_equal(entries(part), count);
    free(part);
    free(text);
}

static void the_manual_lists_exactly_the_options(void **state)
{
    (void)state;
    char *text, name[256], line[300];
    size_t size;
    assert_int_equal(file_read(MANUAL, 1 << 20, &text, &size), 0);
    char *part = section(text, ".SH OPTIONS");
    for (size_t i = 0; i < cli_options.count; i++) {
        roff(cli_options.specs[i].name, name);
        snprintf(line, sizeof line, "\\-\\-%s\\fR", name);
        if (!strstr(part, line))
            fail_msg("the manual lacks --%s", cli_options.specs[i].name);
    }
    assert_int_equal(entries(part), cli_options.count);
    free(part);
    free(text);
}

// ------------------------------------------------------------------------------ completion

// The script that the program prints, in a file; "bash -n" judges it.
static void bash_reads_the_completion(void **state)
{
    (void)state;
    char path[] = "/tmp/meshperf-completion-XXXXXX", line[128];
    int fd = mkstemp(path), saved = dup(1);
    assert_true(fd >= 0 && saved >= 0);
    struct cli cli = {.words = (const char *[]){"bash"}, .word_count = 1};
    fflush(stdout);
    assert_true(dup2(fd, 1) >= 0);
    int status = cmd_completion(&cli);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    close(fd);
    assert_int_equal(status, EXIT_FINE);
    snprintf(line, sizeof line, "bash -n %s && grep -q -- --bitrate %s", path, path);
    assert_int_equal(system(line), 0);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_words_are_quoted_as_typed),
        cmocka_unit_test(a_number_after_the_letter_l_asks_for_length),
        cmocka_unit_test(an_option_reaches_those_tests_that_know_it),
        cmocka_unit_test(a_bitrate_of_max_lifts_the_default_of_udp),
        cmocka_unit_test(the_manual_lists_exactly_the_commands),
        cmocka_unit_test(the_manual_lists_exactly_the_options),
        cmocka_unit_test(bash_reads_the_completion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
