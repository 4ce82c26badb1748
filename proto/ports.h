#ifndef MESHPERF_PORTS_H
#define MESHPERF_PORTS_H

// Ports in words: "tcp/443", "udp/53", "sctp/9000", and ranges of them, "tcp/9000-9003". Pure.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "meshperf.pb-c.h"

#define PORTS_MAX 4096    // single ports of one run
#define PORT_TEXT_SIZE 16 // "sctp/65535"

struct port {
    Mp__Transport transport;
    uint16_t number;
};

struct port_range {
    Mp__Transport transport;
    uint16_t first, last;
};

// What the listening end does about a port: enum value 0 is the default.
enum port_listener {
    PORT_LISTENER_AGENT,   // open a listener if nobody holds the port; else look on
    PORT_LISTENER_SERVICE, // look on only: a service is expected there
    PORT_LISTENER_EITHER,  // as agent; whoever answers will do
};

// 0, or MESH_E_SYNTAX with a sentence in `error` (256 bytes) that quotes the word.
int port_range_parse(const char *word, struct port_range *range, char *error)
    __attribute__((warn_unused_result));
// The same for a single port.
int port_parse(const char *word, struct port *port, char *error)
    __attribute__((warn_unused_result));
char *port_format(const struct port *port, char text[PORT_TEXT_SIZE]);

const char *transport_name(Mp__Transport transport); // "tcp"
bool transport_parse(const char *word, Mp__Transport *transport);

#endif
