// meshperf-controller: reads the settings, makes the server, runs it until it is asked to stop.

#include <czmq.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "daemon.h"
#include "errors.h"
#include "log.h"
#include "server.h"
#include "settings.h"

enum { EXIT_CONFIGURATION = 2, EXIT_BUG = 70 };

extern char **environ;

// A connection is an open file; at the limit libzmq's I/O thread would spin.
static void raise_file_limit(void)
{
    long long limit = daemon_raise_file_limit();
    if (limit < 4096)
        log_warn("only %lld files can be open, about one for each agent", limit);
}

static int run(server_t *server, int signal_fd)
{
    struct signalfd_siginfo info;
    for (;;) {
        int rc = server_step(server, 1000, signal_fd);
        if (rc < 0) {
            log_error("the loop failed: %s", mesh_strerror(rc));
            return EXIT_BUG;
        }
        if (read(signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
            log_info("asked to stop (signal %u)", info.ssi_signo);
            return 0;
        }
    }
}

static int serve(const struct controller_settings *settings, int signal_fd)
{
    struct server_options options = {.listen = settings->listen,
        .advertise = *settings->advertise ? settings->advertise : NULL,
        .operator_listen = *settings->operator_listen ? settings->operator_listen : NULL,
        .state_dir = settings->state_dir};
    char error[SERVER_ERROR_SIZE];
    server_t *server = server_new(&options, &clock_system, error);
    if (!server) {
        log_error("%s", error);
        return EXIT_CONFIGURATION;
    }
    printf("ready %s\n", server_endpoint(server));
    fflush(stdout);
    daemon_notify("READY=1");
    log_info("meshperf-controller " MESHPERF_VERSION " answers at %s; operators use %s",
        server_endpoint(server), server_context_path(server));
    int status = run(server, signal_fd);
    daemon_notify("STOPPING=1");
    server_destroy(&server);
    return status;
}

int main(int argc, char **argv)
{
    struct controller_settings settings;
    char error[OPTIONS_ERROR_SIZE];
    log_setup("meshperf-controller", LOG_INFO, LOG_TEXT);
    if (controller_settings_load(&settings, argc, argv, environ, error) != 0) {
        fprintf(stderr, "meshperf-controller: %s\n", error);
        return EXIT_CONFIGURATION;
    }
    if (settings.daemon.help || settings.daemon.version) {
        if (settings.daemon.help)
            controller_settings_help(stdout);
        else
            puts("meshperf-controller " MESHPERF_VERSION);
        return fflush(stdout) == 0 ? 0 : EXIT_BUG;
    }
    log_setup("meshperf-controller", settings.daemon.log_level, settings.daemon.log_format);
    raise_file_limit();
    int signal_fd = daemon_signals();
    if (signal_fd < 0) {
        log_error("signals cannot be received: %s", strerror(errno));
        return EXIT_BUG;
    }
    zsys_init();
    zsys_handler_set(NULL);
    zsys_set_max_sockets(0);
    int status = serve(&settings, signal_fd);
    close(signal_fd);
    zsys_shutdown(); // waits for libzmq to close its sockets and to remove the local one
    return status;
}
