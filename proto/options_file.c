#include "options.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "errors.h"
#include "identity.h"

#define FILE_BYTES_MAX (1024 * 1024)
#define DEPTH_MAX 8
#define PATH_MAX_BYTES 128
#define KEYS_MAX 256

// A walk over libyaml's events. `path` is the dotted key under which we are.
struct reader {
    yaml_parser_t parser;
    const struct option_table *table;
    void *target;
    const char *file;
    char *error;
    char path[PATH_MAX_BYTES];
    char *keys[KEYS_MAX]; // full paths seen, to refuse duplicates
    size_t key_count;
};

static int fail(struct reader *reader, const yaml_mark_t *mark, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(struct reader *reader, const yaml_mark_t *mark, const char *format, ...)
{
    char why[OPTIONS_ERROR_SIZE - 160];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    snprintf(reader->error, OPTIONS_ERROR_SIZE, "%.120s:%zu:%zu: %s", reader->file, mark->line + 1,
        mark->column + 1, why);
    return MESH_E_SYNTAX;
}

static int next(struct reader *reader, yaml_event_t *event)
{
    if (!yaml_parser_parse(&reader->parser, event))
        return fail(reader, &reader->parser.problem_mark, "%s",
            reader->parser.problem ? reader->parser.problem : "no YAML");
    if (event->type == YAML_ALIAS_EVENT ||
        (event->type == YAML_SCALAR_EVENT && event->data.scalar.anchor) ||
        (event->type == YAML_MAPPING_START_EVENT && event->data.mapping_start.anchor) ||
        (event->type == YAML_SEQUENCE_START_EVENT && event->data.sequence_start.anchor)) {
        int error = fail(reader, &event->start_mark, "anchors and aliases are not permitted");
        yaml_event_delete(event);
        return error;
    }
    return 0;
}

static const struct option_spec *option_of(const struct option_table *table, const char *path)
{
    for (size_t i = 0; i < table->count; i++)
        if (!table->specs[i].no_file && strcmp(table->specs[i].name, path) == 0)
            return &table->specs[i];
    return NULL;
}

static const struct option_section *section_of(const struct option_table *table, const char *path)
{
    for (size_t i = 0; i < table->section_count; i++)
        if (strcmp(table->sections[i].path, path) == 0)
            return &table->sections[i];
    return NULL;
}

static bool is_section_parent(const struct option_table *table, const char *path)
{
    size_t size = strlen(path);
    for (size_t i = 0; i < table->section_count; i++)
        if (strncmp(table->sections[i].path, path, size) == 0 &&
            table->sections[i].path[size] == '.')
            return true;
    return false;
}

// The known key nearest to `path`, among options and sections, or NULL.
static const char *nearest_key(const struct option_table *table, const char *path)
{
    const char *words[KEYS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < table->count && count < KEYS_MAX; i++)
        if (!table->specs[i].no_file)
            words[count++] = table->specs[i].name;
    for (size_t i = 0; i < table->section_count && count < KEYS_MAX; i++)
        words[count++] = table->sections[i].path;
    return options_nearest(path, words, count, sizeof *words);
}

static bool seen_before(struct reader *reader, const char *path)
{
    for (size_t i = 0; i < reader->key_count; i++)
        if (strcmp(reader->keys[i], path) == 0)
            return true;
    if (reader->key_count < KEYS_MAX)
        reader->keys[reader->key_count++] = strdup(path);
    return false;
}

static int apply_scalar(struct reader *reader, const yaml_event_t *event, bool first)
{
    const char *word = (const char *)event->data.scalar.value;
    const yaml_mark_t *mark = &event->start_mark;
    if (event->data.scalar.length != strlen(word))
        return fail(reader, mark, "a value with a zero byte");
    struct option_source source = {reader->file, mark->line + 1, mark->column + 1, first};
    const struct option_spec *spec = option_of(reader->table, reader->path);
    const struct option_section *section = section_of(reader->table, reader->path);
    if (spec && !spec->argument) {
        if (strcmp(word, "false") == 0)
            return 0;
        if (strcmp(word, "true") != 0)
            return fail(reader, mark, "'%.100s' is neither true nor false", word);
        word = NULL;
    }
    char why[OPTIONS_ERROR_SIZE] = "";
    int error = spec ? spec->set(reader->target, word, &source, why)
                     : section->set(reader->target, word, &source, why);
    if (!error)
        return 0;
    (void)fail(reader, mark, "%s: %.300s", reader->path, why);
    return error;
}

static int read_sequence(struct reader *reader)
{
    bool first = true;
    for (;;) {
        yaml_event_t event;
        int error = next(reader, &event);
        if (error)
            return error;
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        if (!end && event.type != YAML_SCALAR_EVENT)
            error = fail(reader, &event.start_mark, "%s is a list of plain values", reader->path);
        else if (!end)
            error = apply_scalar(reader, &event, first);
        first = false;
        yaml_event_delete(&event);
        if (error || end)
            return error;
    }
}

static int read_mapping(struct reader *reader, unsigned depth);

static int read_value(struct reader *reader, const yaml_mark_t *key_mark, unsigned depth)
{
    yaml_event_t event;
    bool leaf = option_of(reader->table, reader->path) || section_of(reader->table, reader->path);
    int error = next(reader, &event);
    if (error)
        return error;
    if (!leaf && !is_section_parent(reader->table, reader->path)) {
        const char *nearest = nearest_key(reader->table, reader->path);
        error = nearest ? fail(reader, key_mark, "unknown key '%s', did you mean '%s'?",
                              reader->path, nearest)
                        : fail(reader, key_mark, "unknown key '%s'", reader->path);
    } else if (leaf && event.type == YAML_SCALAR_EVENT) {
        error = apply_scalar(reader, &event, true);
    } else if (leaf && event.type == YAML_SEQUENCE_START_EVENT) {
        error = read_sequence(reader);
    } else if (!leaf && event.type == YAML_MAPPING_START_EVENT) {
        error = depth < DEPTH_MAX ? read_mapping(reader, depth + 1)
                                  : fail(reader, &event.start_mark, "nested too deeply");
    } else {
        error = fail(reader, &event.start_mark, "%s has the wrong form: it is a %s", reader->path,
            leaf ? "value or a list of values" : "mapping");
    }
    yaml_event_delete(&event);
    return error;
}

static int read_entry(struct reader *reader, const yaml_event_t *key, unsigned depth)
{
    const char *word = (const char *)key->data.scalar.value;
    size_t before = strlen(reader->path);
    if (key->type != YAML_SCALAR_EVENT || key->data.scalar.length != strlen(word))
        return fail(reader, &key->start_mark, "a key must be a plain word");
    int size = snprintf(
        reader->path + before, sizeof reader->path - before, "%s%s", before ? "." : "", word);
    if (size < 0 || (size_t)size >= sizeof reader->path - before)
        return fail(reader, &key->start_mark, "a key that is too long");
    for (char *c = reader->path + before; *c; c++)
        if (iscntrl((unsigned char)*c))
            *c = '?';
    int error = seen_before(reader, reader->path)
                    ? fail(reader, &key->start_mark, "key '%s' stands here twice", reader->path)
                    : read_value(reader, &key->start_mark, depth);
    reader->path[before] = '\0';
    return error;
}

static int read_mapping(struct reader *reader, unsigned depth)
{
    for (;;) {
        yaml_event_t event;
        int error = next(reader, &event);
        if (error)
            return error;
        bool end = event.type == YAML_MAPPING_END_EVENT;
        if (!end)
            error = read_entry(reader, &event, depth);
        yaml_event_delete(&event);
        if (error || end)
            return error;
    }
}

// Stream start, one document with a mapping or nothing, stream end.
static int read_document(struct reader *reader)
{
    for (;;) {
        yaml_event_t event;
        int error = next(reader, &event);
        if (error)
            return error;
        bool end = event.type == YAML_STREAM_END_EVENT;
        if (event.type == YAML_MAPPING_START_EVENT)
            error = read_mapping(reader, 1);
        else if (event.type == YAML_SEQUENCE_START_EVENT ||
                 (event.type == YAML_SCALAR_EVENT && event.data.scalar.length > 0))
            error = fail(reader, &event.start_mark, "the file must be a mapping of keys to values");
        yaml_event_delete(&event);
        if (error || end)
            return error;
    }
}

int options_parse_file(const struct option_table *table, const char *path, void *target,
    char error[OPTIONS_ERROR_SIZE])
{
    char *data;
    size_t size;
    int result = file_read(path, FILE_BYTES_MAX, &data, &size);
    if (result) {
        snprintf(error, OPTIONS_ERROR_SIZE, "%.300s: %s", path, mesh_strerror(result));
        return result;
    }
    struct reader reader = {.table = table, .target = target, .file = path, .error = error};
    *error = '\0';
    if (!yaml_parser_initialize(&reader.parser))
        abort();
    yaml_parser_set_input_string(&reader.parser, (unsigned char *)data, size);
    result = read_document(&reader);
    yaml_parser_delete(&reader.parser);
    for (size_t i = 0; i < reader.key_count; i++)
        free(reader.keys[i]);
    free(data);
    return result;
}
