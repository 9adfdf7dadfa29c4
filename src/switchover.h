/*
 * switchover.h
 *		This standby becomes the primary in place of the one that it follows.
 */
#ifndef FOLLOW_PRIMARY_SWITCHOVER_H
#define FOLLOW_PRIMARY_SWITCHOVER_H

#include "cluster.h"

/*
 * Stops the primary, promotes this standby, and makes the former primary and all
 * other nodes follow it.  The time limit is for all but the last, in milliseconds.
 * Returns the nodes' jobs (ClusterJob).  Raises before the promotion, when the
 * primary is again, or still, what it was:
 *   55000 this is not the moment, 08001, 08006, 28000 ... what a connection to the
 *   primary's host raises, 58000 the time limit
 */
extern List *switchover_run(FunctionCallInfo fcinfo, int timeout_ms);

#endif							/* FOLLOW_PRIMARY_SWITCHOVER_H */
