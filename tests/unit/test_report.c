// Reports judged three ways: golden files for what people read, JSON parsed back and compared with
// what went in, and random cells that must always give one parsable document.
// MESHPERF_GOLDEN=write in the environment makes the golden files anew; look at the difference.

#include "meshtest.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "report.h"

#define AGENTS_MAX 64

struct fixture {
    Mp__RunInfo info;
    Mp__RunRequest request;
    Mp__TestSpec specs[3], *spec_list[3];
    Mp__RunAgent agents[AGENTS_MAX], *agent_list[AGENTS_MAX];
    Mp__Label labels[AGENTS_MAX], *label_list[AGENTS_MAX][1];
    char names[AGENTS_MAX][32];
    size_t count;
};

static void fixture_fill(struct fixture *self, size_t agents, size_t tests)
{
    static const Mp__TestKind kinds[] = {
        MP__TEST_KIND__TCP, MP__TEST_KIND__UDP, MP__TEST_KIND__LATENCY};
    memset(self, 0, sizeof *self);
    mp__run_request__init(&self->request);
    mp__run_info__init(&self->info);
    for (size_t i = 0; i < tests; i++) {
        mp__test_spec__init(&self->specs[i]);
        self->specs[i].kind = kinds[i];
        self->specs[i].duration_ns = 10 * NS_PER_S;
        self->specs[i].interval_ns = NS_PER_S;
        self->spec_list[i] = &self->specs[i];
    }
    self->request.tests = self->spec_list;
    self->request.n_tests = tests;
    self->request.name = (char *)"nightly";
    self->request.command = (char *)"meshperf run tcp udp latency --name nightly";
    self->info.id = (char *)"r-17";
    self->info.state = MP__RUN_STATE__FINISHED;
    self->info.created_wall_ns = INT64_C(1795428000123000000);
    self->info.has_started_wall_ns = true;
    self->info.started_wall_ns = INT64_C(1795428001000000000);
    self->info.has_elapsed_s = true;
    self->info.elapsed_s = 12.1;
    self->info.has_lower_bound_s = true;
    self->info.lower_bound_s = 11.8;
    self->info.by = (char *)"admin";
    self->info.request = &self->request;
    self->info.agents = (uint32_t)agents;
    self->info.cells = (uint32_t)(agents * (agents ? agents - 1 : 0) * tests);
    self->count = agents;
    for (size_t i = 0; i < agents; i++) {
        mp__run_agent__init(&self->agents[i]);
        mp__label__init(&self->labels[i]);
        snprintf(self->names[i], sizeof self->names[i], agents > 5 ? "host%zu.lab" : "h%zu", i + 1);
        self->agents[i].name = self->names[i];
        self->agents[i].address = (char *)"10.0.0.1";
        self->labels[i].key = (char *)"zone";
        self->labels[i].value = (char *)(i % 2 ? "east" : "west");
        self->label_list[i][0] = &self->labels[i];
        self->agents[i].labels = self->label_list[i];
        self->agents[i].n_labels = 1;
        self->agent_list[i] = &self->agents[i];
    }
}

struct parts {
    Mp__Distribution rtt;
    Mp__Packets packets;
    Mp__Limiter limiter;
    Mp__Interval intervals[2], *interval_list[2];
};

static void cell_tcp(Mp__Cell *cell, struct parts *parts, double scale)
{
    cell->has_bandwidth_bps = true;
    cell->bandwidth_bps = 941.5e6 * scale;
    cell->has_bytes = true;
    cell->bytes = UINT64_MAX - cell->index;
    cell->has_retransmits = true;
    cell->retransmits = cell->index;
    mp__limiter__init(&parts->limiter);
    parts->limiter.verdict = (char *)(cell->index % 3 ? "network" : "receiver_cpu");
    parts->limiter.evidence = (char *)"busy 0.99 of the window";
    cell->limiter = &parts->limiter;
    for (int i = 0; i < 2; i++) {
        mp__interval__init(&parts->intervals[i]);
        parts->intervals[i].start_s = i;
        parts->intervals[i].duration_s = 1;
        parts->intervals[i].has_bandwidth_bps = true;
        parts->intervals[i].bandwidth_bps = cell->bandwidth_bps + i;
        parts->interval_list[i] = &parts->intervals[i];
    }
    cell->intervals = parts->interval_list;
    cell->n_intervals = 2;
}

