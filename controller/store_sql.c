#include "store_sql.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

#define BUSY_TIMEOUT_MS 5000
#define ERROR_SIZE 512

// ------------------------------------------------------------------------------------- schema

// A step is never changed once it was released: later changes are later steps.
static const char *const migrations[] = {
    // 1: A cell's id is its run's number * 2^24 + its index: a page of a run is one range of the
    // table, however many cells there are. Blobs are packed protocol messages.
    "PRAGMA application_id = 0x6d657368;"
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO meta VALUES ('epoch', 0), ('run', 0), ('probe', 0);"
    "CREATE TABLE agent (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
    " key BLOB NOT NULL UNIQUE, token TEXT, enrolled_wall_ns INTEGER NOT NULL,"
    " draining INTEGER NOT NULL, labels_own TEXT NOT NULL, labels_token TEXT NOT NULL,"
    " labels_operator TEXT NOT NULL, hello BLOB);"
    "CREATE TABLE token (id TEXT PRIMARY KEY, key BLOB NOT NULL, created_wall_ns INTEGER NOT NULL,"
    " expires_wall_ns INTEGER NOT NULL, uses INTEGER NOT NULL, used INTEGER NOT NULL,"
    " revoked INTEGER NOT NULL, \"by\" TEXT, labels TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE operator (name TEXT PRIMARY KEY, role INTEGER NOT NULL, key BLOB NOT NULL,"
    " created_wall_ns INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE audit (id INTEGER PRIMARY KEY, wall_ns INTEGER NOT NULL, who TEXT NOT NULL,"
    " what TEXT NOT NULL, object TEXT, detail TEXT);"
    "CREATE TABLE run (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
    " state INTEGER NOT NULL, name TEXT, \"by\" TEXT, created_wall_ns INTEGER NOT NULL,"
    " agents INTEGER NOT NULL, cells INTEGER NOT NULL, info BLOB NOT NULL);"
    "CREATE TABLE run_agent (run INTEGER NOT NULL, idx INTEGER NOT NULL, agent INTEGER NOT NULL,"
    " name TEXT NOT NULL, record BLOB NOT NULL, PRIMARY KEY (run, idx)) WITHOUT ROWID;"
    "CREATE TABLE run_places (run INTEGER NOT NULL, chunk INTEGER NOT NULL, places BLOB NOT NULL,"
    " PRIMARY KEY (run, chunk));"
    "CREATE TABLE cell (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, idx INTEGER NOT NULL,"
    " kind INTEGER NOT NULL, \"from\" INTEGER NOT NULL, \"to\" INTEGER NOT NULL,"
    " state INTEGER NOT NULL, reason TEXT, started_wall_ns INTEGER, bandwidth_bps REAL,"
    " loss_ratio REAL, jitter_s REAL, rtt_p50_s REAL, record BLOB NOT NULL);",

    // 2: The same for people with a SQL shell: names in place of numbers.
    "CREATE INDEX run_state ON run (state);"
    "CREATE VIEW result AS SELECT r.id AS run, c.idx, CASE c.kind WHEN 1 THEN 'tcp' WHEN 2 THEN"
    " 'udp' WHEN 3 THEN 'sctp' WHEN 4 THEN 'latency' WHEN 5 THEN 'path' WHEN 6 THEN 'port' END"
    " AS test, f.name AS \"from\", t.name AS \"to\", CASE c.state WHEN 3 THEN 'ok' WHEN 4 THEN"
    " 'failed' WHEN 5 THEN 'unsupported' WHEN 6 THEN 'cancelled' WHEN 7 THEN 'lost' WHEN 8 THEN"
    " 'skipped' END AS state, c.reason, c.started_wall_ns, c.bandwidth_bps, c.loss_ratio,"
    " c.jitter_s, c.rtt_p50_s FROM cell c JOIN run r ON r.number = c.run"
    " JOIN run_agent f ON f.run = c.run AND f.idx = c.\"from\""
    " JOIN run_agent t ON t.run = c.run AND t.idx = c.\"to\";",

    // 3: The text that a check judges by, as it was then.
    "CREATE TABLE policy (run INTEGER PRIMARY KEY, text BLOB NOT NULL);",
};

