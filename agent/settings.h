#ifndef MESHPERF_AGENT_SETTINGS_H
#define MESHPERF_AGENT_SETTINGS_H

// What the agent was told: command line over environment over file. Plain data; the guard's section
// exists in the file only, for it is the owner's and not the caller's.

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "daemon_settings.h"
#include "guard.h"
#include "identity.h"
#include "options.h"

#define SETTINGS_FILE "/etc/meshperf/agent.yaml"
#define SETTINGS_LABELS_MAX 64
#define SETTINGS_LABEL_SIZE 64

struct label_setting {
    char key[SETTINGS_LABEL_SIZE];
    char value[SETTINGS_LABEL_SIZE];
};

struct agent_settings {
    struct daemon_settings daemon;
    char join[JOIN_TOKEN_TEXT_SIZE]; // a secret; empty: none given
    char join_file[512];             // "-": standard input
    char name[IDENTITY_NAME_SIZE];   // empty: the hostname
    bool name_given;
    char state_dir[512];
    char addresses[2][64]; // [0] IPv4, [1] IPv6; empty: found by itself
    struct label_setting labels[SETTINGS_LABELS_MAX];
    size_t label_count;
    bool rejoin;
    unsigned data_port;
    struct guard guard;
};

extern const struct option_table agent_options;

// 0, or a negative error with a sentence in `error` (OPTIONS_ERROR_SIZE) that quotes the word, and
// for files begins with FILE:LINE:COLUMN. Without --name the hostname is taken.
int agent_settings_load(struct agent_settings *settings, int argc, char **argv, char **environment,
    char *error) __attribute__((warn_unused_result));

// The token's text from --join or --join-file, without blanks around it. 1 if there is one, 0 if
// none was given, or a negative error with a sentence that never contains the token.
int agent_settings_token(const struct agent_settings *settings, char text[JOIN_TOKEN_TEXT_SIZE],
    char *error) __attribute__((warn_unused_result));

void agent_settings_help(FILE *stream);

#endif
