/*
 * rewind.h
 *		The node's data goes back to the fork.
 */
#ifndef FOLLOW_PRIMARY_REWIND_H
#define FOLLOW_PRIMARY_REWIND_H

#include "steps/step.h"

/* A script has said that only a copy helps: STEP_NEEDS_COPY, or an error if none may be made. */
extern StepResult rewind_impossible(Job *job, const RemoteReply *reply);

/* Rewinds the node's data. STEP_NEEDS_COPY if only a copy can help. */
extern StepResult rewind_data(Job *job);

#endif							/* FOLLOW_PRIMARY_REWIND_H */
