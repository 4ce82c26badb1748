#include "light_parts.h"

#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "converge.h"
#include "cpu.h"

#define SAMPLES_MAX 4096 // of one pair; beyond, every second one is kept, and so on
#define STRAGGLERS_NS NS_PER_S
#define PROBES_LEAST 5
#define RATE_DEFAULT 10.0
#define WARM_NUMBER (UINT64_C(1) << 63) // and above: of questions that only warm up
#define WARM_RTT_NS NS_PER_MS           // on a longer path they make no difference
#define WARM_LATE_NS NS_PER_MS          // nor is there time for them so late

// ---------------------------------------------------------------------------------- set-up

static bool open_flows(struct light_prober *self, unsigned family)
{
    const char *local = "";
    for (size_t i = 0; i < self->count; i++)
        if (self->pairs[i].target.address.ss_family == family)
            local = self->pairs[i].peer->local_address;
    if (!*local)
        return true;
    for (unsigned i = 0; i < self->per_family; i++) {
        if (!light_flow_open(&self->flows[self->flow_count], family, local))
            return false;
        self->flow_count++;
    }
    return true;
}

static double uniform(void)
{
    uint64_t random;
    ticket_random(&random, sizeof random);
    return (double)(random >> 11) * 0x1p-53;
}

static int64_t spacing_ns(const struct light_prober *self)
{
    return (int64_t)((0.5 + uniform()) * 1e9 / self->rate);
}

static void set_up(struct light_prober *self, const struct light_peer *peers)
{
    int64_t now = clock_mono_ns();
    uint64_t expected =
        (uint64_t)ceil((double)self->spec->duration_ns / 1e9 * self->rate * 2) + PROBES_LEAST;
    for (size_t i = 0; i < self->count; i++) {
        struct light_pair *pair = &self->pairs[i];
        pair->peer = &peers[i];
        pair->begin_ns = now;
        pair->due_ns = now + (int64_t)(uniform() * 1e9 / self->rate);
        pair->limit = expected;
        pair->received_keep = 1;
        converge_begin(&pair->converge, self->spec->until);
        if (!light_target_set(&pair->target, peers[i].peer_address, peers[i].peer_port)) {
            pair->unusable = true;
            snprintf(self->outcomes[i].reason, PROBE_TEXT_SIZE, "'%s' is no address",
                peers[i].peer_address);
        }
    }
    self->end_ns = now + self->spec->duration_ns;
}

// --------------------------------------------------------------------------------- answers

static void keep_sample(struct light_pair *pair, const struct light_sample *sample)
{
    if (pair->count == SAMPLES_MAX) {
        for (size_t i = 0; i < SAMPLES_MAX / 2; i++)
            pair->samples[i] = pair->samples[2 * i];
        pair->count = SAMPLES_MAX / 2;
        pair->received_keep *= 2;
    }
    if ((pair->received - 1) % pair->received_keep != 0)
        return;
    if (pair->count == pair->room) {
        pair->room = pair->room ? pair->room * 2 : 16;
        pair->samples = realloc(pair->samples, pair->room * sizeof *pair->samples);
        if (!pair->samples)
            abort();
    }
    pair->samples[pair->count++] = *sample;
}

// A clock that was not synchronised once, or erred, did so for the whole test.
static void worst_error(int64_t *worst_ns, int64_t error_ns)
{
    if (*worst_ns >= 0)
        *worst_ns = error_ns < 0 ? -1 : error_ns > *worst_ns ? error_ns : *worst_ns;
}

// Round trips do not wait for each other, so nothing is asked of their path but the samples.
static void approach(struct light_pair *pair, int64_t rtt_ns, int64_t now)
{
    static const struct converge_path path = {.known = true};
    pair->mean.sum_s += (double)rtt_ns * 1e-9;
    pair->mean.count++;
    if (now - pair->mean.since_ns < CONVERGE_SAMPLE_NS)
        return;
    double mean_s = pair->mean.sum_s / pair->mean.count;
    pair->mean.sum_s = 0;
    pair->mean.count = 0;
    pair->mean.since_ns = now;
    if (converge_add(&pair->converge, mean_s) && converge_look(&pair->converge, &path))
        pair->settled_ns = now;
}

// False if it is a copy of one that has come, or answers nothing.
static bool take_answer(struct light_pair *pair, const struct light_datagram *answer)
{
    struct light_asked *asked = &pair->pending[answer->number % LIGHT_PENDING];
    if (asked->number != answer->number || answer->number >= pair->sent)
        return false;
    pair->duplicate += !asked->waiting;
    if (!asked->waiting)
        return false;
    asked->waiting = false;
    if (answer->number < pair->next_expected)
        pair->reordered++;
    else
        pair->next_expected = answer->number + 1;
    pair->received++;
    return true;
}

