// The configuration file of meshperf-controller.

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct controller_settings settings;
    char path[64], error[OPTIONS_ERROR_SIZE] = "";
    int fd = memfd_create("config", MFD_CLOEXEC);
    HOLDS(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    memset(&settings, 0, sizeof settings);
    int result = options_parse_file(&controller_options, path, &settings, error);
    // Whoever is refused is told where.
    HOLDS(result == 0 || strncmp(error, path, strlen(path)) == 0);
    close(fd);
    return 0;
}
