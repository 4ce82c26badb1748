// The store by its own interface, with files in a private directory. The limit on its pages stands
// for a full disk: it fails in the same place with the same code, for root too.

#include "meshtest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "errors.h"
#include "store.h"
#include "store_parts.h"
#include "wire.h"

struct scene {
    char dir[64];
    char path[96];
    store_t *store;
    unsigned waiting;
    int error;
    char run[DIRECTOR_RUN_ID_SIZE];
    uint32_t total, count, cells_done, full;
    Mp__RunInfo *info;
    Mp__RunAgent *agent;
    Mp__Cell *cell[64];
    Mp__AuditEntry *entry;
    int64_t pages;
    const struct stored_policy *policy; // of the next new run
    uint8_t *text;
    size_t text_size;
};

static void forget(struct scene *scene)
{
    if (scene->info)
        mp__run_info__free_unpacked(scene->info, NULL);
    if (scene->agent)
        mp__run_agent__free_unpacked(scene->agent, NULL);
    if (scene->entry)
        mp__audit_entry__free_unpacked(scene->entry, NULL);
    for (int i = 0; i < 64; i++)
        if (scene->cell[i])
            mp__cell__free_unpacked(scene->cell[i], NULL);
    memset(scene->cell, 0, sizeof scene->cell);
    scene->info = NULL;
    scene->agent = NULL;
    scene->entry = NULL;
}

static void open_store(struct scene *scene)
{
    char error[512];
    scene->store = store_new(scene->path, error);
    if (!scene->store)
        fail_msg("%s", error);
}

static int scene_new(void **state)
{
    struct scene *scene = zmalloc(sizeof *scene);
    strcpy(scene->dir, "/tmp/test-store-XXXXXX");
    assert_non_null(mkdtemp(scene->dir));
    snprintf(scene->path, sizeof scene->path, "%s/meshperf.db", scene->dir);
    open_store(scene);
    *state = scene;
    return 0;
}

static int scene_destroy(void **state)
{
    struct scene *scene = *state;
    store_destroy(&scene->store);
    forget(scene);
    static const char *const endings[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s%s", scene->path, endings[i]);
        unlink(path);
    }
    rmdir(scene->dir);
    free(scene);
    return 0;
}

static void reopen(struct scene *scene)
{
    store_destroy(&scene->store);
    open_store(scene);
}

static void until(struct scene *scene, unsigned waiting)
{
    int64_t deadline_ns = clock_mono_ns() + 20 * NS_PER_S;
    while (scene->waiting > waiting && clock_mono_ns() < deadline_ns) {
        zmq_pollitem_t item = {
            .socket = zsock_resolve(store_socket(scene->store)), .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, 100);
        store_dispatch(scene->store);
    }
    assert_int_equal(scene->waiting, waiting);
}

static void on_done(void *ctx, int error)
{
    struct scene *scene = ctx;
    scene->waiting--;
    scene->error = error;
}

static void on_cell(void *ctx, const char *run, uint32_t index, int error)
{
    struct scene *scene = ctx;
    (void)index;
    snprintf(scene->run, sizeof scene->run, "%s", run);
    scene->cells_done += error == 0;
    scene->full += error == -ENOSPC;
    on_done(ctx, error);
}

static void on_run(
    void *ctx, int error, const Mp__RunInfo *info, Mp__RunAgent *const *agents, size_t count)
{
    struct scene *scene = ctx;
    forget(scene);
    if (info)
        scene->info = (Mp__RunInfo *)wire_copy(&info->base);
    if (count > 0)
        scene->agent = (Mp__RunAgent *)wire_copy(&agents[count - 1]->base);
    scene->count = (uint32_t)count;
    on_done(ctx, error);
}

static void on_runs(void *ctx, int error, Mp__RunInfo *const *runs, size_t count, uint32_t total)
{
    struct scene *scene = ctx;
    forget(scene);
    scene->total = total;
    if (count > 0)
        scene->info = (Mp__RunInfo *)wire_copy(&runs[0]->base);
    scene->count = (uint32_t)count;
    on_done(ctx, error);
}

