/*
 * timeline.h
 *		Timeline histories, and where two of them part.
 */
#ifndef FOLLOW_PRIMARY_TIMELINE_H
#define FOLLOW_PRIMARY_TIMELINE_H

#include "access/xlogdefs.h"

/* A stretch of WAL on one timeline. */
typedef struct Stretch
{
	TimeLineID	tli;
	XLogRecPtr	begin;			/* inclusive; 0 for the first timeline */
	XLogRecPtr	end;			/* the switchpoint to the next timeline;
								 * InvalidXLogRecPtr for the last one */
} Stretch;

/* A server's history, oldest timeline first. */
typedef struct History
{
	int			length;
	Stretch    *stretches;
} History;

/* "X/Y" as an LSN; false, and *lsn as it was, for anything else, or NULL. */
extern bool lsn_parse(const char *text, XLogRecPtr *lsn);

/* The reverse, palloc'd. */
extern char *lsn_text(XLogRecPtr lsn);

/*
 * Parses the text of a history file (NULL or "" for a timeline without one,
 * which is the first) into the history of timeline tli.  Returns false on text
 * that is no history file; then *history is that of a lone timeline.
 */
extern bool history_parse(const char *text, TimeLineID tli, History *history);

/* The stretch of a timeline in a history, or NULL. */
extern const Stretch *history_find(const History *history, TimeLineID tli);

/*
 * The point up to which both histories are the same: the end of the last
 * common stretch.  Returns false if they have nothing in common.  *lsn is
 * InvalidXLogRecPtr when both are on the same, last timeline: then they part
 * nowhere as far as histories tell.
 */
extern bool history_common(const History *a, const History *b,
						   TimeLineID *tli, XLogRecPtr *lsn);

#endif							/* FOLLOW_PRIMARY_TIMELINE_H */
