/*
 * rewind.h
 *		The node's data goes back to the fork; what only the node has is saved.
 */
#ifndef FOLLOW_PRIMARY_REWIND_H
#define FOLLOW_PRIMARY_REWIND_H

#include "steps/step.h"

/* Counts and saves the WAL that only the node has, once in a job. */
extern StepResult rewind_save_wal(Job *job);

/* What save_wal.sh said of it. */
typedef struct LostWal
{
	bool		counted;		/* else all that may be lost is saved */
	int64		bytes;
	int64		transactions;
	int64		unarchived;		/* segments from before the fork */
	bool		complete;		/* else some of it is gone, and not counted */
	const char *dir;			/* NULL if nothing is saved */
} LostWal;

/* False if the reply lacks something, or makes no sense. */
extern bool rewind_read_lost_wal(const RemoteReply *reply, LostWal *lost);

/* OID and location of each of this server's tablespaces, as rewind.sh and try.sh take them. */
extern const char **rewind_tablespaces(void);

/* A script has said that only a copy helps: STEP_NEEDS_COPY, or an error if none may be made. */
extern StepResult rewind_impossible(Job *job, const RemoteReply *reply);

/* Rewinds the node's data. STEP_NEEDS_COPY if only a copy can help. */
extern StepResult rewind_data(Job *job);

#endif							/* FOLLOW_PRIMARY_REWIND_H */
