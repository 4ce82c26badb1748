// One bandwidth test: PREPARE to the listening end, READY, START to the connecting end, a report
// from each, one or (with bidir) two cells. Whatever happens, a deadline ends it.

#include "director_parts.h"

#include <sodium.h>

#include "errors.h"
#include "log.h"
#include "merge.h"
#include "wire.h"

static const char *const side_names[2] = {"sender", "receiver"};

static const char *end_name(const struct test *self, int end)
{
    return self->run->names[end == 0 ? self->from : self->to];
}

static int end_of(const struct test *self, uint32_t agent_id)
{
    return agent_id == self->ends[0] ? 0 : agent_id == self->ends[1] ? 1 : -1;
}

bool test_has(const struct test *self, uint32_t agent_id)
{
    return end_of(self, agent_id) >= 0;
}

// ------------------------------------------------------------------------------------- life

static void test_release_hosts(struct test *self)
{
    struct run *run = self->run;
    if (self->released)
        return;
    self->released = true;
    double occupied_s =
        (double)(clock_mono(run->director->clock) - self->reserved_mono_ns) / NS_PER_S;
    if (run->alone != NO_CELL)
        run->alone_s += occupied_s;
    else
        bound_add(run->bounds[run->phase], self->from, self->to, occupied_s, self->back != NO_CELL);
    scheduler_release(run->scheduler, self->from, self->to);
    run_hold(run, self->reserved_mono_ns);
    run_host_busy(run, self->from, false);
    run_host_busy(run, self->to, false);
}

static void test_destroy(struct test **self_p)
{
    struct test *self = *self_p;
    director_t *director = self->run->director;
    test_release_hosts(self);
    timers_cancel(director->timers, &self->timer);
    zhashx_delete(director->tests, self->id_text);
    zlistx_detach(self->run->tests, self->place);
    for (int end = 0; end < 2; end++) {
        if (self->reports[end])
            mp__end_report__free_unpacked(self->reports[end], NULL);
        director_host(director, self->ends[end])->tests--;
    }
    sodium_memzero(self->key, sizeof self->key);
    free(self);
    *self_p = NULL;
}

static void stop_ends(struct test *self, const char *why)
{
    for (int end = 0; end < 2; end++) {
        if (self->reports[end] || self->aborted[end] || (!self->started && !self->listens[end]))
            continue;
        self->aborted[end] = true;
        director_stop(self->run->director, self->ends[end], self->id, why);
    }
}

static void reports_done(struct test *self)
{
    director_t *director = self->run->director;
    for (int end = 0; end < 2; end++) {
        if (!self->reports[end])
            continue;
        director->ops.report_done(director->ops.ctx, self->ends[end], self->sequences[end]);
    }
}

void test_abort(struct test **self_p, const char *why)
{
    stop_ends(*self_p, why);
    reports_done(*self_p);
    test_destroy(self_p);
}

// Back into the plan, or final if that happened too often. Consumes the test.
static void test_again(struct test *self, bool lost, const char *why)
{
    struct run *run = self->run;
    uint32_t cell = self->cell, back = self->back, from = self->from, to = self->to;
    test_abort(&self, why);
    bool again = run_cell_again(run, cell, lost);
    if (back != NO_CELL)
        again = run_cell_again(run, back, lost) || again;
    if (again)
        scheduler_add(run->scheduler, from, to);
    run->dirty = true;
}

void test_agent_gone(struct test *self, uint32_t agent_id)
{
    self->aborted[end_of(self, agent_id)] = true;
    test_again(self, true, "the other end is lost");
}

// ----------------------------------------------------------------------------------- the results

struct verdict {
    Mp__CellState state;
    bool retry;
    char reason[640];
};

