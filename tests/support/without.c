// Runs a command on a kernel that has less: `without OPTION... -- COMMAND...`, where an OPTION is
//
//     segment    no UDP_SEGMENT            gro        no UDP_GRO
//
// A seccomp filter refuses those socket options with the error of kernels that do not know them.

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SOL_UDP_LEVEL 17

static const struct option {
    const char *name;
    unsigned level, option;
} options[] = {
    {"segment", SOL_UDP_LEVEL, 103},
    {"gro", SOL_UDP_LEVEL, 104},
};
#define OPTIONS (sizeof options / sizeof *options)

#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)
#define LOW(argument) (offsetof(struct seccomp_data, args) + 8 * (argument)) // little endian
#define SKIP_UNLESS(value, count) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, count)
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, value)

// Further refusals only add: each filter is asked.
static int refuse(const struct option *option)
{
    struct sock_filter program[] = {
        LOAD(offsetof(struct seccomp_data, nr)),
        SKIP_UNLESS(__NR_setsockopt, 5),
        LOAD(LOW(1)),
        SKIP_UNLESS(option->level, 3),
        LOAD(LOW(2)),
        SKIP_UNLESS(option->option, 1),
        ANSWER(SECCOMP_RET_ERRNO | ENOPROTOOPT),
        ANSWER(SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof program / sizeof *program, program};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

int main(int argc, char **argv)
{
    int at = 1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return 70;
    for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
        bool known = false;
        for (size_t i = 0; i < OPTIONS; i++) {
            if (strcmp(argv[at], options[i].name) != 0)
                continue;
            known = true;
            if (refuse(&options[i]) < 0) {
                perror("without: seccomp");
                return 77;
            }
        }
        if (!known) {
            fprintf(stderr, "without: unknown option '%s'\n", argv[at]);
            return 2;
        }
    }
    if (at + 1 >= argc)
        return 2;
    execvp(argv[at + 1], argv + at + 1);
    perror(argv[at + 1]);
    return 127;
}
