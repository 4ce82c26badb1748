#include "tcp_trial.h"

#define BUSY 0.9 // share of its time that a thread has used, when the host is what limits

static const enum tcp_way plan[TCP_TRIAL_SLICES] = {
    TCP_SPLICE, TCP_COPY, TCP_COPY, TCP_SPLICE, TCP_SPLICE, TCP_COPY, TCP_COPY, TCP_SPLICE};

void tcp_trial_begin(struct tcp_trial *self, int64_t now_ns, uint64_t bytes, int64_t cpu_ns)
{
    *self =
        (struct tcp_trial){.slice_since_ns = now_ns, .bytes_since = bytes, .cpu_since_ns = cpu_ns};
}

bool tcp_trial_due(const struct tcp_trial *self, int64_t now_ns)
{
    return now_ns >= self->slice_since_ns + TCP_TRIAL_SLICE_NS;
}

bool tcp_trial_next(struct tcp_trial *self, int64_t now_ns, uint64_t bytes, int64_t cpu_ns)
{
    enum tcp_way way = tcp_trial_way(self);
    self->ways[way].bytes += (double)(bytes - self->bytes_since);
    self->ways[way].wall_ns += (double)(now_ns - self->slice_since_ns);
    self->ways[way].cpu_ns += (double)(cpu_ns - self->cpu_since_ns);
    self->slice_since_ns = now_ns;
    self->bytes_since = bytes;
    self->cpu_since_ns = cpu_ns;
    self->slice++;
    return self->slice < TCP_TRIAL_SLICES;
}

enum tcp_way tcp_trial_way(const struct tcp_trial *self)
{
    return plan[self->slice % TCP_TRIAL_SLICES];
}

enum tcp_way tcp_trial_better(const struct tcp_trial *self)
{
    double copied = self->ways[TCP_COPY].bytes, spliced = self->ways[TCP_SPLICE].bytes;
    double copied_ns = self->ways[TCP_COPY].wall_ns, spliced_ns = self->ways[TCP_SPLICE].wall_ns;
    double copied_cpu = self->ways[TCP_COPY].cpu_ns, spliced_cpu = self->ways[TCP_SPLICE].cpu_ns;
    if (self->slice < 4 || copied <= 0 || spliced <= 0)
        return TCP_COPY;
    bool busy = copied_cpu >= BUSY * copied_ns || spliced_cpu >= BUSY * spliced_ns;
    if (busy)
        return spliced / spliced_ns > copied / copied_ns ? TCP_SPLICE : TCP_COPY;
    return spliced_cpu / spliced < copied_cpu / copied ? TCP_SPLICE : TCP_COPY;
}
