// Verdicts in every format, to the byte (data/check), and what must hold of the documents: JSON
// that parses, XML that a schema accepts. MESHPERF_GOLDEN=write writes them anew.

#include "meshtest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "policy_bench.h"

#define SECOND INT64_C(1000000000)

static const char RULES[] =
    "defaults: {unlisted: deny, ports: tcp/22}\n"
    "rules:\n"
    "  - {name: web may reach db, from: web, to: db, allow: tcp/5432}\n"
    "  - {name: \"a <rule> & \\\"quotes\\\" | pipes\", from: any except admin, to: admin, deny: "
    "[tcp/22, tcp/23], how: filtered}\n"
    "  - {name: nobody's, from: nobody, to: db, deny: tcp/22}\n"
    "  - {name: printers, from: office, to: printer, deny: tcp/9100, unsupported: fail}\n"
    "  - {name: overridden, from: office, to: admin, allow: tcp/22}\n"
    "  - {name: enough, from: web, to: web, allow: tcp/80, pairs: 50 %}\n"
    "  - {name: fast, from: office, to: db, expect: {latency: {p99: < 2 ms}}}\n";

struct scene {
    policy_t *policy;
    struct policy_checks checks;
    struct policy_sight *sights;
    size_t count;
    struct policy_judged *judged;
    struct policy_counts counts;
    Mp__RunRequest request;
    Mp__RunInfo info;
    struct check_report report;
};

// Everything is as the rules want it, but for what `spoil` changes.
static void see(struct policy_sight *sight, const struct policy_cell *cell, bool allowed)
{
    *sight = (struct policy_sight){.cell = *cell,
        .measured = true,
        .final = true,
        .alive = cell->to < WORLD,
        .at_wall_ns = SECOND,
        .time_s = allowed ? 0.125 : 2,
        .observed = allowed ? POLICY_OPEN : POLICY_FILTERED,
        .arrived = allowed ? POLICY_ARRIVED_YES : POLICY_ARRIVED_NO,
        .listener = POLICY_LISTENER_AGENT};
    if (cell->kind != TEST_PORT) {
        sight->values = calloc(POLICY_VALUES_MAX, sizeof(double));
        sight->values[2] = cell->to == DB1 ? 0.001 : 0.003;
    }
}

static void spoil(struct policy_sight *sight)
{
    const struct policy_cell *cell = &sight->cell;
    if (cell->to == BASTION && cell->from == OFFICE && cell->port == 22) {
        sight->observed = POLICY_OPEN;
        sight->arrived = POLICY_ARRIVED_YES;
        sight->text = strdup("nonce answered by bastion, seen from 10.30.0.4");
    } else if (cell->to == BASTION && cell->from == WEB1 && cell->port == 23) {
        sight->observed = POLICY_REJECTED;
        sight->text = strdup("ICMP 3/13 from 10.0.0.1");
    } else if (cell->to == BASTION && cell->from == DB1) {
        sight->measured = false;
        sight->text = strdup("bastion went away");
    } else if (cell->to == WORLD) {
        sight->measured = false;
        sight->unsupported = true;
        sight->text = strdup("office-1 cannot");
    } else if (cell->port == 80 && cell->from == WEB2) {
        sight->observed = POLICY_FILTERED;
        sight->arrived = POLICY_ARRIVED_NO;
    }
}

static void scene_make(struct scene *scene)
{
    char text[4096];
    memset(scene, 0, sizeof *scene);
    snprintf(text, sizeof text, "%s%s", GROUPS, RULES);
    expanded(&scene->policy, &scene->checks, text);
    struct policy_cell *cells = policy_cells(&scene->checks, &scene->count);
    scene->sights = calloc(scene->count, sizeof *scene->sights);
    for (size_t i = 0; i < scene->count; i++) {
        see(&scene->sights[i], &cells[i], cells[i].port == 5432 || cells[i].port == 80);
        spoil(&scene->sights[i]);
    }
    free(cells);
    scene->judged = policy_judge(&scene->checks, scene->sights, scene->count, &scene->counts);
    mp__run_request__init(&scene->request);
    mp__run_info__init(&scene->info);
    scene->request.policy = (char *)"test";
    scene->info.id = (char *)"r-17";
    scene->info.state = MP__RUN_STATE__FINISHED;
    scene->info.created_wall_ns = INT64_C(1763892000) * SECOND;
    scene->info.request = &scene->request;
    scene->info.has_elapsed_s = true;
    scene->info.elapsed_s = 12.5;
    scene->report = (struct check_report){.checks = &scene->checks,
        .judged = scene->judged,
        .counts = &scene->counts,
        .info = &scene->info,
        .exit_status = 1};
}