static void on_cells(
    void *ctx, int error, const char *run, Mp__Cell *const *cells, size_t count, uint32_t total)
{
    struct scene *scene = ctx;
    forget(scene);
    snprintf(scene->run, sizeof scene->run, "%s", run);
    scene->total = total;
    scene->count = (uint32_t)count;
    for (size_t i = 0; i < count && i < 64; i++)
        scene->cell[i] = (Mp__Cell *)wire_copy(&cells[i]->base);
    on_done(ctx, error);
}

static void on_audit(
    void *ctx, int error, Mp__AuditEntry *const *entries, size_t count, uint32_t total)
{
    struct scene *scene = ctx;
    forget(scene);
    scene->total = total;
    scene->count = (uint32_t)count;
    if (count > 0)
        scene->entry = (Mp__AuditEntry *)wire_copy(&entries[0]->base);
    on_done(ctx, error);
}

static void on_policy(void *ctx, int error, const void *bytes, size_t size, uint32_t total)
{
    struct scene *scene = ctx;
    scene->total = total;
    for (size_t i = 0; error == 0 && i < size; i++)
        scene->text[scene->text_size++] = ((const uint8_t *)bytes)[i];
    on_done(ctx, error);
}

static void get_run(struct scene *scene, const char *run)
{
    scene->waiting++;
    store_get_run(scene->store, run, 0, on_run, scene);
    until(scene, 0);
}

static void get_cells(struct scene *scene, const char *run, uint32_t offset, uint32_t limit)
{
    scene->waiting++;
    store_get_cells(scene->store, run, offset, limit, on_cells, scene);
    until(scene, 0);
}

// ------------------------------------------------------------------------------- things to store

// A mesh of `agents` hosts, every one to every other, one test.
static void put_mesh(struct scene *scene, const char *id, uint32_t agents, Mp__RunState state)
{
    Mp__TestSpec spec = MP__TEST_SPEC__INIT, *specs[1] = {&spec};
    spec.kind = MP__TEST_KIND__UDP;
    spec.duration_ns = NS_PER_S;
    spec.interval_ns = NS_PER_S;
    Mp__RunRequest request = MP__RUN_REQUEST__INIT;
    request.tests = specs;
    request.n_tests = 1;
    request.name = (char *)"nightly \"mesh\"";
    Mp__RunInfo info = MP__RUN_INFO__INIT;
    info.id = (char *)id;
    info.state = state;
    info.created_wall_ns = 1234567890123456789;
    info.request = &request;
    info.agents = agents;
    info.cells = agents * (agents - 1);
    Mp__RunAgent *list = zmalloc(agents * sizeof *list),
                 **pointers = zmalloc(agents * sizeof *pointers);
    char(*names)[16] = zmalloc(agents * sizeof *names);
    uint32_t *ids = zmalloc(agents * sizeof *ids);
    struct cell_place *places = zmalloc(info.cells * sizeof *places);
    for (uint32_t i = 0, at = 0; i < agents; i++) {
        mp__run_agent__init(&list[i]);
        snprintf(names[i], sizeof names[i], "h%u.lab", i);
        list[i].name = names[i];
        list[i].address = (char *)"fd00::1";
        pointers[i] = &list[i];
        ids[i] = i + 10;
        for (uint32_t j = 0; j < agents; j++)
            if (j != i)
                places[at++] = (struct cell_place){
                    .kind = MP__TEST_KIND__UDP, .phase = 1, .port = 513, .from = i, .to = j};
    }
    scene->waiting++;
    store_put_new_run(scene->store, &info, pointers, ids, places, scene->policy, on_done, scene);
    free(places);
    free(ids);
    free(names);
    free(pointers);
    free(list);
}

static void put_cell(struct scene *scene, const char *run, uint32_t agents, uint32_t index)
{
    char reason[64];
    snprintf(reason, sizeof reason, "reason of %u", index);
    Mp__Cell cell = MP__CELL__INIT;
    cell.index = index;
    cell.kind = MP__TEST_KIND__UDP;
    cell.from = index / (agents - 1);
    cell.to = index % (agents - 1);
    cell.to += cell.to >= cell.from;
    cell.state = MP__CELL_STATE__FAILED;
    cell.reason = reason;
    cell.has_bandwidth_bps = true;
    cell.bandwidth_bps = 1e6 + index / 3.0;
    cell.has_bytes = true;
    cell.bytes = UINT64_MAX - index;
    scene->waiting++;
    store_put_cell(scene->store, run, &cell, on_cell, scene);
}

