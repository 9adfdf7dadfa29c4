/*
 * method.h
 *		The methods, each a list of steps.
 */
#ifndef FOLLOW_PRIMARY_METHOD_H
#define FOLLOW_PRIMARY_METHOD_H

#include "job.h"

typedef enum StepResult
{
	STEP_DONE,
	STEP_NEEDS_COPY,			/* it failed for a reason that a copy cures */
	STEP_NEEDS_PLAN				/* the node is not any more what was planned
								 * for; job has the new facts */
} StepResult;

/*
 * A step: safe to run again, bounded by deadlines, raises what ends the job.
 */
typedef struct Step
{
	const char *name;
	StepResult	(*run) (Job *job);
} Step;

/* The steps, ended by one without a name. */
extern const Step none_steps[];
extern const Step repoint_steps[];
extern const Step repoint_restart_steps[];
extern const Step rewind_steps[];
extern const Step basebackup_steps[];
extern const Step in_place_steps[];
extern const Step finish_steps[];

/* The steps of a plan; NULL for those that have none. */
extern const Step *plan_steps(const JobPlan *plan);

/*
 * Is the step taken?  Without a node_id nothing is attached, and a node that
 * follows already is locked and cleaned only if an interrupted job left
 * something there.
 */
extern bool step_applies(const Step *step, const Job *job);

#endif							/* FOLLOW_PRIMARY_METHOD_H */
