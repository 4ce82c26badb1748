#include <string.h>

#include "path.h"
#include "reach_parts.h"

static const uint8_t magic[4] = {'M', 'P', 'R', '1'};

enum { AT_TYPE = REACH_AT_TYPE, AT_ID = 8, AT_NONCE = 24, AT_MAC = 48 };

void reach_pack(
    const struct ticket_keys *keys, unsigned type, const uint8_t nonce[16], uint8_t out[REACH_SIZE])
{
    memset(out, 0, REACH_SIZE);
    memcpy(out, magic, sizeof magic);
    out[AT_TYPE] = (uint8_t)type;
    memcpy(out + AT_ID, keys->id, TICKET_ID_SIZE);
    memcpy(out + AT_NONCE, nonce, 16);
    ticket_mac(keys->light, out, AT_MAC, out + AT_MAC);
}

const uint8_t *reach_peek(const uint8_t *bytes, size_t size)
{
    if (size != REACH_SIZE || memcmp(bytes, magic, sizeof magic) != 0)
        return NULL;
    bool known = bytes[AT_TYPE] == REACH_ASK || bytes[AT_TYPE] == REACH_REPLY ||
                 bytes[AT_TYPE] == PATH_ASK_SHORT;
    return known ? bytes + AT_ID : NULL;
}

bool reach_unpack(const struct ticket_keys *keys, unsigned type, const uint8_t *bytes, size_t size,
    uint8_t nonce[16])
{
    uint8_t mac[TICKET_MAC_SIZE];
    const uint8_t *id = reach_peek(bytes, size);
    if (!id || bytes[AT_TYPE] != type || memcmp(id, keys->id, TICKET_ID_SIZE) != 0)
        return false;
    ticket_mac(keys->light, bytes, AT_MAC, mac);
    if (!ticket_mac_equal(mac, bytes + AT_MAC))
        return false;
    memcpy(nonce, bytes + AT_NONCE, 16);
    return true;
}
