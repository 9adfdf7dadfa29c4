/*
 * process.h
 *		The processes of this library: what the postmaster is asked for, and how
 *		they begin.
 */
#ifndef FOLLOW_PRIMARY_PROCESS_H
#define FOLLOW_PRIMARY_PROCESS_H

#include "postmaster/bgworker.h"

/*
 * What the postmaster is asked for: a process of this library that runs the
 * function, on a primary.  If it dies it is started again, after a minute or, when
 * the whole server has crashed, at once.  The caller gives it a name.
 */
extern BackgroundWorker process_of(const char *function);

/* Also what its messages say. */
#define PROCESS_RESTART_S	60

/*
 * How long a statement of such a process waits for a lock.  A lock on a table
 * of the extension must not keep a node down, nor a server from shutting down.
 */
#define PROCESS_LOCK_TIMEOUT	"5s"

/*
 * Connects the process to a database, as the bootstrap superuser, with settings of
 * its own whatever the configuration says.  It can use the functions of sql.h then,
 * and those of the server that need a resource owner, though it has no transaction
 * between statements.
 */
extern void process_start(Oid database);

/* The databases that take connections, for a process that has none of its own. */
extern Oid *process_databases(int *n);

#endif							/* FOLLOW_PRIMARY_PROCESS_H */