static void cell_udp(Mp__Cell *cell, struct parts *parts, double scale)
{
    cell->has_bandwidth_bps = cell->has_jitter_s = cell->has_loss_ratio = true;
    cell->bandwidth_bps = 1e6;
    cell->jitter_s = 23.4e-6 * scale;
    cell->loss_ratio = cell->index % 2 ? 0.0102 : 0;
    mp__packets__init(&parts->packets);
    parts->packets.has_sent = parts->packets.has_received = parts->packets.has_lost_network = true;
    parts->packets.sent = 1000;
    parts->packets.received = 990;
    parts->packets.lost_network = 10;
    cell->packets = &parts->packets;
}

static void cell_latency(Mp__Cell *cell, struct parts *parts, double scale)
{
    mp__distribution__init(&parts->rtt);
    parts->rtt.count = 20;
    parts->rtt.has_p50 = parts->rtt.has_max = true;
    parts->rtt.p50 = 0.00123 * scale;
    parts->rtt.max = 0.1;
    cell->rtt = &parts->rtt;
    cell->has_loss_ratio = true;
}

static void cell_fill(
    const struct fixture *self, uint32_t index, Mp__Cell *cell, struct parts *parts)
{
    uint32_t n = (uint32_t)self->count, pairs = n * (n - 1), at = index % pairs;
    mp__cell__init(cell);
    cell->index = index;
    cell->kind = self->specs[index / pairs].kind;
    cell->from = at / (n - 1);
    cell->to = at % (n - 1);
    cell->to += cell->to >= cell->from;
    cell->state = MP__CELL_STATE__OK;
    cell->has_attempts = true;
    cell->attempts = 1;
    cell->has_started_wall_ns = true;
    cell->started_wall_ns = INT64_C(1795428002000000000);
    cell->technique = (char *)"send 256K";
    double scale = 1 / (1.0 + at % 4);
    if (at == 3) {
        cell->state = MP__CELL_STATE__FAILED;
        cell->reason = (char *)"h2 did not answer | within 3 s";
    } else if (cell->kind == MP__TEST_KIND__TCP) {
        cell_tcp(cell, parts, scale);
    } else if (cell->kind == MP__TEST_KIND__UDP) {
        cell_udp(cell, parts, scale);
    } else {
        cell_latency(cell, parts, scale);
    }
}

static char *printed(const struct fixture *fixture, const struct report_options *options)
{
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    report_t *report = report_new(options, stream);
    assert_non_null(report);
    assert_int_equal(report_begin(report, &fixture->info, fixture->agent_list, fixture->count), 0);
    for (uint32_t i = 0; i < fixture->info.cells; i++) {
        Mp__Cell cell;
        struct parts parts;
        cell_fill(fixture, i, &cell, &parts);
        assert_int_equal(report_cell(report, &cell), 0);
    }
    assert_int_equal(report_end(report), 0);
    report_destroy(&report);
    fclose(stream);
    return text;
}

static char *whole_file(const char *path)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size), *in = fopen(path, "rb");
    if (!in)
        fail_msg("%s is missing", path);
    for (int c; (c = fgetc(in)) != EOF;)
        fputc(c, out);
    fclose(in);
    fclose(out);
    return text;
}

static void golden(const char *name, char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", REPORT_GOLDEN, name);
    const char *mode = getenv("MESHPERF_GOLDEN");
    if (mode && strcmp(mode, "write") == 0) {
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        fputs(text, file);
        fclose(file);
    }
    char *expected = whole_file(path);
    assert_string_equal(text, expected);
    free(expected);
    free(text);
}

