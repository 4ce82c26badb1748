#ifndef MESHPERF_WIRE_SAMPLE_H
#define MESHPERF_WIRE_SAMPLE_H

// One valid message of each kind with every field set, made by walking the descriptors; for tests
// of the border.

#include "wire.h"

// An envelope with this body; NULL if there is no such body. Every value is one that the validators
// accept. Free with wire_sample_free.
Mp__Envelope *wire_sample(Mp__Envelope__BodyCase body);
void wire_sample_free(Mp__Envelope **envelope_p);

// Calls `visit` once for each message type that can be reached from Envelope.
void wire_each_type(void (*visit)(const ProtobufCMessageDescriptor *type, void *ctx), void *ctx);

#endif
