/*
 * connect.h
 *		The proof that what the node reaches as the primary is this server.
 */
#ifndef FOLLOW_PRIMARY_CONNECT_H
#define FOLLOW_PRIMARY_CONNECT_H

#include "steps/step.h"

/*
 * Tries the connections to this server that the plan needs, from the node.
 * Raises 08006 where one cannot be made, or leads to another server.
 */
extern StepResult connect_prove(Job *job);

/*
 * Begins that where one connection is all that the plan needs: the node makes it while
 * it is locked.  A job that goes on otherwise gives it up.
 */
extern void connect_begin(Job *job);

/*
 * The same for some of them: the one that its server follows by, and those of
 * pg_basebackup and pg_rewind ("" = not that one).  The job needs a token.  Returns
 * NULL, or the functions that pg_rewind's role may not run, which it needs.
 */
extern const char *connect_try(Job *job, const char *copy, const char *rewind, bool follow, int timeout_ms);

#endif							/* FOLLOW_PRIMARY_CONNECT_H */