// The more specific one says why: what a host cannot or may not do beats what went wrong, and both
// beat "I was stopped", which only echoes the other end's failure.
static int rank(Mp__Outcome outcome)
{
    static const int ranks[] = {[MP__OUTCOME__OUTCOME_OK] = 0,
        [MP__OUTCOME__OUTCOME_STOPPED] = 1,
        [MP__OUTCOME__OUTCOME_FAILED] = 2,
        [MP__OUTCOME__OUTCOME_SKIPPED] = 3,
        [MP__OUTCOME__OUTCOME_UNSUPPORTED] = 4};
    return ranks[outcome];
}

static Mp__CellState state_of(Mp__Outcome outcome)
{
    return outcome == MP__OUTCOME__OUTCOME_UNSUPPORTED ? MP__CELL_STATE__UNSUPPORTED
           : outcome == MP__OUTCOME__OUTCOME_SKIPPED   ? MP__CELL_STATE__SKIPPED
                                                       : MP__CELL_STATE__FAILED;
}

static struct verdict judge(const struct test *self, const char *trouble)
{
    struct verdict verdict = {.state = MP__CELL_STATE__FAILED, .retry = true};
    int worst = -1;
    for (int end = 0; end < 2; end++) {
        const Mp__EndReport *report = self->reports[end];
        if (!report || report->outcome == MP__OUTCOME__OUTCOME_OK)
            continue;
        bool echo = report->outcome == MP__OUTCOME__OUTCOME_STOPPED;
        if (!echo && !(report->has_retry && report->retry))
            verdict.retry = false;
        if (worst < 0 || rank(report->outcome) > rank(self->reports[worst]->outcome))
            worst = end;
    }
    if (worst < 0) {
        snprintf(verdict.reason, sizeof verdict.reason, "%s", trouble);
        return verdict;
    }
    const Mp__EndReport *report = self->reports[worst];
    verdict.state = state_of(report->outcome);
    snprintf(verdict.reason, sizeof verdict.reason, "%s (%s): %.480s", end_name(self, worst),
        side_names[worst],
        report->reason && *report->reason ? report->reason : "it gives no reason");
    return verdict;
}

static Mp__Cell *cell_of(
    const struct test *self, uint32_t index, Mp__CellState state, const char *reason)
{
    Mp__Cell *cell = run_cell_new(self->run, index, state, reason);
    cell->has_started_wall_ns = self->started_wall_ns != 0;
    cell->started_wall_ns = self->started_wall_ns;
    return cell;
}

static void finish_cells(struct test *self, Mp__Cell *there, Mp__Cell *back)
{
    struct run *run = self->run;
    director_t *director = run->director;
    struct receipt *receipts[2] = {NULL, NULL};
    for (int end = 0; end < 2; end++)
        if (self->reports[end])
            receipts[end] = receipt_new(self->ends[end], self->sequences[end]);
    test_destroy(&self);
    director->tests_done++;
    if (there)
        run_cell_final(run, there, receipts[0], receipts[1]);
    if (back)
        run_cell_final(run, back, receipts[0], receipts[1]);
    for (int end = 0; end < 2; end++)
        receipt_settle(director, &receipts[end]);
}

static bool open_cell(const struct test *self, uint32_t index)
{
    return index != NO_CELL && self->run->cells[index].step == CELL_RUNS;
}

static bool attempts_left(const struct test *self)
{
    const struct run *run = self->run;
    unsigned most = 0;
    if (open_cell(self, self->cell))
        most = run->cells[self->cell].attempts;
    if (open_cell(self, self->back) && run->cells[self->back].attempts > most)
        most = run->cells[self->back].attempts;
    return most <= run->options.retries;
}

static void test_fail(struct test *self, const char *trouble)
{
    struct verdict verdict = judge(self, trouble);
    struct run *run = self->run;
    stop_ends(self, verdict.reason);
    if (verdict.state == MP__CELL_STATE__FAILED && verdict.retry && attempts_left(self)) {
        log_debug("%s: %s -> %s is tried again: %s", run->info->id, run->names[self->from],
            run->names[self->to], verdict.reason);
        test_again(self, false, verdict.reason);
        return;
    }
    Mp__Cell *there = NULL, *back = NULL;
    if (open_cell(self, self->cell))
        there = cell_of(self, self->cell, verdict.state, verdict.reason);
    if (open_cell(self, self->back))
        back = cell_of(self, self->back, verdict.state, verdict.reason);
    finish_cells(self, there, back);
}

