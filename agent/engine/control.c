#include "control.h"

#include <endian.h>
#include <string.h>

static const uint8_t magic[4] = {'M', 'P', 'D', '1'};

// Where things stand: the head as in the handshake, nine numbers (big endian), the MAC at the end.
enum {
    AT_TYPE = 4,
    AT_PHASE = 5,
    AT_FLAGS = 6,
    AT_DIRECTION = 7,
    AT_ID = 8,
    AT_SEQUENCE = 24,
    AT_NUMBERS = 32,
    AT_MAC = CONTROL_SIZE - TICKET_MAC_SIZE,
    NUMBERS = 9,
    FLAG_FINAL_SEEN = 1,
    FLAG_FULL = 2,
    FLAGS = FLAG_FINAL_SEEN | FLAG_FULL,
};

static void put_u64(uint8_t *out, uint64_t value)
{
    value = htobe64(value);
    memcpy(out, &value, sizeof value);
}

static uint64_t get_u64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return be64toh(value);
}

void control_pack(const struct control *message, const struct ticket_keys *keys, unsigned direction,
    uint8_t out[CONTROL_SIZE])
{
    memset(out, 0, CONTROL_SIZE);
    memcpy(out, magic, sizeof magic);
    out[AT_TYPE] = (uint8_t)message->type;
    out[AT_PHASE] = (uint8_t)message->phase;
    out[AT_FLAGS] =
        (uint8_t)((message->final_seen ? FLAG_FINAL_SEEN : 0) | (message->full ? FLAG_FULL : 0));
    out[AT_DIRECTION] = (uint8_t)direction;
    memcpy(out + AT_ID, keys->id, TICKET_ID_SIZE);
    uint32_t sequence = htobe32(message->sequence);
    memcpy(out + AT_SEQUENCE, &sequence, sizeof sequence);
    const uint64_t counts[NUMBERS] = {message->bytes, message->packets, message->first_sequence,
        message->end_sequence, message->lost_sender, message->drops_receiver,
        (uint64_t)message->window_ns, message->missing,
        message->path_mtu};
    const uint64_t path[NUMBERS] = {message->retransmits, message->falls,
        (uint64_t)message->sawtooth_ns, (uint64_t)message->rtt_ns};
    for (size_t i = 0; i < NUMBERS; i++)
        put_u64(out + AT_NUMBERS + 8 * i, message->type == CONTROL_PATH ? path[i] : counts[i]);
    ticket_mac(keys->control, out, AT_MAC, out + AT_MAC);
}

static bool well_formed(const uint8_t *bytes, const struct ticket_keys *keys, unsigned direction)
{
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return false;
    if (bytes[AT_TYPE] < CONTROL_FEEDBACK || bytes[AT_TYPE] > CONTROL_PATH)
        return false;
    return bytes[AT_PHASE] <= CONTROL_DONE && (bytes[AT_FLAGS] & ~FLAGS) == 0 &&
           bytes[AT_DIRECTION] == direction && memcmp(bytes + AT_ID, keys->id, TICKET_ID_SIZE) == 0;
}

static void read_counts(const uint8_t *numbers, struct control *message)
{
    message->bytes = get_u64(numbers);
    message->packets = get_u64(numbers + 8);
    message->first_sequence = get_u64(numbers + 16);
    message->end_sequence = get_u64(numbers + 24);
    message->lost_sender = get_u64(numbers + 32);
    message->drops_receiver = get_u64(numbers + 40);
    message->window_ns = (int64_t)get_u64(numbers + 48);
    message->missing = get_u64(numbers + 56);
    message->path_mtu = get_u64(numbers + 64);
}

static bool read_path(const uint8_t *numbers, struct control *message)
{
    for (size_t i = 4; i < NUMBERS; i++)
        if (get_u64(numbers + 8 * i) != 0)
            return false;
    message->retransmits = get_u64(numbers);
    message->falls = get_u64(numbers + 8);
    message->sawtooth_ns = (int64_t)get_u64(numbers + 16);
    message->rtt_ns = (int64_t)get_u64(numbers + 24);
    return message->sawtooth_ns >= 0 && message->rtt_ns >= 0;
}

bool control_unpack(const uint8_t *bytes, size_t size, const struct ticket_keys *keys,
    unsigned direction, struct control *message)
{
    if (size != CONTROL_SIZE || !well_formed(bytes, keys, direction))
        return false;
    uint8_t mac[TICKET_MAC_SIZE];
    ticket_mac(keys->control, bytes, AT_MAC, mac);
    if (!ticket_mac_equal(mac, bytes + AT_MAC))
        return false;
    uint32_t sequence;
    memcpy(&sequence, bytes + AT_SEQUENCE, sizeof sequence);
    const uint8_t *numbers = bytes + AT_NUMBERS;
    *message = (struct control){.type = bytes[AT_TYPE],
        .phase = bytes[AT_PHASE],
        .final_seen = bytes[AT_FLAGS] & FLAG_FINAL_SEEN,
        .full = bytes[AT_FLAGS] & FLAG_FULL,
        .sequence = be32toh(sequence)};
    if (message->type == CONTROL_PATH)
        return read_path(numbers, message);
    read_counts(numbers, message);
    return true;
}
