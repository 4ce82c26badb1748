// Preloaded, it gives each interface a driver as clouds have it, whose provider counts what its
// allowances hold back: eleven packets more at each look.

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNTERS 2
#define MORE 11

static atomic_ulong held_back;

static int answer(void *asked)
{
    struct ethtool_drvinfo *info = asked;
    struct ethtool_gstrings *names = asked;
    struct ethtool_stats *values = asked;
    switch (info->cmd) {
    case ETHTOOL_GDRVINFO:
        strcpy(info->driver, "ena");
        info->n_stats = COUNTERS;
        return 0;
    case ETHTOOL_GSTRINGS:
        names->len = COUNTERS;
        strcpy((char *)names->data, "tx_timeout");
        strcpy((char *)names->data + ETH_GSTRING_LEN, "bw_out_allowance_exceeded");
        return 0;
    case ETHTOOL_GSTATS:
        values->n_stats = COUNTERS;
        values->data[0] = 0;
        values->data[1] = atomic_fetch_add(&held_back, MORE);
        return 0;
    default:
        return -1;
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *argument = va_arg(args, void *);
    va_end(args);
    if (request == SIOCETHTOOL && answer(((struct ifreq *)argument)->ifr_data) == 0)
        return 0;
    return (int)syscall(SYS_ioctl, fd, request, argument);
}
