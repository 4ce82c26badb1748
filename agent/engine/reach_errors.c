#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <linux/errqueue.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>

#include "reach_parts.h"

// ------------------------------------------------------------------------------- the error queue

static void take(const struct cmsghdr *c, struct socket_error *out)
{
    struct sock_extended_err error;
    memcpy(&error, CMSG_DATA(c), sizeof error);
    out->error = (int)error.ee_errno;
    out->local = error.ee_origin == SO_EE_ORIGIN_LOCAL;
    out->has_icmp = error.ee_origin == SO_EE_ORIGIN_ICMP || error.ee_origin == SO_EE_ORIGIN_ICMP6;
    out->icmp_type = error.ee_type;
    out->icmp_code = error.ee_code;
    out->info = error.ee_info;
    *out->from = '\0';
    if (!out->has_icmp || c->cmsg_len < CMSG_LEN(sizeof error + sizeof(struct sockaddr_in)))
        return;
    struct sockaddr_storage offender = {0};
    size_t room = c->cmsg_len - CMSG_LEN(sizeof error);
    memcpy(&offender, CMSG_DATA(c) + sizeof error, room < sizeof offender ? room : sizeof offender);
    struct reach_contact from;
    reach_text(&offender, &from);
    memcpy(out->from, from.address, sizeof out->from);
}

// What is queued that is no error (a stamp, say) is passed over.
bool error_next(int fd, struct socket_error *error)
{
    char control[512], data[64];
    memset(error, 0, sizeof *error);
    for (int i = 0; i < 16; i++) {
        struct iovec iov = {data, sizeof data};
        struct msghdr header = {.msg_iov = &iov,
            .msg_iovlen = 1,
            .msg_control = control,
            .msg_controllen = sizeof control};
        if (recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            return false;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
            bool ours = (c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR) ||
                        (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_RECVERR);
            if (!ours || c->cmsg_len < CMSG_LEN(sizeof(struct sock_extended_err)))
                continue;
            take(c, error);
            return true;
        }
    }
    return false;
}

bool error_read(int fd, struct socket_error *error)
{
    struct socket_error next;
    bool found = false;
    memset(error, 0, sizeof *error);
    for (int i = 0; i < 16 && error_next(fd, &next); i++) {
        *error = next;
        found = true;
    }
    return found;
}

// -------------------------------------------------------------------------------------- verdicts

static bool is_v6(const struct socket_error *error)
{
    return strchr(error->from, ':') != NULL;
}

bool error_is_hop(const struct socket_error *error)
{
    unsigned exceeded = is_v6(error) ? ICMPV6_TIME_EXCEED : ICMP_TIME_EXCEEDED;
    return error->has_icmp && error->icmp_type == exceeded;
}

// No way to the network or the host.
static bool says_unreachable(const struct socket_error *error)
{
    unsigned code = error->icmp_code;
    if (is_v6(error))
        return error->icmp_type == ICMPV6_DEST_UNREACH &&
               (code == ICMPV6_NOROUTE || code == ICMPV6_ADDR_UNREACH);
    return error->icmp_type == ICMP_DEST_UNREACH &&
           (code == ICMP_NET_UNREACH || code == ICMP_HOST_UNREACH);
}

// The target says that it has no such port (or protocol).
static bool says_closed(const struct socket_error *error)
{
    if (is_v6(error))
        return (error->icmp_type == ICMPV6_DEST_UNREACH &&
                   error->icmp_code == ICMPV6_PORT_UNREACH) ||
               (error->icmp_type == ICMPV6_PARAMPROB && error->icmp_code == ICMPV6_UNK_NEXTHDR);
    return error->icmp_type == ICMP_DEST_UNREACH &&
           (error->icmp_code == ICMP_PORT_UNREACH || error->icmp_code == ICMP_PROT_UNREACH);
}

static Mp__Observed icmp_observed(const struct socket_error *error, const struct reach_peer *peer)
{
    // Our own kernel says so when nobody answers to ARP; anything else is a rule of this host's
    // own.
    if (strcmp(error->from, peer->local_address) == 0)
        return says_unreachable(error) ? MP__OBSERVED__OBSERVED_NO_ROUTE
                                       : MP__OBSERVED__OBSERVED_REJECTED;
    if (strcmp(error->from, peer->peer_address) == 0 && says_closed(error))
        return MP__OBSERVED__OBSERVED_REFUSED;
    return MP__OBSERVED__OBSERVED_REJECTED;
}

Mp__Observed error_observed(const struct socket_error *error, const struct reach_peer *peer)
{
    if (error->has_icmp)
        return icmp_observed(error, peer);
    switch (error->error) {
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
        return MP__OBSERVED__OBSERVED_REFUSED;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
        return MP__OBSERVED__OBSERVED_NO_ROUTE;
    case EPERM: // a rule of this host's own
    case EACCES:
        return MP__OBSERVED__OBSERVED_REJECTED;
    case EPROTONOSUPPORT:
    case ESOCKTNOSUPPORT:
    case EAFNOSUPPORT:
        return MP__OBSERVED__OBSERVED_UNSUPPORTED;
    case ETIMEDOUT:
        return MP__OBSERVED__OBSERVED_FILTERED;
    default:
        return MP__OBSERVED__OBSERVED_ERROR;
    }
}
