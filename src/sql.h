/*
 * sql.h
 *		SQL on this server, one statement at a time.
 */
#ifndef FOLLOW_PRIMARY_SQL_H
#define FOLLOW_PRIMARY_SQL_H

#include "utils/palloc.h"
#include "utils/resowner.h"

/*
 * In a worker: what the server's code owns between transactions belongs to this
 * owner from now on.
 */
extern void sql_keep_owner(ResourceOwner owner);

/* Rows as text; a NULL is a NULL pointer. */
typedef struct SqlResult
{
	int			nrows;
	int			ncols;
	char	  **names;			/* of the columns */
	char	  **values;			/* row by row */
} SqlResult;

#define sql_value(result, row, col) ((result)->values[(row) * (result)->ncols + (col)])

/*
 * Runs one statement with text parameters ($1 ..., NULL for a null; cast them
 * in the statement).  In a worker, which has no transaction between
 * statements, it is a transaction of its own, committed on return; in a
 * caller's session it is part of the caller's.  The result is palloc'd in the
 * current context.
 */
extern SqlResult *sql_run(const char *statement, int nargs,
						  const char *const *args);

/*
 * Rows of follow_primary_node.  Raises 55P03 where somebody has a lock on the table for
 * more than a few seconds: a caller may have no lock_timeout.
 */
extern SqlResult *sql_read_nodes(const char *schema, const char *columns,
								 const char *rest, int nargs,
								 const char *const *args);

/*
 * In a worker: a statement that writes.  If durably, it is on disk on return, and
 * all that was written before; else it gets there a moment later
 * (synchronous_commit is off in a worker), for a flush wakes all standbys.
 */
extern SqlResult *sql_write(const char *statement, int nargs,
							const char *const *args, bool durably);

/* The value of a statement's first row and column, or NULL. */
extern char *sql_scalar(const char *statement, int nargs,
						const char *const *args);

/* Is that first value true? */
extern bool sql_is_true(const char *statement, int nargs,
						const char *const *args);

/*
 * On a standby, replay of a VACUUM waits for the end of each transaction that had a
 * snapshot then, though it may have none any more: up to max_standby_streaming_delay,
 * for a session that waits for this very replay.  sql_let_replay_go_on() has it wait for
 * this transaction no longer, where that has no snapshot; sql_hold_up_replay() is for
 * before the next one.  sql_run() and its like do both.
 */
extern void sql_hold_up_replay(void);
extern void sql_let_replay_go_on(void);

/* SQL: the timeline that this server writes. */
#define SQL_TIMELINE \
	"('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint"

/*
 * sql_scalar() with a snapshot of this moment: it sees what was committed since
 * the caller's transaction began, at every isolation level.  For queries.
 */
extern char *sql_scalar_latest(const char *statement, int nargs,
							   const char *const *args);

/*
 * In a worker's PG_CATCH: writes the error to the server log, forgets it and
 * aborts whatever transaction there is.  Returns a copy of the error in the
 * given context, which becomes the current one.
 */
extern ErrorData *sql_recover(MemoryContext context);

/* The same without a line in the log. */
extern ErrorData *sql_recover_quietly(MemoryContext context);

/*
 * The text itself if it is valid in the database's encoding, else a copy with
 * every byte above ASCII replaced: what other machines say may be in any.
 */
extern char *sql_text(const char *text);

#endif							/* FOLLOW_PRIMARY_SQL_H */
