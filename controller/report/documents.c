// The formats for programs: json, jsonl (and its events), csv.

#include <string.h>

#include "clock.h"
#include "json.h"
#include "report_parts.h"

static void cell_names(FILE *out, const char *from, const char *to, const Mp__Cell *cell)
{
    fprintf(out, "\"test\":\"%s\",\"from\":", report_kind_word(cell->kind));
    report_json_string(out, from);
    fputs(",\"to\":", out);
    report_json_string(out, to);
}

// ---------------------------------------------------------------------------------------- json

static void json_begin(struct report *self)
{
    fputs("{\"schema\":\"meshperf.run/1\",\"tool\":\"" MESHPERF_VERSION "\",\n \"run\":",
        self->stream);
    report_json_run(self->stream, self->info);
    fputs(",\n \"agents\":", self->stream);
    report_json_agents(self->stream, self->agents, self->agent_count);
    fputs(",\n \"cells\":[", self->stream);
}

static void json_cell(struct report *self, const Mp__Cell *cell)
{
    fputs(self->cells ? ",\n  {" : "\n  {", self->stream);
    cell_names(
        self->stream, report_agent_name(self, cell->from), report_agent_name(self, cell->to), cell);
    report_json_fields(self->stream, cell);
    fputc('}', self->stream);
}

static void json_end(struct report *self)
{
    fputs("]}\n", self->stream);
}

const struct writer report_writer_json = {"json", json_begin, json_cell, json_end};

// --------------------------------------------------------------------------------------- jsonl

// The agents' list without the line breaks that the document has: an event is one line.
static void agents_on_a_line(FILE *out, Mp__RunAgent *const *agents, size_t count)
{
    fputc('[', out);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? ",{\"name\":" : "{\"name\":", out);
        report_json_string(out, agents[i]->name);
        fputs(",\"address\":", out);
        report_json_text(out, agents[i]->address);
        report_member_labels(out, agents[i]->labels, agents[i]->n_labels);
        fputc('}', out);
    }
    fputc(']', out);
}

void report_event_plan(
    FILE *stream, const Mp__RunInfo *info, Mp__RunAgent *const *agents, size_t count)
{
    fputs("{\"event\":\"plan\",\"tool\":\"" MESHPERF_VERSION "\",\"run\":", stream);
    report_json_run(stream, info);
    fputs(",\"agents\":", stream);
    agents_on_a_line(stream, agents, count);
    fputs("}\n", stream);
}

static void event_open(FILE *stream, const char *name, int64_t wall_ns)
{
    fprintf(stream, "{\"event\":\"%s\",\"time\":", name);
    report_json_time(stream, true, wall_ns);
}

static const char *name_of(Mp__RunAgent *const *agents, size_t count, uint32_t index)
{
    return index < count ? agents[index]->name : "?";
}

void report_event(FILE *stream, const Mp__Event *event, Mp__RunAgent *const *agents, size_t count)
{
    const Mp__Cell *cell = event->cell;
    if (event->kind == MP__EVENT__KIND__AGENT) {
        event_open(stream, "agent", event->wall_ns);
        fputs(",\"agent\":", stream);
        report_json_string(stream, event->agent ? event->agent : "?");
        fputs(",\"text\":", stream);
        report_json_string(stream, event->text ? event->text : "");
        fputs("}\n", stream);
        return;
    }
    if (!cell || (event->kind == MP__EVENT__KIND__INTERVAL && !event->interval))
        return;
    bool result = event->kind != MP__EVENT__KIND__INTERVAL;
    event_open(stream,
        !result                                   ? "interval"
        : event->kind == MP__EVENT__KIND__RECHECK ? "recheck"
                                                  : "result",
        event->wall_ns);
    fputc(',', stream);
    cell_names(stream, name_of(agents, count, cell->from), name_of(agents, count, cell->to), cell);
    if (result) {
        report_json_fields(stream, cell);
    } else {
        fputc(',', stream);
        report_json_interval(stream, event->interval);
    }
    fputs("}\n", stream);
}

void report_event_end(FILE *stream, const Mp__RunInfo *info, int exit_status)
{
    fprintf(stream, "{\"event\":\"end\",\"exit_status\":%d,\"run\":", exit_status);
    report_json_run(stream, info);
    fputs("}\n", stream);
}

static void jsonl_begin(struct report *self)
{
    report_event_plan(self->stream, self->info, self->agents, self->agent_count);
}

static void jsonl_cell(struct report *self, const Mp__Cell *cell)
{
    fputs("{\"event\":\"result\",", self->stream);
    cell_names(
        self->stream, report_agent_name(self, cell->from), report_agent_name(self, cell->to), cell);
    report_json_fields(self->stream, cell);
    fputs("}\n", self->stream);
}

static void jsonl_end(struct report *self)
{
    report_event_end(self->stream, self->info, report_exit_status(self->info, false));
}

const struct writer report_writer_jsonl = {"jsonl", jsonl_begin, jsonl_cell, jsonl_end};

// ----------------------------------------------------------------------------------------- csv

void report_csv_text(FILE *stream, const char *text)
{
    if (!text[strcspn(text, "\",\r\n")] && *text != ' ' && *text != '\t') {
        fputs(text, stream);
        return;
    }
    fputc('"', stream);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', stream);
        fputc(*text, stream);
    }
    fputc('"', stream);
}

static void csv_begin(struct report *self)
{
    size_t count;
    const struct field *fields = report_fields(&count);
    fputs("test,from,to", self->stream);
    for (size_t i = 0; i < count; i++)
        fprintf(self->stream, ",%s", fields[i].path);
    fputs("\r\n", self->stream);
}

static void csv_value(FILE *out, const struct value *value)
{
    char time[CLOCK_ISO_SIZE];
    if (value->type == VALUE_TEXT) {
        report_csv_text(out, value->text);
    } else if (value->type == VALUE_TIME) {
        clock_iso8601(value->wall_ns, time);
        fputs(time, out);
    } else if (value->type != VALUE_ABSENT) {
        report_json_value(out, value);
    }
}

static void csv_cell(struct report *self, const Mp__Cell *cell)
{
    size_t count;
    const struct field *fields = report_fields(&count);
    fprintf(self->stream, "%s,", report_kind_word(cell->kind));
    report_csv_text(self->stream, report_agent_name(self, cell->from));
    fputc(',', self->stream);
    report_csv_text(self->stream, report_agent_name(self, cell->to));
    for (size_t i = 0; i < count; i++) {
        struct value value = report_field(&fields[i], cell);
        fputc(',', self->stream);
        csv_value(self->stream, &value);
    }
    fputs("\r\n", self->stream);
}

const struct writer report_writer_csv = {"csv", csv_begin, csv_cell, NULL};
