#include "ports.h"

#include <stdio.h>
#include <string.h>

#include "errors.h"
#include "units.h"

static const char *const names[] = {[MP__TRANSPORT__OVER_TCP] = "tcp",
    [MP__TRANSPORT__OVER_UDP] = "udp",
    [MP__TRANSPORT__OVER_SCTP] = "sctp",
    [MP__TRANSPORT__OVER_ICMP] = "icmp"};

#define COUNT (sizeof names / sizeof *names)

const char *transport_name(Mp__Transport transport)
{
    return transport >= MP__TRANSPORT__OVER_TCP && (size_t)transport < COUNT ? names[transport]
                                                                             : "unknown";
}

bool transport_parse(const char *word, Mp__Transport *transport)
{
    for (size_t i = MP__TRANSPORT__OVER_TCP; i < COUNT; i++) {
        if (strcmp(word, names[i]) != 0)
            continue;
        *transport = (Mp__Transport)i;
        return true;
    }
    return false;
}

static int refuse(char *error, const char *word, const char *expected)
{
    snprintf(error, 256, "'%.60s' is not %s", word, expected);
    return MESH_E_SYNTAX;
}

static bool number_parse(const char *text, size_t length, uint16_t *number)
{
    char digits[8];
    uint64_t value;
    if (length == 0 || length >= sizeof digits)
        return false;
    memcpy(digits, text, length);
    digits[length] = '\0';
    if (units_count(digits, 1, 65535, &value) != 0)
        return false;
    *number = (uint16_t)value;
    return true;
}

int port_range_parse(const char *word, struct port_range *range, char *error)
{
    static const char expected[] =
        "a port: tcp/443, udp/53, sctp/9000, or a range such as tcp/9000-9003";
    const char *slash = strchr(word, '/');
    char name[8] = "";
    struct port_range made;
    if (!slash || (size_t)(slash - word) >= sizeof name)
        return refuse(error, word, expected);
    memcpy(name, word, (size_t)(slash - word));
    if (!transport_parse(name, &made.transport) || made.transport == MP__TRANSPORT__OVER_ICMP)
        return refuse(error, word, expected);
    const char *first = slash + 1, *dash = strchr(first, '-');
    size_t length = dash ? (size_t)(dash - first) : strlen(first);
    if (!number_parse(first, length, &made.first))
        return refuse(error, word, expected);
    made.last = made.first;
    if (dash && (!number_parse(dash + 1, strlen(dash + 1), &made.last) || made.last < made.first))
        return refuse(error, word, expected);
    *range = made;
    return 0;
}

int port_parse(const char *word, struct port *port, char *error)
{
    struct port_range range;
    int rc = port_range_parse(word, &range, error);
    if (rc != 0)
        return rc;
    if (strchr(word, '-'))
        return refuse(error, word, "a single port, such as tcp/443");
    *port = (struct port){range.transport, range.first};
    return 0;
}

char *port_format(const struct port *port, char text[PORT_TEXT_SIZE])
{
    snprintf(text, PORT_TEXT_SIZE, "%s/%u", transport_name(port->transport), port->number);
    return text;
}