static void check_golden(
    const char *name, size_t agents, size_t tests, const struct report_options *options)
{
    struct fixture fixture;
    fixture_fill(&fixture, agents, tests);
    fixture.info.ok = fixture.info.cells - (agents > 2 ? (uint32_t)tests : 0);
    fixture.info.done = fixture.info.cells;
    golden(name, printed(&fixture, options));
}

// -------------------------------------------------------------------------------- golden files

static void every_format_prints_three_tests_of_three_agents(void **state)
{
    (void)state;
    size_t count;
    const char *const *formats = report_formats(&count);
    assert_int_equal(count, 6);
    for (size_t i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "three.%s", formats[i]);
        struct report_options options = {.format = formats[i]};
        check_golden(name, 3, 3, &options);
    }
}

static void the_table_has_other_views(void **state)
{
    (void)state;
    check_golden("worst.table", 4, 3, &(struct report_options){.format = "table", .worst = 4});
    check_golden(
        "group.table", 5, 2, &(struct report_options){.format = "table", .group_by = "zone"});
    check_golden("group.md", 5, 1, &(struct report_options){.format = "md", .group_by = "zone"});
    check_golden(
        "metric.table", 3, 3, &(struct report_options){.format = "table", .metric = "retransmits"});
    check_golden("pair.table", 3, 3,
        &(struct report_options){.format = "table", .pair_from = "h1", .pair_to = "h2"});
    check_golden("color.table", 3, 1, &(struct report_options){.format = "table", .color = true});
}

static void a_wide_mesh_is_numbered_or_told_in_statistics(void **state)
{
    (void)state;
    check_golden("thirty.table", 30, 1, &(struct report_options){.format = "table"});
    check_golden(
        "thirty-narrow.table", 30, 1, &(struct report_options){.format = "table", .width = 80});
    check_golden(
        "eight-narrow.table", 8, 1, &(struct report_options){.format = "table", .width = 70});
}

static void one_agent_and_no_cells_are_printed(void **state)
{
    (void)state;
    check_golden("one.table", 1, 1, &(struct report_options){.format = "table"});
    check_golden("none.table", 0, 1, &(struct report_options){.format = "table"});
    check_golden("one.json", 1, 1, &(struct report_options){.format = "json"});
}

// ---------------------------------------------------------------------------------- read back

static json_t *parsed(char *text)
{
    json_error_t error;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    if (!root)
        fail_msg("%s at %d: %.200s", error.text, error.position, text);
    free(text);
    return root;
}

static json_t *at_path(json_t *object, const char *path)
{
    char name[64];
    const char *dot = strchr(path, '.');
    snprintf(name, sizeof name, "%.*s", (int)strcspn(path, "."), path);
    json_t *member = json_object_get(object, name);
    return dot && member ? at_path(member, dot + 1) : member;
}

static void json_has_exactly_what_went_in(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_fill(&fixture, 4, 3);
    json_t *root = parsed(printed(&fixture, &(struct report_options){.format = "json"}));
    assert_string_equal(json_string_value(json_object_get(root, "schema")), "meshperf.run/1");
    json_t *run = json_object_get(root, "run"), *cells = json_object_get(root, "cells");
    assert_string_equal(json_string_value(at_path(run, "id")), "r-17");
    assert_string_equal(json_string_value(at_path(run, "created")), "2026-11-23T10:00:00.123Z");
    assert_string_equal(json_string_value(at_path(run, "mode")), "isolated");
    assert_string_equal(json_string_value(at_path(run, "options.name")), "nightly");
    assert_true(json_is_null(at_path(run, "finished")));
    assert_int_equal(json_array_size(json_object_get(root, "agents")), 4);
    assert_int_equal(json_array_size(cells), 36);
    for (uint32_t i = 0; i < 36; i++) {
        Mp__Cell cell;
        struct parts parts;
        cell_fill(&fixture, i, &cell, &parts);
        json_t *object = json_array_get(cells, i);
        assert_string_equal(json_string_value(at_path(object, "from")), fixture.names[cell.from]);
        assert_string_equal(json_string_value(at_path(object, "to")), fixture.names[cell.to]);
        json_t *bandwidth = at_path(object, "bandwidth_bps");
        assert_int_equal(bandwidth != NULL, cell.has_bandwidth_bps);
        assert_true(!bandwidth || json_real_value(bandwidth) == cell.bandwidth_bps);
        json_t *median = at_path(object, "rtt_s.p50");
        assert_int_equal(median != NULL, cell.rtt != NULL);
        assert_true(!median || json_real_value(median) == cell.rtt->p50);
        assert_int_equal(json_array_size(at_path(object, "intervals")), cell.n_intervals);
        assert_int_equal(json_is_null(at_path(object, "reason")), cell.state == MP__CELL_STATE__OK);
        assert_non_null(at_path(object, "technique"));
        assert_non_null(at_path(object, "attempts"));
    }
    json_decref(root);
}

