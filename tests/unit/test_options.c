// The option tables' three sources: command line, environment, file.

#include "meshtest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "errors.h"
#include "options.h"

struct settings {
    char name[64];
    unsigned quiet;
    char list[8][32];
    size_t count;
    char peers[64];
    size_t line, column;
};

static int set_name(void *target, const char *word, const struct option_source *source, char *error)
{
    struct settings *self = target;
    if (strlen(word) > 20) {
        snprintf(error, OPTIONS_ERROR_SIZE, "'%s' is no name", word);
        return MESH_E_SYNTAX;
    }
    strcpy(self->name, word);
    self->line = source->line;
    self->column = source->column;
    return 0;
}

static int set_quiet(
    void *target, const char *word, const struct option_source *source, char *error)
{
    (void)source;
    (void)error;
    assert_null(word);
    ((struct settings *)target)->quiet++;
    return 0;
}

static int add(void *target, const char *word, const struct option_source *source, char *error)
{
    struct settings *self = target;
    (void)error;
    if (source->first)
        self->count = 0;
    assert_true(self->count < 8);
    snprintf(self->list[self->count++], sizeof *self->list, "%s", word);
    return 0;
}

static int set_peers(
    void *target, const char *word, const struct option_source *source, char *error)
{
    (void)source;
    (void)error;
    snprintf(((struct settings *)target)->peers, 64, "%s", word);
    return 0;
}

static const struct option_spec specs[] = {
    {"name", 'n', "NAME", "who", set_name, 0, false},
    {"quiet", 'q', NULL, "no words", set_quiet, 0, false},
    {"label", 0, "KEY=VALUE", "repeatable", add, 0, false},
    {"config", 0, "FILE", "a file", set_name, 0, true},
};
static const struct option_section sections[] = {{"guard.peers", set_peers}};
static const struct option_table table = {specs, 4, sections, 1, "THING_"};

static int parse(struct settings *self, const char *line, char error[OPTIONS_ERROR_SIZE],
    const char **words, size_t *count)
{
    static char copy[256];
    char *argv[32] = {(char *)"program"}, *rest = copy, *word;
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", line);
    while ((word = strsep(&rest, " ")))
        argv[argc++] = word;
    return options_parse_argv(&table, argc, argv, self, words, count, error);
}

static void flags_take_all_their_forms_and_stand_anywhere(void **state)
{
    (void)state;
    static const char *const lines[] = {"--name bob first second", "first --name=bob second",
        "first second -n bob", "-nbob first second", "-qn bob first second",
        "--name bob -- first second", "first second --name x --name bob"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct settings self = {0};
        char error[OPTIONS_ERROR_SIZE];
        const char *words[32];
        size_t count;
        assert_int_equal(parse(&self, lines[i], error, words, &count), 0);
        assert_string_equal(self.name, "bob");
        assert_int_equal(count, 2);
        assert_string_equal(words[0], "first");
        assert_string_equal(words[1], "second");
    }
    struct settings self = {0};
    char error[OPTIONS_ERROR_SIZE];
    const char *words[32];
    size_t count;
    assert_int_equal(parse(&self, "-- --name -q", error, words, &count), 0);
    assert_int_equal(count, 2);
    assert_string_equal(words[1], "-q");
    assert_int_equal(self.quiet, 0);
}