static void stored_mesh(struct scene *scene, const char *id, uint32_t agents, Mp__RunState state)
{
    put_mesh(scene, id, agents, state);
    until(scene, 0);
    assert_int_equal(scene->error, 0);
}

// ---------------------------------------------------------------------------------------- runs

static void a_run_and_its_cells_are_there_after_reopening(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    stored_mesh(scene, "r-17", 4, MP__RUN_STATE__FINISHED);
    for (uint32_t i = 0; i < 12; i += 2)
        put_cell(scene, "r-17", 4, i);
    until(scene, 0);
    assert_int_equal(scene->cells_done, 6);
    reopen(scene);
    assert_int_equal(store_next_run_number(scene->store), 18);
    store_start(scene->store);
    get_run(scene, "last");
    assert_int_equal(scene->error, 0);
    assert_string_equal(scene->info->id, "r-17");
    assert_string_equal(scene->info->request->name, "nightly \"mesh\"");
    assert_true(scene->info->created_wall_ns == 1234567890123456789);
    assert_int_equal(scene->count, 4);
    assert_string_equal(scene->agent->name, "h3.lab");
    get_cells(scene, "last", 0, 1000);
    assert_string_equal(scene->run, "r-17");
    assert_int_equal(scene->total, 12);
    assert_int_equal(scene->count, 12);
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(scene->cell[i]->index, i);
        assert_int_equal(scene->cell[i]->from, i / 3);
        assert_int_equal(
            scene->cell[i]->state, i % 2 ? MP__CELL_STATE__PENDING : MP__CELL_STATE__FAILED);
    }
    assert_true(scene->cell[4]->bandwidth_bps == 1e6 + 4 / 3.0);
    assert_true(scene->cell[4]->bytes == UINT64_MAX - 4);
    assert_string_equal(scene->cell[4]->reason, "reason of 4");
}

static void a_second_copy_of_a_cell_changes_nothing(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    stored_mesh(scene, "r-1", 3, MP__RUN_STATE__RUNNING);
    put_cell(scene, "r-1", 3, 2);
    Mp__Cell other = MP__CELL__INIT;
    other.index = 2;
    other.kind = MP__TEST_KIND__UDP;
    other.from = 1;
    other.state = MP__CELL_STATE__OK;
    scene->waiting++;
    store_put_cell(scene->store, "r-1", &other, on_cell, scene);
    until(scene, 0);
    assert_int_equal(scene->cells_done, 2);
    get_cells(scene, "r-1", 2, 1);
    assert_int_equal(scene->cell[0]->state, MP__CELL_STATE__FAILED);
}

static void put_pass(struct scene *scene, uint32_t passes, Mp__CellState state)
{
    Mp__Cell cell = MP__CELL__INIT;
    Mp__Pass pass = MP__PASS__INIT, *list[2] = {&pass, &pass};
    pass.number = 1;
    pass.state = MP__CELL_STATE__OK;
    cell.index = 2;
    cell.kind = MP__TEST_KIND__UDP;
    cell.from = 1;
    cell.state = state;
    cell.n_passes = passes;
    cell.passes = list;
    cell.recheck = passes > 2 ? &pass : NULL;
    cell.n_passes = passes > 2 ? 2 : passes;
    scene->waiting++;
    store_put_cell(scene->store, "r-1", &cell, on_cell, scene);
    until(scene, 0);
}

static void a_cell_grows_by_its_passes_and_by_what_it_reads_alone(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    stored_mesh(scene, "r-1", 3, MP__RUN_STATE__RUNNING);
    put_pass(scene, 1, MP__CELL_STATE__PENDING);
    get_cells(scene, "r-1", 2, 1);
    assert_int_equal(scene->cell[0]->n_passes, 1);
    put_pass(scene, 2, MP__CELL_STATE__OK);
    put_pass(scene, 1, MP__CELL_STATE__PENDING); // late
    get_cells(scene, "r-1", 2, 1);
    assert_int_equal(scene->cell[0]->state, MP__CELL_STATE__OK);
    assert_int_equal(scene->cell[0]->n_passes, 2);
    put_pass(scene, 3, MP__CELL_STATE__OK);
    get_cells(scene, "r-1", 2, 1);
    assert_non_null(scene->cell[0]->recheck);
}

