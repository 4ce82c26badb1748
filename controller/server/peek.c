#include "peek.h"

// Protocol Buffers' wire format: a key (field number and type) before each value.
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { FIELD_REQUEST = 3 };

// Bytes used; 0 if it does not end within `size` or ten bytes.
static size_t varint_read(const uint8_t *bytes, size_t size, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < size && i < 10; i++) {
        *value |= (uint64_t)(bytes[i] & 0x7f) << (7 * i);
        if (!(bytes[i] & 0x80))
            return i + 1;
    }
    return 0;
}

bool peek_request(const uint8_t *bytes, size_t size, uint64_t *request)
{
    while (size > 0) {
        uint64_t key, value = 0;
        size_t used = varint_read(bytes, size, &key);
        if (used == 0)
            return false;
        bytes += used, size -= used;
        unsigned type = key & 7;
        if (type == VARINT || type == BYTES) {
            used = varint_read(bytes, size, &value);
            if (used == 0)
                return false;
            bytes += used, size -= used;
        }
        if (type == VARINT && key >> 3 == FIELD_REQUEST) {
            *request = value;
            return true;
        }
        uint64_t skip = type == FIXED64 ? 8 : type == FIXED32 ? 4 : type == BYTES ? value : 0;
        if ((type != VARINT && skip == 0 && type != BYTES) || skip > size)
            return false;
        bytes += skip, size -= skip;
    }
    return false;
}