const char *const *db_migrations(size_t *count)
{
    *count = sizeof migrations / sizeof *migrations;
    return migrations;
}

static const char *const statements[SQL_STATEMENTS] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_PROBE] = "UPDATE meta SET value = value + 1 WHERE key = 'probe'",
    [SQL_META_GET] = "SELECT value FROM meta WHERE key = ?",
    [SQL_META_ADD] = "UPDATE meta SET value = value + 1 WHERE key = ?",
    [SQL_META_RAISE] = "UPDATE meta SET value = max(value, ?2) WHERE key = ?1",
    [SQL_AGENT_PUT] = "INSERT INTO agent VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                      " ON CONFLICT (id) DO UPDATE SET name = excluded.name, key = excluded.key,"
                      " token = excluded.token, enrolled_wall_ns = excluded.enrolled_wall_ns,"
                      " draining = excluded.draining, labels_own = excluded.labels_own,"
                      " labels_token = excluded.labels_token,"
                      " labels_operator = excluded.labels_operator, hello = excluded.hello",
    [SQL_AGENT_DROP] = "DELETE FROM agent WHERE id = ?",
    [SQL_AGENTS] = "SELECT id, name, key, token, enrolled_wall_ns, draining, labels_own,"
                   " labels_token, labels_operator, hello FROM agent ORDER BY id",
    [SQL_TOKEN_PUT] = "INSERT OR REPLACE INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [SQL_TOKENS] = "SELECT id, key, created_wall_ns, expires_wall_ns, uses, used, revoked, \"by\","
                   " labels FROM token ORDER BY created_wall_ns, id",
    [SQL_OPERATOR_PUT] = "INSERT OR REPLACE INTO operator VALUES (?, ?, ?, ?)",
    [SQL_OPERATOR_DROP] = "DELETE FROM operator WHERE name = ?",
    [SQL_OPERATORS] = "SELECT name, role, key, created_wall_ns FROM operator ORDER BY name",
    [SQL_AUDIT_ADD] = "INSERT INTO audit (wall_ns, who, what, object, detail)"
                      " VALUES (?, ?, ?, ?, ?)",
    [SQL_AUDIT_COUNT] = "SELECT count(*) FROM audit",
    [SQL_AUDIT_PAGE] = "SELECT wall_ns, who, what, object, detail FROM audit"
                       " ORDER BY id DESC LIMIT ?2 OFFSET ?1",
    [SQL_RUN_ADD] = "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [SQL_RUN_AGENT_ADD] = "INSERT INTO run_agent VALUES (?, ?, ?, ?, ?)",
    [SQL_RUN_PLACES_ADD] = "INSERT INTO run_places VALUES (?, ?, ?)",
    [SQL_RUN_PUT] = "UPDATE run SET state = ?2, info = ?3 WHERE number = ?1",
    [SQL_RUN_COUNT] = "SELECT count(*) FROM run",
    [SQL_RUN_PAGE] = "SELECT info FROM run ORDER BY number DESC LIMIT ?2 OFFSET ?1",
    [SQL_RUN_LAST] = "SELECT number, id, agents, cells, info FROM run ORDER BY number DESC LIMIT 1",
    [SQL_RUN_GET] = "SELECT number, id, agents, cells, info FROM run WHERE id = ?",
    [SQL_RUN_UNFINISHED] = "SELECT number, id, agents, cells, info FROM run WHERE state < 3"
                           " AND number > ? ORDER BY number LIMIT 1",
    [SQL_RUN_AGENTS] = "SELECT idx, agent, record FROM run_agent WHERE run = ? AND idx >= ?"
                       " ORDER BY idx",
    [SQL_RUN_PLACES] = "SELECT chunk, places FROM run_places WHERE run = ? AND chunk >= ?"
                       " ORDER BY chunk",
    [SQL_POLICY_ADD] = "INSERT INTO policy VALUES (?, ?)",
    [SQL_POLICY_GET] = "SELECT length(text), substr(text, ?2, ?3) FROM policy WHERE run = ?1",
    // A late second copy of a final cell changes nothing, but what comes after one of its passes
    // (state 1) or of its being measured again (?15: alone, or its flows) does; a cell of a run that is not stored (its
    // start was refused) belongs nowhere.
    [SQL_CELL_PUT] = "INSERT INTO cell SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,"
                     " ?11, ?12, ?13, ?14 WHERE EXISTS (SELECT 1 FROM run WHERE number = ?2)"
                     " ON CONFLICT (id) DO UPDATE SET state = ?7, reason = ?8,"
                     " started_wall_ns = ?9, bandwidth_bps = ?10, loss_ratio = ?11, jitter_s = ?12,"
                     " rtt_p50_s = ?13, record = ?14 WHERE state = 1 OR ?15",
    [SQL_CELL_PAGE] = "SELECT idx, record FROM cell WHERE id >= ? AND id < ? ORDER BY id",
    [SQL_CELL_STATES] = "SELECT idx, state FROM cell WHERE id >= ? AND id < ? ORDER BY id",
};

