// meshperf-controller: reads the settings, makes the server, runs it until it is asked to stop.

#include <czmq.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "errors.h"
#include "log.h"
#include "server.h"
#include "settings.h"

enum { EXIT_CONFIGURATION = 2, EXIT_BUG = 70 };

extern char **environ;

// The protocol of sd_notify(3): a datagram to the socket that the service manager names.
static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = 0;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, size) < 0)
        log_warn("the service manager cannot be told \"%s\": %s", state, strerror(errno));
    close(fd);
}

// A connection is an open file; at the limit libzmq's I/O thread would spin.
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < 4096)
        log_warn("only %llu files can be open, about one for each agent",
            (unsigned long long)limit.rlim_cur);
}

// Blocked before any thread starts, so that all of them inherit that and the descriptor gets them.
static int signals_open(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
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
    notify("READY=1");
    log_info("meshperf-controller " MESHPERF_VERSION " answers at %s; operators use %s",
        server_endpoint(server), server_context_path(server));
    int status = run(server, signal_fd);
    notify("STOPPING=1");
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
    if (settings.help || settings.version) {
        if (settings.help)
            controller_settings_help(stdout);
        else
            puts("meshperf-controller " MESHPERF_VERSION);
        return fflush(stdout) == 0 ? 0 : EXIT_BUG;
    }
    log_setup("meshperf-controller", settings.log_level, settings.log_format);
    raise_file_limit();
    int signal_fd = signals_open();
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
