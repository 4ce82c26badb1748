#include "light.h"

#include <endian.h>
#include <string.h>

#include "clock.h"
#include "light_parts.h"

static const uint8_t magic[4] = {'M', 'P', 'D', '1'};

enum {
    AT_TYPE = 4,
    AT_FLAGS = 5,
    AT_FLOW = 6,
    AT_ID = 8,
    AT_NUMBER = 24,
    AT_OFFSET = 32,
    AT_T2 = 40,
    AT_T3 = 48,
    AT_ERROR = 56,
    AT_MAC = 80
};

static void put64(uint8_t *at, uint64_t value)
{
    value = htobe64(value);
    memcpy(at, &value, sizeof value);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

void light_pack(
    const struct light_datagram *datagram, const struct ticket_keys *keys, uint8_t out[LIGHT_SIZE])
{
    memset(out, 0, LIGHT_SIZE);
    memcpy(out, magic, sizeof magic);
    out[AT_TYPE] = (uint8_t)datagram->type;
    out[AT_FLAGS] = (uint8_t)datagram->flags;
    out[AT_FLOW] = (uint8_t)(datagram->flow >> 8);
    out[AT_FLOW + 1] = (uint8_t)datagram->flow;
    memcpy(out + AT_ID, keys->id, TICKET_ID_SIZE);
    put64(out + AT_NUMBER, datagram->number);
    put64(out + AT_T2, (uint64_t)datagram->t2_ns);
    put64(out + AT_T3, (uint64_t)datagram->t3_ns);
    put64(out + AT_OFFSET, (uint64_t)datagram->offset_ns);
    put64(out + AT_ERROR, (uint64_t)datagram->error_ns);
    ticket_mac(keys->light, out, AT_MAC, out + AT_MAC);
}

// Times that a host can have and that can be subtracted from each other.
static bool plausible(const struct light_datagram *datagram)
{
    const int64_t years36 = INT64_C(1) << 60;
    return datagram->t2_ns > -years36 && datagram->t2_ns < years36 && datagram->t3_ns >= 0 &&
           datagram->t3_ns < years36 && datagram->offset_ns > -years36 &&
           datagram->offset_ns < 3 * years36 && datagram->error_ns >= -1 &&
           datagram->error_ns < years36;
}

bool light_unpack(const uint8_t *bytes, size_t size, const struct ticket_keys *keys,
    struct light_datagram *datagram)
{
    uint8_t mac[TICKET_MAC_SIZE];
    const uint8_t *id = light_peek(bytes, size);
    if (!id || memcmp(id, keys->id, TICKET_ID_SIZE) != 0)
        return false;
    ticket_mac(keys->light, bytes, AT_MAC, mac);
    if (!ticket_mac_equal(mac, bytes + AT_MAC))
        return false;
    *datagram = (struct light_datagram){.type = bytes[AT_TYPE],
        .flags = bytes[AT_FLAGS],
        .flow = (unsigned)bytes[AT_FLOW] << 8 | bytes[AT_FLOW + 1],
        .number = get64(bytes + AT_NUMBER),
        .t2_ns = (int64_t)get64(bytes + AT_T2),
        .t3_ns = (int64_t)get64(bytes + AT_T3),
        .offset_ns = (int64_t)get64(bytes + AT_OFFSET),
        .error_ns = (int64_t)get64(bytes + AT_ERROR)};
    return plausible(datagram);
}

const uint8_t *light_peek(const uint8_t *bytes, size_t size)
{
    if (size != LIGHT_SIZE || memcmp(bytes, magic, sizeof magic) != 0)
        return NULL;
    return bytes[AT_TYPE] == LIGHT_ASK || bytes[AT_TYPE] == LIGHT_REPLY ? bytes + AT_ID : NULL;
}

size_t light_answer(const struct ticket_keys *keys, const uint8_t *question, size_t size,
    int64_t t2_ns, unsigned flags, const struct light_clock *clock, uint8_t answer[LIGHT_SIZE])
{
    struct light_datagram datagram;
    if (!light_unpack(question, size, keys, &datagram) || datagram.type != LIGHT_ASK)
        return 0;
    datagram.type = LIGHT_REPLY;
    datagram.flags = flags;
    datagram.t2_ns = t2_ns - clock->offset_ns;
    datagram.offset_ns = clock->offset_ns;
    datagram.error_ns = clock->error_ns;
    datagram.t3_ns = clock_mono_ns();
    light_pack(&datagram, keys, answer);
    return LIGHT_SIZE;
}
