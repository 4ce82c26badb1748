// Cells that are measured more than once. With passes a cell is committed after each of them, with
// what is known by then, and waits again until the whole mesh has been measured as often. After a
// bandwidth test in which others went on beside it, some cells are measured again with the mesh to
// themselves: drawn by the seed, which shows the bias of all, and the worst ones. And where it was
// asked for, cells that the network limited are measured once more with several streams, in the
// order and the mode of the run.
//
// What a cell was so far is kept here packed, about a kilobyte, until nothing more comes.

#include "director_parts.h"

#include <math.h>

#include "verdict.h"
#include "wire.h"

#define NOTE_SIZE 300

// --------------------------------------------------------------------------------- what is kept

static void keep(struct run *self, const Mp__Cell *cell)
{
    struct kept_cell *kept = &self->kept[cell->index];
    kept->size = wire_packed_size(&cell->base);
    kept->bytes = realloc(kept->bytes, kept->size);
    if (!kept->bytes)
        abort();
    mp__cell__pack(cell, kept->bytes);
}

static void forget(struct run *self, uint32_t index)
{
    free(self->kept[index].bytes);
    self->kept[index] = (struct kept_cell){0};
}

static Mp__Cell *recall(const struct run *self, uint32_t index)
{
    const struct kept_cell *kept = &self->kept[index];
    return kept->bytes ? mp__cell__unpack(NULL, kept->size, kept->bytes) : NULL;
}

static const struct phase *phase_of(const struct run *self, uint32_t index)
{
    return &self->options.phases[self->places[index].phase];
}

static struct recheck *recheck_of(struct run *self, uint32_t index)
{
    return &self->rechecks[self->places[index].phase];
}

static void draw(struct run *self, uint32_t p)
{
    uint32_t first = self->phase_first[p], cells = self->phase_first[p + 1] - first;
    uint32_t drawn[RECHECK_DRAWN_MAX], count = recheck_drawn(cells);
    recheck_draw(self->options.seed + p, cells, count, drawn);
    for (uint32_t i = 0; i < count; i++)
        self->cells[first + drawn[i]].again |= AGAIN_DRAWN;
    self->rechecks[p].wanted = true;
    self->rechecks[p].worst_most = recheck_worst(cells);
}

void again_prepare(struct run *self)
{
    bool needed = self->options.passes > 1;
    self->alone = NO_CELL;
    for (uint32_t p = 0; p < self->options.phase_count; p++) {
        if (self->phase_first[p] == self->phase_first[p + 1])
            continue;
        needed = needed || self->options.phases[p].flow_check;
        if (!planner_rechecks(&self->options.phases[p]))
            continue;
        draw(self, p);
        needed = true;
    }
    if (needed)
        self->kept = zmalloc((self->cell_count + 1) * sizeof *self->kept);
}

void again_release(struct run *self)
{
    for (uint32_t i = 0; self->kept && i < self->cell_count; i++)
        forget(self, i);
    free(self->kept);
    self->kept = NULL;
}

// ------------------------------------------------------------------------------- measurements

bool again_due(const struct run *self, uint32_t index)
{
    const struct cell_state *state = &self->cells[index];
    if (state->step != CELL_WAITS)
        return false;
    if (self->alone != NO_CELL)
        return index == self->alone;
    return self->checks_flows ? state->again & AGAIN_NOW : state->passes == self->pass;
}

void again_spec(const struct run *self, uint32_t index, struct testspec *spec)
{
    const struct testspec *usual = &phase_of(self, index)->spec;
    if (self->checks_flows)
        testspec_flow_check(usual, spec);
    else
        *spec = *usual;
}

Mp__Cell *again_absorb(struct run *self, Mp__Cell *measured)
{
    uint32_t index = measured->index;
    struct cell_state *state = &self->cells[index];
    uint32_t passes = self->options.passes;
    if (state->again & AGAIN_NOW) {
        Mp__Cell *cell = recall(self, index);
        if (state->again & AGAIN_FLOWS)
            passes_flow_check(cell, measured, TESTSPEC_FLOW_CHECK_STREAMS);
        else
            passes_recheck(cell, measured, state->again & AGAIN_DRAWN);
        mp__cell__free_unpacked(measured, NULL);
        return cell;
    }
    uint32_t number = state->passes + 1u;
    bool may_change =
        measured->state == MP__CELL_STATE__OK || measured->state == MP__CELL_STATE__FAILED;
    state->passes = (uint8_t)(may_change ? number : passes);
    self->results[self->places[index].phase] += state->passes - (number - 1);
    Mp__Cell *so_far = passes > 1 ? recall(self, index) : NULL;
    // What cannot be measured at all has no passes.
    if (passes == 1 || (!so_far && !may_change))
        return measured;
    Mp__Cell *cell = passes_add(so_far, measured, number, state->passes == passes);
    keep(self, cell);
    return cell;
}

