#ifndef MESHPERF_WIRE_CHECK_H
#define MESHPERF_WIRE_CHECK_H

// The validators behind wire_unpack. Two layers: rules that follow from a field's type and name,
// applied to every field of every message by walking the descriptors (text is UTF-8 without control
// characters and capped, enumerations are known, numbers are finite and not negative, lists are
// capped, ids and keys have their length), and a table of rules for single messages. Private to
// proto/.

#include <stdbool.h>

#include "meshperf.pb-c.h"

// False with a sentence in `text` (256 bytes) that names the field.
bool wire_check_envelope(const Mp__Envelope *envelope, char *text);
bool wire_check_message(const ProtobufCMessage *message, char *text);

// Whether a field of the message at `base` is set; lists always are.
bool wire_field_present(const ProtobufCFieldDescriptor *field, const char *base);

#endif
