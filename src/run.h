/*
 * run.h
 *		The job's loop: survey, plan, steps.
 */
#ifndef FOLLOW_PRIMARY_RUN_H
#define FOLLOW_PRIMARY_RUN_H

#include "job.h"

/*
 * Chooses the job's plan from the facts of its survey, and asks the node for room
 * where the plan is a copy.  Raises what remote_run() raises.
 */
extern void plan_job(Job *job, RequestedMethod requested, bool rejoin_when_down);

/* Runs a job from its row to its end. Raises what ends it otherwise. */
extern void run_job(Job *job);

/*
 * Puts back what can be put back, after an error and before it is recorded; job->undone
 * says what that was.  In a hurry, as when this server shuts down, it takes no longer
 * than a few seconds; a signal that comes meanwhile is a hurry, too.  Never raises.
 */
extern void run_clean_up(Job *job, bool in_hurry);

#endif							/* FOLLOW_PRIMARY_RUN_H */
