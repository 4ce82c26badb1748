#include "cgroup.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_SIZE 1024

// One word of a list that commas separate.
static bool listed(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == '\0'))
            return true;
    return false;
}

// The group of this process in the hierarchy that has the cpu controller: "9:cpu,cpuacct:/a/b", or
// "0::/a/b" of version 2.
static bool own_group(bool *unified, char path[PATH_MAX])
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[LINE_SIZE];
    bool found = false;
    while (file && !(found && !*unified) && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        controllers++;
        bool second = *controllers == '\0';
        if (!second && !listed(controllers, "cpu"))
            continue;
        *unified = second;
        snprintf(path, PATH_MAX, "%s", group);
        found = true;
    }
    if (file)
        fclose(file);
    return found;
}

// Where that hierarchy is mounted, and which of its groups is the root of the mount.
static bool mounted_at(bool unified, char point[PATH_MAX], char root[PATH_MAX])
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[2 * LINE_SIZE];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        char type[32], options[LINE_SIZE];
        const char *rest = strstr(line, " - ");
        if (!rest || sscanf(rest, " - %31s %*s %1023s", type, options) != 2 ||
            sscanf(line, "%*s %*s %*s %1023s %1023s", root, point) != 2)
            continue;
        found = unified ? strcmp(type, "cgroup2") == 0
                        : strcmp(type, "cgroup") == 0 && listed(options, "cpu");
    }
    if (file)
        fclose(file);
    return found;
}

static bool read_line(const char *directory, const char *name, char line[LINE_SIZE])
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "re");
    bool read = file && fgets(line, LINE_SIZE, file);
    if (file)
        fclose(file);
    return read;
}

static double quota_of(const char *directory, bool unified)
{
    char line[LINE_SIZE];
    double quota = 0, period = 0;
    if (unified && read_line(directory, "cpu.max", line) &&
        sscanf(line, "%lf %lf", &quota, &period) == 2 && period > 0)
        return quota / period;
    if (!unified && read_line(directory, "cpu.cfs_quota_us", line) &&
        sscanf(line, "%lf", &quota) == 1 && quota > 0 &&
        read_line(directory, "cpu.cfs_period_us", line) && sscanf(line, "%lf", &period) == 1 &&
        period > 0)
        return quota / period;
    return NAN;
}

static uint64_t throttled_of(const char *directory)
{
    char path[PATH_MAX + 32], line[LINE_SIZE];
    unsigned long long value, ns = 0;
    snprintf(path, sizeof path, "%s/cpu.stat", directory);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "throttled_usec %llu", &value) == 1)
            ns = value * 1000;
        else if (sscanf(line, "throttled_time %llu", &value) == 1)
            ns = value;
    }
    if (file)
        fclose(file);
    return ns;
}

void cgroup_cpu_read(struct cgroup_cpu *cpu)
{
    char group[PATH_MAX], point[PATH_MAX], root[PATH_MAX], directory[2 * PATH_MAX];
    bool unified = false;
    *cpu = (struct cgroup_cpu){.quota_cores = NAN};
    if (!own_group(&unified, group) || !mounted_at(unified, point, root))
        return;
    size_t skip = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(group, root, skip) != 0)
        skip = 0;
    snprintf(directory, sizeof directory, "%s%s", point, group + skip);
    cpu->throttled_ns = throttled_of(directory);
    for (size_t least = strlen(point); strlen(directory) >= least;) {
        double quota = quota_of(directory, unified);
        if (quota < cpu->quota_cores || (isnan(cpu->quota_cores) && !isnan(quota))) {
            cpu->quota_cores = quota;
            cpu->throttled_ns = throttled_of(directory);
        }
        char *slash = strrchr(directory, '/');
        if (!slash)
            break;
        *slash = '\0';
    }
}

unsigned cgroup_affinity(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count > 0 ? (unsigned)count : 1;
}

double cgroup_cores(void)
{
    struct cgroup_cpu quota;
    cgroup_cpu_read(&quota);
    double cores = cgroup_affinity();
    return quota.quota_cores < cores ? quota.quota_cores : cores;
}