// ------------------------------------------------------------------------------------- errors

static int error_of(struct db *self, int code)
{
    int system;
    switch (code & 0xff) {
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
        return -EROFS;
    case SQLITE_IOERR:
        // A file size limit or a quota shows up as a failed write.
        system = self->handle ? sqlite3_system_errno(self->handle) : 0;
        return system == ENOSPC || system == EDQUOT || system == EFBIG ? -ENOSPC : -EIO;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_NOMEM:
        abort();
    case SQLITE_CONSTRAINT:
        return MESH_E_EXISTS;
    case SQLITE_TOOBIG:
        return MESH_E_TOO_LARGE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return MESH_E_DECODE;
    default:
        return -EIO;
    }
}

bool db_error_is_storage(int error)
{
    return error == -ENOSPC || error == -EROFS || error == -EIO || error == -EBUSY ||
           error == MESH_E_DECODE;
}

// --------------------------------------------------------------------------------- statements

static bool bind_one(sqlite3_stmt *statement, int at, char type, va_list *values)
{
    int code = SQLITE_MISUSE;
    const void *bytes;
    int has;
    double real;
    switch (type) {
    case 'i':
        code = sqlite3_bind_int64(statement, at, va_arg(*values, int64_t));
        break;
    case 't':
        code = sqlite3_bind_text(statement, at, va_arg(*values, const char *), -1, SQLITE_STATIC);
        break;
    case 'b':
        bytes = va_arg(*values, const void *);
        code = sqlite3_bind_blob64(statement, at, bytes, va_arg(*values, size_t), SQLITE_STATIC);
        break;
    case 'd':
        code = sqlite3_bind_double(statement, at, va_arg(*values, double));
        break;
    case 'o':
        has = va_arg(*values, int);
        real = va_arg(*values, double);
        code = has ? sqlite3_bind_double(statement, at, real) : sqlite3_bind_null(statement, at);
        break;
    }
    return code == SQLITE_OK;
}

sqlite3_stmt *db_bind(struct db *self, enum statement which, const char *types, ...)
{
    sqlite3_stmt **slot = &self->statements[which];
    if (!*slot && sqlite3_prepare_v3(self->handle, statements[which], -1, SQLITE_PREPARE_PERSISTENT,
                      slot, NULL) != SQLITE_OK)
        return NULL;
    sqlite3_reset(*slot);
    sqlite3_clear_bindings(*slot);
    va_list values;
    va_start(values, types);
    bool good = true;
    for (int i = 0; types[i] && good; i++)
        good = bind_one(*slot, i + 1, types[i], &values);
    va_end(values);
    return good ? *slot : NULL;
}

int db_step(struct db *self, sqlite3_stmt *statement)
{
    int code = statement ? sqlite3_step(statement) : sqlite3_extended_errcode(self->handle);
    if (code == SQLITE_ROW)
        return 1;
    int error = code == SQLITE_DONE ? 0 : error_of(self, code);
    if (statement)
        sqlite3_reset(statement);
    return error;
}

int db_finish(struct db *self, sqlite3_stmt *statement)
{
    int rc;
    while ((rc = db_step(self, statement)) > 0)
        ;
    return rc;
}

const char *db_text(sqlite3_stmt *statement, int column)
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    return text ? (const char *)text : "";
}

