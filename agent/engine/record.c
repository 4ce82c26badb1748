#include "record.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <libmnl/libmnl.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <math.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cgroup.h"

#define COUNTERS_MAX 4096

// ------------------------------------------------------------------ files of one line

static void read_word(const char *path, char *word, size_t size)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    if (fgets(word, (int)size, file))
        word[strcspn(word, "\n")] = '\0';
    fclose(file);
}

static uint64_t read_count(const char *path)
{
    char word[32] = "";
    read_word(path, word, sizeof word);
    return strtoull(word, NULL, 10);
}

// ------------------------------------------------------------------ the interface

static bool has_address(const struct ifaddrs *entry, const char *address)
{
    char text[INET6_ADDRSTRLEN];
    const void *bytes;
    if (!entry->ifa_addr)
        return false;
    if (entry->ifa_addr->sa_family == AF_INET)
        bytes = &((const struct sockaddr_in *)entry->ifa_addr)->sin_addr;
    else if (entry->ifa_addr->sa_family == AF_INET6)
        bytes = &((const struct sockaddr_in6 *)entry->ifa_addr)->sin6_addr;
    else
        return false;
    return inet_ntop(entry->ifa_addr->sa_family, bytes, text, sizeof text) &&
           strcmp(text, address) == 0;
}

static void find_interface(const char *address, struct probe_record *record)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) < 0)
        return;
    for (const struct ifaddrs *entry = all; entry; entry = entry->ifa_next)
        if (has_address(entry, address))
            snprintf(record->interface, sizeof record->interface, "%.15s", entry->ifa_name);
    freeifaddrs(all);
}

// What the kernel says of one link.
struct link {
    struct probe_record *record;
    struct rtnl_link_stats64 stats;
    bool counted;
};

static int on_link(const struct nlmsghdr *header, void *target)
{
    struct link *link = target;
    const struct nlattr *attribute;
    mnl_attr_for_each(attribute, header, sizeof(struct ifinfomsg))
    {
        switch (mnl_attr_get_type(attribute)) {
        case IFLA_MTU:
            link->record->mtu = mnl_attr_get_u32(attribute);
            break;
        case IFLA_QDISC:
            snprintf(
                link->record->qdisc, sizeof link->record->qdisc, "%s", mnl_attr_get_str(attribute));
            break;
        case IFLA_STATS64:
            if (mnl_attr_get_payload_len(attribute) < sizeof link->stats)
                break;
            memcpy(&link->stats, mnl_attr_get_payload(attribute), sizeof link->stats);
            link->counted = true;
            break;
        default:
            break;
        }
    }
    return MNL_CB_OK;
}

// One question to the kernel's routing netlink, one answer.
static void ask_link(struct link *about)
{
    char buffer[32768];
    struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
    header->nlmsg_type = RTM_GETLINK;
    header->nlmsg_flags = NLM_F_REQUEST;
    struct ifinfomsg *link = mnl_nlmsg_put_extra_header(header, sizeof *link);
    link->ifi_family = AF_UNSPEC;
    link->ifi_index = (int)if_nametoindex(about->record->interface);
    struct mnl_socket *netlink = link->ifi_index ? mnl_socket_open(NETLINK_ROUTE) : NULL;
    if (!netlink)
        return;
    if (mnl_socket_bind(netlink, 0, MNL_SOCKET_AUTOPID) == 0 &&
        mnl_socket_sendto(netlink, header, header->nlmsg_len) > 0) {
        ssize_t got = mnl_socket_recvfrom(netlink, buffer, sizeof buffer);
        if (got > 0)
            (void)mnl_cb_run(buffer, (size_t)got, 0, 0, on_link, about);
    }
    mnl_socket_close(netlink);
}

static bool ethtool(int fd, const char *interface, void *command)
{
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%.*s", IFNAMSIZ - 1, interface);
    request.ifr_data = command;
    return ioctl(fd, SIOCETHTOOL, &request) == 0;
}

static void ask_offloads(int fd, struct probe_record *record)
{
    static const struct {
        uint32_t command;
        const char *name;
    } offloads[] = {{ETHTOOL_GTSO, "tso"}, {ETHTOOL_GGSO, "gso"}, {ETHTOOL_GGRO, "gro"},
        {ETHTOOL_GTXCSUM, "tx-checksum"}, {ETHTOOL_GRXCSUM, "rx-checksum"}};
    for (size_t i = 0; i < sizeof offloads / sizeof *offloads; i++) {
        struct ethtool_value value = {.cmd = offloads[i].command};
        size_t have = strlen(record->offloads);
        if (ethtool(fd, record->interface, &value) && value.data)
            snprintf(record->offloads + have, sizeof record->offloads - have, "%s%s",
                have ? " " : "", offloads[i].name);
    }
}

