#include "light_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "cpu.h"

#define SAMPLES_MAX 4096 // of one pair; beyond, every second one is kept, and so on
#define PENDING 512      // questions of one pair that may be on their way; a power of two
#define STAMPS 4096      // transmit stamps awaited on one socket; a power of two
#define STRAGGLERS_NS NS_PER_S
#define PROBES_LEAST 5
#define RATE_DEFAULT 10.0

// A question that was asked, until its answer comes.
struct asked {
    uint64_t number;
    int64_t t1_wall_ns;
    bool waiting, kernel_t1;
};

struct pair {
    const struct light_peer *peer;
    struct sockaddr_storage address;
    socklen_t address_size;
    int64_t due_ns, begin_ns;
    uint64_t sent, received, duplicate, reordered, next_expected, limit;
    uint64_t received_keep; // keep every so many-th sample
    struct asked pending[PENDING];
    struct light_sample *samples;
    size_t count, room;
    bool unusable;
};

// A source port: an unconnected socket, and which question each of its transmit stamps belongs to.
struct flow {
    int fd;
    unsigned family;
    uint32_t sent;
    struct {
        uint32_t pair, key;
        uint64_t number;
    } stamps[STAMPS];
};

struct prober {
    const struct testspec *spec;
    struct pair *pairs;
    struct light_outcome *outcomes;
    size_t count;
    struct flow *flows;
    unsigned flow_count, per_family;
    int64_t end_ns, largest_rtt_ns;
    double rate;
    uint64_t missing_t1, missing_t2, missing_t4, answers;
};

static int64_t to_ns(const struct timespec *stamp)
{
    return stamp->tv_sec * NS_PER_S + stamp->tv_nsec;
}

// ---------------------------------------------------------------------------------- set-up

static bool set_address(struct pair *pair)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&pair->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&pair->address;
    if (inet_pton(AF_INET, pair->peer->peer_address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(pair->peer->peer_port);
        pair->address_size = sizeof *v4;
        return true;
    }
    if (inet_pton(AF_INET6, pair->peer->peer_address, &v6->sin6_addr) != 1)
        return false;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(pair->peer->peer_port);
    pair->address_size = sizeof *v6;
    return true;
}

// Bound to our own address of that family if it is local, else to any.
static void bind_local(int fd, unsigned family, const char *local)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (family == AF_INET && inet_pton(AF_INET, local, &v4.sin_addr) == 1)
        (void)!bind(fd, (struct sockaddr *)&v4, sizeof v4);
    else if (family == AF_INET6 && inet_pton(AF_INET6, local, &v6.sin6_addr) == 1)
        (void)!bind(fd, (struct sockaddr *)&v6, sizeof v6);
}

static int flow_socket(unsigned family, const char *local)
{
    int fd = socket((int)family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    int stamping = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE |
                   SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID |
                   SOF_TIMESTAMPING_OPT_TSONLY;
    (void)setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &stamping, sizeof stamping);
    bind_local(fd, family, local);
    return fd;
}