const void *db_blob(sqlite3_stmt *statement, int column, size_t *size)
{
    const void *bytes = sqlite3_column_blob(statement, column);
    *size = (size_t)sqlite3_column_bytes(statement, column);
    return bytes;
}

// ------------------------------------------------------------------------------------ opening

static bool execute(struct db *self, const char *sql)
{
    return sqlite3_exec(self->handle, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static int user_version(struct db *self)
{
    sqlite3_stmt *statement;
    int version = -1;
    if (sqlite3_prepare_v2(self->handle, "PRAGMA user_version", -1, &statement, NULL) != SQLITE_OK)
        return -1;
    if (sqlite3_step(statement) == SQLITE_ROW)
        version = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return version;
}

static bool migrate(struct db *self, const char *path, char *error)
{
    int newest = (int)(sizeof migrations / sizeof *migrations);
    int version = user_version(self);
    if (version > newest) {
        snprintf(error, ERROR_SIZE,
            "%.300s has schema version %d, made by a newer meshperf; this one knows up to %d", path,
            version, newest);
        return false;
    }
    bool good = version >= 0;
    for (; good && version < newest; version++) {
        char done[64];
        snprintf(done, sizeof done, "PRAGMA user_version = %d; COMMIT", version + 1);
        good = execute(self, "BEGIN IMMEDIATE") && execute(self, migrations[version]) &&
               execute(self, done);
    }
    if (!good) {
        snprintf(error, ERROR_SIZE, "%.300s: %.180s", path, sqlite3_errmsg(self->handle));
        sqlite3_exec(self->handle, "ROLLBACK", NULL, NULL, NULL);
    }
    return good;
}

static bool open_writable(struct db *self, const char *path, char *error)
{
    int code =
        sqlite3_open_v2(path, &self->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    sqlite3_extended_result_codes(self->handle, 1);
    sqlite3_busy_timeout(self->handle, BUSY_TIMEOUT_MS);
    if (code == SQLITE_OK && sqlite3_db_readonly(self->handle, "main") == 0 &&
        execute(self, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                      "PRAGMA wal_autocheckpoint = 1000; PRAGMA journal_size_limit = 67108864;"))
        return migrate(self, path, error);
    snprintf(error, ERROR_SIZE, "%.300s: %.180s", path, sqlite3_errmsg(self->handle));
    return false;
}

// On a read-only file system there is no room for the shared index of the write-ahead log.
// Exclusive locking keeps it in memory; if even the log cannot be opened, there is none, and the
// file stands for itself.
static bool open_read_only(struct db *self, const char *path)
{
    static const char *const ways[] = {"mode=ro", "immutable=1"};
    int newest = (int)(sizeof migrations / sizeof *migrations);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char uri[PATH_MAX * 3 + 32] = "file:";
        size_t length = strlen(uri);
        for (const char *c = path; *c && length < PATH_MAX * 3; c++)
            length += (size_t)snprintf(uri + length, sizeof uri - length,
                strchr("%?#", *c) ? "%%%02X" : "%c", (unsigned char)*c);
        snprintf(uri + length, sizeof uri - length, "?%s", ways[i]);
        int code =
            sqlite3_open_v2(uri, &self->handle, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
        if (code == SQLITE_OK && execute(self, "PRAGMA locking_mode = EXCLUSIVE") &&
            user_version(self) == newest && execute(self, "SELECT * FROM meta"))
            return true;
        sqlite3_close(self->handle);
        self->handle = NULL;
    }
    return false;
}

bool db_open(struct db *self, const char *path, char *error)
{
    memset(self, 0, sizeof *self);
    if (open_writable(self, path, error))
        return true;
    int code = sqlite3_errcode(self->handle);
    bool read_only = sqlite3_db_readonly(self->handle, "main") == 1;
    sqlite3_close(self->handle);
    self->handle = NULL;
    bool refused = code == SQLITE_READONLY || code == SQLITE_CANTOPEN || code == SQLITE_IOERR ||
                   code == SQLITE_FULL;
    return (read_only || refused) && open_read_only(self, path);
}

void db_close(struct db *self)
{
    for (int i = 0; i < SQL_STATEMENTS; i++)
        sqlite3_finalize(self->statements[i]);
    sqlite3_close(self->handle);
    memset(self, 0, sizeof *self);
}
