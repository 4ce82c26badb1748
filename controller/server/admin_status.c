// How the controller itself is.

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server_parts.h"

static uint64_t resident_bytes(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double seconds(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

// The director keeps ended runs a while for those who follow them; they do not count.
static uint32_t runs_active(struct server *self)
{
    const Mp__RunInfo *infos[DIRECTOR_RUNS_MAX];
    size_t count = director_active(self->director, infos, DIRECTOR_RUNS_MAX);
    uint32_t active = 0;
    for (size_t i = 0; i < count && i < DIRECTOR_RUNS_MAX; i++)
        active +=
            infos[i]->state == MP__RUN_STATE__QUEUED || infos[i]->state == MP__RUN_STATE__RUNNING;
    return active;
}

void admin_status(struct server *self, struct reply *reply, Mp__Envelope *question)
{
    (void)question;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    Mp__StatusAnswer answer = MP__STATUS_ANSWER__INIT;
    answer.software = (char *)MESHPERF_VERSION;
    answer.version = PROTO_VERSION;
    answer.epoch = self->epoch;
    answer.endpoint = self->endpoint;
    answer.agents = (uint32_t)registry_count(self->registry);
    for (struct agent *agent = registry_next(self->registry, 0); agent;
         agent = registry_next(self->registry, agent->id))
        answer.connected += agent_connected(agent);
    answer.runs_active = runs_active(self);
    answer.resident_bytes = resident_bytes();
    answer.cpu_s = seconds(&usage.ru_utime) + seconds(&usage.ru_stime);
    answer.storage = self->trouble[0] ? self->trouble : (char *)"ok";
    answer.wall_ns = clock_wall(self->clock);
    answer.uptime_ns = clock_mono(self->clock) - self->started_mono_ns;
    answer.has_tests_done = true;
    answer.tests_done = director_tests_done(self->director);
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    envelope.body_case = MP__ENVELOPE__BODY_STATUS_ANSWER;
    envelope.status_answer = &answer;
    reply_send(&reply, &envelope);
}
