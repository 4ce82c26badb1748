#include "errors.h"

#include <string.h>

static const char *own(enum mesh_error error)
{
    switch (error) {
    case MESH_E_SYNTAX:
        return "not of the expected form";
    case MESH_E_RANGE:
        return "outside the permitted range";
    case MESH_E_TOO_LARGE:
        return "too large";
    case MESH_E_VERSION:
        return "no protocol version in common";
    case MESH_E_DECODE:
        return "not decodable";
    case MESH_E_INVALID:
        return "not valid";
    case MESH_E_FORBIDDEN:
        return "not permitted to this sender";
    case MESH_E_AUTH:
        return "authentication failed";
    case MESH_E_NOT_FOUND:
        return "not found";
    case MESH_E_EXISTS:
        return "exists already";
    case MESH_E_PERMISSIONS:
        return "a secret file that others can read";
    case MESH_E_LOCKED:
        return "in use by another process";
    case MESH_E_TIMEOUT:
        return "no answer in time";
    case MESH_E_STOPPED:
        return "stopped";
    case MESH_E_UNSUPPORTED:
        return "not supported on this host";
    case MESH_E_PEER:
        return "the other end failed";
    case MESH_E_GUARD:
        return "forbidden by this host's guard";
    case MESH_E_FULL:
        return "no room";
    case MESH_E_REFUSED:
        return "refused by the controller";
    }
    return "unknown error";
}

const char *mesh_strerror(int error)
{
    if (error <= -1000)
        return own((enum mesh_error)error);
    return error == 0 ? "no error" : strerror(error < 0 ? -error : error);
}
