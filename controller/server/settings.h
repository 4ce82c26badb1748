#ifndef MESHPERF_CONTROLLER_SETTINGS_H
#define MESHPERF_CONTROLLER_SETTINGS_H

// The controller's configuration: flags over environment over file, through one table.

#include <stdbool.h>
#include <stdio.h>

#include "daemon_settings.h"
#include "identity.h"
#include "options.h"

#define SETTINGS_FILE "/etc/meshperf/controller.yaml"

struct controller_settings {
    struct daemon_settings daemon;
    char listen[IDENTITY_ENDPOINT_SIZE];
    char advertise[IDENTITY_ENDPOINT_SIZE];       // "" = worked out
    char operator_listen[IDENTITY_ENDPOINT_SIZE]; // "" = in the state directory
    char state_dir[200];
};

extern const struct option_table controller_options;

// From file, environment and command line. 0, or negative with a complete sentence in `error`
// (OPTIONS_ERROR_SIZE). With help or version set nothing else was judged.
int controller_settings_load(struct controller_settings *settings, int argc, char **argv,
    char **environment, char *error) __attribute__((warn_unused_result));
void controller_settings_help(FILE *stream);

#endif
