/*
 * keeper.h
 *		The preloaded workers that keep WAL for siblings, and run the check of
 *		readiness.
 */
#ifndef FOLLOW_PRIMARY_KEEPER_H
#define FOLLOW_PRIMARY_KEEPER_H

#include "fmgr.h"

/* Registers the first worker; for _PG_init while the library is preloaded. */
extern void keeper_register(void);

extern PGDLLEXPORT void follow_primary_keeper_main(Datum main_arg);

#endif							/* FOLLOW_PRIMARY_KEEPER_H */
