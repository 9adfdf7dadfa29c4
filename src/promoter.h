/*
 * promoter.h
 *		The worker that keeps a switchover's promise to promote this server.
 */
#ifndef FOLLOW_PRIMARY_PROMOTER_H
#define FOLLOW_PRIMARY_PROMOTER_H

#include "utils/timestamp.h"

/*
 * Has the postmaster keep the promise that this session is about to make: this server
 * is promoted if there is the file (relative to the data directory) when the session
 * has its advisory lock no longer.  Returns when the worker runs; it ends by itself.
 * Raises 53400 if no worker is free, 58000 if it does not run by the deadline.
 */
extern void promoter_start(const char *file, int64 lock, TimestampTz deadline);

extern PGDLLEXPORT void follow_primary_promoter_main(Datum main_arg);

#endif							/* FOLLOW_PRIMARY_PROMOTER_H */
