/*
 * node.h
 *		What can be done to the node, a step each.
 *
 * Every function runs one or two scripts of src/remote and turns what they say
 * into an error that names the node, or into the step's detail.  All raise
 * what remote_run() raises.
 */
#ifndef FOLLOW_PRIMARY_NODE_H
#define FOLLOW_PRIMARY_NODE_H

#include "method.h"
#include "remote.h"

/*
 * Takes the lock on the node itself, for as long as the connection lasts.
 * STEP_NEEDS_PLAN if another job may have had it since the survey.
 * Raises 55006 when another job has it, from whichever server.
 */
extern StepResult node_lock(Job *job);

/* Can it connect to this server, as a rewind and what follows needs it? */
extern StepResult node_connect(Job *job);

/* Stops its server, cleanly; one that is down already is fine. */
extern StepResult node_stop(Job *job);

/*
 * Starts it again after a job that failed, if it was a standby and its data is
 * what it was: start.sh refuses any other.
 */
extern void node_undo_stop(Job *job);

/* Starts its server and waits until it takes connections, or replays. */
extern StepResult node_start(Job *job);

/* Puts its configuration aside, which a rewind or a copy replaces. */
extern StepResult node_save_config(Job *job);

/* Counts and saves the WAL that only the node has, once in a job. */
extern StepResult node_save_wal(Job *job);

/* Once it is proven: that it is half-changed is not so any more. */
extern void node_remove_mark(Job *job);

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
extern bool node_read_lost_wal(const RemoteReply *reply, LostWal *lost);

/* Rewinds its data. STEP_NEEDS_COPY if only a copy can help. */
extern StepResult node_rewind(Job *job);

/* Copies this server beside the node's data, and verifies the copy. */
extern StepResult node_copy(Job *job);

/*
 * Removes its data to make room for the copy.  STEP_NEEDS_PLAN if there is
 * room meanwhile.
 */
extern StepResult node_clear(Job *job);

/* Brings the copy into the data directory's place. */
extern StepResult node_swap(Job *job);

/* Makes the data directory a standby of this server, settings and all. */
extern StepResult node_configure(Job *job);

/* New settings for a running standby, and a reload. */
extern StepResult node_repoint(Job *job);

/* Puts the settings back that a repoint replaced, and reloads. */
extern void node_undo_repoint(Job *job);

/* The same where they are read at a start: stops, puts back, starts. */
extern void node_undo_restart(Job *job);

/* Removes what the job left beside the data, now that the node is proven. */
extern StepResult node_clean(Job *job);

/* "host:port", for messages. */
extern char *node_name(const Job *job);

#endif							/* FOLLOW_PRIMARY_NODE_H */