static void unknown_runs_are_not_found(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    static const char *const names[] = {"last", "r-1", "r-999999999999999", "", "r-1'--"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        get_run(scene, names[i]);
        assert_int_equal(scene->error, MESH_E_NOT_FOUND);
        get_cells(scene, names[i], 0, 10);
        assert_int_equal(scene->error, MESH_E_NOT_FOUND);
    }
}

static void runs_are_listed_newest_first_in_pages(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    for (int i = 1; i <= 12; i++) {
        char id[16];
        snprintf(id, sizeof id, "r-%d", i);
        stored_mesh(scene, id, 2, MP__RUN_STATE__FINISHED);
    }
    scene->waiting++;
    store_get_runs(scene->store, 0, 5, on_runs, scene);
    until(scene, 0);
    assert_int_equal(scene->total, 12);
    assert_int_equal(scene->count, 5);
    assert_string_equal(scene->info->id, "r-12");
    scene->waiting++;
    store_get_runs(scene->store, 10, UINT32_MAX, on_runs, scene);
    until(scene, 0);
    assert_int_equal(scene->count, 2);
    assert_string_equal(scene->info->id, "r-2");
}

static void a_page_ends_before_it_is_too_large_and_the_next_goes_on(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    stored_mesh(scene, "r-1", 150, MP__RUN_STATE__RUNNING);
    char long_reason[1001];
    memset(long_reason, 'x', 1000);
    long_reason[1000] = '\0';
    for (uint32_t i = 0; i < 600; i++) {
        Mp__Cell cell = MP__CELL__INIT;
        cell.index = i;
        cell.kind = MP__TEST_KIND__UDP;
        cell.from = i / 149;
        cell.to = i % 149;
        cell.to += cell.to >= cell.from;
        cell.state = MP__CELL_STATE__FAILED;
        cell.reason = long_reason;
        scene->waiting++;
        store_put_cell(scene->store, "r-1", &cell, on_cell, scene);
    }
    until(scene, 0);
    uint32_t at = 0, pages = 0;
    while (at < 22350) {
        get_cells(scene, "r-1", at, UINT32_MAX);
        assert_int_equal(scene->error, 0);
        assert_true(scene->count > 0);
        assert_int_equal(scene->cell[0]->index, at);
        assert_int_equal(scene->cell[0]->from, at / 149);
        at += scene->count;
        pages++;
    }
    assert_int_equal(at, 22350);
    assert_in_range(pages, 6, 40);
    get_cells(scene, "r-1", 22350, 10);
    assert_int_equal(scene->error, 0);
    assert_int_equal(scene->count, 0);
}

static void resume_check(void *ctx, const Mp__RunInfo *info, Mp__RunAgent *const *agents,
    const uint32_t *agent_ids, const struct cell_place *places, const bool *done)
{
    struct scene *scene = ctx;
    scene->count++;
    snprintf(scene->run, sizeof scene->run, "%s", info->id);
    assert_int_equal(info->agents, 3);
    assert_string_equal(agents[2]->name, "h2.lab");
    assert_int_equal(agent_ids[2], 12);
    assert_int_equal(places[5].from, 2);
    assert_int_equal(places[5].to, 1);
    assert_int_equal(places[5].phase, 1);
    assert_int_equal(places[5].port, 513);
    assert_int_equal(places[5].listener, 0);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(done[i], i == 1 || i == 4);
}

static void an_unfinished_run_is_handed_over_after_reopening(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    stored_mesh(scene, "r-1", 3, MP__RUN_STATE__FINISHED);
    stored_mesh(scene, "r-2", 3, MP__RUN_STATE__RUNNING);
    put_cell(scene, "r-2", 3, 1);
    put_cell(scene, "r-2", 3, 4);
    until(scene, 0);
    reopen(scene);
    scene->count = 0;
    assert_int_equal(store_load_unfinished(scene->store, resume_check, scene), 0);
    assert_int_equal(scene->count, 1);
    assert_string_equal(scene->run, "r-2");
    store_start(scene->store);
    get_run(scene, "r-2");
    scene->info->state = MP__RUN_STATE__CANCELLED;
    store_put_run(scene->store, scene->info);
    reopen(scene);
    scene->count = 0;
    assert_int_equal(store_load_unfinished(scene->store, resume_check, scene), 0);
    assert_int_equal(scene->count, 0);
}

