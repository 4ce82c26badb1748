// Which of a concurrent light phase's cells the next batch measures.

#include "director_parts.h"

struct candidates {
    uint32_t *cells, count;
    uint32_t *probed;  // by agent
    double *core_load; // by the ledger's machine
};

static void gather(struct run *run, struct candidates *found, struct light_load *load)
{
    uint32_t p = run->phase;
    uint32_t *machines = zmalloc((run->agent_count + 1) * sizeof *machines);
    unsigned *cores = zmalloc((run->agent_count + 1) * sizeof *cores);
    uint32_t most_machine = 0;
    for (uint32_t h = 0; h < run->agent_count; h++) {
        const struct agent *agent = run_agent(run, h);
        cores[h] = agent && agent->capabilities && agent->capabilities->cores
                       ? agent->capabilities->cores
                       : 1;
        if (agent)
            machines[h] = ledger_machine(run->director->ledger, agent->boot_id, cores[h]);
        most_machine = machines[h] > most_machine ? machines[h] : most_machine;
    }
    found->cells = zmalloc((run->phase_first[p + 1] - run->phase_first[p] + 1) * sizeof(uint32_t));
    found->probed = zmalloc((run->agent_count + 1) * sizeof *found->probed);
    found->core_load = zmalloc((most_machine + 1) * sizeof *found->core_load);
    for (uint32_t i = run->phase_first[p]; i < run->phase_first[p + 1]; i++) {
        const struct cell_place *place = &run->places[i];
        if (!again_due(run, i) || !run_agent_there(run, place->from) ||
            !run_agent_there(run, place->to))
            continue;
        found->cells[found->count++] = i;
        double *core = &found->core_load[machines[place->from]];
        *core += 1.0 / cores[place->from];
        if (++found->probed[place->from] > load->most_of_agent)
            load->most_of_agent = found->probed[place->from];
        load->most_of_core = *core > load->most_of_core ? *core : load->most_of_core;
    }
    load->pairs = found->count;
    free(machines);
    free(cores);
}

// Keeps about 1/batches of the cells: whole shifts of the circle, so that each agent's load shrinks
// alike.
static uint32_t thin(const struct run *run, struct candidates *found, size_t batches)
{
    uint32_t n = run->agent_count, most = (uint32_t)(found->count / batches), kept = 0, sum = 0;
    if (batches <= 1)
        return found->count;
    uint32_t *by_shift = zmalloc((n + 1) * sizeof *by_shift), last = 0;
    for (uint32_t i = 0; i < found->count; i++) {
        const struct cell_place *place = &run->places[found->cells[i]];
        by_shift[(place->to + n - place->from) % n]++;
    }
    for (uint32_t shift = 1; shift < n && (sum == 0 || sum + by_shift[shift] <= most); shift++) {
        sum += by_shift[shift];
        last = shift;
    }
    for (uint32_t i = 0; i < found->count; i++) {
        const struct cell_place *place = &run->places[found->cells[i]];
        if ((place->to + n - place->from) % n <= last)
            found->cells[kept++] = found->cells[i];
    }
    free(by_shift);
    return kept;
}

static bool hosts_idle(const struct run *run, const uint32_t *cells, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct cell_place *place = &run->places[cells[i]];
        if (!ledger_host_idle(run->director->ledger, run->hosts[place->from]->ledger) ||
            (!run->targets[place->to] &&
                !ledger_host_idle(run->director->ledger, run->hosts[place->to]->ledger)))
            return false;
    }
    return true;
}

bool batch_start_next(struct run *run)
{
    const struct testspec *spec = &run->options.phases[run->phase].spec;
    struct candidates found = {0};
    struct light_load load = {0};
    gather(run, &found, &load);
    bool ports = spec->kind == TEST_PORT || spec->kind == TEST_PATH;
    size_t batches = ports ? 1 : planner_light_batches(spec, &load);
    uint32_t count = ports ? ports_thin(run, found.cells, found.count) : thin(run, &found, batches);
    bool idle = hosts_idle(run, found.cells, count);
    if (idle && count > 0) {
        load.most_of_agent = (load.most_of_agent + batches - 1) / batches;
        load.most_of_core /= (double)batches;
        batch_start(run, found.cells, count, planner_probe_rate(spec, &load), false);
    }
    free(found.cells);
    free(found.probed);
    free(found.core_load);
    return idle;
}
