// The kernel's own view of a port's sockets: netlink sock_diag, which needs no privilege.

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "reach_parts.h"

#define BUFFER_SIZE 32768
#define PATIENCE_MS 500

// What one dump of the kernel's sockets is for.
struct look {
    void (*take)(const struct nlmsghdr *header, const char *local, struct look *look);
    struct listener *listeners; // of half_open and drops
    const struct port *port;    // of holder
    const char *address;
    bool found;
};

static void end_text(int family, const void *bytes, char text[PROBE_ADDRESS_SIZE])
{
    // A dual-stack socket shows IPv4 as a mapped address.
    const uint8_t *v6 = bytes;
    if (family == AF_INET6 && IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)bytes)) {
        family = AF_INET;
        bytes = v6 + 12;
    }
    if (!inet_ntop(family, bytes, text, PROBE_ADDRESS_SIZE))
        *text = '\0';
}

static bool is_wildcard(const char *address)
{
    return strcmp(address, "0.0.0.0") == 0 || strcmp(address, "::") == 0;
}

static const struct inet_diag_msg *socket_of(const struct nlmsghdr *header)
{
    return mnl_nlmsg_get_payload(header);
}

static bool is_at(const struct listener *l, const struct nlmsghdr *header)
{
    return l->port.transport == MP__TRANSPORT__OVER_TCP &&
           l->port.number == ntohs(socket_of(header)->id.idiag_sport);
}

static void half_open(const struct nlmsghdr *header, const char *local, struct look *look)
{
    const struct inet_diag_msg *socket = socket_of(header);
    struct reach_contact contact = {.port = ntohs(socket->id.idiag_dport)};
    end_text(socket->idiag_family, socket->id.idiag_dst, contact.address);
    for (struct listener *l = look->listeners; l; l = l->next)
        if (is_at(l, header) && strcmp(l->address, local) == 0)
            contact_add(l, &contact);
}

static void drops(const struct nlmsghdr *header, const char *local, struct look *look)
{
    const struct nlattr *attribute;
    uint32_t dropped = 0;
    mnl_attr_for_each(attribute, header, sizeof(struct inet_diag_msg))
    {
        const uint32_t *memory = mnl_attr_get_payload(attribute);
        if (mnl_attr_get_type(attribute) == INET_DIAG_SKMEMINFO &&
            mnl_attr_get_payload_len(attribute) > SK_MEMINFO_DROPS * sizeof *memory)
            dropped = memory[SK_MEMINFO_DROPS];
    }
    for (struct listener *l = look->listeners; l; l = l->next)
        if (is_at(l, header) && (is_wildcard(local) || strcmp(l->address, local) == 0)) {
            l->drops += dropped;
            l->backlog = socket_of(header)->idiag_wqueue;
        }
}

static void holder(const struct nlmsghdr *header, const char *local, struct look *look)
{
    if (ntohs(socket_of(header)->id.idiag_sport) == look->port->number &&
        (is_wildcard(local) || strcmp(local, look->address) == 0))
        look->found = true;
}

static int each_socket(const struct nlmsghdr *header, void *arg)
{
    struct look *look = arg;
    char local[PROBE_ADDRESS_SIZE];
    if (mnl_nlmsg_get_payload_len(header) < sizeof(struct inet_diag_msg))
        return MNL_CB_OK;
    end_text(socket_of(header)->idiag_family, socket_of(header)->id.idiag_src, local);
    look->take(header, local, look);
    return MNL_CB_OK;
}

