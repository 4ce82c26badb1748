// The request's number in an envelope that was refused.

#include "fuzz.h"
#include "peek.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    // Two unlike values before: what is found does not depend on them, what is not is untouched.
    uint64_t one = 1, two = 2;
    bool found = peek_request(data, size, &one);
    HOLDS(peek_request(data, size, &two) == found);
    HOLDS(found ? one == two : one == 1 && two == 2);
    return 0;
}