// --------------------------------------------------------------------------------- the worst ones

static void drop_worst(struct run *self, struct recheck *recheck, uint32_t at)
{
    uint32_t index = recheck->worst[at];
    self->cells[index].again &= (uint8_t)~AGAIN_WORST;
    if (!self->cells[index].again)
        forget(self, index);
    recheck->worst_count--;
    recheck->worst[at] = recheck->worst[recheck->worst_count];
    recheck->worst_bps[at] = recheck->worst_bps[recheck->worst_count];
}

// A drawn cell is measured again anyway.
static void consider_worst(struct run *self, const Mp__Cell *cell)
{
    struct recheck *recheck = recheck_of(self, cell->index);
    if (self->cells[cell->index].again & AGAIN_DRAWN)
        return;
    if (recheck->worst_count == recheck->worst_most) {
        uint32_t best = 0;
        for (uint32_t i = 1; i < recheck->worst_count; i++)
            if (recheck->worst_bps[i] > recheck->worst_bps[best])
                best = i;
        if (recheck->worst_bps[best] <= cell->bandwidth_bps)
            return;
        drop_worst(self, recheck, best);
    }
    recheck->worst[recheck->worst_count] = cell->index;
    recheck->worst_bps[recheck->worst_count++] = cell->bandwidth_bps;
    self->cells[cell->index].again |= AGAIN_WORST;
}

static void note_recheck(struct run *self, const Mp__Cell *cell)
{
    struct recheck *recheck = recheck_of(self, cell->index);
    const Mp__Pass *alone = cell->recheck;
    size_t *count = &recheck->bias_count[alone->sampled ? 1 : 0];
    self->cells[cell->index].again |= AGAIN_DONE;
    if (alone->has_bias && *count < RECHECK_DRAWN_MAX + RECHECK_WORST_MAX)
        recheck->bias[alone->sampled ? 1 : 0][(*count)++] = alone->bias;
}

static void note_flows(struct run *self, const Mp__Cell *cell)
{
    struct cell_state *state = &self->cells[cell->index];
    state->again = !cell->flow_check && verdict_flows_open(cell) ? AGAIN_FLOWS : 0;
    if (!cell->flow_check || !cell->flow_check->has_gain)
        return;
    self->flows_checked++;
    self->flows_capped += cell->limiter->subtype && strcmp(cell->limiter->subtype, "flow_cap") == 0;
}

// Final, and committed.
static void settle(struct run *self, const Mp__Cell *cell)
{
    struct cell_state *state = &self->cells[cell->index];
    if (!self->kept)
        return;
    if (phase_of(self, cell->index)->flow_check)
        note_flows(self, cell);
    else if (cell->recheck)
        note_recheck(self, cell);
    else if (recheck_of(self, cell->index)->wanted && cell->state == MP__CELL_STATE__OK &&
             cell->has_bandwidth_bps)
        consider_worst(self, cell);
    else
        state->again = 0;
    state->again &= (uint8_t)~AGAIN_NOW;
    if (state->again && !(state->again & AGAIN_DONE))
        keep(self, cell);
    else
        forget(self, cell->index);
}

bool again_committed(struct run *self, const Mp__Cell *cell)
{
    struct cell_state *state = &self->cells[cell->index];
    if (cell->state != MP__CELL_STATE__PENDING) {
        settle(self, cell);
        return false;
    }
    state->attempts = state->requeued = 0;
    return true;
}

void again_restore(struct run *self, const Mp__Cell *cell)
{
    if (!self->kept || cell->index >= self->cell_count)
        return;
    struct cell_state *state = &self->cells[cell->index];
    if (state->step == CELL_COMMITTED) {
        settle(self, cell);
    } else if (cell->state == MP__CELL_STATE__PENDING && cell->n_passes > 0 &&
               cell->n_passes < self->options.passes) {
        state->passes = (uint8_t)cell->n_passes;
        self->results[self->places[cell->index].phase] += state->passes;
        keep(self, cell);
    }
}

// ----------------------------------------------------------------------------------------- alone

static uint32_t next_alone(const struct run *self)
{
    for (uint32_t i = 0; i < self->cell_count; i++) {
        unsigned again = self->cells[i].again;
        if ((again & (AGAIN_DRAWN | AGAIN_WORST)) && !(again & AGAIN_DONE) && self->kept[i].bytes)
            return i;
    }
    return NO_CELL;
}

