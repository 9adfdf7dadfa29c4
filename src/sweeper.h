/*
 * sweeper.h
 *		The preloaded worker that cleans up after jobs whose workers could not.
 */
#ifndef FOLLOW_PRIMARY_SWEEPER_H
#define FOLLOW_PRIMARY_SWEEPER_H

/*
 * While shared_preload_libraries are loaded: has the postmaster sweep every
 * database as soon as this server is a primary.
 */
extern void sweeper_register(void);

extern PGDLLEXPORT void follow_primary_sweeper_main(Datum main_arg);

#endif							/* FOLLOW_PRIMARY_SWEEPER_H */
