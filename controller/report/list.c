// Plain lists. Rows are kept until the end, because a column's width is known only then.

#include <czmq.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "report_parts.h"

struct report_list {
    char *format, *schema, *array;
    const struct report_column *columns;
    size_t column_count;
    FILE *stream;
    char **texts; // rows * column_count
    size_t rows, room;
};

static char *copy_of(const char *text)
{
    char *copy = strdup(text ? text : "");
    if (!copy)
        abort();
    return copy;
}

report_list_t *report_list_new(const char *format, const char *schema, const char *array,
    const struct report_column *columns, size_t columns_count, FILE *stream)
{
    report_list_t *self = zmalloc(sizeof *self);
    self->format = copy_of(format);
    self->schema = copy_of(schema);
    self->array = copy_of(array);
    self->columns = columns;
    self->column_count = columns_count;
    self->stream = stream;
    return self;
}

void report_list_row(report_list_t *self, const char *const *texts)
{
    if (self->rows == self->room) {
        self->room = self->room ? self->room * 2 : 32;
        self->texts = realloc(self->texts, self->room * self->column_count * sizeof(char *));
        if (!self->texts)
            abort();
    }
    for (size_t i = 0; i < self->column_count; i++)
        self->texts[self->rows * self->column_count + i] = copy_of(texts[i]);
    self->rows++;
}

static const char *text_at(const report_list_t *self, size_t row, size_t column)
{
    return self->texts[row * self->column_count + column];
}

static const char *json_name(const struct report_column *column)
{
    return *column->json == '#' ? column->json + 1 : column->json;
}

static void print_table(const report_list_t *self)
{
    size_t *widths = zmalloc((self->column_count + 1) * sizeof *widths);
    for (size_t c = 0; c < self->column_count; c++) {
        widths[c] = report_width(self->columns[c].title);
        for (size_t r = 0; r < self->rows; r++)
            if (report_width(text_at(self, r, c)) > widths[c])
                widths[c] = report_width(text_at(self, r, c));
    }
    for (size_t r = 0; r <= self->rows; r++) {
        for (size_t c = 0; c < self->column_count; c++) {
            const char *text = r == 0 ? self->columns[c].title : text_at(self, r - 1, c);
            text = *text ? text : "-";
            report_plain(self->stream, text, false);
            if (c + 1 == self->column_count)
                continue;
            for (size_t i = report_width(text); i < widths[c] + 2; i++)
                fputc(' ', self->stream);
        }
        fputc('\n', self->stream);
    }
    free(widths);
}

static void print_csv(const report_list_t *self)
{
    for (size_t r = 0; r <= self->rows; r++) {
        for (size_t c = 0; c < self->column_count; c++) {
            fputs(c ? "," : "", self->stream);
            report_csv_text(
                self->stream, r == 0 ? json_name(&self->columns[c]) : text_at(self, r - 1, c));
        }
        fputs("\r\n", self->stream);
    }
}

static void print_md(const report_list_t *self)
{
    for (size_t c = 0; c < self->column_count; c++)
        fprintf(self->stream, "| %s ", self->columns[c].title);
    fputs("|\n", self->stream);
    for (size_t c = 0; c < self->column_count; c++)
        fputs("|---", self->stream);
    fputs("|\n", self->stream);
    for (size_t r = 0; r < self->rows; r++) {
        for (size_t c = 0; c < self->column_count; c++) {
            fputs("| ", self->stream);
            report_plain(self->stream, text_at(self, r, c), true);
            fputc(' ', self->stream);
        }
        fputs("|\n", self->stream);
    }
}

// Is the text a JSON number or truth value as it stands?
static bool literal(const char *text)
{
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
        return true;
    const char *c = text + (*text == '-');
    if (!isdigit((unsigned char)*c) || (c[0] == '0' && isdigit((unsigned char)c[1])))
        return false;
    c += strspn(c, "0123456789");
    if (*c == '.' && isdigit((unsigned char)c[1]))
        c += 1 + strspn(c + 1, "0123456789");
    return *c == '\0';
}

static void print_json_row(const report_list_t *self, size_t row)
{
    fputc('{', self->stream);
    for (size_t c = 0; c < self->column_count; c++) {
        const char *text = text_at(self, row, c);
        fputs(c ? "," : "", self->stream);
        report_json_string(self->stream, json_name(&self->columns[c]));
        fputc(':', self->stream);
        if (!*text)
            fputs("null", self->stream);
        else if (*self->columns[c].json == '#' && literal(text))
            fputs(text, self->stream);
        else
            report_json_string(self->stream, text);
    }
    fputc('}', self->stream);
}

static void print_json(const report_list_t *self)
{
    fputs("{\"schema\":", self->stream);
    report_json_string(self->stream, self->schema);
    fputc(',', self->stream);
    report_json_string(self->stream, self->array);
    fputs(":[", self->stream);
    for (size_t r = 0; r < self->rows; r++) {
        fputs(r ? ",\n " : "\n ", self->stream);
        print_json_row(self, r);
    }
    fputs("]}\n", self->stream);
}

static void print_jsonl(const report_list_t *self)
{
    for (size_t r = 0; r < self->rows; r++) {
        print_json_row(self, r);
        fputc('\n', self->stream);
    }
}

void report_list_destroy(report_list_t **self_p)
{
    if (!self_p || !*self_p)
        return;
    report_list_t *self = *self_p;
    static const struct {
        const char *format;
        void (*print)(const report_list_t *self);
    } printers[] = {{"table", print_table}, {"wide", print_table}, {"csv", print_csv},
        {"md", print_md}, {"json", print_json}, {"jsonl", print_jsonl}};
    for (size_t i = 0; i < sizeof printers / sizeof *printers; i++)
        if (strcmp(self->format, printers[i].format) == 0)
            printers[i].print(self);
    for (size_t i = 0; i < self->rows * self->column_count; i++)
        free(self->texts[i]);
    free(self->texts);
    free(self->format);
    free(self->schema);
    free(self->array);
    free(self);
    *self_p = NULL;
}
