// A control message: the first byte says who sends it and whether in a session.

#include <string.h>

#include "fuzz.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int error;
    char text[256];
    if (size < 1)
        return 0;
    enum wire_role sender = (enum wire_role)(1 << (data[0] & 0x7f) % 6);
    bool inside = data[0] & 0x80;
    Mp__Envelope *seen = wire_unpack(data + 1, size - 1, sender, inside, &error, text);
    HOLDS((seen == NULL) == (error < 0));
    HOLDS(memchr(text, '\0', sizeof text));
    if (!seen)
        return 0;
    // What was accepted is a message that can be said again and means the same.
    size_t packed, again;
    uint8_t *bytes = wire_pack(seen, &packed);
    HOLDS(bytes);
    Mp__Envelope *copy = wire_unpack(bytes, packed, sender, inside, &error, text);
    HOLDS(copy);
    uint8_t *same = wire_pack(copy, &again);
    HOLDS(again == packed && memcmp(bytes, same, packed) == 0);
    free(same);
    free(bytes);
    wire_free(&copy);
    wire_free(&seen);
    return 0;
}
