#include "light_parts.h"

#include <math.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double at(const int64_t *sorted, size_t count, double quantile)
{
    size_t rank = (size_t)ceil(quantile * (double)count);
    return (double)sorted[rank ? rank - 1 : 0] / 1e9;
}

void light_distribution(int64_t *values_ns, size_t count, struct probe_distribution *out)
{
    *out = (struct probe_distribution){.count = count};
    if (count == 0)
        return;
    double sum = 0;
    qsort(values_ns, count, sizeof *values_ns, by_value);
    for (size_t i = 0; i < count; i++)
        sum += (double)values_ns[i];
    out->min_s = (double)values_ns[0] / 1e9;
    out->max_s = (double)values_ns[count - 1] / 1e9;
    out->mean_s = sum / (double)count / 1e9;
    out->p50_s = at(values_ns, count, 0.5);
    out->p90_s = at(values_ns, count, 0.9);
    out->p99_s = at(values_ns, count, 0.99);
    out->p999_s = at(values_ns, count, 0.999);
}

double light_jitter_s(const struct light_sample *samples, size_t count)
{
    double sum = 0;
    if (count < 2)
        return NAN;
    for (size_t i = 1; i < count; i++)
        sum += fabs((double)(samples[i].rtt_ns - samples[i - 1].rtt_ns));
    return sum / (double)(count - 1) / 1e9;
}

static double median_s(int64_t *values_ns, size_t count)
{
    qsort(values_ns, count, sizeof *values_ns, by_value);
    return at(values_ns, count, 0.5);
}

void light_one_way(const struct light_sample *samples, size_t count, int64_t near_error_ns,
    int64_t far_error_ns, struct light_outcome *out)
{
    int64_t least = INT64_MAX;
    out->one_way_forward_s = out->one_way_backward_s = out->one_way_bound_s = NAN;
    for (size_t i = 0; i < count; i++)
        least = samples[i].rtt_ns < least ? samples[i].rtt_ns : least;
    if (count == 0 || near_error_ns < 0 || far_error_ns < 0 || near_error_ns >= least / 4 ||
        far_error_ns >= least / 4)
        return;
    int64_t *values = malloc(count * sizeof *values);
    if (!values)
        abort();
    for (size_t i = 0; i < count; i++)
        values[i] = samples[i].forward_ns + samples[i].clocks_ns;
    out->one_way_forward_s = median_s(values, count);
    for (size_t i = 0; i < count; i++)
        values[i] = samples[i].backward_ns - samples[i].clocks_ns;
    out->one_way_backward_s = median_s(values, count);
    out->one_way_bound_s = (double)(near_error_ns + far_error_ns) / 1e9;
    free(values);
}

// Whether b lies on or above the line from a to c (times rise).
static bool above(const int64_t *t, const int64_t *d, size_t a, size_t b, size_t c)
{
    double slope = (double)(d[c] - d[a]) / (double)(t[c] - t[a]);
    return (double)(d[b] - d[a]) >= slope * (double)(t[b] - t[a]);
}

// The slope of the lower hull where it passes the middle of the time: drift is linear, so that
// segment stands for all of it.
static double drift(const int64_t *at_ns, const int64_t *delay_ns, size_t count)
{
    size_t *hull = malloc(count * sizeof *hull), corners = 0, segment = 0;
    if (!hull)
        abort();
    for (size_t i = 0; i < count; i++) {
        if (corners > 0 && at_ns[i] <= at_ns[hull[corners - 1]])
            continue;
        while (corners >= 2 && above(at_ns, delay_ns, hull[corners - 2], hull[corners - 1], i))
            corners--;
        hull[corners++] = i;
    }
    int64_t middle = at_ns[0] + (at_ns[count - 1] - at_ns[0]) / 2;
    while (segment + 2 < corners && at_ns[hull[segment + 1]] < middle)
        segment++;
    double slope = 0;
    if (corners >= 2)
        slope = (double)(delay_ns[hull[segment + 1]] - delay_ns[hull[segment]]) /
                (double)(at_ns[hull[segment + 1]] - at_ns[hull[segment]]);
    free(hull);
    return slope;
}

void light_pdv(
    const int64_t *at_ns, const int64_t *delay_ns, size_t count, struct probe_distribution *out)
{
    *out = (struct probe_distribution){0};
    if (count < 3)
        return;
    double slope = drift(at_ns, delay_ns, count);
    int64_t *rest = malloc(count * sizeof *rest), least = INT64_MAX;
    if (!rest)
        abort();
    for (size_t i = 0; i < count; i++) {
        rest[i] = delay_ns[i] - llround(slope * (double)(at_ns[i] - at_ns[0]));
        least = rest[i] < least ? rest[i] : least;
    }
    for (size_t i = 0; i < count; i++)
        rest[i] -= least;
    light_distribution(rest, count, out);
    free(rest);
}