static void whole_numbers_of_64_bits_are_exact(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_fill(&fixture, 2, 1);
    char *text = printed(&fixture, &(struct report_options){.format = "json"});
    assert_non_null(strstr(text, "\"bytes\":18446744073709551615,"));
    assert_non_null(strstr(text, "\"bytes\":18446744073709551614,"));
    free(text);
}

static void jsonl_is_one_object_a_line_and_closed_by_end(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_fill(&fixture, 3, 2);
    fixture.info.ok = 10;
    char *text = printed(&fixture, &(struct report_options){.format = "jsonl"}), *rest = text;
    int lines = 0;
    for (char *line; (line = strsep(&rest, "\n")) && *line; lines++) {
        json_t *event = parsed(strdup(line));
        const char *name = json_string_value(json_object_get(event, "event"));
        assert_string_equal(name, lines == 0 ? "plan" : lines == 13 ? "end" : "result");
        if (lines == 13)
            assert_true(json_real_value(json_object_get(event, "exit_status")) == 4);
        json_decref(event);
    }
    assert_int_equal(lines, 14);
    free(text);
}

static void events_stand_for_themselves(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_fill(&fixture, 3, 1);
    Mp__Cell cell;
    struct parts parts;
    cell_fill(&fixture, 0, &cell, &parts);
    Mp__Event event = MP__EVENT__INIT;
    event.wall_ns = NS_PER_S;
    event.cell = &cell;
    event.interval = &parts.intervals[1];
    event.agent = (char *)"h\"2";
    event.text = (char *)"lost";
    static const Mp__Event__Kind kinds[] = {
        MP__EVENT__KIND__RESULT, MP__EVENT__KIND__INTERVAL, MP__EVENT__KIND__AGENT};
    static const char *const paths[] = {"state", "start_s", "agent"};
    for (int i = 0; i < 3; i++) {
        char *text = NULL;
        size_t size;
        FILE *stream = open_memstream(&text, &size);
        event.kind = kinds[i];
        report_event(stream, &event, fixture.agent_list, fixture.count);
        fclose(stream);
        assert_ptr_equal(strchr(text, '\n'), text + size - 1);
        json_t *object = parsed(text);
        assert_non_null(json_object_get(object, paths[i]));
        assert_string_equal(
            json_string_value(json_object_get(object, "time")), "1970-01-01T00:00:01.000Z");
        if (i < 2)
            assert_string_equal(json_string_value(json_object_get(object, "from")), "h1");
        json_decref(object);
    }
}

// ------------------------------------------------------------------------------------ hostile