// What a database of an earlier version has: ten bytes a place, without a port.
static void check_short_places(struct db *db)
{
    const uint8_t places[2][10] = {{MP__TEST_KIND__LATENCY, 0, 0, 0, 0, 0, 1},
        {MP__TEST_KIND__LATENCY, 0, 1, 0, 0, 0, 0}};
    int rc = db_run(db, SQL_RUN_PLACES_ADD, "iib", INT64_C(1), INT64_C(0), places, sizeof places);
    struct stored_run run = {.number = 1, .agents = 2, .cells = 2};
    struct cell_place found[2];
    if (rc == 0)
        rc = stored_places(db, &run, 0, 2, found);
    assert_int_equal(rc, 0);
    assert_int_equal(found[0].kind, MP__TEST_KIND__LATENCY);
    assert_int_equal(found[0].to, 1);
    assert_int_equal(found[1].from, 1);
    assert_int_equal(found[1].to, 0);
    assert_int_equal(found[1].port, 0);
}

static void places_of_earlier_versions_are_still_read(void **state)
{
    struct scene *scene = *state;
    check_short_places(&scene->store->db);
}

// ---------------------------------------------------------------------------------- identities

static void check_agent(void *ctx, const struct stored_agent *agent)
{
    struct scene *scene = ctx;
    scene->count++;
    assert_int_equal(agent->id, 7);
    assert_string_equal(agent->name, "db.eu-1");
    assert_int_equal(agent->key[31], 9);
    assert_string_equal(agent->token, "0badcafe");
    assert_true(agent->draining);
    assert_int_equal(agent->label_count[0], 0);
    assert_int_equal(agent->label_count[1], 1);
    assert_int_equal(agent->label_count[2], 2);
    assert_string_equal(agent->labels[2][1].key, "rack");
    assert_string_equal(agent->labels[2][1].value, "a:1");
    assert_int_equal(agent->hello_size, 5);
    assert_memory_equal(agent->hello, "he\0lo", 5);
}

static void an_agent_is_kept_changed_and_dropped(void **state)
{
    struct scene *scene = *state;
    uint8_t key[32] = {[31] = 9};
    struct label token[] = {{"zone", "x"}}, own[] = {{"tier", "gold"}, {"rack", "a:1"}};
    struct stored_agent agent = {
        .id = 7, .name = "db", .key = key, .token = "0badcafe", .enrolled_wall_ns = 5};
    store_start(scene->store);
    store_put_agent(scene->store, &agent, NULL, NULL);
    agent.name = "db.eu-1";
    agent.draining = true;
    agent.labels[1] = token;
    agent.label_count[1] = 1;
    agent.labels[2] = own;
    agent.label_count[2] = 2;
    agent.hello = (const uint8_t *)"he\0lo";
    agent.hello_size = 5;
    store_put_agent(scene->store, &agent, NULL, NULL);
    reopen(scene);
    scene->count = 0;
    assert_int_equal(store_load_agents(scene->store, check_agent, scene), 0);
    assert_int_equal(scene->count, 1);
    store_start(scene->store);
    scene->waiting++;
    store_drop_agent(scene->store, 7, on_done, scene);
    until(scene, 0);
    reopen(scene);
    scene->count = 0;
    assert_int_equal(store_load_agents(scene->store, check_agent, scene), 0);
    assert_int_equal(scene->count, 0);
}

static void check_token(void *ctx, const struct stored_token *token)
{
    struct scene *scene = ctx;
    scene->count++;
    assert_string_equal(token->id, "00c0ffee");
    assert_int_equal(token->uses, 4000000000u);
    assert_int_equal(token->used, 3);
    assert_true(token->revoked);
    assert_true(token->expires_wall_ns == INT64_MAX);
    assert_string_equal(token->by, "alice");
    assert_int_equal(token->label_count, 1);
    assert_string_equal(token->labels[0].value, "x");
}

static void check_operator(void *ctx, const struct stored_operator *operator_)
{
    struct scene *scene = ctx;
    scene->count++;
    assert_string_equal(operator_->name, "ci");
    assert_int_equal(operator_->role, MP__ROLE__VIEWER);
    assert_int_equal(operator_->public_key[0], 1);
}

