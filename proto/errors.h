#ifndef MESHPERF_ERRORS_H
#define MESHPERF_ERRORS_H

// One set of error codes for all of meshperf. A function that can fail in more than one way returns
// 0 or a negative number: system errors as -errno, our own from -1000 downwards.

enum mesh_error {
    MESH_E_SYNTAX = -1000,       // a word or file does not have the form it should have
    MESH_E_RANGE = -1001,        // well formed, but outside the permitted range
    MESH_E_TOO_LARGE = -1002,    // over a cap that is checked before allocating
    MESH_E_VERSION = -1003,      // no protocol version in common
    MESH_E_DECODE = -1004,       // bytes are not the message they claim to be
    MESH_E_INVALID = -1005,      // a decoded message breaks a rule of its validator
    MESH_E_FORBIDDEN = -1006,    // the sender's role or state does not permit this message
    MESH_E_AUTH = -1007,         // a MAC or a key does not match
    MESH_E_NOT_FOUND = -1008,
    MESH_E_EXISTS = -1009,
    MESH_E_PERMISSIONS = -1010,  // a secret file that others can read
    MESH_E_LOCKED = -1011,       // another process holds the state directory
    MESH_E_TIMEOUT = -1012,
    MESH_E_STOPPED = -1013,      // told to stop
    MESH_E_UNSUPPORTED = -1014,  // this host cannot do it
    MESH_E_PEER = -1015,         // the other end reported a failure or went silent
    MESH_E_GUARD = -1016,        // the owner of this host forbids it
    MESH_E_FULL = -1017,         // a bounded queue or table has no room
    MESH_E_REFUSED = -1018,      // the controller refuses
};

// Words for a negative return value, ours or the system's. Never NULL; the string is static (for
// unknown system errors: per thread).
const char *mesh_strerror(int error);

#endif
