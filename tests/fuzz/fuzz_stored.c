// What a database row holds: a cell or a run's request.

#include "fuzz.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    if (data[0] & 1) {
        Mp__Cell *cell = wire_cell_unpack(data + 1, size - 1);
        if (cell)
            mp__cell__free_unpacked(cell, NULL);
    } else {
        Mp__RunRequest *request = wire_run_request_unpack(data + 1, size - 1);
        if (request)
            mp__run_request__free_unpacked(request, NULL);
    }
    return 0;
}