static void ask_driver(int fd, struct probe_record *record)
{
    struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
    if (ethtool(fd, record->interface, &info))
        snprintf(record->driver, sizeof record->driver, "%s", info.driver);
    union {
        struct ethtool_link_settings settings;
        char room[sizeof(struct ethtool_link_settings) + sizeof(uint32_t[3 * 127])]; // its masks
    } link = {.settings.cmd = ETHTOOL_GLINKSETTINGS};
    // The first call tells how many words its masks have, the second gives the speed.
    if (!ethtool(fd, record->interface, &link) || link.settings.link_mode_masks_nwords >= 0)
        return;
    link.settings.link_mode_masks_nwords = (int8_t)-link.settings.link_mode_masks_nwords;
    if (ethtool(fd, record->interface, &link) && link.settings.speed != (uint32_t)SPEED_UNKNOWN)
        record->link_bps = (uint64_t)link.settings.speed * 1000000;
}

uint64_t record_allowance_exceeded(const char *interface)
{
    static const char ending[] = "allowance_exceeded";
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
    uint64_t sum = PROBE_ABSENT;
    bool asked = fd >= 0 && *interface && ethtool(fd, interface, &info) && info.n_stats > 0 &&
                 info.n_stats <= COUNTERS_MAX;
    uint32_t count = asked ? info.n_stats : 0;
    struct ethtool_gstrings *names = calloc(1, sizeof *names + (size_t)count * ETH_GSTRING_LEN);
    struct ethtool_stats *values = calloc(1, sizeof *values + count * sizeof(uint64_t));
    if (!names || !values)
        abort();
    *names = (struct ethtool_gstrings){
        .cmd = ETHTOOL_GSTRINGS, .string_set = ETH_SS_STATS, .len = count};
    *values = (struct ethtool_stats){.cmd = ETHTOOL_GSTATS, .n_stats = count};
    if (asked && ethtool(fd, interface, names) && ethtool(fd, interface, values)) {
        for (uint32_t i = 0; i < count && i < names->len && i < values->n_stats; i++) {
            const char *name = (const char *)names->data + (size_t)i * ETH_GSTRING_LEN;
            size_t length = strnlen(name, ETH_GSTRING_LEN);
            if (length >= sizeof ending - 1 &&
                memcmp(name + length - (sizeof ending - 1), ending, sizeof ending - 1) == 0)
                sum = (sum == PROBE_ABSENT ? 0 : sum) + values->data[i];
        }
    }
    free(names);
    free(values);
    if (fd >= 0)
        close(fd);
    return sum;
}

uint64_t record_interface_dropped(const char *interface)
{
    struct probe_record record = {0};
    struct link link = {.record = &record};
    snprintf(record.interface, sizeof record.interface, "%.15s", interface);
    ask_link(&link);
    return link.counted ? link.stats.rx_dropped + link.stats.rx_missed_errors : PROBE_ABSENT;
}

// ------------------------------------------------------------------ the host

static void read_virtualization(struct probe_record *record)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[4096];
    bool guest = false;
    while (file && !guest && fgets(line, sizeof line, file))
        guest = strncmp(line, "flags", 5) == 0 && strstr(line, " hypervisor");
    if (file)
        fclose(file);
    read_word("/sys/class/dmi/id/product_name", record->virtualization,
        guest ? sizeof record->virtualization : 1);
    if (!*record->virtualization)
        snprintf(record->virtualization, sizeof record->virtualization, "%s",
            guest ? "a virtual machine" : "none");
}

static unsigned cores_usable(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 0;
}

void record_read(const char *local_address, struct probe_record *record)
{
    struct utsname name;
    struct cgroup_cpu quota;
    *record = (struct probe_record){.moved_bytes = PROBE_ABSENT};
    if (uname(&name) == 0)
        snprintf(record->kernel, sizeof record->kernel, "%.60s", name.release);
    find_interface(local_address, record);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (*record->interface) {
        struct link link = {.record = record};
        ask_link(&link);
        if (link.counted)
            record->moved_bytes = link.stats.rx_bytes + link.stats.tx_bytes;
        ask_offloads(fd, record);
        ask_driver(fd, record);
    }
    if (fd >= 0)
        close(fd);
    read_word(
        "/proc/sys/net/ipv4/tcp_congestion_control", record->congestion, sizeof record->congestion);
    read_word("/proc/sys/kernel/random/boot_id", record->boot_id, sizeof record->boot_id);
    record->rmem_max = read_count("/proc/sys/net/core/rmem_max");
    record->wmem_max = read_count("/proc/sys/net/core/wmem_max");
    record->cores = cores_usable();
    cgroup_cpu_read(&quota);
    record->quota_cores = quota.quota_cores;
    read_virtualization(record);
}
