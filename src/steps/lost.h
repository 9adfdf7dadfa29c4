/*
 * lost.h
 *		The WAL that only the node has: saved, and counted.
 */
#ifndef FOLLOW_PRIMARY_LOST_H
#define FOLLOW_PRIMARY_LOST_H

#include "steps/step.h"

/*
 * Saves the WAL that only the node has, once in a job: it gets a second name, which
 * rewind_data(), copy_clear() or node_clean() makes the only one.
 */
extern StepResult lost_save(Job *job);

/*
 * Records that what was given a second name is saved, and not counted yet, if a script
 * says so, and where.
 */
extern void lost_record_saved(Job *job, const RemoteReply *reply);

/*
 * Counts what has been discarded, and nobody has counted yet: by this job, and by
 * interrupted ones.  The node follows by now.
 */
extern StepResult lost_count(Job *job);

/* What count_wal.sh said of it, or stage_wal.sh of data that is kept. */
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
extern bool lost_read(const RemoteReply *reply, LostWal *lost);

#endif							/* FOLLOW_PRIMARY_LOST_H */