static void tokens_and_operators_are_kept(void **state)
{
    struct scene *scene = *state;
    uint8_t key[32] = {1};
    struct label labels[] = {{"zone", "x"}};
    struct stored_token token = {.id = "00c0ffee",
        .public_key = key,
        .expires_wall_ns = INT64_MAX,
        .uses = 4000000000u,
        .used = 3,
        .revoked = true,
        .by = "alice",
        .labels = labels,
        .label_count = 1};
    struct stored_operator ci = {.name = "ci", .role = MP__ROLE__VIEWER, .public_key = key};
    struct stored_operator gone = {.name = "gone", .role = MP__ROLE__ADMIN, .public_key = key};
    store_start(scene->store);
    store_put_token(scene->store, &token, NULL, NULL);
    store_put_operator(scene->store, &ci, NULL, NULL);
    store_put_operator(scene->store, &gone, NULL, NULL);
    store_drop_operator(scene->store, "gone", NULL, NULL);
    reopen(scene);
    scene->count = 0;
    assert_int_equal(store_load_tokens(scene->store, check_token, scene), 0);
    assert_int_equal(store_load_operators(scene->store, check_operator, scene), 0);
    assert_int_equal(scene->count, 2);
}

static void every_start_has_a_new_epoch(void **state)
{
    struct scene *scene = *state;
    uint64_t epoch = 0;
    for (uint64_t i = 1; i <= 3; i++) {
        assert_int_equal(store_next_epoch(scene->store, &epoch), 0);
        assert_int_equal(epoch, i);
        reopen(scene);
    }
}

static void the_audit_log_is_read_newest_first(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    for (int i = 0; i < 700; i++) {
        char detail[32];
        snprintf(detail, sizeof detail, "number %d", i);
        Mp__AuditEntry entry = MP__AUDIT_ENTRY__INIT;
        entry.wall_ns = i;
        entry.who = (char *)"alice";
        entry.what = (char *)"run start";
        entry.detail = detail;
        store_audit(scene->store, &entry);
    }
    scene->waiting++;
    store_get_audit(scene->store, 1, 10, on_audit, scene);
    until(scene, 0);
    assert_int_equal(scene->total, 700);
    assert_int_equal(scene->count, 10);
    assert_string_equal(scene->entry->detail, "number 698");
    assert_null(scene->entry->object);
}

// ------------------------------------------------------------------------------------- trouble

static void limit_pages(struct scene *scene, int64_t pages)
{
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA max_page_count = %lld", (long long)pages);
    assert_int_equal(sqlite3_exec(scene->store->db.handle, sql, NULL, NULL, NULL), SQLITE_OK);
}

static void a_full_disk_is_told_and_nothing_is_lost(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    stored_mesh(scene, "r-1", 60, MP__RUN_STATE__RUNNING);
    get_run(scene, "r-1");
    Mp__RunInfo *info = (Mp__RunInfo *)wire_copy(&scene->info->base);
    limit_pages(scene, 1);
    for (uint32_t i = 0; i < 3540; i++)
        put_cell(scene, "r-1", 60, i);
    until(scene, 0);
    assert_true(scene->full > 0);
    assert_int_equal(scene->full + scene->cells_done, 3540);
    // Reading goes on, and a state that nobody waits for is written later.
    get_run(scene, "last");
    assert_int_equal(scene->error, 0);
    put_mesh(scene, "r-2", 150, MP__RUN_STATE__QUEUED);
    until(scene, 0);
    assert_int_equal(scene->error, -ENOSPC);
    assert_non_null(store_trouble(scene->store));
    assert_non_null(strstr(store_trouble(scene->store), "No space left"));
    char filler[1001];
    memset(filler, 'x', 1000);
    filler[1000] = '\0';
    free(info->request->name);
    info->request->name = strdup(filler);
    info->state = MP__RUN_STATE__CANCELLED;
    store_put_run(scene->store, info);
    limit_pages(scene, 1000000);
    int64_t deadline_ns = clock_mono_ns() + 20 * NS_PER_S;
    while (store_trouble(scene->store) && clock_mono_ns() < deadline_ns) {
        zmq_pollitem_t item = {
            .socket = zsock_resolve(store_socket(scene->store)), .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, 100);
        store_dispatch(scene->store);
    }
    assert_null(store_trouble(scene->store));
    get_run(scene, "r-1");
    assert_int_equal(scene->info->state, MP__RUN_STATE__CANCELLED);
    get_run(scene, "r-2");
    assert_int_equal(scene->error, MESH_E_NOT_FOUND);
    put_cell(scene, "r-1", 60, 3539);
    until(scene, 0);
    assert_int_equal(scene->error, 0);
    mp__run_info__free_unpacked(info, NULL);
}

