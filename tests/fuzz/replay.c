// Stands in for libFuzzer: runs every file of a corpus, and seeded mutations of each.

#include <dirent.h>
#include <string.h>

#include "fuzz.h"

#define INPUT_MAX 65536
#define MUTATIONS 300

static uint64_t state = 0x9e3779b97f4a7c15;

// xorshift64*: the same mutations in every run.
static uint64_t next(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1d;
}

// A copy of exactly its size, so that a sanitizer sees every byte read beyond it.
static void run(const uint8_t *bytes, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    memcpy(exact, bytes, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static size_t mutate(uint8_t *bytes, size_t size)
{
    static const uint8_t interesting[] = {0, 1, 0x7f, 0x80, 0xff, '\n', '"', '='};
    for (unsigned edits = 1 + next() % 4; edits > 0; edits--) {
        size_t at = size ? next() % size : 0;
        switch (next() % 6) {
        case 0:
            if (size)
                bytes[at] ^= (uint8_t)(1 << next() % 8);
            break;
        case 1:
            if (size)
                bytes[at] = interesting[next() % sizeof interesting];
            break;
        case 2:
            if (size)
                bytes[at] = (uint8_t)next();
            break;
        case 3: // cut
            size = at;
            break;
        case 4: // take one out
            if (size) {
                memmove(bytes + at, bytes + at + 1, size - at - 1);
                size--;
            }
            break;
        default: // repeat a piece
            if (size && size < INPUT_MAX / 2) {
                size_t piece = 1 + next() % (size - at);
                memmove(bytes + at + piece, bytes + at, size - at);
                size += piece;
            }
        }
    }
    return size;
}

static int replay_file(const char *path)
{
    static uint8_t original[INPUT_MAX], changed[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    if (!file)
        return 0;
    size_t size = fread(original, 1, sizeof original, file);
    fclose(file);
    run(original, size);
    for (unsigned i = 0; i < MUTATIONS; i++) {
        memcpy(changed, original, size);
        run(changed, mutate(changed, size));
    }
    return 1;
}

int main(int argc, char **argv)
{
    int files = 0;
    for (int i = 1; i < argc; i++) {
        DIR *directory = opendir(argv[i]);
        struct dirent *entry;
        if (!directory)
            continue;
        while ((entry = readdir(directory))) {
            char path[1024];
            snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            if (entry->d_name[0] != '.')
                files += replay_file(path);
        }
        closedir(directory);
    }
    printf("%d files, %d mutations of each\n", files, MUTATIONS);
    return files > 0 ? 0 : 1;
}
