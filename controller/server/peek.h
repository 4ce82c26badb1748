#ifndef MESHPERF_PEEK_H
#define MESHPERF_PEEK_H

// The request's number in an envelope that was refused: it is not unpacked, but its asker waits for
// an answer that repeats the number. Reads untrusted bytes, allocates nothing.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// False if there is none before the first oddity; *request is untouched then.
bool peek_request(const uint8_t *bytes, size_t size, uint64_t *request);

#endif
