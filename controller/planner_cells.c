// Ports, targets, and runs that are an explicit list of cells.

#include "planner_parts.h"

#include <czmq.h>

// ------------------------------------------------------------------------------------------ ports

static size_t port_bit(Mp__Transport transport, unsigned number)
{
    return (size_t)(transport - MP__TRANSPORT__OVER_TCP) * 65536 + number;
}

static bool port_once(uint8_t *seen, const struct port *port)
{
    size_t bit = port_bit(port->transport, port->number);
    bool fresh = !(seen[bit / 8] >> (bit % 8) & 1);
    seen[bit / 8] |= (uint8_t)(1u << (bit % 8));
    return fresh;
}

static bool has_ports(const struct plan_options *options)
{
    for (size_t p = 0; p < options->phase_count; p++)
        if (options->phases[p].spec.kind == TEST_PORT)
            return true;
    return false;
}

int planner_ports(
    const Mp__RunRequest *request, struct plan *plan, struct director_refusal *refusal)
{
    if (!has_ports(&plan->options))
        return 0;
    uint8_t *seen = zmalloc(4 * 65536 / 8);
    plan->ports = zmalloc(PORTS_MAX * sizeof *plan->ports);
    bool full = false;
    for (size_t i = 0; i < request->n_ports && !full; i++) {
        const Mp__PortRange *range = request->ports[i];
        for (uint32_t number = range->first; number <= range->last && !full; number++) {
            struct port port = {range->transport, (uint16_t)number};
            if (!port_once(seen, &port))
                continue;
            full = plan->port_count == PORTS_MAX;
            if (!full)
                plan->ports[plan->port_count++] = port;
        }
    }
    free(seen);
    if (full)
        return refuse(refusal, INVALID, "a run can probe at most %d ports", PORTS_MAX);
    if (plan->port_count == 0)
        return refuse(refusal, INVALID, "port: no port is named (--port tcp/443)");
    return 0;
}

// ---------------------------------------------------------------------------------------- targets

struct agent *planner_target(const char *name, char *const *addresses, size_t address_count)
{
    struct agent *target = zmalloc(sizeof *target);
    snprintf(target->name, sizeof target->name, "%s", name);
    for (size_t i = 0; i < address_count && i < 2; i++)
        snprintf(target->addresses[target->address_count++], sizeof target->addresses[0], "%s",
            addresses[i]);
    target->target = true;
    target->seen_mono_ns = 1;
    return target;
}

// ------------------------------------------------------------------------------------------ cells

struct listing {
    const struct plan_cells *cells;
    size_t ends; // agents, then targets
    bool *used;
    uint32_t *index; // in the plan
};

static int cell_check(const struct listing *self, const struct plan_options *options,
    const struct plan_cell *cell, struct director_refusal *refusal)
{
    bool named = false,
         light = cell->kind == MP__TEST_KIND__PORT || cell->kind == MP__TEST_KIND__PATH;
    for (size_t p = 0; p < options->phase_count; p++)
        named = named || options->phases[p].spec.kind == (enum test_kind)cell->kind;
    if (!named)
        return refuse(refusal, INVALID, "a cell is of a test that the run does not name");
    if (cell->from >= self->cells->agent_count || cell->to >= self->ends || cell->from == cell->to)
        return refuse(refusal, INVALID, "a cell has a wrong end");
    if (cell->to >= self->cells->agent_count && !light)
        return refuse(refusal, INVALID, "no agent runs at %s: only ports and paths can be probed",
            self->cells->targets[cell->to - self->cells->agent_count].name);
    if (cell->kind == MP__TEST_KIND__PORT && cell->port >= self->cells->port_count)
        return refuse(refusal, INVALID, "a cell has a wrong port");
    return 0;
}

static int cells_check(
    struct listing *self, const struct plan_options *options, struct director_refusal *refusal)
{
    const struct plan_cells *cells = self->cells;
    if (cells->count == 0)
        return refuse(refusal, NO_PAIRS, "there is nothing to measure");
    if (cells->count > DIRECTOR_CELLS_MAX)
        return refuse(refusal, INVALID, "the run would have over %d cells", DIRECTOR_CELLS_MAX);
    if (cells->port_count > PORTS_MAX)
        return refuse(refusal, INVALID, "a run can probe at most %d ports", PORTS_MAX);
    for (size_t i = 0; i < cells->agent_count; i++)
        self->used[i] = cells->keep_agents;
    for (size_t i = 0; i < cells->count; i++) {
        int rc = cell_check(self, options, &cells->cells[i], refusal);
        if (rc != 0)
            return rc;
        self->used[cells->cells[i].from] = self->used[cells->cells[i].to] = true;
    }
    return 0;
}

static struct agent *end_of(registry_t *registry, const struct plan_cells *cells, size_t end)
{
    if (end < cells->agent_count)
        return registry_by_name(registry, cells->agents[end]);
    const struct plan_target *target = &cells->targets[end - cells->agent_count];
    return planner_target(target->name, (char *const *)target->addresses, target->address_count);
}

