// Log lines as programs and people read them, and dates.

#include "meshtest.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

// What `log_write` puts on standard error.
static char *captured(enum log_level level, const char *text)
{
    static char line[4096];
    FILE *file = tmpfile();
    int kept = dup(2);
    dup2(fileno(file), 2);
    log_write(level, "%s", text);
    dup2(kept, 2);
    close(kept);
    rewind(file);
    size_t size = fread(line, 1, sizeof line - 1, file);
    line[size] = '\0';
    fclose(file);
    return line;
}

static void text_lines_stay_one_line(void **state)
{
    (void)state;
    log_setup("program", LOG_INFO, LOG_TEXT);
    char *line = captured(LOG_WARN, "two\nlines \x1b[31m");
    assert_non_null(strstr(line, "program warn: two"));
    assert_int_equal(strcspn(line, "\n"), strlen(line) - 1);
    assert_null(strchr(line, '\x1b'));
    assert_string_equal(captured(LOG_DEBUG, "not asked for"), "");
}

static void json_lines_escape_what_must_be(void **state)
{
    (void)state;
    log_setup("program", LOG_DEBUG, LOG_JSON);
    char *line = captured(LOG_ERROR, "a \"quoted\" \\ back\tslash");
    assert_int_equal(line[0], '{');
    assert_non_null(strstr(line, "a \\\"quoted\\\" \\\\ back"));
    assert_null(strchr(line, '\t'));
    assert_int_equal(line[strlen(line) - 2], '}');
}

static void words_name_levels_and_formats(void **state)
{
    (void)state;
    enum log_level level;
    enum log_format format;
    assert_true(log_level_parse("debug", &level) && level == LOG_DEBUG);
    assert_false(log_level_parse("DEBUG", &level));
    assert_true(log_format_parse("json", &format) && format == LOG_JSON);
    assert_false(log_format_parse("xml", &format));
}

static void dates_are_utc_with_milliseconds(void **state)
{
    (void)state;
    char text[CLOCK_ISO_SIZE];
    clock_iso8601(0, text);
    assert_string_equal(text, "1970-01-01T00:00:00.000Z");
    clock_iso8601(INT64_C(951782400123999999), text); // a leap day: 2000-02-29 00:00:00 UTC
    assert_string_equal(text, "2000-02-29T00:00:00.123Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_lines_stay_one_line),
        cmocka_unit_test(json_lines_escape_what_must_be),
        cmocka_unit_test(words_name_levels_and_formats),
        cmocka_unit_test(dates_are_utc_with_milliseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
