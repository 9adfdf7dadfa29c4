/*
 * sweeper.h
 *		Corrects the rows of jobs whose workers could not write how they ended.
 */
#ifndef FOLLOW_PRIMARY_SWEEPER_H
#define FOLLOW_PRIMARY_SWEEPER_H

/*
 * While shared_preload_libraries are loaded: has the postmaster sweep every
 * database as soon as this server is a primary.
 */
extern void sweeper_register(void);

/*
 * In a worker after sql_start_worker(): sweeps its database, if the extension is
 * there.
 */
extern void sweeper_sweep(void);

extern PGDLLEXPORT void follow_primary_sweeper_main(Datum main_arg);

#endif							/* FOLLOW_PRIMARY_SWEEPER_H */
