// meshperf-agent: reads the settings, opens state directory and data port, runs the session until
// it is asked to stop.

#include <czmq.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "daemon.h"
#include "errors.h"
#include "log.h"
#include "session.h"
#include "settings.h"

enum { EXIT_CONFIGURATION = 2, EXIT_REFUSED = 3, EXIT_BUG = 70 };

extern char **environ;

static void registered(void *ctx, const char *name)
{
    (void)ctx;
    printf("ready %s\n", name);
    fflush(stdout);
    daemon_notify("READY=1");
    daemon_shed_start();
}

static int run(session_t *session, int signal_fd)
{
    struct signalfd_siginfo info;
    for (;;) {
        int result = session_step(session, 60000, signal_fd);
        if (result == MESH_E_REFUSED) {
            log_error("%s", session_error(session));
            return EXIT_REFUSED;
        }
        if (result < 0) {
            log_error(
                "%s", *session_error(session) ? session_error(session) : mesh_strerror(result));
            return EXIT_BUG;
        }
        if (read(signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
            log_info("asked to stop (signal %u)", info.ssi_signo);
            daemon_notify("STOPPING=1");
            session_goodbye(session);
            return 0;
        }
    }
}

static int serve(const struct agent_settings *settings, struct account *account,
    const struct join_token *token, int signal_fd)
{
    int error = 0;
    spin_t *spin = spin_new(settings->guard.spin);
    dataport_t *port = dataport_new((uint16_t)settings->data_port, spin, &error);
    if (!port) {
        spin_destroy(&spin);
        log_error("the data port cannot be served: %s", mesh_strerror(error));
        return EXIT_BUG;
    }
    struct session_options options = {.settings = settings,
        .account = account,
        .token = token,
        .port = port,
        .spin = spin,
        .clock = &clock_system,
        .registered = registered,
        .find = probe_find,
        .light_run = light_run};
    session_t *session = session_new(&options);
    int status = session ? run(session, signal_fd) : EXIT_BUG;
    session_destroy(&session);
    dataport_destroy(&port);
    spin_destroy(&spin);
    return status;
}

// The identity, and if there is none yet the token that will make it one. 0 or an exit status.
static int identify(
    const struct agent_settings *settings, struct account *account, struct join_token *token)
{
    char text[JOIN_TOKEN_TEXT_SIZE], error[OPTIONS_ERROR_SIZE];
    bool known = account_exists(settings->state_dir) && !settings->rejoin;
    int given = known ? 0 : agent_settings_token(settings, text, error);
    if (given < 0) {
        log_error("%s", error);
        return EXIT_CONFIGURATION;
    }
    if (!known && given == 0) {
        log_error(
            "there is no identity in %s yet: start once with --join TOKEN or --join-file FILE "
            "(\"meshperf token create\" makes a token)",
            settings->state_dir);
        return EXIT_CONFIGURATION;
    }
    if (given > 0 && join_token_read(text, token) != 0)
        return EXIT_BUG;
    sodium_memzero(text, sizeof text);
    if (account_load(account, settings->state_dir, settings->rejoin, error) != 0) {
        log_error("%s", error);
        return EXIT_CONFIGURATION;
    }
    if (known && settings->name_given && strcmp(settings->name, account->name) != 0)
        log_warn("this host is enrolled as %s: --name %s has no effect without --rejoin",
            account->name, settings->name);
    return 0;
}

static int locked(const struct agent_settings *settings, int signal_fd)
{
    static struct account account;
    static struct join_token token;
    int lock = state_dir_lock(settings->state_dir);
    if (lock < 0) {
        log_error("--state-dir \"%s\": %s", settings->state_dir, mesh_strerror(lock));
        return EXIT_CONFIGURATION;
    }
    int status = identify(settings, &account, &token);
    if (status == 0) {
        zsys_init();
        zsys_handler_set(NULL);
        zsys_set_max_sockets(0);
        zsys_set_pipehwm(0);
        status = serve(settings, &account, &token, signal_fd);
    }
    identity_wipe(&account.key);
    sodium_memzero(&token, sizeof token);
    close(lock);
    return status;
}

int main(int argc, char **argv)
{
    static struct agent_settings settings;
    char error[OPTIONS_ERROR_SIZE];
    mallopt(M_ARENA_MAX, 2); // an arena a thread would cost more than the agent itself
    log_setup("meshperf-agent", LOG_INFO, LOG_TEXT);
    if (sodium_init() < 0)
        return EXIT_BUG;
    if (agent_settings_load(&settings, argc, argv, environ, error) != 0) {
        fprintf(stderr, "meshperf-agent: %s\n", error);
        return EXIT_CONFIGURATION;
    }
    if (settings.daemon.help || settings.daemon.version) {
        if (settings.daemon.help)
            agent_settings_help(stdout);
        else
            puts("meshperf-agent " MESHPERF_VERSION);
        return fflush(stdout) == 0 ? 0 : EXIT_BUG;
    }
    log_setup("meshperf-agent", settings.daemon.log_level, settings.daemon.log_format);
    (void)daemon_raise_file_limit();
    int signal_fd = daemon_signals();
    if (signal_fd < 0) {
        log_error("signals cannot be received: %s", strerror(errno));
        return EXIT_BUG;
    }
    int status = locked(&settings, signal_fd);
    close(signal_fd);
    return status;
}