static bool open_flows(struct prober *self, unsigned family)
{
    const char *local = "";
    for (size_t i = 0; i < self->count; i++)
        if (self->pairs[i].address.ss_family == family)
            local = self->pairs[i].peer->local_address;
    if (!*local)
        return true;
    for (unsigned i = 0; i < self->per_family; i++) {
        struct flow *flow = &self->flows[self->flow_count];
        flow->fd = flow_socket(family, local);
        flow->family = family;
        if (flow->fd < 0)
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

static int64_t spacing_ns(const struct prober *self)
{
    return (int64_t)((0.5 + uniform()) * 1e9 / self->rate);
}

static void set_up(struct prober *self, const struct light_peer *peers)
{
    int64_t now = clock_mono_ns();
    uint64_t expected =
        (uint64_t)ceil((double)self->spec->duration_ns / 1e9 * self->rate * 2) + PROBES_LEAST;
    for (size_t i = 0; i < self->count; i++) {
        struct pair *pair = &self->pairs[i];
        pair->peer = &peers[i];
        pair->begin_ns = now;
        pair->due_ns = now + (int64_t)(uniform() * 1e9 / self->rate);
        pair->limit = expected;
        pair->received_keep = 1;
        if (!set_address(pair)) {
            pair->unusable = true;
            snprintf(self->outcomes[i].reason, PROBE_TEXT_SIZE, "'%s' is no address",
                peers[i].peer_address);
        }
    }
    self->end_ns = now + self->spec->duration_ns;
}

// ----------------------------------------------------------------------------------- asking

static struct flow *flow_for(struct prober *self, const struct pair *pair)
{
    unsigned first = 0;
    while (first < self->flow_count && self->flows[first].family != pair->address.ss_family)
        first += self->per_family;
    return first < self->flow_count ? &self->flows[first + pair->sent % self->per_family] : NULL;
}

static void ask(struct prober *self, size_t index, int64_t now)
{
    struct pair *pair = &self->pairs[index];
    struct flow *flow = flow_for(self, pair);
    pair->due_ns = now + spacing_ns(self);
    if (!flow)
        return;
    uint64_t number = pair->sent++;
    struct light_datagram question = {
        .type = LIGHT_ASK, .number = number, .flow = (unsigned)(flow - self->flows)};
    uint8_t bytes[LIGHT_SIZE];
    light_pack(&question, &pair->peer->keys, bytes);
    struct asked *asked = &pair->pending[number % PENDING];
    *asked = (struct asked){.number = number, .waiting = true, .t1_wall_ns = clock_wall_ns()};
    ssize_t put = sendto(flow->fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL,
        (struct sockaddr *)&pair->address, pair->address_size);
    if (put < 0 && (errno == ECONNREFUSED || errno == EHOSTUNREACH || errno == ENETUNREACH))
        put = sendto(flow->fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL,
            (struct sockaddr *)&pair->address, pair->address_size);
    if (put < 0) {
        pair->sent--; // never left this host: no round trip to lose
        asked->waiting = false;
        return;
    }
    uint32_t key = flow->sent++;
    flow->stamps[key % STAMPS].pair = (uint32_t)index;
    flow->stamps[key % STAMPS].key = key;
    flow->stamps[key % STAMPS].number = number;
}

// Asks everybody who is due; the next due time.
static int64_t ask_due(struct prober *self, int64_t now)
{
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < self->count; i++) {
        struct pair *pair = &self->pairs[i];
        bool more = now < self->end_ns ? pair->sent < pair->limit : pair->sent < PROBES_LEAST;
        if (pair->unusable || !more)
            continue;
        if (now >= self->end_ns || pair->due_ns <= now)
            ask(self, i, now);
        if (pair->due_ns < next)
            next = pair->due_ns;
    }
    return next;
}

// --------------------------------------------------------------------------------- answers

static void keep_sample(struct pair *pair, const struct light_sample *sample)
{
    if (pair->count == SAMPLES_MAX) {
        for (size_t i = 0; i < SAMPLES_MAX / 2; i++)
            pair->samples[i] = pair->samples[2 * i];
        pair->count = SAMPLES_MAX / 2;
        pair->received_keep *= 2;
    }
    if (pair->received % pair->received_keep != 0)
        return;
    if (pair->count == pair->room) {
        pair->room = pair->room ? pair->room * 2 : 16;
        pair->samples = realloc(pair->samples, pair->room * sizeof *pair->samples);
        if (!pair->samples)
            abort();
    }
    pair->samples[pair->count++] = *sample;
}

static void on_answer(struct prober *self, struct pair *pair, const struct light_datagram *answer,
    int64_t t4, bool kernel_t4)
{
    struct asked *asked = &pair->pending[answer->number % PENDING];
    if (asked->number != answer->number || answer->number >= pair->sent)
        return;
    if (!asked->waiting) {
        pair->duplicate++;
        return;
    }
    asked->waiting = false;
    if (answer->number < pair->next_expected)
        pair->reordered++;
    else
        pair->next_expected = answer->number + 1;
    int64_t rtt = (t4 - asked->t1_wall_ns) - (answer->t3_ns - answer->t2_ns);
    struct light_sample sample = {.rtt_ns = rtt > 0 ? rtt : 0,
        .forward_ns = answer->t2_ns - asked->t1_wall_ns,
        .backward_ns = t4 - answer->t3_ns,
        .at_ns = asked->t1_wall_ns,
        .flow = (uint16_t)answer->flow};
    keep_sample(pair, &sample);
    pair->received++;
    if (sample.rtt_ns > self->largest_rtt_ns)
        self->largest_rtt_ns = sample.rtt_ns;
    self->answers++;
    self->missing_t1 += !asked->kernel_t1;
    self->missing_t2 += !(answer->flags & LIGHT_FLAG_KERNEL_T2);
    self->missing_t4 += !kernel_t4;
}

static struct pair *pair_of(struct prober *self, const uint8_t *id, unsigned hint)
{
    if (hint < self->count && memcmp(self->pairs[hint].peer->keys.id, id, TICKET_ID_SIZE) == 0)
        return &self->pairs[hint];
    for (size_t i = 0; i < self->count; i++)
        if (memcmp(self->pairs[i].peer->keys.id, id, TICKET_ID_SIZE) == 0)
            return &self->pairs[i];
    return NULL;
}

// The software stamp of a received message or of an entry of the error queue.
static bool stamp_of(struct msghdr *header, int64_t *stamp_ns, uint32_t *key)
{
    bool stamped = false;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPING) {
            struct scm_timestamping stamps;
            memcpy(&stamps, CMSG_DATA(c), sizeof stamps);
            *stamp_ns = to_ns(&stamps.ts[0]);
            stamped = *stamp_ns > 0;
        } else if (key && ((c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR) ||
                              (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_RECVERR))) {
            struct sock_extended_err error;
            memcpy(&error, CMSG_DATA(c), sizeof error);
            *key = error.ee_data;
        }
    }
    return stamped;
}

