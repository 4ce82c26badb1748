// YAML events to a tree of plain strings, within bounds.

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "policy_parts.h"

// --------------------------------------------------------------------------------------- pool

#define CHUNK_BYTES 65536

struct chunk {
    struct chunk *next;
    size_t used, size;
    _Alignas(max_align_t) char bytes[];
};

struct pool {
    struct chunk *first;
};

pool_t *pool_new(void)
{
    pool_t *self = calloc(1, sizeof *self);
    if (!self)
        abort();
    return self;
}

void pool_destroy(pool_t **self_p)
{
    while (*self_p && (*self_p)->first) {
        struct chunk *chunk = (*self_p)->first;
        (*self_p)->first = chunk->next;
        free(chunk);
    }
    free(*self_p);
    *self_p = NULL;
}

void *pool_get(pool_t *self, size_t size)
{
    struct chunk *chunk = self->first;
    size_t wanted = (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
    if (!chunk || chunk->size - chunk->used < wanted) {
        size_t room = wanted > CHUNK_BYTES ? wanted : CHUNK_BYTES;
        chunk = calloc(1, sizeof *chunk + room);
        if (!chunk)
            abort();
        chunk->size = room;
        chunk->next = self->first;
        self->first = chunk;
    }
    void *at = chunk->bytes + chunk->used;
    chunk->used += wanted;
    return at;
}

char *pool_text(pool_t *self, const char *text, size_t size)
{
    char *copy = pool_get(self, size + 1);
    memcpy(copy, text, size);
    return copy;
}

// --------------------------------------------------------------------------------------- walk

struct walk {
    yaml_parser_t parser;
    pool_t *pool;
    struct policy_error *error;
    size_t nodes;
    const char *text;
};

static struct policy_place place_of(const yaml_mark_t *mark)
{
    return (struct policy_place){(uint32_t)mark->line + 1, (uint32_t)mark->column + 1};
}

static bool wrong(struct walk *walk, struct policy_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool wrong(struct walk *walk, struct policy_place place, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(walk->error->text, sizeof walk->error->text, format, arguments);
    va_end(arguments);
    walk->error->place = place;
    return false;
}

// What YAML can do beyond strings, lists and mappings is refused, wherever it occurs.
static bool is_plain_yaml(struct walk *walk, const yaml_event_t *event)
{
    struct policy_place place = place_of(&event->start_mark);
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (event->type == YAML_ALIAS_EVENT)
        return wrong(walk, place, "anchors and aliases are not permitted here");
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    if (anchor)
        return wrong(walk, place, "anchors and aliases are not permitted here");
    return !tag || wrong(walk, place, "tags such as '%.60s' are not permitted here", tag);
}

// The reader of bytes (no UTF-8, control characters) knows an offset only.
static struct policy_place place_at(const char *text, size_t offset)
{
    struct policy_place place = {1, 1};
    for (size_t i = 0; i < offset; i++) {
        bool line = text[i] == '\n';
        place.line += line;
        place.column = line ? 1 : place.column + (((unsigned char)text[i] & 0xc0) != 0x80);
    }
    return place;
}

static bool next_event(struct walk *walk, yaml_event_t *event)
{
    if (!yaml_parser_parse(&walk->parser, event)) {
        struct policy_place place = walk->parser.error == YAML_READER_ERROR
                                        ? place_at(walk->text, walk->parser.problem_offset)
                                        : place_of(&walk->parser.problem_mark);
        return wrong(walk, place, "this is no YAML: %s",
            walk->parser.problem ? walk->parser.problem : "it cannot be read");
    }
    if (is_plain_yaml(walk, event))
        return true;
    yaml_event_delete(event);
    return false;
}

static bool is_clean(struct walk *walk, const yaml_event_t *event)
{
    const unsigned char *text = event->data.scalar.value;
    for (size_t i = 0; i < event->data.scalar.length; i++)
        if (text[i] < 0x20 || text[i] == 0x7f ||
            (text[i] == 0xc2 && text[i + 1] >= 0x80 && text[i + 1] < 0xa0))
            return wrong(walk, place_of(&event->start_mark),
                "control characters and line breaks are not permitted in a value");
    return true;
}

static struct node *node_new(struct walk *walk, const yaml_event_t *event, unsigned depth)
{
    struct policy_place place = place_of(&event->start_mark);
    if (++walk->nodes > POLICY_NODES_MAX) {
        wrong(walk, place, "there are over %d values", POLICY_NODES_MAX);
        return NULL;
    }
    if (depth > POLICY_DEPTH_MAX && event->type != YAML_SCALAR_EVENT) {
        wrong(walk, place, "nested too deeply, over %d levels", POLICY_DEPTH_MAX);
        return NULL;
    }
    struct node *node = pool_get(walk->pool, sizeof *node);
    node->place = place;
    node->type = event->type == YAML_SCALAR_EVENT           ? NODE_TEXT
                 : event->type == YAML_SEQUENCE_START_EVENT ? NODE_LIST
                                                            : NODE_MAP;
    if (node->type != NODE_TEXT)
        return node;
    if (!is_clean(walk, event))
        return NULL;
    node->text =
        pool_text(walk->pool, (const char *)event->data.scalar.value, event->data.scalar.length);
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
                  event->start_mark.line == event->end_mark.line;
    return node;
}

static int by_key(const void *a, const void *b)
{
    const struct node *const *left = a, *const *right = b;
    int order = strcmp((*left)->key, (*right)->key);
    if (order == 0)
        order = (int)(*left)->key_place.line - (int)(*right)->key_place.line;
    return order ? order : (int)(*left)->key_place.column - (int)(*right)->key_place.column;
}

static bool keys_differ(struct walk *walk, const struct node *map)
{
    const struct node **children = malloc((map->count + 1) * sizeof(struct node *)), *twice = NULL;
    if (!children)
        abort();
    size_t count = 0;
    for (const struct node *child = map->first; child; child = child->next)
        children[count++] = child;
    qsort(children, count, sizeof(struct node *), by_key);
    for (size_t i = 1; i < count && !twice; i++)
        if (strcmp(children[i - 1]->key, children[i]->key) == 0)
            twice = children[i];
    free(children);
    return !twice ||
           wrong(walk, twice->key_place, "the key '%.100s' stands here twice", twice->key);
}

static struct node *read_node(struct walk *walk, yaml_event_t *event, unsigned depth);

// The event of a child, or of the end; a mapping's child has its key before it.
static bool read_child(struct walk *walk, const struct node *parent, yaml_event_t *event,
    unsigned depth, struct node **child)
{
    yaml_event_t key = *event;
    bool keyed = parent->type == NODE_MAP;
    *child = NULL;
    if (!keyed)
        return (*child = read_node(walk, event, depth)) != NULL;
    if (key.type != YAML_SCALAR_EVENT) {
        struct policy_place place = place_of(&key.start_mark);
        yaml_event_delete(&key);
        return wrong(walk, place, "a key must be a plain word");
    }
    yaml_event_t value;
    bool good = is_clean(walk, &key) && next_event(walk, &value);
    if (good && (*child = read_node(walk, &value, depth))) {
        (*child)->key =
            pool_text(walk->pool, (const char *)key.data.scalar.value, key.data.scalar.length);
        (*child)->key_place = place_of(&key.start_mark);
    }
    yaml_event_delete(&key);
    return *child != NULL;
}

static bool read_children(struct walk *walk, struct node *parent, unsigned depth)
{
    struct node **last = &parent->first;
    for (;;) {
        yaml_event_t event;
        if (!next_event(walk, &event))
            return false;
        if (event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return parent->type == NODE_LIST || keys_differ(walk, parent);
        }
        if (!read_child(walk, parent, &event, depth + 1, last))
            return false;
        last = &(*last)->next;
        parent->count++;
    }
}

// Takes the event.
static struct node *read_node(struct walk *walk, yaml_event_t *event, unsigned depth)
{
    struct node *node = node_new(walk, event, depth);
    yaml_event_delete(event);
    if (node && node->type != NODE_TEXT && !read_children(walk, node, depth))
        return NULL;
    return node;
}

// Stream start, one document, stream end.
static struct node *read_document(struct walk *walk)
{
    struct node *root = NULL;
    for (;;) {
        yaml_event_t event;
        if (!next_event(walk, &event))
            return NULL;
        yaml_event_type_t type = event.type;
        struct policy_place place = place_of(&event.start_mark);
        if (type == YAML_SCALAR_EVENT || type == YAML_SEQUENCE_START_EVENT ||
            type == YAML_MAPPING_START_EVENT) {
            if (!(root = read_node(walk, &event, 1)))
                return NULL;
            continue;
        }
        yaml_event_delete(&event);
        if (type == YAML_DOCUMENT_START_EVENT && root) {
            wrong(walk, place, "a policy is one document; here a second one begins");
            return NULL;
        }
        if (type == YAML_STREAM_END_EVENT)
            break;
    }
    bool empty = !root || (root->type == NODE_TEXT && !*root->text);
    if (!empty && root->type != NODE_MAP) {
        wrong(walk, root->place, "expected a mapping of keys to values, such as 'policy: NAME'");
        return NULL;
    }
    return empty ? pool_get(walk->pool, sizeof *root) : root;
}

struct node *tree_parse(pool_t *pool, const char *text, size_t size, struct policy_error *error)
{
    struct walk walk = {.pool = pool, .error = error, .text = text};
    memset(error, 0, sizeof *error);
    if (size > POLICY_BYTES_MAX) {
        wrong(&walk, (struct policy_place){1, 1}, "the file has %zu bytes, at most %u are read",
            size, POLICY_BYTES_MAX);
        return NULL;
    }
    if (!yaml_parser_initialize(&walk.parser))
        abort();
    yaml_parser_set_encoding(&walk.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&walk.parser, (const unsigned char *)text, size);
    struct node *root = read_document(&walk);
    yaml_parser_delete(&walk.parser);
    if (root && root->type != NODE_MAP)
        root->type = NODE_MAP;
    if (root && root->place.line == 0)
        root->place = (struct policy_place){1, 1};
    return root;
}