static void errors_quote_the_word_as_typed(void **state)
{
    (void)state;
    static const struct {
        const char *line, *words;
    } rows[] = {{"--nam bob", "'--nam', did you mean --name"}, {"--name", "'--name' needs NAME"},
        {"-n", "'-n' needs NAME"}, {"--quiet=1", "'--quiet=1': --quiet takes no value"},
        {"--zebra", "'--zebra'"}, {"-x", "'-x'"}, {"--name=aaaaaaaaaaaaaaaaaaaaaaaa", "is no name"},
        {"--na bob", "'--na'"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct settings self = {0};
        char error[OPTIONS_ERROR_SIZE] = "";
        const char *words[32];
        size_t count;
        assert_true(parse(&self, rows[i].line, error, words, &count) < 0);
        if (!strstr(error, rows[i].words))
            fail_msg("%s: %s", rows[i].line, error);
    }
}

static int read_text(const char *text, struct settings *self, char error[OPTIONS_ERROR_SIZE])
{
    char path[] = "/tmp/meshperf-options.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    int result = options_parse_file(&table, path, self, error);
    // Places are told with the file's name.
    if (result < 0 && strncmp(error, path, strlen(path)) == 0)
        memmove(error, error + strlen(path), strlen(error + strlen(path)) + 1);
    unlink(path);
    return result;
}

static void a_file_sets_flags_lists_and_sections(void **state)
{
    (void)state;
    struct settings self = {0};
    char error[OPTIONS_ERROR_SIZE];
    assert_int_equal(read_text("# words\nname: bob\nquiet: true\nlabel: [a=1, b=2]\n"
                               "guard:\n  peers: 10.0.0.0/8\n",
                         &self, error),
        0);
    assert_string_equal(self.name, "bob");
    assert_int_equal(self.line, 2);
    assert_int_equal(self.column, 7);
    assert_int_equal(self.quiet, 1);
    assert_int_equal(self.count, 2);
    assert_string_equal(self.list[1], "b=2");
    assert_string_equal(self.peers, "10.0.0.0/8");
    assert_int_equal(read_text("", &self, error), 0);
    assert_int_equal(read_text("quiet: false\n", &self, error), 0);
    assert_int_equal(self.quiet, 1);
}

static void a_broken_file_is_refused_with_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } rows[] = {{"name: bob\nnmae: x\n", ":2:1: unknown key 'nmae', did you mean 'name'?"},
        {"guard:\n  peer: x\n", ":2:3: unknown key 'guard.peer', did you mean 'guard.peers'?"},
        {"name: a\nname: b\n", ":2:1: key 'name' stands here twice"},
        {"quiet: maybe\n", ":1:8: 'maybe' is neither true nor false"},
        {"name: &x bob\n", "anchors"}, {"name: *x\n", "alias"}, {"- a\n- b\n", "mapping"},
        {"just words\n", "mapping"}, {"name: {a: b}\n", "wrong form"}, {"guard: 5\n", "wrong form"},
        {"name: [[a]]\n", "plain values"}, {"config: x\n", "unknown key 'config'"},
        {"name: \"bob\n", ":"}, {"name:\tbob\n\tx: y\n", ":"},
        {"name: aaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", ":1:7: name: "}, {"{name: a, name: b}\n", "twice"},
        {"? [a]\n: b\n", "plain word"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct settings self = {0};
        char error[OPTIONS_ERROR_SIZE] = "";
        if (read_text(rows[i].text, &self, error) >= 0)
            fail_msg("taken: %s", rows[i].text);
        if (!strstr(error, rows[i].words))
            fail_msg("%s: %s", rows[i].text, error);
    }
    struct settings self = {0};
    char error[OPTIONS_ERROR_SIZE] = "";
    assert_int_equal(options_parse_file(&table, "/nowhere/at/all", &self, error), -2);
}

static void the_environment_names_flags_in_capitals(void **state)
{
    (void)state;
    struct settings self = {0};
    char error[OPTIONS_ERROR_SIZE];
    const char *good[] = {"HOME=/", "THING_NAME=eve", "THING_QUIET=true", NULL};
    const char *unknown[] = {"THING_NAMES=eve", NULL}, *wrong[] = {"THING_QUIET=si", NULL};
    assert_int_equal(options_parse_environment(&table, (char **)good, &self, error), 0);
    assert_string_equal(self.name, "eve");
    assert_int_equal(self.quiet, 1);
    assert_true(options_parse_environment(&table, (char **)unknown, &self, error) < 0);
    assert_non_null(strstr(error, "THING_NAMES"));
    assert_true(options_parse_environment(&table, (char **)wrong, &self, error) < 0);
    assert_non_null(strstr(error, "'si'"));
}

static void a_stronger_source_replaces_a_list_whole(void **state)
{
    (void)state;
    struct settings self = {0};
    char error[OPTIONS_ERROR_SIZE];
    const char *words[32];
    size_t count;
    assert_int_equal(read_text("label: [a=1, b=2]\nname: file\n", &self, error), 0);
    assert_int_equal(parse(&self, "--label c=3 --label d=4", error, words, &count), 0);
    assert_int_equal(self.count, 2);
    assert_string_equal(self.list[0], "c=3");
    assert_string_equal(self.name, "file");
}

static void the_nearest_word_is_at_most_two_edits_away(void **state)
{
    (void)state;
    static const char *const words[] = {"latency", "tcp", "udp"};
    assert_string_equal(options_nearest("latncy", words, 3, sizeof *words), "latency");
    assert_string_equal(options_nearest("tpc", words, 3, sizeof *words), "tcp");
    assert_null(options_nearest("lat", words, 3, sizeof *words));
    assert_null(options_nearest("x", words, 3, sizeof *words));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_take_all_their_forms_and_stand_anywhere),
        cmocka_unit_test(errors_quote_the_word_as_typed),
        cmocka_unit_test(a_file_sets_flags_lists_and_sections),
        cmocka_unit_test(a_broken_file_is_refused_with_line_and_column),
        cmocka_unit_test(the_environment_names_flags_in_capitals),
        cmocka_unit_test(a_stronger_source_replaces_a_list_whole),
        cmocka_unit_test(the_nearest_word_is_at_most_two_edits_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
