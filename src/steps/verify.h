/*
 * verify.h
 *		The proof that a node follows this server.
 */
#ifndef FOLLOW_PRIMARY_VERIFY_H
#define FOLLOW_PRIMARY_VERIFY_H

#include "steps/step.h"

/*
 * Returns when it is proven that the node follows: its WAL receiver streams
 * from this server, on this timeline, through the job's slot, and a row that
 * was written here after it had attached is visible there.  Raises 55000 when
 * the time limit passes before that, with what was missing.
 */
extern StepResult verify_follows(Job *job);

/* What verify.sh has seen, as a phrase, or NULL if it does not say. */
extern const char *verify_seen(const RemoteReply *reply);

#endif							/* FOLLOW_PRIMARY_VERIFY_H */
