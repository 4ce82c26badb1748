#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "wire.h"

int cli_usage(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("meshperf: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return EXIT_USAGE;
}

// ------------------------------------------------------------------------------- context

// The places where a context is looked for, in order; NULL where the environment does not say.
static const char *context_path(const struct cli *cli, char path[4096])
{
    const char *given = cli->flags.context ? cli->flags.context : getenv("MESHPERF_CONTEXT");
    if (given && *given)
        return given;
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (config && *config)
        snprintf(path, 4096, "%s/meshperf/context", config);
    else
        snprintf(path, 4096, "%s/.config/meshperf/context", home ? home : "");
    if (access(path, F_OK) == 0)
        return path;
    return "/var/lib/meshperf/operator.context";
}

// Said, unless that is not wanted, and kept.
static int no_answer(struct cli *cli, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int no_answer(struct cli *cli, int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(cli->refusal, sizeof cli->refusal, format, arguments);
    va_end(arguments);
    if (!cli->quiet_refusals)
        fprintf(stderr, "meshperf: %s\n", cli->refusal);
    return status;
}

int cli_connect(struct cli *cli)
{
    char place[4096];
    const char *path = context_path(cli, place);
    struct operator_context context;
    int error = operator_context_load(path, &context);
    if (error == MESH_E_PERMISSIONS)
        return no_answer(cli, EXIT_USAGE, "%s: others can read it; chmod 600 it", path);
    if (error == MESH_E_SYNTAX)
        return no_answer(cli, EXIT_USAGE, "%s: this is no operator context", path);
    if (error)
        return no_answer(cli, EXIT_USAGE,
            "%s: %s (a context is given by --context or MESHPERF_CONTEXT)", path,
            mesh_strerror(error));
    snprintf(cli->endpoint, sizeof cli->endpoint, "%s", context.endpoint);
    cli->client = client_new(&context);
    identity_wipe(&context.key);
    if (!cli->client)
        return no_answer(cli, EXIT_USAGE, "%s: '%s' is no endpoint", path, cli->endpoint);
    return 0;
}

// ------------------------------------------------------------------------------- answers

int cli_refused(struct cli *cli, const Mp__Refused *refused)
{
    static const Mp__Refused__Code usage[] = {MP__REFUSED__CODE__NOT_FOUND,
        MP__REFUSED__CODE__INVALID, MP__REFUSED__CODE__NO_PAIRS, MP__REFUSED__CODE__NAME_IN_USE};
    int status = EXIT_CONTROLLER;
    for (size_t i = 0; i < sizeof usage / sizeof *usage; i++)
        if (refused->code == usage[i])
            status = EXIT_USAGE;
    cli->nothing = refused->code == MP__REFUSED__CODE__NO_PAIRS;
    return no_answer(cli, status, "%s", refused->text ? refused->text : "the controller refuses");
}

static int unreachable(struct cli *cli, int error)
{
    if (error == MESH_E_STOPPED)
        return EXIT_CANCELLED;
    if (error == MESH_E_REFUSED)
        return no_answer(cli, EXIT_CONTROLLER,
            "the controller at %s does not accept this operator's key", cli->endpoint);
    if (error == MESH_E_TIMEOUT)
        return no_answer(cli, EXIT_CONTROLLER,
            "no answer from the controller at %s: is it running there?", cli->endpoint);
    if (error == MESH_E_VERSION)
        return no_answer(cli, EXIT_CONTROLLER,
            "the controller at %s speaks another protocol version", cli->endpoint);
    return no_answer(
        cli, EXIT_CONTROLLER, "the controller at %s: %s", cli->endpoint, mesh_strerror(error));
}

Mp__Envelope *cli_try(struct cli *cli, Mp__Envelope *question, int64_t timeout_ns, int *error)
{
    return client_ask(cli->client, question, timeout_ns, cli->interrupted, error);
}

Mp__Envelope *cli_ask(
    struct cli *cli, Mp__Envelope *question, Mp__Envelope__BodyCase expected, int *status)
{
    int error;
    if (!cli->client && (*status = cli_connect(cli)) != 0)
        return NULL;
    Mp__Envelope *answer =
        client_ask(cli->client, question, cli->flags.connect_timeout_ns, cli->interrupted, &error);
    if (!answer) {
        *status = unreachable(cli, error);
        return NULL;
    }
    if (answer->body_case == expected)
        return answer;
    if (answer->body_case == MP__ENVELOPE__BODY_REFUSED) {
        *status = cli_refused(cli, answer->refused);
    } else {
        fprintf(stderr, "meshperf: an answer of another kind: %s\n", wire_name(answer));
        *status = EXIT_BUG;
    }
    wire_free(&answer);
    return NULL;
}

// -------------------------------------------------------------------------------- printing

bool cli_color(const struct cli *cli, FILE *stream)
{
    if (strcmp(cli->flags.color, "auto") != 0)
        return strcmp(cli->flags.color, "always") == 0;
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fileno(stream)) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

unsigned cli_width(FILE *stream)
{
    struct winsize size;
    if (!isatty(fileno(stream)) || ioctl(fileno(stream), TIOCGWINSZ, &size) < 0)
        return 0;
    return size.ws_col;
}

bool label_split(const char *word, char key[64], char value[64])
{
    const char *equal = strchr(word, '=');
    if (!equal || (size_t)(equal - word) >= 64 || strlen(equal + 1) >= 64)
        return false;
    memcpy(key, word, (size_t)(equal - word));
    key[equal - word] = '\0';
    strcpy(value, equal + 1);
    return true;
}

int cli_finish(FILE *stream, int status)
{
    if (fflush(stream) == 0 && !ferror(stream))
        return status;
    if (errno != EPIPE)
        return cli_usage("writing the output: %s", strerror(errno));
    return status;
}
