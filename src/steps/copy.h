/*
 * copy.h
 *		The node gets a new copy of this server.
 */
#ifndef FOLLOW_PRIMARY_COPY_H
#define FOLLOW_PRIMARY_COPY_H

#include "steps/step.h"

/* Is there as much room as was planned with? Else STEP_NEEDS_PLAN. */
extern StepResult copy_check_space(Job *job);

/* Copies this server beside the node's data, and verifies the copy. */
extern StepResult copy_make(Job *job);

/*
 * Removes the node's data to make room for the copy.  STEP_NEEDS_PLAN if there is
 * room meanwhile.
 */
extern StepResult copy_clear(Job *job);

/* Brings the copy into the data directory's place. */
extern StepResult copy_swap(Job *job);

#endif							/* FOLLOW_PRIMARY_COPY_H */
