/*
 * snapshot.h
 *		A caller who waits for hours holds no snapshot.
 */
#ifndef FOLLOW_PRIMARY_SNAPSHOT_H
#define FOLLOW_PRIMARY_SNAPSHOT_H

#include "fmgr.h"

/*
 * Lets go of the snapshots of the query that called the function, if nothing
 * of it can need them any more: it is the plain SELECT of, or from, this one
 * function, called with constants, and every statement of the transaction takes a
 * snapshot of its own.  Returns false, and does nothing, if it is not.
 * Between true and snapshot_retake() only an error may leave the function;
 * SQL in between takes snapshots of its own.
 */
extern bool snapshot_release(FunctionCallInfo fcinfo);

/* Gives the query new ones. */
extern void snapshot_retake(void);

#endif							/* FOLLOW_PRIMARY_SNAPSHOT_H */