static void hostile_reasons_stay_inside_their_string(void **state)
{
    (void)state;
    static const char *const reasons[] = {"\"quoted\" \\ back", "line\nbreak\r\ttab",
        "\001\033[31m\177", "\xff\xfe\xc0\xaf", "\xed\xa0\x80 surrogate",
        "caf\xc3\xa9 \xf0\x9f\x90\xa2", "cut \xe2\x82", "", "a,b;c", "</script>"};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        size_t count;
        const char *const *formats = report_formats(&count);
        for (size_t f = 0; f < count; f++) {
            struct fixture fixture;
            fixture_fill(&fixture, 2, 1);
            Mp__Cell cell;
            struct parts parts;
            cell_fill(&fixture, 0, &cell, &parts);
            cell.state = MP__CELL_STATE__FAILED;
            cell.reason = (char *)reasons[i];
            char *text = NULL;
            size_t size;
            FILE *stream = open_memstream(&text, &size);
            report_t *report = report_new(&(struct report_options){.format = formats[f]}, stream);
            assert_int_equal(report_begin(report, &fixture.info, fixture.agent_list, 2), 0);
            assert_int_equal(report_cell(report, &cell), 0);
            assert_int_equal(report_end(report), 0);
            report_destroy(&report);
            fclose(stream);
            if (strcmp(formats[f], "csv") != 0)
                assert_null(strpbrk(text, "\001\033\177\r"));
            if (strcmp(formats[f], "json") == 0) {
                json_t *root = parsed(text);
                const char *back = json_string_value(
                    at_path(json_array_get(json_object_get(root, "cells"), 0), "reason"));
                if (i != 3 && i != 4 && i != 6)
                    assert_string_equal(back, reasons[i]);
                json_decref(root);
            } else {
                free(text);
            }
        }
    }
}

// Reads one record of RFC 4180; returns the rest, NULL at the end.
static char *csv_record(char *text, char **fields, size_t room, size_t *count)
{
    *count = 0;
    if (!*text)
        return NULL;
    for (;;) {
        assert_true(*count < room);
        char *to = text;
        fields[(*count)++] = to;
        if (*text == '"') {
            for (text++; *text != '"' || text[1] == '"'; text++) {
                assert_true(*text != '\0');
                text += *text == '"';
                *to++ = *text;
            }
            text++;
        } else {
            while (*text && *text != ',' && *text != '\r')
                *to++ = *text++;
        }
        char end = *text;
        assert_true(end == ',' || (end == '\r' && text[1] == '\n'));
        text += end == ',' ? 1 : 2;
        *to = '\0';
        if (end != ',')
            return text;
    }
}

static void csv_columns_are_the_json_names_and_read_back(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_fill(&fixture, 3, 3);
    char *text = printed(&fixture, &(struct report_options){.format = "csv"}), *rest = text;
    json_t *root = parsed(printed(&fixture, &(struct report_options){.format = "json"}));
    char *names[256], *fields[256];
    size_t columns, count, rows = 0;
    rest = csv_record(rest, names, 256, &columns);
    while (*rest && (rest = csv_record(rest, fields, 256, &count))) {
        json_t *cell = json_array_get(json_object_get(root, "cells"), rows++);
        assert_int_equal(count, columns);
        for (size_t i = 0; i < columns; i++) {
            json_t *value = at_path(cell, names[i]);
            if (!value || json_is_null(value))
                assert_string_equal(fields[i], "");
            else if (json_is_string(value))
                assert_string_equal(fields[i], json_string_value(value));
            else
                assert_true(strtod(fields[i], NULL) == json_number_value(value));
        }
    }
    assert_int_equal(rows, 18);
    json_decref(root);
    free(text);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

// Random presence and bits for all scalar members of a message.
static void scramble(ProtobufCMessage *message, uint64_t *random)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        char *at = (char *)message + field->offset;
        uint64_t bits = next_random(random);
        if (field->label != PROTOBUF_C_LABEL_OPTIONAL || field->type == PROTOBUF_C_TYPE_STRING ||
            field->type == PROTOBUF_C_TYPE_MESSAGE)
            continue;
        *(protobuf_c_boolean *)((char *)message + field->quantifier_offset) =
            (next_random(random) & 1) != 0;
        if (field->type == PROTOBUF_C_TYPE_DOUBLE || field->type == PROTOBUF_C_TYPE_UINT64 ||
            field->type == PROTOBUF_C_TYPE_INT64)
            memcpy(at, &bits, sizeof bits);
        else if (field->type == PROTOBUF_C_TYPE_UINT32)
            memcpy(at, &bits, 4);
        else if (field->type == PROTOBUF_C_TYPE_BOOL)
            *(protobuf_c_boolean *)at = bits & 1;
    }
}