// An unlimited rate is capped by the stricter of both owners' guards; 0: neither has one.
static uint64_t guard_cap_bps(const struct test *self, const char **owner)
{
    const struct agent *ends[] = {run_agent(self->run, self->from), run_agent(self->run, self->to)};
    uint64_t cap_bps = 0;
    for (int i = 0; i < 2; i++) {
        const Mp__Capabilities *can = ends[i] ? ends[i]->capabilities : NULL;
        uint64_t own_bps = can && can->has_guard_rate_bps ? can->guard_rate_bps : 0;
        if (own_bps == 0 || (cap_bps > 0 && own_bps >= cap_bps))
            continue;
        cap_bps = own_bps;
        *owner = ends[i]->name;
    }
    return cap_bps;
}

// A sender that was capped names the guard, which it does not know itself.
static void name_cap(const struct test *self, Mp__EndReport *report)
{
    const char *owner;
    char text[IDENTITY_NAME_SIZE + 16];
    uint64_t cap_bps = guard_cap_bps(self, &owner);
    if (!cap_bps || !report->send || !report->send->has_capped_bps || report->send->capped_by)
        return;
    snprintf(text, sizeof text, "%s's guard", owner);
    report->send->capped_by = strdup(text);
}

static void test_merge(struct test *self)
{
    const struct testspec *spec = &self->spec;
    Mp__Cell *there = NULL, *back = NULL;
    bool complete = true;
    for (int end = 0; end < 2; end++)
        name_cap(self, self->reports[end]);
    if (open_cell(self, self->cell)) {
        there = cell_of(self, self->cell, MP__CELL_STATE__OK, NULL);
        complete = merge_ends(spec, self->reports[0], self->reports[1], there);
    }
    if (open_cell(self, self->back)) {
        back = cell_of(self, self->back, MP__CELL_STATE__OK, NULL);
        complete = merge_ends(spec, self->reports[1], self->reports[0], back) && complete;
    }
    if (complete) {
        finish_cells(self, there, back);
        return;
    }
    if (there)
        mp__cell__free_unpacked(there, NULL);
    if (back)
        mp__cell__free_unpacked(back, NULL);
    test_fail(self, "the ends report success, but no bandwidth");
}

static void deadline(struct test *self, int64_t delay_ns);

// Is an end whose answer is missing also not heard of since it was asked? Then it may be dead or
// cut off without anybody knowing yet: the cell must become lost, not failed, so its lease is
// awaited.
static bool end_is_quiet(const struct test *self)
{
    for (int end = 0; end < 2; end++) {
        const struct agent *agent = run_agent(self->run, end == 0 ? self->from : self->to);
        if (!self->reports[end] && (self->started || self->listens[end]) && agent &&
            agent->seen_mono_ns < self->asked_mono_ns)
            return true;
    }
    return false;
}

static void test_late(void *arg, int64_t now_mono_ns)
{
    struct test *self = arg;
    char trouble[400];
    self->timer = 0;
    if (self->late_mono_ns == 0)
        self->late_mono_ns = now_mono_ns;
    if (end_is_quiet(self) && now_mono_ns < self->late_mono_ns + QUIET_NS) {
        deadline(self, QUIET_CHECK_NS);
        return;
    }
    int listener = self->listens[0] ? 0 : 1;
    if (!self->started)
        snprintf(trouble, sizeof trouble, "%s (%s) did not open its data port within %d s",
            end_name(self, listener), side_names[listener], (int)(READY_DEADLINE_NS / NS_PER_S));
    else if (!self->reports[0] && !self->reports[1])
        snprintf(trouble, sizeof trouble, "neither %s nor %s sent a result in time",
            end_name(self, 0), end_name(self, 1));
    else
        snprintf(trouble, sizeof trouble, "%s (%s) sent no result in time",
            end_name(self, self->reports[0] ? 1 : 0), side_names[self->reports[0] ? 1 : 0]);
    test_fail(self, trouble);
}

