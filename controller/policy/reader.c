// What all readers of a policy share: errors with their place, mappings, words and lists.

#include "policy.h"

#include <stdarg.h>
#include <string.h>

#include "options.h"
#include "policy_parts.h"
#include "units.h"

bool fail(struct reader *reader, struct policy_place place, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reader->error->text, sizeof reader->error->text, format, arguments);
    va_end(arguments);
    reader->error->place = place;
    return false;
}

struct policy_place place_within(const struct node *node, size_t offset)
{
    struct policy_place place = node->place;
    // Columns count characters, not bytes.
    for (size_t i = 0; node->plain && i < offset; i++)
        place.column += ((unsigned char)node->text[i] & 0xc0) != 0x80;
    return place;
}

const char *did_you_mean(
    const char *word, const char *const *words, size_t count, size_t stride, char text[96])
{
    const char *nearest = options_nearest(word, words, count, stride);
    *text = '\0';
    if (nearest)
        snprintf(text, 96, ", did you mean '%.70s'?", nearest);
    return text;
}

static void list_keys(const struct key *keys, size_t count, char *text, size_t size)
{
    size_t used = 0;
    *text = '\0';
    for (size_t i = 0; i < count && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s",
            i == 0           ? ""
            : i + 1 == count ? " or "
                             : ", ",
            keys[i].name);
}

bool read_map(struct reader *reader, const struct node *node, const char *what,
    const struct key *keys, size_t count, void *target)
{
    char nearest[96], all[200];
    list_keys(keys, count, all, sizeof all);
    if (node->type != NODE_MAP)
        return fail(reader, node->place, "expected %s as a mapping with %s", what, all);
    for (const struct node *child = node->first; child; child = child->next) {
        size_t i = 0;
        while (i < count && strcmp(keys[i].name, child->key) != 0)
            i++;
        if (i == count)
            return fail(reader, child->key_place, "unknown key '%.100s' in %s%s (expected %s)",
                child->key, what,
                did_you_mean(child->key, &keys[0].name, count, sizeof *keys, nearest), all);
        if (!keys[i].read(reader, child, target))
            return false;
    }
    return true;
}

bool need_text(struct reader *reader, const struct node *node, const char *what)
{
    if (node->type == NODE_TEXT && *node->text)
        return true;
    return fail(reader, node->place, "expected %s, there is %s", what,
        node->type == NODE_TEXT   ? "nothing"
        : node->type == NODE_LIST ? "a list"
                                  : "a mapping");
}

bool read_texts(struct reader *reader, const struct node *node, const char *what, size_t most,
    bool (*read)(struct reader *reader, const struct node *node, void *target), void *target)
{
    if (node->type != NODE_LIST)
        return need_text(reader, node, what) && read(reader, node, target);
    if (node->count > most)
        return fail(reader, node->place, "at most %zu values are permitted here", most);
    if (node->count == 0)
        return fail(reader, node->place, "expected %s, there is an empty list", what);
    for (const struct node *child = node->first; child; child = child->next)
        if (!need_text(reader, child, what) || !read(reader, child, target))
            return false;
    return true;
}

bool read_word(struct reader *reader, const struct node *node, const char *what,
    const char *const *words, size_t count, unsigned *index)
{
    char nearest[96], all[160] = "";
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (node->type == NODE_TEXT && strcmp(words[i], node->text) == 0) {
            *index = (unsigned)i;
            return true;
        }
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%s",
            i ? (i + 1 < count ? ", " : " or ") : "", words[i]);
    }
    if (node->type != NODE_TEXT || !*node->text)
        return fail(reader, node->place, "expected %s as %s", what, all);
    return fail(reader, node->place, "'%.100s' is not %s: expected %s%s", node->text, what, all,
        did_you_mean(node->text, words, count, sizeof *words, nearest));
}

char *without_blanks(const char *text, char *copy, size_t size)
{
    size_t used = 0;
    for (; *text; text++) {
        if (used + 1 >= size)
            return NULL;
        if (*text != ' ')
            copy[used++] = *text;
    }
    copy[used] = '\0';
    return copy;
}

bool read_duration(struct reader *reader, const struct node *node, const char *what,
    int64_t least_ns, int64_t most_ns, int64_t *duration_ns)
{
    char word[64], least[UNITS_TEXT_SIZE], most[UNITS_TEXT_SIZE];
    if (!need_text(reader, node, what))
        return false;
    if (!without_blanks(node->text, word, sizeof word) || units_duration_ns(word, duration_ns) != 0)
        return fail(reader, node->place,
            "'%.100s' is no duration: expected %s such as '2s' or '500 ms'", node->text, what);
    if (*duration_ns < least_ns || *duration_ns > most_ns)
        return fail(reader, node->place, "'%.100s' is out of range: expected %s from %s to %s",
            node->text, what, units_word_duration(least_ns, least),
            units_word_duration(most_ns, most));
    return true;
}
