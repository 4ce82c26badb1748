// Join tokens and operators' contexts, as somebody pastes them.

#include <string.h>

#include "fuzz.h"
#include "identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct join_token token;
    struct operator_context context;
    uint8_t key[IDENTITY_KEY_SIZE];
    char *text = strndup((const char *)data, size);
    if (join_token_read(text, &token) == 0) {
        char again[JOIN_TOKEN_TEXT_SIZE];
        HOLDS(join_token_write(&token, again) == 0 && strcmp(again, text) == 0);
    }
    if (operator_context_read((const char *)data, size, &context) == 0) {
        char again[OPERATOR_CONTEXT_TEXT_SIZE];
        struct operator_context back;
        HOLDS(operator_context_write(&context, again) == 0);
        HOLDS(operator_context_read(again, strlen(again), &back) == 0);
        HOLDS(memcmp(&context, &back, sizeof back) == 0);
    }
    if (identity_from_z85(text, key) == 0) {
        char again[IDENTITY_Z85_SIZE];
        identity_z85(key, again);
        HOLDS(strcmp(again, text) == 0);
    }
    free(text);
    return 0;
}
