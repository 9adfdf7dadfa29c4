/*
 * node.h
 *		The node as a server: it is locked, stopped, started, and cleaned up after.
 */
#ifndef FOLLOW_PRIMARY_NODE_H
#define FOLLOW_PRIMARY_NODE_H

#include "steps/step.h"

/*
 * Takes the lock on the node itself, for as long as the connection lasts.
 * STEP_NEEDS_PLAN if another job may have had it since the survey.
 * Raises 55006 when another job has it, from whichever server.
 */
extern StepResult node_lock(Job *job);

/* Stops its server, cleanly; one that is down already is fine. */
extern StepResult node_stop(Job *job);

/*
 * Starts it again after a job that failed, if it was a standby and its data is
 * what it was: start.sh refuses any other.
 */
extern void node_undo_stop(Job *job);

/*
 * Stops a server that has become a primary since this job started it, makes its
 * data that of a standby for whoever starts it next, and raises 55000.
 */
pg_noreturn extern void node_fail_promoted(Job *job);

/* Starts its server and waits until it takes connections, or replays. */
extern StepResult node_start(Job *job);

/* Removes the mark that the node is half-changed, now that it is proven to follow. */
extern void node_remove_mark(Job *job);

/* Removes what the job left beside the data, now that the node is proven. */
extern StepResult node_clean(Job *job);

#endif							/* FOLLOW_PRIMARY_NODE_H */