// From committed to waiting.
static void reopen(struct run *self, uint32_t index)
{
    struct cell_state *state = &self->cells[index];
    state->step = CELL_WAITS;
    state->again |= AGAIN_NOW;
    state->attempts = state->requeued = 0;
    self->committed--;
    self->waiting[self->places[index].phase]++;
    self->dirty = true;
}

static bool open_flows(struct run *self)
{
    bool any = false;
    for (uint32_t i = 0; i < self->cell_count; i++) {
        if (!(self->cells[i].again & AGAIN_FLOWS))
            continue;
        reopen(self, i);
        any = true;
    }
    self->checks_flows = any;
    return any;
}

bool again_next(struct run *self)
{
    if (!self->kept || self->cancelled)
        return false;
    self->alone = next_alone(self);
    if (self->alone == NO_CELL)
        return open_flows(self);
    const struct cell_place *place = &self->places[self->alone];
    reopen(self, self->alone);
    if (!run_agent_there(self, place->from) || !run_agent_there(self, place->to))
        run_cell_end(self, self->alone, MP__CELL_STATE__LOST, "an agent of this pair went away");
    return true;
}

double again_left_s(const struct run *self)
{
    double left_s = 0;
    struct testspec check;
    for (uint32_t p = 0; self->checks_flows && p < self->options.phase_count; p++) {
        const struct testspec *spec = &self->options.phases[p].spec;
        uint32_t cells = self->phase_first[p + 1] - self->phase_first[p];
        if (self->waiting[p] == 0)
            continue;
        testspec_flow_check(spec, &check);
        left_s += self->expected_s[p] * self->waiting[p] / cells * planner_test_expected_s(&check) /
                  planner_test_expected_s(spec);
    }
    return left_s;
}

static char *bias_words(double bias, char words[48])
{
    if (fabs(bias) < 0.0005)
        snprintf(words, 48, "the same");
    else
        snprintf(words, 48, "%.1f %% %s", 100 * fabs(bias), bias < 0 ? "less" : "more");
    return words;
}

static void add_note(Mp__RunInfo *info, const char *text)
{
    info->notes = realloc(info->notes, (info->n_notes + 1) * sizeof *info->notes);
    if (!info->notes)
        abort();
    info->notes[info->n_notes++] = strdup(text);
}

static void summarize(struct run *self, const struct phase *phase, struct recheck *recheck)
{
    char note[NOTE_SIZE], drawn[48], worst[48];
    Mp__RunInfo *info = self->info;
    Mp__RecheckSummary *summary = zmalloc(sizeof *summary);
    mp__recheck_summary__init(summary);
    summary->kind = (Mp__TestKind)phase->spec.kind;
    summary->sampled = (uint32_t)recheck->bias_count[1];
    summary->cells = (uint32_t)recheck->bias_count[0] + summary->sampled;
    summary->has_bias = recheck->bias_count[1] > 0;
    summary->has_bias_worst = recheck->bias_count[0] > 0;
    if (summary->has_bias)
        summary->bias = median_of(recheck->bias[1], recheck->bias_count[1]);
    if (summary->has_bias_worst)
        summary->bias_worst = median_of(recheck->bias[0], recheck->bias_count[0]);
    int size = snprintf(note, sizeof note, "%s: %u cells were measured again alone;",
        test_kind_name(phase->spec.kind), summary->cells);
    if (summary->has_bias)
        size += snprintf(note + size, sizeof note - (size_t)size,
            " in the run the %u drawn at random had read %s bandwidth at the median",
            summary->sampled, bias_words(summary->bias, drawn));
    if (summary->has_bias_worst)
        snprintf(note + size, sizeof note - (size_t)size, "%s the worst %s",
            summary->has_bias ? "," : " in the run", bias_words(summary->bias_worst, worst));
    add_note(info, note);
    info->rechecks = realloc(info->rechecks, (info->n_rechecks + 1) * sizeof *info->rechecks);
    if (!info->rechecks)
        abort();
    info->rechecks[info->n_rechecks++] = summary;
}

void again_summarize(struct run *self)
{
    char note[NOTE_SIZE];
    if (self->flows_checked > 0) {
        snprintf(note, sizeof note,
            "tcp: %u cell%s measured once more with %d streams; each flow is limited in %u",
            self->flows_checked, self->flows_checked == 1 ? " was" : "s were",
            TESTSPEC_FLOW_CHECK_STREAMS, self->flows_capped);
        add_note(self->info, note);
    }
    for (uint32_t p = 0; p < self->options.phase_count; p++) {
        struct recheck *recheck = &self->rechecks[p];
        if (recheck->bias_count[0] + recheck->bias_count[1] > 0)
            summarize(self, &self->options.phases[p], recheck);
    }
}
