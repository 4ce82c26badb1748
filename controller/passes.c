#include "passes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mix.h"
#include "testspec.h"
#include "verdict.h"
#include "wire.h"

// ------------------------------------------------------------------------------------- numbers

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double median_of(double *values, size_t count)
{
    if (count == 0)
        return NAN;
    qsort(values, count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

// One quantity of all passes that are ok and have it.
struct series {
    double values[TESTSPEC_PASSES_MAX];
    size_t count;
    double median;
};

// The quantity of a pass, NAN if it has none.
typedef double quantity(const Mp__Pass *pass, size_t offset);

static struct series series_of(const Mp__Cell *cell, quantity *get, size_t offset)
{
    struct series series = {.count = 0};
    for (size_t i = 0; i < cell->n_passes && series.count < TESTSPEC_PASSES_MAX; i++) {
        const Mp__Pass *pass = cell->passes[i];
        double value = pass->state == MP__CELL_STATE__OK ? get(pass, offset) : NAN;
        if (!isnan(value))
            series.values[series.count++] = value;
    }
    series.median = median_of(series.values, series.count);
    return series;
}

#define QUANTITY(name, member)                                                                     \
    static double name(const Mp__Pass *pass, size_t offset)                                        \
    {                                                                                              \
        (void)offset;                                                                              \
        return pass->has_##member ? (double)pass->member : NAN;                                    \
    }
QUANTITY(bandwidth, bandwidth_bps)
QUANTITY(jitter, jitter_s)
QUANTITY(loss, loss_ratio)
QUANTITY(retransmits, retransmits)
QUANTITY(wire_l3, wire_l3_bps)
QUANTITY(wire_l2, wire_l2_bps)
QUANTITY(wire_line, wire_line_bps)

static double rtt_p50(const Mp__Pass *pass, size_t offset)
{
    (void)offset;
    return pass->rtt && pass->rtt->has_p50 ? pass->rtt->p50 : NAN;
}

// ------------------------------------------------------------------------------- distributions

static const struct {
    size_t has, value;
} quantiles[] = {
#define QUANTILE(name)                                                                             \
    {                                                                                              \
        offsetof(Mp__Distribution, has_##name), offsetof(Mp__Distribution, name)                   \
    }
    QUANTILE(min), QUANTILE(mean), QUANTILE(p50), QUANTILE(p90), QUANTILE(p99), QUANTILE(p999),
    QUANTILE(max)};
#define QUANTILES (sizeof quantiles / sizeof *quantiles)

static double quantile_of(const Mp__Distribution *distribution, size_t index)
{
    const char *base = (const char *)distribution;
    protobuf_c_boolean has;
    double value;
    if (!base)
        return NAN;
    memcpy(&has, base + quantiles[index].has, sizeof has);
    memcpy(&value, base + quantiles[index].value, sizeof value);
    return has ? value : NAN;
}

static double quantile_rtt(const Mp__Pass *pass, size_t index)
{
    return quantile_of(pass->rtt, index);
}

static double quantile_rtt_loaded(const Mp__Pass *pass, size_t index)
{
    return quantile_of(pass->rtt_loaded, index);
}

// Order survives: where each pass has p50 <= p90 the medians have, too.
static void take_medians(const Mp__Cell *cell, quantity *get, Mp__Distribution *target)
{
    for (size_t i = 0; target && i < QUANTILES; i++) {
        double value = series_of(cell, get, i).median;
        if (!isnan(value))
            memcpy((char *)target + quantiles[i].value, &value, sizeof value);
    }
}

// ---------------------------------------------------------------------------------- one pass

#define COPY(target, source, member)                                                               \
    do {                                                                                           \
        (target)->has_##member = (source)->has_##member;                                           \
        (target)->member = (source)->member;                                                       \
    } while (0)

static char *text_copy(const char *text)
{
    return text ? strdup(text) : NULL;
}

static Mp__Distribution *distribution_copy(const Mp__Distribution *from)
{
    return from ? (Mp__Distribution *)wire_copy(&from->base) : NULL;
}

static Mp__Pass *pass_new(const Mp__Cell *cell, uint32_t number)
{
    Mp__Pass *pass = malloc(sizeof *pass);
    if (!pass)
        abort();
    mp__pass__init(pass);
    pass->number = number;
    pass->state = cell->state;
    pass->reason = text_copy(cell->reason);
    COPY(pass, cell, started_wall_ns);
    COPY(pass, cell, attempts);
    COPY(pass, cell, bandwidth_bps);
    COPY(pass, cell, jitter_s);
    COPY(pass, cell, loss_ratio);
    COPY(pass, cell, retransmits);
    COPY(pass, cell, wire_l3_bps);
    COPY(pass, cell, wire_l2_bps);
    COPY(pass, cell, wire_line_bps);
    COPY(pass, cell, duration_s);
    pass->rtt = distribution_copy(cell->rtt);
    pass->rtt_loaded = distribution_copy(cell->rtt_loaded);
    pass->limiter = cell->limiter ? text_copy(cell->limiter->verdict) : NULL;
    pass->observed = text_copy(cell->observed);
    return pass;
}

static void append(Mp__Cell *cell, Mp__Pass *pass)
{
    cell->passes = realloc(cell->passes, (cell->n_passes + 1) * sizeof *cell->passes);
    if (!cell->passes)
        abort();
    cell->passes[cell->n_passes++] = pass;
}

// ------------------------------------------------------------------------------- of all passes

static const Mp__Pass *pass_numbered(const Mp__Cell *cell, uint32_t number)
{
    for (size_t i = 0; i < cell->n_passes; i++)
        if (cell->passes[i]->number == number)
            return cell->passes[i];
    return NULL;
}

// What a pass says in a word.
static const char *verdict_of(const Mp__Pass *pass)
{
    return pass->limiter ? pass->limiter : pass->observed ? pass->observed : "";
}

static unsigned votes(const Mp__Cell *cell, const char *verdict)
{
    unsigned count = 0;
    for (size_t i = 0; i < cell->n_passes; i++)
        count += strcmp(verdict_of(cell->passes[i]), verdict) == 0;
    return count;
}

// Does `one` stand for the cell better than `other`? Both are passes of it.
static bool represents(const Mp__Cell *cell, const Mp__Pass *one, const Mp__Pass *other)
{
    bool ok = one->state == MP__CELL_STATE__OK, other_ok = other->state == MP__CELL_STATE__OK;
    if (ok != other_ok)
        return ok;
    unsigned mine = votes(cell, verdict_of(one)), others = votes(cell, verdict_of(other));
    if (mine != others)
        return mine > others;
    quantity *get = one->has_bandwidth_bps ? bandwidth : rtt_p50;
    double median = series_of(cell, get, 0).median;
    return fabs(get(one, 0) - median) < fabs(get(other, 0) - median);
}

// The measured cell takes the passes of the earlier one over, or gives way to it.
static Mp__Cell *choose_base(Mp__Cell *so_far, Mp__Cell *measured, uint32_t number)
{
    const Mp__Pass *fresh = pass_numbered(so_far, number);
    const Mp__Pass *base = pass_numbered(so_far, so_far->pass);
    Mp__Cell *kept = so_far, *other = measured;
    if (!base || represents(so_far, fresh, base)) {
        kept = measured;
        other = so_far;
        kept->passes = so_far->passes;
        kept->n_passes = so_far->n_passes;
        so_far->passes = NULL;
        so_far->n_passes = 0;
        kept->has_pass = true;
        kept->pass = number;
    }
    mp__cell__free_unpacked(other, NULL);
    return kept;
}

#define TAKE(cell, member, get)                                                                    \
    do {                                                                                           \
        double value = series_of(cell, get, 0).median;                                             \
        (cell)->has_##member = !isnan(value);                                                      \
        if (!isnan(value))                                                                         \
            (cell)->member = value;                                                                \
    } while (0)

static void take_all_medians(Mp__Cell *cell)
{
    TAKE(cell, bandwidth_bps, bandwidth);
    TAKE(cell, jitter_s, jitter);
    TAKE(cell, loss_ratio, loss);
    TAKE(cell, wire_l3_bps, wire_l3);
    TAKE(cell, wire_l2_bps, wire_l2);
    TAKE(cell, wire_line_bps, wire_line);
    double count = series_of(cell, retransmits, 0).median;
    if (!isnan(count))
        cell->retransmits = (uint64_t)(count + 0.5);
    take_medians(cell, quantile_rtt, cell->rtt);
    take_medians(cell, quantile_rtt_loaded, cell->rtt_loaded);
    if (!cell->rtt || !cell->rtt_loaded)
        return;
    cell->rtt_added_p50_s = cell->rtt_loaded->p50 - cell->rtt->p50;
    cell->rtt_added_p99_s = cell->rtt_loaded->p99 - cell->rtt->p99;
}

static double spread_of(const Mp__Cell *cell, quantity *get, bool divided)
{
    struct series series = series_of(cell, get, 0);
    if (series.count < 2 || (divided && !(series.median > 0)))
        return NAN;
    double width = series.values[series.count - 1] - series.values[0];
    return divided ? width / series.median : width;
}

#define SPREAD(spread, member, cell, get, divided)                                                 \
    do {                                                                                           \
        double value = spread_of(cell, get, divided);                                              \
        (spread)->has_##member = !isnan(value);                                                    \
        (spread)->member = isnan(value) ? 0 : value;                                               \
    } while (0)

static void take_spread(Mp__Cell *cell)
{
    Mp__Spread spread = MP__SPREAD__INIT;
    SPREAD(&spread, bandwidth, cell, bandwidth, true);
    SPREAD(&spread, jitter, cell, jitter, true);
    SPREAD(&spread, rtt_p50, cell, rtt_p50, true);
    SPREAD(&spread, loss, cell, loss, false);
    if (cell->spread)
        mp__spread__free_unpacked(cell->spread, NULL);
    cell->spread = NULL;
    if (spread.has_bandwidth || spread.has_jitter || spread.has_rtt_p50 || spread.has_loss)
        cell->spread = (Mp__Spread *)wire_copy(&spread.base);
}

static void take_state(Mp__Cell *cell)
{
    const Mp__Pass *bad = NULL;
    size_t ok = 0;
    for (size_t i = 0; i < cell->n_passes; i++) {
        ok += cell->passes[i]->state == MP__CELL_STATE__OK;
        if (cell->passes[i]->state != MP__CELL_STATE__OK)
            bad = cell->passes[i];
    }
    free(cell->reason);
    cell->reason = NULL;
    cell->state = MP__CELL_STATE__OK;
    if (!bad || (2 * ok > cell->n_passes && bad->state != MP__CELL_STATE__CELL_CANCELLED))
        return;
    cell->state = bad->state;
    cell->reason = text_copy(bad->reason);
}

Mp__Cell *passes_add(Mp__Cell *so_far, Mp__Cell *measured, uint32_t number, bool last)
{
    Mp__Pass *pass = pass_new(measured, number);
    Mp__Cell *cell = measured;
    if (so_far) {
        append(so_far, pass);
        cell = choose_base(so_far, measured, number);
    } else {
        append(cell, pass);
        cell->has_pass = true;
        cell->pass = number;
    }
    take_all_medians(cell);
    take_spread(cell);
    take_state(cell);
    if (!last) {
        cell->state = MP__CELL_STATE__PENDING;
        free(cell->reason);
        cell->reason = NULL;
    }
    return cell;
}

// ------------------------------------------------------------------------------------ recheck

void passes_recheck(Mp__Cell *cell, const Mp__Cell *alone, bool sampled)
{
    Mp__Pass *pass = pass_new(alone, 0);
    pass->has_sampled = true;
    pass->sampled = sampled;
    pass->has_bias =
        cell->has_bandwidth_bps && alone->has_bandwidth_bps && alone->bandwidth_bps > 0;
    if (pass->has_bias)
        pass->bias = cell->bandwidth_bps / alone->bandwidth_bps - 1;
    pass->has_bias_loss = cell->has_loss_ratio && alone->has_loss_ratio;
    if (pass->has_bias_loss)
        pass->bias_loss = cell->loss_ratio - alone->loss_ratio;
    if (cell->recheck)
        mp__pass__free_unpacked(cell->recheck, NULL);
    cell->recheck = pass;
}

void passes_flow_check(Mp__Cell *cell, const Mp__Cell *measured, uint32_t streams)
{
    Mp__Pass *pass = pass_new(measured, 0);
    pass->has_streams = true;
    pass->streams = streams;
    pass->has_gain = cell->has_bandwidth_bps && cell->bandwidth_bps > 0 &&
                     measured->state == MP__CELL_STATE__OK && measured->has_bandwidth_bps;
    if (pass->has_gain) {
        double one_bps = verdict_flows_one_bps(cell);
        pass->gain = measured->bandwidth_bps / one_bps;
        verdict_flows(cell->limiter, streams, one_bps, measured->bandwidth_bps);
    }
    if (cell->flow_check)
        mp__pass__free_unpacked(cell->flow_check, NULL);
    cell->flow_check = pass;
}

static uint32_t share(uint32_t cells, uint32_t percent, uint32_t most)
{
    uint32_t count = (uint32_t)(((uint64_t)cells * percent + 50) / 100);
    count = count < 1 ? 1 : count > most ? most : count;
    return count < cells ? count : cells;
}

uint32_t recheck_drawn(uint32_t cells)
{
    return share(cells, 2, RECHECK_DRAWN_MAX);
}

uint32_t recheck_worst(uint32_t cells)
{
    return share(cells, 1, RECHECK_WORST_MAX);
}

// Floyd's way: each set of that size is as likely as any other.
void recheck_draw(uint64_t seed, uint32_t cells, uint32_t count, uint32_t *drawn)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t top = cells - count + i,
                 number = (uint32_t)(mix_next(&seed) % (top + UINT64_C(1)));
        for (uint32_t k = 0; k < i; k++)
            if (drawn[k] == number)
                number = top;
        drawn[i] = number;
    }
}