static bool dump(uint8_t family, uint8_t protocol, uint32_t states, struct look *look)
{
    static const struct timeval patience = {.tv_usec = PATIENCE_MS * 1000};
    char buffer[BUFFER_SIZE];
    struct mnl_socket *netlink = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
    if (!netlink)
        return false;
    (void)setsockopt(
        mnl_socket_get_fd(netlink), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
    header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
    header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    header->nlmsg_seq = 1;
    struct inet_diag_req_v2 *request = mnl_nlmsg_put_extra_header(header, sizeof *request);
    request->sdiag_family = family;
    request->sdiag_protocol = protocol;
    request->idiag_states = states;
    request->idiag_ext = look->take == drops ? 1u << (INET_DIAG_SKMEMINFO - 1) : 0;
    bool good = mnl_socket_bind(netlink, 0, MNL_SOCKET_AUTOPID) == 0 &&
                mnl_socket_sendto(netlink, header, header->nlmsg_len) > 0;
    int more = MNL_CB_OK;
    while (good && more > MNL_CB_STOP) {
        ssize_t got = mnl_socket_recvfrom(netlink, buffer, sizeof buffer);
        more = got > 0 ? mnl_cb_run(buffer, (size_t)got, 1, 0, each_socket, look) : MNL_CB_ERROR;
    }
    mnl_socket_close(netlink);
    return good && more == MNL_CB_STOP;
}

static int family_of(const char *address)
{
    return strchr(address, ':') ? AF_INET6 : AF_INET;
}

bool diag_listens(const struct port *port, const char *address)
{
    static const struct {
        uint8_t protocol;
        uint32_t states;
    } of[] = {[MP__TRANSPORT__OVER_TCP] = {IPPROTO_TCP, 1u << TCP_LISTEN},
        [MP__TRANSPORT__OVER_UDP] = {IPPROTO_UDP, 1u << TCP_CLOSE},
        [MP__TRANSPORT__OVER_SCTP] = {IPPROTO_SCTP, 1u << TCP_LISTEN}};
    struct look look = {.take = holder, .port = port, .address = address};
    (void)dump(AF_INET6, of[port->transport].protocol, of[port->transport].states, &look);
    if (!look.found && family_of(address) == AF_INET)
        (void)dump(AF_INET, of[port->transport].protocol, of[port->transport].states, &look);
    return look.found;
}

// The TCP sockets in one state, of each family that the listeners have.
static bool dump_tcp(struct listener *listeners, unsigned state, struct look *look)
{
    bool wanted[2] = {false, false}, works = true;
    for (struct listener *l = listeners; l; l = l->next)
        if (l->port.transport == MP__TRANSPORT__OVER_TCP) {
            wanted[family_of(l->address) == AF_INET6] = true;
            // A service that listens to both families is among the IPv6 sockets, with its callers.
            wanted[1] = wanted[1] || l->service;
        }
    for (int six = 0; six < 2 && works; six++)
        if (wanted[six])
            works = dump(six ? AF_INET6 : AF_INET, IPPROTO_TCP, 1u << state, look);
    return works;
}

bool diag_half_open(struct listener *listeners)
{
    struct look look = {.take = half_open, .listeners = listeners};
    return dump_tcp(listeners, TCP_SYN_RECV, &look);
}

bool diag_drops(struct listener *listeners)
{
    struct look look = {.take = drops, .listeners = listeners};
    for (struct listener *l = listeners; l; l = l->next)
        l->drops = 0;
    return dump_tcp(listeners, TCP_LISTEN, &look);
}

bool diag_sctp_packets(uint64_t *count)
{
    FILE *file = fopen("/proc/net/sctp/snmp", "re");
    bool found = false;
    char name[64];
    unsigned long long value;
    while (file && !found && fscanf(file, "%63s %llu", name, &value) == 2)
        found = strcmp(name, "SctpInSCTPPacks") == 0;
    if (file)
        fclose(file);
    if (found)
        *count = value;
    return found;
}

bool diag_cookies_always(void)
{
    FILE *file = fopen("/proc/sys/net/ipv4/tcp_syncookies", "re");
    int value = 0;
    if (!file)
        return false;
    if (fscanf(file, "%d", &value) != 1)
        value = 0;
    fclose(file);
    return value == 2;
}