static void on_answer(struct light_prober *self, struct light_pair *pair,
    const struct light_datagram *answer, int64_t t4_wall_ns, bool kernel_t4)
{
    struct light_sample sample;
    int64_t now = clock_mono_ns();
    if (!take_answer(pair, answer))
        return;
    const struct light_asked *asked = &pair->pending[answer->number % LIGHT_PENDING];
    light_clock_read(&self->clock);
    self->answers++;
    self->spun += asked->spun && self->spinner.spins;
    pair->far_spun += (answer->flags & LIGHT_FLAG_SPUN) != 0;
    if (!light_round(asked, answer, t4_wall_ns, self->clock.offset_ns, now, &sample)) {
        pair->discarded++;
        self->discarded++;
        return;
    }
    worst_error(&self->near_error_ns, self->clock.error_ns);
    worst_error(&pair->far_error_ns, answer->error_ns);
    keep_sample(pair, &sample);
    approach(pair, sample.rtt_ns, now);
    pair->rtt_ns = sample.rtt_ns;
    if (sample.rtt_ns > self->largest_rtt_ns)
        self->largest_rtt_ns = sample.rtt_ns;
    self->missing_t1 += !asked->kernel_t1;
    self->missing_t2 += !(answer->flags & LIGHT_FLAG_KERNEL_T2);
    self->missing_t4 += !kernel_t4;
}

static struct light_pair *pair_of(struct light_prober *self, const uint8_t *id, unsigned hint)
{
    if (hint < self->count && memcmp(self->pairs[hint].peer->keys.id, id, TICKET_ID_SIZE) == 0)
        return &self->pairs[hint];
    for (size_t i = 0; i < self->count; i++)
        if (memcmp(self->pairs[i].peer->keys.id, id, TICKET_ID_SIZE) == 0)
            return &self->pairs[i];
    return NULL;
}

static void read_transmit_stamps(struct light_prober *self, struct light_flow *flow)
{
    bool known;
    uint32_t owner;
    uint64_t number;
    int64_t stamp;
    for (int i = 0; i < 256 && light_flow_stamp(flow, &known, &owner, &number, &stamp); i++) {
        struct light_asked *asked =
            known ? &self->pairs[owner].pending[number % LIGHT_PENDING] : NULL;
        if (!asked || !asked->waiting || asked->kernel_t1 || asked->number != number)
            continue;
        asked->t1_wall_ns = stamp;
        asked->kernel_t1 = true;
    }
}

static void read_answers(struct light_prober *self, struct light_flow *flow)
{
    uint8_t bytes[LIGHT_SIZE + 1];
    int64_t t4_wall_ns;
    bool kernel;
    ssize_t got;
    for (int i = 0; i < 256 && (got = light_flow_read(flow, bytes, &t4_wall_ns, &kernel)) >= 0;
         i++) {
        const uint8_t *id = light_peek(bytes, (size_t)got);
        struct light_pair *pair = id ? pair_of(self, id, UINT32_MAX) : NULL;
        struct light_datagram answer;
        if (!pair || !light_unpack(bytes, (size_t)got, &pair->peer->keys, &answer) ||
            answer.type != LIGHT_REPLY)
            continue;
        if (answer.number == pair->warm_awaited)
            pair->warm_awaited = 0;
        if (answer.number < WARM_NUMBER)
            on_answer(self, pair, &answer, t4_wall_ns, kernel);
    }
}

// ----------------------------------------------------------------------------------- asking

static struct light_flow *flow_for(struct light_prober *self, const struct light_pair *pair)
{
    unsigned first = 0;
    while (first < self->flow_count && self->flows[first].family != pair->target.address.ss_family)
        first += self->per_family;
    return first < self->flow_count ? &self->flows[first + pair->sent % self->per_family] : NULL;
}

// Each after the answer to the one before, so that no packet of ours is ahead of what follows.
static void warm_up(struct light_prober *self, struct light_pair *pair, struct light_flow *flow)
{
    struct light_asked asked;
    bool worth = pair->rtt_ns > 0 && pair->rtt_ns < WARM_RTT_NS;
    pair->warm_awaited = 0;
    for (int i = 0; i < LIGHT_WARM && worth && !pair->warm_awaited; i++) {
        pair->warm_awaited = WARM_NUMBER | pair->warmed++;
        if (!light_flow_ask(flow, &pair->target, &pair->peer->keys, pair->warm_awaited, 0,
                (unsigned)(flow - self->flows), &self->clock, &asked))
            return;
        int64_t patience = asked.asked_mono_ns + 2 * WARM_RTT_NS;
        while (pair->warm_awaited && clock_mono_ns() < patience) {
            read_transmit_stamps(self, flow);
            read_answers(self, flow);
        }
    }
}

static void ask(struct light_prober *self, size_t index, int64_t now)
{
    struct light_pair *pair = &self->pairs[index];
    struct light_flow *flow = flow_for(self, pair);
    int64_t late_ns = clock_mono_ns() - pair->due_ns;
    pair->due_ns = now + spacing_ns(self);
    if (!flow)
        return;
    if (self->spinner.spins && late_ns < WARM_LATE_NS)
        warm_up(self, pair, flow);
    // One that never left this host is no round trip to lose.
    struct light_asked *asked = &pair->pending[pair->sent % LIGHT_PENDING];
    if (!light_flow_ask(flow, &pair->target, &pair->peer->keys, pair->sent, (uint32_t)index,
            (unsigned)(flow - self->flows), &self->clock, asked))
        return;
    asked->spun = self->spinner.spins;
    pair->sent++;
}

