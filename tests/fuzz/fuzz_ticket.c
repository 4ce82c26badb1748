// Messages of the data plane: the handshake's, control messages, light probes and
// probes of ports and paths. The key is known, so
// that inputs of the corpus carry right MACs; all others must be refused.

#include <string.h>

#include "control.h"
#include "fuzz.h"
#include "light.h"
#include "path.h"
#include "reach.h"
#include "ticket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t id[TICKET_ID_SIZE] = {1}, key[TICKET_KEY_SIZE] = {2};
    static const uint8_t nonce_c[TICKET_NONCE_SIZE] = {3}, nonce_l[TICKET_NONCE_SIZE] = {4};
    uint8_t seen[TICKET_NONCE_SIZE], answer[LIGHT_SIZE], stream;
    const uint8_t *at = NULL;
    struct ticket_keys keys;
    struct control message;
    ticket_derive(id, key, &keys);
    if (ticket_peek(data, size, &at, &stream))
        HOLDS(at >= data && at + TICKET_ID_SIZE <= data + size);
    if (ticket_check_open(&keys, data, size, seen))
        HOLDS(size == TICKET_OPEN_SIZE);
    (void)ticket_check_answer(&keys, data, size, 0, nonce_c, seen);
    (void)ticket_check_proof(&keys, data, size, 0, nonce_c, nonce_l);
    for (unsigned direction = 0; direction < 2; direction++) {
        if (control_unpack(data, size, &keys, direction, &message)) {
            uint8_t again[CONTROL_SIZE];
            HOLDS(size == CONTROL_SIZE);
            control_pack(&message, &keys, direction, again);
            HOLDS(memcmp(again, data, CONTROL_SIZE) == 0);
        }
    }
    const struct light_clock own = {.offset_ns = 7, .error_ns = -1};
    at = light_peek(data, size);
    HOLDS(!at || (at >= data && at + TICKET_ID_SIZE <= data + size));
    HOLDS(light_answer(&keys, data, size, 1, LIGHT_FLAG_KERNEL_T2, &own, answer) <= size);
    static const unsigned types[] = {REACH_ASK, REACH_REPLY, PATH_ASK_SHORT};
    at = reach_peek(data, size);
    HOLDS(!at || (at >= data && at + TICKET_ID_SIZE <= data + size));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        uint8_t again[REACH_SIZE];
        if (!reach_unpack(&keys, types[i], data, size, seen))
            continue;
        HOLDS(size == REACH_SIZE && at);
        reach_pack(&keys, types[i], seen, again);
        HOLDS(memcmp(again + REACH_AT_TYPE, data + REACH_AT_TYPE, 1) == 0);
    }
    return 0;
}