static void read_transmit_stamps(struct prober *self, struct flow *flow)
{
    char control[512];
    for (int i = 0; i < 256; i++) {
        struct msghdr header = {.msg_control = control, .msg_controllen = sizeof control};
        if (recvmsg(flow->fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            return;
        int64_t stamp;
        uint32_t key = UINT32_MAX;
        if (!stamp_of(&header, &stamp, &key) || flow->stamps[key % STAMPS].key != key)
            continue;
        struct pair *pair = &self->pairs[flow->stamps[key % STAMPS].pair];
        struct asked *asked = &pair->pending[flow->stamps[key % STAMPS].number % PENDING];
        if (asked->waiting && asked->number == flow->stamps[key % STAMPS].number) {
            asked->t1_wall_ns = stamp;
            asked->kernel_t1 = true;
        }
    }
}

static void read_answers(struct prober *self, struct flow *flow)
{
    uint8_t bytes[LIGHT_SIZE + 1];
    char control[512];
    for (int i = 0; i < 256; i++) {
        struct iovec iov = {bytes, sizeof bytes};
        struct msghdr header = {.msg_iov = &iov,
            .msg_iovlen = 1,
            .msg_control = control,
            .msg_controllen = sizeof control};
        ssize_t got = recvmsg(flow->fd, &header, MSG_DONTWAIT);
        if (got < 0)
            return;
        int64_t t4;
        bool kernel = stamp_of(&header, &t4, NULL);
        if (!kernel)
            t4 = clock_wall_ns();
        const uint8_t *id = light_peek(bytes, (size_t)got);
        struct pair *pair = id ? pair_of(self, id, UINT32_MAX) : NULL;
        struct light_datagram answer;
        if (pair && light_unpack(bytes, (size_t)got, &pair->peer->keys, &answer) &&
            answer.type == LIGHT_REPLY)
            on_answer(self, pair, &answer, t4, kernel);
    }
}

// ------------------------------------------------------------------------------------ loop

static bool all_answered(const struct prober *self)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->pairs[i].received < self->pairs[i].sent)
            return false;
    return true;
}