static void random_cells_always_give_a_document(void **state)
{
    (void)state;
    uint64_t random = 88172645463325252u;
    for (int round = 0; round < 300; round++) {
        struct fixture fixture;
        fixture_fill(&fixture, 3, 3);
        size_t count;
        const char *const *formats = report_formats(&count);
        const char *format = round % 2 ? "json" : formats[(round / 2) % (int)count];
        char *text = NULL;
        size_t size;
        FILE *stream = open_memstream(&text, &size);
        report_t *report = report_new(&(struct report_options){.format = format}, stream);
        assert_int_equal(report_begin(report, &fixture.info, fixture.agent_list, 3), 0);
        for (uint32_t i = 0; i < 18; i++) {
            Mp__Cell cell;
            struct parts parts;
            cell_fill(&fixture, i, &cell, &parts);
            scramble(&cell.base, &random);
            cell.started_wall_ns &= INT64_MAX;
            if (cell.rtt)
                scramble(&cell.rtt->base, &random);
            if (cell.packets)
                scramble(&cell.packets->base, &random);
            if (cell.limiter)
                scramble(&cell.limiter->base, &random);
            for (size_t k = 0; k < cell.n_intervals; k++)
                scramble(&cell.intervals[k]->base, &random);
            assert_int_equal(report_cell(report, &cell), 0);
        }
        assert_int_equal(report_end(report), 0);
        report_destroy(&report);
        fclose(stream);
        assert_null(strstr(text, "nan"));
        if (strcmp(format, "json") == 0)
            json_decref(parsed(text));
        else
            free(text);
    }
}

static void a_broken_stream_is_an_error_that_stays(void **state)
{
    (void)state;
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    struct fixture fixture;
    fixture_fill(&fixture, 3, 1);
    report_t *report = report_new(&(struct report_options){.format = "json"}, full);
    int rc = report_begin(report, &fixture.info, fixture.agent_list, 3);
    for (uint32_t i = 0; i < 6 && rc == 0; i++) {
        Mp__Cell cell;
        struct parts parts;
        cell_fill(&fixture, i, &cell, &parts);
        rc = report_cell(report, &cell);
    }
    assert_int_equal(report_end(report), -ENOSPC);
    assert_int_equal(report_end(report), -ENOSPC);
    report_destroy(&report);
    fclose(full);
}

// ------------------------------------------------------------------------------------- others

static void unknown_words_are_refused(void **state)
{
    (void)state;
    assert_null(report_new(&(struct report_options){.format = "xml"}, stdout));
    assert_null(report_new(&(struct report_options){.format = "table", .metric = "speed"}, stdout));
    assert_true(report_metric_known("jitter"));
    assert_false(report_format_known("pair"));
}

static void the_exit_status_follows_the_cells(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_fill(&fixture, 3, 1);
    fixture.info.ok = fixture.info.cells;
    assert_int_equal(report_exit_status(&fixture.info, false), 0);
    fixture.info.ok--;
    assert_int_equal(report_exit_status(&fixture.info, false), 4);
    assert_int_equal(report_exit_status(&fixture.info, true), 0);
    fixture.info.state = MP__RUN_STATE__CANCELLED;
    assert_int_equal(report_exit_status(&fixture.info, true), 5);
}

static char *listed(const char *format, const char *const *texts, size_t rows)
{
    static const struct report_column columns[] = {{"ID", "id"}, {"USES", "#uses"}, {"BY", "by"}};
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    report_list_t *list =
        report_list_new(format, "meshperf.tokens/1", "tokens", columns, 3, stream);
    for (size_t i = 0; i < rows; i++)
        report_list_row(list, texts + i * 3);
    report_list_destroy(&list);
    fclose(stream);
    return text;
}

