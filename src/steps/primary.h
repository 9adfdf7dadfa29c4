/*
 * primary.h
 *		What is done on this server: checkpoint and slot.
 */
#ifndef FOLLOW_PRIMARY_PRIMARY_H
#define FOLLOW_PRIMARY_PRIMARY_H

#include "steps/step.h"

/*
 * Makes sure that this server's control file shows its own timeline, by which
 * pg_rewind judges.  Raises 55000 if it does not in the end.
 */
extern StepResult primary_checkpoint(Job *job);

/*
 * Makes sure that there is a physical slot of the node's which holds back WAL.
 * A slot that has lost its WAL, or never reserved any, is made anew.  Sets
 * job->slot_made if it was not there before.
 */
extern StepResult primary_ensure_slot(Job *job);

/* Drops a slot when nobody streams through it, or soon stops to. Never raises. */
extern void primary_drop_slot(const char *slot);

/* Drops the slot if this job made it and nobody streams from it. Never raises. */
extern void primary_drop_made_slot(Job *job);

/* Drops the slot here that the node has streamed through until now. Never raises. */
extern void primary_drop_former_slot(Job *job);

#endif							/* FOLLOW_PRIMARY_PRIMARY_H */