static void deadline(struct test *self, int64_t delay_ns)
{
    timers_cancel(self->run->director->timers, &self->timer);
    self->timer = timers_after(self->run->director->timers, delay_ns, test_late, self);
}

void test_result(struct test *self, uint32_t agent_id, const Mp__Result *result)
{
    int end = end_of(self, agent_id);
    director_t *director = self->run->director;
    if (end < 0 || self->reports[end]) {
        director->ops.report_done(director->ops.ctx, agent_id, result->sequence);
        return;
    }
    self->reports[end] = (Mp__EndReport *)wire_copy(&result->report->base);
    self->sequences[end] = result->sequence;
    bool failed = result->report->outcome != MP__OUTCOME__OUTCOME_OK;
    bool both = self->reports[0] && self->reports[1];
    if (failed && !self->failing) {
        self->failing = true;
        if (!both) {
            stop_ends(self, "the other end failed");
            // An end that was never started has nothing to say.
            if (self->started) {
                self->asked_mono_ns = clock_mono(director->clock);
                deadline(self, SECOND_OPINION_NS);
            } else {
                both = true;
            }
        }
    }
    if (both && self->failing)
        test_fail(self, "it failed");
    else if (both)
        test_merge(self);
    else if (end == 0 && !failed && self->back == NO_CELL)
        // Load has ended; the receiver only waits for stragglers.
        test_release_hosts(self);
}

// --------------------------------------------------------------------------------------- starting

static void fill_ticket(
    const struct test *self, int end, const char *const addresses[2], Mp__Ticket *ticket)
{
    const struct testspec *spec = &self->spec;
    mp__ticket__init(ticket);
    ticket->test_id = (ProtobufCBinaryData){ID_SIZE, (uint8_t *)self->id};
    ticket->key = (ProtobufCBinaryData){KEY_SIZE, (uint8_t *)self->key};
    ticket->connects = !self->listens[end];
    ticket->sends = spec->bidir || end == 0;
    ticket->receives = spec->bidir || end == 1;
    ticket->local_address = (char *)addresses[end];
    ticket->peer_address = (char *)addresses[1 - end];
    ticket->peer_name = (char *)end_name(self, 1 - end);
    ticket->peer_port = run_agent(self->run, end == 0 ? self->to : self->from)->data_port;
    ticket->expiry_ns = TICKET_EXPIRY_NS;
    ticket->limit_ns = spec->duration_ns + testspec_omit_max_ns(spec) + LIMIT_MARGIN_NS;
    if (!testspec_rate_stated(spec)) {
        const char *owner;
        ticket->limit_bps = guard_cap_bps(self, &owner);
        ticket->has_limit_bps = ticket->limit_bps > 0;
        return;
    }
    // A quarter more than asked: bursts of an honest sender are no breach.
    ticket->has_limit_bps = ticket->has_limit_bytes = true;
    ticket->limit_bps = spec->bitrate_bps + spec->bitrate_bps / 4 + 1;
    ticket->limit_bytes =
        (uint64_t)((double)ticket->limit_bps / 8 * (double)ticket->limit_ns / NS_PER_S) + 65536;
}