static void lists_come_in_every_format(void **state)
{
    (void)state;
    static const char *const texts[] = {"0badcafe", "3", "", "x", "12", "al|ice, \"b\""};
    char *text = listed("table", texts, 2);
    assert_string_equal(
        text, "ID        USES  BY\n0badcafe  3     -\nx         12    al|ice, \"b\"\n");
    free(text);
    text = listed("csv", texts, 2);
    assert_string_equal(text, "id,uses,by\r\n0badcafe,3,\r\nx,12,\"al|ice, \"\"b\"\"\"\r\n");
    free(text);
    text = listed("md", texts, 1);
    assert_string_equal(text, "| ID | USES | BY |\n|---|---|---|\n| 0badcafe | 3 |  |\n");
    free(text);
    json_t *root = parsed(listed("json", texts, 2));
    json_t *rows = json_object_get(root, "tokens");
    assert_int_equal(json_array_size(rows), 2);
    assert_true(json_real_value(json_object_get(json_array_get(rows, 1), "uses")) == 12);
    assert_true(json_is_null(json_object_get(json_array_get(rows, 0), "by")));
    json_decref(root);
    root = parsed(listed("json", texts, 0));
    assert_int_equal(json_array_size(json_object_get(root, "tokens")), 0);
    json_decref(root);
}

static void agents_and_plans_are_documents(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size;
    char address[] = "fd00::1", *addresses[] = {address};
    Mp__Capabilities able = MP__CAPABILITIES__INIT;
    able.tcp = able.udp = true;
    able.kernel = (char *)"6.1";
    Mp__AgentInfo agent = MP__AGENT_INFO__INIT, *agents[] = {&agent};
    agent.name = (char *)"a.b";
    agent.state = MP__AGENT_STATE__AGENT_LOST;
    agent.addresses = addresses;
    agent.n_addresses = 1;
    agent.capabilities = &able;
    FILE *stream = open_memstream(&text, &size);
    report_agents_json(stream, agents, 1);
    fclose(stream);
    json_t *root = parsed(text);
    json_t *object = json_array_get(json_object_get(root, "agents"), 0);
    assert_string_equal(json_string_value(at_path(object, "state")), "lost");
    assert_string_equal(json_string_value(at_path(object, "address")), "fd00::1");
    assert_string_equal(json_string_value(at_path(object, "kernel")), "6.1");
    assert_true(json_is_false(at_path(object, "capabilities.sctp")));
    assert_true(json_is_true(at_path(object, "capabilities.udp")));
    json_decref(root);

    Mp__PlanAnswer plan = MP__PLAN_ANSWER__INIT;
    plan.pairs = 6;
    plan.tests = 12;
    plan.bytes_max = 1000;
    plan.expected_s = 1.5;
    stream = open_memstream(&text, &size);
    report_plan(stream, "json", &plan);
    fclose(stream);
    root = parsed(text);
    assert_string_equal(json_string_value(at_path(root, "schema")), "meshperf.plan/1");
    assert_true(json_real_value(at_path(root, "bytes_max")) == 1000);
    assert_true(json_real_value(at_path(root, "expected_s")) == 1.5);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_prints_three_tests_of_three_agents),
        cmocka_unit_test(the_table_has_other_views),
        cmocka_unit_test(a_wide_mesh_is_numbered_or_told_in_statistics),
        cmocka_unit_test(one_agent_and_no_cells_are_printed),
        cmocka_unit_test(json_has_exactly_what_went_in),
        cmocka_unit_test(whole_numbers_of_64_bits_are_exact),
        cmocka_unit_test(jsonl_is_one_object_a_line_and_closed_by_end),
        cmocka_unit_test(events_stand_for_themselves),
        cmocka_unit_test(hostile_reasons_stay_inside_their_string),
        cmocka_unit_test(csv_columns_are_the_json_names_and_read_back),
        cmocka_unit_test(random_cells_always_give_a_document),
        cmocka_unit_test(a_broken_stream_is_an_error_that_stays),
        cmocka_unit_test(unknown_words_are_refused),
        cmocka_unit_test(the_exit_status_follows_the_cells),
        cmocka_unit_test(lists_come_in_every_format),
        cmocka_unit_test(agents_and_plans_are_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
