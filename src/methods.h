/*
 * methods.h
 *		The methods, each a list of steps.
 */
#ifndef FOLLOW_PRIMARY_METHODS_H
#define FOLLOW_PRIMARY_METHODS_H

#include "steps/step.h"

/* A step: safe to run again, bounded by deadlines, raises what ends the job. */
typedef struct Step
{
	const char *name;
	StepResult	(*run) (Job *job);
	int			ways;			/* the ways that it belongs to, see methods.c */
	bool		(*applies) (const Job *job);	/* NULL: always */
	bool		wants_slot;		/* from this step on the node's data, or
								 * settings, may need the job's slot */
	bool		leaves_nothing; /* no later call need know that it ran */
} Step;

/*
 * The step of the job's plan that follows another one (NULL: the first) and
 * applies, or NULL at the end.
 */
extern const Step *method_next_step(const Job *job, const Step *step);

/* The names of the steps that want the slot, separated by commas. */
extern char *methods_slot_steps(void);

#endif							/* FOLLOW_PRIMARY_METHODS_H */
