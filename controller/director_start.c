// How a run comes to be: planned, started, or resumed from what an earlier life of the controller
// stored.

#include "director_parts.h"

#include "errors.h"

// ------------------------------------------------------------------------------------------ plans

struct notes {
    char *texts[8];
    size_t count;
};

static void note(struct notes *notes, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(struct notes *notes, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (vasprintf(&notes->texts[notes->count], format, args) < 0)
        abort();
    notes->count++;
    va_end(args);
}

static struct notes notes_of(const struct plan *plan, const Mp__RunRequest *request)
{
    struct notes notes = {0};
    size_t lost = 0, draining = 0;
    for (size_t i = 0; i < plan->agent_count; i++) {
        lost += !agent_connected(plan->agents[i]);
        draining += plan->agents[i]->draining;
    }
    if (lost)
        note(&notes, "%zu of the selected agents %s lost", lost, lost == 1 ? "is" : "are");
    if (draining)
        note(&notes, "%zu of the selected agents %s drained: skipped", draining,
            draining == 1 ? "is" : "are");
    if (request->has_mode && request->mode == MP__MODE__CONCURRENT)
        note(&notes, "mode concurrent: agents of one machine are treated as separate hosts");
    else if (plan->options.machines_ignore)
        note(&notes, "machines are ignored: agents of one machine are treated as separate hosts");
    for (size_t p = 0; p < plan->options.phase_count; p++)
        if (plan->options.phases[p].spec.until > 0) {
            note(&notes, "--until: a test may end before its time; times are as if none did");
            break;
        }
    return notes;
}

static void notes_free(struct notes *notes)
{
    for (size_t i = 0; i < notes->count; i++)
        free(notes->texts[i]);
}

static int plan_make(director_t *self, const Mp__RunRequest *request,
    const struct plan_cells *cells, struct plan *plan, struct director_refusal *refusal)
{
    return cells ? planner_plan_cells(self->registry, request, cells, plan, refusal)
                 : planner_plan(self->registry, request, plan, refusal);
}

int director_plan(director_t *self, const Mp__RunRequest *request, Mp__PlanAnswer *answer,
    struct director_refusal *refusal)
{
    struct plan plan;
    struct forecast forecast;
    int rc = planner_plan(self->registry, request, &plan, refusal);
    if (rc != 0)
        return rc;
    planner_forecast(&plan, &forecast);
    struct notes notes = notes_of(&plan, request);
    if (forecast.rechecks)
        note(&notes, "%u cell%s measured again alone afterwards, in about %.1f s",
            forecast.rechecks, forecast.rechecks == 1 ? " is" : "s are", forecast.recheck_s);
    if (forecast.flow_checks)
        note(&notes, "up to %u cell%s measured once more with %d streams, in about %.1f s",
            forecast.flow_checks, forecast.flow_checks == 1 ? " is" : "s are",
            TESTSPEC_FLOW_CHECK_STREAMS, forecast.flow_check_s);
    mp__plan_answer__init(answer);
    answer->pairs = plan.pairs;
    answer->tests = forecast.tests;
    answer->bytes_max = forecast.bytes_max;
    answer->expected_s = forecast.expected_s;
    answer->expected_p95_s = forecast.expected_p95_s;
    answer->lower_bound_s = forecast.lower_bound_s;
    answer->bound_by = strdup(forecast.bound_by);
    answer->has_unbounded_bytes = true;
    answer->unbounded_bytes = forecast.unbounded_bytes;
    answer->n_notes = notes.count;
    answer->notes = zmalloc((notes.count + 1) * sizeof *answer->notes);
    memcpy(answer->notes, notes.texts, notes.count * sizeof *answer->notes);
    planner_release(&plan);
    return 0;
}

void director_plan_release(Mp__PlanAnswer *answer)
{
    for (size_t i = 0; i < answer->n_notes; i++)
        free(answer->notes[i]);
    free(answer->notes);
    free(answer->bound_by);
    mp__plan_answer__init(answer);
}

// ------------------------------------------------------------------------------------------ starts

static size_t active_count(director_t *self)
{
    size_t count = 0;
    for (struct run *run = zlistx_first(self->runs); run; run = zlistx_next(self->runs))
        count += !run->ended;
    return count;
}

static Mp__RunAgent *run_agent_new(const struct agent *agent)
{
    Mp__RunAgent *made = zmalloc(sizeof *made);
    mp__run_agent__init(made);
    made->name = strdup(agent->name);
    made->addresses = zmalloc(2 * sizeof *made->addresses);
    for (size_t i = 0; i < agent->address_count && i < 2; i++)
        if (*agent->addresses[i])
            made->addresses[made->n_addresses++] = strdup(agent->addresses[i]);
    if (made->n_addresses)
        made->address = strdup(made->addresses[0]);
    made->has_target = made->target = agent->target;
    made->labels = zmalloc((agent->label_count + 1) * sizeof *made->labels);
    for (size_t i = 0; i < agent->label_count; i++) {
        Mp__Label *label = zmalloc(sizeof *label);
        mp__label__init(label);
        label->key = strdup(agent->labels[i].key);
        label->value = strdup(agent->labels[i].value);
        made->labels[made->n_labels++] = label;
    }
    if (*agent->boot_id)
        made->boot_id = strdup(agent->boot_id);
    if (*agent->software)
        made->software = strdup(agent->software);
    const Mp__Capabilities *can = agent->capabilities;
    if (can && can->kernel)
        made->kernel = strdup(can->kernel);
    if (can && can->has_cores) {
        made->has_cores = true;
        made->cores = can->cores;
    }
    return made;
}

static void save_new_run(director_t *self, const struct run *run, const struct plan *plan)
{
    Mp__RunAgent **agents = zmalloc((plan->agent_count + 1) * sizeof *agents);
    uint32_t *ids = zmalloc((plan->agent_count + 1) * sizeof *ids);
    for (size_t i = 0; i < plan->agent_count; i++) {
        agents[i] = run_agent_new(plan->agents[i]);
        ids[i] = plan->agents[i]->id;
    }
    self->ops.save_new_run(self->ops.ctx, run->info, agents, ids, plan->places);
    for (size_t i = 0; i < plan->agent_count; i++)
        mp__run_agent__free_unpacked(agents[i], NULL);
    free(agents);
    free(ids);
}

static struct run *run_from_plan(director_t *self, const Mp__RunRequest *request, const char *by,
    const struct plan *plan, struct notes *notes)
{
    Mp__RunInfo info = MP__RUN_INFO__INIT;
    char id[DIRECTOR_RUN_ID_SIZE];
    snprintf(id, sizeof id, "r-%llu", (unsigned long long)self->next_run++);
    info.id = id;
    info.state = MP__RUN_STATE__QUEUED;
    info.created_wall_ns = clock_wall(self->clock);
    info.request = (Mp__RunRequest *)request;
    info.by = (char *)by;
    info.agents = (uint32_t)plan->agent_count;
    info.cells = (uint32_t)plan->place_count;
    info.notes = notes->texts;
    info.n_notes = notes->count;
    char(*texts)[PORT_TEXT_SIZE] = zmalloc((plan->port_count + 1) * sizeof *texts);
    info.ports = zmalloc((plan->port_count + 1) * sizeof *info.ports);
    for (; info.n_ports < plan->port_count; info.n_ports++)
        info.ports[info.n_ports] = port_format(&plan->ports[info.n_ports], texts[info.n_ports]);
    struct run *run = run_new(self, &info, &plan->options, plan->places);
    free(info.ports);
    free(texts);
    for (uint32_t i = 0; i < plan->agent_count; i++) {
        const struct agent *agent = plan->agents[i];
        char *addresses[2] = {(char *)agent->addresses[0], (char *)agent->addresses[1]};
        if (agent->target)
            run_set_target(run, i, agent->name, addresses, agent->address_count);
        else
            run_set_agent(run, i, agent->name, agent->id);
    }
    return run;
}

int director_start(director_t *self, const Mp__RunRequest *request, const char *by,
    char run_id[DIRECTOR_RUN_ID_SIZE], struct director_refusal *refusal)
{
    return director_start_cells(self, request, NULL, by, run_id, refusal);
}

int director_start_cells(director_t *self, const Mp__RunRequest *request,
    const struct plan_cells *cells, const char *by, char run_id[DIRECTOR_RUN_ID_SIZE],
    struct director_refusal *refusal)
{
    struct plan plan;
    struct forecast forecast;
    if (self->trouble) {
        refusal->code = MP__REFUSED__CODE__STORAGE;
        snprintf(refusal->text, sizeof refusal->text, "no new runs: %.400s", self->trouble);
        return MESH_E_REFUSED;
    }
    if (active_count(self) >= DIRECTOR_RUNS_MAX) {
        refusal->code = MP__REFUSED__CODE__BUSY;
        snprintf(
            refusal->text, sizeof refusal->text, "%d runs are active already", DIRECTOR_RUNS_MAX);
        return MESH_E_FULL;
    }
    int rc = plan_make(self, request, cells, &plan, refusal);
    if (rc != 0)
        return rc;
    planner_forecast(&plan, &forecast);
    struct notes notes = notes_of(&plan, request);
    struct run *run = run_from_plan(self, request, by, &plan, &notes);
    memcpy(run->expected_s, forecast.phase_expected_s, sizeof run->expected_s);
    zlistx_add_end(self->runs, run);
    snprintf(run_id, DIRECTOR_RUN_ID_SIZE, "%s", run->info->id);
    save_new_run(self, run, &plan);
    notes_free(&notes);
    planner_release(&plan);
    return 0;
}

// ---------------------------------------------------------------------------------------- resumes

static bool places_valid(
    const Mp__RunInfo *info, const struct plan_options *options, const struct cell_place *places)
{
    struct port port;
    char error[256];
    for (size_t i = 0; i < info->n_ports; i++)
        if (port_parse(info->ports[i], &port, error) != 0)
            return false;
    for (uint32_t i = 0; i < info->cells; i++) {
        const struct cell_place *place = &places[i];
        if (place->phase >= options->phase_count || place->from >= info->agents ||
            place->to >= info->agents || place->from == place->to ||
            (place->kind == MP__TEST_KIND__PORT && place->port >= info->n_ports))
            return false;
        if (i > 0 && planner_place_order(place - 1, place) >= 0)
            return false;
    }
    return true;
}

int director_resume(director_t *self, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
    const uint32_t *agent_ids, const struct cell_place *places, const bool *done)
{
    struct plan_options options;
    struct director_refusal refusal;
    if (director_run(self, info->id))
        return MESH_E_EXISTS;
    if (info->cells > DIRECTOR_CELLS_MAX ||
        planner_options(info->request, &options, &refusal) != 0 ||
        !places_valid(info, &options, places))
        return MESH_E_INVALID;
    struct run *run = run_new(self, info, &options, places);
    for (uint32_t i = 0; i < info->agents; i++) {
        if (agents[i]->has_target && agents[i]->target)
            run_set_target(run, i, agents[i]->name, agents[i]->addresses, agents[i]->n_addresses);
        else
            run_set_agent(run, i, agents[i]->name, agent_ids[i]);
    }
    run_restore(run, done);
    zlistx_add_end(self->runs, run);
    unsigned long long number;
    if (sscanf(info->id, "r-%llu", &number) == 1)
        director_set_next_run(self, number + 1);
    return 0;
}

bool director_wants_cells(const Mp__RunInfo *info)
{
    struct plan_options options;
    struct director_refusal refusal;
    if (planner_options(info->request, &options, &refusal) != 0)
        return false;
    bool wants = options.passes > 1;
    for (size_t p = 0; p < options.phase_count; p++)
        wants = wants || planner_rechecks(&options.phases[p]) || options.phases[p].flow_check;
    return wants;
}
