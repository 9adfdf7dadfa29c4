/*
 * timeline.c
 *		Timeline histories, and where two of them part.
 *
 * Pure functions.  The format of a history file and the search for the common
 * ancestor follow PostgreSQL's src/backend/access/transam/timeline.c and
 * src/bin/pg_rewind/timeline.c.
 */
#include "postgres.h"

#include "compat.h"
#include "timeline.h"

bool
lsn_parse(const char *text, XLogRecPtr *lsn)
{
	unsigned int hi;
	unsigned int lo;

	if (text == NULL || sscanf(text, "%X/%X", &hi, &lo) != 2)
		return false;
	*lsn = ((uint64) hi << 32) | lo;
	return true;
}

char *
lsn_text(XLogRecPtr lsn)
{
	return psprintf(LSN_FORMAT, (uint32) (lsn >> 32), (uint32) lsn);
}

bool
history_parse(const char *text, TimeLineID tli, History *history)
{
	int			capacity = 8;
	XLogRecPtr	begin = 0;
	bool		valid = true;

	history->length = 0;
	history->stretches = palloc(capacity * sizeof(Stretch));

	for (const char *line = text; line && *line;)
	{
		unsigned int entry_tli;
		unsigned int hi;
		unsigned int lo;
		const char *start = line + strspn(line, " \t");
		Stretch    *stretch;

		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
		if (*start == '\n' || *start == '\0' || *start == '#')
			continue;

		if (sscanf(start, "%u\t%X/%X", &entry_tli, &hi, &lo) != 3 ||
			entry_tli == 0 || entry_tli >= tli ||
			(history->length > 0 &&
			 entry_tli <= history->stretches[history->length - 1].tli) ||
			(((uint64) hi << 32) | lo) < begin)
		{
			valid = false;
			history->length = 0;
			begin = 0;
			break;
		}
		if (history->length + 1 == capacity)
			history->stretches = repalloc(history->stretches,
										  (capacity *= 2) * sizeof(Stretch));
		stretch = &history->stretches[history->length++];
		stretch->tli = entry_tli;
		stretch->begin = begin;
		stretch->end = begin = ((uint64) hi << 32) | lo;
	}
	history->stretches[history->length].tli = tli;
	history->stretches[history->length].begin = begin;
	history->stretches[history->length].end = InvalidXLogRecPtr;
	history->length++;
	return valid;
}

const Stretch *
history_find(const History *history, TimeLineID tli)
{
	for (int i = history->length - 1; i >= 0; i--)
		if (history->stretches[i].tli == tli)
			return &history->stretches[i];
	return NULL;
}

bool
history_common(const History *a, const History *b,
			   TimeLineID *tli, XLogRecPtr *lsn)
{
	int			n = Min(a->length, b->length);
	int			i = 0;

	while (i < n && a->stretches[i].tli == b->stretches[i].tli &&
		   a->stretches[i].begin == b->stretches[i].begin)
		i++;
	if (i == 0)
		return false;

	/* The last common stretch ends where the first of the two leaves it. */
	*tli = a->stretches[i - 1].tli;
	if (XLogRecPtrIsInvalid(a->stretches[i - 1].end))
		*lsn = b->stretches[i - 1].end;
	else if (XLogRecPtrIsInvalid(b->stretches[i - 1].end))
		*lsn = a->stretches[i - 1].end;
	else
		*lsn = Min(a->stretches[i - 1].end, b->stretches[i - 1].end);
	return true;
}