static void one_bad_row_does_not_harm_its_neighbours(void **state)
{
    struct scene *scene = *state;
    uint8_t key[32] = {1}, other[32] = {2};
    struct stored_agent first = {.id = 1, .name = "same", .key = key};
    struct stored_agent second = {.id = 2, .name = "same", .key = other};
    int errors[3];
    scene->waiting = 3;
    store_put_agent(scene->store, &first, on_done, scene);
    store_put_agent(scene->store, &second, on_done, scene);
    put_mesh(scene, "r-1", 2, MP__RUN_STATE__QUEUED);
    scene->waiting = 3;
    store_start(scene->store);
    for (unsigned i = 0; i < 3; i++) {
        struct job *job;
        assert_int_equal(zsock_recv(scene->store->front, "p", &job), 0);
        errors[i] = job->error;
        job_free(&job);
    }
    assert_int_equal(errors[0], 0);
    assert_int_equal(errors[1], MESH_E_EXISTS);
    assert_int_equal(errors[2], 0);
    assert_null(store_trouble(scene->store));
}

static void cells_of_a_run_that_was_refused_are_dropped(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    put_cell(scene, "r-5", 3, 0);
    until(scene, 0);
    assert_int_equal(scene->error, 0);
    get_run(scene, "r-5");
    assert_int_equal(scene->error, MESH_E_NOT_FOUND);
}

static void a_spoilt_row_is_a_failed_cell_among_good_ones(void **state)
{
    struct scene *scene = *state;
    store_start(scene->store);
    stored_mesh(scene, "r-1", 3, MP__RUN_STATE__FINISHED);
    put_cell(scene, "r-1", 3, 0);
    put_cell(scene, "r-1", 3, 1);
    until(scene, 0);
    assert_int_equal(sqlite3_exec(scene->store->db.handle,
                         "UPDATE cell SET record = x'ffffff' WHERE idx = 0", NULL, NULL, NULL),
        SQLITE_OK);
    get_cells(scene, "r-1", 0, 2);
    assert_int_equal(scene->error, 0);
    assert_string_equal(scene->cell[0]->reason, "the stored result cannot be read");
    assert_string_equal(scene->cell[1]->reason, "reason of 1");
}

// ------------------------------------------------------------------------------------ versions

