// The data port itself over loopback, with one admission and one ticket for light probes live: an
// input is a row of datagrams, each with two bytes of length before it. What comes back is never
// more than what was sent.

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataport.h"
#include "fuzz.h"

static dataport_t *port;
static int stranger;

static void open_port(void)
{
    int error;
    struct ticket_keys keys;
    uint8_t id[TICKET_ID_SIZE] = {1}, key[TICKET_KEY_SIZE] = {2};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    port = dataport_new(0, NULL, &error);
    HOLDS(port);
    ticket_derive(id, key, &keys);
    HOLDS(dataport_admit(port, DATAPORT_UDP, &keys, "127.0.0.1", 4, &error));
    id[0] = 5;
    ticket_derive(id, key, &keys);
    HOLDS(dataport_reflect(port, &keys, "127.0.0.1", INT64_MAX, 0) == 0);
    to.sin_port = htons(dataport_number(port));
    stranger = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    HOLDS(connect(stranger, (struct sockaddr *)&to, sizeof to) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t answer[65536];
    static uint64_t sent, received;
    if (!port)
        open_port();
    while (size > 2) {
        size_t length = (size_t)data[0] << 8 | data[1];
        data += 2;
        size -= 2;
        length = length < size ? length : size;
        ssize_t out = send(stranger, data, length, 0);
        sent += out > 0 ? (uint64_t)out : 0;
        data += length;
        size -= length;
    }
    struct dataport_counters counters;
    dataport_counters(port, &counters); // the port's thread lives and answers
    ssize_t in;
    while ((in = recv(stranger, answer, sizeof answer, 0)) > 0)
        received += (uint64_t)in;
    HOLDS(received <= sent);
    return 0;
}
