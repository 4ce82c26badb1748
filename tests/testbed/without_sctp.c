// Runs a command on a host that has SCTP as if it had none: socket() for it fails with an errno of
// choice, as where the module is missing or a policy forbids it. Needs no root.
//
//     without_sctp ERRNO COMMAND [ARGUMENT...]        ERRNO: EPROTONOSUPPORT, EACCES, ...

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define LOW_WORD (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0)

static int forbid(int error)
{
    struct sock_filter rules[] = {
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2]) + LOW_WORD),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_SCTP, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof rules / sizeof *rules, .filter = rules};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
    static const int errors[] = {EPROTONOSUPPORT, ESOCKTNOSUPPORT, EACCES, EPERM};
    for (size_t i = 0; argc > 2 && i < sizeof errors / sizeof *errors; i++) {
        if (strcmp(argv[1], strerrorname_np(errors[i])) != 0)
            continue;
        if (forbid(errors[i]) < 0) {
            perror("without_sctp: seccomp");
            return 125;
        }
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        return 127;
    }
    fprintf(
        stderr, "usage: without_sctp EPROTONOSUPPORT|ESOCKTNOSUPPORT|EACCES|EPERM COMMAND...\n");
    return 2;
}
