#ifndef MESHPERF_STORE_SQL_H
#define MESHPERF_STORE_SQL_H

// The database file: opening, schema, prepared statements. Private to the store. One thread at a
// time uses a struct db: the one that opens it until store_start, then the writer.

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum statement {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_PROBE,
    SQL_META_GET,
    SQL_META_ADD,
    SQL_META_RAISE,
    SQL_AGENT_PUT,
    SQL_AGENT_DROP,
    SQL_AGENTS,
    SQL_TOKEN_PUT,
    SQL_TOKENS,
    SQL_OPERATOR_PUT,
    SQL_OPERATOR_DROP,
    SQL_OPERATORS,
    SQL_AUDIT_ADD,
    SQL_AUDIT_COUNT,
    SQL_AUDIT_PAGE,
    SQL_RUN_ADD,
    SQL_RUN_AGENT_ADD,
    SQL_RUN_PLACES_ADD,
    SQL_RUN_PUT,
    SQL_RUN_COUNT,
    SQL_RUN_PAGE,
    SQL_RUN_LAST,
    SQL_RUN_GET,
    SQL_RUN_UNFINISHED,
    SQL_RUN_AGENTS,
    SQL_RUN_PLACES,
    SQL_POLICY_ADD,
    SQL_POLICY_GET,
    SQL_CELL_PUT,
    SQL_CELL_PAGE,
    SQL_CELL_STATES,
    SQL_STATEMENTS,
};

struct db {
    sqlite3 *handle;
    sqlite3_stmt *statements[SQL_STATEMENTS]; // prepared when first used
};

// Opens or creates, sets the pragmas and migrates. A file that cannot be written is opened for
// reading; writes then fail with -EROFS. False with a sentence in `error` (512 bytes).
bool db_open(struct db *self, const char *path, char *error);
void db_close(struct db *self);

// Steps of the schema: after step n the file has user_version n. For tests of migrations.
const char *const *db_migrations(size_t *count);

// Resets the statement and binds by `types`: i int64_t, t text or NULL, b blob and size_t, d
// double, o int and double (NULL if the int is 0). Bound memory must outlive the steps. NULL on
// failure.
sqlite3_stmt *db_bind(struct db *self, enum statement which, const char *types, ...);
// 1: there is a row; 0: there is none (any more); negative: an error. Resets unless there is a row.
int db_step(struct db *self, sqlite3_stmt *statement) __attribute__((warn_unused_result));
// Binds and steps to the end: 0 or a negative error.
#define db_run(self, which, ...) db_finish(self, db_bind(self, which, __VA_ARGS__))
int db_finish(struct db *self, sqlite3_stmt *statement) __attribute__((warn_unused_result));

// Text of a column, "" for NULL; valid until the next step.
const char *db_text(sqlite3_stmt *statement, int column);
const void *db_blob(sqlite3_stmt *statement, int column, size_t *size);

// Is the file or its disk at fault, and not the row? Then every other write would fail too.
bool db_error_is_storage(int error);

#endif
