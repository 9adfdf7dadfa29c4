/*
 * sweep.h
 *		Cleans up, on this server, after jobs whose workers could not.
 */
#ifndef FOLLOW_PRIMARY_SWEEP_H
#define FOLLOW_PRIMARY_SWEEP_H

/*
 * Rows that say "running" without a live worker become "interrupted", and the
 * slots that those jobs made go, unless their nodes may know them by now.  In a
 * job's worker, whose own row is left as it is.  The schema is the extension's,
 * quoted.  What others have locked for longer than a moment is left to the next.
 */
extern void sweep(const char *schema, int64 own_job);

/*
 * The same in a worker that does not know the schema; nothing if the database
 * does not have the extension.  After some tries it gives up, with the errors in
 * the server's log.
 */
extern void sweep_database(void);

/*
 * The extension's schema in this database, quoted; NULL if it is not there, or
 * still 1.0, or if its schema is not a superuser's.
 */
extern char *sweep_find_schema(void);

#endif							/* FOLLOW_PRIMARY_SWEEP_H */