// Asks everybody who is due; the next due time.
static int64_t ask_due(struct light_prober *self, int64_t now)
{
    int64_t next = INT64_MAX;
    light_clock_read(&self->clock);
    for (size_t i = 0; i < self->count; i++) {
        struct light_pair *pair = &self->pairs[i];
        bool more = now < self->end_ns ? pair->sent < pair->limit : pair->sent < PROBES_LEAST;
        if (pair->unusable || pair->settled_ns || !more)
            continue;
        if (now >= self->end_ns || pair->due_ns <= now)
            ask(self, i, now);
        if (pair->due_ns < next)
            next = pair->due_ns;
    }
    return next;
}

// ------------------------------------------------------------------------------------ loop

static bool all_answered(const struct light_prober *self)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->pairs[i].received < self->pairs[i].sent)
            return false;
    return true;
}

static void wait_sockets(
    struct light_prober *self, struct pollfd *polled, int stop_fd, int64_t until)
{
    int64_t left = until - clock_mono_ns();
    struct timespec wait = {0, 0};
    if (left > 0 && !self->spinner.spins)
        wait = (struct timespec){left / NS_PER_S, left % NS_PER_S};
    for (unsigned i = 0; i < self->flow_count; i++)
        polled[i] = (struct pollfd){.fd = self->flows[i].fd, .events = POLLIN};
    polled[self->flow_count] = (struct pollfd){.fd = stop_fd, .events = POLLIN};
    int ready = ppoll(polled, self->flow_count + 1, &wait, NULL);
    for (unsigned i = 0; ready > 0 && i < self->flow_count; i++) {
        if (polled[i].revents)
            read_transmit_stamps(self, &self->flows[i]);
        if (polled[i].revents)
            read_answers(self, &self->flows[i]);
    }
}

// False if it was stopped.
static bool probe_all(struct light_prober *self, int stop_fd)
{
    struct pollfd *polled = calloc(self->flow_count + 1, sizeof *polled);
    if (!polled)
        abort();
    bool stopped = false;
    int64_t patience = INT64_MAX;
    for (int64_t now = clock_mono_ns(); !stopped; now = clock_mono_ns()) {
        (void)spinner_turn(&self->spinner, self->spin, true, now);
        int64_t next = ask_due(self, now);
        if (next == INT64_MAX) { // the time is over, or all are settled
            int64_t wait =
                4 * self->largest_rtt_ns > STRAGGLERS_NS ? 4 * self->largest_rtt_ns : STRAGGLERS_NS;
            if (patience == INT64_MAX)
                patience = now + wait;
            if (all_answered(self) || now >= patience)
                break;
            next = patience;
        } else if (next > self->end_ns) {
            next = self->end_ns > now ? self->end_ns : now + NS_PER_MS;
        }
        wait_sockets(self, polled, stop_fd, next);
        stopped = polled[self->flow_count].revents != 0;
    }
    (void)spinner_turn(&self->spinner, self->spin, false, 0);
    free(polled);
    return !stopped;
}

// ------------------------------------------------------------------------------------- run

void light_run(const struct testspec *spec, const struct light_peer *peers, size_t count,
    spin_t *spin, int stop_fd, struct light_outcome *outcomes, struct light_summary *summary)
{
    memset(outcomes, 0, count * sizeof *outcomes);
    memset(summary, 0, sizeof *summary);
    struct light_prober self = {.spec = spec,
        .spin = spin,
        .count = count,
        .outcomes = outcomes,
        .per_family = spec->flows ? spec->flows : 1,
        .rate = spec->probe_rate > 0 ? spec->probe_rate : RATE_DEFAULT};
    self.pairs = calloc(count ? count : 1, sizeof *self.pairs);
    self.flows = calloc(2 * self.per_family, sizeof *self.flows);
    cpu_t *cpu = cpu_new();
    light_clock_read(&self.clock);
    if (!self.pairs || !self.flows)
        abort();
    set_up(&self, peers);
    bool opened = open_flows(&self, AF_INET) && open_flows(&self, AF_INET6);
    cpu_watch(cpu, gettid());
    cpu_begin(cpu);
    bool stopped = opened && !probe_all(&self, stop_fd);
    cpu_end(cpu, &summary->load);
    cpu_destroy(&cpu);
    for (size_t i = 0; i < count; i++) {
        light_conclude(&self, i, stopped);
        free(self.pairs[i].samples);
    }
    light_summarise(&self, summary);
    for (unsigned i = 0; i < self.flow_count; i++)
        close(self.flows[i].fd);
    free(self.flows);
    free(self.pairs);
}
