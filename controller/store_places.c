// Where a run's cells stand in its matrix, some thousand in a row of the database.

#include "errors.h"
#include "ports.h"
#include "store_parts.h"

// Kind (with the wish for a listener in its upper half), phase, from, to, port (little endian).
// Runs of earlier versions have places without a port.
#define STORE_PLACE_BYTES_WITHOUT_PORT 10

static void put_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint8_t *stored_places_pack(const struct cell_place *places, size_t count)
{
    uint8_t *bytes = zmalloc(count * STORE_PLACE_BYTES + 1);
    for (size_t i = 0; i < count; i++) {
        uint8_t *at = bytes + i * STORE_PLACE_BYTES;
        at[0] = (uint8_t)(places[i].kind | places[i].listener << 4);
        at[1] = places[i].phase;
        put_u32(at + 2, places[i].from);
        put_u32(at + 6, places[i].to);
        at[10] = (uint8_t)places[i].port;
        at[11] = (uint8_t)(places[i].port >> 8);
    }
    return bytes;
}

static bool place_unpack(
    const uint8_t *at, size_t size, const struct stored_run *run, struct cell_place *place)
{
    *place = (struct cell_place){.kind = at[0] & 15,
        .listener = at[0] >> 4,
        .phase = at[1],
        .from = get_u32(at + 2),
        .to = get_u32(at + 6)};
    if (size == STORE_PLACE_BYTES)
        place->port = (uint16_t)(at[10] | at[11] << 8);
    return place->listener <= PORT_LISTENER_EITHER && place->kind >= MP__TEST_KIND__TCP &&
           place->kind <= MP__TEST_KIND__PORT && place->from < run->agents &&
           place->to < run->agents;
}

static size_t place_size(const struct stored_run *run, uint32_t chunk, size_t size)
{
    size_t before = (size_t)chunk * STORE_PLACES_CHUNK;
    size_t count = run->cells > before ? run->cells - before : 0;
    count = count < STORE_PLACES_CHUNK ? count : STORE_PLACES_CHUNK;
    return size == count * STORE_PLACE_BYTES_WITHOUT_PORT ? STORE_PLACE_BYTES_WITHOUT_PORT
                                                          : STORE_PLACE_BYTES;
}

int stored_places(struct db *db, const struct stored_run *run, uint32_t offset, uint32_t count,
    struct cell_place *places)
{
    uint32_t chunk = offset / STORE_PLACES_CHUNK, skip = offset % STORE_PLACES_CHUNK, filled = 0;
    sqlite3_stmt *row = db_bind(db, SQL_RUN_PLACES, "ii", run->number, (int64_t)chunk);
    int rc = 0;
    while (filled < count && (rc = db_step(db, row)) > 0) {
        size_t size;
        const uint8_t *bytes = db_blob(row, 1, &size);
        size_t each = place_size(run, chunk, size);
        bool good = sqlite3_column_int64(row, 0) == (int64_t)chunk++;
        for (size_t i = skip; good && filled < count && (i + 1) * each <= size; i++)
            good = place_unpack(bytes + i * each, each, run, &places[filled++]);
        if (!good)
            break;
        skip = 0;
    }
    if (row)
        sqlite3_reset(row);
    if (rc < 0)
        return rc;
    return rc > 0 || filled == count ? (filled == count ? 0 : MESH_E_INVALID) : MESH_E_INVALID;
}
