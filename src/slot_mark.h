/*
 * slot_mark.h
 *		Which replication slots of this server are this extension's.
 */
#ifndef FOLLOW_PRIMARY_SLOT_MARK_H
#define FOLLOW_PRIMARY_SLOT_MARK_H

typedef enum SlotMark
{
	SLOT_OF_OTHERS,
	SLOT_OF_KEEPER,				/* keeps WAL for a sibling, should this server be
								 * promoted */
	SLOT_OF_JOB					/* a job gave it to a node, or made it for one */
} SlotMark;

/* Whose is the slot? A slot that does not exist counts as another's. */
extern SlotMark slot_mark(const char *slot);

/* Writes whose the slot is, durably. Raises 58030 if that is not possible. */
extern void slot_set_mark(const char *slot, SlotMark mark);

/*
 * Makes a physical slot that reserves WAL, and marks it as the keeper's: whatever
 * happens in between, the slot is known to be the keeper's afterwards, at the
 * latest when this is called again.  Nothing if the slot is there.
 */
extern void slot_make_for_keeper(const char *slot);

#endif							/* FOLLOW_PRIMARY_SLOT_MARK_H */