// PREPARE to the listening end, START to the other. 0 or a negative error.
static int send_order(struct test *self, int end)
{
    director_t *director = self->run->director;
    const char *addresses[2];
    const struct testspec *spec = &self->spec;
    const struct agent *from = run_agent(self->run, self->from),
                       *to = run_agent(self->run, self->to);
    if (!from || !to || !planner_addresses(spec, from, to, &addresses[0], &addresses[1]))
        return MESH_E_NOT_FOUND;
    Mp__Ticket ticket;
    Mp__TestSpec wire = MP__TEST_SPEC__INIT;
    Mp__Envelope envelope = MP__ENVELOPE__INIT;
    Mp__Prepare prepare = MP__PREPARE__INIT;
    Mp__Start start = MP__START__INIT;
    fill_ticket(self, end, addresses, &ticket);
    testspec_to_wire(spec, &wire);
    if (self->listens[end]) {
        prepare.ticket = &ticket;
        prepare.spec = &wire;
        prepare.epoch = director->epoch;
        envelope.body_case = MP__ENVELOPE__BODY_PREPARE;
        envelope.prepare = &prepare;
    } else {
        start.ticket = &ticket;
        start.spec = &wire;
        start.epoch = director->epoch;
        envelope.body_case = MP__ENVELOPE__BODY_START;
        envelope.start = &start;
    }
    return director->ops.send(director->ops.ctx, self->ends[end], &envelope);
}

static void order_or_fail(struct test *self, int end)
{
    int rc = send_order(self, end);
    if (rc == 0)
        return;
    char trouble[256];
    if (rc == MESH_E_NOT_FOUND) {
        // Its loss is on the way to us, or we shall hear of its return.
        self->aborted[end] = true;
        director_host(self->run->director, self->ends[end])->unreachable = true;
        scheduler_leave(self->run->scheduler, end == 0 ? self->from : self->to);
        test_again(self, true, "the other end is lost");
        return;
    }
    self->aborted[end] = true;
    snprintf(trouble, sizeof trouble, "%s (%s) takes no orders: %s", end_name(self, end),
        side_names[end], mesh_strerror(rc));
    test_fail(self, trouble);
}

void test_ready(struct test *self, uint32_t agent_id)
{
    int end = end_of(self, agent_id);
    if (end < 0 || !self->listens[end] || self->started)
        return;
    const struct testspec *spec = &self->spec;
    self->started = true;
    self->asked_mono_ns = clock_mono(self->run->director->clock);
    self->late_mono_ns = 0;
    self->started_wall_ns = clock_wall(self->run->director->clock);
    deadline(
        self, testspec_omit_max_ns(spec) + spec->duration_ns + HANDSHAKE_NS + RESULT_MARGIN_NS);
    order_or_fail(self, 1 - end);
}

void test_start(struct run *run, uint32_t from, uint32_t to)
{
    director_t *director = run->director;
    struct test *self = zmalloc(sizeof *self);
    self->run = run;
    self->from = from;
    self->to = to;
    self->cell = run_cell_of(run, run->phase, from, to);
    again_spec(run, self->cell, &self->spec);
    self->back = self->spec.bidir ? run_cell_of(run, run->phase, to, from) : NO_CELL;
    self->ends[0] = run->hosts[from]->agent_id;
    self->ends[1] = run->hosts[to]->agent_id;
    self->listens[self->spec.reverse_connect ? 0 : 1] = true;
    self->reserved_mono_ns = self->asked_mono_ns = clock_mono(director->clock);
    randombytes_buf(self->id, sizeof self->id);
    randombytes_buf(self->key, sizeof self->key);
    id_text(self->id, self->id_text);
    uint32_t cells[2] = {self->cell, self->back};
    for (int i = 0; i < 2; i++) {
        if (cells[i] == NO_CELL || run->cells[cells[i]].step != CELL_WAITS)
            continue;
        run->cells[cells[i]].step = CELL_RUNS;
        run->cells[cells[i]].attempts++;
    }
    self->place = zlistx_add_end(run->tests, self);
    zhashx_insert(director->tests, self->id_text, self);
    for (int end = 0; end < 2; end++)
        run->hosts[end == 0 ? from : to]->tests++;
    run_host_busy(run, from, true);
    run_host_busy(run, to, true);
    run_begins(run);
    deadline(self, READY_DEADLINE_NS);
    order_or_fail(self, self->listens[0] ? 0 : 1);
}
