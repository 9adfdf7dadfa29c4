/*
 * sweeper.h
 *		Cleans up, on this server, after jobs whose workers could not.
 */
#ifndef FOLLOW_PRIMARY_SWEEPER_H
#define FOLLOW_PRIMARY_SWEEPER_H

/*
 * While shared_preload_libraries are loaded: has the postmaster sweep every
 * database as soon as this server is a primary.
 */
extern void sweeper_register(void);

/*
 * Rows that say "running" without a live worker become "interrupted", and the
 * slots that those jobs made go, unless their nodes may know them by now.  In a
 * job's worker.  The schema is the extension's, quoted.  What others have locked
 * for longer than a moment is left to the next.
 */
extern void sweeper_sweep(const char *schema);

/*
 * The same in a worker that does not know the schema; nothing if the database
 * does not have the extension.  After some tries it gives up, with the errors in
 * the server's log.
 */
extern void sweeper_sweep_database(void);

extern PGDLLEXPORT void follow_primary_sweeper_main(Datum main_arg);

#endif							/* FOLLOW_PRIMARY_SWEEPER_H */