static int ends_fill(
    struct listing *self, registry_t *registry, struct plan *plan, struct director_refusal *refusal)
{
    const struct plan_cells *cells = self->cells;
    plan->agents = zmalloc((self->ends + 1) * sizeof(struct agent *));
    for (size_t end = 0; end < self->ends; end++) {
        if (!self->used[end])
            continue;
        struct agent *agent = end_of(registry, cells, end);
        if (!agent)
            return refuse(refusal, NOT_FOUND, "there is no agent %s", cells->agents[end]);
        plan->agents[plan->agent_count++] = agent;
        plan->target_count += agent->target;
    }
    size_t real = plan->agent_count - plan->target_count;
    qsort(plan->agents, real, sizeof *plan->agents, planner_by_name);
    qsort(plan->agents + real, plan->target_count, sizeof *plan->agents, planner_by_name);
    return 0;
}

static const char *end_name(const struct plan_cells *cells, size_t end)
{
    return end < cells->agent_count ? cells->agents[end]
                                    : cells->targets[end - cells->agent_count].name;
}

// Names are unique, so that each end has one place.
static int ends_index(
    struct listing *self, const struct plan *plan, struct director_refusal *refusal)
{
    zhashx_t *places = zhashx_new();
    int rc = 0;
    for (size_t i = 0; i < plan->agent_count && rc == 0; i++)
        if (zhashx_insert(places, plan->agents[i]->name, (void *)(i + 1)) != 0)
            rc = refuse(refusal, INVALID, "two ends have the name %s", plan->agents[i]->name);
    for (size_t end = 0; end < self->ends && rc == 0; end++)
        if (self->used[end])
            self->index[end] =
                (uint32_t)((size_t)zhashx_lookup(places, end_name(self->cells, end)) - 1);
    zhashx_destroy(&places);
    return rc;
}

static int by_place(const void *a, const void *b)
{
    return planner_place_order(a, b);
}

// Agent over either over service.
static uint8_t stronger(uint8_t a, uint8_t b)
{
    if (a == PORT_LISTENER_AGENT || b == PORT_LISTENER_AGENT)
        return PORT_LISTENER_AGENT;
    return a == PORT_LISTENER_EITHER ? a : b;
}

static void cells_fill(const struct listing *self, struct plan *plan)
{
    size_t count = self->cells->count, kept = 0;
    struct cell_place *places = zmalloc((count + 1) * sizeof *places);
    for (size_t i = 0; i < count; i++) {
        const struct plan_cell *cell = &self->cells->cells[i];
        size_t phase = 0;
        while (plan->options.phases[phase].spec.kind != (enum test_kind)cell->kind)
            phase++;
        places[i] = (struct cell_place){.kind = (uint8_t)cell->kind,
            .phase = (uint8_t)phase,
            .port = cell->kind == MP__TEST_KIND__PORT ? cell->port : 0,
            .listener = cell->kind == MP__TEST_KIND__PORT ? (uint8_t)cell->listener : 0,
            .from = self->index[cell->from],
            .to = self->index[cell->to]};
    }
    qsort(places, count, sizeof *places, by_place);
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && planner_place_order(&places[kept - 1], &places[i]) == 0)
            places[kept - 1].listener = stronger(places[kept - 1].listener, places[i].listener);
        else
            places[kept++] = places[i];
    }
    for (size_t i = 0; i < kept; i++)
        plan->pairs += i == 0 || places[i].phase != places[i - 1].phase ||
                       places[i].from != places[i - 1].from || places[i].to != places[i - 1].to;
    plan->places = places;
    plan->place_count = kept;
}

int planner_plan_cells(registry_t *registry, const Mp__RunRequest *request,
    const struct plan_cells *cells, struct plan *plan, struct director_refusal *refusal)
{
    struct listing listing = {.cells = cells, .ends = cells->agent_count + cells->target_count};
    memset(plan, 0, sizeof *plan);
    listing.used = zmalloc(listing.ends + 1);
    listing.index = zmalloc((listing.ends + 1) * sizeof *listing.index);
    int rc = planner_options(request, &plan->options, refusal);
    if (rc == 0)
        rc = cells_check(&listing, &plan->options, refusal);
    if (rc == 0)
        rc = ends_fill(&listing, registry, plan, refusal);
    if (rc == 0)
        rc = ends_index(&listing, plan, refusal);
    if (rc == 0) {
        plan->port_count = cells->port_count;
        plan->ports = zmalloc((cells->port_count + 1) * sizeof *plan->ports);
        memcpy(plan->ports, cells->ports, cells->port_count * sizeof *plan->ports);
        cells_fill(&listing, plan);
    } else {
        planner_release(plan);
    }
    free(listing.used);
    free(listing.index);
    return rc;
}
