/*
 * trial.h
 *		What a method will need is tried before its first stop.
 */
#ifndef FOLLOW_PRIMARY_TRIAL_H
#define FOLLOW_PRIMARY_TRIAL_H

#include "steps/step.h"

/*
 * Looks for what would end the method half-way: files of either side, the node's
 * configuration and programs, its server's refusal to let us in.  Changes nothing,
 * and raises an error for each, or returns STEP_NEEDS_COPY where a copy cures it.
 */
extern StepResult trial_run(Job *job);

/*
 * The same for a node that was repointed, and does not stream within a second: a
 * repoint that is well has no time for it.
 */
extern void trial_after_repoint(Job *job);

#endif							/* FOLLOW_PRIMARY_TRIAL_H */
