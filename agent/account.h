#ifndef MESHPERF_ACCOUNT_H
#define MESHPERF_ACCOUNT_H

// What the state directory keeps: this host's key (identity.key, mode 0600) and where it is
// enrolled (enrolment: endpoint, the controller's key, the name). The key exists before the
// enrolment, so that an answer which got lost can be asked for again with the same key. A key made
// for --rejoin waits beside the old one (identity.key.new) until the controller has taken it.

#include <stdbool.h>

#include "identity.h"

struct account {
    struct identity key;
    bool enrolled;
    bool renewed; // the key is still in identity.key.new
    char endpoint[IDENTITY_ENDPOINT_SIZE];
    uint8_t controller_key[IDENTITY_KEY_SIZE];
    char name[IDENTITY_NAME_SIZE];
};

#define ACCOUNT_ERROR_SIZE 512

// An enrolment that does not belong to the key, or has another form, is an error; none at all is
// not (enrolled is false then). Without a key, or with `rejoin`, one is made and stored.
// 0 or a negative error with a sentence.
int account_load(struct account *account, const char *state_dir, bool rejoin, char *error)
    __attribute__((warn_unused_result));

// Is there an identity that needs no token?
bool account_exists(const char *state_dir);

// The controller has taken the key: stores that for good. The caller filled in endpoint, controller
// and name.
int account_enrol(struct account *account, const char *state_dir)
    __attribute__((warn_unused_result));

#endif