static void wait_sockets(struct prober *self, struct pollfd *polled, int stop_fd, int64_t until)
{
    int64_t left = until - clock_mono_ns();
    struct timespec wait = {0, 0};
    if (left > 0)
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
static bool probe_all(struct prober *self, int stop_fd)
{
    struct pollfd *polled = calloc(self->flow_count + 1, sizeof *polled);
    if (!polled)
        abort();
    bool stopped = false;
    int64_t patience = INT64_MAX;
    for (int64_t now = clock_mono_ns(); !stopped; now = clock_mono_ns()) {
        int64_t next = ask_due(self, now);
        if (now >= self->end_ns && next == INT64_MAX) {
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
    free(polled);
    return !stopped;
}

// ----------------------------------------------------------------------------------- result

static void flow_medians(
    struct prober *self, struct pair *pair, struct light_outcome *out, int64_t *values)
{
    out->best_flow_p50_s = out->worst_flow_p50_s = NAN;
    for (unsigned flow = 0; flow < self->flow_count; flow++) {
        struct probe_distribution one;
        size_t count = 0;
        for (size_t i = 0; i < pair->count; i++)
            if (pair->samples[i].flow == flow)
                values[count++] = pair->samples[i].rtt_ns;
        if (count == 0)
            continue;
        light_distribution(values, count, &one);
        if (!(out->best_flow_p50_s <= one.p50_s))
            out->best_flow_p50_s = one.p50_s;
        if (!(out->worst_flow_p50_s >= one.p50_s))
            out->worst_flow_p50_s = one.p50_s;
    }
}

static void one_way(const struct pair *pair, struct light_outcome *out, int64_t *at, int64_t *delay)
{
    for (size_t i = 0; i < pair->count; i++) {
        at[i] = pair->samples[i].at_ns;
        delay[i] = pair->samples[i].forward_ns;
    }
    light_pdv(at, delay, pair->count, &out->pdv_forward);
    for (size_t i = 0; i < pair->count; i++)
        delay[i] = pair->samples[i].backward_ns;
    light_pdv(at, delay, pair->count, &out->pdv_backward);
}

static void conclude(struct prober *self, size_t index, bool stopped)
{
    struct pair *pair = &self->pairs[index];
    struct light_outcome *out = &self->outcomes[index];
    out->sent = pair->sent;
    out->received = pair->received;
    out->duplicate = pair->duplicate;
    out->reordered = pair->reordered;
    out->duration_s = (double)(clock_mono_ns() < self->end_ns ? clock_mono_ns() - pair->begin_ns
                                                              : self->spec->duration_ns) /
                      1e9;
    out->flows = self->per_family;
    out->family = pair->address.ss_family == AF_INET ? 4 : 6;
    out->jitter_s = light_jitter_s(pair->samples, pair->count);
    int64_t *values = malloc((pair->count + 1) * sizeof *values),
            *at = malloc((pair->count + 1) * sizeof *at);
    if (!values || !at)
        abort();
    flow_medians(self, pair, out, values);
    one_way(pair, out, at, values);
    for (size_t i = 0; i < pair->count; i++)
        values[i] = pair->samples[i].rtt_ns;
    light_distribution(values, pair->count, &out->rtt);
    free(values);
    free(at);
    out->outcome = stopped ? PROBE_STOPPED : PROBE_OK;
    if (stopped) {
        snprintf(out->reason, sizeof out->reason, "stopped");
    } else if (pair->sent == 0 || pair->received == 0) {
        out->outcome = PROBE_FAILED;
        if (!*out->reason)
            snprintf(out->reason, sizeof out->reason,
                pair->sent ? "none of %llu probes was answered" : "no probe could be sent (%llu)",
                (unsigned long long)pair->sent);
    }
}

static const char *origin(uint64_t missing, uint64_t answers)
{
    return missing == 0 ? "kernel" : missing < answers ? "kernel or user" : "user";
}

void light_run(const struct testspec *spec, const struct light_peer *peers, size_t count,
    int stop_fd, struct light_outcome *outcomes, struct light_summary *summary)
{
    memset(outcomes, 0, count * sizeof *outcomes);
    memset(summary, 0, sizeof *summary);
    struct prober self = {.spec = spec,
        .count = count,
        .outcomes = outcomes,
        .per_family = spec->flows ? spec->flows : 1,
        .rate = spec->probe_rate > 0 ? spec->probe_rate : RATE_DEFAULT};
    self.pairs = calloc(count ? count : 1, sizeof *self.pairs);
    self.flows = calloc(2 * self.per_family, sizeof *self.flows);
    cpu_t *cpu = cpu_new();
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
        conclude(&self, i, stopped);
        free(self.pairs[i].samples);
    }
    snprintf(summary->stamps, sizeof summary->stamps, "t1 %s, t2 %s, t3 user, t4 %s",
        origin(self.missing_t1, self.answers), origin(self.missing_t2, self.answers),
        origin(self.missing_t4, self.answers));
    for (unsigned i = 0; i < self.flow_count; i++)
        close(self.flows[i].fd);
    free(self.flows);
    free(self.pairs);
}
