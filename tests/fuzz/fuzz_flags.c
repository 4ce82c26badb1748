// The command line of meshperf, one word a line.

#include <string.h>

#include "cli.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char name[] = "meshperf";
    char *argv[66] = {name}, *text = strndup((const char *)data, size), *rest = text, *word;
    const char *words[66];
    char error[OPTIONS_ERROR_SIZE] = "";
    size_t count;
    int argc = 1;
    struct flags flags;
    while (argc < 65 && (word = strsep(&rest, "\n")))
        argv[argc++] = word;
    flags_init(&flags);
    int result = options_parse_argv(&cli_options, argc, argv, &flags, words, &count, error);
    HOLDS(count < (size_t)argc);
    HOLDS(result == 0 || (*error && memchr(error, '\0', sizeof error)));
    if (result == 0) {
        static const enum test_kind kinds[] = {TEST_TCP, TEST_UDP, TEST_LATENCY};
        for (size_t i = 0; i < 3; i++) {
            struct testspec spec;
            char why[256];
            if (flag_refused_by_tests(&flags, &kinds[i], 1))
                continue;
            testspec_defaults(kinds[i], &spec);
            flags_to_spec(&flags, &spec);
            HOLDS(testspec_check(&spec, why) == 0 || *why);
        }
    }
    free(text);
    return 0;
}