static void scene_drop(struct scene *scene)
{
    free(scene->judged);
    policy_sights_release(scene->sights, scene->count);
    forget(&scene->policy, &scene->checks);
}

static char *printed(const struct check_report *report, const char *format)
{
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    assert_int_equal(check_print(report, format, stream), 0);
    fclose(stream);
    return text;
}

static char *file_text(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        fail_msg("%s is missing", path);
    char *text = calloc(1, 1 << 20);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

static void is_golden(const char *text, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", CHECK_GOLDEN, name);
    const char *write = getenv("MESHPERF_GOLDEN");
    if (write && strcmp(write, "write") == 0) {
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(text, file);
        fclose(file);
    }
    char *golden = file_text(path);
    if (strcmp(text, golden) != 0)
        fail_msg("%s differs:\n%s", path, text);
    free(golden);
}

static void each_format_is_as_agreed_to_the_byte(void **state)
{
    (void)state;
    static const char *const formats[] = {"table", "wide", "json", "jsonl", "csv", "md", "junit"};
    struct scene scene;
    scene_make(&scene);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char *text = printed(&scene.report, formats[i]);
        is_golden(text, formats[i]);
        free(text);
    }
    scene_drop(&scene);
}

static void json_counts_agree_with_the_checks_listed(void **state)
{
    (void)state;
    struct scene scene;
    scene_make(&scene);
    char *text = printed(&scene.report, "json");
    json_error_t error;
    json_t *document = json_loads(text, 0, &error), *check;
    if (!document)
        fail_msg("%s", error.text);
    size_t index, held = 0, violated = 0, not_tested = 0, tolerated = 0;
    json_array_foreach(json_object_get(document, "checks"), index, check)
    {
        const char *verdict = json_string_value(json_object_get(check, "verdict"));
        bool forgiven = json_is_true(json_object_get(check, "tolerated"));
        tolerated += forgiven;
        held += strcmp(verdict, "held") == 0;
        violated += strcmp(verdict, "violated") == 0 && !forgiven;
        not_tested += strcmp(verdict, "not_tested") == 0;
        assert_true(json_string_length(json_object_get(check, "evidence")) > 0);
    }
    json_t *counts = json_object_get(document, "counts");
    assert_int_equal(json_integer_value(json_object_get(counts, "held")), held);
    assert_int_equal(json_integer_value(json_object_get(counts, "violated")), violated);
    assert_int_equal(json_integer_value(json_object_get(counts, "not_tested")), not_tested);
    assert_int_equal(json_integer_value(json_object_get(counts, "tolerated")), tolerated);
    assert_int_equal(tolerated, 1);
    assert_int_equal(index, scene.checks.count);
    json_decref(document);
    free(text);
    scene_drop(&scene);
}

// ---------------------------------------------------------------------------------------- junit

static void schema_accepts(const char *text)
{
    char path[] = "/tmp/test-junit-XXXXXX", command[1024];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    snprintf(command, sizeof command,
        "command -v xmllint >/dev/null || exit 77; xmllint --noout --nonet --schema %s/junit.xsd "
        "%s",
        CHECK_GOLDEN, path);
    int status = WEXITSTATUS(system(command));
    unlink(path);
    if (status == 77)
        fail_msg("xmllint is missing (deploy/packages)");
    assert_int_equal(status, 0);
}

static void junit_is_valid_by_the_common_schema(void **state)
{
    (void)state;
    struct scene scene;
    scene_make(&scene);
    char *text = printed(&scene.report, "junit");
    schema_accepts(text);
    free(text);
    scene.report.info = NULL;
    text = printed(&scene.report, "junit");
    schema_accepts(text);
    free(text);
    scene_drop(&scene);
}

static void a_check_that_could_not_be_made_is_one_failed_case(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    check_junit_failure(
        "policy.yaml", "policy.yaml:1:1: unknown key '<x>'\x01 \xef\xbf\xbf", stream);
    fclose(stream);
    schema_accepts(text);
    assert_non_null(strstr(text, "tests=\"1\" failures=\"1\""));
    assert_non_null(strstr(text, "&lt;x&gt;"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_format_is_as_agreed_to_the_byte),
        cmocka_unit_test(json_counts_agree_with_the_checks_listed),
        cmocka_unit_test(junit_is_valid_by_the_common_schema),
        cmocka_unit_test(a_check_that_could_not_be_made_is_one_failed_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