static void raw_database(struct scene *scene, const char *sql, int version)
{
    sqlite3 *handle;
    store_destroy(&scene->store);
    unlink(scene->path);
    assert_int_equal(sqlite3_open(scene->path, &handle), SQLITE_OK);
    assert_int_equal(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK);
    char text[64];
    snprintf(text, sizeof text, "PRAGMA user_version = %d", version);
    assert_int_equal(sqlite3_exec(handle, text, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(handle);
}

static int first_column(void *ctx, int columns, char **texts, char **names)
{
    (void)columns;
    (void)names;
    snprintf(ctx, 64, "%s", texts[0] ? texts[0] : "");
    return 0;
}

static void a_file_of_version_1_keeps_its_rows_and_becomes_the_newest(void **state)
{
    struct scene *scene = *state;
    size_t count;
    const char *const *steps = db_migrations(&count);
    assert_in_range(count, 2, 100);
    char *sql = zsys_sprintf("%s UPDATE meta SET value = 41 WHERE key = 'epoch';", steps[0]);
    raw_database(scene, sql, 1);
    free(sql);
    open_store(scene);
    uint64_t epoch;
    assert_int_equal(store_next_epoch(scene->store, &epoch), 0);
    assert_int_equal(epoch, 42);
    char text[64] = "";
    sqlite3 *handle = scene->store->db.handle;
    sqlite3_exec(handle, "PRAGMA user_version", first_column, text, NULL);
    assert_int_equal(atoi(text), (int)count);
    sqlite3_exec(handle, "PRAGMA journal_mode", first_column, text, NULL);
    assert_string_equal(text, "wal");
    store_start(scene->store);
    stored_mesh(scene, "r-1", 3, MP__RUN_STATE__RUNNING);
    put_cell(scene, "r-1", 3, 3);
    until(scene, 0);
    sqlite3_exec(handle,
        "SELECT \"from\" || '>' || \"to\" || ' ' || test || ' ' || state FROM result", first_column,
        text, NULL);
    assert_string_equal(text, "h1.lab>h2.lab udp failed");
}

static void a_newer_file_and_a_strange_file_are_refused_with_words(void **state)
{
    struct scene *scene = *state;
    char error[512] = "";
    raw_database(scene, "CREATE TABLE x (y)", 1000);
    assert_null(store_new(scene->path, error));
    assert_non_null(strstr(error, "newer meshperf"));
    FILE *file = fopen(scene->path, "w");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++)
        fputs("no database ", file);
    fclose(file);
    assert_null(store_new(scene->path, error));
    assert_non_null(strstr(error, "meshperf.db"));
    assert_null(store_new("/no/such/directory/meshperf.db", error));
    assert_true(strlen(error) > 20);
}

static void a_policy_is_kept_with_its_run_and_read_in_parts(void **state)
{
    struct scene *scene = *state;
    const size_t size = WIRE_PART_BYTES + 1000;
    uint8_t *text = zmalloc(size);
    for (size_t i = 0; i < size; i++)
        text[i] = (uint8_t)(i * 7 + i / 251); // any bytes, zeros too
    struct stored_policy policy = {text, size};
    scene->policy = &policy;
    scene->text = zmalloc(2 * size);
    store_start(scene->store);
    put_mesh(scene, "r-1", 3, MP__RUN_STATE__RUNNING);
    scene->policy = NULL;
    put_mesh(scene, "r-2", 3, MP__RUN_STATE__RUNNING);
    while (scene->text_size < size) {
        size_t before = scene->text_size;
        scene->waiting++;
        store_get_policy(scene->store, "r-1", (uint32_t)before, on_policy, scene);
        until(scene, 0);
        assert_int_equal(scene->error, 0);
        assert_int_equal(scene->total, size);
        assert_true(scene->text_size > before);
    }
    assert_memory_equal(scene->text, text, size);
    static const char *const others[] = {"r-2", "r-3"};
    for (size_t i = 0; i < 2; i++) {
        scene->waiting++;
        store_get_policy(scene->store, others[i], 0, on_policy, scene);
        until(scene, 0);
        assert_int_equal(scene->error, MESH_E_NOT_FOUND);
    }
    free(scene->text);
    free(text);
}

int main(void)
{
#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, scene_new, scene_destroy)
    const struct CMUnitTest tests[] = {
        STORE_TEST(a_run_and_its_cells_are_there_after_reopening),
        STORE_TEST(a_second_copy_of_a_cell_changes_nothing),
        STORE_TEST(a_cell_grows_by_its_passes_and_by_what_it_reads_alone),
        STORE_TEST(unknown_runs_are_not_found),
        STORE_TEST(runs_are_listed_newest_first_in_pages),
        STORE_TEST(a_page_ends_before_it_is_too_large_and_the_next_goes_on),
        STORE_TEST(an_unfinished_run_is_handed_over_after_reopening),
        STORE_TEST(places_of_earlier_versions_are_still_read),
        STORE_TEST(an_agent_is_kept_changed_and_dropped),
        STORE_TEST(tokens_and_operators_are_kept),
        STORE_TEST(every_start_has_a_new_epoch),
        STORE_TEST(the_audit_log_is_read_newest_first),
        STORE_TEST(a_full_disk_is_told_and_nothing_is_lost),
        STORE_TEST(one_bad_row_does_not_harm_its_neighbours),
        STORE_TEST(cells_of_a_run_that_was_refused_are_dropped),
        STORE_TEST(a_spoilt_row_is_a_failed_cell_among_good_ones),
        STORE_TEST(a_file_of_version_1_keeps_its_rows_and_becomes_the_newest),
        STORE_TEST(a_newer_file_and_a_strange_file_are_refused_with_words),
        STORE_TEST(a_policy_is_kept_with_its_run_and_read_in_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
